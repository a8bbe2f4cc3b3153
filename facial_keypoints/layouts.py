"""Keypoint layouts: what the points of a data set or a model are called, which belong together, and
how points of one layout become those of another."""

import itertools
import os
import re
import tomllib
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np

from facial_keypoints.defaults import DEFAULT_LAYOUT
from facial_keypoints.paths import LAYOUTS, layout_names
from facial_keypoints.errors import DataError, UsageError
from facial_keypoints.geometry import CROP_SCALE
from facial_keypoints.files import MAX_COORDINATE
from facial_keypoints.images import read_bytes

MAX_POINTS = 2000  # per face; more are a mistake
MAX_LISTED = 10_000  # keypoints in one list; more are a mistake
MAX_TEXT = 200  # characters of a name
MAX_BYTES = 1_000_000  # of a file
NUMBERED = re.compile(r".* \d+$|\d+$")  # a name that is only a position along its part


@dataclass(frozen=True)
class Part:
    """A part of the face: the indices of its keypoints in the order in which a line connects them.

    closed: the line returns to its start; region: parts of one region share a row of the metrics.
    """

    name: str
    points: tuple[int, ...]
    closed: bool = False
    region: str = ""


@dataclass(frozen=True)
class Normalization:
    """The distance that errors are divided by: between the means of two groups of keypoints."""

    name: str
    start: tuple[int, ...]
    end: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """A keypoint layout: `len(layout)` keypoints with names, parts and mirror pairs.

    keypoints: their names, in order; left and right are those of the person. parts: groups of
    keypoints. mirror: for each keypoint the index of its partner in a mirrored image, its own for
    points on the middle line; empty where that is not known, and then nothing is mirrored.
    normalization: None where no distance is named; then the diagonal of the tight box is used.
    crop_scale: side of the square crop / longer side of the tight box of the keypoints. shape:
    where the keypoints of a typical face lie (x to the right, y down, in any unit), for drawings,
    for the roll of faces and in place of missing points; training adds it. source: where the layout
    comes from.
    """

    name: str
    keypoints: tuple[str, ...]
    parts: tuple[Part, ...] = ()
    mirror: tuple[int, ...] = ()
    normalization: Normalization | None = None
    crop_scale: float = CROP_SCALE
    shape: tuple[tuple[float, float], ...] = ()
    source: str = ""

    def __len__(self) -> int:
        return len(self.keypoints)

    def __hash__(self) -> int:  # hashing all names is slower than the cached lookup
        return hash((self.name, len(self.keypoints)))

    def part(self, name: str) -> Part:
        """A part by name. Raises UsageError that lists the parts there are."""
        for part in self.parts:
            if part.name == name:
                return part
        present = ", ".join(part.name for part in self.parts) or "none"
        raise UsageError(f"layout {self.name} has no part {name!r}; its parts are: {present}")

    @cached_property
    def regions(self) -> dict[str, list[int]]:
        """{region: indices of its keypoints}, in the order of the parts."""
        found: dict[str, list[int]] = {}
        for part in self.parts:
            rows = found.setdefault(part.region or part.name, [])
            rows += [index for index in part.points if index not in rows]
        return found

    @cached_property
    def flip_indices(self) -> np.ndarray:
        """(k,) where each keypoint comes from in a mirrored image: `points[..., flip_indices, :]`.
        Raises UsageError for a layout without mirror pairs."""
        if not self.mirror:
            raise UsageError(
                f"layout {self.name} has no mirror pairs; add `mirror = [[…, …], …]` to its file"
            )
        return np.array(self.mirror)

    def skeleton(self) -> list[tuple[int, int]]:
        """The pairs of keypoints that a line connects, from the parts; each pair once."""
        pairs: dict[tuple[int, int], None] = {}
        for part in self.parts:
            last = [(part.points[-1], part.points[0])] if part.closed else []
            for a, b in [*itertools.pairwise(part.points), *last]:
                if a != b and (b, a) not in pairs:
                    pairs[a, b] = None
        return list(pairs)

    def normalizer(self, points: np.ndarray) -> np.ndarray:
        """Keypoints (…, k, 2) -> the distance (…) that errors are divided by, in the same unit; nan
        where a point that it needs is missing."""
        if self.normalization is None:
            low, high = np.nanmin(points, -2), np.nanmax(points, -2)
            return np.linalg.norm(high - low, axis=-1)
        start, end = (
            points[..., list(rows), :].mean(-2)
            for rows in (self.normalization.start, self.normalization.end)
        )
        return np.linalg.norm(start - end, axis=-1)

    def to_dict(self) -> dict:
        """The layout as the dictionary that `layout_from` reads, of plain values: for checkpoints,
        exported models and JSON."""
        pairs = [[index, other] for index, other in enumerate(self.mirror) if index < other]
        values: dict[str, Any] = {
            "name": self.name,
            "keypoints": list(self.keypoints),
            "parts": [asdict(part) for part in self.parts],
            "crop_scale": self.crop_scale,
            "source": self.source,
        }
        if self.mirror:
            values["mirror"] = pairs
        if self.shape:
            values["shape"] = self.shape
        if self.normalization:
            values["normalization"] = asdict(self.normalization)
        return to_lists(values)


def to_lists(value: Any) -> Any:
    """Tuples inside dictionaries and lists as lists."""
    if isinstance(value, dict):
        return {key: to_lists(one) for key, one in value.items()}
    return [to_lists(one) for one in value] if isinstance(value, (list, tuple)) else value


class LayoutReader:
    """Checks the values of a layout file; each error names the file, what is wrong and what to do.

    where: the file or model that the values come from.
    """

    def __init__(self, values: Any, where: str | os.PathLike):
        self.where = where
        if not isinstance(values, dict):
            raise self.error("not a layout: a table of keys is needed")
        self.values = values
        known = {
            "name",
            "keypoints",
            "names",
            "parts",
            "mirror",
            "normalization",
            "crop_scale",
            "shape",
            "source",
        }
        if unknown := sorted(map(str, values.keys() - known)):
            raise self.error(f"unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}")
        self.keypoints = self.read_keypoints()
        self.numbers = {name: index for index, name in enumerate(self.keypoints)}

    def error(self, text: str) -> DataError:
        return DataError(f"{self.where}: {text}")

    def text(self, value: Any, what: str) -> str:
        """A name: text that can be printed in one line."""
        if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT or not value.isprintable():
            raise self.error(
                f"{what} must be a string of 1 to {MAX_TEXT} characters on one line, "
                f"not {str(value)[:40]!r}"
            )
        return value

    def read_keypoints(self) -> tuple[str, ...]:
        """The names of the keypoints: a list, or their number and a table [names] for some."""
        given = self.values.get("keypoints")
        if isinstance(given, int) and not isinstance(given, bool):
            if not 1 <= given <= MAX_POINTS:
                raise self.error(f"keypoints must be 1 to {MAX_POINTS}, not {given}")
            names = [str(index) for index in range(given)]
        elif isinstance(given, list) and 1 <= len(given) <= MAX_POINTS:
            names = [self.text(name, "the name of a keypoint") for name in given]
        else:
            raise self.error(
                "`keypoints` must be a list of names, or how many keypoints there are "
                f"(1 to {MAX_POINTS})"
            )
        more = self.values.get("names", {})
        if not isinstance(more, dict):
            raise self.error('`names` must be a table: index = "name"')
        for key, name in more.items():
            if not re.fullmatch(r"\d{1,5}", str(key)) or int(key) >= len(names):
                raise self.error(f"names: {str(key)[:40]!r} is no index from 0 to {len(names) - 1}")
            names[int(key)] = self.text(name, f"names: {key}")
        if len(twice := [name for name in names if names.count(name) > 1]):
            raise self.error(f"two keypoints have the name {twice[0]!r}")
        return tuple(names)

    def indices(self, values: Any, what: str) -> tuple[int, ...]:
        """Keypoints by index, by name, or as a range of indices "0-16" -> indices."""
        if not isinstance(values, list):
            values = [values]
        found: list[int] = []
        for value in values:
            if isinstance(value, str) and value in self.numbers:
                found.append(self.numbers[value])
            elif isinstance(value, str) and re.fullmatch(r"\d{1,5}-\d{1,5}", value):
                first, last = map(int, value.split("-"))
                step = 1 if last >= first else -1
                found += range(first, last + step, step)
                if len(found) > MAX_LISTED:
                    raise self.error(f"{what}: more than {MAX_LISTED:,} keypoints in it")
            elif isinstance(value, int) and not isinstance(value, bool):
                found.append(value)
            else:
                raise self.error(
                    f"{what}: {str(value)[:40]!r} is no keypoint; give an index, a "
                    'name, or a range such as "0-16"'
                )
        wrong = [index for index in found if not 0 <= index < len(self.keypoints)]
        if wrong:
            raise self.error(
                f"{what}: there is no keypoint {wrong[0]}; they are 0 to {len(self.keypoints) - 1}"
            )
        if not found:
            raise self.error(f"{what}: no keypoints in it")
        return tuple(found)

    def read_parts(self) -> tuple[Part, ...]:
        given, parts = self.values.get("parts", []), []
        if not isinstance(given, list) or not all(isinstance(part, dict) for part in given):
            raise self.error("`parts` must be a list of tables: [[parts]]")
        if len(given) > MAX_POINTS:
            raise self.error(f"{len(given):,} parts, at most {MAX_POINTS:,} are read")
        for part in given:
            name = self.text(part.get("name"), "the name of a part")
            if unknown := sorted(part.keys() - {"name", "points", "closed", "region"}):
                raise self.error(f"part {name!r}: unknown key {unknown[0]!r}")
            if name in (other.name for other in parts):
                raise self.error(f"two parts have the name {name!r}")
            closed = part.get("closed", False)
            if not isinstance(closed, bool):
                raise self.error(f"part {name!r}: closed must be true or false")
            region = part.get("region", "")
            parts.append(
                Part(
                    name,
                    self.indices(part.get("points", []), f"part {name!r}"),
                    closed,
                    region and self.text(region, f"part {name!r}: region"),
                )
            )
        return tuple(parts)

    def read_mirror(self) -> tuple[int, ...]:
        """Pairs of keypoints -> the partner of each; those in no pair lie on the middle line."""
        pairs = self.values.get("mirror")
        if pairs is None:
            return ()
        if not isinstance(pairs, list):
            raise self.error("`mirror` must be a list of pairs")
        partner = list(range(len(self.keypoints)))
        for pair in pairs:
            if not isinstance(pair, list) or len(pair) != 2:
                raise self.error(f"mirror: {str(pair)[:40]} is no pair")
            a, b = (self.indices(one, "mirror")[0] for one in pair)
            if a == b or partner[a] != a or partner[b] != b:
                both = [self.keypoints[one] for one in (a, b)]
                raise self.error(
                    f"mirror: {both[0]!r} and {both[1]!r}: each keypoint is in one "
                    "pair with another keypoint"
                )
            partner[a], partner[b] = b, a
        return tuple(partner)

    def read_normalization(self) -> Normalization | None:
        given = self.values.get("normalization")
        if given is None:
            return None
        if not isinstance(given, dict) or given.keys() != {"name", "start", "end"}:
            raise self.error("`normalization` must have the keys name, start and end")
        start, end = (self.indices(given[key], f"normalization: {key}") for key in ("start", "end"))
        if set(start) == set(end):
            raise self.error("normalization: start and end are the same keypoints")
        return Normalization(self.text(given["name"], "normalization: name"), start, end)

    def read_shape(self) -> tuple[tuple[float, float], ...]:
        given = self.values.get("shape", [])
        if not given:
            return ()
        try:
            shape = np.asarray(given, np.float64)
        except (TypeError, ValueError, OverflowError):
            shape = np.zeros(0)
        if shape.shape != (len(self.keypoints), 2) or not (np.abs(shape) <= MAX_COORDINATE).all():
            raise self.error(f"`shape` must be {len(self.keypoints)} pairs of numbers")
        return tuple((float(x), float(y)) for x, y in shape)

    def layout(self) -> Layout:
        scale = self.values.get("crop_scale", CROP_SCALE)
        if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not 0.5 <= scale <= 5:
            raise self.error("crop_scale must be a number from 0.5 to 5")
        source = self.values.get("source", "")
        if not isinstance(source, str) or len(source) > 2000:
            raise self.error("source must be a string of at most 2000 characters")
        return Layout(
            self.text(self.values.get("name"), "`name`"),
            self.keypoints,
            self.read_parts(),
            self.read_mirror(),
            self.read_normalization(),
            float(scale),
            self.read_shape(),
            " ".join(source.split()),
        )


def layout_from(values: Any, where: str | os.PathLike) -> Layout:
    """A layout from a dictionary (of TOML, JSON or a checkpoint), checked, or from the name of a
    layout that comes with the library. Raises DataError that names `where`."""
    if isinstance(values, str) and values in layout_names():
        return load_layout(values)
    return LayoutReader(values, where).layout()


def read_layout(path: str | os.PathLike, data: bytes | None = None) -> Layout:
    """A layout from a TOML file; data: its bytes, if they were read already. Raises DataError that
    names `path`."""
    data = read_bytes(path) if data is None else data
    if len(data) > MAX_BYTES:
        raise DataError(f"{path}: more than {MAX_BYTES:,} bytes, too large for a layout")
    for number, line in enumerate(data.split(b"\n"), 1):  # tomllib keeps each prefix of a key
        if line.count(b".") > 20 + 2 * line.count(b","):
            raise DataError(f"{path}: line {number}: a key of more than 20 parts")
    try:
        values = tomllib.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a TOML file ({str(error)[:200]})") from None
    return layout_from(values, path)


@cache
def _installed(name: str) -> Layout:
    return read_layout(LAYOUTS / f"{name}.toml")


def load_layout(layout: str | os.PathLike | Layout = DEFAULT_LAYOUT) -> Layout:
    """A layout by its name or by the path of a TOML file; a Layout is returned as it is. Raises
    UsageError for an unknown name, and DataError for a file that is not a layout."""
    if isinstance(layout, Layout):
        return layout
    if str(layout) in layout_names():
        return _installed(str(layout))
    if str(layout).endswith(".toml"):
        return read_layout(layout)
    raise UsageError(
        f"no layout {str(layout)!r}; present are {', '.join(layout_names())}, or give a .toml file"
    )


def unnamed_layout(points: int) -> Layout:
    """A layout of which only the number of keypoints is known: no keypoint has a mirror partner,
    so images are not mirrored, and errors are in % of the diagonal of the tight box."""
    return Layout(f"unnamed{points}", tuple(str(index) for index in range(points)))


@cache
def conversion_matrix(source: Layout, target: Layout) -> np.ndarray:
    """(points of target, points of source) float64: each keypoint of `target` as a weighted mean of
    keypoints of `source`; rows of nan where it cannot be derived.

    A keypoint of `target` is the first of these that exists: the keypoint of the same name (names
    that are only numbers do not count); for the name "… center" of a closed part, the mean of that
    part; for a keypoint of a part that both layouts have, a point between the two nearest keypoints
    of that part whose names both layouts have, interpolated along the part of the source.
    """
    if source == target:
        return np.eye(len(source))
    weights = np.full((len(target), len(source)), np.nan)
    numbers = {
        name: index for index, name in enumerate(source.keypoints) if not NUMBERED.fullmatch(name)
    }
    parts = {part.name: part for part in source.parts}
    for row, name in enumerate(target.keypoints):
        center = parts.get(name.removesuffix(" center"))
        if name in numbers:
            weights[row] = np.eye(len(source))[numbers[name]]
        elif center and center.closed and name.endswith(" center"):
            weights[row] = np.isin(np.arange(len(source)), center.points) / len(set(center.points))
    for part in target.parts:
        if part.name in parts and parts[part.name].closed == part.closed:
            interpolate_part(weights, target, part, source, parts[part.name])
    return weights


def interpolate_part(
    weights: np.ndarray, target: Layout, part: Part, source: Layout, other: Part
) -> None:
    """Fill the rows of `weights` for a part of the target from the same part of the source."""
    names = {
        source.keypoints[index]: place
        for place, index in enumerate(other.points)
        if not NUMBERED.fullmatch(source.keypoints[index])
    }
    shared = [
        (place, names[target.keypoints[index]])
        for place, index in enumerate(part.points)
        if target.keypoints[index] in names
    ]
    if part.closed and shared:  # once around: from the last shared point to the first
        shared.append((shared[0][0] + len(part.points), shared[0][1] + len(other.points)))
    for (start, from_place), (end, to_place) in itertools.pairwise(shared):
        to_place += len(other.points) if part.closed and to_place < from_place else 0
        if to_place - from_place < 2:
            continue  # nothing of the source lies between: a straight line would be a guess
        for place in range(start + 1, end):
            row = part.points[place % len(part.points)]
            if not np.isnan(weights[row]).any():
                continue
            at = from_place + (to_place - from_place) * (place - start) / (end - start)
            low, share = int(at), at - int(at)
            weights[row] = 0
            for offset, weight in ((0, 1 - share), (1, share)):
                if weight:
                    weights[row, other.points[(low + offset) % len(other.points)]] += weight


def convert_points(points: Any, source: str | Layout, target: str | Layout) -> np.ndarray:
    """Keypoints (…, k, d) of one layout as those of another, (…, m, d) float32; nan for keypoints
    that cannot be derived.

    source, target: names or files of layouts. Conventions of data sets differ also where names are
    the same: docs/keypoints.md states by how much. Raises UsageError for another number of points.
    """
    source, target = load_layout(source), load_layout(target)
    points = np.asarray(points, np.float64)
    if points.ndim < 2 or points.shape[-2] != len(source):
        raise UsageError(
            f"layout {source.name} has {len(source)} keypoints; the points have the "
            f"shape {points.shape}"
        )
    weights = conversion_matrix(source, target)
    known = ~np.isnan(weights).any(1)
    result = np.full((*points.shape[:-2], len(target), points.shape[-1]), np.nan, np.float32)
    used = (weights[known] != 0).any(0)  # a missing point spoils only what is made of it
    result[..., known, :] = _product(weights[known][:, used], points[..., used, :])
    return result


def _product(weights, points):
    """weights @ points, in which missing points (nan) count only where their weight is not 0."""
    missing = np.isnan(points)
    if not missing.any():
        return weights @ points
    sums = weights @ np.where(missing, 0, points)
    return np.where((weights != 0).astype(float) @ missing > 0, np.nan, sums)
