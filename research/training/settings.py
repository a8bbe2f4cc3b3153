"""Settings that are fields of a dataclass and flags of a command: each is declared once."""

import argparse
from dataclasses import dataclass, field, fields
from typing import Any, Self

from facial_keypoints.errors import UsageError


def setting(default: Any, text: str, **limits: Any) -> Any:
    """A field of Settings that is also a flag. text: its help; limits: `choices`, or `low` and
    `high`, both included, or `above`."""
    return field(default=default, metadata={"help": text, **limits})


@dataclass(frozen=True)
class Settings:
    """Base of dataclasses whose fields are made by `setting`. Raises UsageError for values outside
    their limits."""

    def __post_init__(self):
        for one in fields(self):
            value, limits = getattr(self, one.name), one.metadata
            wrong = f"{one.name} must be %s, not {str(value)[:40]!r}"
            if "choices" in limits and value not in limits["choices"]:
                raise UsageError(wrong % f"one of {', '.join(limits['choices'])}")
            if not {"low", "above"} & limits.keys():
                continue
            number = type(one.default)
            if isinstance(value, bool) or not isinstance(value, (number, int)):
                raise UsageError(wrong % f"a number of type {number.__name__}")
            highest = 1e9 if number is int else float("inf")
            if "above" in limits and not limits["above"] < value < highest:
                raise UsageError(wrong % f"a number above {limits['above']}")
            if "low" in limits and not limits["low"] <= value <= limits["high"]:
                raise UsageError(wrong % f"from {limits['low']} to {limits['high']}")

    @classmethod
    def add_flags(cls, parser: argparse.ArgumentParser) -> None:
        """Add a flag for each setting to the parser of a command."""
        for one in fields(cls):
            if "help" in one.metadata:
                shown = "" if one.default == "" else " (default: %(default)s)"
                parser.add_argument(
                    f"--{one.name.replace('_', '-')}",
                    type=type(one.default),
                    default=one.default,
                    choices=one.metadata.get("choices"),
                    metavar="CHECKPOINT" if one.default == "" else None,
                    help=one.metadata["help"] + shown,
                )

    @classmethod
    def from_flags(cls, options: argparse.Namespace, **others: Any) -> Self:
        """The settings that a command was given; others: values that replace or add to these."""
        given = {one.name: getattr(options, one.name) for one in fields(cls) if one.metadata}
        return cls(**given | others)
