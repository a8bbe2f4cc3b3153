"""The readers of test_fuzz.py led by coverage, where atheris installs: python
tests/coverage_fuzz.py READER [RUNS]."""

import sys
import tempfile
from pathlib import Path

import atheris

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[1])]
OURS = ["facial_keypoints", "research", "models", "batch", "train"]
with atheris.instrument_imports(include=OURS):
    from test_fuzz import READERS, reported

    from facial_keypoints import images


def main():
    name, runs = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 2000
    ending, files, read = READERS[name]
    images.MAX_PIXELS = 300_000
    folder = Path(tempfile.mkdtemp())
    path = folder / f"corrupted{ending}"
    (folder / "corpus").mkdir()
    for number, data in enumerate(files):
        (folder / "corpus" / str(number)).write_bytes(data)

    def one(data):
        path.write_bytes(data)
        reported(read, path, name="corrupted")

    atheris.Setup(
        [
            sys.argv[0],
            str(folder / "corpus"),
            f"-runs={runs}",
            "-timeout=30",
            "-verbosity=0",
            f"-artifact_prefix={folder}/",
        ],
        one,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
