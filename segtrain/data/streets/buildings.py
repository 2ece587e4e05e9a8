"""Houses."""

import cv2
import numpy as np

from segtrain.data.streets.camera import NEAR
from segtrain.data.streets.canvas import Canvas
from segtrain.data.streets.colors import CLOTH, GLASS, PAINT, SIGNS, STONE, pick, planar, tinted
from segtrain.data.streets.shapes import block, panel
from segtrain.data.streets.thing import Thing


def paint_building(canvas: Canvas, thing: Thing, rng: np.random.Generator) -> None:
    """Paints a house beside the road: its roof, its gable and its facade, whose plane is at the thing's x."""
    canvas.begin("Building", thing.z, grain=0.05)
    side, (depth, height, length) = np.sign(thing.x), thing.size
    near, far = max(thing.z - length / 2, NEAR), thing.z + length / 2
    rise, outer, ridge = height * rng.uniform(0, 0.4), thing.x + side * depth, thing.x + side * depth / 2
    wall = pick(rng, STONE + PAINT[:3])
    roof = ((thing.x, height, near), (thing.x, height, far), (ridge, height + rise, far), (ridge, height + rise, near))
    canvas.fill(canvas.camera.project(np.array(roof)),
                pick(rng, STONE[1:4]) * 0.8 * canvas.light.shade((-side, 1.5, 0)))
    gable = ((thing.x, 0, near), (outer, 0, near), (outer, height, near), (ridge, height + rise, near),
             (thing.x, height, near))
    canvas.fill(canvas.camera.project(np.array(gable)), wall * 0.95 * canvas.light.shade((0, 0, -1)))
    if rng.random() < 0.5:
        chimney = Thing(paint_building, ridge, (near + far) / 2, (1, 1, 1))
        top = height + rise
        block(canvas, chimney, (0.5, -0.8, 0.8, top - 1), (0.5, -0.8, 0.8, top + 1.3), wall * 0.8)
    quad = panel(canvas, thing.x, near, far, height)
    shade = canvas.light.shade((-side, 0, 0), lit=rng.uniform(0.5, 1.0))
    if near > 70:  # too far to tell windows apart
        canvas.fill(quad, wall * shade * 0.8)
        return
    canvas.texture(quad, _facade(canvas, rng, wall, shade, max(1, int(height // 3)), max(2, int(length // 2.5))))


def _facade(canvas: Canvas, rng: np.random.Generator, wall: np.ndarray, shade: np.ndarray, floors: int,
            bays: int) -> np.ndarray:
    """Draws the front of a house: a grid of windows over a ground floor of shops or of doors.

    Args:
        canvas: Gives the noise and the light.
        rng: Source of randomness.
        wall: (3,) colour of the wall.
        shade: (3,) light on it.
        floors: Number of rows of windows, including the ground floor.
        bays: Number of windows in a row.

    Returns:
        float32 (4, 12 * floors, 10 * bays), colour and opacity.
    """
    rows, columns = 12, 10
    wall, shade = wall.astype(np.float32), shade.astype(np.float32)
    cell = np.ones((rows, columns), np.float32)
    glazed = np.zeros((rows, columns), np.float32)
    top, margin, bottom = rng.integers(1, 4), rng.integers(1, 4), rng.integers(8, 11)
    cell[top - 1 : bottom + 1, margin - 1 : columns - margin + 1] = rng.uniform(0.8, 1.35)  # the frame
    cell[bottom] *= 1.15
    glazed[top:bottom, margin : columns - margin] = 1
    if rng.random() < 0.6:
        glazed[:, columns // 2] = 0
    if rng.random() < 0.4:
        cell[-1] *= rng.uniform(0.7, 1.2)  # a ledge between the floors
    cell, glazed = np.tile(cell, (floors, bays)), np.tile(glazed, (floors, bays))
    if rng.random() < 0.6:
        glazed[-rows + 3 : -1] = (np.arange(10 * bays) % rng.integers(9, 21)) > 1
        glazed[-rows : -rows + 3] = 0
    texture = 1 + 0.10 * cv2.resize(canvas.patch(rng, 48, 48), (cell.shape[1], cell.shape[0]))
    tile = np.ones((4, *cell.shape), np.float32)
    tile[:3] = tinted(wall * shade, cell * texture)
    if rng.random() < 0.5:
        tile[:3, -rows : -rows + 3] = planar(pick(rng, CLOTH + SIGNS) * shade)
    panes = np.repeat(np.repeat(rng.uniform(0.3, 1.6, (floors, bays)), rows, 0), columns, 1)
    tile[:3] += glazed * (tinted(GLASS + 0.22 * rng.random() * canvas.light.ambient, panes) - tile[:3])
    return tile
