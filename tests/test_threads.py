"""One detector for many threads, and threads that leave the processor to others."""

import multiprocessing
import os
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import HOME

from facial_keypoints.defaults import RUNTIMES
from facial_keypoints.paths import SAVED_MODELS
from facial_keypoints.detector import KeypointDetector, find_keypoints
from facial_keypoints.errors import UsageError
from facial_keypoints.model import installed_runtimes
from facial_keypoints.tracking import Tracker
from research.networks.export import use_checkpoints
from research.synthetic.faces import draw_scene

THREADS, CALLS = 8, 48
use_checkpoints()


@pytest.fixture(scope="module")
def photos():
    """Scenes of one to six synthetic faces."""
    counts = (1, 6, 2, 4, 3, 6, 1, 5)
    return [
        draw_scene(seed, faces=count, width=480, height=360)[0] for seed, count in enumerate(counts)
    ]


def assert_same(faces, expected):
    assert len(faces) == len(expected)
    for face, other in zip(faces, expected, strict=True):
        np.testing.assert_allclose(face.points, other.points, atol=1e-3)
        assert face.confidence == pytest.approx(other.confidence, abs=1e-5)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_shared_detector_gives_all_threads_the_same(runtime, photos):
    if runtime not in installed_runtimes():
        pytest.skip(f"optional: pip install {' '.join(RUNTIMES[runtime])}")
    detector = KeypointDetector(runtime=runtime)
    expected = [detector(photo) for photo in photos]
    assert [len(faces) for faces in expected] != [0] * len(photos)
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(lambda call: detector(photos[call % len(photos)]), range(CALLS)))
    for call, faces in enumerate(found):
        assert_same(faces, expected[call % len(photos)])


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_detectors_may_be_made_in_several_threads_at_once(runtime, photos):
    if runtime not in installed_runtimes():
        pytest.skip(f"optional: pip install {' '.join(RUNTIMES[runtime])}")
    expected = KeypointDetector(runtime=runtime)(photos[1])
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: KeypointDetector(runtime=runtime)(photos[1]), range(4)))
    for faces in found:
        assert_same(faces, expected)


def points_of(detector, photo):
    return [face.points for face in detector(photo)]


@pytest.mark.parametrize("runtime", ["onnx", "torch"])  # without and with `models` in the child
def test_a_detector_goes_to_a_process_that_is_spawned(runtime, photos):
    detector = KeypointDetector(runtime=runtime)
    expected = points_of(detector, photos[2])  # used before, so that its threads run
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = pool.submit(points_of, detector, photos[2]).result(timeout=120)
    assert len(found) == len(expected) > 0
    for points, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(points, other, atol=1e-3)


FORKED = """
import os, signal, sys
import numpy as np
import models
from facial_keypoints.detector import KeypointDetector
from research.synthetic.faces import draw_scene

detector, scene = KeypointDetector(runtime=sys.argv[1]), draw_scene(4, faces=3)[0]
expected = [face.points for face in detector(scene)]
child = os.fork()
if not child:
    signal.alarm(60)
    found = [face.points for face in detector(scene)]
    os._exit(len(found) != len(expected) or not np.allclose(found, expected, atol=1e-3))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_detector_works_in_a_forked_process(runtime):
    if runtime not in installed_runtimes():
        pytest.skip(f"optional: pip install {' '.join(RUNTIMES[runtime])}")
    done = subprocess.run([sys.executable, "-c", FORKED, runtime], cwd=HOME, timeout=120)
    assert done.returncode == 0


def test_trackers_in_several_threads_may_share_a_detector(photos):
    detector = KeypointDetector()

    def follow(photo):
        tracker = Tracker(detector)
        return [tracker(photo, second / 10) for second in range(6)][-1]

    expected = [follow(photo) for photo in photos]
    with ThreadPoolExecutor(THREADS) as pool:
        for faces, other in zip(pool.map(follow, photos), expected, strict=True):
            assert_same(faces, other)


def test_a_call_leaves_the_number_of_pytorch_threads_as_it_was(photos):
    import torch

    detector, before = KeypointDetector(runtime="torch", threads=1), torch.get_num_threads()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(detector, photos))
    detector(photos[0])
    assert torch.get_num_threads() == before


def test_find_keypoints_keeps_its_detector(photos):
    from facial_keypoints.detector import _kept_detector

    _kept_detector.cache_clear()
    for photo in photos[:3]:
        find_keypoints(photo)
    assert _kept_detector.cache_info().misses == 1
    find_keypoints(photos[0], min_confidence=0.9)
    assert _kept_detector.cache_info().misses == 2


@pytest.mark.parametrize(
    "options, said",
    [
        ({"net": None}, "net must be the name of a model"),
        ({"net": 3}, "not int"),
        ({"detector": 3}, "detector must be a name"),
        ({"detector": ["haar"]}, "not list"),
    ],
)
def test_options_of_other_types_are_named(options, said, photos):
    for call in (partial(find_keypoints, photos[0]), KeypointDetector):
        with pytest.raises(UsageError, match=said):
            call(**options)


@pytest.mark.parametrize("kind", [str, Path])
def test_find_keypoints_notices_another_file_of_weights(kind, photos, tmp_path, monkeypatch):
    """Also with the same time, and by a name that means another file in another folder."""
    first, second = (SAVED_MODELS / f"{name}.onnx" for name in ("models5", "models7"))
    own = tmp_path / "own.onnx"
    shutil.copy(first, own)
    before = find_keypoints(photos[0], net=kind(own))[0].points
    time = own.stat().st_mtime_ns
    shutil.copy(second, own)
    os.utime(own, ns=(time, time))
    after = find_keypoints(photos[0], net=kind(own))[0].points
    np.testing.assert_array_equal(after, find_keypoints(photos[0], net="models7")[0].points)
    assert not np.array_equal(before, after)
    (tmp_path / "other").mkdir()
    shutil.copy(first, tmp_path / "other" / "own.onnx")
    found = []
    for folder in (tmp_path, tmp_path / "other"):
        monkeypatch.chdir(folder)
        found.append(find_keypoints(photos[0], net=kind("./own.onnx"))[0].points)
    np.testing.assert_array_equal(found[0], after)
    np.testing.assert_array_equal(found[1], before)


@pytest.mark.parametrize(
    "module", ["train", "evaluate", "data_load", "models", "research.networks.export"]
)
def test_waiting_threads_sleep_whatever_is_imported_first(module):
    """libgomp prints the policy that it was loaded with."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))
    }
    done = subprocess.run(
        [sys.executable, "-c", f"import {module}"],
        capture_output=True,
        text=True,
        cwd=HOME,
        env={**environment, "OMP_DISPLAY_ENV": "TRUE"},
    )
    assert done.returncode == 0, done.stderr
    if "OMP_WAIT_POLICY" not in done.stderr:
        pytest.skip("this build of PyTorch has another OpenMP library")
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr, done.stderr
