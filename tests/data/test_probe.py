"""A dataset class of the user is looked at before anything relies on it; the message names what is wrong."""

import numpy as np
import pytest
from helpers import refused
from made_files import LABELS, Memory, make_image, make_mask

from segtrain.data.base import Sample
from segtrain.data.probe import check_dataset
from segtrain.data.streets.dataset import Streets
from segtrain.labels import Label

IMAGE, TARGET = make_image(), make_mask(value=2)


def faulty(sample=None, at=0, **attributes):
    samples = [Sample(IMAGE, TARGET)] * 5
    samples[at] = samples[at] if sample is None else sample
    data = Memory(samples)
    for name, value in attributes.items():
        setattr(data, name, value)
    return data


@pytest.mark.parametrize(("data", "parts"), [
    (faulty((IMAGE, TARGET)), ["read(0), the sample sample0", "a tuple", "Sample(image, target)"]),
    (faulty(Sample(IMAGE / np.float32(255), TARGET)), ["image of type float32", "uint8, 0..255 in RGB"]),
    (faulty(Sample(IMAGE, TARGET.astype(np.int64)), 2), ["read(2)", "target of type int64", "train ids"]),
    (faulty(Sample(IMAGE.transpose(2, 0, 1), TARGET)), ["(3, 32, 40)", "put the channels last"]),
    (faulty(Sample(IMAGE[..., 0], TARGET)), ["(32, 40)", "(height, width, 3)"]),
    (faulty(Sample(IMAGE, TARGET[:20])), ["(20, 40)", "at the image's size"]),
    (faulty(Sample(IMAGE, TARGET[..., None])), ["(32, 40, 1)", "one class number a pixel"]),
    (faulty(Sample(IMAGE[..., ::-1], TARGET), 4), ["read(4)", "a view as its image", "numpy.ascontiguousarray"]),
    (faulty(Sample(IMAGE, TARGET + 5), 4), ["values 7", "3 classes", "255, which is void"]),
    (faulty(Sample(IMAGE, TARGET, TARGET)), ["instances", "int32"]),
    (faulty(Sample(IMAGE.tolist(), TARGET)), ["a list as its image", "NumPy array"]),
    (faulty(names=[]), ["names must be a list of texts"]),
    (faulty(names=["a", "b", "a"]), ["a more than once"]),
    (faulty(labels=["road", "car", "sky"]), ["labels must be a tuple of segtrain.labels.Label"]),
    (faulty(labels=LABELS[1:]), ["[1, 2]", "number them 0, 1, 2"]),
    (faulty(labels=(LABELS[0], Label("a", 1, 1, (0, 0, 0)))), ["two labels have one name"]),
])
def test_faults_are_named_with_their_remedy(data, parts):
    with refused("dataset._target_=mine.Data", *parts):
        check_dataset(data, "mine.Data")


def test_only_sound_classes_pass(monkeypatch):
    check_dataset(faulty(Sample(IMAGE, make_mask(value=255), make_mask().astype(np.int32))), "mine.Data")
    dark = Memory([Sample((IMAGE > 128).astype(np.uint8), TARGET)] * 2)
    with refused("0 and 1 only", "return 0..255"):
        check_dataset(dark, "mine.Data")
    moving = faulty()
    monkeypatch.setattr(moving, "read", lambda index, rng=np.random.default_rng(0): Sample(  # noqa: B008
        rng.integers(0, 256, IMAGE.shape, dtype=np.uint8), TARGET))
    with refused("read(0) returns another sample", "augmentation"):
        check_dataset(moving, "mine.Data")
    own = Streets("train", 32, 48, 1, 1)
    monkeypatch.setattr(own, "read", None)
    check_dataset(own, "segtrain's own classes are not looked at")
