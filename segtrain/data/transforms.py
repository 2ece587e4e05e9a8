"""From images to network input: augmentation on the CPU, normalisation on the device."""

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
from segtrain.data.crops import WANTED
from segtrain.data.mixes import Mix
from segtrain.errors import UserError, list_first
from segtrain.labels import IGNORE_INDEX

PROBE_LABELS = (100, 200)  # neither is one that a transform would fill with, and interpolation between them shows


class Augmentation:
    """Apply albumentations transforms, by their names in the config, with randomness from the sample's own key."""

    def __init__(self, transforms: Mapping[str, A.BasicTransform], mixes: Mapping[str, Mix] | None = None) -> None:
        self._transforms, self.mixes = transforms, dict(mixes or {})
        self._compose = (A.Compose(list(transforms.values()), additional_targets={WANTED: "mask"}) if transforms
                         else None)

    def __call__(self, image: np.ndarray, target: np.ndarray, key: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Transform an image, (H, W, C), and its target, uint8 (H, W), alike; both get the same new size.

        The image is uint8 or float32 in 0..255; the transforms get the latter in 0..1, as they are made for.

        The key has non-negative numbers, e.g. (seed, epoch, index): equal keys give equal results, in any process.
        The mixes, which need other images too, are left to the loader.
        """
        return self.transform(image, target, key)[:2]

    @check(READ, "transforms that fail on the size of an image")
    def transform(self, image: np.ndarray, target: np.ndarray, key: Sequence[int],
                  wanted: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Do so, and transform a map of wanted pixels, uint8 (H, W), of which a crop should contain one that is 1."""
        if self._compose is None:
            return image, target, wanted
        given = {} if wanted is None else {WANTED: wanted}
        # Left to itself, Compose repeats one random stream in every worker and epoch. Its set_random_seed would give
        # each transform the same stream: whether an image is flipped would then depend on where it was cropped.
        seed = np.random.SeedSequence(list(key))
        self._compose.set_random_state(np.random.default_rng(seed), random.Random(seed.generate_state(1)[0].item()))
        is_float = image.dtype != np.uint8
        try:
            result = self._compose(image=image / np.float32(255) if is_float else image, mask=target, **given)
        except MemoryError:
            raise
        except Exception as error:  # albumentations passes on what OpenCV says about sizes
            height, width = target.shape
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"augmentation fails on an image of {width}x{height} ({reason}): correct its values, such "
                            "as augmentation.crop.pad_if_needed=true for small images.") from error
        image = result["image"]
        image = image * np.float32(255) if is_float and image.dtype == np.float32 else image
        return image, result["mask"], result.get(WANTED)

    @check(START,
           "each augmentation transform on a made-up sample: type, sizes, and that no label appears that was not "
           "there")
    def check(self, like: np.ndarray) -> None:
        """Apply every transform to a made-up sample, and check that it returns what the training loop expects.

        Args:
            like: An image, (H, W, C), whose shape and type the sample has.

        Raises:
            UserError: If a transform fails on so many channels, returns another type than it was given, another size
                for the target than for the image, or labels that the target did not have; it names the transform.
        """
        rng, (height, width, num_channels) = np.random.default_rng(0), like.shape
        target = rng.choice(np.array(PROBE_LABELS, np.uint8), size=(height // 8 + 1, width // 8 + 1))
        target = target.repeat(8, 0).repeat(8, 1)[:height, :width]
        image = rng.integers(0, 256, like.shape, dtype=np.uint8).astype(like.dtype)
        for seed in range(3):
            sample = image, target
            for name, transform in self._transforms.items():
                certain = copy.deepcopy(transform)
                certain.p = 1
                what = f"augmentation.{name} ({type(transform).__name__})"
                try:
                    sample = Augmentation({name: certain})(*sample, (seed,))
                except UserError as error:
                    if num_channels == 3 and like.dtype == np.uint8:
                        raise
                    raise UserError(f"{what} does not take images of {num_channels} channels and type {like.dtype}: "
                                    f"leave it out, ~augmentation.{name}. {error}") from error
                fault = _fault(*sample, like)
                if fault is not None:
                    raise UserError(f"{what} {fault}")


def _fault(image: Any, target: Any, like: np.ndarray) -> str | None:
    """Return what is wrong with a transformed probe, made from an image like that, and what to do about it."""
    for array, what, dtype in ((image, "image", like.dtype), (target, "target", np.dtype(np.uint8))):
        if not isinstance(array, np.ndarray):
            return f"returns the {what} as a {type(array).__name__}: remove it, segtrain makes tensors itself."
        if array.dtype != dtype:
            return (f"returns the {what} as {array.dtype}, but it must stay {dtype}: remove it, segtrain normalizes by "
                    "dataset.mean and dataset.std itself.")
    num_channels = like.shape[2]
    if image.ndim != 3 or image.shape[2] != num_channels or image.shape[:2] != target.shape:
        return (f"returns an image of shape {image.shape} and a target of {target.shape}: use one that keeps "
                f"{num_channels} channels and changes both alike.")
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
    """Turn images, uint8 or float32 in 0..255, into network input on the device: (x / 255 - mean) / std.

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
        """Normalise a batch, (N, H, W, C), to float32 (N, C, H, W), channels_last in memory if asked for."""
        layout = torch.channels_last if self._channels_last else torch.contiguous_format
        inputs = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=layout, copy=True)
        return inputs.mul_(self._scale).add_(self._shift)
