"""Faces in clips: calm when they rest, in time when they move, the same person from frame to
frame."""

import struct
import wave
from fractions import Fraction

import cv2
import numpy as np
import pytest
from conftest import one_line_error

from facial_keypoints.detector import KeypointDetector
from facial_keypoints.errors import DataError, UsageError
from facial_keypoints.formats import read_json
from facial_keypoints.head import inter_ocular
from facial_keypoints.pyav import find_pyav
from facial_keypoints.tracking import OneEuroFilter, Tracker
from facial_keypoints.video import VideoReader, VideoWriter
from research.evaluation.metrics import jitter, lag

RATE = 25


@pytest.fixture(scope="module")
def detector():
    return KeypointDetector(threads=1)


def shifted(image, x, y):
    return cv2.warpAffine(
        image,
        np.float64([[1, 0, x], [0, 1, y]]),
        image.shape[1::-1],
        borderMode=cv2.BORDER_REPLICATE,
    )


def noisy(image, rng, strength=6):
    return np.clip(image + rng.normal(0, strength, image.shape), 0, 255).astype(np.uint8)


def test_a_still_face_before_a_noisy_sensor_is_five_times_calmer(hopper, detector):
    photo, rng = cv2.resize(hopper[1], None, fx=0.5, fy=0.5), np.random.default_rng(0)
    raw, smooth = Tracker(detector, smooth=False), Tracker(detector)
    predictions = []
    for i in range(90):
        frame = noisy(photo, rng)
        predictions.append([tracker(frame, i / RATE)[0].points for tracker in (raw, smooth)])
    predictions = np.array(predictions)[30:]  # the filter has come to rest
    assert 0 < jitter(predictions[:, 1]) < jitter(predictions[:, 0]) / 5


def test_a_moving_face_is_less_than_a_frame_late(hopper, detector):
    photo, rng = cv2.resize(hopper[1], None, fx=0.5, fy=0.5), np.random.default_rng(0)
    places = np.stack([40 * np.sin(np.arange(75) / 12), 20 * np.sin(np.arange(75) / 9)], 1)
    start, tracker = detector(photo)[0].points, Tracker(detector)
    predictions = np.array(
        [
            tracker(noisy(shifted(photo, *place), rng), i / RATE)[0].points
            for i, place in enumerate(places)
        ]
    )
    assert lag(predictions, start + places[:, None]) < 1
    error = np.linalg.norm(predictions - start - places[:, None], axis=-1).mean() / inter_ocular(
        start
    )
    assert error < 0.06


def test_lag_and_jitter_measure_what_they_say():
    rng = np.random.default_rng(0)
    truth = np.repeat(
        np.stack([40 * np.sin(np.arange(80) / 9), 10 * np.cos(np.arange(80) / 7)], 1)[:, None],
        68,
        1,
    )
    for frames in (0, 1, 3):
        assert lag(np.roll(truth, frames, 0), truth) == pytest.approx(frames, abs=0.06)
    still = np.zeros((500, 68, 2)) + rng.normal(0, 0.3, (500, 68, 2))
    assert jitter(still) == pytest.approx(0.3 * 2**0.5, rel=0.02)


def test_the_filter_treats_large_and_small_faces_alike():
    rng = np.random.default_rng(0)
    face, moves = rng.uniform(0, 100, (68, 2)), np.cumsum(rng.normal(0, 2, (40, 1, 2)), 0)
    small, large = OneEuroFilter(), OneEuroFilter()
    for i, move in enumerate(moves):
        np.testing.assert_allclose(
            7 * small(face + move, i / RATE), large(7 * (face + move), i / RATE), rtol=1e-4
        )


def test_identities_are_kept_and_the_detector_seldom_called(hopper, detector):
    """Two people cross the picture; one leaves it, comes back and is who they were."""
    photo = cv2.resize(hopper[1], None, fx=0.4, fy=0.4)
    empty = np.full((260, 520, 3), 90, np.uint8)
    tracker, seen = Tracker(detector, every=20), []
    for i in range(40):
        frame = empty.copy()
        frame[10 : 10 + photo.shape[0], 5 + i : 5 + i + photo.shape[1]] = photo
        if not 15 <= i < 20:
            frame[10 : 10 + photo.shape[0], 300 : 300 + photo.shape[1]] = photo
        seen.append({face.identity for face in tracker(frame, i / RATE)})
    assert seen[0] == seen[-1] == {1, 2} and all(len(s) == 1 for s in seen[15:20])
    assert tracker.count == 2 and tracker.searches <= 10


def test_the_command_follows_a_clip_and_draws_it(hopper, command, tmp_path):
    photo = cv2.resize(hopper[1], None, fx=0.5, fy=0.5)
    with VideoWriter(tmp_path / "clip.avi", RATE) as film:
        for i in range(12):
            film.write(shifted(photo, 2 * i, i))
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    done = command(
        "pipeline.py",
        tmp_path / "clip.avi",
        tmp_path / "bad.mp4",
        "--draw",
        tmp_path / "drawn",
        "--json",
        tmp_path / "out.jsonl",
    )
    assert done.returncode == 1 and "12 frames, 1 tracks, 12 detections" in done.stdout, (
        done.stdout + done.stderr
    )
    assert "bad.mp4" in done.stderr and "clip.avi" not in done.stderr
    rows = read_json(tmp_path / "out.jsonl")
    assert [row["name"] for row in rows] == [f"clip.avi#{i}" for i in range(12)] and {
        row["identity"] for row in rows
    } == {1}
    frames = list(VideoReader(tmp_path / "drawn" / "clip.mp4"))
    assert len(frames) == 12 and frames[0][0].shape == photo.shape
    assert np.abs(frames[0][0].astype(int) - photo).max() > 60  # something is drawn
    assert "no such camera" in one_line_error(command("pipeline.py", "--camera", "77"), 1)


def test_a_film_that_could_not_be_written_takes_no_others_place(tmp_path, monkeypatch):
    """OpenCV says nothing of a full disk; so the frames are counted afterwards."""
    monkeypatch.setattr("facial_keypoints.video.find_pyav", lambda: None)
    with VideoWriter(tmp_path / "a.mp4", RATE) as film:
        film.write(np.zeros((32, 32, 3), np.uint8))
    good = (tmp_path / "a.mp4").read_bytes()
    with pytest.raises(DataError, match="disk full"), VideoWriter(tmp_path / "a.mp4", RATE) as film:
        for _ in range(3):
            film.write(np.zeros((32, 32, 3), np.uint8))
        film.encoder.close()
        film.part.write_bytes(film.part.read_bytes()[:100])
    assert (tmp_path / "a.mp4").read_bytes() == good and list(tmp_path.iterdir()) == [
        tmp_path / "a.mp4"
    ]
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        VideoWriter(tmp_path / "file" / "a.mp4", RATE)


def test_blurred_faces_in_a_clip_are_not_found_again(hopper, command, tmp_path):
    """Somebody who walks in between two looks of the detector is hidden from the first frame on."""
    photo = cv2.resize(hopper[1], None, fx=0.4, fy=0.4)
    with VideoWriter(tmp_path / "clip.avi", RATE) as film:
        for i in range(12):
            film.write(np.full_like(photo, 90) if i < 4 else shifted(photo, i, 0))
    done = command(
        "pipeline.py", tmp_path / "clip.avi", "--draw", tmp_path / "hidden.mp4", "--style", "blur"
    )
    assert done.returncode == 0 and "8 detections" in done.stdout, done.stdout + done.stderr
    detector, frames = (
        KeypointDetector(threads=1),
        [frame for frame, _ in VideoReader(tmp_path / "hidden.mp4")],
    )
    assert len(frames) == 12 and not any(detector(frame) for frame in frames)


def test_a_broken_film_leaves_nothing_behind(tmp_path):
    with pytest.raises(RuntimeError), VideoWriter(tmp_path / "a.mp4", RATE) as film:
        film.write(np.zeros((32, 32, 3), np.uint8))
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match="drawn clips end in"):
        VideoWriter(tmp_path / "a.txt", RATE)
    with pytest.raises(DataError, match="No such file"):
        VideoReader(tmp_path / "none.mp4")


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """The bytes of a video of 12 frames of 64×48 pixels, by its extension."""
    folder, rng = tmp_path_factory.mktemp("films"), np.random.default_rng(0)
    found = {}
    for ending in (".mp4", ".mkv", ".avi"):
        with VideoWriter(folder / f"film{ending}", RATE) as film:
            for _ in range(12):
                film.write(rng.integers(0, 255, (48, 64, 3)).astype(np.uint8))
        found[ending] = (folder / f"film{ending}").read_bytes()
    return found


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile film.mp4\n",
        "\ufeffffconcat version 1.0\n# \0\nfile film.mp4\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfilm.mp4\n#EXT-X-ENDLIST\n",
        '<?xml version="1.0"?><MPD><BaseURL>http://127.0.0.1:9/film.mp4</BaseURL></MPD>',
        "v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
        "film.mp4\n",
        "",
    ],
)
@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".avi"])
def test_lists_of_other_files_are_not_followed(text, ending, films, tmp_path):
    """FFmpeg would read the files that such a text names, and show them as this video."""
    (tmp_path / "film.mp4").write_bytes(films[".mp4"])
    (tmp_path / f"list{ending}").write_text(text)
    with pytest.raises(DataError, match="not a video"):
        VideoReader(tmp_path / f"list{ending}")


def test_frames_have_the_limit_of_photos(films, tmp_path, monkeypatch):
    path = tmp_path / "film.mp4"
    path.write_bytes(films[".mp4"])
    monkeypatch.setenv("FACIAL_KEYPOINTS_MAX_PIXELS", str(64 * 48))
    assert len(list(VideoReader(path))) == 12
    monkeypatch.setenv("FACIAL_KEYPOINTS_MAX_PIXELS", str(64 * 48 - 1))
    with pytest.raises(DataError, match="film.mp4: frames of 64×48 pixels.*MAX_PIXELS"):
        VideoReader(path)


def test_a_varying_frame_rate_gives_the_times_of_the_file(tmp_path):
    path, wanted = tmp_path / "film.mkv", np.array([*range(6), *range(8, 26, 3)]) / RATE
    film = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), RATE, (64, 48))
    for i in range(12):  # plain frames, which all fit into one cluster of the file
        film.write(np.full((48, 64, 3), 20 * i, np.uint8))
    film.release()
    data, place = bytearray(path.read_bytes()), 0
    for i, seconds in enumerate(wanted):
        head = struct.pack(">BhB", 0x81, 1000 * i // RATE, 0x80)  # of a block: track, time, flags
        place = data.index(head, place) + len(head)
        data[place - 3 : place - 1] = struct.pack(">h", round(1000 * seconds))
    path.write_bytes(data)
    times = [seconds for _, seconds in VideoReader(path)]
    np.testing.assert_allclose(times, wanted, atol=2e-3)


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".avi"])
def test_frames_are_counted_by_the_rate_otherwise(ending, films, tmp_path):
    (tmp_path / f"film{ending}").write_bytes(films[ending])
    times = [seconds for _, seconds in VideoReader(tmp_path / f"film{ending}")]
    np.testing.assert_allclose(times, np.arange(12) / RATE, atol=2e-3)


def test_a_film_of_a_turned_phone_is_upright(films, tmp_path):
    data = bytearray(films[".mp4"])
    matrix = data.index(b"tkhd") + 4 + 40  # of version 0: after times, identity and layer
    struct.pack_into(">9i", data, matrix, 0, 65536, 0, -65536, 0, 0, 0, 0, 0x40000000)
    (tmp_path / "film.mp4").write_bytes(data)
    assert {frame.shape for frame, _ in VideoReader(tmp_path / "film.mp4")} == {(64, 48, 3)}


def test_sound_alone_and_cut_films_are_reported(films, command, tmp_path):
    with wave.open(str(tmp_path / "sound.avi"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(16000))
    for ending, data in films.items():
        (tmp_path / f"half{ending}").write_bytes(data[: len(data) // 2])
    (tmp_path / "whole.mp4").write_bytes(films[".mp4"])
    done = command("pipeline.py", tmp_path, "--csv", tmp_path / "out.csv")
    one_line_error(done, 1)
    failed = [line for line in done.stderr.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 4 and not any("whole" in line for line in failed), done.stderr
    assert "whole.mp4: 12 frames" in done.stdout


@pytest.mark.parametrize("share", [0.7, 0.66])
def test_people_cheek_to_cheek_are_both_tracked(share, hopper):
    """The boxes of the two faces overlap by an IoU above 0.2; a photo shows both."""
    detector = KeypointDetector()
    face = detector(hopper[1])[0]
    left, top, width, height = face.box
    low, high = int(max(top - 0.6 * height, 0)), int(top + 1.4 * height)
    step = int(share * width)
    begin = int(left + width / 2 - 0.75 * width)
    crop = hopper[1][low:high, begin : begin + int(1.5 * width)]
    scene = np.full((crop.shape[0], crop.shape[1] + step, 3), 90, np.uint8)
    scene[:, step:] = crop
    middle = crop.shape[1] // 2 + step // 2
    scene[:, :middle] = np.pad(crop, ((0, 0), (0, step), (0, 0)), mode="edge")[:, :middle]
    photo = detector(scene)
    tracker = Tracker(detector, every=1)
    for number in range(3):
        faces = tracker(scene, number / 30)
        assert len(faces) == len(photo) == 2
    assert {found.identity for found in faces} == {1, 2}


def test_clips_whose_frames_are_all_black_are_reported(tmp_path, command):
    """As OpenCV gives interlaced ones."""
    with VideoWriter(tmp_path / "dark.avi", RATE) as film:
        for _ in range(4):
            film.write(np.zeros((64, 80, 3), np.uint8))
    line = one_line_error(command("pipeline.py", tmp_path / "dark.avi"), 1)
    assert "all 4 frames are black" in line and "pip install av" in line


av_is_there = pytest.mark.skipif(find_pyav() is None, reason="PyAV is not installed")


def bright_clip(path, frames=12, size=(64, 48), rate=RATE, sound=False, interlaced=False):
    """A clip of a moving bar, written with PyAV."""
    av = find_pyav()
    with av.open(str(path), "w") as file:
        film = file.add_stream("mpeg2video" if interlaced else "libx264", rate=rate)
        film.width, film.height, film.pix_fmt = *size, "yuv420p"
        if interlaced:
            film.codec_context.options = {"flags": "+ildct+ilme", "top": "1"}
        tone = file.add_stream("aac", rate=16000, layout="mono") if sound else None
        for i in range(frames):
            image = np.full((size[1], size[0], 3), 90, np.uint8)
            image[:, 3 * i : 3 * i + 8] = 240
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
            if interlaced:
                frame = interlaced_copy(av, frame)
            file.mux(film.encode(frame))
        file.mux(film.encode())
        if tone:
            samples = (8000 * np.sin(np.arange(16000 * frames // rate) / 8)).astype(np.int16)
            for start in range(0, len(samples), 1024):
                part = av.AudioFrame.from_ndarray(
                    samples[None, start : start + 1024], "s16", "mono"
                )
                part.sample_rate, part.pts = 16000, start
                file.mux(tone.encode(part))
            file.mux(tone.encode())
    return path


def interlaced_copy(av, frame):
    """A frame marked as interlaced, top field first."""
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, RATE)
    )
    graph.link_nodes(source, graph.add("setfield", "tff"), graph.add("buffersink")).configure()
    graph.vpush(frame)
    return graph.vpull()


@av_is_there
def test_drawn_clips_play_everywhere_with_their_sound(tmp_path, command):
    av = find_pyav()
    clip = bright_clip(tmp_path / "talk.mp4", frames=30, sound=True)
    done = command("pipeline.py", clip, "--draw", tmp_path / "drawn.mp4")
    assert done.returncode == 0 and "without sound" not in done.stdout, done.stdout
    with av.open(str(tmp_path / "drawn.mp4")) as drawn, av.open(str(clip)) as source:
        film, sound = drawn.streams.video[0], drawn.streams.audio[0]
        assert (film.codec_context.name, film.pix_fmt) == ("h264", "yuv420p")
        assert float(sound.duration * sound.time_base) == pytest.approx(
            float(source.streams.audio[0].duration * source.streams.audio[0].time_base), abs=0.1
        )
        assert sum(1 for _ in drawn.decode(film)) == 30


@av_is_there
def test_blurred_clips_carry_no_voices(tmp_path, command):
    clip = bright_clip(tmp_path / "talk.mp4", sound=True)
    command("pipeline.py", clip, "--draw", tmp_path / "hidden.mp4", "--style", "blur")
    with find_pyav().open(str(tmp_path / "hidden.mp4")) as hidden:
        assert not hidden.streams.audio and hidden.streams.video


@av_is_there
def test_frames_of_odd_size_and_other_times_are_written(tmp_path):
    times = [0.0, 0.1, 0.5, 0.52, 2.0]
    with VideoWriter(tmp_path / "odd.mp4", 10) as film:
        for seconds in times:
            film.write(np.full((47, 65, 3), 128, np.uint8), seconds)
    frames = list(VideoReader(tmp_path / "odd.mp4"))
    assert {frame.shape for frame, _ in frames} == {(48, 66, 3)}
    np.testing.assert_allclose([seconds for _, seconds in frames], times, atol=2e-3)


@av_is_there
@pytest.mark.parametrize("ending", [".mpg", ".mp4"])
def test_interlaced_clips_are_read(ending, tmp_path):
    clip = bright_clip(tmp_path / f"field{ending}", size=(96, 64), interlaced=True)
    frames = list(VideoReader(clip))
    assert len(frames) >= 11
    assert all(frame.mean() > 80 for frame, _ in frames)
    assert frames[5][1] == pytest.approx(5 / RATE, abs=0.03)


def test_without_pyav_clips_are_written_as_before(tmp_path, monkeypatch):
    monkeypatch.setattr("facial_keypoints.video.find_pyav", lambda: None)
    with VideoWriter(tmp_path / "a.mp4", RATE) as film:
        film.write(np.full((48, 64, 3), 99, np.uint8))
    assert "pip install av" in film.note
    assert len(list(VideoReader(tmp_path / "a.mp4"))) == 1


def test_a_short_clip_becomes_a_gif(films, tmp_path, command):
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    (tmp_path / "film.mp4").write_bytes(films[".mp4"])
    done = command("pipeline.py", tmp_path / "film.mp4", "--draw", tmp_path / "film.gif")
    assert done.returncode == 0, done.stderr
    with image.open(tmp_path / "film.gif") as gif:
        assert gif.size == (64, 48) and gif.n_frames == 6 and gif.info["loop"] == 0
        assert gif.info["duration"] == 80


def test_a_long_gif_is_refused(tmp_path):
    pytest.importorskip("PIL", reason="Pillow is not installed")
    with (
        pytest.raises(DataError, match=r"long\.gif: a \.gif takes 30 seconds at most"),
        VideoWriter(tmp_path / "long.gif", RATE) as film,
    ):
        film.write(np.zeros((8, 8, 3), np.uint8), 0)
        film.write(np.zeros((8, 8, 3), np.uint8), 31)
    assert not list(tmp_path.iterdir())
