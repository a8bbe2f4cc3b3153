"""Errors that users see, and optional packages."""

import importlib
from types import ModuleType


class DataError(Exception):
    """Something read from outside is missing or wrong: a file, a table, a download. Exit code 1."""


class UsageError(ValueError):
    """A name, option or value from the user is not valid: a network, a detector, a parameter. Exit
    code 2."""


def import_optional(module: str, why: str, package: str | None = None) -> ModuleType:
    """Import an optional module. If it is missing, raise UsageError that says what to install;
    `package`: its name for pip, if it differs from `module`."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UsageError(f"{why} requires a package: pip install {package or module}") from None
