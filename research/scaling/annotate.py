"""Millions of images -> Parquet files of keypoints, here or on a Dask cluster; resumable."""

import argparse
import contextlib
import glob
import hashlib
import itertools
import json
import math
import multiprocessing
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tqdm import tqdm
import numpy as np

from facial_keypoints.defaults import DEFAULT_DETECTOR, DEFAULT_NET, MIN_CONFIDENCE
from facial_keypoints.paths import SAVED_MODELS, detector_names
from facial_keypoints.detector import KeypointDetector
from facial_keypoints.command import bounded_number, nonempty_path, printable, run_command
from facial_keypoints.errors import DataError, UsageError, import_optional
from facial_keypoints.files import atomic_write, read_text, short_message
from facial_keypoints.images import IMAGE_ENDINGS, MAX_BYTES, files_below, read_image
from facial_keypoints.model import find_model
from research.networks.on_demand import use_checkpoints_for
from research.scaling.locks import lock_folder

# maximum number of photos per file; number of files per worker in small jobs
CHUNK, CHUNKS = 500, 16
DIED = "the process that read it died; is the photo too large for the memory?"
# seconds in which a web server has to send a photo, and in which it has to send anything at all
SECONDS, SILENT = 60, 25
LOCK = threading.Lock()  # a cascade or a compiled network handles one photo at a time


def list_names(places: Sequence[str]) -> Iterator[str]:
    """Folders, globs, photos, .txt lists of these, and addresses (s3://, gs://, http://) -> names
    of photos, each once.

    The name of a file is its absolute path, so that a second call from another folder or another
    machine recognizes it.
    """
    seen = set()
    for place in places:
        for name in names_in(str(place)):
            if name not in seen:
                seen.add(name)
                yield name


def names_in(place: str, listed: bool = False) -> Iterator[str]:
    """The photos of one place, sorted. A missing file in a list is not an error here; it is
    reported when it is read."""
    if "://" in place:
        yield from names_at(place, listed)
    elif place.endswith(".txt") and Path(place).is_file() and not listed:
        # only \n: names may contain the other line separators of str.splitlines
        for line in read_text(place).split("\n"):
            if line.strip():
                yield from names_in(line if os.path.lexists(line) else line.strip(), listed=True)
    elif Path(place).is_dir():
        yield from map(os.path.abspath, files_below(place))
    elif os.path.lexists(place):
        yield os.path.abspath(place)
    else:
        found = [path for path in sorted(glob.glob(place, recursive=True)) if is_photo(path)]
        if not found and not listed:
            raise DataError(f"{place}: no such photo, folder or list")
        yield from map(os.path.abspath, found or [place])


def is_photo(name: str) -> bool:
    """True for a name or address with the extension of an image file."""
    with contextlib.suppress(ValueError):  # not a valid address: it is reported when it is read
        name = urlsplit(name).path if "://" in name else name
    return Path(name).suffix.lower() in IMAGE_ENDINGS


def names_at(address: str, listed: bool = False) -> Iterator[str]:
    """The photos at an address that fsspec supports. An address in a list is a photo with any
    extension, unless it ends in '/'."""
    if "*" not in address and (is_photo(address) or (listed and not address.endswith("/"))):
        yield address
        return
    fsspec = import_optional("fsspec", "an address")
    try:
        files, root = fsspec.core.url_to_fs(address)
        found = files.glob(root) if "*" in address else files.find(root)
    except Exception as error:  # each store raises errors of its own
        raise DataError(f"{address}: cannot be listed ({short_message(error)})") from None
    photos = sorted(files.unstrip_protocol(path) for path in found if is_photo(path))
    if not photos:
        raise DataError(f"{address}: no photos there")
    yield from photos


def model_file(net: str) -> Path:
    """The file of a model; PyTorch is imported if it is a checkpoint."""
    use_checkpoints_for(net)
    return find_model(net)


@cache
def detector_of(net: str, detector: str, min_confidence: float) -> KeypointDetector:
    """The detector of this process, created once."""
    model_file(net)
    import cv2

    cv2.setNumThreads(1)
    return KeypointDetector(net, detector, "cpu", min_confidence, threads=1)


def read(name: str) -> np.ndarray:
    """A photo from a path or an address. Raises DataError, also where a web server does not send it
    within SECONDS."""
    if "://" not in name:
        return read_image(name)
    fsspec = import_optional("fsspec", "an address")
    try:
        with fsspec.open(name, "rb", **store_options(name)) as file:
            data = file.read(MAX_BYTES + 1)
    except Exception as error:  # each store raises errors of its own
        # fsspec calls every failure of a web server a missing file; the cause says more
        cause = error.__cause__ or error
        reason = (
            "the server is too slow" if isinstance(cause, TimeoutError) else short_message(cause)
        )
        raise DataError(f"{name}: cannot be read ({reason})") from None
    if len(data) > MAX_BYTES:
        raise DataError(f"{name}: more than {MAX_BYTES:,} bytes, the most that is read")
    return read_image(data)


def store_options(name: str) -> dict:
    """Options of fsspec for an address: a limit of time for web servers, which may send nothing."""
    if not name.startswith(("http://", "https://")):
        return {}
    aiohttp = import_optional("aiohttp", "an address of a web server")
    return {
        "client_kwargs": {
            "timeout": aiohttp.ClientTimeout(SECONDS, sock_connect=SILENT, sock_read=SILENT)
        }
    }


def annotate_chunk(
    names: Sequence[str], net: str, detector: str, min_confidence: float
) -> tuple[list[tuple], dict[str, str]]:
    """Photos by name -> (rows, bad).

    rows: a tuple (name, number of the face, box, confidence, points, point confidence) per face;
    box and points in pixels. bad: {name: reason} of the photos that failed.
    """
    rows, bad, detect = [], {}, detector_of(net, detector, min_confidence)
    for name in names:
        try:
            image = read(name)
            with LOCK:
                faces = detect(image)
        except Exception as error:
            # one photo must not stop the whole job, whatever a library raises
            bad[name] = (
                str(error) if isinstance(error, DataError) else f"{type(error).__name__}: {error}"
            )
            continue
        rows += [
            (
                name,
                number,
                face.box.tolist(),
                face.confidence,
                face.points.ravel().tolist(),
                np.asarray(face.point_confidence).tolist(),
            )
            for number, face in enumerate(faces)
        ]
    return rows, bad


def schema(pyarrow: Any, points: int = 68) -> Any:
    """Columns of the files, for so many keypoints per face."""
    single, vector = pyarrow.float32(), lambda n: pyarrow.list_(pyarrow.float32(), n)
    return pyarrow.schema(
        [
            ("name", pyarrow.string()),
            ("face", pyarrow.int32()),
            ("box", vector(4)),
            ("confidence", single),
            ("points", vector(2 * points)),
            ("point_confidence", vector(points)),
        ]
    )


def write_chunk(
    out: Path, names: Sequence[str], rows: list[dict], bad: list, settings: dict, points: int = 68
) -> None:
    """Write the file of a chunk atomically. Its footer contains the names of the photos, the ones
    that failed with the reasons, and the settings."""
    import pyarrow
    import pyarrow.parquet

    columns = list(zip(*rows, strict=True)) or [()] * 6
    arrays = [[legible(name) for name in columns[0]], *columns[1:]]
    about = {"names": names, "bad": bad, "settings": settings}
    shape = schema(pyarrow, points).with_metadata(
        {key: json.dumps(value) for key, value in about.items()}
    )
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table(arrays, schema=shape), sink)
    digest = hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    atomic_write(out / f"part-{digest}.parquet", sink.getvalue().to_pybytes())


def legible(name: str) -> str:
    """A name as valid text: bytes that are not UTF-8 become escape sequences."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def done_before(out: Path, settings: dict) -> set[str]:
    """Names of the photos that are annotated in the files of a folder. Raises UsageError if a file
    was made with other settings.

    Photos that could not be read are not included, so that they are tried again: a disk or a
    network may have been unavailable.
    """
    names = set()
    for path in sorted(out.glob("part-*.parquet")):
        before, annotated = footer_of(path)
        if before != settings:
            raise UsageError(
                f"{path} was made with {json.dumps(before)}; give the same, or another --out"
            )
        names |= annotated
    return names


def footer_of(path: Path) -> tuple[dict, set[str]]:
    """The footer of a file: the settings it was made with, and the names of the annotated photos.
    Raises DataError."""
    import pyarrow
    import pyarrow.parquet

    try:
        footer = pyarrow.parquet.read_schema(path).metadata
        settings, known, bad = (json.loads(footer[key]) for key in (b"settings", b"names", b"bad"))
        return settings, set(known) - set(bad)
    except (
        pyarrow.ArrowException,
        KeyError,
        TypeError,
        OSError,
        ValueError,
        RecursionError,
    ) as error:
        raise DataError(
            f"{path}: not a file of this command ({type(error).__name__}); delete it "
            "and run the command again"
        ) from None


def chunk_size(photos: int, workers: int) -> int:
    """Number of photos per file. In small jobs it is less than CHUNK, so that all workers get some
    and an interruption loses little."""
    return min(max(math.ceil(photos / (CHUNKS * workers)), 1), CHUNK)


def chunks_of(names: Iterable[str], size: int) -> Iterator[list[str]]:
    """Lists of at most `size` names."""
    names = iter(names)
    while chunk := list(itertools.islice(names, size)):
        yield chunk


def pool(workers: int) -> ProcessPoolExecutor:
    """Processes started by spawn: forked ones would inherit the state of the libraries' threads
    without the threads."""
    os.environ["OMP_NUM_THREADS"] = "1"  # a worker takes one core
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=follow)


def end_after(parent: Any) -> None:
    """Wait for a process, then end this one."""
    parent.join()
    os._exit(1)


def follow() -> None:
    """End this process when its parent process ends, even if the parent was killed."""
    parent = multiprocessing.parent_process()
    threading.Thread(target=end_after, args=(parent,), daemon=True).start()


def annotate_here(chunks: Iterable[list[str]], arguments: tuple, workers: int) -> Iterator[tuple]:
    """(names, rows, bad) of chunks as local processes finish them; a process may die."""
    waiting, chunks, executor = {}, iter(chunks), pool(workers)
    try:
        while True:
            lost = []
            # at most 2 * workers chunks at a time: memory stays constant
            for chunk in itertools.islice(chunks, 2 * workers - len(waiting)):
                try:
                    waiting[executor.submit(annotate_chunk, chunk, *arguments)] = chunk
                except BrokenProcessPool:
                    lost.append(chunk)
            if not waiting and not lost:
                return
            for future in wait(waiting, return_when=FIRST_COMPLETED).done if not lost else ():
                chunk = waiting.pop(future)
                try:
                    yield (chunk, *future.result())
                except BrokenProcessPool:
                    lost.append(chunk)
            if lost:  # together with all waiting chunks: any of them may be the cause
                lost += waiting.values()
                waiting = {}
                executor.shutdown(cancel_futures=True)
                with ThreadPoolExecutor(workers) as threads:
                    for ended in threads.map(lambda one: list(alone(one, arguments)), lost):
                        yield from ended
                executor = pool(workers)
    finally:
        executor.shutdown(cancel_futures=True)


def alone(chunk: list[str], arguments: tuple) -> Iterator[tuple]:
    """Repeat a chunk that may have killed a process, in a new process. If it dies again, the chunk
    is halved until the photo is found."""
    try:
        with pool(1) as executor:
            yield (chunk, *executor.submit(annotate_chunk, chunk, *arguments).result())
    except BrokenProcessPool:
        if len(chunk) == 1:
            yield chunk, [], {chunk[0]: DIED}
        else:
            for half in (chunk[: len(chunk) // 2], chunk[len(chunk) // 2 :]):
                yield from alone(half, arguments)


def on_cluster(chunks: Iterable[list[str]], arguments: tuple, scheduler: str) -> Iterator[tuple]:
    """(names, rows, bad) of chunks as a Dask cluster finishes them. The chunks of a dead worker are
    repeated on another one."""
    from research.scaling.dask_cluster import map_on_cluster

    given_up = []
    for chunk, result, problem in map_on_cluster(
        scheduler, "research.scaling.annotate.annotate_chunk", chunks, *arguments
    ):
        if problem and not problem.startswith("KilledWorker"):
            raise DataError(f"{scheduler}: a worker could not begin: {problem}")
        if problem:
            given_up.append(chunk)
        else:
            yield (chunk, *result)
    # photo by photo: Dask counts the death of a worker against all its chunks
    for name in itertools.chain.from_iterable(given_up):
        for chunk, result, _ in map_on_cluster(
            scheduler, "research.scaling.annotate.annotate_chunk", [[name]], *arguments
        ):
            yield (chunk, *(result or ([], {name: DIED})))


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Annotate the faces of photos with keypoints, into Parquet files."
    )
    parser.add_argument(
        "places",
        nargs="+",
        type=nonempty_path,
        metavar="PLACE",
        help="folders, globs, photos, .txt lists, s3://, gs://, http://",
    )
    parser.add_argument(
        "--out",
        type=nonempty_path,
        required=True,
        help="folder of the Parquet files; a second call continues there",
    )
    parser.add_argument("--net", default=DEFAULT_NET, help="(default: %(default)s)")
    parser.add_argument("--detector", default=DEFAULT_DETECTOR, choices=detector_names())
    parser.add_argument(
        "--min-confidence",
        type=bounded_number(float, 0, 1),
        default=MIN_CONFIDENCE,
        help="(default: %(default)s)",
    )
    parser.add_argument(
        "--chunk",
        type=bounded_number(int, 1),
        help=f"photos per file (default: {CHUNKS} files per worker, of at most {CHUNK} photos)",
    )
    parser.add_argument(
        "--workers",
        type=bounded_number(int, 1),
        default=os.cpu_count() or 1,
        help="processes (default: %(default)s)",
    )
    parser.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="scheduler of a Dask cluster to use instead of local processes",
    )
    options = parser.parse_args()

    options.out = Path(options.out)
    import_optional("pyarrow", "writing Parquet")
    weights = model_file(options.net)
    net = options.net if weights.parent == SAVED_MODELS else os.path.abspath(weights)
    settings = {
        "net": str(net),
        "detector": options.detector,
        "min_confidence": options.min_confidence,
    }
    arguments = tuple(settings.values())
    # a wrong name is reported now
    points = len(detector_of(*arguments).model.layout)
    # the weights of a name may change between calls
    settings["weights"] = hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
    with lock_folder(options.out):
        return annotate(options, arguments, settings, points)


def annotate(options: argparse.Namespace, arguments: tuple, settings: dict, points: int) -> int:
    """The work of the command, after the folder is locked."""
    names, bad = done_before(options.out, settings), {}
    todo = [name for name in list_names(options.places) if name not in names]
    if not todo and not names:
        raise DataError(
            f"no photos in {', '.join(options.places)} (looked for {', '.join(IMAGE_ENDINGS)})"
        )
    print(f"{len(todo)} photos to do, {len(names)} done before")
    size = options.chunk or chunk_size(len(todo), options.workers)
    chunks, faces = chunks_of(todo, size), 0
    finished = (
        on_cluster(chunks, arguments, options.scheduler)
        if options.scheduler
        else annotate_here(chunks, arguments, options.workers)
    )
    with tqdm(total=len(todo), unit="photo", disable=not sys.stderr.isatty()) as bar:
        for chunk, rows, wrong in finished:
            write_chunk(options.out, chunk, rows, wrong, settings, points)
            bad |= wrong
            faces += len(rows)
            bar.update(len(chunk))
            bar.set_postfix(faces=faces, bad=len(bad), refresh=False)
    print(f"{faces} faces found in {len(todo)} photos, into {options.out}")
    for name, reason in bad.items():
        message = reason if name in reason else f"{name}: {reason}"
        print(f"failed: {printable(message)}", file=sys.stderr)
    if bad:
        print(
            f"{len(bad)} photos could not be annotated; the next call tries them again",
            file=sys.stderr,
        )
    return 1 if bad else 0


if __name__ == "__main__":
    run_command(main)
