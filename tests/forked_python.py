"""Python commands and notebook kernels in processes that are forked from one which has imported the
large packages.

Most tests of commands and notebooks would otherwise spend their time importing PyTorch: two to six
seconds each. The server imports third-party packages only: our own modules are imported by each
command anew.
"""

import contextlib
import gc
import json
import os
import runpy
import selectors
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from functools import partial

# none that starts threads, which do not live on in a fork (ONNX Runtime, OpenVINO)
PACKAGES = (
    "numpy",
    "torch",
    "torch.optim.swa_utils",
    "torch.utils.data",
    "torch._dynamo",
    "torch._functorch.aot_autograd",
    "torch.onnx._internal.exporter._core",
    "onnxscript",
    "pandas",
    "cv2",
    "matplotlib.pyplot",
    "papermill",
    "nbconvert",
    "tqdm.auto",
    "filelock",
    "ipykernel.kernelapp",
    "PIL.Image",
)
KERNEL = ("-m", "ipykernel_launcher", "-f", "{connection_file}")
LONGEST = 200_000  # bytes of a request: most of it is the environment


class ForkedPython:
    """Runs `python SCRIPT …` and `python -m MODULE …` like subprocess.run, by forks of a server.

    Where forks are not safe (anywhere but on Linux), it is subprocess.run.
    """

    def __init__(self):
        self.server = self.folder = None

    def run(self, words, cwd=None, env=None, timeout=300):
        """Run [script or '-m', module or '-c', text, arguments …] -> CompletedProcess with text.
        Raises TimeoutExpired, as subprocess.run."""
        words = [str(word) for word in words]
        env = dict(os.environ if env is None else env)
        if sys.platform != "linux":
            return subprocess.run(
                [sys.executable, *words],
                cwd=cwd,
                env=env,
                timeout=timeout,
                capture_output=True,
                text=True,
            )
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            with ask(self.address(), words, cwd, env, (out, err)) as connection:
                connection.settimeout(timeout)
                try:
                    code = json.loads(connection.recv(100))
                except TimeoutError:
                    raise subprocess.TimeoutExpired(shlex.join(words), timeout) from None
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode())
        return subprocess.CompletedProcess([sys.executable, *words], code, *texts)

    def address(self):
        """The socket of the server, which is started if it is not running."""
        if self.server is None:
            self.folder = tempfile.mkdtemp()
            free = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
            self.server = subprocess.Popen(
                [sys.executable, __file__, "serve", f"{self.folder}/socket"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**free, "OMP_WAIT_POLICY": "PASSIVE"},
            )
            self.server.stdout.readline()  # it listens
        return f"{self.folder}/socket"

    def kernels(self, folder):
        """Write a Jupyter kernel 'python3' that is such a fork into `folder` -> the variables of
        the environment with which Jupyter finds it before its own."""
        if sys.platform != "linux":
            return {}
        place = folder / "kernels" / "python3"
        place.mkdir(parents=True)
        (place / "kernel.json").write_text(
            json.dumps(
                {
                    "display_name": "forked",
                    "language": "python",
                    "argv": [sys.executable, "-IS", __file__, "follow", self.address(), *KERNEL],
                }
            )
        )
        return {"JUPYTER_PATH": str(folder)}

    def stop(self):
        """End the server, and what it runs."""
        if self.server is not None:
            self.server.stdin.close()
            self.server.wait(60)
            shutil.rmtree(self.folder)


def ask(address, words, cwd, env, files):
    """Ask the server for a process with these files as standard output and error -> a connection:
    the exit code will come from it, signal numbers go to it, and the process dies when it is
    closed."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LONGEST)
    connection.connect(address)
    request = {"words": words, "cwd": str(cwd or os.getcwd()), "env": env}
    socket.send_fds(connection, [json.dumps(request).encode()], [file.fileno() for file in files])
    return connection


def follow(address, words):
    """Be a process that the server forks: signals go to it, its exit code becomes this one's, and
    it ends with this process and with the parent of this process."""
    parent = os.getppid()
    with ask(address, words, None, dict(os.environ), (sys.stdout, sys.stderr)) as connection:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: connection.send(b"%d" % number))
        connection.settimeout(0.5)
        while os.getppid() == parent:
            try:
                code = json.loads(connection.recv(100) or b"1")
            except TimeoutError:
                continue
            sys.exit(code if code >= 0 else 128 - code)
    sys.exit(1)


class Server:
    """Forks a process for each connection to its socket, and sends the exit code; ends with
    standard input."""

    def __init__(self, address):
        self.ready, self.running = selectors.DefaultSelector(), {}  # {connection: process}
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(address)
        self.listener.listen(64)
        self.ready.register(self.listener, selectors.EVENT_READ, self.fork)
        self.ready.register(sys.stdin, selectors.EVENT_READ, self.end)

    def serve(self):
        """Serve; returns in a fork only, what is wanted of it and its two files."""
        print(flush=True)  # it listens
        while True:
            for key, _ in self.ready.select():
                if wanted := key.data(key.fileobj):
                    return wanted

    def fork(self, listener):
        """Fork for the next connection; in the fork, return what is wanted and the two files."""
        connection = listener.accept()[0]
        text, files, _, _ = socket.recv_fds(connection, LONGEST, 2)
        child = os.fork()
        if not child:
            for open_file in (*self.running, connection, listener, self.ready):
                open_file.close()
            return json.loads(text), files
        for file in files:
            os.close(file)
        self.running[connection] = child
        self.ready.register(connection, selectors.EVENT_READ, self.signal)
        self.ready.register(
            os.pidfd_open(child), selectors.EVENT_READ, partial(self.report, connection)
        )
        return None

    def signal(self, connection):
        """Pass a signal on to a process, or kill it where the connection is closed."""
        if connection in self.running:  # else its process has just ended
            number = connection.recv(100)
            os.kill(self.running[connection], int(number or signal.SIGKILL))
            if not number:
                self.ready.unregister(connection)

    def report(self, connection, ended):
        """Send the exit code of the process that has `ended`, a file descriptor."""
        code = os.waitstatus_to_exitcode(os.waitpid(self.running.pop(connection), 0)[1])
        with contextlib.suppress(OSError):  # where nobody waits for it any more
            connection.send(json.dumps(code).encode())
        with contextlib.suppress(KeyError):  # closed by the other side
            self.ready.unregister(connection)
        self.ready.unregister(ended)
        os.close(ended)
        connection.close()

    def end(self, _):
        """Kill what runs, and end."""
        for process in self.running.values():
            os.kill(process, signal.SIGKILL)
        sys.exit()


def become(request, files):
    """Take the folder, environment, arguments and output files of a command."""
    for file, number in zip(files, (1, 2), strict=True):
        os.dup2(file, number)
        os.close(file)
    sys.stdin.close()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin = open(0)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    script, *arguments = request["words"]
    module = arguments.pop(0) if script in ("-m", "-c") else None
    sys.argv = [script, *arguments]
    first = os.path.dirname(os.path.realpath(script)) if module is None else request["cwd"]
    paths = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    sys.path[:1] = [first, *paths]
    if module == KERNEL[1]:  # these ask when they are imported whether they are in a notebook
        sys.modules["matplotlib"].rcParams["backend"] = "module://matplotlib_inline.backend_inline"
        sys.modules["pandas"].set_option("display.max_columns", 20)
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
    if sys.argv[1] == "follow":
        follow(sys.argv[2], sys.argv[3:])
    for package in PACKAGES:
        __import__(package)
    gc.freeze()  # a fork need not look through these packages when it ends
    run_as_main(*become(*Server(sys.argv[2]).serve()))
