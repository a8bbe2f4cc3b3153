"""Makes the pictures of the README: python images/make.py"""

import csv
import sys
from pathlib import Path

import cv2
import matplotlib.cbook
import numpy as np

HOME = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(HOME))
import results
import show
from pipeline import KeypointDetector
from sample_faces import draw_scene, draw_sheet
from show import draw_faces
from sources import read_image


def pictures_of_results():
    """Accuracy against time of all networks in the table of results, and the gains of the ablation where it was run."""
    rows = {row["net"]: tuple(float(row[k]) for k in ("ms_per_face", "nme", "nme_low", "nme_high"))
            for row in results.read() if (row["split"], row["labels"]) == ("official", "published")}
    figure = show.accuracy_against_time(rows, "official test frames, labels as published")
    figure.savefig(HOME / "images" / "accuracy.png", dpi=110)
    table = HOME / "benchmarks" / "ablation.csv"
    if table.exists():
        with open(table, newline="") as file:
            steps = [row for row in csv.DictReader(file) if row["step"] != "base"]
        gains = {row["step"]: tuple(float(row[k]) for k in ("gain", "gain_low", "gain_high")) for row in steps}
        show.bars(gains, "validation NME gained over the base, in %").savefig(HOME / "images" / "ablation.png", dpi=110)


def main():
    pictures_of_results()
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
