"""Training sets in several archives: the same frames, every one once an epoch, a few archives at a
time, little kept."""

import numpy as np
import pytest

import data_load

from data_load import SHUFFLE_ARCHIVES, EpochSampler, FacialKeypointsDataset
from facial_keypoints.errors import DataError
from research.datasets import load_frames, split_frames
from research.synthetic.faces import draw_archive, draw_shards
from research.augmentation.transforms import training_transform


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six people in three archives."""
    folder = tmp_path_factory.mktemp("shards")
    draw_shards(folder, people=6, seed=3, size=2)
    return folder


def test_archives_hold_together_what_one_would(folder, tmp_path):
    assert len(list(folder.glob("*.zip"))) == 3
    draw_archive(tmp_path / "one.zip", people=6, seed=3, bar=False)
    one, many = load_frames(str(tmp_path / "one.zip")), load_frames(str(folder))
    order = {name: row for row, name in enumerate(many.names)}
    rows = [order[name] for name in one.names]
    assert len(one) == len(many) == 48
    np.testing.assert_array_equal(one.points, many.points[rows])
    for row in (0, 20, 47):
        np.testing.assert_array_equal(one.image(row), many.image(rows[row]))
    assert sorted(np.bincount(many.shards)) == [16, 16, 16] and (one.shards == 0).all()
    assert len(split_frames(many, "official", "training")) == len(
        split_frames(one, "official", "training")
    )


def test_a_second_call_draws_what_is_missing(folder):
    times = {path: path.stat().st_mtime_ns for path in folder.glob("*.zip")}
    (gone := sorted(times)[1]).unlink()
    draw_shards(folder, people=6, seed=3, size=2)
    assert [path for path in times if path.stat().st_mtime_ns != times[path]] == [gone]


def test_frames_of_one_name_in_two_archives_are_reported(folder, tmp_path):
    for name in ("a.zip", "b.zip"):
        (tmp_path / name).write_bytes(next(folder.glob("*.zip")).read_bytes())
    with pytest.raises(DataError, match="in two archives"):
        load_frames(str(tmp_path))


def test_rows_are_shuffled_within_a_few_archives_and_come_once():
    shards = np.repeat(np.arange(10), 30)
    sampler = EpochSampler(300, seed=1, shards=shards)
    orders = []
    for sampler.epoch in (0, 1):
        rows = np.array(list(sampler)) - 300 * sampler.epoch
        assert sorted(rows) == list(range(300))
        for start in (0, 120, 240):  # of as many archives as are read at once
            window = shards[rows[start : start + 120]]
            assert len(set(window)) == min(SHUFFLE_ARCHIVES, 10 - start // 30)
            assert len(set(window[:30])) > 1, "one archive after another would not be shuffled"
        orders.append(rows)
    assert not np.array_equal(*orders)


def test_what_is_not_kept_in_memory_is_decoded_again(folder, monkeypatch):
    frames = load_frames(str(folder)).select(np.arange(12))
    kept = FacialKeypointsDataset(frames, training_transform(32), gray=True)
    monkeypatch.setattr(data_load, "CACHE_BYTES", 3 * kept.images[0].nbytes)
    streamed = FacialKeypointsDataset(frames, training_transform(32), gray=True)
    assert len(kept.images) == 12 and 0 < len(streamed.images) < 8
    for index in range(12):
        assert (kept[index]["image"] == streamed[index]["image"]).all()
