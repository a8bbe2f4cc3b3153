"""Makes the pictures of the README: python images/make.py"""

import sys
from pathlib import Path

import cv2
import matplotlib.cbook
import numpy as np

HOME = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(HOME))
from pipeline import KeypointDetector
from sample_faces import draw_scene, draw_sheet
from show import draw_faces
from sources import read_image


def main():
    detector = KeypointDetector(device="cpu")
    photo = read_image(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
    crowd, _ = draw_scene(seed=5, faces=8, width=1050, height=600)
    front = np.hstack([draw_faces(image, detector(image)) for image in (photo, crowd)])
    write("front.jpg", front)
    write("drawn.jpg", draw_sheet(people=40, side=110))


def write(name, image):
    cv2.imwrite(str(HOME / "images" / name), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    main()
