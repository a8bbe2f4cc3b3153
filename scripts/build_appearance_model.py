"""The command that builds the statistical model of synthetic faces from annotated frames."""

import argparse
from pathlib import Path

from facial_keypoints.command import run_command
from research.synthetic.appearance_model import MODEL, learn, privacy, save_model
from research.datasets import load_frames


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Learn the model of synthetic faces, check that it gives no face away."
    )
    parser.add_argument("--data", default="official", help="(default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=MODEL, help="(default: saved_models/sample_faces.npz)"
    )
    options = parser.parse_args()
    model, coefficients, people = learn(load_frames(options.data, "corrected"))
    privacy(model, coefficients, people)
    save_model(options.out, model)
    print(f"{options.out}: {options.out.stat().st_size / 2**20:.2f} MiB")


if __name__ == "__main__":
    run_command(main)
