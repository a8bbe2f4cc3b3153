"""From a photo to keypoints in its own pixels, in Python and from the command line."""

import csv
import json
import os
import shutil
import subprocess

import cv2
import numpy as np
import pytest
from conftest import one_line_error
from PIL import Image

from facial_keypoints.detector import (
    MIN_CONFIDENCE,
    ROTATIONS,
    Face,
    KeypointDetector,
    find_keypoints,
)
from facial_keypoints.drawing import draw_faces
from facial_keypoints.errors import DataError, UsageError
from facial_keypoints.formats import read_pts
from facial_keypoints.geometry import rotated_copy, tight_box
from facial_keypoints.head import level_boxes, shape_score
from facial_keypoints.images import as_image
from facial_keypoints.model import Prediction
from facial_keypoints.predict_files import FilePredictor, Job, drawing_path
from research.datasets import split_frames
from research.evaluation.metrics import point_errors
from research.synthetic.faces import draw_scene


@pytest.fixture(scope="module")
def detector():
    return KeypointDetector(device="cpu")


@pytest.fixture(scope="module")
def hopper_face(detector, hopper):
    faces = detector(hopper[1])
    assert len(faces) == 1
    return faces[0]


def test_sixty_eight_sensible_points_on_a_real_face(hopper_face):
    """Places read off the photo by eye, to a tenth of the distance between the eyes."""
    points = hopper_face.points
    unit = np.linalg.norm(points[45] - points[36])
    places = (
        (range(36, 42), (219, 190)),
        (range(42, 48), (303, 189)),
        ([8], (272, 332)),
        (range(48, 68), (267, 273)),
    )
    for rows, place in places:
        assert np.linalg.norm(points[list(rows)].mean(0) - place) < 0.12 * unit, (
            list(rows),
            points[list(rows)].mean(0),
        )
    assert hopper_face.box.shape == (4,) and 0.5 < hopper_face.confidence <= 1
    assert hopper_face.point_confidence.shape == (68,)


def test_the_answer_does_not_depend_on_how_the_photo_is_given(detector, hopper, hopper_face):
    path, image = hopper
    gray = image[..., 1]
    rgba = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
    for photo in (path, str(path), path.read_bytes(), rgba, Image.fromarray(image)):
        np.testing.assert_allclose(detector(photo)[0].points, hopper_face.points, atol=1e-3)
    assert as_image(gray).shape == as_image(gray[..., None]).shape == image.shape
    assert len(detector(gray)) == 1
    for bad in (image.astype(float), image[..., :2], np.zeros((0, 5, 3), np.uint8)):
        with pytest.raises(DataError, match="a photo must be"):
            detector(bad)


def test_points_follow_the_photo_when_it_is_padded_or_enlarged(detector, hopper, hopper_face):
    image = hopper[1]
    padded = cv2.copyMakeBorder(image, 0, 40, 64, 0, cv2.BORDER_CONSTANT)
    larger = cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    unit = np.linalg.norm(hopper_face.points[45] - hopper_face.points[36])
    for points in (
        detector(padded)[0].points - [64, 0],
        (detector(larger)[0].points + 0.5) / 2 - 0.5,
    ):
        assert np.median(np.linalg.norm(points - hopper_face.points, axis=1)) < 0.05 * unit


def test_no_face_one_face_many_faces(detector):
    assert detector(np.full((200, 200, 3), 90, np.uint8)) == []
    scene, truth = draw_scene(3, faces=6)
    faces = detector(scene)
    matched = 0
    for t in truth:
        errors = [
            np.linalg.norm(f.points - t, axis=1).mean() / np.linalg.norm(t[45] - t[36])
            for f in faces
        ]
        matched += min(errors, default=1) < 0.15
    assert matched >= 4
    assert len(find_keypoints([scene, scene[:50, :50]])) == 2


def test_a_list_of_photos_gives_what_each_of_them_gives(detector, hopper):
    """Their crops go through the network together; one photo has no face, some have several."""
    photos = [
        hopper[1],
        np.full((90, 120, 3), 90, np.uint8),
        draw_scene(3, faces=6)[0],
        draw_scene(4, faces=2)[0],
    ]
    together = detector.detect_batch(photos)
    assert [len(accepted) for accepted, _ in together] == [len(detector(photo)) for photo in photos]
    for photo, (accepted, rejected) in zip(photos, together, strict=True):
        alone = detector.detect(photo)
        assert len(rejected) == len(alone[1])
        for face, other in zip(accepted, alone[0], strict=True):
            np.testing.assert_allclose(face.points, other.points, atol=0.05)
            assert face.confidence == pytest.approx(other.confidence, abs=1e-3)
    assert [len(faces) for faces in find_keypoints(photos * 6)] == [
        len(accepted) for accepted, _ in together
    ] * 6
    assert find_keypoints([]) == []


def test_a_face_cut_by_the_border_keeps_its_points(detector, hopper, hopper_face):
    cut = hopper[1][:, 190:]
    face = detector.predict_boxes(cut, [hopper_face.box - np.float32([190, 0, 0, 0])])[0]
    inside = hopper_face.points[:, 0] > 210
    unit = np.linalg.norm(hopper_face.points[45] - hopper_face.points[36])
    moved = np.linalg.norm(face.points + [190, 0] - hopper_face.points, axis=1)
    assert np.median(moved[inside]) < 0.12 * unit


def test_given_boxes_are_predicted_in_their_order(detector, tiny):
    frames = split_frames(tiny, "official", "test")
    points = np.array(
        [
            detector.predict_boxes(frames.image(i), [tight_box(frames.points[i])])[0].points
            for i in range(len(frames))
        ]
    )
    assert point_errors(points, frames.points).mean() < 6
    boxes = np.float32([[300, 300, 20, 20], [0, 0, 90, 90], [-500, 0, 30, 30]])
    assert [
        f.box.tolist() for f in detector.predict_boxes(frames.image(0), boxes)
    ] == boxes.tolist()


@pytest.mark.parametrize("confidence, kept", [(0.95, True), (0.89, True), (0.6, False)])
def test_a_refinement_step_that_loses_the_face_is_undone(
    confidence, kept, hopper, hopper_face, monkeypatch
):
    detector = KeypointDetector()
    monkeypatch.setattr(detector, "refinement_steps", 2)
    first, second = hopper_face.points, hopper_face.points + 7
    predictions = iter([(first, 0.9), (second, confidence)])

    def predict_crops(grays, boxes, angles):
        points, sure = next(predictions)
        return Prediction(points[None].copy(), np.full((1, 68), sure, np.float32))

    monkeypatch.setattr(detector, "predict_crops", predict_crops)
    away = hopper_face.box + (30, 0, 0, 0)
    points = detector.predict_boxes(hopper[0], away[None])[0].points
    np.testing.assert_allclose(points, second if kept else first, atol=1e-3)


def test_drawing_leaves_the_photo_and_marks_the_points(hopper, hopper_face):
    before = hopper[1].copy()
    drawn = draw_faces(hopper[1], [hopper_face])
    assert (hopper[1] == before).all()
    x, y = hopper_face.points[30].round().astype(int)
    assert (drawn[y, x] != before[y, x]).any() and (drawn[:50] == before[:50]).all()


# ---------------------------------------------------------------- the command


@pytest.fixture
def folder(tmp_path, hopper):
    """Two photos, one of them in a folder below, one without a face, and a broken one."""
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "a.jpg").write_bytes(hopper[0].read_bytes())
    Image.fromarray(hopper[1]).save(tmp_path / "in" / "deep" / "b.png")
    Image.fromarray(np.full((80, 80, 3), 120, np.uint8)).save(tmp_path / "in" / "empty.webp")
    return tmp_path / "in"


def test_a_folder_becomes_tables_and_drawings(command, folder, tmp_path):
    done = command(
        "pipeline.py",
        folder,
        "--csv",
        tmp_path / "o.csv",
        "--json",
        tmp_path / "o.jsonl",
        "--draw",
        tmp_path / "drawn",
    )
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(open(tmp_path / "o.csv")))
    assert [r["name"] for r in rows] == ["a.jpg", "deep/b.png"]
    assert [json.loads(line)["name"] for line in open(tmp_path / "o.jsonl")] == [
        "a.jpg",
        "deep/b.png",
    ]
    assert "empty.webp: 0 faces" in done.stdout and [r["identity"] for r in rows] == ["", ""]
    assert sorted(
        p.relative_to(tmp_path / "drawn").as_posix() for p in (tmp_path / "drawn").rglob("*.*")
    ) == ["a.jpg", "deep/b.png", "empty.webp.png"]


def test_a_folder_without_photos_is_reported(command, tmp_path):
    assert "no photos" in one_line_error(command("pipeline.py", tmp_path), 1)


def test_a_photo_without_faces_is_an_answer(command, folder, tmp_path):
    done = command("pipeline.py", folder / "empty.webp", "--csv", tmp_path / "o.csv")
    assert done.returncode == 0 and (tmp_path / "o.csv").read_text().count("\n") == 1


def test_rejected_faces_are_reported_with_their_confidence(command, folder, detector, hopper):
    faces, rejected = detector.detect(hopper[1])
    assert len(faces) == 1 and all(face.confidence < MIN_CONFIDENCE for face in rejected)
    strict = KeypointDetector(device="cpu", min_confidence=1.0)
    assert (
        strict(hopper[1]) == [] and strict.detect(hopper[1])[1][0].confidence == faces[0].confidence
    )
    done = command("pipeline.py", folder / "a.jpg", "--min-confidence", "1")
    assert done.returncode == 0 and "a.jpg: 0 faces (" in done.stdout
    assert (
        f"rejected: confidence at most {faces[0].confidence:.2f}, --min-confidence 1" in done.stdout
    )


def test_photos_without_faces_are_listed(command, folder, tmp_path):
    for number in range(25):
        Image.fromarray(np.full((40, 40, 3), 120, np.uint8)).save(folder / f"wall{number:02}.png")
    done = command(
        "pipeline.py", folder, "--csv", tmp_path / "o.csv", "--without-faces", tmp_path / "none.txt"
    )
    assert "28 photos, 2 faces\nno face in 26 photos: empty.webp, wall00.png, " in done.stdout, (
        done.stdout
    )
    assert "and 6 more (--without-faces FILE writes all)" in done.stdout
    assert (tmp_path / "none.txt").read_text().splitlines() == [
        "empty.webp",
        *(f"wall{n:02}.png" for n in range(25)),
    ]


def test_images_of_kinds_that_are_not_read_are_counted(command, folder):
    for name in ("x.HEIC", "y.heic", "z.avif"):
        (folder / name).write_bytes(b"")
    Image.new("P", (40, 40)).save(folder / "plain.gif")
    done = command("pipeline.py", folder)
    assert done.returncode == 0 and "plain.gif: 0 faces" in done.stdout
    lines = done.stderr.splitlines()
    assert [line.partition(" (")[0] for line in lines] == [
        "skipped: 1 .avif file",
        "skipped: 2 .heic files",
    ], done.stderr
    assert all("convert to JPEG or PNG" in line for line in lines)


def test_a_bad_photo_does_not_stop_the_others(command, folder, tmp_path):
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no more")
    done = command("pipeline.py", folder, folder / "missing.jpg", "--csv", tmp_path / "o.csv")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert len(list(csv.DictReader(open(tmp_path / "o.csv")))) == 2
    assert "broken.jpg" in done.stderr and "missing.jpg" in done.stderr


def test_given_boxes_give_one_row_each_in_their_order(command, folder, tmp_path, hopper_face):
    box = ",".join(f"{v:.1f}" for v in hopper_face.box)
    (tmp_path / "boxes.csv").write_text(
        f"name,left,top,width,height\ndeep/b.png,{box}\na.jpg,5,5,40,40\n"
        f"a.jpg,{box}\ndeep/b.png,0,0,30,30\n"
    )
    done = command(
        "pipeline.py",
        folder,
        "--boxes",
        tmp_path / "boxes.csv",
        "--csv",
        "-",
        "--draw",
        tmp_path / "drawn",
    )
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert [(r["name"], float(r["left"])) for r in rows] == [
        ("deep/b.png", pytest.approx(hopper_face.box[0], abs=0.06)),
        ("a.jpg", 5),
        ("a.jpg", pytest.approx(hopper_face.box[0], abs=0.06)),
        ("deep/b.png", 0),
    ]
    assert float(rows[2]["x30"]) == pytest.approx(hopper_face.points[30, 0], abs=3)
    (tmp_path / "boxes.csv").write_text("name,left,top,width,height\nnobody.jpg,1,2,3,4\n")
    assert "nobody.jpg" in one_line_error(
        command("pipeline.py", folder, "--boxes", tmp_path / "boxes.csv"), 1
    )


@pytest.mark.parametrize(
    "arguments, code, said",
    [
        (("--detector", "yolo"), 2, "invalid choice"),
        (("--net", "models77"), 2, "no network"),
        (("--wrong",), 2, "--wrong"),
        (("--net", "/no/such.pt"), 1, "/no/such.pt"),
        (("--boxes", "/no/boxes.csv"), 1, "/no/boxes.csv"),
        (("--draw", "one.png"), 2, "give a folder"),
        (("--min-confidence", "nan"), 2, "nan"),
        (("--device", "meta"), 2, "meta"),
        (("--csv", "/proc/nowhere/o.csv"), 1, "cannot be written"),
    ],
)
def test_users_mistakes_are_one_clear_line(command, folder, arguments, code, said):
    assert said in one_line_error(command("pipeline.py", folder, *arguments), code)


@pytest.mark.parametrize(
    "target, name, several, said",
    [
        ("one.png", "a.jpg", True, "several"),
        ("one.mp4", "a.mp4", True, "several"),
        ("one.mp4", "a.jpg", False, "for a photo"),
        ("one.png", "a.mp4", False, "for a clip"),
        ("one.webm", "a.mp4", False, "ends in .mp4"),
    ],
)
def test_a_drawing_has_the_kind_of_its_source(target, name, several, said):
    with pytest.raises(UsageError, match=said):
        drawing_path(target, name, several)
    assert str(drawing_path("folder", name, several)) == os.path.join("folder", name)


def test_a_drawing_never_goes_over_its_photo(command, folder):
    before = (folder / "a.jpg").read_bytes()
    for arguments in ((folder, "--draw", folder), (folder / "a.jpg", "--csv", folder / "a.jpg")):
        assert "overwritten" in one_line_error(command("pipeline.py", *arguments), 2)
    assert (folder / "a.jpg").read_bytes() == before


def test_pts_files_are_never_written_next_to_photos(command, folder, tmp_path):
    done = command("pipeline.py", folder, "--pts", tmp_path / "pts", "--csv", "-")
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in csv.DictReader(done.stdout.splitlines())}
    for name, file in (("a.jpg", "a.pts"), ("deep/b.png", "deep/b.pts")):
        points = read_pts((tmp_path / "pts" / file).read_text())
        np.testing.assert_allclose(
            points[:, 0], [float(rows[name][f"x{i}"]) for i in range(68)], atol=0.01
        )
    assert "annotations" in one_line_error(command("pipeline.py", folder, "--pts", folder), 2)


def test_photos_of_one_name_keep_their_own_rows_and_drawings(command, folder, tmp_path, hopper):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.jpg").write_bytes(hopper[0].read_bytes())
    done = command(
        "pipeline.py", folder, tmp_path / "other", "--csv", "-", "--draw", tmp_path / "drawn"
    )
    assert done.returncode == 0, done.stderr
    names = [r["name"] for r in csv.DictReader(done.stdout.splitlines())]
    assert len(set(names)) == 3 and sum(n.endswith("/a.jpg") for n in names) == 2
    assert len(list((tmp_path / "drawn").rglob("*a.jpg"))) == 2
    twice = command("pipeline.py", folder, folder / "a.jpg", "--csv", "-")
    assert [r["name"] for r in csv.DictReader(twice.stdout.splitlines())] == ["a.jpg", "deep/b.png"]
    same = command(
        "pipeline.py", folder / "a.jpg", "--csv", tmp_path / "o", "--json", tmp_path / "o"
    )
    assert "two outputs" in one_line_error(same, 2)


def test_odd_photos_and_names_do_not_stop_the_others(command, folder, tmp_path):
    cv2.imwrite(str(folder / "thin.png"), np.zeros((1, 5000, 3), np.uint8))
    os.rename(os.fsencode(folder / "a.jpg"), os.fsencode(folder) + b"/\xff\xfe.jpg")
    done = command("pipeline.py", folder, "--csv", tmp_path / "o.csv")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "o.csv").read_bytes().count(b"\n") == 3 and b"\xff\xfe.jpg," in (
        tmp_path / "o.csv"
    ).read_bytes()


def test_a_pipe_is_written_to_and_stays_a_pipe(command, folder, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with (
        open(tmp_path / "text", "wb") as file,
        subprocess.Popen(["cat", str(tmp_path / "pipe")], stdout=file) as reader,
    ):
        assert command("pipeline.py", folder / "a.jpg", "--csv", tmp_path / "pipe").returncode == 0
        reader.wait(20)
    assert (tmp_path / "text").read_text().count("\n") == 2 and (tmp_path / "pipe").is_fifo()


def test_sixteen_bit_pil_images_are_not_cut_off(hopper):
    deep = Image.fromarray(hopper[1][..., 0].astype(np.uint16) * 257)
    np.testing.assert_allclose(as_image(deep)[..., 0], hopper[1][..., 0], atol=1)


def test_a_detector_of_ones_own_needs_detect_alone(hopper, hopper_face):
    class Own:
        def detect(self, image):
            return hopper_face.box[None], np.ones(1)

    (face,) = KeypointDetector(detector=Own(), device="cpu")(hopper[1])
    assert point_errors(face.points[None], hopper_face.points[None]).mean() < 2


def test_boxes_do_not_matter(detector, hopper, hopper_face):
    """Boxes that miss by 20 % and are a fifth too small or too large end in the same points: the
    second crop is our own."""
    rng, moved = np.random.default_rng(0), []
    tight = tight_box(hopper_face.points)
    for _ in range(40):
        turn, size = (
            rng.uniform(0, 2 * np.pi),
            tight[2:] * np.exp(rng.uniform(np.log(0.8), np.log(1.25))),
        )
        center = (
            tight[:2]
            + tight[2:] / 2
            + 0.2 * tight[2:].max() * np.array([np.cos(turn), np.sin(turn)])
        )
        face = detector.predict_boxes(hopper[1], [[*(center - size / 2), *size]])[0]
        moved.append(point_errors(face.points[None], hopper_face.points[None]).mean())
    assert np.median(moved) < 1.5 and np.max(moved) < 10


def turned_photo(image, points, angle):
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), -angle, 1)
    side = int(np.hypot(height, width))
    matrix[:, 2] += (side - np.array([width, height])) / 2
    return cv2.warpAffine(image, matrix, (side, side)), points @ matrix[:, :2].T + matrix[:, 2]


def test_points_unlike_a_head_are_rejected(tiny):
    assert (shape_score(tiny.points) == 1).all()
    noise = np.random.default_rng(0).normal(0, 1, (5, 68, 2))
    assert (shape_score(noise) == 0).all()


def test_doubles_are_one_face_the_surest(detector, hopper_face):
    """The same face again, a little off; one that holds it, one inside; and one next to it."""
    points = hopper_face.points
    middle, width = points.mean(0), np.ptp(points[:, 0])
    others = [
        points + 0.1 * width,
        middle + (points - middle) * 2.2,
        middle + (points - middle) * 0.4,
        points + (1.1 * width, 0),
    ]
    faces = [
        Face(hopper_face.box, p, confidence)
        for p, confidence in zip([points, *others], (0.9, 0.8, 0.85, 0.7, 0.6), strict=True)
    ]
    kept = detector.filter_faces(faces)
    assert [face.confidence for face in kept] == [0.9, 0.6]
    assert len(detector.filter_faces([Face(hopper_face.box, points, 0.4)])) == 0


@pytest.mark.parametrize("tilted", [True, False])
@pytest.mark.parametrize("angle", [-45, -25, 25, 45])
def test_rolled_faces_are_found(angle, tilted, hopper, hopper_face):
    photo, points = turned_photo(hopper[1], hopper_face.points, angle)
    faces = KeypointDetector(tilted=tilted)(photo)
    assert len(faces) >= 1
    assert min(point_errors(face.points[None], points[None]).mean() for face in faces) < 5


def test_rotated_copies_are_searched_last_and_only_where_nothing_was_found(hopper, hopper_face):
    detector = KeypointDetector(detector="haar")
    upright = [angles for _, angles in detector.searches(rotated=False)]
    assert set(upright) == {(0,)} and len(upright) == 3
    assert [angles for _, angles in detector.searches()] == [*upright, ROTATIONS]
    assert {angles for _, angles in KeypointDetector(detector="haar", tilted=True).searches()} == {
        (0, *ROTATIONS)
    }
    for name in ("whole", "pyramid"):
        assert ROTATIONS not in [a for _, a in KeypointDetector(detector=name).searches()]
    photo, _ = turned_photo(hopper[1], hopper_face.points, 45)
    assert len(detector.detect(photo)[0]) == 1 and not detector.detect(photo, rotated=False)[0]
    # not next to known faces
    both = np.concatenate([hopper[1], photo[: hopper[1].shape[0]]], 1)
    assert len(detector.detect(both)[0]) == 1


def test_a_fallback_is_made_only_where_it_is_needed(hopper, hopper_face, monkeypatch):
    detector, made = KeypointDetector(detector="haar"), []
    kind = type(detector.detector)
    monkeypatch.setattr(kind, "fallback", property(lambda _: made.append(1)))
    assert len(detector(hopper[1])) == 1 and not made
    assert not detector(np.zeros_like(hopper[1])) and made
    assert detector.detect_batch([]) == []


def test_level_boxes_turn_with_the_face(hopper_face):
    points = hopper_face.points.astype(np.float64)
    boxes, tilts = level_boxes(points[None])
    turn = np.radians(30)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    turned, more = level_boxes((points @ rotation.T)[None])
    assert more[0] == pytest.approx(tilts[0] + 30, abs=1e-6)
    np.testing.assert_allclose(turned[0, 2:], boxes[0, 2:], rtol=1e-6)
    middles = [b[0, :2] + b[0, 2:] / 2 for b in (boxes, turned)]
    np.testing.assert_allclose(rotation @ middles[0], middles[1], rtol=1e-6)


def test_turned_copies_hold_the_whole_picture():
    for angle in (-55, -30, 0, 30, 55):
        matrix, (width, height) = rotated_copy((40, 90), angle)
        corners = np.array([[0, 0], [89, 0], [0, 39], [89, 39]]) @ matrix[:, :2].T + matrix[:, 2]
        assert (corners > -1).all() and (corners < [width, height]).all()


def test_small_faces_are_found(detector, hopper, hopper_face):
    ratio = 28 / tight_box(hopper_face.points)[2:].max()
    photo = np.full((200, 300, 3), 128, np.uint8)
    small = cv2.resize(hopper[1], None, fx=ratio, fy=ratio, interpolation=cv2.INTER_AREA)
    photo[60 : 60 + small.shape[0], 90 : 90 + small.shape[1]] = small
    faces = detector(photo)
    assert len(faces) == 1
    assert (
        point_errors(faces[0].points[None], (hopper_face.points * ratio + [90, 60])[None]).mean()
        < 8
    )


def test_no_face_is_found_where_there_is_none(detector):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (120, 160, 3), dtype=np.uint8)
    for photo in (noise, cv2.GaussianBlur(noise, (0, 0), 6), np.zeros((90, 90), np.uint8)):
        assert detector(photo) == []
    boxes = rng.uniform(10, 40, (20, 4))
    assert max(face.confidence for face in detector.predict_boxes(noise, boxes)) < MIN_CONFIDENCE


class FailsOnce(KeypointDetector):
    """A detector whose first prediction at given boxes fails."""

    failed = False

    def predict_boxes(self, photo, boxes, angles=None):
        if not self.failed:
            self.failed = True
            raise DataError("the first one fails")
        return super().predict_boxes(photo, boxes, angles)


def test_a_photo_is_drawn_though_one_of_its_rows_failed(hopper, tmp_path):
    path, target = hopper[0], tmp_path / "drawn.png"
    box = np.float32([170, 150, 180, 180])
    predictor = FilePredictor(FailsOnce(), drawings={path: target})
    predictor.run([Job("hopper", path, [box]), Job("hopper", path, [box])])
    assert predictor.failures == ["the first one fails"] and predictor.faces == 1
    assert target.exists()


def test_answers_for_what_is_not_a_photo(hopper, tmp_path):
    """What newcomers give, and what they should do instead."""
    (tmp_path / "clip.mp4").write_bytes(b"not really")
    for given, said in (
        (None, "cv2.imread gives None"),
        ("https://example.org/a.jpg", "download the file first"),
        (tmp_path / "clip.mp4", "a video; the command facial-keypoints"),
    ):
        with pytest.raises(DataError, match=said):
            find_keypoints(given)
    detector = KeypointDetector()
    for boxes, angles in (([[1, 2, 3]], None), ("abcd", None), ([[1, 2, 30, 40]], [np.nan])):
        with pytest.raises(UsageError, match="boxes must be|angles must be"):
            detector.predict_boxes(hopper[1], boxes, angles)
    with pytest.raises(UsageError, match="min_confidence"):
        KeypointDetector(min_confidence=float("nan"))
    (face,) = detector(hopper[1])
    assert len(repr(face)) < 100 and "68 points of ibug68" in repr(face)


def test_folders_of_photos_may_be_links_but_not_in_a_circle(hopper, tmp_path, command):
    real, here = tmp_path / "real", tmp_path / "here"
    real.mkdir()
    here.mkdir()
    shutil.copy(hopper[0], real / "a.jpg")
    (here / "link").symlink_to(real)
    (real / "back").symlink_to(here)
    done = command("pipeline.py", here, "--csv", "-")
    assert done.returncode == 0 and done.stdout.count("a.jpg") == 1, done.stdout + done.stderr
