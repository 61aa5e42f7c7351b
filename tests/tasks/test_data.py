"""Batches, idx files and toy digits."""

import gzip
import struct
import tracemalloc

import idx_files
import numpy as np
import pytest
from alone import Alone

from refimpl.numerics.rng import stream
from refimpl.support.errors import UserError
from refimpl.tasks.batches import Batches
from refimpl.tasks.images import idx, toy
from refimpl.tasks.images.task import ImageExamples, ImageTask
from refimpl.tasks.scoring import classification


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


def test_the_order_of_an_epoch_is_a_permutation_that_takes_four_bytes_an_example():
    batches = Batches(1000, 10, 2, seed=3)
    first = [batches.index(50, m) for m in (0, 1)]  # of the second epoch
    expected = stream(3, "order", 1).permutation(1000)[:20]
    assert np.concatenate(first).tolist() == expected.tolist()
    assert first[0].dtype == np.int64 and batches._order.nbytes == 4000


def test_micro_batches_depend_on_their_product_not_on_who_computes_them():
    wide, narrow = Batches(500, 8, 6, seed=1), Batches(500, 8, 6, seed=1)
    narrow.index(17, 3)  # what was asked before does not matter
    for step in (0, 9, 10, 31):
        for m in range(6):
            assert (wide.index(step, m) == narrow.index(step, m)).all()


def test_fewer_examples_than_one_step_are_refused_with_the_remedy():
    with pytest.raises(UserError, match="10 training examples are fewer than one step .* = 12"):
        Batches(examples=10, batch=3, micro_batches=4, seed=0)


def test_epochs_of_a_multiple_are_the_same_examples_for_steps_of_other_sizes():
    short, long = (Batches(100, 5, micro, seed=1, multiple=60) for micro in (2, 6))
    assert (short.steps_per_epoch, long.steps_per_epoch) == (6, 2)
    for step in range(4):  # two epochs
        parts = [short.index(3 * step + k, m) for k in range(3) for m in range(2)]
        whole = [long.index(step, m) for m in range(6)]
        np.testing.assert_array_equal(np.concatenate(parts), np.concatenate(whole))
    with pytest.raises(UserError, match="100 .* fewer than 140, .* multiples of one another"):
        Batches(100, 5, 4, seed=1, multiple=140)


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


def mnist(folder, train=12, test=4, side=28, other=28):
    """Write an image folder of so many toy images, those of test of another size."""
    folder.mkdir()
    for stem, count, wide in (("train", train, side), ("t10k", test, other)):
        images = np.zeros((count, side, wide), np.uint8)
        idx_files.write(folder / f"{stem}-images-idx3-ubyte", images)
        labels = np.arange(count, dtype=np.uint8) % 10
        idx_files.write(folder / f"{stem}-labels-idx1-ubyte", labels)
    return str(folder)


def prepared(data):
    return ImageTask.prepare(Alone(), ImageTask.Settings(), data, print)


def test_a_folder_of_images_becomes_three_splits(tmp_path):
    task = prepared(mnist(tmp_path / "mnist"))
    assert {name: one.count for name, one in task.splits.items()} == {
        "train": 10,
        "dev": 2,
        "test": 4,
    }


@pytest.mark.parametrize(
    "sizes, message",
    [
        ({"other": 20}, "images of t10k are 28 x 20 pixels, those of train 28 x 28"),
        ({"train": 0}, "train-images-idx3-ubyte holds no pixel"),
        ({"test": 0}, "t10k-images-idx3-ubyte holds no pixel"),
        ({"side": 0, "other": 0}, r"holds no pixel: images of shape \(12, 0, 0\)"),
        ({"train": 5}, "has 5 training images: 6 .* the last 1/6 of them is the dev set"),
    ],
)
def test_images_that_cannot_be_trained_on_or_scored_are_refused(tmp_path, sizes, message):
    with pytest.raises(UserError, match=message):
        prepared(mnist(tmp_path / "mnist", **sizes))


@pytest.mark.parametrize("shape", [(2**20, 1000, 1000), (2**32 - 1,) * 3, (2**31, 2**31, 4)])
@pytest.mark.parametrize("packed", [False, True])
def test_a_header_that_asks_for_gigabytes_gets_none(tmp_path, shape, packed):
    raw = struct.pack(">BBBB3I", 0, 0, 8, 3, *shape) + b"\0" * 64
    path = tmp_path / ("images.gz" if packed else "images")
    path.write_bytes(gzip.compress(raw) if packed else raw)
    with pytest.raises(UserError, match="images.* says that it holds .* has room for .* at most"):
        idx.read(path, 3)


def test_a_gzip_file_that_grows_without_end_is_read_no_further_than_its_header_says(tmp_path):
    raw = struct.pack(">BBBB3I", 0, 0, 8, 3, 2, 3, 4) + b"\0" * 50_000_000
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(raw, 1))
    tracemalloc.start()
    with pytest.raises(UserError, match="holds more elements, its header says 24"):
        idx.read(path, 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


@pytest.mark.parametrize("inputs", ["784", 0, -1, True, 78.4, None])
def test_a_saved_image_task_with_another_width_is_refused_by_name(inputs):
    with pytest.raises(UserError, match="image value inputs is"):
        ImageTask.restore({"inputs": inputs})


def test_a_loss_is_the_mean_over_examples_and_an_error_rate_their_share():
    examples = ImageExamples(np.zeros((7, 2, 2), np.uint8), np.arange(7).astype(np.uint8))
    outputs = lambda examples, index: np.zeros((len(index), 10), np.float32)  # noqa: E731
    found = classification(examples, outputs, Alone())
    assert found["loss"] == pytest.approx(np.log(10), rel=1e-9)
    assert found["frame_error_rate"] == 6 / 7 and found["frames"] == 7
