"""Labelled shapes of an image: what annotation files hold, checked, and drawn one over the other into a label map."""

import base64
import binascii
import hashlib
import io
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from segtrain.data.checks import READ, check
from segtrain.data.formats import raster
from segtrain.data.formats.raster import EMPTY, Patch
from segtrain.data.formats.rle import decode_brush, decode_text, expand_runs
from segtrain.errors import UserError
from segtrain.labels import IGNORE_INDEX

VERSION = 1  # of the drawing rules: raise it when a pixel changes, and cached masks are drawn again
MOST_KEPT = 2**28  # bytes of drawn shapes that are kept until all of an image are there


@dataclass(frozen=True)
class Polygon:
    """Rings, float64 (N, 2) each, united; with `even_odd`, a ring within another is a hole."""

    rings: tuple[np.ndarray, ...]
    even_odd: bool = False


@dataclass(frozen=True)
class Pixels:
    """Rings whose numbers are pixels that belong to the object, and holes whose border pixels are holes."""

    rings: tuple[np.ndarray, ...]
    holes: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True)
class Ellipse:
    """An ellipse in pixels, turned clockwise."""

    center: tuple[float, float]
    radii: tuple[float, float]
    degrees: float = 0.0


@dataclass(frozen=True)
class Line:
    """A line through points, float64 (N, 2), or points of their own, without an area unless it is given a width."""

    points: np.ndarray
    width: float
    is_points: bool = False


@dataclass(frozen=True)
class Runs:
    """Run lengths of a box; see `expand_runs`."""

    runs: np.ndarray
    left: int
    top: int
    width: int
    height: int
    by_columns: bool


@dataclass(frozen=True)
class Brush:
    """Label Studio's brush strokes over a whole image; see `decode_brush`."""

    data: bytes


@dataclass(frozen=True)
class Encoded:
    """A small image file in base64, zlib-compressed or not: what is above 0 is inside, of RGBA its alpha."""

    text: str
    left: int
    top: int
    box: tuple[int, int] | None = None  # width and height that it must have


Shape = Polygon | Pixels | Ellipse | Line | Runs | Brush | Encoded


@dataclass(frozen=True)
class Region:
    """One labelled shape.

    Attributes:
        where: The file and the place in it, for messages.
        label: The class.
        shape: Its pixels; None for a shape without an area.
        group: Regions of one group are one object; None is a group of its own.
        is_crowd: Whether it holds several objects.
    """

    where: str
    label: str
    shape: Shape | None
    group: Any = None
    is_crowd: bool = False


# ---- from what a file says to shapes


@check(READ, "regions of too few points, an odd count of numbers, or coordinates that are none")
def read_ring(points: Any, where: str, *, least: int = 3) -> np.ndarray:
    """Return points, a list of x and y in turn or of pairs, as float64 (N, 2); UserError if they are no ring."""
    try:
        ring = np.asarray(points, np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f"{where}: its points are not pairs of numbers ({str(error)[:100]}): correct it.") from error
    if ring.ndim == 1 and len(ring) % 2:
        raise UserError(f"{where}: {len(ring)} numbers are not pairs of x and y: correct it.")
    if ring.ndim == 1:
        ring = ring.reshape(-1, 2)
    if ring.ndim != 2 or ring.shape[1] != 2:
        raise UserError(f"{where}: its points are not pairs of x and y: correct it.")
    if len(ring) < least:
        raise UserError(f"{where}: a shape of {len(ring)} points, which needs at least {least}: correct or remove it.")
    if not (np.abs(ring) <= raster.FARTHEST).all():
        worst = ring[~(np.abs(ring) <= raster.FARTHEST)][0]
        raise UserError(f"{where}: the coordinate {worst} is not a place in an image: correct or remove it.")
    return ring


def make_box(left: float, top: float, right: float, bottom: float, degrees: float = 0.0,
             pivot: tuple[float, float] | None = None) -> Polygon:
    """Return a rectangle, turned clockwise about a point, or its centre."""
    ring = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float64)
    if degrees:
        x, y = ((left + right) / 2, (top + bottom) / 2) if pivot is None else pivot
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        away = ring - (x, y)
        ring = np.stack([x + away[:, 0] * cos - away[:, 1] * sin, y + away[:, 0] * sin + away[:, 1] * cos], 1)
    return Polygon((ring,))


def read_numbers(values: Sequence[Any], where: str) -> list[float]:
    """Return finite numbers, given as such or as text."""
    try:
        numbers = [float(value) for value in values]
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f"{where}: {list(values)} must be numbers: correct it.") from error
    if not all(abs(number) <= raster.FARTHEST for number in numbers):
        raise UserError(f"{where}: {numbers} must be places in an image: correct or remove it.")
    return numbers


@check(READ, "run lengths that do not sum to the pixels of their image")
def read_runs(counts: Any, where: str, width: int, height: int, left: int = 0, top: int = 0, *, by_columns: bool,
              of: str) -> Runs:
    """Return run lengths, given as numbers or as COCO's text, checked; `of` says what they must sum to."""
    try:
        runs = decode_text(counts) if isinstance(counts, str) else np.asarray(counts)
        if runs.ndim != 1 or runs.dtype.kind not in "iu":
            raise ValueError("its run lengths are not whole numbers")
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f"{where}: its RLE cannot be read ({error}): export it again.") from error
    if len(runs) and runs.min() < 0:
        raise UserError(f"{where}: its RLE has the negative run {runs.min()}: export it again.")
    total = sum(runs.tolist())
    if total != width * height:
        raise UserError(f"{where}: its RLE sums to {total}, but {of} has {width * height} pixels; size is [height, "
                        "width]: export it again.")
    return Runs(runs.astype(np.int64), left, top, width, height, by_columns)


# ---- from shapes to pixels


class Drawing(NamedTuple):
    """What regions look like.

    Attributes:
        target: The train ids, uint8 (H, W).
        objects: The number of the object on top, int32 (H, W), 0 for none.
        buried: The places of regions of which nothing is seen, since later ones cover them.
    """

    target: np.ndarray
    objects: np.ndarray
    buried: tuple[int, ...] = ()


def draw_regions(regions: Sequence[Region], size: tuple[int, int], *, train_ids: Callable[[Region], int], fill: int,
                 overlap: str, pixels: bool, without_instances: frozenset[int] = frozenset(),
                 with_instances: bool = True) -> Drawing:
    """Draw regions one over the other.

    Args:
        regions: The regions, in their order.
        size: Width and height of the image.
        train_ids: Returns the train id of a region; 255 for void.
        fill: The train id where nothing is drawn.
        overlap: "order", "area" (larger first, smaller on top) or "void" (pixels of two classes).
        pixels: Whether the numbers of polygons are pixels that belong to the object.
        without_instances: Train ids whose regions are no objects.
        with_instances: Whether objects are numbered; else all are 0.
    """
    width, height = size
    target = np.full((height, width), fill, np.uint8)
    covered = np.zeros((height, width), bool) if overlap == "void" else None
    owners = np.zeros((height, width), np.int32) if with_instances or overlap == "order" else None
    patches = _Patches(regions, width, height, pixels)
    order = list(range(len(regions)))
    if overlap == "area":
        areas = [int(np.count_nonzero(patches[place].mask)) for place in order]
        order.sort(key=lambda place: -areas[place])
    drawn = [train_ids(region) for region in regions]
    for place in order:
        patch = patches[place]
        if not patch.mask.size:
            continue
        part = target[patch.place]
        if covered is not None:
            conflict = patch.mask & covered[patch.place] & (part != drawn[place])
            covered[patch.place] |= patch.mask
        part[patch.mask] = drawn[place]
        if covered is not None:
            part[conflict] = IGNORE_INDEX
        if owners is not None:
            owners[patch.place][patch.mask] = place + 1
    objects = np.zeros((height, width), np.int32)
    if owners is None:
        return Drawing(target, objects)
    if with_instances:
        objects = _number_objects(regions, drawn, order, without_instances)[owners]
    seen = np.bincount(owners.ravel(), minlength=len(regions) + 1)
    buried = tuple(place for place in range(len(regions)) if overlap == "order" and not seen[place + 1]
                   and patches[place].mask.any())
    return Drawing(target, objects, buried)


def _number_objects(regions: Sequence[Region], train_ids: Sequence[int], order: Sequence[int],
                    without_instances: frozenset[int]) -> np.ndarray:
    """Return the number of the object of each region by its place, after a 0 for no region, int32."""
    numbers: dict[Any, int] = {}
    found = np.zeros(len(regions) + 1, np.int32)
    for place in order:
        region = regions[place]
        if not region.is_crowd and train_ids[place] not in (IGNORE_INDEX, *without_instances):
            key = (place,) if region.group is None else (region.label, str(region.group))
            found[place + 1] = numbers.setdefault(key, len(numbers) + 1)
    return found


class _Patches:
    """The patches of regions by their places: all drawn at once and kept, unless they would take much memory."""

    def __init__(self, regions: Sequence[Region], width: int, height: int, pixels: bool) -> None:
        self._regions, self._size, self._pixels = regions, (width, height), pixels
        self._kept: list[Patch] | None = None
        if len(regions) * width * height <= MOST_KEPT or self._estimate() <= MOST_KEPT:
            self._kept = self._draw(regions)

    def __getitem__(self, place: int) -> Patch:
        return self._draw([self._regions[place]])[0] if self._kept is None else self._kept[place]

    def _estimate(self) -> int:
        """Return at most how many bytes all patches take."""
        width, height = self._size
        total = 0
        for region in self._regions:
            rings = getattr(region.shape, "rings", None) or [np.array([[0, 0], [width, height]])]
            corners = np.clip(np.concatenate(rings), 0, (width, height))
            sides = corners.max(0) - corners.min(0) + 2
            total += int(sides.prod())
        return total

    def _draw(self, regions: Sequence[Region]) -> list[Patch]:
        width, height = self._size
        rings = [ring for region in regions if isinstance(region.shape, Polygon) and not self._pixels
                 for ring in region.shape.rings]
        filled = iter(raster.fill_rings(rings, width, height))
        found = []
        for region in regions:
            shape = region.shape
            if isinstance(shape, Polygon) and not self._pixels:
                found.append(raster.join_patches([next(filled) for _ in shape.rings], even_odd=shape.even_odd))
            else:
                found.append(_draw_shape(shape, width, height, region.where))
        return found


def _draw_shape(shape: Shape | None, width: int, height: int, where: str) -> Patch:
    if shape is None:
        return EMPTY
    if isinstance(shape, Polygon):
        return raster.join_patches([raster.fill_pixels([ring], (), width, height) for ring in shape.rings],
                                   even_odd=shape.even_odd)
    if isinstance(shape, Pixels):
        return raster.fill_pixels(shape.rings, shape.holes, width, height)
    if isinstance(shape, Ellipse):
        return raster.fill_ellipse(shape.center, shape.radii, shape.degrees, width, height)
    if isinstance(shape, Line):
        parts = shape.points[:, None] if shape.is_points else shape.points[None]
        return raster.join_patches([raster.fill_line(part, shape.width, width, height) for part in parts])
    if isinstance(shape, Runs):
        mask = expand_runs(shape.runs, shape.width, shape.height, by_columns=shape.by_columns)
        return raster.clip_patch(Patch(shape.top, shape.left, mask), width, height)
    if isinstance(shape, Brush):
        try:
            return Patch(0, 0, decode_brush(shape.data, width, height))
        except ValueError as error:
            raise UserError(f"{where}: {error}: export it again from Label Studio.") from error
    return _draw_encoded(shape, width, height, where)


def _draw_encoded(shape: Encoded, width: int, height: int, where: str) -> Patch:
    most = 16 * (width * height + 4096)  # bytes of an image file of this size
    try:
        data = base64.b64decode(shape.text, validate=True)
        if data[:4] != b"\x89PNG":
            unpacker = zlib.decompressobj()
            data = unpacker.decompress(data, most)
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if image.width * image.height > 4 * (width * height + 4096):
                raise ValueError(f"it is {image.width}x{image.height}")
            values = np.array(image.getchannel("A") if "A" in image.getbands() else image)
    except (binascii.Error, zlib.error, ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        reason = "it is none" if isinstance(error, UnidentifiedImageError) else str(error)[:100]
        raise UserError(f"{where}: its mask cannot be read as a PNG ({reason}): export it again.") from error
    mask = np.asarray(values > 0 if values.ndim == 2 else (values > 0).any(-1))
    if shape.box is not None and mask.shape != shape.box[::-1]:
        raise UserError(f"{where}: its mask is {mask.shape[1]}x{mask.shape[0]}, but its box {shape.box[0]}x"
                        f"{shape.box[1]}: export it again.")
    if (shape.left < 0 or shape.top < 0 or shape.left + mask.shape[1] > width
            or shape.top + mask.shape[0] > height):
        raise UserError(f"{where}: its mask of {mask.shape[1]}x{mask.shape[0]} at ({shape.left}, {shape.top}) reaches "
                        f"out of the image of {width}x{height}: export it again.")
    return Patch(shape.top, shape.left, mask)


def hash_regions(regions: Sequence[Region], settings: Sequence[Any]) -> str:
    """Return what identifies a drawing: everything that its pixels depend on."""
    digest = hashlib.sha256(repr((VERSION, settings)).encode())
    for region in regions:
        digest.update(repr((region.label, region.group, region.is_crowd, type(region.shape).__name__)).encode())
        for value in vars(region.shape).values() if region.shape is not None else ():
            for item in value if isinstance(value, tuple) else (value,):
                digest.update(b";" + (item.tobytes() if isinstance(item, np.ndarray) else repr(item).encode()))
            digest.update(b"|")
    return digest.hexdigest()
