"""People on foot and on bicycles."""

import numpy as np

from segtrain.data.streets.canvas import Canvas
from segtrain.data.streets.colors import CLOTH, PAINT, SIGNS, SKIN, pick
from segtrain.data.streets.shapes import Sprite
from segtrain.data.streets.thing import Thing


def paint_pedestrian(canvas: Canvas, thing: Thing, rng: np.random.Generator) -> None:
    """Paints somebody walking or standing."""
    canvas.begin("Pedestrian", thing.z, grain=0.10)
    sprite, h = Sprite(canvas, thing), thing.size[1]
    coat, trousers = pick(rng, CLOTH), pick(rng, CLOTH)
    skin = SKIN * rng.uniform(0.4, 1.1)
    stride, lean = rng.uniform(0.02, 0.16), rng.uniform(-0.04, 0.04)
    hip = (0.0, 0.50 * h)
    knees = [(0.7 * foot + 0.03, 0.26 * h) for foot in (-stride, stride)]
    feet = [(-stride, 0.02 * h), (stride, 0.02 * h)]
    sprite.lines([(hip, knee) for knee in knees] + list(zip(knees, feet, strict=True)), 0.16, trousers)
    sprite.lines([((x - 0.05, 0.03), (x + 0.09, 0.03)) for x, _ in feet], 0.07, trousers * 0.4)
    hem = h * rng.uniform(0.36, 0.5)
    sprite.polygon(((-0.19, hem), (0.19, hem), (lean + 0.20, 0.80 * h), (lean + 0.08, 0.86 * h),
                    (lean - 0.08, 0.86 * h), (lean - 0.20, 0.80 * h)), coat)
    elbows = [(1.25 * side, 0.62 * h) for side in (-0.2, 0.2)]
    hands = [(side * rng.uniform(0.6, 1.6), h * rng.uniform(0.40, 0.58)) for side in (-0.2, 0.2)]
    shoulders = [(lean - 0.2, 0.80 * h), (lean + 0.2, 0.80 * h)]
    sprite.lines(list(zip(shoulders, elbows, strict=True)) + list(zip(elbows, hands, strict=True)), 0.10, coat * 0.85)
    sprite.disc((lean, 0.925 * h), (0.095, 0.13), skin)
    if rng.random() < 0.7:
        sprite.disc((lean, 0.955 * h), (0.10, 0.09), pick(rng, CLOTH) * 0.6)
    if rng.random() < 0.3:
        low, high = 0.3 * h, 0.3 * h + 0.3
        sprite.polygon(((0.14, low), (0.38, low), (0.38, high), (0.14, high)), pick(rng, CLOTH))  # a bag


def paint_bicycle(canvas: Canvas, thing: Thing, rng: np.random.Generator) -> None:
    """Paints a bicyclist, or for the style "parked" a bicycle that nobody rides, which has no class."""
    ridden = thing.style != "parked"
    canvas.begin("Bicyclist" if ridden else "Void", thing.z, grain=0.08)
    sprite, frame = Sprite(canvas, thing), pick(rng, PAINT)
    along = np.array((np.sin(thing.yaw), 1.0))  # a bicycle seen from behind is narrow
    wheel = np.array((max(0.34 * abs(along[0]), 0.05), 0.34))
    for middle in (-0.52, 0.52):
        sprite.disc((middle * along[0], 0.34), tuple(wheel), np.full(3, 0.05))
        if wheel[0] > 0.2:  # between the spokes one sees about what lies around the wheel
            sprite.disc((middle * along[0], 0.34), tuple(wheel * 0.8), np.full(3, 0.30))
    saddle, pedal, bar = (np.array(p) * along for p in ((-0.22, 0.92), (-0.05, 0.32), (0.38, 1.0)))
    hub, grip = np.array((0.52, 0.34)) * along, np.array((0.22, 0.0))
    sprite.lines(((saddle, pedal), (saddle * (1, 0.85), bar), (pedal, bar * (1, 0.8)), (bar, hub),
                  (pedal, hub * (-1, 1)), (bar - grip, bar + grip)), 0.05, frame)
    if ridden:
        _paint_rider(sprite, rng, saddle, pedal, bar)


def _paint_rider(sprite: Sprite, rng: np.random.Generator, saddle: np.ndarray, pedal: np.ndarray,
                 bar: np.ndarray) -> None:
    """Paints who sits on a bicycle."""
    coat, trousers = pick(rng, CLOTH), pick(rng, CLOTH)
    reach = bar[0] - saddle[0]
    shoulder = saddle + np.array((0.35 * reach, rng.uniform(0.48, 0.6)))
    knee = (saddle + pedal) / 2 + np.array((0.45 * reach, 0.1))
    left, right = np.array((-0.1, -0.1)), np.array((0.1, 0.1))  # one foot is up while the other one is down
    legs = [(a + s, b + s) for s in (left, right) for a, b in ((saddle, knee), (knee, pedal))]
    sprite.lines(legs, 0.14, trousers)
    sprite.lines([(shoulder + s * (1.6, 0), bar + s * (2.2, 0)) for s in (left, right)], 0.09, coat * 0.85)
    hips, chest = np.array((0.17, 0.0)), np.array((0.20, 0.0))
    sprite.polygon(np.stack((saddle - hips, saddle + hips, shoulder + chest, shoulder - chest)), coat)
    head = shoulder + np.array((0.2 * reach, 0.17))
    sprite.disc(tuple(head), (0.10, 0.13), SKIN * rng.uniform(0.4, 1.1))
    sprite.disc((head[0], head[1] + 0.05), (0.11, 0.09), pick(rng, CLOTH + SIGNS))
