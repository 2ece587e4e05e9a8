"""What objects are made of: upright panels, solid blocks, and flat figures."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from segtrain.data.streets.canvas import Canvas


@dataclass(frozen=True)
class Thing:
    """One object of a scene."""

    paint: Callable[[Canvas, "Thing", np.random.Generator], None]
    x: float  # its middle on the ground
    z: float
    size: tuple[float, float, float]  # (width, height, length) along x, y and z
    yaw: float = 0.0  # turn around the vertical in radians; 0 looks away from the camera
    style: str = ""  # which variant of it `paint` draws
    bias: float = 0.0  # metres by which it is painted as if it stood farther away than its middle

    @property
    def foot(self) -> np.ndarray:
        """Return its place (3,) in the world."""
        return np.array((self.x, 0.0, self.z))

    def to_world(self, local: np.ndarray) -> np.ndarray:
        """Turn and move points (..., 3) from its own axes into the world."""
        cosine, sine = np.cos(self.yaw), np.sin(self.yaw)
        turn = np.array(((cosine, 0.0, -sine), (0.0, 1.0, 0.0), (sine, 0.0, cosine)))
        return local @ turn + self.foot


TOWARDS_CAMERA = (0.0, 0.3, -1.0)

# The faces of a block: their corners from the bottom left, counter-clockwise seen from outside, 0-3 being the base;
# and their normals, which lean upwards as most faces do.
FACES = {
    "back": ((0, 1, 5, 4), (0.0, 0.2, -1.0)),
    "right": ((1, 2, 6, 5), (1.0, 0.2, 0.0)),
    "front": ((2, 3, 7, 6), (0.0, 0.2, 1.0)),
    "left": ((3, 0, 4, 7), (-1.0, 0.2, 0.0)),
    "top": ((4, 5, 6, 7), (0.0, 1.0, 0.0)),
}
FACE_CORNERS = np.array([corners for corners, _ in FACES.values()])

# For the four corners of a line: (dy, dx) times the first is at right angles to (dx, dy); the second is to which side.
QUARTER_TURN = np.array((-1, 1))
SIDES = np.array(((-1,), (-1,), (1,), (1,)))


def project_panel(canvas: Canvas, x: float, near: float, far: float, height: float) -> np.ndarray:
    """Project an upright panel along the road: its corners (4, 2) in pixels, from its near bottom round to its top."""
    return canvas.camera.project(np.array(((x, 0, near), (x, 0, far), (x, height, far), (x, height, near))))


def place_in(quad: np.ndarray, rectangles: ArrayLike) -> np.ndarray:
    """Place rectangles in a quadrilateral (4, 2), whose corners start at the bottom left, counter-clockwise.

    Rectangles (P, 4) are left, right, bottom and top, relative to it; their corners (P, 4, 2) come in its order.
    """
    edges = np.asarray(rectangles)[..., None]
    u, v = edges.take((0, 1, 1, 0), 1), edges.take((2, 2, 3, 3), 1)
    return (1 - v) * ((1 - u) * quad[0] + u * quad[1]) + v * ((1 - u) * quad[3] + u * quad[2])


def paint_block(canvas: Canvas, thing: Thing, base: tuple[float, float, float, float],
                top: tuple[float, float, float, float], color: np.ndarray) -> dict[str, np.ndarray]:
    """Paint the visible faces of a solid with a rectangular base and top, at the place and turn of a thing.

    Base and top are (half width, back, front, height over the ground).

    Returns:
        The corners (4, 2) in pixels of each visible face by its name.
    """
    corners = [(x, y, z) for half, back, front, y in (base, top) for x, z in
               ((-half, back), (half, back), (half, front), (-half, front))]
    quads = canvas.camera.project(thing.to_world(np.array(corners)))[FACE_CORNERS]
    lit = canvas.sunshine(canvas.camera.project(thing.foot))
    cosine, sine, visible = math.cos(thing.yaw), math.sin(thing.yaw), {}
    for quad, diagonals, (name, (_, (x, y, z))) in zip(
            quads, (quads[:, 2:] - quads[:, :2]).tolist(), FACES.items(), strict=True):
        (ax, ay), (bx, by) = diagonals
        if ax * by - ay * bx < 0:
            canvas.fill(quad, color * canvas.light.shade((cosine * x + sine * z, y, cosine * z - sine * x), lit))
            visible[name] = quad
    return visible


class Sprite:
    """Draw flat figures that face the camera, in metres around the foot of a thing."""

    def __init__(self, canvas: Canvas, thing: Thing) -> None:
        self.canvas = canvas
        self.origin = canvas.camera.project(thing.foot)
        self.light = canvas.light.shade(TOWARDS_CAMERA, canvas.sunshine(self.origin)) + 0.15 * canvas.light.direct
        self.scale = canvas.camera.scale / thing.z

    def polygon(self, points: ArrayLike, color: np.ndarray) -> None:
        """Fill one convex polygon (N, 2) or several (P, N, 2)."""
        self.canvas.fill(self.origin + np.asarray(points) * self.scale, color * self.light)

    def disc(self, center: tuple[float, float], radii: tuple[float, float], color: np.ndarray, sides: int = 12) -> None:
        """Fill a regular polygon: a disc when it has many sides, and a triangle with three points upwards."""
        self.polygon(center + _make_ring(sides) * radii, color)

    def stroke(self, points: Sequence[tuple[float, float]], width: float, color: np.ndarray) -> None:
        """Draw a line through points."""
        self.lines(list(pairwise(points)), width, color)

    def lines(self, ends: ArrayLike, width: float, color: np.ndarray) -> None:
        """Draw separate lines (P, 2, 2), none of them so thin that the labels would miss it."""
        pairs = np.asarray(ends)
        along = pairs[:, 1] - pairs[:, 0]
        half = max(width, 1 / self.scale[0]) / 2 / (np.hypot(along[:, 0], along[:, 1]) + 1e-9)
        across = along[:, ::-1] * QUARTER_TURN * half[:, None]
        self.polygon(pairs.take((0, 1, 1, 0), 1) + across[:, None] * SIDES, color)


@cache
def _make_ring(sides: int) -> np.ndarray:
    """Return the corners (sides, 2) of a regular polygon around the origin."""
    angles = np.arange(sides) * (2 * np.pi / sides) + np.pi / 2
    return np.stack((np.cos(angles), np.sin(angles)), 1)
