"""One object of a scene, before it is painted."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from segtrain.data.streets.canvas import Canvas


@dataclass(frozen=True)
class Thing:
    """One object of a scene.

    Attributes:
        paint: Draws it on a canvas.
        x, z: Its middle on the ground.
        size: (width, height, length) along x, y and z.
        yaw: Turn around the vertical in radians; 0 looks away from the camera.
        style: Which variant of it `paint` draws.
        bias: Metres by which it is painted as if it stood farther away than its middle.
    """

    paint: Callable[[Canvas, "Thing", np.random.Generator], None]
    x: float
    z: float
    size: tuple[float, float, float]
    yaw: float = 0.0
    style: str = ""
    bias: float = 0.0

    @property
    def foot(self) -> np.ndarray:
        """Gives its place (3,) in the world."""
        return np.array((self.x, 0.0, self.z))

    def to_world(self, local: np.ndarray) -> np.ndarray:
        """Turns and moves points (..., 3) from its own axes into the world."""
        cosine, sine = np.cos(self.yaw), np.sin(self.yaw)
        turn = np.array(((cosine, 0.0, -sine), (0.0, 1.0, 0.0), (sine, 0.0, cosine)))
        return local @ turn + self.foot
