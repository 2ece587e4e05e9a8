"""The world of a scene: the camera that sees it, the light on it, and the ground plan of the street."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

NEAR = 1.2  # metres: nothing is drawn closer, so that no projection divides by nearly zero
FAR = 85.0  # metres: the last house


@dataclass(frozen=True)
class Camera:
    """A pinhole camera over a road that bends sideways by `curve` * z**2."""

    size: tuple[int, int]  # (height, width) of the canvas in pixels
    horizon: tuple[float, float]  # (column, row) of the vanishing point, relative to the canvas
    focal: tuple[float, float]  # (horizontal, vertical) focal length, relative to the canvas
    x: float  # sideways position
    height: float  # over the ground
    curve: float  # 1/metre

    @cached_property
    def scale(self) -> np.ndarray:
        """Return the pixels (2,) that a metre to the right and a metre up take at a distance of one metre."""
        rows, columns = self.size
        return np.array((self.focal[0] * columns, -self.focal[1] * rows))

    @cached_property
    def _constants(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return what `project` needs, (2,) each: the camera's place, the bend, and the vanishing point in pixels."""
        rows, columns = self.size
        return (np.array((self.x, self.height)), np.array((self.curve, 0.0)),
                np.array((self.horizon[0] * columns, self.horizon[1] * rows)))

    def project(self, points: np.ndarray) -> np.ndarray:
        """Project world points (..., 3) to canvas pixels (..., 2)."""
        (place, bend, vanishing_point), z = self._constants, np.maximum(points[..., 2:], NEAR)
        return ((points[..., :2] - place) / z + bend * z) * self.scale + vanishing_point

    def ground(self, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the ground behind each pixel of a raster: x (rows, columns) and z (rows, 1), infinite in the sky."""
        below = (np.arange(rows, dtype=np.float32)[:, None] + 0.5) / rows - self.horizon[1]
        z = np.where(below > 0, self.focal[1] * self.height / np.maximum(below, 1e-6), np.inf).astype(np.float32)
        across = (np.arange(columns, dtype=np.float32)[None] + 0.5) / columns - self.horizon[0]
        finite = np.minimum(z, 1e3)
        return across * finite / self.focal[0] + np.float32(self.x) - np.float32(self.curve) * finite * finite, z


def draw_camera(rng: np.random.Generator, half_road: float, size: tuple[int, int]) -> Camera:
    """Choose where the car is in its (left) lane, where it looks, and how the road bends."""
    focal = rng.uniform(0.75, 1.0)
    return Camera(size, (rng.uniform(0.3, 0.7), rng.uniform(0.36, 0.54)), (focal, 1.5 * focal),
                  half_road * rng.uniform(-0.6, -0.1), rng.uniform(1.25, 1.7), float(rng.normal(0, 6e-4)))


def draw_distance(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a distance such that the place in the image, not in the world, is about uniform."""
    return float(1 / rng.uniform(1 / high, 1 / low))


@dataclass(frozen=True)
class Light:
    """The weather of one scene."""

    sun: tuple[float, float, float]  # unit vector towards it
    ambient: np.ndarray  # colour (3,) of the light from the whole sky
    direct: np.ndarray  # colour (3,) of the light from the sun

    def shade(self, normal: tuple[float, float, float], lit: float = 1.0) -> np.ndarray:
        """Return the light (3,) on a surface with a normal of any length, `lit` of whose sunshine is not blocked."""
        (x, y, z), length = normal, math.hypot(*normal)
        facing = (x * self.sun[0] + y * self.sun[1] + z * self.sun[2]) / length
        return self.ambient * (0.85 + 0.15 * y / length) + self.direct * (max(0.0, facing) * lit)


def draw_light(rng: np.random.Generator) -> Light:
    """Choose sunshine, clouds or dusk."""
    azimuth, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(0.4, 1.1)
    sun = np.array((np.cos(azimuth) * np.cos(elevation), np.sin(elevation), np.sin(azimuth) * np.cos(elevation)))
    ambient, direct = ((0.45, 0.85), (0.85, 0.15), (0.42, 0.25))[rng.choice(3, p=(0.5, 0.3, 0.2))]
    warmth = rng.uniform(-0.05, 0.18) * np.array((1, 0.1, -1))
    return Light(tuple(sun.tolist()), ambient * rng.uniform(0.8, 1.1) * (1 - 0.4 * warmth), direct * (1 + warmth))


@dataclass(frozen=True)
class Street:
    """The ground plan of a scene, in metres."""

    half: float  # half the width of the road
    pavements: tuple[float, float]  # widths of the left and of the right one
    greens: tuple[bool, bool]  # whether there is grass beyond the left and beyond the right pavement
    crossing: tuple[float, float]  # (near, far) ends of a side street, beyond `FAR` where there is none
    dash: float  # half the width of the dashed middle line, 0 where there is none
    kerb_line: np.ndarray  # colour (3,) of the lines along the kerbs

    def is_free(self, z: float, margin: float = 0.0) -> bool:
        """Return whether a place along the road is outside the side street."""
        return not self.crossing[0] - margin < z < self.crossing[1] + margin


def draw_street(rng: np.random.Generator) -> Street:
    """Choose the ground plan."""
    start = rng.uniform(14, 45) if rng.random() < 0.5 else 2 * FAR
    left, right = rng.uniform(1.6, 4.2, 2)
    kerb = np.array(((0.75, 0.62, 0.18), (0.8, 0.8, 0.78), (0.3, 0.3, 0.3))[rng.integers(3)])
    green_left, green_right = rng.random(2) < 0.38
    return Street(rng.uniform(3.0, 5.2), (left, right), (bool(green_left), bool(green_right)),
                  (start, start + rng.uniform(6, 9)), (0.0, 0.07, 0.09)[rng.integers(3)], kerb)
