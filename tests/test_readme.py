"""The commands of README and docs/ run as they are written there, on tiny data in place of the
official set."""

import csv
import os
import re
import shlex
import shutil
import textwrap

import pytest
from conftest import HOME, copy_of_the_repository, write_flagged

TEXT = (HOME / "README.md").read_text()
NETWORKS = (HOME / "docs" / "networks.md").read_text()
COMMAND = (HOME / "docs" / "command.md").read_text()
DOCS = [
    (HOME / "docs" / f"{name}.md").read_text()
    for name in ("command", "training", "benchmarks", "ablation", "method", "results")
]


def blocks_of(text):
    """Pairs (kind, content) of the code blocks of a page."""
    return re.findall(r"```(\w*)\n(.*?)```", text, re.S)


def commands_of(text):
    """Commands of a page, in its code blocks and between backticks."""
    lines = [
        line
        for kind, block in blocks_of(text)
        if kind in ("", "bash")
        for line in block.splitlines()
    ]
    spans = re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.S))
    return [
        command for command in (*lines, *spans) if command.startswith(("python ", "papermill "))
    ]


COMMANDS = [
    command
    for text in (TEXT, *DOCS)
    for command in commands_of(text)
    if not command.endswith("--help") and "browser.py" not in command
]  # needs a browser and npm: tests/browser
SMALLER = (  # the same, in seconds; and names for what stands for one
    (r"--epochs \d+", "--epochs 1"),
    (r"epochs=\d+", "epochs=1"),
    (r"-p net models4", "-p net models9"),  # the network that docs/networks.md adds
    (r"(-p net \w+)", r"\1 -p epochs 1 -p data official"),
    (" …", ""),
    (" --threads 1 2", ""),
    (r"--busy 1", "--busy 1 --seconds 0.1"),
    (r"haar haar_alt2 haar_profile pyramid", "haar pyramid"),
    (
        r"--net models4 models5 --lr 0.001 0.002 --seed 0 1 2",
        "--net models4 --lr 0.001 --batch_size 32",
    ),
    (r"(label_quality\.py)", r"\1 --data official --epochs 1"),
    (r"(ablation\.py).*", r"\1 --epochs 1 --table few.csv 'without negative crops' --seeds 0"),
    (r"(robustness\.py).*", r"\1 models5-person models4"),
    (r"(confidence\.py).*", r"\1 models5-person"),
    (r"(photographs\.py).*", r"\1 models7 --part test"),
    (r"(photograph_ablation\.py).*", r"\1 --epochs 1 --table few.csv 'side 96'"),
    (r"--data FOLDER$", "--data official"),
    (r"(face_detection\.py)", r"\1 --data official --detector haar"),
    (r"(realism\.py)", r"\1 --frames 100"),
    (r"(face_detector\.training .*)", r"\1 --steps 2 --out folder/faces.onnx"),
    (r"(?s)(speed\.py).*", r"\1 models5 --seconds 0.1 --threads 1"),
    (r"\bNAME\b", "models4"),
    (r"\bFOLDER\b", "folder"),
    # the default keeps weights that find faces
    (r"\bFILE\b", "net.onnx"),
    (r"(ship .*) (models\d)$", r"\1 \2-trial"),
)


@pytest.fixture(scope="module")
def clone(tiny, tmp_path_factory):
    """A copy of the repository with a photo, a folder and a clip in it; tiny data are its official
    set, and its photographs labeled by people."""
    import cv2
    import numpy as np

    from research.synthetic.faces import draw_scene

    home = copy_of_the_repository(tmp_path_factory.mktemp("clone"))
    network = re.search(r"Write `models/models9\.py`.*?```python\n(.*?)```", NETWORKS, re.S)[1]
    (home / "models" / "models9.py").write_text(textwrap.dedent(network))
    scene = draw_scene(1, faces=1, width=240, height=200)[0][..., ::-1]
    flagged = tmp_path_factory.mktemp("flagged")
    for rows, name in ((slice(0, 96), "train.json"), (slice(96, None), "test.json")):
        write_flagged(flagged, tiny.select(np.arange(len(tiny))[rows]), name)
    (home / "data").mkdir(exist_ok=True)
    shutil.move(shutil.make_archive(str(flagged), "zip", flagged), home / "data" / "merlrav.zip")
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
def run(python, kernels, clone, tiny_zip):
    """Run words in the clone -> '' or what went wrong."""

    def call(words):
        program = ["-m", "papermill"] if words[0] == "papermill" else []
        done = python(
            [*program, *words[1:]],
            cwd=clone,
            timeout=600,
            env={
                **os.environ,
                **kernels,
                "PYTHONPATH": str(clone),
                "FACIAL_KEYPOINTS_DATA": str(tiny_zip),
            },
        )
        return done.stdout[-500:] + done.stderr[-1500:] if done.returncode else ""

    return call


def kind_of(command):
    """Commands of one kind need nothing of what those of another leave behind."""
    if command.startswith(("papermill", "python batch.py")):
        return "notebooks"
    return "benchmarks" if "benchmarks/" in command and "publish.py" not in command else "others"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["notebooks", "others", "benchmarks"])
def test_every_command_runs(kind, run, clone):
    assert len(COMMANDS) >= 25
    if kind == "others":
        words = shlex.split(
            "python train.py --net models5 --data official --split person --epochs 1"
        )
        assert not run(words), "what make train does"
    smaller = {}
    for command in COMMANDS:
        if kind_of(command) == kind:
            words = command
            for pattern, text in SMALLER:
                words = re.sub(pattern, text, words)
            smaller.setdefault(words, command)
    for words, command in smaller.items():
        wrong = run(shlex.split(words))
        assert not wrong, f"{command}\n({words})\n{wrong}"
    if kind == "notebooks":
        pages = list((clone / "runs" / "latest").glob("[123]*.html"))
        assert len(pages) == 3, "batch.py makes a page of each notebook, with figures"
        assert all("data:image/png" in page.read_text() for page in pages)
        rows = list(csv.DictReader((clone / "runs" / "results.csv").open()))
        own = [row for row in rows if row["net"] == "models9"]
        assert len(own) == 1 and float(own[0]["nme"]) > 0 and own[0]["epochs"] == "1", (
            "the network of the README is trained by its name"
        )


def test_the_lines_of_python_run(python, clone):
    block = next(
        block for kind, block in blocks_of(TEXT) if kind == "python" and "find_keypoints" in block
    )
    done = python(["-c", block], cwd=clone, env={**os.environ, "PYTHONPATH": str(clone)})
    assert done.returncode == 0 and "(68, 2)" in done.stdout, done.stderr


def test_options_of_the_table_exist(command):
    done = command("pipeline.py", "--help")
    options = re.findall(r"`(--[a-z-]+)", COMMAND)
    assert len(options) >= 6 and all(option in done.stdout for option in options)


RECIPES = [
    block
    for kind, block in blocks_of((HOME / "docs" / "recipes.md").read_text())
    if kind == "python" and "fastapi" not in block
]


@pytest.mark.parametrize("number", range(len(RECIPES)))
def test_the_recipes_run(number, python, clone, hopper):
    shutil.copy(hopper[0], clone / "photo.jpg")
    (clone / "photos").mkdir(exist_ok=True)
    shutil.copy(hopper[0], clone / "photos" / "a.jpg")
    done = python(["-c", RECIPES[number]], cwd=clone, env={**os.environ, "PYTHONPATH": str(clone)})
    assert done.returncode == 0, done.stderr
