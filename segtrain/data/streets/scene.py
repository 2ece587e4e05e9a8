"""Draw a scene: choose the world, paint it from far to near, and photograph it with a cheap camera."""

import zlib

import cv2
import numpy as np

from segtrain.data.camvid import CAMVID
from segtrain.data.streets.canvas import LEAVES, STONE, Canvas, draw_noise, pick, tint, to_fixed_point, to_planes
from segtrain.data.streets.layout import lay_out
from segtrain.data.streets.objects import paint_bonnet, paint_building, paint_tree
from segtrain.data.streets.shapes import Thing
from segtrain.data.streets.world import NEAR, Camera, Street, draw_camera, draw_distance, draw_light, draw_street
from segtrain.labels import IGNORE_INDEX

SUPERSAMPLE = 2  # the canvas has so many times the rows and columns of the finished image
MIN_INSTANCE_PIXELS = 4
HAS_INSTANCES = np.isin(np.arange(256), [label.train_id for label in CAMVID if label.has_instances])  # by train id
UNIT_BOX = np.array([(x, y, z) for y in (0, 1) for x, z in ((-1, -1), (1, -1), (1, 1), (-1, 1))])
GROUND = ("Road", "Pavement", "Tree")  # the classes of the kinds of ground; grass counts as trees


def draw_scene(
    seed: int, split: str, index: int, height: int = 128, width: int = 192
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw one street scene, of at least 32x32 pixels; the same arguments always give the same scene.

    Returns:
        The image, uint8 (height, width, 3), RGB; the target, uint8 (height, width), train ids in the order of
        `CAMVID` or 255 for void; and the instances, int32 (height, width), 1, 2, ... for the visible pixels of
        each separate object of a class that has instances, 0 elsewhere.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(split.encode()), index]))
    street, light = draw_street(rng), draw_light(rng)
    camera = draw_camera(rng, street.half, (height * SUPERSAMPLE, width * SUPERSAMPLE))
    canvas = Canvas(camera, light, draw_noise(rng, 256, 0.75), np.zeros((height, width), np.float32))
    # Along any line of sight both terms grow; the second one tells what is abreast apart, the outer being farther.
    things = sorted(lay_out(rng, street), key=lambda t: -(t.z + t.bias + 1.5 * abs(t.x - camera.x)))
    boxes = np.array([_find_box(thing) for thing in things])
    _cast_shadows(canvas, things, boxes)
    _paint_backdrop(canvas, rng, street)
    for thing, visible in zip(things, _find_visible(camera, boxes), strict=True):
        if visible:
            thing.paint(canvas, thing, rng)
    if rng.random() < 0.3:
        paint_bonnet(canvas, rng)
    return _finish(canvas, rng)


def _find_box(thing: Thing) -> np.ndarray:
    """Return the corners of the box (8, 3) around a thing, those on the ground first."""
    width, height, length = thing.size
    corners = UNIT_BOX * (width / 2, height, length / 2)
    if thing.paint is paint_building:  # its place is the facade, not the middle
        corners[:, 0] += np.sign(thing.x) * width / 2
    return thing.to_world(corners)


def _find_visible(camera: Camera, boxes: np.ndarray) -> np.ndarray:
    """Return which boxes (T, 8, 3) the camera may see: bool (T,)."""
    across = camera.project(boxes)[..., 0] / camera.size[1]
    margin = 2 * camera.focal[0] / np.maximum(boxes[..., 2], NEAR)  # the arms of lamps reach out of their boxes
    return ((across + margin).max(1) > 0) & ((across - margin).min(1) < 1)


def _cast_shadows(canvas: Canvas, things: list[Thing], boxes: np.ndarray) -> None:
    """Fill the canvas's shadow with the boxes (T, 8, 3) of things, laid flat on the ground away from the sun."""
    sun = canvas.light.sun
    flat = boxes * (1, 0, 1) - boxes[..., 1:2] * np.array((sun[0], 0.0, sun[2])) / sun[1]
    scale = np.array(canvas.shadow.shape[::-1]) / canvas.camera.size[::-1]
    for thing, outline in zip(things, to_fixed_point(canvas.camera.project(flat) * scale), strict=True):
        darkness = 0.6 if thing.paint is paint_tree else 0.9
        cv2.fillConvexPoly(canvas.shadow, cv2.convexHull(outline), darkness, shift=4)


def _paint_backdrop(canvas: Canvas, rng: np.random.Generator, street: Street) -> None:
    """Paint sky and ground, at the final resolution as their edges are smooth anyway, and enlarge them."""
    height, width = canvas.shadow.shape
    backdrop = np.empty((4, height, width), np.float32)
    x, z = canvas.camera.ground(height, width)
    top = int(np.count_nonzero(np.isinf(z)))
    backdrop[3] = canvas.begin("Sky", depth=0.0, grain=0.0)
    backdrop[:3] = _draw_sky(canvas, rng, height, width)
    numbers = [canvas.begin(name, grain=0.02) for name in GROUND]
    backdrop[:3, top:], kinds = _draw_ground(canvas, rng, street, x[top:], np.minimum(z[top:], 400))
    backdrop[3, top:] = np.array(numbers, np.float32).take(kinds)
    size = canvas.camera.size[::-1]
    canvas.pixels = cv2.resize(cv2.merge([*backdrop]), size, interpolation=cv2.INTER_LINEAR)
    canvas.pixels[..., 3] = cv2.resize(backdrop[3], size, interpolation=cv2.INTER_NEAREST)


def _draw_sky(canvas: Canvas, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draw a gradient with clouds: float32 (3, height, width)."""
    zenith = np.array(((0.35, 0.52, 0.80), (0.62, 0.68, 0.74), (0.85, 0.87, 0.88), (0.45, 0.42, 0.50))[rng.integers(4)])
    low = zenith + (np.array((0.92, 0.88, 0.82)) - zenith) * rng.uniform(0.3, 1.0)
    down = np.clip(np.linspace(0, 1, height) / canvas.camera.horizon[1], 0, 1)
    clouds = cv2.resize(canvas.patch(rng, 96, 48), (width, height), interpolation=cv2.INTER_LINEAR)
    cover = np.clip(0.5 * clouds + rng.uniform(-0.8, 0.6), 0, 0.8)
    clear = (zenith[:, None] + (low - zenith)[:, None] * down).astype(np.float32)[..., None]
    white = np.float32(rng.uniform(0.6, 1.0))
    bright = float(canvas.light.ambient.mean() + 0.7 * canvas.light.direct.mean())
    return (clear + cover * (white - clear)) * min(1.15, 0.35 + 0.75 * bright)


def _draw_ground(canvas: Canvas, rng: np.random.Generator, street: Street, x: np.ndarray,
                 z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draw the road with its markings and wear, the pavements with their kerbs, and what lies beyond.

    The place on the ground behind each pixel is x, float32 (H, W), and z, float32 (H, 1).

    Returns:
        Colours, float32 (3, H, W), and what is there, (H, W), indices into `GROUND`.
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
    joints = _cover((z % 0.9) - 0.45, 0.03, pixel) + _cover((x % 0.7) - 0.35, 0.02, pixel)
    kerb = 0.25 * _cover(outside - 0.1, 0.1, pixel) - 0.4 * _cover(outside - 0.01, 0.04, pixel)  # top, shaded face
    slabs = kerb - rng.uniform(0, 0.3) * joints
    tone += np.where(road, asphalt, np.where(paved, slabs, 0.15 * fine))
    colors = (pick(rng, STONE[1:2]) * 0.75, pick(rng, STONE[:3]) * 0.85, pick(rng, LEAVES) * 1.3)
    ground = np.array(colors, np.float32).T.take(kinds, axis=1) * tone

    worn = np.clip(0.8 + 0.25 * coarse, 0.1, 1) * (road & ~side_street)
    stop = _cover(z - street.crossing[0] + 1.5, 0.18, pixel) * (x < 0)
    dashes = _cover(x, street.dash, pixel) * (z % 6 < 3.5)
    for coverage, color in ((np.maximum(stop, dashes), np.array((0.8, 0.8, 0.78))),
                            (_cover(outside + 0.35, 0.06, pixel), street.kerb_line)):
        ground += coverage * worn * (to_planes(color) - ground)

    sunshine = tint(canvas.light.direct * canvas.light.sun[1], 1 - canvas.shadow[-len(x):])
    return ground * (sunshine + to_planes(canvas.light.ambient)), kinds


def _cover(distance: np.ndarray, half: float, pixel: np.ndarray) -> np.ndarray:
    """Return how much of each pixel a painted line covers, from the distance to its middle and the size of a pixel."""
    return np.clip((half - np.abs(distance)) / pixel + 0.5, 0, np.minimum(1, 2 * half / pixel))


def _finish(canvas: Canvas, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shrink the canvas to the final size, add the air and the camera's flaws, and look up the labels."""
    height, width = canvas.shadow.shape
    offset = SUPERSAMPLE // 2
    numbers = canvas.pixels[offset::SUPERSAMPLE, offset::SUPERSAMPLE, 3].astype(np.int32)
    small = cv2.resize(canvas.pixels, (width, height), interpolation=cv2.INTER_AREA)
    image: np.ndarray = np.ascontiguousarray(small.transpose(2, 0, 1)[:3])

    texture = cv2.resize(canvas.patch(rng, 96, 128), (width, height), interpolation=cv2.INTER_LINEAR)
    image *= 1 + np.array(canvas.grains, np.float32).take(numbers) * texture
    depth = np.array(canvas.depths, np.float32).take(numbers)
    depth = np.where(np.isnan(depth), np.minimum(canvas.camera.ground(height, width)[1], 300), depth)
    haze = 1 - np.exp(-depth / np.float32(draw_distance(rng, 60, 900)))
    air = to_planes(canvas.light.ambient + 0.35 * canvas.light.direct) * np.float32(0.9)
    image += haze * (air - image)

    target = np.array(canvas.classes, np.uint8).take(numbers)
    border = np.zeros((height, width), bool)
    border[:, 1:] |= target[:, 1:] != target[:, :-1]
    border[1:] |= target[1:] != target[:-1]
    target[border & (texture > rng.uniform(0.6, 1.2))] = IGNORE_INDEX
    return _expose(image, rng), target, _number_instances(target, numbers)


def _expose(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turn light into what a cheap camera records: float32 (3, H, W) to uint8 (H, W, 3)."""
    balance = 1 + rng.normal(0, 0.03, 3)
    image = np.clip(image * to_planes(balance * rng.uniform(0.8, 1.3)), 0, 1) ** np.float32(rng.uniform(0.7, 1.1))
    contrast, blur, noise = rng.uniform(0.75, 1.15), rng.uniform(0, 0.7), rng.uniform(0.005, 0.035)
    image = cv2.merge([*((image - 0.45) * contrast + 0.45)])
    if blur > 0.25:
        image = cv2.GaussianBlur(image, (3, 3), blur)
    image += np.float32(noise) * rng.standard_normal(image.shape, dtype=np.float32)
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _number_instances(target: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Number the visible objects 1, 2, ... in int32 (H, W), 0 elsewhere, from the numbers of the painted objects.

    Those too small to recognise become void in `target`, in place.
    """
    counted = np.where(HAS_INSTANCES[target], numbers, 0)  # 0 is the sky's number
    kept = np.bincount(counted.ravel()) >= MIN_INSTANCE_PIXELS
    kept[0] = False
    instances = np.where(kept, np.cumsum(kept), 0).astype(np.int32)[counted]
    target[(counted > 0) & (instances == 0)] = IGNORE_INDEX
    return instances
