"""Transforms of a user are checked before the first step: what they return, and which labels they put into targets."""

import albumentations as A
import numpy as np
import pytest
from albumentations.pytorch import ToTensorV2
from helpers import composed, refused

from segtrain.config import build
from segtrain.data.transforms import Augmentation

pytestmark = pytest.mark.usefixtures("hydra")


@pytest.mark.parametrize("transform", [
    A.HorizontalFlip(p=0.1), A.RandomRotate90(), A.RandomScale((-0.5, 1)), A.ColorJitter(), A.PixelDropout(),
    A.RandomCrop(80, 200, pad_if_needed=True, fill_mask=255), A.Rotate(fill_mask=255), A.Affine(border_mode=2),
    A.CoarseDropout(), A.CoarseDropout(fill_mask=255), A.Resize(64, 48)])
def test_what_keeps_labels_is_accepted(transform):
    Augmentation({"one": transform}).check(np.zeros((100, 130, 3), np.uint8))


@pytest.mark.parametrize(("transform", "said"), [
    (A.Normalize(p=0.2), "returns the image as float32, but it must stay uint8"),
    (A.ToFloat(max_value=255), "segtrain normalizes by dataset.mean and dataset.std itself"),
    (ToTensorV2(), "returns the image as a Tensor: remove it"),
    (A.Rotate(p=0.1), "labels into the target that it did not have, 0: "),
    (A.CoarseDropout(fill_mask=3), "that it did not have, 3: "),
    (A.RandomScale((0.3, 0.5), mask_interpolation=1), "nearest mask interpolation")])
def test_what_changes_labels_or_types_is_refused_by_name(transform, said):
    with refused(f"augmentation.two ({type(transform).__name__})", said):
        Augmentation({"one": A.HorizontalFlip(), "two": transform}).check(np.zeros((100, 130, 3), np.uint8))


def test_pixels_that_a_transform_uncovers_become_void_and_the_config_says_so():
    turn = "+augmentation.turn._target_=albumentations.Rotate"
    drop = "+augmentation.drop._target_=albumentations.Erasing"
    own = "+augmentation.own={_target_: albumentations.Rotate, fill_mask: 3}"
    cfg = composed("augmentation=none", turn, drop, own)
    settled = build.settle(cfg, build.device(cfg), num_classes=11, cached_in_memory=True).augmentation
    assert settled["turn"] == {"_target_": "albumentations.Rotate", "fill_mask": 255}
    assert settled["own"]["fill_mask"] == 3
    assert "fill_mask" not in settled["drop"], "by default it leaves targets alone"


@pytest.mark.parametrize(("channels", "dtype"), [(1, np.uint8), (5, np.uint8), (2, np.float32), (16, np.float32)])
def test_other_channels_and_types_keep_what_they_are(channels, dtype):
    like = np.zeros((60, 70, channels), dtype)
    transforms = {name: build.augmentation(composed("augmentation=strong", "dataset.crop=[64,64]"))._transforms[name]
                  for name in ("scale", "crop", "flip", "blur")}
    Augmentation(transforms).check(like)
    image = np.full(like.shape, 51, dtype)
    found, _ = Augmentation({"flip": A.HorizontalFlip(p=1), "light": A.RandomBrightnessContrast(
        brightness_limit=(0.1, 0.1), contrast_limit=(0, 0), p=1)})(image, np.zeros((60, 70), np.uint8), (0,))
    assert found.dtype == dtype
    np.testing.assert_allclose(found, 51 + 25.5, atol=1)
    if channels > 3:
        with refused("augmentation.light (ColorJitter)", f"{channels} channels", "~augmentation.light"):
            build.augmentation(composed("augmentation=strong")).check(like)
