"""Notebook helpers: parameter checks, menus, an upload button."""

import ast
import difflib
import importlib.util
import os
import platform
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from facial_keypoints.errors import DataError, UsageError
from facial_keypoints.images import read_image
from research import HOME


def start() -> None:
    """Go to the folder of the project, wherever the notebook was opened: its paths are relative to
    it."""
    os.chdir(HOME)


def environment(device: object = None) -> str:
    """Versions of Python and the main packages, and the device (the one that training chooses by
    default), in one line."""
    import cv2
    import torch

    from research.networks.registry import best_device

    return (
        f"Python {platform.python_version()}, PyTorch {torch.__version__}, NumPy "
        f"{np.__version__}, OpenCV {cv2.__version__}, "
        f"device {device or best_device()}"
    )


def table(rows: Sequence[dict]) -> Any:
    """Rows {column: value} as a table that Jupyter shows; the first column is the heading of the
    row."""
    import pandas as pd

    frame = pd.DataFrame([{name: str(value) for name, value in row.items()} for row in rows])
    return frame.set_index(frame.columns[0]).rename_axis(None)


def check_parameters(namespace: dict) -> None:
    """Raise UsageError for parameters with unknown names or wrong types. Each notebook calls this
    after the cell with its parameters, whose lines end in `# @param`.

    namespace: the notebook's globals(). The types are those of the defaults in that cell. papermill
    only warns about an unknown name and continues with the defaults. It injects the given
    parameters as a cell that begins with '# Parameters'.
    """
    cells = namespace.get("In", [])
    kinds = {
        node.targets[0].id: type(ast.literal_eval(node.value))
        for cell in [cell for cell in cells if "# @param" in cell][:1]
        for node in ast.parse(cell).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    injected = [cell for cell in cells if cell.startswith("# Parameters")]
    for node in ast.walk(ast.parse(injected[-1] if injected else "")):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id not in kinds:
            raise UsageError(unknown_parameter(node.id, kinds))
    for name, kind in kinds.items():
        value = namespace[name]
        fits = isinstance(value, (int, float) if kind is float else kind) and (
            kind is bool or not isinstance(value, bool)
        )
        if not fits:
            raise UsageError(
                f"parameter {name} must be of type {kind.__name__}, not {value!r} "
                f"({type(value).__name__}); "
                f"with papermill, -p guesses the type and -y '{{{name}: …}}' takes "
                "YAML"
            )


def unknown_parameter(name: str, known: Iterable[str]) -> str:
    """The message for a parameter that does not exist, with the most similar one that does."""
    close = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"unknown parameter {name!r}: {hint}known are {', '.join(known)}"


def has_front_end() -> bool:
    """True in Jupyter, VS Code and Colab; False under papermill, nbval and plain Python."""
    return bool(
        os.environ.get("JPY_SESSION_NAME")
        or os.environ.get("VSCODE_PID")
        or "google.colab" in sys.modules
    )


def has_widgets() -> bool:
    """True where menus and buttons can be used: a front end, and ipywidgets in the kernel's
    environment."""
    return has_front_end() and importlib.util.find_spec("ipywidgets") is not None


def pick(draw: Callable, **choices: Sequence) -> None:
    """Call draw(name=value, …) with one value of each list of choices, chosen in menus.

    A choice is a value or a pair (label, value). The menus hold labels only: ipywidgets compares
    options with `==`, which has no single result for arrays. Without widgets, draw is called once
    with the first choices.
    """
    values = {
        name: {str(label): value for label, value in map(labeled, options)}
        for name, options in choices.items()
    }
    if has_widgets():
        from ipywidgets import interact

        interact(
            lambda **labels: draw(**{name: values[name][label] for name, label in labels.items()}),
            **{name: list(options) for name, options in values.items()},
        )
    else:
        draw(**{name: next(iter(options.values())) for name, options in values.items()})


def labeled(choice: Any) -> tuple:
    """A choice of `pick` as a pair (label, value)."""
    return choice if isinstance(choice, tuple) else (choice, choice)


def upload(draw: Callable) -> None:
    """Show a button that uploads photos and calls draw(image) for each; without widgets, do
    nothing.

    A file that is not a readable image gives one line with its name; the other files are drawn.
    """
    if not has_widgets():
        return
    from IPython.display import display
    from ipywidgets import FileUpload, Output

    button, place = FileUpload(accept="image/*", multiple=True), Output()

    def draw_uploads(_):
        place.clear_output()
        with place:
            for name, content in uploaded_files(button.value):
                try:
                    draw(read_image(content))
                except DataError as error:
                    print(f"{name}: {str(error).removeprefix('picture: ')}")

    button.observe(draw_uploads, "value")
    display(button, place)


def uploaded_files(value: Any) -> list[tuple[str, bytes]]:
    """Pairs (name, bytes) of a FileUpload's value: a dictionary in ipywidgets 7 (Colab), a tuple in
    8."""
    if isinstance(value, dict):
        return [(name, bytes(file["content"])) for name, file in value.items()]
    return [(file["name"], bytes(file["content"])) for file in value]


def live_camera(height: int = 900) -> None:
    """Show the web page in the cell: keypoints of a photo or of the camera, computed in the
    browser. Where no browser shows the cell (papermill, nbval), do nothing.

    The first call builds the page, which needs npm; without npm, one line says so.
    """
    if not has_front_end():
        return
    from IPython.display import IFrame, display

    from research import web_page

    try:
        port = web_page.serve_once()
    except DataError as error:
        print(error)
        return
    if "google.colab" in sys.modules:
        from google.colab import output

        output.serve_kernel_port_as_iframe(port, height=str(height))
        return
    print(f"The page is at http://localhost:{port}/ too, while this notebook runs.")
    display(IFrame(f"http://localhost:{port}/", "100%", height, extras=['allow="camera"']))
