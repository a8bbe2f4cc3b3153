"""Menus and buttons that fall back where nobody can click."""

import contextlib
import sys
import types

import pytest

import pickers


def test_without_a_front_end_the_first_choices_are_drawn_once(monkeypatch):
    for name in ("JPY_SESSION_NAME", "VSCODE_PID"):
        monkeypatch.delenv(name, raising=False)
    called = []
    pickers.pick(lambda **choice: called.append(choice), photo=[("one", 11), ("two", 22)], net=["a", "b"])
    assert called == [{"photo": 11, "net": "a"}]


def test_with_a_front_end_and_ipywidgets_there_are_menus(monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "x.ipynb")
    widgets, called = types.ModuleType("ipywidgets"), []
    widgets.interact = lambda draw, **choices: called.append(choices)
    monkeypatch.setitem(sys.modules, "ipywidgets", widgets)
    monkeypatch.setattr(pickers.importlib.util, "find_spec", lambda name: name)
    pickers.pick(lambda net: None, net=["a", "b"])
    assert called == [{"net": ["a", "b"]}]


@pytest.mark.parametrize("old", [False, True], ids=["ipywidgets 8", "ipywidgets 7"])
def test_a_photo_of_ones_own_is_drawn_when_it_comes(old, monkeypatch, hopper):
    monkeypatch.setenv("JPY_SESSION_NAME", "x.ipynb")
    widgets, shown, drawn = types.ModuleType("ipywidgets"), [], []

    class FileUpload:
        def __init__(self, **_):
            self.value = ()

        def observe(self, come, name):
            self.come = come

    class Output(contextlib.nullcontext):
        def clear_output(self):
            drawn.clear()

    widgets.FileUpload, widgets.Output = FileUpload, Output
    monkeypatch.setitem(sys.modules, "ipywidgets", widgets)
    monkeypatch.setattr(pickers.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr("IPython.display.display", lambda *things: shown.extend(things))
    pickers.upload(drawn.append)
    button, file = shown[0], {"name": "photo.jpg", "content": memoryview(hopper[0].read_bytes())}
    button.value = {"photo.jpg": file} if old else (file,)
    button.come(None)
    assert len(drawn) == 1 and (drawn[0] == hopper[1]).all()
    monkeypatch.delenv("JPY_SESSION_NAME")
    monkeypatch.delenv("VSCODE_PID", raising=False)
    pickers.upload(None)  # nobody can click: nothing happens
    assert len(shown) == 2
