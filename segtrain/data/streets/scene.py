"""The story of one scene: what is chosen, and in which order it is painted."""

import zlib

import numpy as np

from segtrain.data.streets.backdrop import paint_backdrop
from segtrain.data.streets.boxes import box, cast_shadows, in_view
from segtrain.data.streets.camera import draw_camera
from segtrain.data.streets.canvas import Canvas, fractal
from segtrain.data.streets.finish import SUPERSAMPLE, finish
from segtrain.data.streets.layout import lay_out
from segtrain.data.streets.light import draw_light
from segtrain.data.streets.street import draw_street
from segtrain.data.streets.vehicles import paint_bonnet


def draw_scene(
    seed: int, split: str, index: int, height: int = 128, width: int = 192
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws one street scene; the same arguments always give the same scene.

    Args:
        seed: Seed of the whole data set.
        split: Name of the split; each has its own scenes.
        index: Number of the scene in its split.
        height: Rows, at least 32.
        width: Columns, at least 32.

    Returns:
        The image, uint8 (height, width, 3), RGB; the target, uint8 (height, width), train ids in the order of
        `labels.CAMVID` or 255 for void; and the instances, int32 (height, width), 1, 2, ... for the visible pixels of
        each separate object of a class that has instances, 0 elsewhere.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(split.encode()), index]))
    street, light = draw_street(rng), draw_light(rng)
    camera = draw_camera(rng, street.half, (height * SUPERSAMPLE, width * SUPERSAMPLE))
    canvas = Canvas(camera, light, fractal(rng, 256, 0.75), np.zeros((height, width), np.float32))
    # Along any line of sight both terms grow; the second one tells what is abreast apart, the outer being farther.
    things = sorted(lay_out(rng, street), key=lambda t: -(t.z + t.bias + 1.5 * abs(t.x - camera.x)))
    boxes = np.array([box(thing) for thing in things])
    cast_shadows(canvas, things, boxes)
    paint_backdrop(canvas, rng, street)
    for thing, visible in zip(things, in_view(camera, boxes), strict=True):
        if visible:
            thing.paint(canvas, thing, rng)
    if rng.random() < 0.3:
        paint_bonnet(canvas, rng)
    return finish(canvas, rng)
