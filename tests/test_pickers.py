"""Menus and the upload button, with the real ipywidgets; the fallback without a front end."""

import datetime

import ipywidgets
import numpy as np
import pytest

from research.reporting.notebook import pick, upload, uploaded_files


@pytest.fixture
def front_end(monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "x.ipynb")
    monkeypatch.delenv("VSCODE_PID", raising=False)


@pytest.fixture
def shown(monkeypatch):
    """What is displayed in the notebook."""
    widgets = []
    monkeypatch.setattr("IPython.display.display", lambda *things: widgets.extend(things))
    return widgets


def test_without_a_front_end_the_first_choices_are_drawn_once(monkeypatch):
    for name in ("JPY_SESSION_NAME", "VSCODE_PID"):
        monkeypatch.delenv(name, raising=False)
    called = []
    photos = [("one", np.zeros((2, 2))), ("two", np.ones((2, 2)))]
    pick(lambda **choice: called.append(choice), photo=photos, net=["a", "b"])
    assert len(called) == 1 and called[0]["photo"] is photos[0][1] and called[0]["net"] == "a"


def test_menus_offer_arrays_by_their_labels(front_end, monkeypatch):
    """ipywidgets compares options with ==, which has no single result for arrays."""
    made, called = [], []
    interact = ipywidgets.interact
    monkeypatch.setattr(
        ipywidgets, "interact", lambda draw, **choices: made.append(interact(draw, **choices))
    )
    photos = [("one", np.zeros((2, 2))), ("two", np.ones((2, 2)))]
    pick(lambda **choice: called.append(choice), photo=photos, numbered=[False, True])
    menus = {menu.description: menu for menu in made[0].widget.children if hasattr(menu, "options")}
    assert menus["photo"].options == ("one", "two") and menus["numbered"].options == (
        "False",
        "True",
    )
    menus["photo"].value = "two"
    menus["numbered"].value = "True"
    assert called[-1]["photo"] is photos[1][1] and called[-1]["numbered"] is True
    assert called[0]["photo"] is photos[0][1] and called[0]["numbered"] is False


def test_uploaded_photos_are_drawn_and_bad_files_are_named(front_end, shown, hopper, capsys):
    drawn = []
    upload(drawn.append)
    button = shown[0]
    files = [
        {"name": "photo.jpg", "content": memoryview(hopper[0].read_bytes())},
        {"name": "notes.txt", "content": memoryview(b"no picture")},
    ]
    for file in files:
        file |= {"type": "", "size": len(file["content"]), "last_modified": datetime.datetime.now()}
    button.value = tuple(files)
    assert len(drawn) == 1 and (drawn[0] == hopper[1]).all()
    assert "notes.txt: not a picture in a known format" in capsys.readouterr().out


def test_uploads_of_ipywidgets_7_are_read_too():
    assert uploaded_files({"a.jpg": {"content": b"bytes"}}) == [("a.jpg", b"bytes")]


def test_without_a_front_end_there_is_no_upload_button(monkeypatch, shown):
    for name in ("JPY_SESSION_NAME", "VSCODE_PID"):
        monkeypatch.delenv(name, raising=False)
    upload(None)
    assert not shown
