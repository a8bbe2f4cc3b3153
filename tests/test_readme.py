"""The README's commands are run as they stand there, on tiny data in the place of the official
set."""

import importlib.util
import os
import re
import shlex

import pytest
from conftest import HOME, copy_of_the_repository

TEXT = (HOME / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", TEXT, re.S)
LINES = [line for kind, block in BLOCKS if kind == "" for line in block.splitlines()]
SPANS = re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", TEXT, flags=re.S))
COMMANDS = [command for command in (*LINES, *SPANS)
            if command.startswith(("python ", "papermill "))]
SMALLER = (  # the same, in seconds; and names for what stands for one
    (r"--epochs \d+", "--epochs 1"), (r"epochs=\d+", "epochs=1 audit_epochs=1"),
    (r"(-p net \w+)", r"\1 -p epochs 1 -p data official"), (" …", ""),
    (r"--net models4 models5 --lr 0.001 0.002 --seed 0 1 2",
     "--net models4 --lr 0.001 0.002 --batch_size 32"),
    (r"(audit\.py)", r"\1 --data official --epochs 1"),
    (r"(ablation\.py)", r"\1 --epochs 1 --table few.csv 'faces alone'"),
    (r"(detectors\.py)", r"\1 --data official --detector haar"),
    (r"(?s)(speed\.py).*", r"\1 models5 --seconds 0.1"), (r"\bNAME\b", "models4"),
    (r"\bFOLDER\b", "folder"),
    # the default keeps weights that find faces
    (r"\bFILE\b", "net.onnx"), (r"(ship .*) models5$", r"\1 models5-trial"),
)


@pytest.fixture(scope="module")
def clone(tiny_zip, tmp_path_factory):
    """A copy of the repository with a photo, a folder and a clip in it; tiny data are its official
    set."""
    import cv2

    from research.synthetic_faces import draw_scene

    home = copy_of_the_repository(tmp_path_factory.mktemp("clone"))
    scene = draw_scene(1, faces=1, width=240, height=200)[0][..., ::-1]
    (home / "folder").mkdir()
    cv2.imwrite(str(home / "photo.jpg"), scene)
    cv2.imwrite(str(home / "folder" / "another.png"), scene)
    (home / "folder" / "boxes.csv").write_text(
        "name,left,top,width,height\nanother.png,60,60,80,80\n"
    )
    clip = cv2.VideoWriter(str(home / "clip.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (240, 200))
    for _ in range(5):
        clip.write(scene)
    clip.release()
    return home


@pytest.fixture(scope="module")
def run(python, clone, tiny_zip):
    """Run words in the clone -> '' or what went wrong."""
    def call(words):
        program = ["-m", "papermill"] if words[0] == "papermill" else []
        done = python([*program, *words[1:]], cwd=clone, timeout=600,
                      env={**os.environ, "PYTHONPATH": str(clone),
                           "FACIAL_KEYPOINTS_DATA": str(tiny_zip)})
        return done.stdout[-500:] + done.stderr[-1500:] if done.returncode else ""
    return call


def is_benchmark(command):
    """True for commands that need nothing of what other commands leave behind."""
    return "benchmarks/" in command and "publish.py" not in command


@pytest.mark.slow
@pytest.mark.parametrize("benchmarks", [False, True], ids=["commands", "benchmarks"])
def test_every_command_runs(benchmarks, run):
    assert len(COMMANDS) >= 15
    if not benchmarks:
        words = ["python", "train.py", "--data", "official", "--split", "official", "--epochs", "1"]
        assert not run(words), "what make train does"
    smaller = {}
    for command in COMMANDS:
        if is_benchmark(command) != benchmarks:
            continue
        if "--onnx" in command and importlib.util.find_spec("onnx") is None:
            continue  # optional; tests/test_runtimes.py says so
        words = command
        for pattern, text in SMALLER:
            words = re.sub(pattern, text, words)
        smaller.setdefault(words, command)
    for words, command in smaller.items():
        wrong = run(shlex.split(words))
        assert not wrong, f"{command}\n({words})\n{wrong}"


def test_the_lines_of_python_run(python, clone):
    block = next(block for kind, block in BLOCKS if kind == "python" and "find_keypoints" in block)
    done = python(["-c", block], cwd=clone, env={**os.environ, "PYTHONPATH": str(clone)})
    assert done.returncode == 0 and "(68, 2)" in done.stdout, done.stderr


def test_options_of_the_table_exist(command):
    done = command("pipeline.py", "--help")
    options = re.findall(r"^\| `(--[a-z]+)", TEXT, re.M)
    assert len(options) >= 6 and all(option in done.stdout for option in options)
