"""What a town puts up along a street: signs, lamps, fences, bins."""

import numpy as np

from segtrain.data.streets.canvas import Canvas
from segtrain.data.streets.colors import CLOTH, LEAVES, METAL, SIGNS, STONE, pick, tinted
from segtrain.data.streets.shapes import Sprite, block, inset, panel
from segtrain.data.streets.thing import Thing

# Per style of fence: how many bars a stretch has, and how much of its length they cover.
FENCES = {"boards": (20, 0.9), "railing": (24, 0.25), "pickets": (18, 0.6)}


def paint_sign(canvas: Canvas, thing: Thing, rng: np.random.Generator) -> None:
    """Paints a traffic sign on its post, a traffic light, or for the style "wall" the sign of a shop."""
    sprite, (width, top, _) = Sprite(canvas, thing), thing.size
    middle = (0.0, top - width / 2)
    if thing.style != "wall":
        canvas.begin("Pole", thing.z)
        sprite.stroke(((0, 0), (0, top - 0.1)), 0.09, pick(rng, METAL))
    canvas.begin("SignSymbol", thing.z, grain=0.03)
    color = pick(rng, SIGNS)
    if thing.style == "lights":
        sprite.disc((0, top - 0.5), (0.26, 0.62), np.full(3, 0.07), sides=4)
        sprite.polygon(((-0.2, top - 0.95), (0.2, top - 0.95), (0.2, top), (-0.2, top)), np.full(3, 0.06))
        lamp = rng.integers(3)
        sprite.disc((0, top - 0.18 - 0.3 * lamp), (0.13, 0.13),
                    np.array(((1.4, 0.2, 0.1), (1.4, 0.8, 0.1), (0.1, 1.3, 0.5))[lamp]))
        return
    sides = 4 if thing.style == "wall" else (3, 4, 8, 16)[rng.integers(4)]
    if sides == 4:
        h = width * rng.uniform(0.6, 1.5)
        board = np.array(((-width, -h), (width, -h), (width, h), (-width, h))) / 2 + middle
        sprite.polygon(board, color)
        sprite.polygon((board - middle) * (0.7, 0.3) + middle, pick(rng, SIGNS))
        return
    sprite.disc(middle, (width / 2, width / 2), color, sides)
    sprite.disc(middle, (width * 0.33, width * 0.33), pick(rng, SIGNS), sides)


def paint_lamp(canvas: Canvas, thing: Thing, rng: np.random.Generator) -> None:
    """Paints a street lamp whose arm reaches over the road, or for the style "bollard" a bare post."""
    canvas.begin("Pole", thing.z)
    sprite, color, top = Sprite(canvas, thing), pick(rng, METAL), thing.size[1]
    sprite.stroke(((0, 0), (0, top)), 0.13, color)
    if thing.style == "bollard":
        return
    sprite.stroke(((0, 0), (0, 1.0)), 0.22, color)
    reach = -np.sign(thing.x) * rng.uniform(0.8, 1.8)
    sprite.stroke(((0, top), (0.4 * reach, top + 0.25), (reach, top + 0.3)), 0.10, color)
    sprite.stroke(((0.75 * reach, top + 0.28), (1.25 * reach, top + 0.28)), 0.22, color * 1.2)


def paint_fence(canvas: Canvas, thing: Thing, rng: np.random.Generator) -> None:
    """Paints a stretch of fence; between its bars the background is seen, but labelled as fence."""
    canvas.begin("Fence", thing.z, grain=0.08)
    _, height, length = thing.size
    quad = panel(canvas, thing.x, thing.z - length / 2, thing.z + length / 2, height)
    color = pick(rng, METAL if thing.style == "railing" else STONE + LEAVES)
    lit = canvas.sunshine(canvas.camera.project(thing.foot))
    color = color * canvas.light.shade((-np.sign(thing.x), 0.3, -0.3), lit)
    opacity = 1.0 if thing.style == "boards" else 0.12  # a little of the colour everywhere marks the whole panel
    canvas.texture(quad, tinted(np.append(color, 1) * opacity, np.ones((2, 2))), threshold=opacity / 2)
    count, share = FENCES[thing.style]
    left = np.arange(count) / count
    bars = np.stack((left, left + share / count, np.full(count, 0.04), np.full(count, 0.97)), 1)
    canvas.fill(inset(quad, bars), color)
    canvas.fill(inset(quad, ((0, 1, 0.12, 0.22), (0, 1, 0.84, 0.95))), color * 0.85)


def paint_clutter(canvas: Canvas, thing: Thing, rng: np.random.Generator) -> None:
    """Paints what has no class: a bin, a box or a bench."""
    canvas.begin("Void", thing.z, grain=0.06)
    (width, height, length), color = thing.size, pick(rng, CLOTH)
    back, front = -length / 2, length / 2
    faces = block(canvas, thing, (width * 0.45, back, front, 0), (width / 2, back, front, height), color)
    if "back" in faces:
        canvas.fill(inset(faces["back"], ((0.0, 1.0, 0.86, 1.0), (0.2, 0.8, 0.3, 0.6))), color * 0.4)
