"""How a command runs: argument types, signals, streams, errors in one line and exit codes."""

import argparse
import os
import re
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from facial_keypoints.errors import DataError, UsageError


def bounded_number(kind: type, low: float | None = None, high: float | None = None) -> Callable:
    """An argparse type: a number of `kind` from `low` to `high`, both included, and not nan."""

    def convert(text):
        value = kind(text)
        if kind is int and abs(value) > 2**32:
            raise argparse.ArgumentTypeError(f"{text[:20]} is too large")
        if (low is not None and not value >= low) or (high is not None and not value <= high):
            allowed = f"at least {low}" if high is None else f"from {low} to {high}"
            raise argparse.ArgumentTypeError(f"{text} is not {allowed}")
        return value

    convert.__name__ = kind.__name__
    return convert


# characters of C0 and C1 (escapes, line breaks), and marks that turn the direction of text
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def printable(text: object) -> str:
    """A message or a name with control characters as escapes such as \\x1b, so that the name of a
    file can neither move the cursor of a terminal nor look like another line."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def nonempty_path(text: str) -> str:
    """An argparse type: the path of a file or folder. An empty text, for example from an unset
    shell variable, is an error."""
    if not text:
        raise argparse.ArgumentTypeError("an empty path (unset shell variable?)")
    return text


class PipeSafeStream:
    """A text stream that ignores output when its reader has closed the pipe (`… | head -1`), so
    that the work continues to its end."""

    def __init__(self, stream: Any):
        # file names may contain characters that the terminal cannot show
        stream.reconfigure(errors="backslashreplace")
        self.stream = stream

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        try:
            return self.stream.write(text)
        except BrokenPipeError:
            self.redirect_to_devnull()
            return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except BrokenPipeError:
            self.redirect_to_devnull()

    def redirect_to_devnull(self) -> None:
        """Discard all further output."""
        discard(self.stream.fileno())


def discard(descriptor: int) -> None:
    """Discard all that is written to a file descriptor from now on."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


class Terminated(KeyboardInterrupt):
    """Raised by a signal that ends the process. It unwinds as Ctrl-C does, so that temporary files
    are removed; `number`: of the signal."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number


def end_by_signals() -> None:
    """In this process, not in its children, SIGTERM, SIGHUP and SIGQUIT raise Terminated, and
    SIGINT (Ctrl-C) raises KeyboardInterrupt. Signals that are ignored (nohup) or handled already
    stay so."""
    owner = os.getpid()
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def handle(number, _):
        if os.getpid() == owner:
            raise Terminated(number)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    for name in ("SIGTERM", "SIGHUP", "SIGQUIT"):
        number = getattr(signal, name, None)  # Windows has only some
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, handle)


def silence_libraries() -> None:
    """Discard what libraries of C and C++ print to standard error, such as libpng, libjpeg and
    OpenCV about a damaged image: the command says it in one line. FACIAL_KEYPOINTS_VERBOSE=1 keeps
    their lines."""
    stream = sys.stderr
    if os.environ.get("FACIAL_KEYPOINTS_VERBOSE") or stream is None or stream.fileno() != 2:
        return
    kept = os.dup(2)
    sys.stderr = os.fdopen(
        kept,
        "w",
        buffering=1,
        encoding=stream.encoding,
        errors="backslashreplace",
    )
    discard(2)


SEED = bounded_number(int, 0, 2**32 - 1)


def _current_folder_exists():
    try:
        return bool(os.getcwd())
    except OSError:
        return False


def run_command(main: Callable, quiet: bool = False) -> NoReturn:
    """Call `main()` and exit with its exit code. An error that a user can correct is reported in
    one line. quiet: call `silence_libraries`."""
    if quiet:
        silence_libraries()
    end_by_signals()
    sys.stdout, sys.stderr = (
        stream and PipeSafeStream(stream) for stream in (sys.stdout, sys.stderr)
    )  # None where it is closed
    try:
        code = main()
        if sys.stdout:
            sys.stdout.flush()
    except (DataError, UsageError) as error:
        print(f"error: {printable(error)}", file=sys.stderr)
        code = 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt as stop:
        print("stopped", file=sys.stderr)
        code = 128 + (stop.number if isinstance(stop, Terminated) else signal.SIGINT)
    except BrokenPipeError:
        # the reader has closed the pipe (`--csv - | head`): this is not an error
        if isinstance(sys.stdout, PipeSafeStream):
            sys.stdout.redirect_to_devnull()
        code = 0
    except OSError as error:  # a name too long, a folder that may not be read, a full disk
        where = f"{error.filename}: " if error.filename else ""
        if not where and not _current_folder_exists():
            where = "the current folder was deleted: "
        print(f"error: {printable(f'{where}{error.strerror or error}')}", file=sys.stderr)
        code = 1
    except MemoryError:
        print("error: not enough memory; give smaller or fewer files", file=sys.stderr)
        code = 1
    sys.exit(code)
