"""Each kind of change touches the files that docs/architecture.md names, and nothing else: the
changes are made in a copy of the repository, and used there."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field

import pytest

from conftest import HOME, copy_of_the_repository

SETTING = '    seed: int = setting(0, "of all random choices", low=0, high=2**32 - 1)\n'


@dataclass(frozen=True)
class Change:
    """A change of one kind: new files {path: text}, edits {path: (text, what takes its place)}, a
    program that uses it, and a word of what the program prints."""

    program: str
    shown: str
    new: dict[str, str] = field(default_factory=dict)
    edits: dict[str, tuple[str, str]] = field(default_factory=dict)


CHANGES = {
    "a layout of keypoints": Change(
        "-m facial_keypoints layouts",
        "triangle",
        new={
            "facial_keypoints/layouts/triangle.toml": 'name = "triangle"\nsource = "a test"\n'
            'keypoints = ["right eye", "left eye", "mouth"]\nmirror = [[0, 1]]\n'
        },
    ),
    "a network": Change(
        "-c \"import models; print(type(models.load_net('models99')).__module__)\"",
        "models.models99",
        new={
            "models/models99.py": "import torch\n\n\nclass Net(torch.nn.Module):\n"
            "    input_size = 32\n\n"
            "    def __init__(self, points=68):\n        super().__init__()\n"
            "        self.linear = torch.nn.Linear(32 * 32, 2 * points)\n\n"
            "    def forward(self, images):\n        return self.linear(images.flatten(1))\n"
        },
    ),
    "a face detector": Change(
        "pipeline.py PHOTO --detector middle --csv -",
        "grace_hopper.jpg,",
        new={
            "detector_architectures/middle.py": "import numpy as np\n\n\nclass Detector:\n"
            "    def detect(self, image):\n        height, width = image.shape[:2]\n"
            "        box = [0.3 * width, 0.2 * height, 0.4 * width, 0.4 * height]\n"
            "        return np.array([box], np.float32), np.ones(1)\n"
        },
    ),
    "a training setting": Change(
        "train.py --help",
        "--patience",
        edits={
            "train.py": (
                SETTING,
                SETTING + '    patience: int = setting(5, "epochs without a gain", above=0)\n',
            )
        },
    ),
    "a strength of augmentation": Change(
        "train.py --help",
        "feeble",
        edits={
            "research/augmentation/transforms.py": (
                "AUGMENTATIONS = {\n",
                'AUGMENTATIONS = {\n    "feeble": Augmentation(zoom=0.01),\n',
            )
        },
    ),
    "a format of labels": Change(
        "data_load.py --data labels.points",
        "1 annotated frames, 3 keypoints",
        new={"labels.points": "photo.jpg 1 2 30 4 5 60\n"},
        edits={
            "research/data/readers.py": (
                "READERS: list[tuple[Callable, Callable]] = [\n",
                "def read_points(store, inside, files):\n"
                '    found = Annotations("points")\n'
                "    for line in store.read(files[0]).decode().splitlines():\n"
                "        image, *numbers = line.split()\n"
                "        points = np.array(numbers, float).reshape(-1, 2)\n"
                '        found.add(f"test/{image}", image, points, image)\n'
                "    return found\n\n\n"
                'LABEL_ENDINGS += (".points",)\n'
                "READERS: list[tuple[Callable, Callable]] = [\n"
                '    (lambda name: name.endswith(".points"), read_points),\n',
            )
        },
    ),
    "a metric": Change(
        "evaluate.py models4 --json",
        '"worst_face"',
        edits={
            "research/evaluation/metrics.py": (
                '        "n": len(nme),\n',
                '        "n": len(nme),\n        "worst_face": float(nme.max()),\n',
            )
        },
    ),
    "an output format": Change(
        "pipeline.py PHOTO --count -",
        "grace_hopper.jpg: 1 faces",
        edits={
            "facial_keypoints/formats.py": (
                "WRITERS: dict[str, Callable[..., Writer]] = {\n",
                "class CountWriter:\n"
                "    def __init__(self, file, layout):\n        self.file = file\n\n"
                "    def write(self, name, size, faces):\n"
                '        self.file.write(f"{name}: {len(faces)} faces\\n".encode())\n\n'
                "    def close(self):\n        pass\n\n\n"
                "WRITERS: dict[str, Callable[..., Writer]] = {\n"
                '    "count": CountWriter,\n',
            ),
            "facial_keypoints/options.py": (
                "    options = parser.parse_args(arguments)\n",
                '    parser.add_argument("--count", type=nonempty_path)\n'
                "    options = parser.parse_args(arguments)\n",
            ),
        },
    ),
}


@pytest.fixture(scope="module")
def changed(tmp_path_factory, hopper):
    """A copy of the repository with all changes."""
    home = copy_of_the_repository(tmp_path_factory.mktemp("changed"))
    for change in CHANGES.values():
        for name, text in change.new.items():
            assert not (home / name).exists()
            (home / name).write_text(text)
        for name, (before, after) in change.edits.items():
            text = (home / name).read_text()
            assert text.count(before) == 1, name
            (home / name).write_text(text.replace(before, after))
    shutil.copy(hopper[0], home / "photo.jpg")
    return home


@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_touches_the_files_that_the_document_names(kind, changed, hopper):
    change = CHANGES[kind]
    row = re.search(rf"^\| {kind} \| (.*?) \|", (HOME / "docs/architecture.md").read_text(), re.M)
    assert row, f"docs/architecture.md does not say what {kind} touches"
    patterns = [re.sub("[A-Z]+", "[^/]+", re.escape(p)) for p in re.findall("`(.*?)`", row[1])]
    touched = {*change.new, *change.edits} - {"labels.points"}
    assert len(touched) == len(patterns)
    assert all(any(re.fullmatch(p, name) for p in patterns) for name in touched)
    done = subprocess.run(
        [sys.executable, *shlex.split(change.program.replace("PHOTO", str(hopper[0])))],
        cwd=changed,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(changed)},
    )
    assert done.returncode == 0 and change.shown in done.stdout, done.stdout + done.stderr
