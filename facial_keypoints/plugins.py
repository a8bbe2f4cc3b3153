"""Plug-ins: a class in a file of its own, found by the name of the file."""

import importlib
from collections.abc import Iterable

from facial_keypoints.errors import UsageError


def plugin_class(
    kind: str, name: str, names: Iterable[str], folder: str, module: str, class_name: str
) -> type:
    """The class of the plug-in `name`: `class_name` of the module `module`.`name`.

    kind: what it is called in messages ('network'); names: of the files that are present in
    `folder`. Raises UsageError for another name, or a file without the class.
    """
    names = list(names)
    if name not in names:
        raise UsageError(f"no {kind} {name!r}; present are {', '.join(names)} (files in {folder}/)")
    found = importlib.import_module(f"{module}.{name}")
    if not hasattr(found, class_name):
        raise UsageError(f"{folder}/{name}.py has no class {class_name}")
    return getattr(found, class_name)
