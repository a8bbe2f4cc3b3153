"""Python commands in processes that are forked from one which has imported the large packages.

Most tests of commands would otherwise spend their time importing PyTorch, two seconds each. The
server imports third-party packages only: our own modules are imported by each command anew.
"""

import gc
import json
import os
import runpy
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# none that starts threads, which do not live on in a fork (ONNX Runtime, OpenVINO)
PACKAGES = ("numpy", "torch", "torch.optim.swa_utils", "torch.utils.data", "torch._dynamo",
            "torch._functorch.aot_autograd", "torch.onnx._internal.exporter._core", "onnxscript",
            "pandas", "cv2", "matplotlib.pyplot", "papermill", "nbconvert", "tqdm.auto",
            "filelock")


class ForkedPython:
    """Runs `python SCRIPT …` and `python -m MODULE …` like subprocess.run, by forks of a server.

    Where forks are not safe (anywhere but on Linux), it is subprocess.run.
    """

    def __init__(self):
        self.server = None

    def run(self, words, cwd=None, env=None, timeout=300):
        """Run [script or '-m', module or '-c', text, arguments …] -> CompletedProcess with text.
        Raises TimeoutExpired, as subprocess.run."""
        words = [str(word) for word in words]
        env = dict(os.environ if env is None else env)
        if sys.platform != "linux":
            return subprocess.run([sys.executable, *words], cwd=cwd, env=env, timeout=timeout,
                                  capture_output=True, text=True)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            self.start()
            request = {"words": words, "cwd": str(cwd or os.getcwd()), "env": env,
                       "out": out.fileno(), "err": err.fileno(), "pid": os.getpid(),
                       "timeout": timeout}
            self.server.stdin.write(json.dumps(request) + "\n")
            self.server.stdin.flush()
            code = json.loads(self.server.stdout.readline())
            if code is None:
                raise subprocess.TimeoutExpired(shlex.join(words), timeout)
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode())
        return subprocess.CompletedProcess([sys.executable, *words], code, *texts)

    def start(self):
        """Start the server if it is not running."""
        if self.server is None:
            free = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
            self.server = subprocess.Popen(
                [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                text=True, env={**free, "OMP_WAIT_POLICY": "PASSIVE"})

    def stop(self):
        """End the server. A word does it: other processes of a test may hold its pipe open."""
        if self.server is not None:
            self.server.stdin.write(json.dumps(None) + "\n")
            self.server.stdin.close()
            self.server.wait(60)


def serve():
    """Fork for each request of standard input, and write the exit code; in the fork, return the
    request."""
    for line in sys.stdin:
        request = json.loads(line)
        if request is None:
            return None
        child = os.fork()
        if not child:
            return request
        end = time.monotonic() + request["timeout"]
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() > end:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                break
            time.sleep(0.005)
        print(json.dumps(os.waitstatus_to_exitcode(ended[1]) if ended[0] else None), flush=True)
    return None


def become(request):
    """Take the folder, environment, arguments and output files of a command."""
    for name, number in (("out", 1), ("err", 2)):
        with open(f"/proc/{request['pid']}/fd/{request[name]}", "r+b") as file:
            os.dup2(file.fileno(), number)
    sys.stdin.close()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin = open(0)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    script, *arguments = request["words"]
    module = arguments.pop(0) if script in ("-m", "-c") else None
    sys.argv = [script, *arguments]
    first = str(Path(script).resolve().parent) if module is None else request["cwd"]
    paths = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    sys.path[:1] = [first, *paths]
    return script, module


def run_as_main(script, module):
    """What `python SCRIPT`, `python -m MODULE` or `python -c TEXT` does from here on."""
    if script == "-c":
        exec(compile(module, "<string>", "exec"), {"__name__": "__main__"})
    elif script == "-m":
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    for package in PACKAGES:
        __import__(package)
    gc.freeze()  # a fork need not look through these packages when it ends
    wanted = serve()
    if wanted is not None:
        run_as_main(*become(wanted))
