"""Every matplotlib figure of notebooks, benchmarks and documents."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from facial_keypoints.drawing import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    draw_faces,
    part_colors,
)
from facial_keypoints.geometry import (
    crop_image,
    crop_matrix,
    targets_to_pixels,
    tight_box,
    to_points,
    to_targets,
)
from facial_keypoints.images import to_gray
from facial_keypoints.layouts import Layout, Part, load_layout


def colors_of(image: np.ndarray) -> dict:
    """Arguments of imshow for an image: gray (h, w) or RGB (h, w, 3), uint8 or in [0, 1]."""
    return {
        "cmap": "gray" if image.ndim == 2 else None,
        "vmin": 0,
        "vmax": 255 if image.dtype == np.uint8 else 1,
    }


def image_on(axis: Axes, image: np.ndarray, title: str | None = None) -> None:
    """Show an image on an axis, without ticks."""
    axis.imshow(image, **colors_of(image))
    axis.set_xticks([])
    axis.set_yticks([])
    if title:
        axis.set_title(title, fontsize=10)


def points_on(
    axis: Axes,
    points: np.ndarray | Sequence[np.ndarray],
    numbers: bool = False,
    size: float = 6,
    color: str | None = None,
    truth: np.ndarray | Sequence[np.ndarray] | None = None,
    layout: str | Layout = "ibug68",
) -> None:
    """Keypoints (k, 2) or (n, k, 2) of a layout in pixels, colored by part; with `truth` of the
    same shape predictions in one color, errors as lines."""
    layout = load_layout(layout)
    points = np.reshape(points, (-1, len(layout), 2))
    if truth is not None:
        ends = np.stack([np.reshape(truth, (-1, 2)), points.reshape(-1, 2)], 1)
        axis.add_collection(LineCollection(ends, colors=RED, linewidths=0.8))  # one artist
        axis.scatter(ends[:, 0, 0], ends[:, 0, 1], s=size, color=GREEN, linewidths=0)
        color = color or ORANGE
    size = 3 * size if numbers else size
    for rows, part_color in colored_points(layout):
        x, y = points[:, rows].reshape(-1, 2).T
        axis.scatter(x, y, s=size, color=color or part_color, linewidths=0.3, edgecolors="black")
    if numbers:
        for face in points:
            for number, (x, y) in enumerate(face):
                axis.annotate(
                    str(number),
                    (x, y),
                    xytext=(2, 2),
                    textcoords="offset points",
                    fontsize=7,
                    color="white",
                )


def colored_points(layout: Layout) -> list[tuple[list[int], str]]:
    """Pairs (indices, color): the keypoints of each part, and those in no part."""
    found = [
        (list(part.points), color)
        for part, color in zip(layout.parts, part_colors(layout), strict=True)
    ]
    rest = sorted({*range(len(layout))} - {index for rows, _ in found for index in rows})
    return [*found, (rest, PURPLE)] if rest else found


def contact_sheet(
    images: Sequence[np.ndarray],
    points: Sequence[np.ndarray] | None = None,
    columns: int = 5,
    numbers: bool = False,
    titles: Sequence[str] | None = None,
    truth: Sequence[np.ndarray] | None = None,
    width: float = 10,
    layout: str | Layout = "ibug68",
) -> None:
    """A grid of images (h, w) or (h, w, 3), each scaled to its cell, with its keypoints (k, 2) in
    pixels; nothing where there are none, as on a photo without faces.

    truth: keypoints that `points` are compared with; a legend names both.
    """
    if not len(images):
        return
    rows = -(-len(images) // columns)
    pitch = np.array([1.03, 1.03 + (0.13 * columns / width * 2 if titles is not None else 0)])
    size = np.array([columns, rows]) * pitch
    figure, axis = plt.subplots(figsize=(width, width * size[1] / size[0]), layout="constrained")
    scales, corners = [], []
    for i, image in enumerate(images):
        scale = 1 / max(image.shape[:2])
        extent = np.array(image.shape[1::-1]) * scale
        corner = np.array([i % columns + 1, i // columns + 1]) * pitch - (0.515, 0.515) - extent / 2
        axis.imshow(
            image,
            **colors_of(image),
            extent=(corner[0], corner[0] + extent[0], corner[1] + extent[1], corner[1]),
        )
        if titles is not None:
            above = (corner[0] + extent[0] / 2, corner[1] - 0.02)
            axis.text(*above, titles[i], fontsize=10, ha="center", va="bottom")
        scales.append(scale)
        corners.append(corner)
    if points is not None:

        def on_sheet(points):
            return (np.asarray(points) + 0.5) * np.reshape(scales, (-1, 1, 1)) + np.array(corners)[
                :, None
            ]

        points_on(
            axis,
            on_sheet(points),
            numbers,
            truth=None if truth is None else on_sheet(truth),
            layout=layout,
        )
    axis.set(xlim=(0, size[0]), ylim=(size[1], 0), aspect="equal")
    axis.axis("off")
    if truth is not None:
        legend_of_errors(figure)
    plt.show()


def legend_of_errors(figure: Figure) -> None:
    """A legend below a figure: ground truth, prediction, and the error between them."""
    handles = [
        Line2D([], [], color=GREEN, marker="o", linestyle="", markersize=5, label="ground truth"),
        Line2D(
            [],
            [],
            color=ORANGE,
            marker="o",
            linestyle="",
            markersize=5,
            markeredgecolor="black",
            markeredgewidth=0.3,
            label="prediction",
        ),
        Line2D([], [], color=RED, label="error"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)


def numbered_points(shape: np.ndarray, width: float = 10, layout: str | Layout = "ibug68") -> None:
    """The order of the keypoints: a shape (k, 2) with numbers; where the layout has lips, enlarged
    next to it."""
    layout = load_layout(layout)
    lips = [part for part in layout.parts if part.name in ("outer lips", "inner lips")]
    figure, axes = plt.subplots(
        1,
        2 if lips else 1,
        figsize=(width, 0.62 * width),
        layout="constrained",
        squeeze=False,
        width_ratios=(1.5, 1) if lips else None,
    )
    colors = dict(zip((part.name for part in layout.parts), part_colors(layout), strict=True))
    for axis, shown, fontsize in zip(axes[0], (layout.parts, lips), (10, 12), strict=False):
        for part in shown:
            path = shape[[*part.points, *part.points[: part.closed]]]
            axis.plot(
                *path.T,
                color=colors[part.name],
                marker="o",
                markersize=5,
                markeredgecolor="black",
                markeredgewidth=0.4,
            )
            if shown is lips or part not in lips:
                number_part(axis, shape, part, fontsize)
        axis.set_aspect("equal")
        axis.invert_yaxis()
        axis.axis("off")
        axis.margins(0.08)
    rest = colored_points(layout)[len(layout.parts) :]
    for rows, color in rest:
        axes[0, 0].scatter(*shape[rows].T, color=color, s=25, edgecolors="black", linewidths=0.4)
        number_part(axes[0, 0], shape, Part("", tuple(rows)), 10)
    if lips:
        numbers = [index for part in lips for index in part.points]
        axes[0, 1].set_title(f"{min(numbers)} to {max(numbers)}, the lips", fontsize=12, pad=16)
    plt.show()


def number_part(axis: Axes, shape: np.ndarray, part: Part, fontsize: float) -> None:
    """Write the numbers of the points of a part next to the points, on the side away from the
    center of the part."""
    rows, name = list(part.points), part.name
    closed_in = name not in ("jaw", "nose bridge") and len(rows) > 1
    center = shape[rows].mean(0) if closed_in else np.nanmean(shape, 0)
    for row in rows:
        away = (shape[row] - center) / max(np.linalg.norm(shape[row] - center), 1e-9)
        if name in ("nose bridge", "nose base"):
            away = np.array({"nose bridge": (1.0, 0.0), "nose base": (0.0, 1.1)}[name])
        elif name == "inner lips" and row in (rows[0], rows[len(rows) // 2]):
            # the corners of the inner lips: the outer lips' corners are next to them
            away = -1.2 * away
        axis.annotate(
            str(row),
            shape[row],
            xytext=(11 * away[0], -11 * away[1]),
            textcoords="offset points",
            fontsize=fontsize,
            horizontalalignment="center",
            verticalalignment="center",
        )


def histograms(columns: dict[str, np.ndarray]) -> None:
    """Show histograms of {name: values (n,)} next to each other."""
    figure, axes = plt.subplots(
        1, len(columns), figsize=(10, 2.6), layout="constrained", squeeze=False
    )
    for axis, (name, values) in zip(axes.flat, columns.items(), strict=True):
        axis.hist(values, bins=30, color=BLUE)
        axis.set_xlabel(name)
        tidy(axis)
    axes.flat[0].set_ylabel("frames")
    plt.show()


def tidy(axis: Axes) -> None:
    """Fewer lines around the data."""
    axis.spines[["top", "right"]].set_visible(False)


def curves(
    history: list[dict], baseline: float | None = None, stages: Sequence[tuple[int, str]] = ()
) -> None:
    """Loss and validation NME over the epochs of one training run (rows of curves.csv).

    baseline: NME of the mean shape, in %. stages: pairs (epoch, name); after that epoch, the
    augmentation `name` is used.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3), layout="constrained")
    epochs = [row["epoch"] for row in history]
    left.plot(
        epochs, [row["training_loss"] for row in history], color=BLUE, label="training (augmented)"
    )
    left.plot(epochs, [row["validation_loss"] for row in history], color=ORANGE, label="validation")
    left.set(xlabel="epoch", ylabel="loss", ylim=(0, None))
    for axis in (left, right):
        for epoch, name in stages:
            axis.axvline(epoch + 0.5, color="gray", linewidth=0.8, linestyle="--")
            axis.text(
                epoch + 0.6,
                0.98,
                f"{name} augmentation",
                rotation=90,
                fontsize=8,
                color="gray",
                transform=axis.get_xaxis_transform(),
                verticalalignment="top",
            )
    left.legend(frameon=False)
    right.plot(epochs, [row["validation_nme"] for row in history], color=ORANGE, label="validation")
    if baseline:
        right.axhline(baseline, color="gray", linestyle=":", label="mean shape")
        right.legend(frameon=False)
    right.set(xlabel="epoch", ylabel="validation NME in %", ylim=(0, None))
    tidy(left)
    tidy(right)
    plt.show()


def curves_together(histories: dict[str, list[dict]]) -> None:
    """Training loss and validation NME of several runs {name: rows of curves.csv}. A run
    overfits if its loss decreases further, but its NME does not."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 3), layout="constrained")
    for (name, rows), color in zip(histories.items(), (BLUE, ORANGE, GREEN, PURPLE), strict=False):
        epochs = [int(row["epoch"]) for row in rows]
        for axis, key in zip(axes, ("training_loss", "validation_nme"), strict=True):
            axis.plot(epochs, [float(row[key]) for row in rows], color=color, label=name)
    axes[0].set(xlabel="epoch", ylabel="training loss", yscale="log")
    axes[1].set(xlabel="epoch", ylabel="validation NME in %", ylim=(0, None))
    axes[1].legend(frameon=False)
    for axis in axes:
        tidy(axis)
    plt.show()


def error_curves(errors: dict[str, np.ndarray], limit: float = 20) -> None:
    """Cumulative error curves of {name: NME (n,) in %} on one axis; limit: largest NME shown."""
    figure, axis = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for (name, nme), color in zip(
        errors.items(), (BLUE, ORANGE, GREEN, PURPLE, SKY, RED, BLACK) * 3, strict=False
    ):
        axis.step(
            [0, *np.sort(nme)],
            np.linspace(0, 100, len(nme) + 1),
            where="post",
            color=color,
            label=name,
        )
    axis.axvline(8, color="gray", linewidth=0.8, linestyle=":")
    axis.set(xlim=(0, limit), ylim=(0, 100), xlabel="NME in %", ylabel="faces at or below, in %")
    axis.legend(frameon=False, loc="lower right")
    tidy(axis)
    plt.show()


def errors_on_face(shape: np.ndarray, errors: np.ndarray, layout: str | Layout = "ibug68") -> None:
    """Mean error of each point (k,) as discs on a shape (k, 2), next to bars of the parts."""
    layout = load_layout(layout)
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10, 4), layout="constrained", width_ratios=(1, 1.3)
    )
    for part in layout.parts:
        path = shape[[*part.points, *part.points[: part.closed]]]
        left.plot(*path.T, color="lightgray", zorder=0)
    discs = left.scatter(
        *shape.T,
        c=errors,
        s=30 * np.maximum(errors, 0.5),
        cmap="cividis_r",
        edgecolors="black",
        linewidths=0.3,
    )
    left.set_aspect("equal")
    left.invert_yaxis()
    left.axis("off")
    figure.colorbar(discs, ax=left, label="mean error in %", shrink=0.8)
    groups = {part.name: part.points for part in layout.parts} or {"all": tuple(range(len(layout)))}
    right.barh(list(groups), [errors[list(rows)].mean() for rows in groups.values()], color=BLUE)
    right.invert_yaxis()
    right.set_xlabel("mean error in %")
    tidy(right)
    plt.show()


def error_against(columns: dict[str, np.ndarray], errors: np.ndarray, bins: int = 5) -> None:
    """Median and quartiles of the NME (n,) in `bins` groups of equal size, by {name: values
    (n,)}."""
    figure, axes = plt.subplots(
        1, len(columns), figsize=(10, 2.8), sharey=True, layout="constrained", squeeze=False
    )
    for axis, (name, values) in zip(axes.flat, columns.items(), strict=True):
        axis.scatter(values, errors, s=3, color="lightgray")
        for group in np.array_split(np.argsort(values, kind="stable"), bins):
            x, y = np.median(values[group]), np.percentile(errors[group], [25, 50, 75])
            axis.errorbar(x, y[1], [[y[1] - y[0]], [y[2] - y[1]]], fmt="o", color=BLUE, capsize=2)
        axis.set_xlabel(name)
        tidy(axis)
    axes.flat[0].set(ylabel="NME in %", ylim=(0, np.percentile(errors, 99)))
    plt.show()


def calibration_curve(
    confidence: np.ndarray, errors: np.ndarray, right: float = 10, bins: int = 10
) -> None:
    """Reliability diagram: the share of points with an error of at most `right` % by confidence
    (m,), and the errors (m,) in % by confidence."""
    figure, (left, middle) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    edges = np.quantile(confidence, np.linspace(0, 1, bins + 1))
    group = np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, bins - 1)
    groups = [group == g for g in range(bins) if (group == g).any()]
    x = [confidence[rows].mean() for rows in groups]
    left.plot([0, 1], [0, 1], color="gray", linestyle=":", label="calibrated")
    left.plot(
        x,
        [np.mean(errors[rows] <= right) for rows in groups],
        color=BLUE,
        marker="o",
        label="measured",
    )
    left.set(
        xlabel="confidence", ylabel=f"share of points within {right} %", xlim=(0, 1), ylim=(0, 1.02)
    )
    left.legend(frameon=False)
    low, half, high = np.array([np.percentile(errors[rows], [25, 50, 75]) for rows in groups]).T
    middle.fill_between(
        x, low, high, color=SKY, alpha=0.4, linewidth=0, label="interquartile range"
    )
    middle.plot(x, half, color=BLUE, marker="o", label="median")
    middle.set(xlabel="confidence", ylabel="error of a point in %", ylim=(0, None))
    middle.legend(frameon=False)
    tidy(left)
    tidy(middle)
    plt.show()


def accuracy_against_time(
    points: dict[str, Sequence[float]], title: str = "", unit: str = "NME in %"
) -> Figure:
    """Networks {name: (milliseconds per face, error, low, high)} as points with error bars; points
    further down and to the left are better."""
    figure, axis = plt.subplots(figsize=(7, 3.8), layout="constrained")
    times, errors = np.array([point[:2] for point in points.values()], dtype=float).T
    for (name, (time, error, low, high)), color in zip(
        points.items(), (BLUE, ORANGE, GREEN, PURPLE, SKY, RED) * 3, strict=False
    ):
        axis.errorbar(time, error, [[error - low], [high - error]], fmt="o", color=color, capsize=3)
        right_of = times[(times > time) & (abs(errors - error) < 0.1 * np.ptp(errors))]
        # if the next point to the right is near, the name goes to the left of the point or below
        room = right_of.min(initial=np.inf) / time
        align, right, up = (
            ("right", -7, 4) if room < 1.15 else ("left", 7, -12) if room < 1.25 else ("left", 7, 4)
        )
        axis.annotate(
            name,
            (time, error),
            xytext=(right, up),
            textcoords="offset points",
            horizontalalignment=align,
        )
    axis.set(xscale="log", xlabel="ms per face, one thread", ylabel=unit, title=title)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.xaxis.set_minor_locator(NullLocator())
    axis.margins(x=0.2)
    tidy(axis)
    return figure


def bars(rows: dict[str, Sequence[float]], xlabel: str) -> Figure:
    """Horizontal bars of {name: (value, low, high)} with intervals low to high; a line marks 0."""
    figure, axis = plt.subplots(figsize=(8, 0.32 * len(rows) + 0.9), layout="constrained")
    for place, (value, low, high) in enumerate(rows.values()):
        axis.barh(
            place,
            value,
            color=BLUE if low > 0 else RED if high < 0 else "lightgray",
            xerr=[[value - low], [high - value]],
            error_kw={"elinewidth": 1, "capsize": 2},
        )
    axis.set_yticks(range(len(rows)), list(rows))
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_xlabel(xlabel)
    tidy(axis)
    return figure


def gray_tiles(
    tiles: Sequence[np.ndarray],
    columns: int = 8,
    title: str | None = None,
    width: float = 10,
    symmetric: bool = False,
) -> None:
    """A grid of small gray images (h, w), for example kernels or feature maps, each scaled to its
    own range. All are cropped to the smallest size. symmetric=True shows 0 as mid-gray."""
    common = tuple(slice(min(sizes)) for sizes in zip(*(tile.shape for tile in tiles), strict=True))
    stack = np.stack([tile[common] for tile in tiles]).astype(np.float32)
    count, height, breadth = stack.shape
    high = (np.abs(stack) if symmetric else stack).max((1, 2), keepdims=True)
    low = -high if symmetric else stack.min((1, 2), keepdims=True)
    stack = (stack - low) / np.where(high > low, high - low, 1)
    rows, gap = -(-count // columns), max(height // 12, 1)
    sheet = np.full((rows * (height + gap) - gap, columns * (breadth + gap) - gap), np.nan)
    for i, tile in enumerate(stack):
        top, left = i // columns * (height + gap), i % columns * (breadth + gap)
        sheet[top : top + height, left : left + breadth] = tile
    figure, axis = plt.subplots(
        figsize=(width, width * sheet.shape[0] / sheet.shape[1] + 0.3), layout="constrained"
    )
    axis.imshow(sheet, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.axis("off")
    if title:
        axis.set_title(title, fontsize=11)
    plt.show()


def heat_on(
    images: Sequence[np.ndarray],
    heats: Sequence[np.ndarray],
    points: Sequence[np.ndarray],
    titles: Sequence[str] | None = None,
    width: float = 10,
) -> None:
    """Gray images (h, w) with a heat map (h, w) over each and a marked point (2,) in pixels, to
    show what a prediction depends on."""
    figure, axes = plt.subplots(
        1,
        len(images),
        figsize=(width, width / len(images) + 0.4),
        layout="constrained",
        squeeze=False,
    )
    for axis, image, heat, point, title in zip(
        axes.flat, images, heats, points, titles or [""] * len(images), strict=True
    ):
        image_on(axis, image, title)
        axis.imshow(
            heat, cmap="inferno", alpha=np.clip(heat / (np.percentile(heat, 99.5) or 1), 0, 1)
        )
        axis.plot(*point, marker="+", color=SKY, markersize=12, markeredgewidth=2)
    plt.show()


def shift_by_size(
    length: np.ndarray,
    offset: np.ndarray,
    fit: Sequence[float],
    added: Sequence[float] | None = None,
    pixels: float = 12,
) -> None:
    """Offsets (n,) of labels against inter-ocular distances (n,), both in pixels, with lines.

    fit, added: (px, share of the inter-ocular distance) of the measured and of the added shift.
    Bars show means of eight groups ± two standard errors.
    """
    figure, axis = plt.subplots(figsize=(8, 3.4), layout="constrained")
    axis.scatter(length, offset, s=4, color="lightgray", label="one face")
    groups = np.array_split(np.argsort(length), 8)
    axis.errorbar(
        [np.median(length[group]) for group in groups],
        [np.mean(offset[group]) for group in groups],
        [2 * np.std(offset[group]) / len(group) ** 0.5 for group in groups],
        fmt="o",
        color=BLUE,
        capsize=2,
        label="mean of a group ± 2 standard errors",
    )
    ends = np.array([length.min(), length.max()])
    axis.plot(
        ends,
        fit[0] + fit[1] * ends,
        color=BLUE,
        label=f"measured: {fit[0]:.1f} px + {100 * fit[1]:.1f} %",
    )
    if added is not None:
        axis.plot(
            ends,
            added[0] + added[1] * ends,
            color=RED,
            linestyle="--",
            label=f"added: {added[0]:.1f} px + {100 * added[1]:.1f} %",
        )
    axis.axhline(0, color="gray", linewidth=0.8, linestyle=":")
    axis.set(
        xlabel="inter-ocular distance in px",
        ylabel="label minus prediction in x, px",
        ylim=(-pixels / 2, pixels),
    )
    axis.legend(frameon=False, loc="upper left")
    tidy(axis)
    plt.show()


def periodograms(pitch: np.ndarray, strengths: dict[str, np.ndarray]) -> None:
    """Strength {name: (m,)} of quantization grids with these cell sizes `pitch` (m,) in pixels."""
    figure, axis = plt.subplots(figsize=(8, 2.8), layout="constrained")
    for (name, strength), color in zip(strengths.items(), (SKY, ORANGE, GREEN), strict=False):
        axis.plot(pitch, strength, color=color, label=name)
    axis.set(xlabel="cell size in px", ylabel="strength", ylim=(0, 1.05))
    axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    tidy(axis)
    plt.show()


def crop_pipeline(
    image: np.ndarray, points: np.ndarray, side: int, layout: str | Layout = "ibug68"
) -> None:
    """From an image (h, w, 3) and keypoints (k, 2) to the input of a network: the tight box and the
    square around it, the crop, the gray tensor, and the targets."""
    box = tight_box(points)
    matrix = crop_matrix(box, side, scale=load_layout(layout).crop_scale)
    crop = crop_image(image, matrix, side)
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]], np.float32)
    square = to_points(corners, matrix, side)
    figure, axes = plt.subplots(1, 4, figsize=(12, 3.2), layout="constrained")
    image_on(axes[0], image, "1. tight box and crop")
    boxes_on(axes[0], [box], GREEN)
    axes[0].plot(*square.T, color=ORANGE)
    image_on(axes[1], crop, f"2. crop: {side}×{side} px")
    image_on(axes[2], to_gray(crop).astype(np.float32) / 255, "3. gray, in [0, 1]")
    targets = to_targets(points, matrix, side)
    for axis, shown in (
        (axes[0], points),
        (axes[1], targets_to_pixels(targets, side)),
        (axes[3], targets),
    ):
        points_on(axis, shown, size=4, layout=layout)
    axes[3].set(
        title="4. targets",
        xlim=(-1, 1),
        ylim=(1, -1),
        aspect="equal",
        xticks=(-1, 0, 1),
        yticks=(-1, 0, 1),
    )
    axes[3].title.set_fontsize(10)
    plt.show()


def network_stages(stages: Sequence[tuple[str, Sequence[int]]]) -> None:
    """A drawing of a network: its stages (name, shape) from left to right. The height of a stage is
    the height of its maps, the width its number of channels, both on a logarithmic scale."""
    figure, axis = plt.subplots(figsize=(12, 2.8), layout="constrained")
    left = 0.0
    for number, (name, shape) in enumerate(stages):
        channels, height = shape[0], shape[1] if len(shape) > 1 else 1
        width, size = 0.35 + 0.25 * np.log2(channels), 0.3 + 0.35 * np.log2(height)
        color = (SKY, BLUE, GREEN, ORANGE, RED, PURPLE)[number % 6]
        axis.add_patch(
            plt.Rectangle(
                (left, -size / 2), width, size, facecolor=color, alpha=0.6, edgecolor="black"
            )
        )
        middle = left + width / 2
        axis.text(
            middle,
            -size / 2 - 0.15,
            name,
            horizontalalignment="center",
            verticalalignment="top",
            fontsize=9,
        )
        axis.text(
            middle,
            size / 2 + 0.1,
            "×".join(map(str, shape)),
            horizontalalignment="center",
            fontsize=9,
        )
        left += width + 0.9
        if number < len(stages) - 1:
            axis.annotate("", (left - 0.1, 0), (left - 0.8, 0), arrowprops={"arrowstyle": "->"})
    axis.set(xlim=(-0.3, left), ylim=(-2.2, 1.9))
    axis.axis("off")
    plt.show()


def bin_distributions(
    image: np.ndarray, chances: np.ndarray, bins: np.ndarray, point: np.ndarray
) -> None:
    """The two distributions (2, n) of one keypoint over `bins` (n,), along the edges of the crop
    (side, side) in [0, 1]. point (2,): their means. bins and point are in targets, -1…1."""
    figure, axes = plt.subplots(
        2, 2, figsize=(5, 5), layout="constrained", width_ratios=(3, 1), height_ratios=(1, 3)
    )
    axes[0, 1].axis("off")
    axes[0, 0].fill_between(bins, chances[0], color=SKY)
    axes[1, 1].fill_betweenx(bins, chances[1], color=SKY)
    axes[1, 0].imshow(image, cmap="gray", extent=(-1, 1, 1, -1), vmin=0, vmax=1)
    axes[1, 0].plot(*point, marker="+", color=ORANGE, markersize=14, markeredgewidth=2)
    axes[0, 0].set(xlim=(-1, 1), yticks=(), title="distribution over x")
    axes[1, 1].set(ylim=(1, -1), xticks=(), title="over y")
    axes[0, 0].axvline(point[0], color=ORANGE)
    axes[1, 1].axhline(point[1], color=ORANGE)
    plt.show()


def paths(points: dict[str, np.ndarray], rate: float) -> None:
    """The x of one point over time: {name: positions (t, 2) in pixels}; rate: frames per second."""
    figure, axis = plt.subplots(figsize=(8, 2.8), layout="constrained")
    for (name, place), color in zip(points.items(), (SKY, RED, GREEN), strict=False):
        axis.plot(np.arange(len(place)) / rate, place[:, 0], color=color, label=name)
    axis.set(xlabel="seconds", ylabel="x of the nose tip in px")
    axis.legend(frameon=False)
    tidy(axis)
    plt.show()


def boxes_on(
    axis: Axes, boxes: Sequence[np.ndarray] | np.ndarray, color: str = ORANGE, width: float = 1.5
) -> None:
    """Boxes (n, 4): left, top, width, height in pixels."""
    for left, top, w, h in boxes:
        axis.add_patch(
            plt.Rectangle((left, top), w, h, fill=False, edgecolor=color, linewidth=width)
        )


def photo_with(
    image: np.ndarray,
    boxes: Sequence[np.ndarray] | np.ndarray = (),
    faces: Sequence = (),
    parts: Sequence[np.ndarray] = (),
    width: float = 7,
    title: str | None = None,
) -> None:
    """A photo with detector boxes, faces with their keypoints, and smaller boxes of parts (eyes,
    smiles)."""
    figure, axis = plt.subplots(
        figsize=(width, width * image.shape[0] / image.shape[1]), layout="constrained"
    )
    image_on(axis, draw_faces(image, faces), title)
    boxes_on(axis, boxes)
    boxes_on(axis, parts, SKY, 1)
    plt.show()


def boxes_and_faces(
    image: np.ndarray, boxes: Sequence[np.ndarray] | np.ndarray, faces: Sequence, width: float = 11
) -> None:
    """Two panels: a photo with all boxes (n, 4) of a face detector, and with the accepted faces."""
    figure, (left, right) = plt.subplots(
        1,
        2,
        figsize=(width, width / 2 * image.shape[0] / image.shape[1] + 0.3),
        layout="constrained",
    )
    image_on(left, image, f"boxes of the face detector: {len(boxes)}")
    boxes_on(left, boxes)
    image_on(right, draw_faces(image, faces), f"accepted faces: {len(faces)}")
    for face in faces:
        right.annotate(
            f"{face.confidence:.2f}",
            face.points.min(0),
            xytext=(0, 3),
            textcoords="offset points",
            fontsize=8,
            color="black",
            bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 1},
        )
    plt.show()


def fitted_head(
    image: np.ndarray, box: np.ndarray, expressions: dict[str, float], most: int = 10
) -> None:
    """A photo with a fitted head drawn into it (`drawing.draw_heads`), cut out around the face, and
    bars of its `most` largest expressions."""
    left, top, width, height = (int(value) for value in box)
    margin = int(0.45 * max(width, height))
    low = max(top - margin, 0), max(left - margin, 0)
    part = image[low[0] : top + height + margin, low[1] : left + width + margin]
    figure, (picture, axis) = plt.subplots(
        1, 2, figsize=(9, 3.6), layout="constrained", width_ratios=(1, 1.4)
    )
    image_on(picture, part)
    rows = sorted(expressions.items(), key=lambda row: row[1])[-most:]
    axis.barh([name for name, _ in rows], [value for _, value in rows], color=BLUE)
    axis.set(xlim=(0, 1), xlabel="0: absent, 1: as strong as in the model")
    tidy(axis)
    plt.show()
