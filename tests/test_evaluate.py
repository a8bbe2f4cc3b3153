"""Metrics against cases worked out by hand, and the command that prints them."""

import json
import os
import shutil
import zipfile

import numpy as np
import pytest
from conftest import one_line_error

from research.evaluation import prediction
from research.evaluation.prediction import check_leakage, predict_in_self_crops
from evaluate import default_part
from facial_keypoints.files import csv_rows
from research.networks.registry import find_weights
from facial_keypoints.errors import DataError, UsageError
from facial_keypoints.formats import pts_text
from facial_keypoints.geometry import tight_box
from facial_keypoints.layouts import convert_points
from research.datasets import load_frames
from research.data.label_shift import label_shift, match_label_convention
from research.evaluation.metrics import (
    FACE_MEASURES,
    area_under_curve,
    bootstrap,
    debias,
    failure_rate,
    measure_slopes,
    point_errors,
    summarize,
)
from research.networks.registry import SAVED_MODELS


def faces(n=4, seed=0):
    """Keypoints whose outer eye corners are exactly 100 apart."""
    truth = np.random.default_rng(seed).uniform(0, 200, (n, 68, 2))
    truth[:, 45] = truth[:, 36] + [60, 80]
    return truth


def test_an_error_is_a_share_of_the_inter_ocular_distance():
    truth = faces()
    predictions = truth.copy()
    predictions[0, 10] += [3, 4]  # 5 px of 100
    errors = point_errors(predictions, truth)
    assert errors[0, 10] == pytest.approx(5) and errors.sum() == pytest.approx(5)
    m = summarize(predictions + [6.8, 0], truth)
    assert m["nme"] == pytest.approx(6.8, abs=0.05) and m["n"] == 4


def test_normalizers_are_named():
    truth = np.zeros((1, 68, 2))
    truth[0, 36], truth[0, 45] = (0, 0), (100, 0)
    truth[0, 37:42], truth[0, 42:45], truth[0, 46:48] = (30, 0), (80, 0), (80, 0)
    truth[0, 0] = (0, -75)
    predictions = truth + [1, 0]
    assert point_errors(predictions, truth).mean() == pytest.approx(1)
    pupil = (5 * 80 + 100) / 6 - 5 * 30 / 6
    assert point_errors(predictions, truth, "inter-pupil").mean() == pytest.approx(100 / pupil)
    assert point_errors(predictions, truth, "box-diagonal").mean() == pytest.approx(100 / 125)
    with pytest.raises(UsageError, match="normalizer"):
        point_errors(predictions, truth, "ears")


def test_faces_without_a_size_and_other_shapes_are_refused():
    with pytest.raises(DataError, match="face 1"):
        point_errors(np.zeros((2, 68, 2)), np.concatenate([faces(1), np.zeros((1, 68, 2))]))
    with pytest.raises(ValueError, match="differ in shape"):
        point_errors(faces(2), faces(3))


def test_rates_and_areas_by_hand():
    nme = np.array([2.0, 4.0, 8.0, 12.0])
    assert failure_rate(nme, 8) == 25 and failure_rate(nme, 10) == 25 and failure_rate(nme, 3) == 75
    assert area_under_curve(nme, 8) == pytest.approx(100 * (0.75 + 0.5 + 0 + 0) / 4)


def test_the_area_is_that_under_the_curve():
    nme = np.random.default_rng(0).gamma(3, 2, 500)
    grid = np.linspace(0, 8, 20001)
    curve = (nme[None] <= grid[:, None]).mean(1)
    assert area_under_curve(nme, 8) == pytest.approx(
        100 * np.trapezoid(curve, grid) / 8
        if hasattr(np, "trapezoid")
        else 100 * np.trapz(curve, grid) / 8,
        abs=0.01,
    )


def test_bootstrap_of_one_person_resamples_frames():
    values = np.random.default_rng(0).normal(4, 1, 400)
    low, high = bootstrap(values, ["someone"] * 400)
    assert (low, high) == bootstrap(values) and 0.15 < high - low < 0.25


def test_debiasing_takes_out_a_convention_and_nothing_else():
    truth = faces(50)
    offset = np.random.default_rng(1).normal(0, 3, (68, 2))
    noise = np.random.default_rng(2).normal(0, 1, truth.shape)
    plain = point_errors(debias(truth + noise, truth), truth).mean()
    assert point_errors(debias(truth + noise + offset, truth), truth).mean() == pytest.approx(plain)
    assert point_errors(debias(truth + offset, truth), truth).max() < 1e-9


def test_the_interval_draws_people_and_covers_the_truth():
    values = np.repeat(np.arange(20.0), 10)
    groups = np.repeat(np.arange(20), 10)
    one, by_person = bootstrap(values), bootstrap(values, groups)
    assert one[0] < values.mean() < one[1]
    assert by_person[1] - by_person[0] > 2 * (one[1] - one[0])
    rng = np.random.default_rng(0)
    hits = [
        low < 5 < high
        for low, high in (bootstrap(rng.normal(5, 1, 60), seed=i) for i in range(200))
    ]
    assert 0.88 < np.mean(hits) <= 0.99


def test_the_known_shift_is_added_for_published_labels_alone(tiny):
    """Mirroring keeps a network from learning the shift in x: of published labels it knows the one
    in y."""
    predictions = tiny.points
    true_net, shifted_net = (
        {"kind": "official", "labels": "corrected"},
        {"kind": "official", "labels": "published"},
    )
    official = tiny.select(np.arange(len(tiny)))
    official.kind, official.labels = "official", "published"
    np.testing.assert_array_equal(
        match_label_convention(official, predictions, true_net),
        predictions + label_shift(predictions),
    )
    sideways, down = (
        label_shift(predictions) * np.float32([1, 0]),
        label_shift(predictions) * np.float32([0, 1]),
    )
    np.testing.assert_allclose(
        match_label_convention(official, predictions, shifted_net),
        predictions + sideways,
        atol=1e-4,
    )
    np.testing.assert_array_equal(match_label_convention(tiny, predictions, true_net), predictions)
    np.testing.assert_array_equal(
        match_label_convention(tiny, predictions, shifted_net), predictions - down
    )


def test_a_score_on_training_frames_is_refused(tiny):
    with pytest.raises(DataError, match="allow-leak"):
        check_leakage({"data": {"frames": [str(tiny.names[3])]}}, tiny, "x.pt")
    check_leakage({"data": {"frames": ["training/other.jpg"]}}, tiny, "x.pt")


def test_all_frames_of_a_set_without_sides_are_scored(command, tiny_zip, tmp_path):
    """As annotations.csv, and as .pts files; a network that was trained on some of them is scored
    on the others."""
    with zipfile.ZipFile(tiny_zip) as archive:
        archive.extractall(tmp_path / "zip")
    os.rename(tmp_path / "zip" / "test", tmp_path / "zip" / "images")
    os.rename(tmp_path / "zip" / "test_frames_keypoints.csv", tmp_path / "zip" / "annotations.csv")
    shutil.rmtree(tmp_path / "zip" / "training")
    (tmp_path / "zip" / "training_frames_keypoints.csv").unlink()
    frames = load_frames(str(tmp_path / "zip"))
    for name, points in zip(frames.names, frames.points, strict=True):
        photo = tmp_path / "zip" / "images" / name.split("/")[1]
        (tmp_path / "pts").mkdir(exist_ok=True)
        shutil.copy(photo, tmp_path / "pts")
        (tmp_path / "pts" / f"{photo.stem}.pts").write_text(pts_text(points))
    for folder in ("zip", "pts"):
        done = command("evaluate.py", "models4", "--data", tmp_path / folder)
        assert done.returncode == 0 and ", all: 32 frames of" in done.stdout, (
            done.stdout + done.stderr
        )
    done = command("evaluate.py", "models4", "--data", tmp_path / "zip", "--part", "test")
    assert " of 32 frames of" in done.stdout
    known = {"data": {"frames": [str(frames.names[0])]}}
    assert default_part(frames, [known]) == "test" and default_part(frames, [{"data": {}}]) == "all"


def test_the_scores_of_a_run_are_added_to_the_table(command, tiny_zip, tmp_path):
    run = tmp_path / "runs" / "mine"
    run.mkdir(parents=True)
    shutil.copy(find_weights("models4"), run / "checkpoint.pt")
    words = ("evaluate.py", run / "checkpoint.pt", "--data", tiny_zip, "--part", "test")
    assert "results.csv" not in command(*words).stdout  # not a run of train.py
    (run / "params.json").write_text("{}")
    for _ in range(2):
        assert f"added to {tmp_path / 'runs' / 'results.csv'}" in command(*words).stdout
    (row,) = csv_rows(tmp_path / "runs" / "results.csv")
    assert row["weights"] == str(run) and 0 < float(row["nme"]) < 100


def test_command_prints_one_json_object(command, tiny_zip):
    done = command("evaluate.py", "models4", "--data", tiny_zip, "--split", "official", "--json")
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert {
        "net",
        "data",
        "split",
        "labels",
        "n",
        "nme",
        "nme_low",
        "nme_high",
        "fr8",
        "fr10",
        "auc8",
        "regions",
    } <= row.keys()
    assert (
        row["net"] == "models4"
        and row["n"] == 32
        and row["nme_low"] < row["nme"] < row["nme_high"] < 10
    )
    assert set(row["regions"]) == {"jaw", "brows", "nose", "eyes", "mouth"}


def test_command_prints_a_table_with_baselines_and_compares_two(command, tiny_zip):
    done = command(
        "evaluate.py",
        "models4",
        SAVED_MODELS / "models4.pt",
        "--data",
        tiny_zip,
        "--split",
        "official",
        "--worst",
        "2",
    )
    assert done.returncode == 0, done.stderr
    row = json.loads(
        command(
            "evaluate.py", "models4", "models4", "--data", tiny_zip, "--split", "official", "--json"
        ).stdout
    )
    assert row["other"]["nme"] == row["nme"] and row["difference"]["nme"] == 0
    one_line_error(command("evaluate.py", "models4", "models4", "models4"), 2)
    for part in (
        "mean shape",
        "rounding, lower bound",
        "second minus first: +0.00",
        "not significant",
        "test/Drawn-7-",
    ):
        assert part in done.stdout


@pytest.mark.parametrize(
    "arguments, code, said",
    [
        (("models77",), 2, "no network"),
        (("/no/such.pt",), 1, "/no/such.pt"),
        (("models4", "--data", "/no/data"), 1, "/no/data"),
        (("models4", "--split", "x"), 2, "invalid choice"),
        (("models4", "--unknown"), 2, "--unknown"),
    ],
)
def test_users_mistakes_are_one_clear_line(command, arguments, code, said):
    assert said in one_line_error(command("evaluate.py", *arguments), code)


@pytest.mark.official
def test_shipped_weights_score_as_the_table_of_results_says(command, official_path):
    from facial_keypoints.files import csv_rows
    from facial_keypoints.paths import PUBLISHED

    row = next(
        r for r in csv_rows(PUBLISHED) if r["weights"] == "models4" and r["labels"] == "published"
    )
    done = command(
        "evaluate.py",
        "models4",
        "--data",
        "official",
        "--split",
        "official",
        "--labels",
        "published",
        "--json",
        FACIAL_KEYPOINTS_DATA=official_path,
    )
    assert json.loads(done.stdout)["nme"] == pytest.approx(float(row["nme"]), abs=0.03)
    assert float(row["nme"]) <= 5.6


def test_self_predicted_crops_forget_the_label(tiny, monkeypatch):
    """A network that goes half of the way from the middle of its crop to the face, with labels 16
    pixels next to it."""
    frames = tiny.select(np.arange(4))
    faces = frames.points - np.float32([16, 0])

    def half_way(net, frames, boxes=None, mirrored=False):
        center = tight_box(frames.points) if boxes is None else boxes
        place = tight_box(faces)
        return faces + 0.5 * (center - place)[:, None, :2] + 0.25 * (center - place)[:, None, 2:]

    monkeypatch.setattr(prediction, "predict_frames", half_way)
    for steps, left in ((1, 8), (2, 4), (4, 1)):
        np.testing.assert_allclose(
            predict_in_self_crops(None, frames, steps) - faces,
            [[[left, 0]]] * np.ones((4, 68, 1)),
            atol=1e-3,
        )


def test_slopes_say_how_much_of_the_differences_between_faces_is_predicted(tiny):
    truth = tiny.points.astype(np.float64)
    mean = truth.mean(0)
    exact = measure_slopes(truth, truth)
    assert set(exact) == set(FACE_MEASURES)
    assert np.allclose(list(exact.values()), 1)
    # faces that are alike in form and size: moved halfway to the mean face, they vary half as much
    unit = np.linalg.norm(truth[:, 36] - truth[:, 45], axis=-1)[:, None, None]
    alike = (truth - truth[:, 36:37]) / unit
    mean = alike.mean(0)
    half = measure_slopes(mean + (alike - mean) / 2, alike)
    assert all(0.35 < slope < 0.65 and correlation > 0.9 for slope, correlation in half.values())
    constant = measure_slopes(np.repeat(mean[None], len(alike), 0), alike)
    assert all(
        abs(slope) < 1e-9 and np.isnan(correlation) for slope, correlation in constant.values()
    )
    assert np.isnan(list(measure_slopes(truth[:2], truth[:2]).values())).all()
    two = convert_points(truth, "ibug68", "five")
    assert np.isnan(list(measure_slopes(two, two, "five").values())).all()


def test_a_network_that_predicts_one_place_keeps_the_crop_before(tiny, monkeypatch):
    asked = []

    def one_place(net, frames, boxes=None, mirrored=False):
        asked.append(frames.boxes() if boxes is None else boxes)
        return np.full_like(frames.points, 7)

    monkeypatch.setattr("research.evaluation.prediction.predict_frames", one_place)
    predict_in_self_crops(None, tiny, steps=3)
    assert len(asked) == 3
    for boxes in asked:
        np.testing.assert_array_equal(boxes, tiny.boxes())


def test_labels_of_another_layout_are_converted_for_the_network(command, tmp_path, tiny):
    """WFLW's 98 points, by a network of 68."""
    import cv2

    lines = []
    for row in range(6):
        name = f"{row}.png"
        cv2.imwrite(str(tmp_path / name), tiny.image(row)[..., ::-1])
        points = convert_points(tiny.points[row], "ibug68", "wflw98")
        points = np.where(np.isnan(points), tiny.points[row].mean(0), points)
        lines.append(" ".join(map(str, [*points.ravel(), 0, 0, 1, 1, *[0] * 6, name])))
    (tmp_path / "list_98pt_test.txt").write_text("\n".join(lines))
    done = command("evaluate.py", "models5", "--data", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    assert "68 of the 68 keypoints of ibug68, computed from those of wflw98" in done.stderr
    assert json.loads(done.stdout)["nme"] < 12
