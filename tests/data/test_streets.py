"""The embedded street scenes: the same arguments give the same scene, and its three images agree."""

import numpy as np
import pytest

from segtrain.data.camvid import CAMVID
from segtrain.data.streets import draw_scene
from segtrain.labels import IGNORE_INDEX

SIZES = [(128, 192), (97, 131), (64, 32), (32, 32)]
VAL = [draw_scene(0, "val", index) for index in range(32)]


@pytest.mark.parametrize("size", SIZES)
def test_same_arguments_give_the_same_scene(size):
    for first, second in zip(draw_scene(3, "train", 5, *size), draw_scene(3, "train", 5, *size), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("other", [(1, "val", 0), (0, "train", 0), (0, "val", 1)], ids=["seed", "split", "index"])
def test_each_argument_changes_the_scene(other):
    image, target, _ = draw_scene(*other)
    assert (image != VAL[0][0]).any(-1).mean() > 0.5
    assert (target != VAL[0][1]).mean() > 0.1


def test_numpys_global_state_is_neither_read_nor_changed():
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    image = draw_scene(0, "val", 0)[0]
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    np.testing.assert_array_equal(image, VAL[0][0])


@pytest.mark.parametrize("size", SIZES)
def test_shapes_types_and_values(size):
    for index in range(4):
        image, target, instances = draw_scene(0, "val", index, *size)
        assert (image.shape, target.shape, instances.shape) == ((*size, 3), size, size)
        assert (image.dtype, target.dtype, instances.dtype) == (np.uint8, np.uint8, np.int32)
        assert set(np.unique(target)) <= {*range(len(CAMVID)), IGNORE_INDEX}
        assert image.std() > 10


@pytest.mark.parametrize("scenes", [VAL, [draw_scene(7, "val", i, 97, 131) for i in range(8)]], ids=["default", "odd"])
def test_instances_fit_the_target(scenes):
    counted = [label.train_id for label in CAMVID if label.has_instances]
    for _, target, instances in scenes:
        np.testing.assert_array_equal(instances > 0, np.isin(target, counted))
        sizes = np.bincount(instances.ravel())[1:]
        assert (sizes >= 4).all()  # also says that the numbers are contiguous
        for number in range(1, len(sizes) + 1):
            assert len(np.unique(target[instances == number])) == 1


def test_a_scene_is_the_same_at_twice_the_size():
    for index in range(4):
        large = draw_scene(0, "val", index, 256, 384)[1][::2, ::2]
        small = VAL[index][1]
        known = (large != IGNORE_INDEX) & (small != IGNORE_INDEX)
        assert (large == small)[known].mean() > 0.9


def test_classes_are_all_there_and_as_imbalanced_as_in_a_real_street():
    targets = np.stack([target for _, target, _ in VAL])
    share = np.array([(targets == label.train_id).mean() for label in CAMVID])
    by_name = dict(zip([label.name for label in CAMVID], share, strict=True))
    assert (share > 0.002).all()
    assert min(by_name[name] for name in ("Sky", "Building", "Road")) > 0.1
    assert max(by_name[name] for name in ("Pole", "SignSymbol", "Fence", "Pedestrian", "Bicyclist")) < 0.04
    assert 0.02 < (targets == IGNORE_INDEX).mean() < 0.06


def test_the_mean_color_of_a_region_does_not_give_its_class():
    """Buildings, roads, pavements and cars overlap in brightness over the scenes."""
    ids = {label.name: label.train_id for label in CAMVID}
    brightness = {name: np.concatenate([image[target == ids[name]].mean(-1) for image, target, _ in VAL])
                  for name in ("Building", "Road", "Pavement", "Car")}
    lows = [np.percentile(values, 15) for values in brightness.values()]
    highs = [np.percentile(values, 85) for values in brightness.values()]
    assert max(lows) < min(highs)
