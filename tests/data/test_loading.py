"""From a dataset to batches: one stream whatever the workers, nothing random but by (seed, epoch, index)."""

import gc
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import albumentations as A
import cv2
import numpy as np
import pytest
import torch
from helpers import mostly_slow
from omegaconf import OmegaConf

from segtrain.config import build
from segtrain.data.base import Cached, Dataset, Sample
from segtrain.data.loading import Batch, TrainingLoader, TrainingSampler, load_for_evaluation
from segtrain.data.statistics import compute_statistics
from segtrain.data.transforms import Augmentation, Normalize, pad_to
from segtrain.errors import UserError
from segtrain.labels import Label

CONF = Path(__file__).parents[2] / "conf" / "augmentation"
LABELS = (Label("a", 0, 0, (1, 2, 3)), Label("b", 1, 1, (4, 5, 6), True), Label("c", 2, 2, (7, 8, 9), True))


class Numbered(Dataset):
    """Images whose pixels tell their own place: red is the row, green the column, blue the sample's number.

    The target is (row // 8 + column // 8) % 3, so that it can be computed again from the image.
    """

    labels = LABELS

    def __init__(self, sizes):
        self.sizes = sizes
        self.names = [str(index) for index in range(len(sizes))]

    def read(self, index):
        height, width = self.sizes[index]
        rows, columns = np.mgrid[:height, :width].astype(np.uint8)
        image = np.stack([rows, columns, np.full_like(rows, index)], -1)
        return Sample(image, (rows // 8 + columns // 8) % 3)

    def locate(self, index):
        return f"{index}.png"


class Broken(Numbered):
    def read(self, index):
        if index == 5:
            raise UserError("/data/5.png cannot be read: replace it.")
        return super().read(index)


class Signals(Numbered):
    """Images that tell how the process that loads them takes SIGINT and SIGTERM."""

    def read(self, index):
        value = 100 * (signal.getsignal(signal.SIGINT) == signal.SIG_IGN)
        value += signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        return Sample(np.full((32, 32, 3), value, np.uint8), np.zeros((32, 32), np.uint8))


@pytest.fixture(autouse=True)
def global_random_state_is_untouched():
    """Check around every test that loading draws nothing from the streams that a resume restores."""
    torch.manual_seed(1)
    np.random.seed(2)
    random.seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1:3], random.getstate()
    yield
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1][0])
    assert np.random.get_state()[2] == before[1][1]
    assert random.getstate() == before[2]


def crop_flip(height=32, width=32):
    return augmentation("crop_flip", height, width)


def augmentation(name, height, width):
    """Build the transforms of a file of conf/augmentation."""
    transforms = OmegaConf.load(CONF / f"{name}.yaml")
    cfg = OmegaConf.create({"dataset": {"crop": [height, width]}, "augmentation": transforms})
    return build.augmentation(SimpleNamespace(**OmegaConf.to_container(cfg, resolve=True)))


def loader(data, augment, workers=0, batch_size=4, seed=0):
    return TrainingLoader(data, augment, batch_size=batch_size, seed=seed, workers=workers, pin_memory=False)


def assert_same_stream(stream, other):
    stream, other = list(stream), list(other)
    assert [batch.indices for batch in stream] == [batch.indices for batch in other]
    for left, right in zip(stream, other, strict=True):
        assert torch.equal(left.images, right.images)
        assert torch.equal(left.targets, right.targets)


# ---- training


def test_batches_have_the_promised_types():
    (batch, *_), = [list(loader(Numbered([(40, 48)] * 8), crop_flip()).batches(0))]
    assert (batch.images.shape, batch.images.dtype) == ((4, 32, 32, 3), torch.uint8)
    assert (batch.targets.shape, batch.targets.dtype) == ((4, 32, 32), torch.uint8)
    assert batch.instances is None
    assert batch.images[..., 2].flatten(1).unique(dim=1).flatten().tolist() == batch.indices


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on machines of few cores
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_change_nothing(workers):
    data = Numbered([(40, 48)] * 22)
    alone, together = loader(data, crop_flip()), loader(data, crop_flip(), workers)
    for epoch in (0, 1, 5):  # the workers persist, and must learn of each epoch
        assert_same_stream(alone.batches(epoch), together.batches(epoch))
    assert_same_stream(alone.batches(1, 8), together.batches(1, 8))


@pytest.mark.parametrize("workers", [0, 2])
def test_no_crop_repeats_over_workers_and_epochs(workers):
    shown = loader(Numbered([(96, 96)] * 16), crop_flip(), workers)
    corners = []
    for epoch in range(4):
        for batch in shown.batches(epoch):
            corners += [tuple(image[0, [0, -1], :2].flatten().tolist()) for image in batch.images]
    assert len(corners) == 64
    # of 65 * 65 * 2 crops, 64 draws repeat one with a probability of 21 %, three with less than 1 %
    assert len(set(corners)) > 61


@pytest.mark.parametrize("workers", [0, 2])
def test_epoch_can_start_at_any_batch(workers):
    shown = loader(Numbered([(40, 48)] * 22), crop_flip(), workers)
    whole = list(shown.batches(3))
    assert len(whole) == shown.batches_per_epoch == 5
    for first in range(6):
        assert_same_stream(whole[first:], shown.batches(3, 4 * first))


def test_epoch_left_half_way_does_not_leak_into_the_next():
    data = Numbered([(40, 48)] * 22)
    shown, fresh = loader(data, crop_flip(), 2), loader(data, crop_flip())
    for batch in shown.batches(0):
        assert batch.indices
        break
    assert_same_stream(shown.batches(1), fresh.batches(1))


def test_order_hangs_on_seed_and_epoch_alone():
    def order(epoch, seed=0):
        sampler = TrainingSampler(23, 4, seed)
        sampler.epoch = epoch
        return [index for batch in sampler for _, index in batch]

    assert order(1) == order(1)
    assert order(0) != order(1)
    assert order(1) != order(1, seed=1)
    for epoch in range(5):
        assert len(order(epoch)) == len(set(order(epoch))) == 20
    assert {index for epoch in range(20) for index in order(epoch)} == set(range(23))  # nobody waits for ever


def test_seed_changes_the_crops():
    data = Numbered([(96, 96)] * 4)
    first, second = (next(iter(loader(data, crop_flip(), seed=seed).batches(0))) for seed in (0, 1))
    assert not torch.equal(first.images.sort(0).values, second.images.sort(0).values)


@pytest.mark.parametrize("batch_size", [0, 5])
def test_batch_that_cannot_be_filled_is_refused(batch_size):
    with pytest.raises(ValueError, match=f"batch_size={batch_size}"):
        TrainingSampler(4, batch_size, 0)


def test_images_of_different_sizes_are_padded_with_void():
    data = Numbered([(32, 64), (48, 40), (33, 35), (40, 40)])
    batch, = loader(data, Augmentation({})).batches(0)
    assert batch.images.shape == (4, 48, 64, 3)
    for index, image, target in zip(batch.indices, batch.images, batch.targets, strict=True):
        sample = data.read(index)
        height, width = sample.target.shape
        np.testing.assert_array_equal(image[:height, :width], sample.image)
        np.testing.assert_array_equal(target[:height, :width], sample.target)
        assert (image[height:] == 0).all()
        assert (image[:, width:] == 0).all()
        assert (target[height:] == 255).all()
        assert (target[:, width:] == 255).all()


@pytest.mark.parametrize("workers", mostly_slow(1, [0, 1, 2]))
def test_users_error_in_a_worker_is_one_plain_line_and_ends_the_workers_at_once(workers):
    data = Broken([(40, 48)] * 8)

    def training():
        return loader(data, crop_flip(), workers).batches(0)

    def evaluation():
        return load_for_evaluation(data, [(40, 48)] * 8, instances=None, batch_size=2, workers=workers,
                                   pin_memory=False)

    for batches in (training, evaluation):
        message = None
        try:
            list(batches())
        except UserError as error:  # pytest.raises would keep the loader alive
            message = str(error)
        assert message == "/data/5.png cannot be read: replace it."
        failed = time.monotonic()
        gc.collect()
        assert time.monotonic() - failed < 4


def test_workers_leave_signals_to_the_main_process():
    before = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda *_: None)  # as a training does
    try:
        batch = next(iter(loader(Signals([(32, 32)] * 4), Augmentation({}), 1).batches(0)))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (batch.images == 101).all()


@pytest.mark.slow
def test_workers_end_with_the_process(tmp_path):
    script = tmp_path / "leave.py"
    script.write_text(textwrap.dedent("""
        from segtrain.data.loading import TrainingLoader
        from segtrain.data.streets.dataset import Streets
        from segtrain.data.transforms import Augmentation

        loader = TrainingLoader(Streets("train", 32, 32, num_train=40), Augmentation({}), batch_size=2, seed=0,
                                workers=2, pin_memory=False)
        batches = loader.batches(0)
        next(batches)
        print(*(worker.pid for worker in loader._loader._iterator._workers))
        loader.close()
    """))
    ended = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False,
                           env={**os.environ, "OMP_NUM_THREADS": "1",
                                "PYTHONWARNINGS": "ignore"})  # torch warns of two workers on one core
    assert (ended.returncode, ended.stderr) == (0, "")
    pids = [int(pid) for pid in ended.stdout.split()]
    assert len(pids) == 2
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


# ---- evaluation


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_keeps_the_order_and_the_sizes(workers):
    sizes = [(32, 40)] * 5 + [(40, 32)] + [(32, 40)] * 2
    data = Numbered(sizes)
    batches = list(load_for_evaluation(data, sizes, instances=None, batch_size=3, workers=workers, pin_memory=False))
    assert [batch.indices for batch in batches] == [[0, 1, 2], [3, 4], [5], [6, 7]]
    for batch in batches:
        assert batch.instances is None
        for number, index in enumerate(batch.indices):
            np.testing.assert_array_equal(batch.images[number], data.read(index).image)
            np.testing.assert_array_equal(batch.targets[number], data.read(index).target)


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_carries_instances(workers):
    data = Numbered([(32, 40)] * 3)
    sizes = compute_statistics(data, None).sizes
    batches = list(load_for_evaluation(data, sizes, instances="components", batch_size=2, workers=workers,
                                       pin_memory=False))
    for batch in batches:
        assert len(batch.instances) == len(batch.indices)
        for target, instances in zip(batch.targets, batch.instances, strict=True):
            assert instances.dtype == np.int32
            np.testing.assert_array_equal(instances > 0, target > 0)


def test_evaluation_without_the_instance_maps_asked_for():
    with pytest.raises(UserError, match="no instance map"):
        list(load_for_evaluation(Numbered([(32, 40)]), [(32, 40)], instances="maps", batch_size=2, workers=0,
                                 pin_memory=False))


def test_pinning_keeps_every_field(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 1)  # there may be no GPU to pin for
    instances = [np.zeros((2, 2), np.int32)]
    pinned = Batch(torch.zeros(1, 2, 2, 3), torch.ones(1, 2, 2), [7], instances).pin_memory()
    assert (pinned.images == 1).all()
    assert (pinned.targets == 2).all()
    assert pinned.indices == [7]
    assert pinned.instances is instances


# ---- augmentation


@pytest.mark.parametrize("name", ["crop_flip", "strong"])
def test_equal_keys_give_equal_results(name):
    data = Numbered([(96, 96)])
    sample = data.read(0)
    first, second = augmentation(name, 32, 48), augmentation(name, 32, 48)
    for _ in range(3):
        second(sample.image, sample.target, (9, 9, 9))  # the past does not count
    for key in [(0, 0, 0), (0, 1, 0), (2**40, 3, 4)]:
        for left, right in zip(first(*_pair(sample), key), second(*_pair(sample), key), strict=True):
            np.testing.assert_array_equal(left, right)


def test_every_part_of_the_key_counts():
    sample = Numbered([(250, 250)]).read(0)
    augment = crop_flip()
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)]
    assert len({augment(*_pair(sample), key)[0].tobytes() for key in keys}) == len(keys)


def test_transforms_draw_independently():
    sample = Numbered([(96, 96)]).read(0)
    augment = crop_flip()
    images = [augment(*_pair(sample), (0, 0, index))[0] for index in range(400)]
    flipped = np.array([image[0, 0, 1] > image[0, -1, 1] for image in images])
    top = np.array([image[0, 0, 0] for image in images], float)
    left = np.array([image[0, :, 1].min() for image in images], float)
    assert 0.4 < flipped.mean() < 0.6
    for place in (top, left):
        assert abs(np.corrcoef(flipped, place)[0, 1]) < 0.15
        assert place.min() <= 2
        assert place.max() >= 62
    # four transforms of one probability are applied together in 1 of 16 images, not in 1 of 2
    light = Augmentation({"light": A.RandomBrightnessContrast(p=0.5), "flip": A.HorizontalFlip(p=0.5),
                          "turn": A.VerticalFlip(p=0.5)})
    unchanged = sum(np.array_equal(light(*_pair(sample), (0, 0, index))[0], sample.image) for index in range(200))
    assert 10 <= unchanged <= 42


@pytest.mark.parametrize("size", [(96, 96), (32, 64), (20, 20), (60, 24)])
def test_crop_flip_keeps_image_and_target_together(size):
    sample = Numbered([size]).read(0)
    augment = crop_flip(40, 48)
    for index in range(10):
        image, target = augment(*_pair(sample), (0, 0, index))
        assert (image.shape, target.shape) == ((40, 48, 3), (40, 48))
        assert (image.dtype, target.dtype) == (np.uint8, np.uint8)
        inside = target != 255
        assert inside.sum() == min(40, size[0]) * min(48, size[1])  # what was added is void
        assert (image[~inside] == 0).all()
        np.testing.assert_array_equal(target[inside], ((image[..., 0] // 8 + image[..., 1] // 8) % 3)[inside])


def test_strong_keeps_labels_and_places():
    """Targets hold labels only, no mixtures, and stay where the image is.

    The image is white where the target is class 2, and class 1 is nowhere: a mixture of 0 and 2 would show as 1.
    """
    target = np.zeros((120, 150), np.uint8)
    target[30:90, 40:110] = 2
    target[:5] = 255
    image = np.repeat((target == 2)[..., None] * np.uint8(255), 3, -1)
    augment = augmentation("strong", 96, 96)
    before = image.copy(), target.copy()
    sizes = set()
    for index in range(60):
        new_image, new_target = augment(image, target, (0, 0, index))
        assert set(np.unique(new_target)) <= {0, 2, 255}
        assert (new_image.shape, new_target.shape) == ((96, 96, 3), (96, 96))
        bright = (new_image.mean(-1) > (float(new_image.min()) + new_image.max()) / 2).astype(np.uint8)
        white = (new_target == 2).astype(np.uint8)
        if white.any():  # equal but for a pixel along the edges
            assert (bright <= cv2.dilate(white, np.ones((3, 3)))).all()
            assert (bright >= cv2.erode(white, np.ones((3, 3)), borderType=cv2.BORDER_CONSTANT, borderValue=0)).all()
        sizes.add(int(white.sum()))
    assert len(sizes) > 30  # the scale changes
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(target, before[1])


@pytest.mark.parametrize("name", ["none", "crop_flip", "strong"])
def test_augmentation_takes_cached_samples(name):
    data = Cached(Numbered([(96, 96)] * 4))
    untouched = Numbered([(96, 96)] * 4)
    shown = loader(data, augmentation(name, 32, 32))
    for epoch in range(5):
        list(shown.batches(epoch))
    for index in range(4):
        np.testing.assert_array_equal(data.read(index).image, untouched.read(index).image)


def test_pad_to():
    image, target = np.ones((2, 3, 3), np.uint8), np.ones((2, 3), np.uint8)
    new_image, new_target = pad_to(image, target, 3, 5)
    assert new_target.tolist() == [[1, 1, 1, 255, 255]] * 2 + [[255] * 5]
    assert (new_image.sum(), new_image.shape) == (18, (3, 5, 3))
    assert pad_to(image, target, 2, 3)[0] is image


def _pair(sample):
    return sample.image, sample.target


# ---- normalisation


@pytest.mark.parametrize("channels_last", [False, True])
def test_normalize(channels_last):
    mean, std = [0.485, 0.456, 0.406], [0.229, 1.0, 0.225]
    normalize = Normalize(mean, std, torch.device("cpu"), channels_last)
    images = torch.arange(256, dtype=torch.uint8).repeat(2 * 5 * 6).reshape(2, 32, 80, 3)[:, :, :16]
    before = images.clone()
    made = normalize(images)
    expected = (images.double() / 255 - torch.tensor(mean)) / torch.tensor(std)
    assert (made.dtype, made.shape) == (torch.float32, (2, 3, 32, 16))
    torch.testing.assert_close(made.double(), expected.permute(0, 3, 1, 2), rtol=0, atol=1e-6)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert made.is_contiguous(memory_format=layout)
    assert torch.equal(images, before)


@pytest.mark.parametrize(("mean", "std"), [
    ([0.5], [1.0, 1.0]), ([], []), ([0.5], [0.0]), ([0.5], [-1.0]), ([0.5], [float("nan")]), ([float("inf")], [1.0])])
def test_normalize_refuses_wrong_numbers(mean, std):
    with pytest.raises(ValueError, match="mean="):
        Normalize(mean, std, torch.device("cpu"), False)
