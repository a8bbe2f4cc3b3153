"""Score one checkpoint on a data set, or compare two. The command prints their metrics."""

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from facial_keypoints.command import bounded_number, run_command
from facial_keypoints.errors import DataError, UsageError
from facial_keypoints.geometry import to_points
from facial_keypoints.head import MIN_SHAPE_POINTS
from facial_keypoints.layouts import Layout, convert_points
from facial_keypoints.pose import has_pose, head_pose
from research.networks.checkpoints import read_checkpoint
from research.datasets import SPLIT_PARTS, add_data_flags, load_frames, split_frames
from research.data.frames import Frames
from research.data.label_shift import match_label_convention
from research.evaluation.metrics import (
    NORMALIZERS,
    area_under_curve,
    bootstrap,
    box_errors,
    crop_matrices,
    face_errors,
    mean_shape,
    normalizer_name,
    point_errors,
    ranking_auc,
    rounding_bound,
    summarize,
)
from research.evaluation.results import append_result, result_row
from research.evaluation.prediction import (
    check_leakage,
    predict_frames,
    predict_in_self_crops,
    visibility_of,
)
from research.networks.registry import find_weights, load_checkpoint


def default_part(frames: Frames, contents: Sequence[dict]) -> str:
    """The part that is scored if none is given: 'test', or 'all' if the data set was published
    without a test part and no checkpoint was trained on it."""
    trained_here = any(
        {*(content["data"].get("frames") or [])} & {*frames.names.tolist()} for content in contents
    )
    return "test" if frames.has_sides or trained_here else "all"


def converted(frames: Frames, layout: Layout) -> Frames:
    """The frames with the keypoints of another layout, where the layouts say how they are computed
    (`convert_points`); the frames as they are where few follow. Points that do not follow are
    missing, and visibility is not known."""
    if frames.layout.keypoints == layout.keypoints:
        return frames
    points = convert_points(frames.points, frames.layout, layout).astype(np.float32)
    known = np.isfinite(points).any(0).all(-1)
    if known.sum() < MIN_SHAPE_POINTS:
        return frames
    print(
        f"{frames.data}: {known.sum()} of the {len(layout)} keypoints of {layout.name}, "
        f"computed from those of {frames.layout.name}",
        file=sys.stderr,
    )
    return replace(frames, points=points, layout=layout, visible=None)


def check_layout(content: dict, frames: Frames, where: str) -> None:
    """Raise UsageError if a checkpoint predicts other keypoints than these frames have."""
    if content["layout"].keypoints != frames.layout.keypoints:
        raise UsageError(
            f"{where} predicts the {len(content['layout'])} keypoints of layout "
            f"{content['layout'].name}, but {frames.data} has the "
            f"{len(frames.layout)} of {frames.layout.name}; --layout gives the data "
            "another layout"
        )


def score(
    path: str | Path,
    frames: Frames,
    normalizer: str = "layout",
    allow_leak: bool = False,
    bar: bool = False,
) -> tuple[dict, np.ndarray, np.ndarray]:
    """Score one checkpoint on frames -> (metrics, NME of each face (n,) in %, points (n, k, 2) in
    pixels). The crops are made from the labels; those of the metric nme_own from the network's own
    predictions (`predict_in_self_crops`).

    Frames whose labels say which points are visible also get the metrics of `visibility_metrics`.
    """
    net, content = load_checkpoint(path)
    check_layout(content, frames, str(path))
    layout = frames.layout
    if not allow_leak:
        check_leakage(content, frames, str(path))
    points = predict_frames(net, frames, bar=bar)
    if not (layout.normalizer(points) > 0).all():  # also where they are not finite
        raise DataError(
            f"{path}: predicted points coincide or are not finite; the weights are "
            "broken, train them again"
        )
    own = predict_in_self_crops(net, frames, first=points)
    points = match_label_convention(frames, points, content["data"])
    metrics = {
        "net": content["net"],
        **summarize(points, frames.points, frames.people, normalizer, layout),
    }
    own = match_label_convention(frames, own, content["data"])
    errors = point_errors(own, frames.points, normalizer, layout)
    metrics["nme_own"] = float(face_errors(errors).mean())
    if frames.visible is not None:
        metrics |= visibility_metrics(points, visibility_of(net, frames), frames)
    return metrics, face_errors(point_errors(points, frames.points, normalizer, layout)), points


# groups of MERL-RAV's poses, as its authors report them
POSE_GROUPS = {
    "frontal": ("frontal",),
    "half profile": ("lefthalf", "righthalf"),
    "profile": ("left", "right"),
}
YAW_BINS = (0, 15, 30, 45, 60, 75, 91)  # degrees


def visibility_metrics(points: np.ndarray, visibility: np.ndarray, frames: Frames) -> dict:
    """Metrics of predictions (n, k, 2) and predicted visibility (n, k) on frames whose labels say
    which points are visible.

    poses: {group: [faces, NME_box in %, AUC to 7 % in %, NME_box of visible points, of occluded
    points]}, for POSE_GROUPS (where known), for bins of the absolute yaw, and for all; see
    `metrics.box_errors`. visibility_auc: [of self-occluded, of occluded points] against visible
    ones, `metrics.ranking_auc`.
    """
    errors, labeled = box_errors(points, frames.points), ~np.isnan(frames.points).any(-1)
    visible = np.asarray(frames.visible)
    seen, hidden = visible == 1, visible == 0
    yaw = (
        np.abs([head_pose(face).yaw for face in frames.complete()])
        if has_pose(frames.layout)
        else np.full(len(frames), np.nan)
    )
    groups = (
        {}
        if frames.pose is None
        else {name: np.isin(frames.pose, poses) for name, poses in POSE_GROUPS.items()}
    )
    groups |= {
        f"yaw {low}–{high}°": (yaw >= low) & (yaw < high)
        for low, high in itertools.pairwise(YAW_BINS)
    }
    groups["all"] = np.ones(len(frames), bool)

    def mean(rows, points):
        kept = errors[rows][points[rows] & labeled[rows]]
        return float(kept.mean()) if len(kept) else float("nan")

    faces = face_errors(errors)
    poses = {
        name: [
            int(rows.sum()),
            float(faces[rows].mean()),
            area_under_curve(faces[rows], 7.0),
            mean(rows, seen),
            mean(rows, ~seen),
        ]
        for name, rows in groups.items()
        if rows.any()
    }
    aucs = [
        ranking_auc(visibility[kind | seen], seen[kind | seen])
        for kind in (hidden & ~labeled, hidden & labeled)
    ]
    return {"poses": poses, "visibility_auc": aucs}


def visibility_tables(rows: Sequence[Sequence]) -> str:
    """The tables of `visibility_metrics` of several models -> lines of text."""
    lines = []
    for name, metrics in rows:
        lines += [
            f"{name}: NME_box, % of the square root of the area of the box of the labeled points",
            f"{'':<14} {'faces':>6} {'NME_box':>8} {'AUC@7':>6} {'visible':>8} {'occluded':>9}",
        ]
        lines += [
            f"{group:<14} {count:6} {nme:8.2f} {auc:6.1f} {seen:8.2f} {occluded:9.2f}"
            for group, (count, nme, auc, seen, occluded) in metrics["poses"].items()
        ]
        lines.append(
            "AUC of the visibility: self-occluded {:.3f}, occluded {:.3f}".format(
                *metrics["visibility_auc"]
            )
        )
    return "\n".join(lines)


def text_table(rows: Sequence[Sequence]) -> str:
    """Metrics of several models -> lines of text."""
    width, regions = max(len(name) for name, _ in rows), list(rows[0][1]["regions"])
    lines = [
        f"{'':<{width}}  {'NME':>6} {'95 % interval':>15} {'FR@8':>6} {'FR@10':>6} "
        f"{'AUC@8':>6} {'debiased':>9} "
        f"{'self-crop':>9} {'offset x, y':>14}  " + " ".join(f"{name:>6}" for name in regions)
    ]
    for name, m in rows:
        lines.append(
            f"{name:<{width}}  {m['nme']:6.2f} {m['nme_low']:7.2f}–{m['nme_high']:<7.2f} "
            f"{m['fr8']:6.1f} "
            f"{m['fr10']:6.1f} {m['auc8']:6.1f} {m['nme_debiased']:9.2f} "
            f"{m.get('nme_own', float('nan')):9.2f} "
            f"{m['offset'][0]:+7.2f}{m['offset'][1]:+7.2f}  "
            + " ".join(f"{m['regions'][r]:{max(len(r), 6)}.2f}" for r in regions)
        )
    return "\n".join(lines)


def measures_table(rows: Sequence[Sequence]) -> str:
    """Slopes of `metrics.measure_slopes` of several models -> lines of text; '' where the layout
    has none of the measures."""
    names = [name for name, values in rows[0][1]["measures"].items() if np.isfinite(values[0])]
    if not names:
        return ""
    width = max(len(name) for name, _ in rows)
    lines = [
        "slope of predicted against labeled distances (correlation); perfect: 1 (1)",
        " " * width + "".join(f"{name:>14}" for name in names),
    ]
    for name, metrics in rows:
        cells = (
            f"{slope:.2f} ({alike:.2f})"
            for slope, alike in (metrics["measures"][measure] for measure in names)
        )
        lines.append(f"{name:<{width}}" + "".join(f"{cell:>14}" for cell in cells))
    return "\n".join(lines)


def baselines(
    frames: Frames, everything: Frames, split: str, normalizer: str
) -> list[tuple[str, dict]]:
    """Rows of the mean shape (if the data set has training frames) and of the lower bound of
    rounding."""
    rows = []
    try:
        training = split_frames(everything, split, "training")
    except DataError:
        training = None
    if training is not None:
        points = to_points(
            np.broadcast_to(mean_shape(training), frames.points.shape), crop_matrices(frames), 1
        )
        rows.append(
            (
                "mean shape",
                summarize(points, frames.points, frames.people, normalizer, frames.layout),
            )
        )
    rows.append(
        (
            "rounding, lower bound",
            summarize(
                rounding_bound(frames.complete()),
                frames.points,
                frames.people,
                normalizer,
                frames.layout,
            ),
        )
    )
    return rows


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        description="Score checkpoints on a data set; two are also compared."
    )
    parser.add_argument(
        "checkpoints",
        nargs="+",
        metavar="CHECKPOINT",
        help="a file of weights, or a network's name",
    )
    add_data_flags(parser)
    parser.add_argument(
        "--part",
        choices=SPLIT_PARTS,
        help="(default: test; all if the data set has no test part and the network was not "
        "trained on it)",
    )
    parser.add_argument(
        "--normalizer", default="layout", choices=NORMALIZERS, help="(default: %(default)s)"
    )
    parser.add_argument(
        "--allow-leak", action="store_true", help="score on frames that the network was trained on"
    )
    parser.add_argument(
        "--worst",
        type=bounded_number(int, 0),
        default=0,
        metavar="N",
        help="name the N worst frames",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = read_options(arguments)
    if len(options.checkpoints) > 2:
        raise UsageError("at most two checkpoints can be given; call again for the others")
    paths = [find_weights(name) for name in options.checkpoints]
    # a wrong file is an error before the data is loaded
    contents = [read_checkpoint(path) for path in paths]
    layout = options.layout
    if not layout and options.data in ("sample", "official"):
        layout = contents[0]["layout"]
    everything = load_frames(options.data, options.labels, layout)
    everything = converted(everything, contents[0]["layout"])
    options.part = options.part or default_part(everything, contents)
    frames = split_frames(everything, options.split, options.part)
    named = {
        "data": options.data,
        "split": options.split,
        "part": options.part,
        "labels": frames.labels,
    }
    results = [
        score(path, frames, options.normalizer, options.allow_leak, sys.stderr.isatty())
        for path in paths
    ]
    rows = [
        {"checkpoint": str(path), **metrics, **named}
        for path, (metrics, _, _) in zip(paths, results, strict=True)
    ]
    if len(results) == 2:
        difference = results[1][1] - results[0][1]
        low, high = bootstrap(difference, frames.people)
        rows[0] |= {
            "other": rows[1],
            "difference": {"nme": float(difference.mean()), "nme_low": low, "nme_high": high},
        }
    if options.json:
        print(json.dumps(rows[0]))
        return
    print_report(options, paths, everything, frames, results, rows[0])
    if options.part == "test":
        for path, (metrics, _, _) in zip(paths, results, strict=True):
            add_to_table(path, frames, metrics)


def add_to_table(path: Path, frames: Frames, metrics: dict) -> None:
    """Add the scores of a run of train.py to results.csv next to its folder, so that runs can be
    compared; checkpoints elsewhere are not added."""
    if path.name == "checkpoint.pt" and (path.parent / "params.json").is_file():
        net, content = load_checkpoint(path)
        append_result(result_row(path.parent, net, content, frames, metrics), path.parent)
        print(f"added to {path.parent.parent / 'results.csv'}")


def print_report(
    options: argparse.Namespace,
    paths: Sequence[Path],
    everything: Frames,
    frames: Frames,
    results: Sequence[tuple],
    first: dict,
) -> None:
    """The tables of `score` for each path, the difference of two in `first`, and the worst
    frames."""
    of_all = "" if len(frames) == len(everything) else f" of {len(everything)}"
    print(
        f"{frames.data}, {options.split} split, {options.part}: {len(frames)}{of_all} frames of "
        f"{len(set(frames.people))} "
        f"people, {len(frames.layout)} keypoints ({frames.layout.name}), labels {frames.labels}; "
        f"% of {normalizer_name(options.normalizer, frames.layout)}"
    )
    shown = [
        (path.name if len(paths) < 2 else str(path), metrics)
        for path, (metrics, _, _) in zip(paths, results, strict=True)
    ]
    print(text_table(shown + baselines(frames, everything, options.split, options.normalizer)))
    if table := measures_table(shown):
        print(f"\n{table}\n")
    if frames.visible is not None:
        print(f"{visibility_tables(shown)}\n")
    if len(results) == 2:
        d = first["difference"]
        verdict = "not significant" if d["nme_low"] <= 0 <= d["nme_high"] else "significant"
        print(
            f"second minus first: {d['nme']:+.2f} ({d['nme_low']:+.2f} to {d['nme_high']:+.2f}), "
            f"{verdict}"
        )
    for path, (_, nme, _) in zip(paths, results, strict=True):
        for row in np.argsort(-nme)[: options.worst]:
            print(f"{path.name}: {frames.names[row]} {nme[row]:.2f}")


if __name__ == "__main__":
    run_command(main)
