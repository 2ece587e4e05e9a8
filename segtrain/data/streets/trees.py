"""Trees and bushes."""

import cv2
import numpy as np

from segtrain.data.streets.canvas import Canvas
from segtrain.data.streets.colors import LEAVES, pick, tinted
from segtrain.data.streets.shapes import Sprite
from segtrain.data.streets.thing import Thing

SIDE = 44  # rows and columns of the picture of a crown
ACROSS = np.linspace(-1, 1, SIDE, dtype=np.float32)[None]
UP = -ACROSS.T
FRAME = (np.abs(ACROSS) < 0.99) & (np.abs(UP) < 0.99)  # a crown must not touch the edges of its picture
BALL, MOUND = (1 - ACROSS**2 - (UP * flatness) ** 2 for flatness in (1, 0.8))


def paint_tree(canvas: Canvas, thing: Thing, rng: np.random.Generator) -> None:
    """Paints a tree, a bush ("bush") or a bare tree in winter ("bare") through whose twigs the background is seen."""
    canvas.begin("Tree", thing.z, grain=0.12)
    sprite, (width, height, _) = Sprite(canvas, thing), thing.size
    bark = np.array((0.24, 0.20, 0.16)) * rng.uniform(0.6, 1.4)
    foot = 0.0 if thing.style == "bush" else height * rng.uniform(0.22, 0.36)
    if foot:
        sway = rng.uniform(-0.3, 0.3)
        sprite.stroke(((0, 0), (sway / 2, foot), (sway, foot + 0.25 * height)), 0.045 * height, bark)
    leaves = pick(rng, LEAVES) if thing.style != "bare" else bark * 1.3
    noise, lumps = canvas.patch(rng, SIDE, SIDE), cv2.resize(canvas.patch(rng, 16, 16), (SIDE, SIDE))
    noise, lumps = noise - noise.mean(), lumps - lumps.mean()  # so that no crown comes out empty
    inside = ((MOUND if thing.style == "bush" else BALL) + 0.22 * noise + 0.25 * lumps > 0.25) & FRAME
    opacity = np.where(inside, np.clip(0.45 + 0.35 * noise, 0.2, 1) if thing.style == "bare" else 1, np.float32(0))
    sun_side = ACROSS * canvas.light.sun[0] + UP * 0.7 - 0.2 * canvas.light.sun[2]
    brightness = np.clip(1 + 0.22 * sun_side + 0.3 * lumps + 0.2 * noise, 0.2, 2)
    tile = tinted(np.append(leaves * sprite.light, 1), opacity)
    tile[:3] *= brightness
    box = np.array(((-width / 2, foot), (width / 2, foot), (width / 2, height), (-width / 2, height)))
    if thing.style == "bare":
        _paint_branches(sprite, rng, foot, thing, bark)
    canvas.texture(sprite.origin + box * sprite.scale, tile, threshold=0.1)


def _paint_branches(sprite: Sprite, rng: np.random.Generator, foot: float, thing: Thing, bark: np.ndarray) -> None:
    """Paints the boughs of a bare tree."""
    width, height, _ = thing.size
    for x in rng.uniform(-0.36, 0.36, 6) * width:
        tip = (x, foot + (height - foot) * rng.uniform(0.5, 0.85))
        sprite.stroke(((0, foot), (x * 0.4, foot + 0.4 * (tip[1] - foot)), tip), 0.012 * height, bark)
