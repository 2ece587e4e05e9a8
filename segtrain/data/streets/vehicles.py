"""Cars, vans and buses, and the bonnet of the one that carries the camera."""

import numpy as np

from segtrain.data.streets.canvas import Canvas
from segtrain.data.streets.colors import GLASS, PAINT, STONE, pick
from segtrain.data.streets.shapes import block, inset
from segtrain.data.streets.thing import Thing

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
    """Paints a car, van or bus."""
    canvas.begin("Car", thing.z, grain=0.03)
    _, bonnet, (foot_back, foot_front, roof_back, roof_front) = VEHICLES[thing.style]
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
    radius = 0.33
    for middle in (-0.31 * thing.size[2], 0.31 * thing.size[2]):
        for size, color in ((radius, 0.035), (0.6 * radius, 0.3)):
            ring = WHEEL * size + (x * 1.01, radius, middle)
            canvas.fill(canvas.camera.project(thing.to_world(ring)), canvas.light.ambient * color)


def paint_bonnet(canvas: Canvas, rng: np.random.Generator) -> None:
    """Paints the front of the car that carries the camera, which has no class."""
    canvas.begin("Void", depth=1.0, grain=0.02)
    color = pick(rng, PAINT) * canvas.light.ambient
    across, height, middle = np.linspace(-0.05, 1.05, 12), rng.uniform(0.03, 0.09), rng.uniform(0.3, 0.7)
    for level, brightness in ((1.0, 0.7), (0.75, 1.1), (0.4, 0.8)):  # bands that mirror the sky
        edge = 1 - level * height * (1 - 1.5 * (across - middle) ** 2)
        points = [*np.stack((across, edge), 1), (1.05, 1.1), (-0.05, 1.1)]
        canvas.fill(np.array(points) * canvas.camera.size[::-1], color * brightness)
