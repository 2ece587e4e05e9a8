"""What lies behind all things: the sky, and the ground with its markings and shadows."""

import cv2
import numpy as np

from segtrain.data.streets.canvas import Canvas
from segtrain.data.streets.colors import LEAVES, STONE, pick, planar, tinted
from segtrain.data.streets.street import Street

GROUND = ("Road", "Pavement", "Tree")  # the classes of the kinds of ground; grass counts as trees


def paint_backdrop(canvas: Canvas, rng: np.random.Generator, street: Street) -> None:
    """Paints sky and ground, at the final resolution as their edges are smooth anyway, and enlarges them."""
    height, width = canvas.shadow.shape
    backdrop = np.empty((4, height, width), np.float32)
    x, z = canvas.camera.ground(height, width)
    top = int(np.count_nonzero(np.isinf(z)))
    backdrop[3] = canvas.begin("Sky", depth=0.0, grain=0.0)
    backdrop[:3] = _sky(canvas, rng, height, width)
    numbers = [canvas.begin(name, grain=0.02) for name in GROUND]
    backdrop[:3, top:], kinds = _ground(canvas, rng, street, x[top:], np.minimum(z[top:], 400))
    backdrop[3, top:] = np.array(numbers, np.float32).take(kinds)
    size = canvas.camera.size[::-1]
    canvas.pixels = cv2.resize(cv2.merge([*backdrop]), size, interpolation=cv2.INTER_LINEAR)
    canvas.pixels[..., 3] = cv2.resize(backdrop[3], size, interpolation=cv2.INTER_NEAREST)


def _sky(canvas: Canvas, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draws a gradient with clouds: float32 (3, height, width)."""
    zenith = np.array(((0.35, 0.52, 0.80), (0.62, 0.68, 0.74), (0.85, 0.87, 0.88), (0.45, 0.42, 0.50))[rng.integers(4)])
    low = zenith + (np.array((0.92, 0.88, 0.82)) - zenith) * rng.uniform(0.3, 1.0)
    down = np.clip(np.linspace(0, 1, height) / canvas.camera.horizon[1], 0, 1)
    clouds = cv2.resize(canvas.patch(rng, 96, 48), (width, height), interpolation=cv2.INTER_LINEAR)
    cover = np.clip(0.5 * clouds + rng.uniform(-0.8, 0.6), 0, 0.8)
    clear = (zenith[:, None] + (low - zenith)[:, None] * down).astype(np.float32)[..., None]
    white = np.float32(rng.uniform(0.6, 1.0))
    bright = float(canvas.light.ambient.mean() + 0.7 * canvas.light.direct.mean())
    return (clear + cover * (white - clear)) * min(1.15, 0.35 + 0.75 * bright)


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
    joints = _stripe((z % 0.9) - 0.45, 0.03, pixel) + _stripe((x % 0.7) - 0.35, 0.02, pixel)
    kerb = 0.25 * _stripe(outside - 0.1, 0.1, pixel) - 0.4 * _stripe(outside - 0.01, 0.04, pixel)  # top, shaded face
    slabs = kerb - rng.uniform(0, 0.3) * joints
    tone += np.where(road, asphalt, np.where(paved, slabs, 0.15 * fine))
    colors = (pick(rng, STONE[1:2]) * 0.75, pick(rng, STONE[:3]) * 0.85, pick(rng, LEAVES) * 1.3)
    ground = np.array(colors, np.float32).T.take(kinds, axis=1) * tone

    worn = np.clip(0.8 + 0.25 * coarse, 0.1, 1) * (road & ~side_street)
    stop = _stripe(z - street.crossing[0] + 1.5, 0.18, pixel) * (x < 0)
    dashes = _stripe(x, street.dash, pixel) * (z % 6 < 3.5)
    for coverage, color in ((np.maximum(stop, dashes), np.array((0.8, 0.8, 0.78))),
                            (_stripe(outside + 0.35, 0.06, pixel), street.kerb_line)):
        ground += coverage * worn * (planar(color) - ground)

    sunshine = tinted(canvas.light.direct * canvas.light.sun[1], 1 - canvas.shadow[-len(x):])
    return ground * (sunshine + planar(canvas.light.ambient)), kinds


def _stripe(distance: np.ndarray, half: float, pixel: np.ndarray) -> np.ndarray:
    """Gives how much of each pixel a painted line covers, from the distance to its middle and the size of a pixel."""
    return np.clip((half - np.abs(distance)) / pixel + 0.5, 0, np.minimum(1, 2 * half / pixel))
