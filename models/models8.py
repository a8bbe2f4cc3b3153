"""The accurate network for photographs: models7 with more channels, on crops of 160×160 pixels."""

from . import models7


class Net(models7.Net):
    """Gray (n, 1, side, side) in [0, 1] -> targets (n, 2 * points): the means of the
    distributions."""

    def __init__(self, points: int = 68, side: int = 160, widths: tuple[int, int] = (128, 224),
                 depth: int = 2, features: int = 256, first: int = 16, fine: int = 2,
                 merge: bool = False):
        super().__init__(points, side, widths, depth, features, first, fine, merge)
