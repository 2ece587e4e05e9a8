"""From a mask file to train ids: class numbers, colours, black and white, and errors that name what is none of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from segtrain.data.checks import READ, SETTINGS, check
from segtrain.data.class_files import Classes, read_color
from segtrain.data.color_masks import (
    Color,
    convert_colors,
    find_palette_fault,
    list_colors,
    list_commonest,
    pack,
    to_hex,
)
from segtrain.data.images import (
    LOSSY,
    check_sizes,
    decode,
    is_deep,
    is_lossy,
    list_counts,
    read_palette,
    to_train_ids,
    turn_upright,
)
from segtrain.data.rasters import Window
from segtrain.errors import UserError, did_you_mean, list_first
from segtrain.labels import IGNORE_INDEX, Label

BLACK, WHITE = (0, 0, 0), (255, 255, 255)
MOST_VALUES = 2**16 - 1
Void = Sequence[int | str | Sequence[int]] | Literal["rest"] | None  # dataset.void


@dataclass(frozen=True)
class MaskRule:
    """How the pixels of a mask become train ids; the settings without a comment are those of dataset=folder."""

    labels: tuple[Label, ...]
    has_colors: bool  # whether the labels' colours are those of the masks
    void_values: tuple[int, ...]  # of an index mask
    void_colors: tuple[Color, ...]  # of a colour mask
    void_given: bool  # whether the user set it; else it is the default
    binary: bool = False
    threshold: int | None = None
    nearest_colors: bool | int = False
    palette: str | None = None
    rest_is_void: bool = False  # whether what is no class is void; else it is refused
    # The colour of each index in the first palette image that uses it, and its file.
    seen: dict[int, tuple[Color, Path]] = field(default_factory=dict, compare=False)
    # Of each mask whose rest became void, the pixels and what they held; of those whose classes overlap, the pixels.
    rest: dict[Path, tuple[int, str]] = field(default_factory=dict, compare=False)
    overlaps: dict[Path, int] = field(default_factory=dict, compare=False)

    def remarks(self) -> list[str]:
        """Return what the user should know, once the masks have been read."""
        found = []
        if self.rest:
            first = min(self.rest)
            pixels = sum(pixels for pixels, _ in self.rest.values())
            found.append(f"dataset.void=rest: {pixels} pixels of {len(self.rest)} masks are of no class and void, the "
                         f"first is {first}, {self.rest[first][1]}.")
        if self.overlaps:
            first = min(self.overlaps)
            found.append(f"the masks of several classes overlap in {sum(self.overlaps.values())} pixels of "
                         f"{len(self.overlaps)} images, the first is {first}: there the class further down in the "
                         "class file counts.")
        return found


@dataclass(frozen=True)
class _Pixels:
    """A mask as it was read: uint8 or larger (H, W), or uint8 (H, W, 3); lossy where saving may have changed it.

    A palette image has its index as values, and the palette, uint8 (256, 3).
    """

    values: np.ndarray
    lossy: bool
    palette: np.ndarray | None = None


@check(SETTINGS,
       "what is both a class and void; a single class; binary, threshold and palette with masks or classes that they "
       "do not fit")
def make_mask_rule(classes: Classes, void: Void, *, binary: bool = False, threshold: int | None = None,
                   nearest_colors: bool | int = False, palette: str | None = None,
                   one_a_class: bool = False) -> MaskRule:
    """Settle what is void, and check that the settings of dataset=folder fit the classes.

    `one_a_class` says that each class of an image has a mask of its own.
    """
    if threshold is not None and not 1 <= threshold <= 255:
        raise ValueError(f"threshold={threshold} must be from 1 to 255")
    if nearest_colors is not True and nearest_colors < 0:
        raise ValueError(f"nearest_colors={nearest_colors} must be true, false or a distance of at least 0")
    if palette not in ("index", "colors", None):
        raise ValueError(f"palette={palette} must be index, colors or null")
    if one_a_class and (binary or nearest_colors is not False or palette is not None):
        raise UserError("dataset.binary, dataset.nearest_colors and dataset.palette are for one mask an image, but "
                        "dataset.masks has {class}: leave them out; what is not black is of the class.")
    two = binary or (threshold is not None and not one_a_class)
    if void == "rest" and two:
        raise UserError("dataset.void=rest is for masks of class numbers or colours: with dataset.binary or "
                        "dataset.threshold a mask has two classes and no rest.")
    values: list[int] = [] if two or void is not None else [IGNORE_INDEX]
    colors: list[Color] = []
    labels = list(classes.labels)
    for item in () if void is None or void == "rest" else void:
        color = None if isinstance(item, int) else read_color(item)
        named = [label for label in labels if label.name == item]
        if isinstance(item, int) and 0 <= item <= MOST_VALUES:
            values.append(item)
        elif named:
            labels.remove(named[0])
            values += named[0].ids
            colors += named[0].colors if classes.has_colors else []
        elif color is not None:
            colors.append(color)
        else:
            raise UserError(f"dataset.void: {item} is not a value from 0 to 65535, a colour (\"#ff8000\") or a class."
                            f"{did_you_mean(str(item), [label.name for label in labels])}")
    labels = [replace(label, train_id=train_id) for train_id, label in enumerate(labels)]
    for label in labels:
        if void is None and not two and IGNORE_INDEX in label.ids:
            raise UserError(f"255 is the value of the class {label.name}, and of void by default: say what is void, "
                            "dataset.void=[] for nothing.")
        for both in () if two else {*label.ids} & {*values}:
            raise UserError(f"dataset.void holds {both}, the value of the class {label.name}: it is one or "
                            f"the other. To leave the class out, write its name: dataset.void=[{label.name}].")
        for shared in {*label.colors} & {*colors} if classes.has_colors else ():
            raise UserError(f"dataset.void holds {to_hex(shared)}, the colour of the class {label.name}: it is "
                            "one or the other.")
    if not labels:
        raise UserError("dataset.void names every class: leave some to learn.")
    if len(labels) == 1:
        raise UserError(f"{labels[0].name} is the only class, so there is nothing to tell apart: add a row for the "
                        "rest, such as background, to the class file; for black and white masks set "
                        "dataset.binary=true.")
    if two and len(labels) != 2:
        raise UserError(f"dataset.{'binary' if binary else 'threshold'} is for two classes, but the class file lists "
                        f"{len(labels)}: {', '.join(label.name for label in labels[:20])}.")
    if binary and threshold is not None:
        raise UserError("dataset.binary and dataset.threshold exclude each other: binary for masks that hold exactly "
                        "two values, threshold for those that do not.")
    return MaskRule(tuple(labels), classes.has_colors, tuple(values), tuple(colors), void is not None, binary,
                    threshold, nearest_colors, palette, void == "rest")


@check(READ, "color masks without colors in the class file; values beyond the classes")
def read_target(path: Path, rule: MaskRule, window: Window | None = None) -> np.ndarray:
    """Read a mask, or a window of it, as train ids, uint8 (H, W), 0..K-1 or 255 for void.

    Raises:
        UserError: If the file cannot be read, or a value or colour is neither a class nor void; it names the file,
            what was found with its pixel counts, and the remedy.
    """
    if rule.threshold is not None:
        return _cut(decode(path, _read_brightness, window), rule.threshold, rule, path)
    pixels = decode(path, _read_pixels, window)
    values = pixels.values if pixels.palette is None else _convert_palette(pixels.values, pixels.palette, rule, path)
    if values.ndim == 3 and not _is_grey(values, rule):
        if not rule.has_colors:
            raise UserError(f"{path} is a colour mask ({list_commonest(values)}), but the class file does not give "
                            "each class its colour: add the column color (#rrggbb) or r, g and b, or save masks of one "
                            "class number a pixel.")
        rest: dict[Color, int] = {}
        target = convert_colors(values, rule.labels, rule.void_colors, path, nearest=rule.nearest_colors,
                                rest=rest if rule.rest_is_void and not pixels.lossy else None,
                                remark=f"{LOSSY}. " if pixels.lossy else "")
        if rest:
            rule.rest[path] = sum(rest.values()), list_colors(rest)
        return target
    values = values[..., 0] if values.ndim == 3 else values
    largest = MOST_VALUES if rule.binary or rule.rest_is_void else max(
        IGNORE_INDEX, *(value for label in rule.labels for value in label.ids), *rule.void_values)
    if values.size and (values.max() > largest or values.min() < 0):
        if len(rule.labels) == 2 and set(np.unique(values)) <= {0, MOST_VALUES}:
            raise UserError(f"{path} holds only 0 and 65535, and there are two classes: if 65535 is "
                            f"{rule.labels[1].name}, use dataset.binary=true; if it is void, dataset.void=[65535].")
        raise UserError(f"{path} holds values from {values.min()} to {values.max()}, but classes end at {largest}: "
                        "instance maps belong to dataset.instance_maps, and coloured masks are saved as RGB.")
    return _convert_two(values, rule, path) if rule.binary else _convert_values(values, pixels.lossy, rule, path)


def read_class_masks(masks: Mapping[Path, int], rule: MaskRule, window: Window | None = None) -> np.ndarray:
    """Read the masks that an image has, one for each class, as train ids, uint8 (H, W).

    They become an index mask: where one is not black, the value of its class, and 0 where none is. `masks` gives the
    values, in the order of the class file: later ones lie over earlier ones.
    """
    first = next(iter(masks))
    values, overlap = np.zeros(0, np.uint16), 0
    for path, value in masks.items():
        inside = _read_inside(path, rule.threshold, window)
        values = values if values.size else np.zeros(inside.shape, np.uint16 if max(masks.values()) > 255 else np.uint8)
        check_sizes(values, first, inside, path, "mask of another class")
        overlap += int(np.count_nonzero(values[inside]))
        values[inside] = value
    if overlap:
        rule.overlaps[first] = overlap
    return _convert_values(values, False, rule, first)


@check(READ, "the mask of one class with more than one value beside 0")
def _read_inside(path: Path, threshold: int | None, window: Window | None) -> np.ndarray:
    """Read the mask of one class, bool (H, W): what is not black, or from a brightness on."""
    if threshold is not None:
        return decode(path, _read_brightness, window) >= threshold
    pixels = decode(path, _read_pixels, window)
    values = pixels.values if pixels.palette is None else pixels.palette[pixels.values]
    values = pack(values) if values.ndim == 3 else values
    held, counts = np.unique(values, return_counts=True)
    if np.count_nonzero(held) > 1:
        commonest = [f"{held[place]} ({counts[place]} pixels)" for place in np.argsort(-counts, kind="stable")]
        raise UserError(f"{path} holds {len(held)} different values, {list_first(commonest)}, but the mask of one "
                        "class holds 0 and one other: correct it, or cut it at a brightness with "
                        "dataset.threshold=128.")
    return values != 0


def read_objects(target: np.ndarray, mask: Path, instance_map: Path | None, seam: int | None = None,
                 seam_color: Color | None = None, window: Window | None = None,
                 ) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the target of a mask with the map of its objects, if there is one; see `read_instances`."""
    if instance_map is None:
        return target, None
    instances = read_instances(instance_map, seam, seam_color, window)
    check_sizes(target, mask, instances, instance_map, "instance map")
    return target, instances


@check(READ, "instance numbers below 0")
def read_instances(path: Path, seam: int | None = None, seam_color: Color | None = None,
                   window: Window | None = None) -> np.ndarray:
    """Read an instance map: 8 or 16 bits grey, a palette's index, or R + 256 G + 65536 B; 0 and the seam mean none.

    Returns:
        int32 (H, W): 1..number of objects, 0 = none. Numbers are made small; their order is kept.
    """
    values = decode(path, _read_pixels, window).values.astype(np.int64)
    if values.ndim == 3:
        numbers = values[..., 0] + 256 * values[..., 1] + 65536 * values[..., 2]
        numbers[(values == (seam_color or BLACK)).all(-1)] = 0
    else:
        numbers = np.where(values == seam, 0, values)
    if numbers.min() < 0:
        raise UserError(f"{path} holds the instance {numbers.min()}: numbers start at 1, 0 is none.")
    found, places = np.unique(numbers, return_inverse=True)
    return (places.reshape(numbers.shape) + (found[0] > 0)).astype(np.int32)


def _read_pixels(image: Image.Image) -> _Pixels:
    lossy = is_lossy(image)
    if is_deep(image) and not image.mode.startswith("I"):
        raise ValueError("a coloured mask needs 8 bits a channel")
    image = turn_upright(image)
    if image.mode == "P":
        return _Pixels(np.array(image), lossy, read_palette(image))
    if image.mode in ("1", "L") or image.mode.startswith("I"):
        values = np.array(image)
        return _Pixels(values.astype(np.uint8) if values.dtype == bool else values, lossy)
    if image.mode == "F":
        raise ValueError("real numbers are not classes, save whole ones")
    _refuse_shapes_in_alpha(image)
    return _Pixels(np.array(image.convert("L" if image.mode == "LA" else "RGB")), lossy)


@check(READ, "masks whose shapes are in their transparency")
def _refuse_shapes_in_alpha(image: Image.Image) -> None:
    """Refuse a mask in which transparency tells apart what has one colour."""
    if "A" in image.getbands():
        values = np.array(image.convert("RGBA"))
        hidden = values[..., 3] == 0
        if hidden.any() and not hidden.all() and {*pack(values[..., :3])[hidden].tolist()} & {
                *pack(values[..., :3])[~hidden].tolist()}:
            raise ValueError("its transparency tells apart pixels of one colour: give them colours of their own, and "
                             "save it without transparency")


@check(READ, "palette masks whose colors contradict the class file, or each other")
def _convert_palette(values: np.ndarray, palette: np.ndarray, rule: MaskRule, path: Path) -> np.ndarray:
    """Return what counts of a palette image: its index or its colours."""
    used = {int(index): tuple(palette[index].tolist()) for index in np.flatnonzero(np.bincount(values.ravel()))}
    if rule.palette == "colors" or (rule.binary and set(used.values()) <= {BLACK, WHITE}):
        return palette[values]
    if rule.palette == "index":
        return values
    fault = find_palette_fault(values, palette, rule.labels) if rule.has_colors else None
    if fault is not None:
        raise UserError(f"{path} {fault}: say what counts, dataset.palette=colors or index.")
    is_inverted = (used.get(0), used.get(1)) == (WHITE, BLACK)
    if len(rule.labels) == 2 and not rule.has_colors and not rule.binary and is_inverted:
        raise UserError(f"{path} is a palette image that paints its index 0 white and 1 black: if white is "
                        f"{rule.labels[1].name}, use dataset.binary=true; else say dataset.palette=index.")
    for index, color in used.items() if not rule.has_colors else ():
        first, file = rule.seen.setdefault(index, (color, path))
        if color != first:
            raise UserError(f"{path} paints its index {index} in {to_hex(color)}, but {file} in {to_hex(first)}: if "
                            "the colours count, give the class file a column color and set dataset.palette=colors; if "
                            "the index does, dataset.palette=index.")
    return values


def _read_brightness(image: Image.Image) -> np.ndarray:
    if image.mode == "F" or is_deep(image):
        raise ValueError("a threshold counts in 8 bits")
    return np.array(turn_upright(image).convert("L"))


def _is_grey(values: np.ndarray, rule: MaskRule) -> bool:
    """Return whether an RGB mask holds grey values or class numbers thrice, and is not to be read by its colours."""
    if rule.has_colors and not rule.binary:
        return False
    return bool((values[..., 0] == values[..., 1]).all() and (values[..., 1] == values[..., 2]).all())


@check(READ, "masks of black and one darker gray than dataset.threshold")
def _cut(values: np.ndarray, threshold: int, rule: MaskRule, path: Path) -> np.ndarray:
    if values.size and 0 < values.max() <= 1 < threshold:
        raise UserError(f"{path} holds 0 and 1, all of them below dataset.threshold={threshold}: "
                        "use dataset.binary=true for it.")
    held = np.flatnonzero(np.bincount(values.ravel()))
    if len(held) == 2 and held[0] == 0 and held[1] < threshold:
        raise UserError(f"{path} holds 0 and {held[1]} alone, and {held[1]} is below the threshold: to take all that "
                        f"is not black for {rule.labels[1].name}, use dataset.threshold=1.")
    return _make_target(values >= threshold, values, rule)


@check(READ, "other values than two under dataset.binary")
def _convert_two(values: np.ndarray, rule: MaskRule, path: Path) -> np.ndarray:
    counts = np.bincount(values.ravel(), minlength=256)
    held = {*np.flatnonzero(counts).tolist()} - {0, *rule.void_values}
    if len(held) > 1 or not held <= {1, 255, MOST_VALUES}:
        shown = sorted(held - {1, 255, MOST_VALUES}) or sorted(held)
        cut = 1 if len(held) == 1 and max(held) <= 255 else 128  # one value is the second class, however dark it is
        raise UserError(f"{path} holds {list_counts(shown, counts)}, but with dataset.binary=true a mask holds 0 for "
                        f"{rule.labels[0].name}, and one of 1, 255 and 65535 for {rule.labels[1].name}: correct the "
                        f"mask, or cut it with dataset.threshold={cut} instead.")
    return _make_target(values > 0, values, rule)


def _make_target(is_second: np.ndarray, values: np.ndarray, rule: MaskRule) -> np.ndarray:
    target = is_second.astype(np.uint8)
    if rule.void_values:
        target[np.isin(values, rule.void_values)] = IGNORE_INDEX
    return target


@check(READ, "0 and 255 alone with two classes; masks saved lossily; values of no class")
def _convert_values(values: np.ndarray, lossy: bool, rule: MaskRule, path: Path) -> np.ndarray:
    counts = np.bincount(values.ravel(), minlength=256)
    held = set(np.flatnonzero(counts).tolist())
    if len(rule.labels) == 2 and held == {0, 255} and not rule.void_given:
        raise UserError(f"{path} holds only 0 ({counts[0]} pixels) and 255 ({counts[255]} pixels), and there are two "
                        f"classes: if 255 is {rule.labels[1].name}, use dataset.binary=true; if it is void, say so "
                        "with dataset.void=[255].")
    if lossy and len(held) > 1:
        remedy = ", or cut it at a brightness with dataset.threshold=128" if len(rule.labels) == 2 else ""
        commonest = list_counts(np.argsort(-counts, kind="stable")[:len(held)], counts)
        raise UserError(f"{path} is a mask of {len(held)} different values, {commonest}, saved lossily. "
                        f"{LOSSY}{remedy}.")
    known = {*rule.void_values, *(value for label in rule.labels for value in label.ids)}
    unknown = held - known
    if unknown and rule.rest_is_void:
        rule.rest[path] = int(counts[[*unknown]].sum()), f"the value {list_counts(sorted(unknown), counts)}"
        return to_train_ids(values, rule.labels, [*rule.void_values, *unknown], path)
    remedy = ("Correct the mask, or add the values to the class file; if all that is no class is not to be learnt, "
              "dataset.void=rest.")
    if rule.has_colors and {(value, value, value) for value in unknown} <= {label.color for label in rule.labels}:
        remedy = "If its grey values are the classes' colours, give each class its grey value as label_id."
    elif len(unknown) <= 8:
        void = ",".join(map(str, sorted({*rule.void_values, *unknown})))
        remedy = f"Correct the mask or the class file; if they are not to be learnt, dataset.void=[{void}] or rest."
    return to_train_ids(values, rule.labels, rule.void_values, path, remedy)
