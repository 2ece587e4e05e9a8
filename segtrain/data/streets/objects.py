"""Paint what stands in a street: houses, trees, furniture, vehicles, people."""

import cv2
import numpy as np

from segtrain.data.streets.canvas import (
    CLOTH,
    GLASS,
    LEAVES,
    METAL,
    PAINT,
    SIGNS,
    SKIN,
    STONE,
    Canvas,
    pick,
    tint,
    to_planes,
)
from segtrain.data.streets.shapes import Sprite, Thing, paint_block, place_in, project_panel
from segtrain.data.streets.world import NEAR


def paint_building(canvas: Canvas, thing: Thing, rng: np.random.Generator) -> None:
    """Paint a house beside the road: its roof, its gable and its facade, whose plane is at the thing's x."""
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
        paint_block(canvas, chimney, (0.5, -0.8, 0.8, top - 1), (0.5, -0.8, 0.8, top + 1.3), wall * 0.8)
    quad = project_panel(canvas, thing.x, near, far, height)
    shade = canvas.light.shade((-side, 0, 0), lit=rng.uniform(0.5, 1.0))
    if near > 70:  # too far to tell windows apart
        canvas.fill(quad, wall * shade * 0.8)
        return
    canvas.texture(quad, _draw_facade(canvas, rng, wall, shade, max(1, int(height // 3)), max(2, int(length // 2.5))))


def _draw_facade(canvas: Canvas, rng: np.random.Generator, wall: np.ndarray, shade: np.ndarray, floors: int,
                 bays: int) -> np.ndarray:
    """Draw the front of a house: a grid of windows over a ground floor of shops or of doors.

    `wall` is the colour (3,) of the wall, `shade` the light on it; there are `floors` rows of `bays` windows.

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
    tile[:3] = tint(wall * shade, cell * texture)
    if rng.random() < 0.5:
        tile[:3, -rows : -rows + 3] = to_planes(pick(rng, CLOTH + SIGNS) * shade)
    panes = np.repeat(np.repeat(rng.uniform(0.3, 1.6, (floors, bays)), rows, 0), columns, 1)
    tile[:3] += glazed * (tint(GLASS + 0.22 * rng.random() * canvas.light.ambient, panes) - tile[:3])
    return tile


CROWN_SIZE = 44  # rows and columns of the tile of a crown
ACROSS = np.linspace(-1, 1, CROWN_SIZE, dtype=np.float32)[None]
UP = -ACROSS.T
FRAME = (np.abs(ACROSS) < 0.99) & (np.abs(UP) < 0.99)  # a crown must not touch the edges of its tile
BALL, MOUND = (1 - ACROSS**2 - (UP * flatness) ** 2 for flatness in (1, 0.8))


def paint_tree(canvas: Canvas, thing: Thing, rng: np.random.Generator) -> None:
    """Paint a tree, a bush ("bush") or a bare tree in winter ("bare") through whose twigs the background is seen."""
    canvas.begin("Tree", thing.z, grain=0.12)
    sprite, (width, height, _) = Sprite(canvas, thing), thing.size
    bark = np.array((0.24, 0.20, 0.16)) * rng.uniform(0.6, 1.4)
    foot = 0.0 if thing.style == "bush" else height * rng.uniform(0.22, 0.36)
    if foot:
        sway = rng.uniform(-0.3, 0.3)
        sprite.stroke(((0, 0), (sway / 2, foot), (sway, foot + 0.25 * height)), 0.045 * height, bark)
    leaves = pick(rng, LEAVES) if thing.style != "bare" else bark * 1.3
    noise = canvas.patch(rng, CROWN_SIZE, CROWN_SIZE)
    lumps = cv2.resize(canvas.patch(rng, 16, 16), (CROWN_SIZE, CROWN_SIZE))
    noise, lumps = noise - noise.mean(), lumps - lumps.mean()  # so that no crown comes out empty
    inside = ((MOUND if thing.style == "bush" else BALL) + 0.22 * noise + 0.25 * lumps > 0.25) & FRAME
    opacity = np.where(inside, np.clip(0.45 + 0.35 * noise, 0.2, 1) if thing.style == "bare" else 1, np.float32(0))
    sun_side = ACROSS * canvas.light.sun[0] + UP * 0.7 - 0.2 * canvas.light.sun[2]
    brightness = np.clip(1 + 0.22 * sun_side + 0.3 * lumps + 0.2 * noise, 0.2, 2)
    tile = tint(np.append(leaves * sprite.light, 1), opacity)
    tile[:3] *= brightness
    box = np.array(((-width / 2, foot), (width / 2, foot), (width / 2, height), (-width / 2, height)))
    if thing.style == "bare":
        _paint_branches(sprite, rng, foot, thing, bark)
    canvas.texture(sprite.origin + box * sprite.scale, tile, threshold=0.1)


def _paint_branches(sprite: Sprite, rng: np.random.Generator, foot: float, thing: Thing, bark: np.ndarray) -> None:
    """Paint the boughs of a bare tree."""
    width, height, _ = thing.size
    for x in rng.uniform(-0.36, 0.36, 6) * width:
        tip = (x, foot + (height - foot) * rng.uniform(0.5, 0.85))
        sprite.stroke(((0, foot), (x * 0.4, foot + 0.4 * (tip[1] - foot)), tip), 0.012 * height, bark)


def paint_sign(canvas: Canvas, thing: Thing, rng: np.random.Generator) -> None:
    """Paint a traffic sign on its post, a traffic light, or for the style "wall" the sign of a shop."""
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
    """Paint a street lamp whose arm reaches over the road, or for the style "bollard" a bare post."""
    canvas.begin("Pole", thing.z)
    sprite, color, top = Sprite(canvas, thing), pick(rng, METAL), thing.size[1]
    sprite.stroke(((0, 0), (0, top)), 0.13, color)
    if thing.style == "bollard":
        return
    sprite.stroke(((0, 0), (0, 1.0)), 0.22, color)
    reach = -np.sign(thing.x) * rng.uniform(0.8, 1.8)
    sprite.stroke(((0, top), (0.4 * reach, top + 0.25), (reach, top + 0.3)), 0.10, color)
    sprite.stroke(((0.75 * reach, top + 0.28), (1.25 * reach, top + 0.28)), 0.22, color * 1.2)


# Per style of fence: how many bars a stretch has, and how much of its length they cover.
FENCES = {"boards": (20, 0.9), "railing": (24, 0.25), "pickets": (18, 0.6)}


def paint_fence(canvas: Canvas, thing: Thing, rng: np.random.Generator) -> None:
    """Paint a stretch of fence; between its bars the background is seen, but labelled as fence."""
    canvas.begin("Fence", thing.z, grain=0.08)
    _, height, length = thing.size
    quad = project_panel(canvas, thing.x, thing.z - length / 2, thing.z + length / 2, height)
    color = pick(rng, METAL if thing.style == "railing" else STONE + LEAVES)
    lit = canvas.sunshine(canvas.camera.project(thing.foot))
    color = color * canvas.light.shade((-np.sign(thing.x), 0.3, -0.3), lit)
    opacity = 1.0 if thing.style == "boards" else 0.12  # a little of the colour everywhere marks the whole panel
    canvas.texture(quad, tint(np.append(color, 1) * opacity, np.ones((2, 2))), threshold=opacity / 2)
    count, share = FENCES[thing.style]
    left = np.arange(count) / count
    bars = np.stack((left, left + share / count, np.full(count, 0.04), np.full(count, 0.97)), 1)
    canvas.fill(place_in(quad, bars), color)
    canvas.fill(place_in(quad, ((0, 1, 0.12, 0.22), (0, 1, 0.84, 0.95))), color * 0.85)


def paint_clutter(canvas: Canvas, thing: Thing, rng: np.random.Generator) -> None:
    """Paint what has no class: a bin, a box or a bench."""
    canvas.begin("Void", thing.z, grain=0.06)
    (width, height, length), color = thing.size, pick(rng, CLOTH)
    back, front = -length / 2, length / 2
    faces = paint_block(canvas, thing, (width * 0.45, back, front, 0), (width / 2, back, front, height), color)
    if "back" in faces:
        canvas.fill(place_in(faces["back"], ((0.0, 1.0, 0.86, 1.0), (0.2, 0.8, 0.3, 0.6))), color * 0.4)


# Per style of vehicle: (width, height, length), the height of the bonnet relative to the whole, and where the cabin
# begins and ends at its foot and at its roof, relative to the length.
VEHICLES = {
    "hatch": ((1.7, 1.45, 3.9), 0.60, (0.02, 0.74, 0.12, 0.56)),
    "saloon": ((1.8, 1.42, 4.6), 0.62, (0.12, 0.72, 0.26, 0.56)),
    "suv": ((1.9, 1.80, 4.6), 0.58, (0.01, 0.76, 0.05, 0.62)),
    "van": ((2.0, 2.30, 5.2), 0.45, (0.00, 0.92, 0.01, 0.80)),
    "bus": ((2.5, 3.30, 10.0), 0.40, (0.00, 1.00, 0.00, 0.99)),
}
ANGLES = np.arange(12) * (np.pi / 6)
WHEEL = np.stack((np.zeros(12), np.sin(ANGLES), np.cos(ANGLES)), 1)  # of radius 1, around the origin


def paint_vehicle(canvas: Canvas, thing: Thing, rng: np.random.Generator) -> None:
    """Paint a car, van or bus."""
    canvas.begin("Car", thing.z, grain=0.03)
    _, bonnet, (foot_back, foot_front, roof_back, roof_front) = VEHICLES[thing.style]
    width, height, length = thing.size
    color, half, back, front = pick(rng, PAINT + STONE[:2]), width / 2, -length / 2, length / 2
    waist = bonnet * height
    paint_block(canvas, thing, (half * 0.9, back + 0.3, front - 0.3, 0.0), (half * 0.9, back + 0.1, front - 0.1, 0.4),
                np.array((0.04, 0.04, 0.045)))
    body = paint_block(canvas, thing, (half, back, front, 0.28), (half * 0.97, back + 0.06, front - 0.1, waist), color)
    for side in ("left", "right"):
        if side in body:
            _paint_wheels(canvas, thing, -half if side == "left" else half)
    cabin = paint_block(canvas, thing, (half * 0.95, back + foot_back * length, back + foot_front * length, waist),
                        (half * 0.78, back + roof_back * length, back + roof_front * length, height), color)
    glass = GLASS * rng.uniform(0.6, 1.6) + 0.12 * canvas.light.ambient * rng.random()
    for name, quad in cabin.items():
        if name in ("left", "right"):
            canvas.fill(place_in(quad, ((0.07, 0.50, 0.12, 0.84), (0.54, 0.93, 0.12, 0.84))), glass)
        elif name != "top":
            canvas.fill(place_in(quad, ((0.07, 0.93, 0.12, 0.86),)), glass)
    for name, lamp in (("back", (0.55, 0.05, 0.05)), ("front", (0.9, 0.9, 0.8))):
        if name in body and thing.z < 45:
            canvas.fill(place_in(body[name], ((0.03, 0.18, 0.55, 0.85), (0.82, 0.97, 0.55, 0.85))), np.array(lamp))
            canvas.fill(place_in(body[name], ((0.36, 0.64, 0.3, 0.5),)), canvas.light.ambient * (0.7, 0.7, 0.5))


def _paint_wheels(canvas: Canvas, thing: Thing, x: float) -> None:
    """Paint the two wheels on the side of a vehicle at its own coordinate x."""
    radius = 0.33
    for middle in (-0.31 * thing.size[2], 0.31 * thing.size[2]):
        for size, color in ((radius, 0.035), (0.6 * radius, 0.3)):
            ring = WHEEL * size + (x * 1.01, radius, middle)
            canvas.fill(canvas.camera.project(thing.to_world(ring)), canvas.light.ambient * color)


def paint_bonnet(canvas: Canvas, rng: np.random.Generator) -> None:
    """Paint the front of the car that carries the camera, which has no class."""
    canvas.begin("Void", depth=1.0, grain=0.02)
    color = pick(rng, PAINT) * canvas.light.ambient
    across, height, middle = np.linspace(-0.05, 1.05, 12), rng.uniform(0.03, 0.09), rng.uniform(0.3, 0.7)
    for level, brightness in ((1.0, 0.7), (0.75, 1.1), (0.4, 0.8)):  # bands that mirror the sky
        edge = 1 - level * height * (1 - 1.5 * (across - middle) ** 2)
        points = [*np.stack((across, edge), 1), (1.05, 1.1), (-0.05, 1.1)]
        canvas.fill(np.array(points) * canvas.camera.size[::-1], color * brightness)


def paint_pedestrian(canvas: Canvas, thing: Thing, rng: np.random.Generator) -> None:
    """Paint somebody walking or standing."""
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
    """Paint a bicyclist, or for the style "parked" a bicycle that nobody rides, which has no class."""
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
    """Paint who sits on a bicycle."""
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
