"""What stands in a synthetic street, and the perspective canvas it is painted on.

World coordinates are metres: x to the right of the road's middle, y up from the ground, z ahead of the camera. Colours
are (red, green, blue) floats, nominally 0..1.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import ArrayLike

from segtrain.labels import CAMVID, IGNORE_INDEX

TRAIN_IDS = {label.name: label.train_id for label in CAMVID} | {"Void": IGNORE_INDEX}
NEAR = 1.2  # metres: nothing is drawn closer, so that no projection divides by nearly zero
TOWARDS_CAMERA = (0.0, 0.3, -1.0)

# Nearly every material shares its colours with another one, so that colour alone does not give the class away.
STONE = ((0.62, 0.58, 0.52), (0.45, 0.44, 0.43), (0.72, 0.70, 0.66), (0.55, 0.33, 0.26), (0.66, 0.55, 0.40))
PAINT = ((0.85, 0.85, 0.86), (0.09, 0.09, 0.10), (0.48, 0.49, 0.51), (0.55, 0.08, 0.08), (0.10, 0.20, 0.42))
CLOTH = STONE + PAINT + ((0.20, 0.30, 0.18), (0.80, 0.72, 0.20), (0.16, 0.16, 0.24), (0.42, 0.28, 0.40))
LEAVES = ((0.20, 0.30, 0.12), (0.30, 0.34, 0.16), (0.38, 0.30, 0.15), (0.15, 0.22, 0.14))
METAL = ((0.25, 0.26, 0.27), (0.50, 0.51, 0.50), (0.12, 0.17, 0.14), (0.36, 0.33, 0.28))
SIGNS = ((0.75, 0.10, 0.12), (0.10, 0.25, 0.62), (0.88, 0.88, 0.86), (0.85, 0.68, 0.10), (0.10, 0.38, 0.22))
GLASS = np.array((0.10, 0.12, 0.15))


def pick(rng: np.random.Generator, palette: tuple[tuple[float, float, float], ...]) -> np.ndarray:
    """Draws a colour near one of a palette: float (3,)."""
    choice, brightness, *tint = rng.random(5).tolist()
    return np.array(palette[int(choice * len(palette))]) * (0.75 + 0.45 * brightness) + 0.07 * (np.array(tint) - 0.5)


def tinted(color: np.ndarray, tone: np.ndarray) -> np.ndarray:
    """Multiplies a colour (C,) by a picture of brightness (H, W): float32 (H, W, C)."""
    return tone[..., None].astype(np.float32) * color.astype(np.float32)


def fractal(rng: np.random.Generator, size: int, persistence: float) -> np.ndarray:
    """Draws noise of several scales, zero mean, unit deviation.

    Args:
        rng: Source of randomness.
        size: Side, a power of two of at least 8.
        persistence: Amplitude of each octave relative to the next coarser one: small is soft, 1 is rough.

    Returns:
        float32 (size, size).
    """
    total, amplitude, cells = np.zeros((size, size), np.float32), 1.0, 4
    while cells <= size:
        grid = rng.random((cells, cells), dtype=np.float32)
        total += amplitude * cv2.resize(grid, (size, size), interpolation=cv2.INTER_LINEAR)
        cells, amplitude = cells * 2, amplitude * persistence
    return (total - total.mean()) / total.std()


@dataclass(frozen=True)
class Camera:
    """A pinhole camera over a road that bends sideways by `curve` * z**2.

    Attributes:
        size: (height, width) of the canvas in pixels.
        horizon: (column, row) of the vanishing point, relative to the canvas.
        focal: (horizontal, vertical) focal length, relative to the canvas.
        x: Sideways position.
        height: Height over the ground.
        curve: Bend of the road, 1/metre.
    """

    size: tuple[int, int]
    horizon: tuple[float, float]
    focal: tuple[float, float]
    x: float
    height: float
    curve: float

    def project(self, points: np.ndarray) -> np.ndarray:
        """Projects world points (..., 3) to canvas pixels (..., 2)."""
        (rows, columns), z = self.size, np.maximum(points[..., 2], NEAR)
        pixels = np.empty((*z.shape, 2))
        pixels[..., 0] = ((points[..., 0] - self.x) / z + self.curve * z) * (self.focal[0] * columns)
        pixels[..., 1] = (self.height - points[..., 1]) / z * (self.focal[1] * rows)
        return pixels + np.array((self.horizon[0] * columns, self.horizon[1] * rows))

    def ground(self, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
        """Finds the ground behind each pixel of a raster: x (rows, columns) and z (rows, 1), infinite in the sky."""
        below = (np.arange(rows, dtype=np.float32)[:, None] + 0.5) / rows - self.horizon[1]
        z = np.where(below > 0, self.focal[1] * self.height / np.maximum(below, 1e-6), np.inf).astype(np.float32)
        across = (np.arange(columns, dtype=np.float32)[None] + 0.5) / columns - self.horizon[0]
        finite = np.minimum(z, 1e3)
        return across * finite / self.focal[0] + np.float32(self.x) - np.float32(self.curve) * finite * finite, z


@dataclass(frozen=True)
class Light:
    """The weather of one scene.

    Attributes:
        sun: Unit vector towards the sun.
        ambient: Colour (3,) of the light from the whole sky.
        direct: Colour (3,) of the light from the sun.
    """

    sun: tuple[float, float, float]
    ambient: np.ndarray
    direct: np.ndarray

    def shade(self, normal: tuple[float, float, float], lit: float = 1.0) -> np.ndarray:
        """Gives the light (3,) on a surface with a normal of any length, `lit` of whose sunshine is not blocked."""
        (x, y, z), length = normal, math.hypot(*normal)
        facing = (x * self.sun[0] + y * self.sun[1] + z * self.sun[2]) / length
        return self.ambient * (0.85 + 0.15 * y / length) + self.direct * (max(0.0, facing) * lit)


@dataclass(frozen=True)
class Thing:
    """One object of a scene.

    Attributes:
        paint: Draws it on a canvas.
        x, z: Its middle on the ground.
        size: (width, height, length) along x, y and z.
        yaw: Turn around the vertical in radians; 0 looks away from the camera.
        style: Which variant of it `paint` draws.
        bias: Metres by which it is painted as if it stood farther away than its middle.
    """

    paint: Callable[["Canvas", "Thing", np.random.Generator], None]
    x: float
    z: float
    size: tuple[float, float, float]
    yaw: float = 0.0
    style: str = ""
    bias: float = 0.0


@dataclass
class Canvas:
    """A picture in the making.

    Attributes:
        camera: Where it is seen from.
        light: How it is lit.
        noise: float32 (N, N) fractal noise for textures.
        shadow: float32, of any size: how much of the sun is blocked on the ground.
        pixels: float32 (H, W, 4): red, green, blue and the number of the painted object in the tables below; the
            backdrop provides them.
        classes, depths, grains: Per object: its train id, its depth in metres (NaN: the ground's) and the strength of
            its surface texture.
    """

    camera: Camera
    light: Light
    noise: np.ndarray
    shadow: np.ndarray
    pixels: np.ndarray = field(init=False)
    classes: list[int] = field(default_factory=list)
    depths: list[float] = field(default_factory=list)
    grains: list[float] = field(default_factory=list)

    def begin(self, name: str, depth: float = np.nan, grain: float = 0.04) -> int:
        """Starts a new object: what is painted from now on belongs to it. Returns its number."""
        self.classes.append(TRAIN_IDS[name])
        self.depths.append(depth)
        self.grains.append(grain)
        return len(self.classes) - 1

    def fill(self, polygons: np.ndarray, color: np.ndarray) -> None:
        """Fills one convex polygon (N, 2) or several (P, N, 2), in pixels."""
        value = (*color.tolist(), len(self.classes) - 1)
        for points in fixed_point(polygons).reshape(-1, *polygons.shape[-2:]):
            cv2.fillConvexPoly(self.pixels, points, value, shift=4)

    def texture(self, quad: np.ndarray, tile: np.ndarray, threshold: float = 0.5) -> None:
        """Stretches a picture over a quadrilateral.

        Args:
            quad: (4, 2) pixels where the tile's bottom left, bottom right, top right and top left corners land.
            tile: float32 (h, w, 4): colour multiplied by opacity, and opacity.
            threshold: The opacity from which a pixel is labelled; lower lets the background shine through a label.
        """
        height, width = self.pixels.shape[:2]
        columns, rows = quad.T.tolist()
        left, right = max(int(min(columns)), 0), min(int(max(columns)) + 1, width)
        top, bottom = max(int(min(rows)), 0), min(int(max(rows)) + 1, height)
        if right <= left or bottom <= top:
            return
        h, w = tile.shape[:2]
        corners = np.array(((0, h), (w, h), (w, 0), (0, 0)), np.float32) - 0.5
        matrix = cv2.getPerspectiveTransform(corners, (quad - (left + 0.5, top + 0.5)).astype(np.float32))
        warped = cv2.warpPerspective(tile, matrix, (right - left, bottom - top))
        region, opacity = self.pixels[top:bottom, left:right], warped[..., 3]
        number = np.where(opacity > threshold, np.float32(len(self.classes) - 1), region[..., 3])
        region *= 1 - warped[..., 3:]
        region += warped
        region[..., 3] = number

    def patch(self, rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
        """Cuts a random piece (rows, columns) out of the noise; neither may exceed half of the noise's side."""
        top, left = rng.integers(len(self.noise) // 2, size=2)
        return self.noise[top : top + rows, left : left + columns]

    def lit(self, thing: Thing) -> float:
        """Tells how much sunshine reaches a thing, from the shadow where it stands."""
        column, row = self.camera.project(np.array((thing.x, 0.0, thing.z))).tolist()
        height, width = self.shadow.shape
        row, column = row * height / self.camera.size[0], column * width / self.camera.size[1]
        return 1.0 - float(self.shadow[int(min(max(row, 0), height - 1)), int(min(max(column, 0), width - 1))])


def fixed_point(points: np.ndarray) -> np.ndarray:
    """Converts pixels to the fixed-point integers, with 4 fractional bits, that OpenCV draws with."""
    return np.rint(points * 16).astype(np.int32)


def inset(quad: np.ndarray, rectangles: ArrayLike) -> np.ndarray:
    """Places rectangles in a quadrilateral.

    Args:
        quad: (4, 2): bottom left, bottom right, top right, top left.
        rectangles: (P, 4): left, right, bottom and top of each, relative to the quadrilateral.

    Returns:
        (P, 4, 2), corners in the order of `quad`.
    """
    left, right, bottom, top = np.asarray(rectangles, np.float64).T
    u, v = (np.stack(s, axis=1)[..., None] for s in ((left, right, right, left), (bottom, bottom, top, top)))
    return (1 - v) * ((1 - u) * quad[0] + u * quad[1]) + v * ((1 - u) * quad[3] + u * quad[2])


class Sprite:
    """Draws flat figures that face the camera, in metres around the foot of a thing."""

    def __init__(self, canvas: Canvas, thing: Thing) -> None:
        self.canvas = canvas
        self.light = canvas.light.shade(TOWARDS_CAMERA, canvas.lit(thing)) + 0.15 * canvas.light.direct
        self.origin = canvas.camera.project(np.array((thing.x, 0.0, thing.z)))
        height, width = canvas.camera.size
        self.scale = np.array((canvas.camera.focal[0] * width, -canvas.camera.focal[1] * height)) / thing.z

    def polygon(self, points: ArrayLike, color: np.ndarray) -> None:
        """Fills one convex polygon (N, 2) or several (P, N, 2)."""
        self.canvas.fill(self.origin + np.asarray(points) * self.scale, np.asarray(color) * self.light)

    def disc(self, center: tuple[float, float], radii: tuple[float, float], color: np.ndarray, sides: int = 12) -> None:
        """Fills a regular polygon: a disc when it has many sides, and a triangle with three points upwards."""
        angles = np.arange(sides) * (2 * np.pi / sides) + np.pi / 2
        self.polygon(np.array(center) + np.stack((np.cos(angles), np.sin(angles)), 1) * radii, color)

    def stroke(self, points: ArrayLike, width: float, color: np.ndarray) -> None:
        """Draws a line through points (N, 2)."""
        through = np.asarray(points)
        self.lines(np.stack((through[:-1], through[1:]), 1), width, color)

    def lines(self, ends: ArrayLike, width: float, color: np.ndarray) -> None:
        """Draws separate lines (P, 2, 2), none of them so thin that the labels would miss it."""
        pairs = np.asarray(ends)
        start, end = pairs[:, 0], pairs[:, 1]
        along = end - start
        length = np.hypot(along[:, 0], along[:, 1]) + 1e-9
        across = along[:, ::-1] * (-1, 1) * (max(width, 1 / self.scale[0]) / 2 / length)[:, None]
        self.polygon(np.stack((start - across, end - across, end + across, start + across), 1), color)


def panel(canvas: Canvas, x: float, near: float, far: float, height: float) -> np.ndarray:
    """Projects an upright panel along the road: its corners (4, 2) in pixels, from its near bottom round to its top."""
    return canvas.camera.project(np.array(((x, 0, near), (x, 0, far), (x, height, far), (x, height, near))))


def world(thing: Thing, local: np.ndarray) -> np.ndarray:
    """Turns and moves points (..., 3) from a thing's own axes into the world."""
    cosine, sine = np.cos(thing.yaw), np.sin(thing.yaw)
    turn = np.array(((cosine, 0.0, -sine), (0.0, 1.0, 0.0), (sine, 0.0, cosine)))
    return local @ turn + (thing.x, 0.0, thing.z)


# The faces of a block: their corners from the bottom left, counter-clockwise seen from outside, 0-3 being the base;
# and their normals, which lean upwards as most faces do.
FACES = {
    "back": ((0, 1, 5, 4), (0.0, 0.2, -1.0)),
    "right": ((1, 2, 6, 5), (1.0, 0.2, 0.0)),
    "front": ((2, 3, 7, 6), (0.0, 0.2, 1.0)),
    "left": ((3, 0, 4, 7), (-1.0, 0.2, 0.0)),
    "top": ((4, 5, 6, 7), (0.0, 1.0, 0.0)),
}


def block(canvas: Canvas, thing: Thing, base: tuple, top: tuple, color: np.ndarray) -> dict[str, np.ndarray]:
    """Paints the visible faces of a solid with a rectangular base and a rectangular top.

    Args:
        canvas: Where to paint.
        thing: Gives the place and the turn.
        base: (half width, back, front, height over the ground).
        top: The same of the top.
        color: (3,) colour before lighting.

    Returns:
        The corners (4, 2) in pixels of each visible face by its name.
    """
    corners = [(x, y, z) for half, back, front, y in (base, top) for x, z in
               ((-half, back), (half, back), (half, front), (-half, front))]
    pixels, lit, visible = canvas.camera.project(world(thing, np.array(corners))), canvas.lit(thing), {}
    cosine, sine = math.cos(thing.yaw), math.sin(thing.yaw)
    for name, (indices, (x, y, z)) in FACES.items():
        quad = pixels[list(indices)]
        (ax, ay), (bx, by) = (quad[2:] - quad[:2]).tolist()
        if ax * by - ay * bx < 0:
            canvas.fill(quad, color * canvas.light.shade((cosine * x + sine * z, y, cosine * z - sine * x), lit))
            visible[name] = quad
    return visible


# Per style of vehicle: (width, height, length), the height of the bonnet relative to the whole, and where the cabin
# begins and ends at its foot and at its roof, relative to the length.
VEHICLES = {
    "hatch": ((1.7, 1.45, 3.9), 0.60, (0.02, 0.74, 0.12, 0.56)),
    "saloon": ((1.8, 1.42, 4.6), 0.62, (0.12, 0.72, 0.26, 0.56)),
    "suv": ((1.9, 1.80, 4.6), 0.58, (0.01, 0.76, 0.05, 0.62)),
    "van": ((2.0, 2.30, 5.2), 0.45, (0.00, 0.92, 0.01, 0.80)),
    "bus": ((2.5, 3.30, 10.0), 0.40, (0.00, 1.00, 0.00, 0.99)),
}


def paint_vehicle(canvas: Canvas, thing: Thing, rng: np.random.Generator) -> None:
    """Paints a car, van or bus."""
    canvas.begin("Car", thing.z, grain=0.03)
    (_, bonnet, (foot_back, foot_front, roof_back, roof_front)) = VEHICLES[thing.style]
    width, height, length = thing.size
    color, half, back, front = pick(rng, PAINT + STONE[:2]), width / 2, -length / 2, length / 2
    waist = bonnet * height
    block(canvas, thing, (half * 0.9, back + 0.3, front - 0.3, 0.0), (half * 0.9, back + 0.1, front - 0.1, 0.4),
          np.array((0.04, 0.04, 0.045)))
    body = block(canvas, thing, (half, back, front, 0.28), (half * 0.97, back + 0.06, front - 0.1, waist), color)
    for side in ("left", "right"):
        if side in body:
            _paint_wheels(canvas, thing, -half if side == "left" else half)
    cabin = block(canvas, thing, (half * 0.95, back + foot_back * length, back + foot_front * length, waist),
                  (half * 0.78, back + roof_back * length, back + roof_front * length, height), color)
    glass = GLASS * rng.uniform(0.6, 1.6) + 0.12 * canvas.light.ambient * rng.random()
    for name, quad in cabin.items():
        if name in ("left", "right"):
            canvas.fill(inset(quad, ((0.07, 0.50, 0.12, 0.84), (0.54, 0.93, 0.12, 0.84))), glass)
        elif name != "top":
            canvas.fill(inset(quad, ((0.07, 0.93, 0.12, 0.86),)), glass)
    for name, lamp in (("back", (0.55, 0.05, 0.05)), ("front", (0.9, 0.9, 0.8))):
        if name in body and thing.z < 45:
            canvas.fill(inset(body[name], ((0.03, 0.18, 0.55, 0.85), (0.82, 0.97, 0.55, 0.85))), np.array(lamp))
            canvas.fill(inset(body[name], ((0.36, 0.64, 0.3, 0.5),)), canvas.light.ambient * (0.7, 0.7, 0.5))


def _paint_wheels(canvas: Canvas, thing: Thing, x: float) -> None:
    """Paints the two wheels on the side of a vehicle at its own coordinate x."""
    radius, angles = 0.33, np.arange(12) * (np.pi / 6)
    for middle in (-0.31 * thing.size[2], 0.31 * thing.size[2]):
        for size, color in ((radius, 0.035), (0.6 * radius, 0.3)):
            ring = np.stack((np.full(12, x * 1.01), radius + size * np.sin(angles), middle + size * np.cos(angles)), 1)
            canvas.fill(canvas.camera.project(world(thing, ring)), canvas.light.ambient * color)


def paint_pedestrian(canvas: Canvas, thing: Thing, rng: np.random.Generator) -> None:
    """Paints somebody walking or standing."""
    canvas.begin("Pedestrian", thing.z, grain=0.10)
    sprite, h = Sprite(canvas, thing), thing.size[1]
    coat, trousers = pick(rng, CLOTH), pick(rng, CLOTH)
    skin = np.array((0.75, 0.55, 0.44)) * rng.uniform(0.4, 1.1)
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
    sprite.disc(tuple(head), (0.10, 0.13), np.array((0.75, 0.55, 0.44)) * rng.uniform(0.4, 1.1))
    sprite.disc((head[0], head[1] + 0.05), (0.11, 0.09), pick(rng, CLOTH + SIGNS))


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
    sides = 4 if thing.style == "wall" else int(rng.choice((3, 4, 8, 16)))
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
    color = color * canvas.light.shade((-np.sign(thing.x), 0.3, -0.3), canvas.lit(thing))
    opacity = 1.0 if thing.style == "boards" else 0.12  # a little of the colour everywhere marks the whole panel
    canvas.texture(quad, np.full((2, 2, 4), (*(color * opacity), opacity), np.float32), threshold=opacity / 2)
    count = {"boards": 20, "railing": 24, "pickets": 18}[thing.style]
    share = {"boards": 0.9, "railing": 0.25, "pickets": 0.6}[thing.style]
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
    side = 44
    across = np.linspace(-1, 1, side, dtype=np.float32)[None]
    up = -across.T
    noise, lumps = canvas.patch(rng, side, side), cv2.resize(canvas.patch(rng, 16, 16), (side, side))
    noise, lumps = noise - noise.mean(), lumps - lumps.mean()  # so that no crown comes out empty
    edge = 1 - across**2 - (up * (0.8 if thing.style == "bush" else 1)) ** 2 + 0.22 * noise + 0.25 * lumps
    inside = (edge > 0.25) & (np.abs(across) < 0.99) & (np.abs(up) < 0.99)
    opacity = np.where(inside, np.clip(0.45 + 0.35 * noise, 0.2, 1) if thing.style == "bare" else 1, np.float32(0))
    sun_side = across * canvas.light.sun[0] + up * 0.7 - 0.2 * canvas.light.sun[2]
    brightness = np.clip(1 + 0.22 * sun_side + 0.3 * lumps + 0.2 * noise, 0.2, 2)[..., None]
    tile = tinted(np.append(leaves * sprite.light, 1), opacity)
    tile[..., :3] *= brightness
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
    canvas.texture(quad, facade(canvas, rng, wall, shade, max(1, int(height // 3)), max(2, int(length // 2.5))))


def facade(canvas: Canvas, rng: np.random.Generator, wall: np.ndarray, shade: np.ndarray, floors: int,
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
        float32 (12 * floors, 10 * bays, 4), colour and opacity.
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
    tile = tinted(np.append(wall * shade, 1), cell * texture)
    tile[..., 3] = 1
    colors = tile[..., :3]
    if rng.random() < 0.5:
        colors[-rows : -rows + 3] = pick(rng, CLOTH + SIGNS) * shade
    panes = np.repeat(np.repeat(rng.uniform(0.3, 1.6, (floors, bays)), rows, 0), columns, 1)
    colors += glazed[..., None] * (tinted(GLASS + 0.22 * rng.random() * canvas.light.ambient, panes) - colors)
    return tile
