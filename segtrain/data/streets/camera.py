"""The camera: from the world to pixels, and back to the ground."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

NEAR = 1.2  # metres: nothing is drawn closer, so that no projection divides by nearly zero


@dataclass(frozen=True)
class Camera:
    """A pinhole camera over a road that bends sideways by `curve` * z**2.

    Attributes:
        size: (height, width) of the canvas in pixels.
        horizon: (column, row) of the vanishing point, relative to the canvas.
        focal: (horizontal, vertical) focal length, relative to the canvas.
        x: Sideways position.
        height: Height over the ground.
        curve: Bend of the road, 1/metre.
    """

    size: tuple[int, int]
    horizon: tuple[float, float]
    focal: tuple[float, float]
    x: float
    height: float
    curve: float

    @cached_property
    def scale(self) -> np.ndarray:
        """Gives the pixels (2,) that a metre to the right and a metre up take at a distance of one metre."""
        rows, columns = self.size
        return np.array((self.focal[0] * columns, -self.focal[1] * rows))

    @cached_property
    def _constants(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Gives what `project` needs, (2,) each: the camera's place, the bend, and the vanishing point in pixels."""
        rows, columns = self.size
        return (np.array((self.x, self.height)), np.array((self.curve, 0.0)),
                np.array((self.horizon[0] * columns, self.horizon[1] * rows)))

    def project(self, points: np.ndarray) -> np.ndarray:
        """Projects world points (..., 3) to canvas pixels (..., 2)."""
        (place, bend, vanishing_point), z = self._constants, np.maximum(points[..., 2:], NEAR)
        return ((points[..., :2] - place) / z + bend * z) * self.scale + vanishing_point

    def ground(self, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
        """Finds the ground behind each pixel of a raster: x (rows, columns) and z (rows, 1), infinite in the sky."""
        below = (np.arange(rows, dtype=np.float32)[:, None] + 0.5) / rows - self.horizon[1]
        z = np.where(below > 0, self.focal[1] * self.height / np.maximum(below, 1e-6), np.inf).astype(np.float32)
        across = (np.arange(columns, dtype=np.float32)[None] + 0.5) / columns - self.horizon[0]
        finite = np.minimum(z, 1e3)
        return across * finite / self.focal[0] + np.float32(self.x) - np.float32(self.curve) * finite * finite, z


def draw_camera(rng: np.random.Generator, half_road: float, size: tuple[int, int]) -> Camera:
    """Chooses where the car is in its (left) lane, where it looks, and how the road bends."""
    focal = rng.uniform(0.75, 1.0)
    return Camera(size, (rng.uniform(0.3, 0.7), rng.uniform(0.36, 0.54)), (focal, 1.5 * focal),
                  half_road * rng.uniform(-0.6, -0.1), rng.uniform(1.25, 1.7), float(rng.normal(0, 6e-4)))


def draw_distance(rng: np.random.Generator, low: float, high: float) -> float:
    """Draws a distance such that the place in the picture, not in the world, is about uniform."""
    return float(1 / rng.uniform(1 / high, 1 / low))
