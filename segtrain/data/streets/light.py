"""The weather of a scene: where light comes from, and how much."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Light:
    """The weather of one scene.

    Attributes:
        sun: Unit vector towards the sun.
        ambient: Colour (3,) of the light from the whole sky.
        direct: Colour (3,) of the light from the sun.
    """

    sun: tuple[float, float, float]
    ambient: np.ndarray
    direct: np.ndarray

    def shade(self, normal: tuple[float, float, float], lit: float = 1.0) -> np.ndarray:
        """Gives the light (3,) on a surface with a normal of any length, `lit` of whose sunshine is not blocked."""
        (x, y, z), length = normal, math.hypot(*normal)
        facing = (x * self.sun[0] + y * self.sun[1] + z * self.sun[2]) / length
        return self.ambient * (0.85 + 0.15 * y / length) + self.direct * (max(0.0, facing) * lit)


def draw_light(rng: np.random.Generator) -> Light:
    """Chooses sunshine, clouds or dusk."""
    azimuth, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(0.4, 1.1)
    sun = np.array((np.cos(azimuth) * np.cos(elevation), np.sin(elevation), np.sin(azimuth) * np.cos(elevation)))
    ambient, direct = ((0.45, 0.85), (0.85, 0.15), (0.42, 0.25))[rng.choice(3, p=(0.5, 0.3, 0.2))]
    warmth = rng.uniform(-0.05, 0.18) * np.array((1, 0.1, -1))
    return Light(tuple(sun.tolist()), ambient * rng.uniform(0.8, 1.1) * (1 - 0.4 * warmth), direct * (1 + warmth))
