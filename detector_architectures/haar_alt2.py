"""OpenCV's frontal cascade alt2, a stricter alternative: fewer false positives, but fewer faces
found."""

from . import haar


class Detector(haar.Detector):
    """As haar.Detector, with haarcascade_frontalface_alt2."""

    file = "haarcascade_frontalface_alt2.xml"
    fit = (0.0, 0.152, 0.891, 0.854)
    evidence = (-0.03, 6.85)
