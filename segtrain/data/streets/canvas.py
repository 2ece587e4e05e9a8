"""The canvas of a scene, whose pixels know which object they belong to, and the colours to paint with."""

from dataclasses import dataclass, field

import cv2
import numpy as np

from segtrain.data.camvid import CAMVID
from segtrain.data.streets.world import Camera, Light
from segtrain.labels import IGNORE_INDEX

TRAIN_IDS = {label.name: label.train_id for label in CAMVID} | {"Void": IGNORE_INDEX}


@dataclass
class Canvas:
    """An image in the making."""

    camera: Camera
    light: Light
    noise: np.ndarray  # float32 (N, N) fractal noise for textures
    shadow: np.ndarray  # float32, of the finished image's size: how much of the sun is blocked on the ground
    # float32 (H, W, 4): red, green, blue and the number of the object in the tables below; the backdrop provides them
    pixels: np.ndarray = field(init=False)
    classes: list[int] = field(default_factory=list)  # the train id of each object
    depths: list[float] = field(default_factory=list)  # in metres; NaN: the ground's
    grains: list[float] = field(default_factory=list)  # the strength of the surface texture

    def begin(self, name: str, depth: float = np.nan, grain: float = 0.04) -> int:
        """Start a new object: what is painted from now on belongs to it. Return its number."""
        self.classes.append(TRAIN_IDS[name])
        self.depths.append(depth)
        self.grains.append(grain)
        return len(self.classes) - 1

    def fill(self, polygons: np.ndarray, color: np.ndarray) -> None:
        """Fill one convex polygon (N, 2) or several (P, N, 2), in pixels."""
        value = (*color.tolist(), len(self.classes) - 1)
        points = to_fixed_point(polygons)
        for polygon in points if points.ndim == 3 else (points,):
            cv2.fillConvexPoly(self.pixels, polygon, value, shift=4)

    def texture(self, quad: np.ndarray, tile: np.ndarray, threshold: float = 0.5) -> None:
        """Stretch a tile over a quadrilateral.

        Args:
            quad: (4, 2) pixels where the tile's bottom left, bottom right, top right and top left corners land.
            tile: float32 (4, h, w): colour multiplied by opacity, and opacity.
            threshold: The opacity from which a pixel is labelled; lower lets the background shine through a label.
        """
        height, width = self.pixels.shape[:2]
        columns, rows = quad.T.tolist()
        left, right = max(int(min(columns)), 0), min(int(max(columns)) + 1, width)
        top, bottom = max(int(min(rows)), 0), min(int(max(rows)) + 1, height)
        if right <= left or bottom <= top:
            return
        h, w = tile.shape[1:]
        corners = np.array(((0, h), (w, h), (w, 0), (0, 0)), np.float32) - 0.5
        matrix = cv2.getPerspectiveTransform(corners, (quad - (left + 0.5, top + 0.5)).astype(np.float32))
        warped = cv2.warpPerspective(cv2.merge([*tile]), matrix, (right - left, bottom - top))
        region, opacity = self.pixels[top:bottom, left:right], cv2.extractChannel(warped, 3)
        number = np.where(opacity > threshold, np.float32(len(self.classes) - 1), region[..., 3])
        region *= cv2.merge([1 - opacity] * 4)
        region += warped
        region[..., 3] = number

    def patch(self, rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
        """Cut a random piece (rows, columns) out of the noise; neither may exceed half of the noise's side."""
        half = len(self.noise) // 2
        top, left = rng.integers(half), rng.integers(half)
        return self.noise[top : top + rows, left : left + columns]

    def sunshine(self, pixel: np.ndarray) -> float:
        """Return the share of the sunshine that reaches the ground at a pixel (column, row)."""
        (column, row), (height, width) = pixel.tolist(), self.shadow.shape
        row, column = row * height / self.camera.size[0], column * width / self.camera.size[1]
        return 1.0 - float(self.shadow[int(min(max(row, 0), height - 1)), int(min(max(column, 0), width - 1))])


def to_fixed_point(points: np.ndarray) -> np.ndarray:
    """Convert pixels to the fixed-point integers, with 4 fractional bits, that OpenCV draws with."""
    return np.rint(points * 16).astype(np.int32)


def draw_noise(rng: np.random.Generator, size: int, persistence: float) -> np.ndarray:
    """Draw noise of several scales, zero mean, unit deviation: float32 (size, size), a power of two of at least 8.

    `persistence` is the amplitude of each octave relative to the next coarser one: small is soft, 1 is rough.
    """
    total, amplitude, cells = np.zeros((size, size), np.float32), 1.0, 4
    while cells <= size:
        grid = rng.random((cells, cells), dtype=np.float32)
        total += amplitude * cv2.resize(grid, (size, size), interpolation=cv2.INTER_LINEAR)
        cells, amplitude = cells * 2, amplitude * persistence
    return (total - total.mean()) / total.std()


STONE = ((0.62, 0.58, 0.52), (0.45, 0.44, 0.43), (0.72, 0.70, 0.66), (0.55, 0.33, 0.26), (0.66, 0.55, 0.40))
PAINT = ((0.85, 0.85, 0.86), (0.09, 0.09, 0.10), (0.48, 0.49, 0.51), (0.55, 0.08, 0.08), (0.10, 0.20, 0.42))
CLOTH = STONE + PAINT + ((0.20, 0.30, 0.18), (0.80, 0.72, 0.20), (0.16, 0.16, 0.24), (0.42, 0.28, 0.40))
LEAVES = ((0.20, 0.30, 0.12), (0.30, 0.34, 0.16), (0.38, 0.30, 0.15), (0.15, 0.22, 0.14))
METAL = ((0.25, 0.26, 0.27), (0.50, 0.51, 0.50), (0.12, 0.17, 0.14), (0.36, 0.33, 0.28))
SIGNS = ((0.75, 0.10, 0.12), (0.10, 0.25, 0.62), (0.88, 0.88, 0.86), (0.85, 0.68, 0.10), (0.10, 0.38, 0.22))
GLASS = np.array((0.10, 0.12, 0.15))
SKIN = np.array((0.75, 0.55, 0.44))


def pick(rng: np.random.Generator, palette: tuple[tuple[float, float, float], ...]) -> np.ndarray:
    """Draw a colour near one of a palette: float (3,)."""
    choice, brightness, *tint = rng.random(5).tolist()
    base, factor = palette[int(choice * len(palette))], 0.75 + 0.45 * brightness
    return np.array([channel * factor + 0.07 * (t - 0.5) for channel, t in zip(base, tint, strict=True)])


def tint(color: np.ndarray, tone: np.ndarray) -> np.ndarray:
    """Multiply a colour (C,) by a map of brightness (H, W): float32 (C, H, W)."""
    return to_planes(color) * tone.astype(np.float32, copy=False)


def to_planes(color: np.ndarray) -> np.ndarray:
    """Shape a colour (C,) so that it meets the planes of an image: float32 (C, 1, 1)."""
    return color.astype(np.float32)[:, None, None]
