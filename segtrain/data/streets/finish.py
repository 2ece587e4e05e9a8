"""The finished picture: what a cheap camera makes of the canvas, and the labels."""

import cv2
import numpy as np

from segtrain.data.camvid import CAMVID
from segtrain.data.streets.camera import draw_distance
from segtrain.data.streets.canvas import Canvas
from segtrain.data.streets.colors import planar
from segtrain.labels import IGNORE_INDEX

SUPERSAMPLE = 2  # the canvas has so many times the rows and columns of the finished picture
MIN_INSTANCE_PIXELS = 4
HAS_INSTANCES = np.isin(np.arange(256), [label.train_id for label in CAMVID if label.has_instances])  # by train id


def finish(canvas: Canvas, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shrinks the canvas to the final size, adds the air and the camera's flaws, and looks up the labels."""
    height, width = canvas.shadow.shape
    offset = SUPERSAMPLE // 2
    numbers = canvas.pixels[offset::SUPERSAMPLE, offset::SUPERSAMPLE, 3].astype(np.int32)
    small = cv2.resize(canvas.pixels, (width, height), interpolation=cv2.INTER_AREA)
    image: np.ndarray = np.ascontiguousarray(small.transpose(2, 0, 1)[:3])

    texture = cv2.resize(canvas.patch(rng, 96, 128), (width, height), interpolation=cv2.INTER_LINEAR)
    image *= 1 + np.array(canvas.grains, np.float32).take(numbers) * texture
    depth = np.array(canvas.depths, np.float32).take(numbers)
    depth = np.where(np.isnan(depth), np.minimum(canvas.camera.ground(height, width)[1], 300), depth)
    haze = 1 - np.exp(-depth / np.float32(draw_distance(rng, 60, 900)))
    air = planar(canvas.light.ambient + 0.35 * canvas.light.direct) * np.float32(0.9)
    image += haze * (air - image)

    target = np.array(canvas.classes, np.uint8).take(numbers)
    border = np.zeros((height, width), bool)
    border[:, 1:] |= target[:, 1:] != target[:, :-1]
    border[1:] |= target[1:] != target[:-1]
    target[border & (texture > rng.uniform(0.6, 1.2))] = IGNORE_INDEX
    return _expose(image, rng), target, _number_instances(target, numbers)


def _expose(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turns light into what a cheap camera records: float32 (3, H, W) to uint8 (H, W, 3)."""
    balance = 1 + rng.normal(0, 0.03, 3)
    image = np.clip(image * planar(balance * rng.uniform(0.8, 1.3)), 0, 1) ** np.float32(rng.uniform(0.7, 1.1))
    contrast, blur, noise = rng.uniform(0.75, 1.15), rng.uniform(0, 0.7), rng.uniform(0.005, 0.035)
    image = cv2.merge([*((image - 0.45) * contrast + 0.45)])
    if blur > 0.25:
        image = cv2.GaussianBlur(image, (3, 3), blur)
    image += np.float32(noise) * rng.standard_normal(image.shape, dtype=np.float32)
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _number_instances(target: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Numbers the visible objects 1, 2, ...; those too small to be told become void in `target`, in place.

    Args:
        target: uint8 (H, W) train ids.
        numbers: int32 (H, W) numbers of the painted objects.

    Returns:
        int32 (H, W), 0 where there is no such object.
    """
    counted = np.where(HAS_INSTANCES[target], numbers, 0)  # 0 is the sky's number
    kept = np.bincount(counted.ravel()) >= MIN_INSTANCE_PIXELS
    kept[0] = False
    instances = np.where(kept, np.cumsum(kept), 0).astype(np.int32)[counted]
    target[(counted > 0) & (instances == 0)] = IGNORE_INDEX
    return instances
