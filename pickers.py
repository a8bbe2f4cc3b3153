"""Menus and buttons in notebooks, where somebody can click; plain pictures, or nothing, elsewhere. Need ipywidgets."""

import importlib.util
import os
import sys

from pictures import read_image


def has_front_end():
    """True where somebody can click: Jupyter, VS Code, Colab; false under papermill, nbval and plain Python."""
    return bool(os.environ.get("JPY_SESSION_NAME") or os.environ.get("VSCODE_PID") or "google.colab" in sys.modules)


def pick(draw, **choices):
    """Call draw(name=value, …) with what is picked from lists of choices; once, with the first, where nobody can click.

    Pickers need ipywidgets (pip install ipywidgets).
    """
    if has_front_end() and importlib.util.find_spec("ipywidgets"):
        from ipywidgets import interact

        interact(draw, **choices)
    else:
        draw(**{name: values[0][1] if isinstance(values[0], tuple) else values[0] for name, values in choices.items()})


def upload(draw):
    """A button for photos of one's own, each drawn by draw(image) as it comes; where nobody can click, nothing."""
    if not has_front_end() or not importlib.util.find_spec("ipywidgets"):
        return
    from IPython.display import display
    from ipywidgets import FileUpload, Output

    button, place = FileUpload(accept="image/*", multiple=True), Output()

    def come(_):
        place.clear_output()
        with place:
            for file in button.value.values() if isinstance(button.value, dict) else button.value:  # ipywidgets 7, 8
                draw(read_image(bytes(file["content"])))

    button.observe(come, "value")
    display(button, place)
