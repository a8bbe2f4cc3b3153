"""The accurate network: models5 with twice the channels, on crops of 160×160 pixels."""

from . import models5


class Net(models5.Net):
    """Gray (n, 1, side, side) in [0, 1] -> targets (n, 2 * points): the means of the
    distributions."""

    even_odds, steepness = 0.164, 1.26

    def __init__(
        self,
        points: int = 68,
        side: int = 160,
        widths: tuple[int, ...] = (128, 256),
        depth: int = 2,
        features: int = 256,
    ):
        super().__init__(points, side, widths, depth, features)
