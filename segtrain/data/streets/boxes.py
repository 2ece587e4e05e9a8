"""The boxes around things: which of them are in view, and the shadows that they cast."""

import cv2
import numpy as np

from segtrain.data.streets.buildings import paint_building
from segtrain.data.streets.camera import NEAR, Camera
from segtrain.data.streets.canvas import Canvas, fixed_point
from segtrain.data.streets.thing import Thing
from segtrain.data.streets.trees import paint_tree

UNIT = np.array([(x, y, z) for y in (0, 1) for x, z in ((-1, -1), (1, -1), (1, 1), (-1, 1))])


def box(thing: Thing) -> np.ndarray:
    """Gives the corners of the box (8, 3) around a thing, those on the ground first."""
    width, height, length = thing.size
    corners = UNIT * (width / 2, height, length / 2)
    if thing.paint is paint_building:  # its place is the facade, not the middle
        corners[:, 0] += np.sign(thing.x) * width / 2
    return thing.to_world(corners)


def in_view(camera: Camera, boxes: np.ndarray) -> np.ndarray:
    """Tells which boxes (T, 8, 3) the camera may see: bool (T,)."""
    across = camera.project(boxes)[..., 0] / camera.size[1]
    margin = 2 * camera.focal[0] / np.maximum(boxes[..., 2], NEAR)  # the arms of lamps reach out of their boxes
    return ((across + margin).max(1) > 0) & ((across - margin).min(1) < 1)


def cast_shadows(canvas: Canvas, things: list[Thing], boxes: np.ndarray) -> None:
    """Fills the canvas's shadow with the boxes (T, 8, 3) of things, laid flat on the ground away from the sun."""
    sun = canvas.light.sun
    flat = boxes * (1, 0, 1) - boxes[..., 1:2] * np.array((sun[0], 0.0, sun[2])) / sun[1]
    scale = np.array(canvas.shadow.shape[::-1]) / canvas.camera.size[::-1]
    for thing, outline in zip(things, fixed_point(canvas.camera.project(flat) * scale), strict=True):
        darkness = 0.6 if thing.paint is paint_tree else 0.9
        cv2.fillConvexPoly(canvas.shadow, cv2.convexHull(outline), darkness, shift=4)
