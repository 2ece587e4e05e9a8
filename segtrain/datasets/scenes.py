"""Synthetic street scenes, the embedded default data: what stands where, in which light, and the finished picture.

Everything is laid out in metres and seen through a camera that is relative to the picture's size, so that a scene is
the same at any resolution. It is painted at twice that resolution from far to near, then shrunk, hazed and degraded as
by a cheap camera.
"""

import zlib
from dataclasses import dataclass

import cv2
import numpy as np

from segtrain.datasets import scene_objects as objects
from segtrain.datasets.scene_objects import NEAR, Camera, Canvas, Light, Thing, fixed_point, fractal, pick, tinted
from segtrain.labels import CAMVID, IGNORE_INDEX

SUPERSAMPLE = 2
MIN_INSTANCE_PIXELS = 4
FAR = 85.0  # metres: the last house
HAS_INSTANCES = np.isin(np.arange(256), [label.train_id for label in CAMVID if label.has_instances])  # by train id


@dataclass(frozen=True)
class Street:
    """The ground plan of a scene, in metres.

    Attributes:
        half: Half the width of the road.
        pavements: Widths of the left and of the right pavement.
        greens: Whether there is grass beyond the left and beyond the right pavement.
        crossing: (near, far) ends of a side street, beyond `FAR` where there is none.
        dash: Half the width of the dashed middle line, 0 where there is none.
        kerb_line: Colour (3,) of the lines along the kerbs.
    """

    half: float
    pavements: tuple[float, float]
    greens: tuple[bool, bool]
    crossing: tuple[float, float]
    dash: float
    kerb_line: np.ndarray


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
    size = (height * SUPERSAMPLE, width * SUPERSAMPLE)
    street, light = _draw_street(rng), _draw_light(rng)
    camera = _draw_camera(rng, street, size)
    canvas = Canvas(camera, light, fractal(rng, 256, 0.75), np.zeros((height, width), np.float32))
    # Along any line of sight both terms grow; the second one tells what is abreast apart, the outer being farther.
    things = sorted(_lay_out(rng, street), key=lambda t: -(t.z + t.bias + 1.5 * abs(t.x - camera.x)))
    boxes = np.array([_box(thing) for thing in things])
    _cast_shadows(canvas, things, boxes)
    _paint_backdrop(canvas, rng, street)
    for thing, in_view in zip(things, _in_view(camera, boxes), strict=True):
        if in_view:
            thing.paint(canvas, thing, rng)
    if rng.random() < 0.3:
        _paint_bonnet(canvas, rng)
    return _finish(canvas, rng, height, width)


def _draw_street(rng: np.random.Generator) -> Street:
    """Chooses the ground plan."""
    start = rng.uniform(14, 45) if rng.random() < 0.5 else 2 * FAR
    left, right = rng.uniform(1.6, 4.2, 2)
    kerb = np.array(((0.75, 0.62, 0.18), (0.8, 0.8, 0.78), (0.3, 0.3, 0.3))[rng.integers(3)])
    green_left, green_right = rng.random(2) < 0.38
    return Street(rng.uniform(3.0, 5.2), (left, right), (bool(green_left), bool(green_right)),
                  (start, start + rng.uniform(6, 9)), float(rng.choice((0.0, 0.07, 0.09))), kerb)


def _draw_camera(rng: np.random.Generator, street: Street, size: tuple[int, int]) -> Camera:
    """Chooses where the car is in its (left) lane, where it looks, and how the road bends."""
    focal = rng.uniform(0.75, 1.0)
    return Camera(size, (rng.uniform(0.3, 0.7), rng.uniform(0.36, 0.54)), (focal, 1.5 * focal),
                  street.half * rng.uniform(-0.6, -0.1), rng.uniform(1.25, 1.7), float(rng.normal(0, 6e-4)))


def _draw_light(rng: np.random.Generator) -> Light:
    """Chooses sunshine, clouds or dusk."""
    azimuth, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(0.4, 1.1)
    sun = np.array((np.cos(azimuth) * np.cos(elevation), np.sin(elevation), np.sin(azimuth) * np.cos(elevation)))
    ambient, direct = ((0.45, 0.85), (0.85, 0.15), (0.42, 0.25))[rng.choice(3, p=(0.5, 0.3, 0.2))]
    warmth = rng.uniform(-0.05, 0.18) * np.array((1, 0.1, -1))
    return Light(tuple(sun.tolist()), ambient * rng.uniform(0.8, 1.1) * (1 - 0.4 * warmth), direct * (1 + warmth))


def _lay_out(rng: np.random.Generator, street: Street) -> list[Thing]:
    """Chooses all that stands on and beside the road."""
    things = [_distant(rng, x) for x in rng.uniform(-80, 80, 9)]
    for side in (-1, 1):
        things += _houses(rng, street, side) + _greenery(rng, street, side) + _fences(rng, street, side)
        things += _furniture(rng, street, side) + _parked(rng, street, side) + _people(rng, street, side)
    return _without_collisions(things + _traffic(rng, street))


def _without_collisions(things: list[Thing]) -> list[Thing]:
    """Drops the vehicles and bicycles that would stand inside an earlier one."""
    kept, taken = [], np.empty((0, 4))
    for thing in things:
        if thing.paint in (objects.paint_vehicle, objects.paint_bicycle):
            (width, _, length), cosine, sine = thing.size, abs(np.cos(thing.yaw)), abs(np.sin(thing.yaw))
            place = np.array((thing.x, thing.z, cosine * width + sine * length, sine * width + cosine * length))
            if (np.abs(taken[:, :2] - place[:2]) < (taken[:, 2:] + place[2:]) / 2 + 0.1).all(1).any():
                continue
            taken = np.vstack((taken, place))
        kept.append(thing)
    return kept


def _near(rng: np.random.Generator, low: float, high: float) -> float:
    """Draws a distance such that the place in the picture, not in the world, is about uniform."""
    return float(1 / rng.uniform(1 / high, 1 / low))


def _free(street: Street, z: float, margin: float = 0.0) -> bool:
    """Tells whether a place along the road is outside the side street."""
    return not street.crossing[0] - margin < z < street.crossing[1] + margin


def _distant(rng: np.random.Generator, x: float) -> Thing:
    """Chooses a tree or a house at the end of the view."""
    z, size = rng.uniform(130, 170), (rng.uniform(10, 26), rng.uniform(5, 18), 12.0)
    if rng.random() < 0.5:
        return Thing(objects.paint_tree, x, z, size, style="bush")
    return Thing(objects.paint_building, x, z, size)


def _houses(rng: np.random.Generator, street: Street, side: int) -> list[Thing]:
    """Chooses the row of houses on one side (-1: left, 1: right)."""
    green = street.greens[side > 0]
    front = street.half + street.pavements[side > 0] + (rng.uniform(3, 9) if green else 0.0)
    style_height, gaps = rng.uniform(5, 15), rng.uniform(0.3, 0.8) if green else rng.uniform(0, 0.2)
    houses, start = [], rng.uniform(-6, 3)
    while start < FAR:
        length, height = rng.uniform(7, 19), style_height * rng.uniform(0.7, 1.35)
        middle, setback = start + length / 2, rng.choice((0.0, 0.0, 0.6))
        inside = _free(street, start) and _free(street, start + length) and _free(street, middle)
        if inside and start + length > NEAR + 2 and rng.random() > gaps:
            size = (rng.uniform(7, 11), height, length)
            houses.append(Thing(objects.paint_building, side * (front + setback), middle, size, bias=length / 2))
            if rng.random() < 0.4:
                x, z = side * (front - 0.4), max(5.0, rng.uniform(start, start + length))
                size = (rng.uniform(0.6, 1.1), rng.uniform(3, 4.5), 0.1)
                houses.append(Thing(objects.paint_sign, x, z, size, style="wall"))
        start += length
    return houses


def _greenery(rng: np.random.Generator, street: Street, side: int) -> list[Thing]:
    """Chooses the trees of one side: many in a park, a few along houses."""
    green = street.greens[side > 0]
    edge = street.half + street.pavements[side > 0]
    style, trees = rng.choice(("", "", "bare")), []
    for _ in range(rng.integers(6, 13) if green else rng.integers(0, 4)):
        z = _near(rng, 8, 80)
        if green and rng.random() < 0.35:
            size, x, kind = (rng.uniform(2, 4), rng.uniform(1.2, 2.6), 1.0), edge + rng.uniform(1, 3), "bush"
        else:
            height = rng.uniform(4.5, 11)
            x, kind = edge + rng.uniform(1.5, 7) if green else edge - rng.uniform(0.5, 1.0), style
            size = (height * rng.uniform(0.55, 0.85), height, 3.0)
        if _free(street, z):
            trees.append(Thing(objects.paint_tree, side * x, z, size, style=str(kind)))
    return trees


def _fences(rng: np.random.Generator, street: Street, side: int) -> list[Thing]:
    """Chooses a fence behind the pavement of a park, or now and then a railing at the kerb."""
    green = street.greens[side > 0]
    if rng.random() > (0.75 if green else 0.25):
        return []
    style = str(rng.choice(("railing", "pickets", "boards"))) if green else "railing"
    x = street.half + (street.pavements[side > 0] + 0.2 if green else 0.3)
    height, start = rng.uniform(0.9, 1.8) if green else 1.0, rng.uniform(1.5, 12)
    length = 4.0  # short stretches, so that they follow the bend and are sorted well among other things
    starts = np.arange(start, start + rng.uniform(8, 40), length)
    return [Thing(objects.paint_fence, side * x, z, (0.1, height, length), style=style)
            for z in starts + length / 2 if _free(street, z, length / 2)]


def _furniture(rng: np.random.Generator, street: Street, side: int) -> list[Thing]:
    """Chooses lamps, signs, bollards, bins and parked bicycles of one side."""
    kerb, room = street.half + 0.4, street.pavements[side > 0] - 0.8
    lamp_height, first, step = rng.uniform(5, 8), rng.uniform(6, 20), rng.uniform(14, 26)
    far = 60 if rng.random() < 0.7 else first
    things = [Thing(objects.paint_lamp, side * kerb, z, (0.15, lamp_height, 0.15)) for z in np.arange(first, far, step)]
    for _ in range(rng.integers(1, 4)):
        size = (rng.uniform(0.5, 0.9), rng.uniform(2.2, 3.2), 0.1)
        style = "lights" if rng.random() < 0.25 else "post"
        things.append(Thing(objects.paint_sign, side * kerb, _near(rng, 7, 40), size, style=style))
    if rng.random() < 0.3:
        start = rng.uniform(6, 15)
        things += [Thing(objects.paint_lamp, side * kerb, z, (0.1, 0.9, 0.1), style="bollard")
                   for z in np.arange(start, start + 12, 2)]
    for _ in range(rng.integers(0, 3)):
        size = (rng.uniform(0.5, 0.9), rng.uniform(0.7, 1.3), rng.uniform(0.5, 1.8))
        x, z = side * (kerb + rng.uniform(0.3, 1) * room), _near(rng, 5, 30)
        things.append(Thing(objects.paint_clutter, x, z, size, yaw=rng.uniform(-0.3, 0.3)))
    if rng.random() < 0.3:
        x, z = side * (kerb + room), _near(rng, 6, 25)
        things.append(Thing(objects.paint_bicycle, x, z, (0.5, 1.1, 1.7), yaw=rng.uniform(0.8, 2.2), style="parked"))
    return things


def _vehicle(rng: np.random.Generator, x: float, z: float, yaw: float) -> Thing:
    """Chooses a vehicle of any style."""
    style = str(rng.choice(list(objects.VEHICLES), p=(0.35, 0.28, 0.2, 0.12, 0.05)))
    width, height, length = np.array(objects.VEHICLES[style][0]) * rng.uniform(0.93, 1.07, 3)
    return Thing(objects.paint_vehicle, x, max(z, NEAR + 0.3 + length / 2), (width, height, length), yaw, style,
                 bias=-length / 2)


def _parked(rng: np.random.Generator, street: Street, side: int) -> list[Thing]:
    """Chooses the row of parked cars of one side, if there is one."""
    if rng.random() < 0.55:
        return []
    cars: list[Thing] = []
    z, density = rng.uniform(6, 24), rng.uniform(0.3, 0.9)
    while z < 60 and len(cars) < 7:
        if rng.random() < density and _free(street, z, 3):
            yaw = (np.pi if side > 0 else 0.0) + rng.normal(0, 0.04)
            cars.append(_vehicle(rng, side * (street.half - rng.uniform(0.8, 1.1)), z, yaw))
        z += rng.uniform(5.5, 8)
    return cars


def _people(rng: np.random.Generator, street: Street, side: int) -> list[Thing]:
    """Chooses who walks on one pavement, alone or side by side."""
    people = []
    for _ in range(rng.integers(1, 5)):
        z = _near(rng, 6, 45)
        x = street.half + rng.uniform(0.4, street.pavements[side > 0] - 0.4)
        for companion in range(1 + (rng.random() < 0.3)):
            size = (0.5, rng.uniform(1.5, 1.9), 0.4)
            people.append(Thing(objects.paint_pedestrian, side * (x + 0.6 * companion), z + 0.2 * companion, size))
    return people


def _traffic(rng: np.random.Generator, street: Street) -> list[Thing]:
    """Chooses what moves on the road; one keeps to the left."""
    lane, things = street.half / 2, []
    if rng.random() < 0.6:
        things.append(_vehicle(rng, -lane, _near(rng, 12, 50), rng.normal(0, 0.05)))
    for z in [_near(rng, 7, 70) for _ in range(rng.integers(0, 4))]:
        things.append(_vehicle(rng, lane, z, np.pi + rng.normal(0, 0.06)))
    if street.crossing[0] < FAR and rng.random() < 0.6:
        middle = sum(street.crossing) / 2
        things.append(_vehicle(rng, rng.uniform(-2, 2) * street.half, middle, np.pi / 2 * rng.choice((-1, 1))))
    for _ in range(rng.integers(0, 6)):
        side, z = rng.choice((-1, 1)), _near(rng, 6, 32)
        yaw = rng.normal(0, 0.35) if rng.random() < 0.6 else rng.uniform(0.9, 2.2)
        x = side * (street.half - rng.uniform(0.4, 2.6))
        things.append(Thing(objects.paint_bicycle, x, z, (0.6, 1.8, 1.7), yaw))
    if rng.random() < 0.25:
        x, z = rng.uniform(-1, 1) * street.half, _near(rng, 8, 30)
        things.append(Thing(objects.paint_pedestrian, x, z, (0.5, rng.uniform(1.5, 1.9), 0.4)))
    return things


def _box(thing: Thing) -> np.ndarray:
    """Gives the corners of the box (8, 3) around a thing, those on the ground first."""
    width, height, length = thing.size
    corners = np.zeros((8, 3))
    corners[:, ::2] = np.array(((-1, -1), (1, -1), (1, 1), (-1, 1)) * 2) * (width / 2, length / 2)
    corners[4:, 1] = height
    if thing.paint is objects.paint_building:  # its place is the facade, not the middle
        corners[:, 0] += np.sign(thing.x) * width / 2
    return objects.world(thing, corners)


def _in_view(camera: Camera, boxes: np.ndarray) -> np.ndarray:
    """Tells which boxes (T, 8, 3) the camera may see: bool (T,)."""
    across = camera.project(boxes)[..., 0] / camera.size[1]
    margin = 2 * camera.focal[0] / np.maximum(boxes[..., 2], NEAR)  # the arms of lamps reach out of their boxes
    return ((across + margin).max(1) > 0) & ((across - margin).min(1) < 1)


def _cast_shadows(canvas: Canvas, things: list[Thing], boxes: np.ndarray) -> None:
    """Fills the canvas's shadow with the boxes (T, 8, 3) of things, laid flat on the ground away from the sun."""
    sun = canvas.light.sun
    flat = boxes * (1, 0, 1) - boxes[..., 1:2] * np.array((sun[0], 0.0, sun[2])) / sun[1]
    scale = np.array(canvas.shadow.shape[::-1]) / canvas.camera.size[::-1]
    for thing, outline in zip(things, fixed_point(canvas.camera.project(flat) * scale), strict=True):
        darkness = 0.6 if thing.paint is objects.paint_tree else 0.9
        cv2.fillConvexPoly(canvas.shadow, cv2.convexHull(outline), darkness, shift=4)


def _paint_backdrop(canvas: Canvas, rng: np.random.Generator, street: Street) -> None:
    """Paints sky and ground, at the final resolution as their edges are smooth anyway, and enlarges them."""
    height, width = canvas.shadow.shape
    backdrop = np.empty((height, width, 4), np.float32)
    x, z = canvas.camera.ground(height, width)
    top = int(np.count_nonzero(np.isinf(z)))
    backdrop[..., 3] = canvas.begin("Sky", depth=0.0, grain=0.0)
    backdrop[..., :3] = _sky(canvas, rng, height, width)
    numbers = [canvas.begin(name, grain=0.02) for name in ("Road", "Pavement", "Tree")]
    backdrop[top:, :, :3], kinds = _ground(canvas, rng, street, x[top:], np.minimum(z[top:], 400))
    backdrop[top:, :, 3] = np.array(numbers, np.float32)[kinds]
    size = canvas.camera.size[::-1]
    canvas.pixels = cv2.resize(backdrop, size, interpolation=cv2.INTER_LINEAR)
    canvas.pixels[..., 3] = cv2.resize(backdrop[..., 3], size, interpolation=cv2.INTER_NEAREST)


def _sky(canvas: Canvas, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draws a gradient with clouds: float32 (height, width, 3)."""
    zenith = np.array(((0.35, 0.52, 0.80), (0.62, 0.68, 0.74), (0.85, 0.87, 0.88), (0.45, 0.42, 0.50))[rng.integers(4)])
    low = zenith + (np.array((0.92, 0.88, 0.82)) - zenith) * rng.uniform(0.3, 1.0)
    down = np.clip(np.linspace(0, 1, height) / canvas.camera.horizon[1], 0, 1)[:, None, None]
    clouds = cv2.resize(canvas.patch(rng, 96, 48), (width, height), interpolation=cv2.INTER_LINEAR)
    cover = np.clip(0.5 * clouds + rng.uniform(-0.8, 0.6), 0, 0.8)[..., None]
    sky, white = (zenith + (low - zenith) * down).astype(np.float32), np.float32(rng.uniform(0.6, 1.0))
    bright = float(canvas.light.ambient.mean() + 0.7 * canvas.light.direct.mean())
    return (sky + cover * (white - sky)) * min(1.15, 0.35 + 0.75 * bright)


def _stripe(distance: np.ndarray, half: float, pixel: np.ndarray) -> np.ndarray:
    """Gives how much of each pixel a painted line covers, from the distance to its middle and the size of a pixel."""
    return np.clip((half - np.abs(distance)) / pixel + 0.5, 0, np.minimum(1, 2 * half / pixel))


def _ground(canvas: Canvas, rng: np.random.Generator, street: Street, x: np.ndarray,
            z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draws the road with its markings and wear, the pavements with their kerbs, and what lies beyond.

    Args:
        canvas: Gives the noise, the shadows and the light.
        rng: Source of randomness.
        street: The ground plan.
        x: float32 (H, W), the place on the ground behind each pixel.
        z: float32 (H, 1), likewise.

    Returns:
        Colours, float32 (H, W, 3), and what is there, (H, W): 0 the road, 1 pavement, 2 grass.
    """
    pixel = z / np.float32(canvas.camera.focal[0] * x.shape[1])
    outside = np.abs(x) - np.float32(street.half)
    side_street = (z > street.crossing[0]) & (z < street.crossing[1])
    road = (outside < 0) | side_street
    paved = (outside < np.where(x < 0, *map(np.float32, street.pavements))) | ~np.where(x < 0, *street.greens)
    kinds = np.where(road, 0, np.where(paved, 1, 2))

    coarse, fine = (cv2.remap(canvas.noise, x * scale, np.broadcast_to(z * scale, x.shape), cv2.INTER_LINEAR,
                              borderMode=cv2.BORDER_WRAP) for scale in map(np.float32, (4.0, 30.0)))
    tone = 1 + 0.07 * coarse + 0.07 * fine / (1 + 20 * pixel)  # texture finer than a pixel averages out
    asphalt = -0.25 * (coarse > rng.uniform(0.9, 2.0)) - 0.06 * np.cos(x * 3.5)  # newer patches and wheel tracks
    joints = _stripe((z % 0.9) - 0.45, 0.03, pixel) + _stripe((x % 0.7) - 0.35, 0.02, pixel)
    kerb = 0.25 * _stripe(outside - 0.1, 0.1, pixel) - 0.4 * _stripe(outside - 0.01, 0.04, pixel)  # top, shaded face
    slabs = kerb - rng.uniform(0, 0.3) * joints
    tone += np.where(road, asphalt, np.where(paved, slabs, 0.15 * fine))
    colors = (pick(rng, objects.STONE[1:2]) * 0.75, pick(rng, objects.STONE[:3]) * 0.85,
              pick(rng, objects.LEAVES) * 1.3)
    ground = np.array(colors, np.float32)[kinds] * tone[..., None]

    worn = np.clip(0.8 + 0.25 * coarse, 0.1, 1) * (road & ~side_street)
    stop = _stripe(z - street.crossing[0] + 1.5, 0.18, pixel) * (x < 0)
    white = np.maximum(stop, _stripe(x, street.dash, pixel) * (z % 6 < 3.5))
    for coverage, color in ((white, np.array((0.8, 0.8, 0.78))),
                            (_stripe(outside + 0.35, 0.06, pixel), street.kerb_line)):
        ground += (coverage * worn)[..., None] * (color.astype(np.float32) - ground)

    sunshine = tinted(canvas.light.direct * canvas.light.sun[1], 1 - canvas.shadow[-len(x):])
    return ground * (sunshine + canvas.light.ambient.astype(np.float32)), kinds


def _paint_bonnet(canvas: Canvas, rng: np.random.Generator) -> None:
    """Paints the front of the car that carries the camera, which has no class."""
    canvas.begin("Void", depth=1.0, grain=0.02)
    color = pick(rng, objects.PAINT) * canvas.light.ambient
    across, height, middle = np.linspace(-0.05, 1.05, 12), rng.uniform(0.03, 0.09), rng.uniform(0.3, 0.7)
    for level, brightness in ((1.0, 0.7), (0.75, 1.1), (0.4, 0.8)):  # bands that mirror the sky
        edge = 1 - level * height * (1 - 1.5 * (across - middle) ** 2)
        points = [*np.stack((across, edge), 1), (1.05, 1.1), (-0.05, 1.1)]
        canvas.fill(np.array(points) * canvas.camera.size[::-1], color * brightness)


def _finish(
    canvas: Canvas, rng: np.random.Generator, height: int, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shrinks the canvas to the final size, adds the air and the camera's flaws, and looks up the labels."""
    offset = SUPERSAMPLE // 2
    numbers = np.rint(canvas.pixels[offset::SUPERSAMPLE, offset::SUPERSAMPLE, 3]).astype(np.int32)
    image = cv2.resize(canvas.pixels, (width, height), interpolation=cv2.INTER_AREA)[..., :3].copy()

    texture = cv2.resize(canvas.patch(rng, 96, 128), (width, height), interpolation=cv2.INTER_LINEAR)
    image *= 1 + (np.array(canvas.grains, np.float32)[numbers] * texture)[..., None]
    depth = np.array(canvas.depths, np.float32)[numbers]
    depth = np.where(np.isnan(depth), np.minimum(canvas.camera.ground(height, width)[1], 300), depth)
    haze = 1 - np.exp(-depth / np.float32(_near(rng, 60, 900)))[..., None]
    air = (canvas.light.ambient + 0.35 * canvas.light.direct).astype(np.float32) * np.float32(0.9)
    image += haze * (air - image)

    target = np.array(canvas.classes, np.uint8)[numbers]
    border = np.zeros((height, width), bool)
    border[:, 1:] |= target[:, 1:] != target[:, :-1]
    border[1:] |= target[1:] != target[:-1]
    target[border & (texture > rng.uniform(0.6, 1.2))] = IGNORE_INDEX
    return _expose(image, rng), target, _number_instances(target, numbers)


def _expose(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turns light into what a cheap camera records: float32 (H, W, 3) to uint8 (H, W, 3)."""
    height, width, _ = image.shape
    balance = 1 + rng.normal(0, 0.03, 3)
    image = np.maximum(image * (balance * rng.uniform(0.8, 1.3)).astype(np.float32), 0)
    image = np.clip(image, 0, 1) ** np.float32(rng.uniform(0.7, 1.1))
    contrast, blur, noise = rng.uniform(0.75, 1.15), rng.uniform(0, 0.7), rng.uniform(0.005, 0.035)
    image = (image - 0.45) * contrast + 0.45
    if blur > 0.25:
        image = cv2.GaussianBlur(image, (3, 3), blur)
    image += np.float32(noise) * rng.standard_normal((height, width, 3), dtype=np.float32)
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _number_instances(target: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Numbers the visible objects 1, 2, ...; those too small to be told become void in `target`, in place.

    Args:
        target: uint8 (H, W) train ids.
        numbers: int32 (H, W) numbers of the painted objects.

    Returns:
        int32 (H, W), 0 where there is no such object.
    """
    counted = np.where(HAS_INSTANCES[target], numbers, 0)  # 0 is the sky's number
    kept = np.bincount(counted.ravel()) >= MIN_INSTANCE_PIXELS
    kept[0] = False
    instances = np.where(kept, np.cumsum(kept), 0).astype(np.int32)[counted]
    target[(counted > 0) & (instances == 0)] = IGNORE_INDEX
    return instances
