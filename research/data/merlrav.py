"""Build the data set merlrav.zip from two public repositories: 120-pixel crops of AFLW with the
keypoints and visibility of MERL-RAV.

The photographs of AFLW (Köstinger et al., ICCV-W 2011) are for non-commercial research, and are not
redistributed here. The labels of MERL-RAV (Kumar et al., CVPR 2020) are pixels of the original
photographs, so each crop's scale and place are fitted to 21 points that AFLW labels in both.
"""

import argparse
import io
import json
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from facial_keypoints.command import run_command
from facial_keypoints.errors import DataError, UsageError
from facial_keypoints.files import atomic_write, short_message
from facial_keypoints.formats import read_pts
from facial_keypoints.geometry import tight_box
from facial_keypoints.layouts import load_layout
from research.data.folders import without_signs
from research.data.readers import POSES

SIDE = 120  # pixels of a crop
FRAME = 450  # pixels of the frame around a face in which AFLW_GT_crop has its points
# AFLW's 21 points as the means of points of ibug68; the two ears have none
AFLW_POINTS: tuple[tuple[int, ...], ...] = (
    (17,),
    (19,),
    (21,),
    (22,),
    (24,),
    (26,),
    (36,),
    (36, 37, 38, 39, 40, 41),
    (39,),
    (42,),
    (42, 43, 44, 45, 46, 47),
    (45,),
    (),
    (31,),
    (30,),
    (35,),
    (),
    (48,),
    (51, 57, 62, 66),
    (54,),
    (8,),
)
# Mean offset of AFLW's label from these means, in % of the square root of the area of the box of
# the labeled points: three rounds of medians over 1,500 faces.
AFLW_OFFSETS = np.array(
    [
        (1.1, -0.5),
        (-0.4, 1.8),
        (-2.3, 0.4),
        (2.1, 0.4),
        (0.1, 2.0),
        (-2.3, -1.0),
        (-0.7, -0.4),
        (-0.9, -0.9),
        (-1.7, -1.3),
        (1.6, -1.0),
        (0.7, -0.8),
        (0.4, -0.5),
        (0, 0),
        (-1.9, -3.0),
        (0.2, 3.1),
        (1.6, -2.9),
        (0, 0),
        (1.2, 0.9),
        (0.5, 0.3),
        (-1.1, 1.0),
        (0.3, 0.8),
    ]
)
MIN_POINTS = 6  # that both kinds of labels have
MAX_RESIDUAL = 0.04  # median, as a share of the size of the face; faces above it are left out
ROUNDS = 6


@dataclass
class Face:
    """A labeled crop: points (68, 2) in its pixels, nan where self-occluded; visible (68,)."""

    image: str
    points: np.ndarray
    visible: np.ndarray
    pose: str
    yaw: float
    side: str  # training or test
    residual: float


def aflw_points(points: np.ndarray) -> np.ndarray:
    """Keypoints of ibug68 (68, 2) -> where AFLW would label its 21 points (21, 2), nan where a
    point is missing."""
    size = np.sqrt(tight_box(points)[2:].prod())
    means = [points[list(rows)].mean(0) if rows else np.full(2, np.nan) for rows in AFLW_POINTS]
    return np.array(means) + AFLW_OFFSETS / 100 * size


def fit_similarity(source: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Scale s, offset t (2,) and residuals (m,) of target = s · source + t for points (m, 2), by
    least squares with weights that fall with the residual."""
    weights = np.ones(len(source))
    for _ in range(ROUNDS):
        share = (weights / weights.sum())[:, None]
        centers = (share * source).sum(0), (share * target).sum(0)
        away, other = source - centers[0], target - centers[1]
        scale = float((share * away * other).sum() / (share * away * away).sum())
        offset = centers[1] - scale * centers[0]
        residuals = np.linalg.norm(scale * source + offset - target, axis=1)
        weights = 1 / np.maximum(residuals / max(np.median(residuals), 1e-9), 1)
    return scale, offset, residuals


def place_labels(
    points: np.ndarray, aflw: np.ndarray, roi: np.ndarray
) -> tuple[np.ndarray, float] | None:
    """Labels (68, 2) in pixels of a photograph, nan where missing -> the same in pixels of a crop,
    and the median residual of the fit as a share of the size of the face. None with fewer than
    MIN_POINTS points in common.

    aflw (21, 2): AFLW's points in the frame around the face; roi: left, top, right and bottom of
    the crop in this frame.
    """
    source = aflw_points(points)
    both = ~np.isnan(source).any(1) & ((aflw > 0) & (aflw <= FRAME)).all(1)
    if both.sum() < MIN_POINTS:
        return None
    scale, offset, residuals = fit_similarity(source[both], aflw[both])
    placed = (scale * points + offset - roi[:2]) * SIDE / (roi[2] - roi[0]) - 0.5
    size = scale * np.sqrt(tight_box(points)[2:].prod())
    return placed, float(np.median(residuals) / max(size, 1e-9))


def label_files(labels: Path) -> dict[str, list[Path]]:
    """The .pts files below a folder, by the photo that they belong to."""
    found: dict[str, list[Path]] = {}
    for path in sorted(labels.rglob("*.pts")):
        found.setdefault(re.sub(r"_\d+$", "", path.stem), []).append(path)
    return found


def read_faces(crops: Path, labels: Path, skipped: set[str]) -> tuple[list[Face], int]:
    """The faces of the crops that have labels, and the number of those that are left out because
    the two kinds of labels do not agree."""
    names = (crops / "test.data" / "AFLW_GT_crop.list").read_text().split()
    boxes, yaws, points = (
        np.load(crops / "test.configs" / f"AFLW_GT_{part}.npy").astype(float)
        for part in ("crop_roi_box", "crop_yaws", "pts21")
    )
    if not len(names) == len(boxes) == len(yaws) == len(points):
        raise DataError(f"{crops}: the list of crops and its tables differ in length")
    files, faces, left_out = label_files(labels), [], 0
    for row, name in enumerate(tqdm(names, desc="fitting", unit="face")):
        stem, best = Path(name).stem, None
        if stem in skipped:
            continue
        for path in files.get(stem, []):
            face, visible = without_signs(read_pts(path.read_bytes(), str(path)))
            placed = place_labels(face.astype(float), points[row].T, boxes[row])
            if placed and (best is None or placed[1] < best.residual):
                parts = path.parts
                best = Face(
                    name,
                    placed[0],
                    visible,
                    next((part for part in parts if part in POSES), ""),
                    float(yaws[row]),
                    "train" if "trainset" in parts else "test",
                    placed[1],
                )
        if best and best.residual <= MAX_RESIDUAL:
            faces.append(best)
        elif best:
            left_out += 1
    return faces, left_out


def coco(faces: Sequence[Face]) -> dict:
    """Faces as a COCO data set; visibility 0: self-occluded, 1: occluded, 2: visible."""
    images = [
        {"id": i, "file_name": f"images/{face.image}", "width": SIDE, "height": SIDE}
        for i, face in enumerate(faces)
    ]
    annotations = []
    for i, face in enumerate(faces):
        labeled = ~np.isnan(face.points).any(1)
        flags = np.where(labeled, 1 + face.visible, 0)
        rows = np.column_stack([np.nan_to_num(face.points), flags]).round(2)
        box = tight_box(face.points).astype(float).round(2)
        annotations.append(
            {
                "id": i,
                "image_id": i,
                "category_id": 1,
                "iscrowd": 0,
                "bbox": box.tolist(),
                "area": round(float(box[2] * box[3]), 1),
                "num_keypoints": int(labeled.sum()),
                "keypoints": rows.ravel().tolist(),
                "pose": face.pose,
                "yaw": round(face.yaw, 1),
            }
        )
    return {
        "info": {"description": "MERL-RAV labels on 120-pixel crops of AFLW"},
        "images": images,
        "annotations": annotations,
        "categories": [
            {"id": 1, "name": "face", "skeleton": [], "keypoints": list(load_layout().keypoints)}
        ],
    }


def build(crops: Path, labels: Path, out: Path, aflw2000: bool = False) -> str:
    """Write the data set -> a line that says what is in it.

    crops: the folder test_codes of github.com/XgTu/2DASL with its test data; labels: the folder
    merl_rav_labels of github.com/abhi1kumar/MERL-RAV_dataset; aflw2000: keep the faces of
    AFLW2000, which others use for evaluation. Raises DataError for a missing or malformed file.
    """
    known = crops / "test.data" / "AFLW2000-3D_crop.list"
    try:
        skipped = set() if aflw2000 else {Path(name).stem for name in known.read_text().split()}
        faces, left_out = read_faces(crops, labels, skipped)
        if not faces:
            raise DataError(f"{labels}: no .pts file belongs to a crop of {crops}")
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for side in ("train", "test"):
                some = [face for face in faces if face.side == side]
                archive.writestr(f"{side}.json", json.dumps(coco(some)), zipfile.ZIP_DEFLATED)
            for face in faces:
                archive.write(
                    crops / "test.data" / "AFLW_GT_crop" / face.image, f"images/{face.image}"
                )
    except (OSError, ValueError) as error:
        raise DataError(
            f"{crops}: not the test data of 2DASL ({short_message(error)}); "
            "docs/data.md says where it is from"
        ) from None
    atomic_write(out, buffer.getvalue())
    return (
        f"{out}: {len(faces)} faces, {sum(face.side == 'test' for face in faces)} of them for "
        f"testing; {left_out} left out because the labels do not agree"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Build merlrav.zip, 120-pixel photographs of AFLW "
        "with the keypoints and visibility of MERL-RAV."
    )
    parser.add_argument("crops", type=Path, help="folder test_codes of 2DASL")
    parser.add_argument("labels", type=Path, help="folder merl_rav_labels of MERL-RAV_dataset")
    parser.add_argument(
        "--out", type=Path, default=Path("data/merlrav.zip"), help="(default: %(default)s)"
    )
    parser.add_argument(
        "--aflw2000",
        action="store_true",
        help="keep the faces of AFLW2000, which are for evaluation",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    options = parser.parse_args()
    if options.out.exists() and not options.overwrite:
        raise UsageError(
            f"{options.out} exists; replace it with --overwrite, or give another --out"
        )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    print(build(options.crops, options.labels, options.out, options.aflw2000))


if __name__ == "__main__":
    run_command(main)
