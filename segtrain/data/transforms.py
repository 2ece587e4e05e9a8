"""From uint8 images to network input: augmentation on the CPU, normalisation on the device."""

import copy
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import albumentations as A
import numpy as np
import torch
from torch import Tensor

from segtrain.data.checks import READ, START, check
from segtrain.errors import UserError, list_first
from segtrain.labels import IGNORE_INDEX

PROBE_LABELS = (100, 200)  # neither is one that a transform would fill with, and interpolation between them shows


class Augmentation:
    """Apply albumentations transforms, by their names in the config, with randomness from the sample's own key."""

    def __init__(self, transforms: Mapping[str, A.BasicTransform]) -> None:
        self._transforms = transforms
        self._compose = A.Compose(list(transforms.values())) if transforms else None

    @check(READ, "transforms that fail on the size of an image")
    def __call__(self, image: np.ndarray, target: np.ndarray, key: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Transform an image, uint8 (H, W, C), and its target, uint8 (H, W), alike; both get the same new size.

        The key has non-negative numbers, e.g. (seed, epoch, index): equal keys give equal results, in any process.
        """
        if self._compose is None:
            return image, target
        # Left to itself, Compose repeats one random stream in every worker and epoch. Its set_random_seed would give
        # each transform the same stream: whether an image is flipped would then depend on where it was cropped.
        seed = np.random.SeedSequence(list(key))
        self._compose.set_random_state(np.random.default_rng(seed), random.Random(seed.generate_state(1)[0].item()))
        try:
            result = self._compose(image=image, mask=target)
        except MemoryError:
            raise
        except Exception as error:  # albumentations passes on what OpenCV says about sizes
            height, width = target.shape
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"augmentation fails on an image of {width}x{height} ({reason}): correct its values, such "
                            "as augmentation.crop.pad_if_needed=true for small images.") from error
        return result["image"], result["mask"]


    @check(START,
           "each augmentation transform on a made-up sample: type, sizes, and that no label appears that was not "
           "there")
    def check(self, size: tuple[int, int]) -> None:
        """Apply every transform to a made-up sample, and check that it returns what the training loop expects.

        Args:
            size: (height, width) of the sample.

        Raises:
            UserError: If a transform returns another type than uint8 arrays, another size for the target than for the
                image, or labels that the target did not have; it names the transform.
        """
        rng = np.random.default_rng(0)
        target = rng.choice(np.array(PROBE_LABELS, np.uint8), size=(size[0] // 8 + 1, size[1] // 8 + 1))
        target = target.repeat(8, 0).repeat(8, 1)[:size[0], :size[1]]
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        for seed in range(3):
            sample = image, target
            for name, transform in self._transforms.items():
                certain = copy.deepcopy(transform)
                certain.p = 1
                sample = Augmentation({name: certain})(*sample, (seed,))
                fault = _fault(*sample)
                if fault is not None:
                    raise UserError(f"augmentation.{name} ({type(transform).__name__}) {fault}")


def _fault(image: Any, target: Any) -> str | None:
    """Return what is wrong with a transformed probe, and what to do about it."""
    for array, what in ((image, "image"), (target, "target")):
        if not isinstance(array, np.ndarray):
            return f"returns the {what} as a {type(array).__name__}: remove it, segtrain makes tensors itself."
        if array.dtype != np.uint8:
            return (f"returns the {what} as {array.dtype}, but it must stay uint8: remove it, segtrain normalizes by "
                    "dataset.mean and dataset.std itself.")
    if image.ndim != 3 or image.shape[2] != 3 or image.shape[:2] != target.shape:
        return (f"returns an image of shape {image.shape} and a target of {target.shape}: use one that keeps three "
                "channels and changes both alike.")
    strange = sorted({*np.unique(target).tolist()} - {*PROBE_LABELS, IGNORE_INDEX})
    if strange:
        return (f"puts labels into the target that it did not have, {list_first([str(value) for value in strange])}: "
                "pixels that it uncovers must become void (255) and others keep their label; use a transform with "
                "fill_mask and nearest mask interpolation.")
    return None


def pad_to(image: np.ndarray, target: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Pad an image (H, W, C) with zeros and its target (H, W) with void, at the right and bottom, to a larger size."""
    bottom, right = height - target.shape[0], width - target.shape[1]
    if bottom == right == 0:
        return image, target
    return (np.pad(image, ((0, bottom), (0, right), (0, 0))),
            np.pad(target, ((0, bottom), (0, right)), constant_values=IGNORE_INDEX))


class Normalize:
    """Turn uint8 images into network input on the device: (x / 255 - mean) / std.

    Args:
        mean: One number a channel, of x / 255.
        std: One number a channel, above 0.
        device: Where the images will be.
        channels_last: Keep the memory layout of images; faster for convolutions.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device, channels_last: bool) -> None:
        if len(mean) != len(std) or not len(mean):
            raise ValueError(f"mean={list(mean)} and std={list(std)} must have one number for each channel")
        if not all(math.isfinite(value) for value in (*mean, *std)) or any(value <= 0 for value in std):
            raise ValueError(f"mean={list(mean)} and std={list(std)} must be finite, and every std above 0")
        scale = 1 / (255 * torch.tensor(std, dtype=torch.float64))
        shift = -torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)
        self._scale = scale.float().view(1, -1, 1, 1).to(device)
        self._shift = shift.float().view(1, -1, 1, 1).to(device)
        self._channels_last = channels_last

    def __call__(self, images: Tensor) -> Tensor:
        """Normalise a batch, uint8 (N, H, W, C), to float32 (N, C, H, W), channels_last in memory if asked for."""
        layout = torch.channels_last if self._channels_last else torch.contiguous_format
        inputs = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=layout)
        return inputs.mul_(self._scale).add_(self._shift)
