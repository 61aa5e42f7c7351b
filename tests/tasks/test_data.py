"""Batches, idx files and toy digits."""

import gzip

import idx_files
import numpy as np
import pytest

from refimpl.support.errors import UserError
from refimpl.tasks.batches import Batches
from refimpl.tasks.images import idx, toy
from refimpl.tasks.images.task import ImageExamples


def epoch(batches, number):
    first = number * batches.steps_per_epoch
    return np.concatenate(
        [
            batches.index(first + step, m)
            for step in range(batches.steps_per_epoch)
            for m in range(batches.micro_batches)
        ]
    )


def test_an_epoch_sees_an_example_at_most_once_and_leaves_out_less_than_a_step():
    batches = Batches(examples=103, batch=5, micro_batches=4, seed=3)
    seen = epoch(batches, 0)
    assert len(set(seen.tolist())) == seen.size > 103 - 5 * 4
    assert (np.sort(seen) != np.sort(epoch(batches, 1))).any(), "another epoch, another rest"


def test_micro_batches_depend_on_their_product_not_on_who_computes_them():
    wide, narrow = Batches(500, 8, 6, seed=1), Batches(500, 8, 6, seed=1)
    narrow.index(17, 3)  # what was asked before does not matter
    for step in (0, 9, 10, 31):
        for m in range(6):
            assert (wide.index(step, m) == narrow.index(step, m)).all()


def test_fewer_examples_than_one_step_are_refused_with_the_remedy():
    with pytest.raises(UserError, match="10 training examples are fewer than one step .* = 12"):
        Batches(examples=10, batch=3, micro_batches=4, seed=0)


@pytest.mark.parametrize("name", ["x-idx3-ubyte", "x-idx3-ubyte.gz"])
def test_idx_files_come_back_as_written(tmp_path, name):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    idx_files.write(tmp_path / "plain", array)
    raw = (tmp_path / "plain").read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
    found = idx.find(tmp_path, "x-idx3-ubyte")
    np.testing.assert_array_equal(idx.read(found, 3), array, strict=True)


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda raw: raw[:-1], "truncated or damaged"),
        (lambda raw: raw + b"x", "truncated or damaged"),
        (lambda raw: raw[:9], "truncated or damaged"),
        (lambda raw: b"\x1f\x8b" + raw, "is not an idx file"),
        (lambda raw: raw[:2] + b"\x0d" + raw[3:], "element type 13"),
        (lambda raw: b"", "is not an idx file"),
    ],
)
def test_a_damaged_idx_file_is_named_as_such(tmp_path, damage, message):
    path = tmp_path / "images"
    idx_files.write(path, np.zeros((2, 3, 4), np.uint8))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=message) as refusal:
        idx.read(path, 3)
    assert str(path) in str(refusal.value)


def test_a_truncated_gzip_file_is_an_error(tmp_path):
    idx_files.write(tmp_path / "a", np.zeros((50, 3, 4), np.uint8))
    (tmp_path / "a.gz").write_bytes(gzip.compress((tmp_path / "a").read_bytes())[:-9])
    with pytest.raises(UserError, match="cannot read"):
        idx.read(tmp_path / "a.gz", 3)


def test_toy_images_are_a_function_of_split_and_number():
    many, _ = toy.images("train", 0, 30)
    few, labels = toy.images("train", 7, 12)
    np.testing.assert_array_equal(many[7:12], few)
    assert (toy.images("test", 7, 12)[0] != few).any()
    assert labels.tolist() == [7, 8, 9, 0, 1]


def test_taking_fills_the_callers_rows_with_scaled_pixels():
    images, labels = toy.images("train", 0, 30)
    examples = ImageExamples(images, labels)
    x, y = np.empty((3, 784), np.float32), np.empty(3, np.int64)
    examples.take(np.array([29, 0, 7]), x, y)
    np.testing.assert_allclose(x[2], images[7].ravel() / 255, rtol=1e-6)
    assert y.tolist() == [9, 0, 7]
