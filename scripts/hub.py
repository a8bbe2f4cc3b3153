"""Writes folders for the Hugging Face Hub: a repository of the models, and a static Space with the
page. Nothing is uploaded."""

import argparse
import shutil
from pathlib import Path

from facial_keypoints import __version__
from facial_keypoints.command import run_command
from facial_keypoints.errors import UsageError
from facial_keypoints.files import atomic_write, csv_rows
from facial_keypoints.onnx_file import read_model_file
from facial_keypoints.paths import PHOTOGRAPHS, SAVED_MODELS
from research import HOME, web_page

MODEL_CARD = """---
license: other
license_name: by-file
license_link: {repository}/blob/main/docs/install.md
library_name: onnx
pipeline_tag: keypoint-detection
tags: [face-landmarks, facial-keypoints, face-alignment, 68-points, onnx]
---

# Facial Keypoint Detection {version}

Networks that predict 68 keypoints of a face, the confidence and the visibility of each. Input:
gray crops (n, 1, side, side) in 0 to 1; outputs: `targets` (n, 68, 2), −1 and 1 at the edges of the
crop, `confidence`, `visibility`, `spread`. [The crop, and a test vector][elsewhere].

| file | side | MB | NME_box % on 2,522 labeled photographs | terms |
| --- | ---: | ---: | ---: | --- |
{rows}

```python
# pip install git+{repository}
from facial_keypoints import find_keypoints

for face in find_keypoints("photo.jpg", net="models7.onnx"):
    print(face.points, face.confidence)
```

What they were trained on, limits and all measures: [source]({repository}).

[elsewhere]: {repository}/blob/main/docs/elsewhere.md
"""
SPACE_CARD = """---
title: Facial Keypoint Detection
emoji: 🙂
colorFrom: blue
colorTo: green
sdk: static
app_file: index.html
pinned: false
license: mit
---

Faces and their keypoints in photos and in the camera. Everything runs in the browser: no picture
leaves the machine. [Source]({repository})
"""


def model_rows() -> str:
    """The table of the exported models."""
    errors = {row["weights"]: row["nme_box"] for row in csv_rows(PHOTOGRAPHS, optional=True)}
    rows = []
    for path in sorted(SAVED_MODELS.glob("models*.onnx")):
        data, values = read_model_file(path)
        error = f"{float(errors[path.stem]):.2f}" if path.stem in errors else ""
        rows.append(
            f"| {path.name} | {values['side']} | {len(data) / 1e6:.1f} | {error} "
            f"| {values['license']} |"
        )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="a new folder: out/models, out/space")
    parser.add_argument("--without-space", action="store_true", help="the page needs npm")
    options = parser.parse_args()
    if options.out.exists():
        raise UsageError(f"{options.out} exists already; give a new folder")
    models = options.out / "models"
    models.mkdir(parents=True)
    address = web_page.repository()
    card = MODEL_CARD.format(repository=address, version=__version__, rows=model_rows())
    atomic_write(models / "README.md", card)
    for path in [*sorted(SAVED_MODELS.glob("models*.onnx")), HOME / "LICENSE", HOME / "NOTICE"]:
        shutil.copy(path, models / path.name)
    print(f"written: {models}")
    if not options.without_space:
        web_page.build(options.out / "space")
        atomic_write(options.out / "space" / "README.md", SPACE_CARD.format(repository=address))
        print(f"written: {options.out / 'space'}")


if __name__ == "__main__":
    run_command(main)
