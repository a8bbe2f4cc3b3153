"""Hooks of the documentation site (`make docs`): the README is its first page, an API page comes
from the docstrings, and links to files outside of docs/ lead to the repository."""

import re
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
BLOB = "https://github.com/hhosseinian/Face_Recognition/blob/main/"
API = {
    "Find faces": ["detector.find_keypoints", "detector.Face", "detector.KeypointDetector"],
    "Videos": ["tracking.Tracker", "video.VideoReader", "video.VideoWriter"],
    "Use the points": [
        "arrays.stack",
        "arrays.to_supervision",
        "alignment.align_face",
        "openness.eyes_open",
        "openness.mouth_open",
        "openness.BlinkCounter",
        "pose.head_pose",
        "pose.Pose",
        "face_model.fit_3d",
        "face_model.FaceFit",
        "face_model.Person",
        "avatar.VmcWriter",
    ],
    "Draw": ["drawing.draw_faces", "drawing.draw_heads", "drawing.draw_axes"],
    "Layouts": ["layouts.load_layout", "layouts.Layout", "layouts.convert_points"],
    "Errors": ["errors.DataError", "errors.UsageError"],
}


def api_page() -> str:
    """The page of the Python API, for mkdocstrings."""
    parts = ["# Python API\n\nArrays are RGB; points are pixels, 0-based pixel centers.\n"]
    for title, names in API.items():
        parts.append(f"## {title}\n")
        parts += [f"::: facial_keypoints.{name}\n" for name in names]
    return "\n".join(parts)


def from_readme(text: str) -> str:
    """The README with its links as they are seen from docs/."""

    def moved(found):
        place = found[1]
        if place.startswith(("http", "#")):
            return found[0]
        return (
            f"]({place.removeprefix('docs/')})" if place.startswith("docs/") else f"](../{place})"
        )

    return re.sub(r"\]\(([^)]+)\)", moved, text)


def on_files(files, config):
    """Add the pages that are made here."""
    from mkdocs.structure.files import File

    readme = from_readme((HOME / "README.md").read_text(encoding="utf-8"))
    for name, content in (("index.md", readme), ("api.md", api_page())):
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown, **_):
    """Links out of docs/ lead to the repository."""
    return re.sub(r"\]\(\.\./([^)]*)\)", lambda found: f"]({BLOB}{found[1]})", markdown)
