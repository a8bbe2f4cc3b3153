"""The accurate network for photographs: models7 with more channels, on crops of 144×144 pixels."""

from . import models7


class Net(models7.Net):
    """Gray (n, 1, side, side) in [0, 1] -> targets (n, 2 * points): the means of the
    distributions, corrected."""

    even_odds, steepness = 0.15, 1.25  # benchmarks/confidence.py

    def __init__(
        self,
        points: int = 68,
        side: int = 144,
        widths: tuple[int, int] = (128, 256),
        depth: int | tuple[int, ...] = 2,
        features: int = 256,
        first: int = 32,
        hidden: int = 192,
    ):
        super().__init__(points, side, widths, depth, features, first, hidden)
