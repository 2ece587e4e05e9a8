"""Your own images and masks, as they lie there: in folders, under patterns or in lists, with a class file."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from segtrain.data import discovery, lists
from segtrain.data.base import FileDataset
from segtrain.data.checks import LISTED, SETTINGS, WARNED, check
from segtrain.data.class_files import read_class_file
from segtrain.data.discovery import find_partners
from segtrain.data.image_form import BAND, LEAST_SIDE, ImageForm, cut_into_windows, find_band_pattern
from segtrain.data.images import IMAGE_SUFFIXES
from segtrain.data.masks import make_mask_rule, read_class_masks, read_objects, read_target
from segtrain.data.rasters import Window
from segtrain.data.splits import split_off
from segtrain.errors import UserError
from segtrain.labels import Label

log = logging.getLogger(__name__)
CLASS = "{class}"  # in dataset.masks, the name of a class
Masks = dict[Path, int]  # the masks of an image, with the value of the class that each is of; 0 where one has them all


class Folder(FileDataset):
    """Images with index, palette, colour or black-and-white masks; conf/dataset/folder.yaml describes the arguments.

    `split` is any name, which fills {split} in the paths. Images are found in all subfolders of their folder, and paths
    in lists stay below root. A mask belongs to the image of the same relative name, or to the one for which the
    wildcards stand for the same; a mask without an image is left alone, an image without a mask is an error, or left
    out with skip_without_mask. With targets_only the images may be missing, if the masks' paths or a list tell the
    split. {class} in `masks` stands for the name of a class: each then has masks of its own. With a window every
    sample is a part of an image, of at most that height and width; together they are the whole.
    """

    @check(SETTINGS, "dataset.root that is missing or not a folder")
    def __init__(self, split: str, root: str | None = None, classes: str = "classes.csv",
                 images: str = "{split}/images", masks: str | None = "{split}/masks", mask_suffix: str = "",
                 skip_without_mask: bool = False, void: list[int | str | list[int]] | Literal["rest"] | None = None,
                 binary: bool = False, threshold: int | None = None, nearest_colors: bool | int = False,
                 palette: str | None = None, image_bits: int | None = None, band_files: list[str] | None = None,
                 window: list[int] | None = None, instance_maps: str | None = None,
                 names: str | None = None, val_fraction: float | None = None, test_fraction: float | None = None,
                 group: str | None = None, split_seed: int = 0, targets_only: bool = False) -> None:
        if root is None:
            raise UserError("dataset.root is needed: the folder that holds your images and masks, dataset.root=/data/x")
        if image_bits is not None and not 8 <= image_bits <= 16:
            raise ValueError(f"image_bits={image_bits} must be from 8 to 16")
        if window is not None and (len(window) != 2 or min(window) < LEAST_SIDE):
            raise ValueError(f"window={window} must be [height, width], each at least {LEAST_SIDE} pixels")
        base = Path(root).expanduser()
        if not base.is_dir():
            raise UserError(f"{base} is not a folder: check dataset.root.")
        band_pattern = find_band_pattern(images, band_files)
        self.form = ImageForm(bits=image_bits, band_files=tuple(band_files or ()), band_pattern=band_pattern)
        images = images.replace(BAND, band_files[0]) if band_files else images
        paths = {"images": images, "masks": masks, "instance_maps": instance_maps}
        _check_splitting(paths, split, names, val_fraction, test_fraction, group)
        self._class_file = base / classes
        table = read_class_file(self._class_file)
        one_a_class = masks is not None and CLASS in masks
        self._rule = make_mask_rule(table, void, binary=binary, threshold=threshold, nearest_colors=nearest_colors,
                                    palette=palette, one_a_class=one_a_class)
        self.labels = self._rule.labels
        self._ungrouped = val_fraction is not None and group is None
        filled = {key: None if text is None else text.replace("{split}", split) for key, text in paths.items()}
        tells_split = names is not None or masks is None or ("{split}" in masks) == ("{split}" in images)
        find_masks = partial(_find_class_masks, labels=table.labels) if one_a_class else _find_masks
        found, self.without_mask = _find(
            base, filled, mask_suffix, None if names is None else base / names.replace("{split}", split),
            find_masks=find_masks, skip_without_mask=skip_without_mask, targets_only=targets_only and tells_split)
        parts: list[tuple[str, Window | None]] = [(name, None) for name, *_ in found]
        if window is not None:
            cut = [cut_into_windows(name, image, (window[0], window[1])) for name, image, *_ in found]
            found = [files for files, windows in zip(found, cut, strict=True) for _ in windows]
            parts = [part for windows in cut for part in windows]
        samples = [(name, *files[1:], part) for (name, part), files in zip(parts, found, strict=True)]
        if val_fraction is not None:
            kept = set(split_off([name for name, *_ in samples], split, val_fraction, test_fraction, group=group,
                                 seed=split_seed))
            samples = [sample for sample in samples if sample[0] in kept]
        self.names, self.images, self._masks, self._instance_maps, windows = map(list, zip(*samples, strict=True))
        self.windows = None if window is None else windows
        self.masks = [next(iter(of_image)) for of_image in self._masks]
        self._one_a_class = one_a_class

    def read_target(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        mask, window = self.masks[index], None if self.windows is None else self.windows[index]
        target = (read_class_masks(self._masks[index], self._rule, window) if self._one_a_class
                  else read_target(mask, self._rule, window))
        return read_objects(target, mask, self._instance_maps[index], window=window)

    def list_files(self, index: int) -> list[Path]:
        return [*self.form.list_files(self.images[index]), *self._masks[index]]

    def list_sources(self, index: int) -> list[Path]:
        objects = self._instance_maps[index]
        return [self._class_file, *self.list_files(index), *([] if objects is None else [objects])]

    def remarks(self) -> list[str]:
        """Return what was left out or settled, and warn of a split that may leak."""
        leaky = ["dataset.val_fraction without dataset.group: where several images show one place, as the frames of a "
                 "video do, near-duplicates stand in several splits, and the scores are too good."] * self._ungrouped
        return [*leaky, *super().remarks(), *self._rule.remarks()]


@check(SETTINGS, "train and val of the same images; ways of splitting that exclude each other")
def _check_splitting(paths: dict[str, str | None], split: str, names: str | None, val_fraction: float | None,
                     test_fraction: float | None, group: str | None) -> None:
    """Check that train and val will not be the same images, and that ways of splitting are not mixed."""
    if val_fraction is None:
        for key, value in (("group", group), ("test_fraction", test_fraction)):
            if value is not None:
                raise UserError(f"dataset.{key} is for dataset.val_fraction: set both, or none.")
    elif not 0 < val_fraction < 1:
        raise ValueError(f"val_fraction={val_fraction} must be between 0 and 1")
    elif test_fraction is not None and not 0 < test_fraction < 1 - val_fraction:
        raise ValueError(f"test_fraction={test_fraction} must be above 0, and leave a share for train: val_fraction is "
                         f"{val_fraction}")
    if names is not None and val_fraction is not None:
        raise UserError("dataset.names and dataset.val_fraction exclude each other: the lists say what is in a split, "
                        "or the share does.")
    if names is not None and lists.is_list(paths["images"] or ""):
        raise UserError(f"dataset.names picks out of a folder, but dataset.images={paths['images']} is a list itself: "
                        "set one of them.")
    if val_fraction is not None or (names is not None and "{split}" in names):
        by, why = ("names", "picks out of") if val_fraction is None else ("val_fraction", "splits")
        for key, path in paths.items():
            if path is not None and "{split}" in path:
                raise UserError(f"dataset.{by} {why} one set of images, but dataset.{key}={path} has {{split}}: "
                                f"set dataset.{key} to the path of them all, or dataset.{by}=null.")
    elif "{split}" not in (paths["images"] or "") and split in ("train", "val"):
        raise UserError(
            f"dataset.images={paths['images']} has no {{split}}, so train and val would be the same images: write "
            "{split} where their paths differ, split them with dataset.val_fraction=0.2, or list what is in each with "
            "dataset.names; to evaluate them all, call the split otherwise, dataset.split=all.")


@check(LISTED, "images that are all masks themselves")
def _find(base: Path, paths: dict[str, str | None], mask_suffix: str, listed: Path | None, *,
          find_masks: Callable[[Path, str, str], dict[str, Masks]], skip_without_mask: bool,
          targets_only: bool) -> tuple[list[tuple[str, Path, Masks, Path | None]], list[Path]]:
    """Find the name, image, masks and instance map of each sample, sorted; and the images that were left out.

    `listed` is a list of names, or None for all. With targets_only no image need be there.
    """
    images_at, masks_at, maps_at = str(paths["images"]), paths["masks"], paths["instance_maps"]
    is_list = lists.is_list(images_at)
    if is_list:
        images, listed_masks = lists.read_list(base / images_at, base, "dataset.images", masks_only=targets_only)
        names = {name: name for name in images}
        if listed_masks or masks_at is None:
            masks = {name: {path: 0} for name, path in (listed_masks or _find_beside(images, mask_suffix)).items()}
        else:
            masks = lists.match_by_tail(images, find_masks(base, masks_at, mask_suffix), "dataset.masks")
    else:
        masks = find_masks(base, images_at if masks_at is None else masks_at, mask_suffix)
        images, names = {}, {}
        if not targets_only or discovery.find_first_folder(base, images_at).is_dir():
            images, names = discovery.find_images(base, images_at, "dataset.root, dataset.images and dataset.split")
        some, mask_files = bool(images), {path for of_image in masks.values() for path in of_image}
        if masks_at is not None and CLASS in masks_at:
            _warn_of_other_classes(base, masks_at, mask_files | {*images.values()})
        images = {identity: path for identity, path in images.items() if path not in mask_files}
        if targets_only and not images:
            images = {identity: next(iter(of_image)) for identity, of_image in masks.items()}
            names = {identity: identity for identity in masks}
        elif some and not images:
            raise UserError(f"every image of {base / images_at} is also a mask: tell them apart with "
                            "dataset.mask_suffix=_mask, or dataset.images and dataset.masks with wildcards.")
    if listed is not None:
        images = lists.pick_names(images, names, lists.read_names(listed, "dataset.names"), listed)
    discovery.refuse_empty(images, base / images_at, "dataset.root, dataset.images and dataset.split")
    left_out: list[Path] = []
    if skip_without_mask:
        images, left_out = discovery.leave_out(images, masks)
    found_masks = find_partners(images, masks, base / (masks_at or images_at), ending=mask_suffix)
    found_maps: list[Path] | list[None] = [None] * len(images)
    if maps_at is not None:
        maps, _ = discovery.find_images(base, maps_at, "dataset.instance_maps")
        if is_list:
            maps = lists.match_by_tail(images, maps, "dataset.instance_maps")
        found_maps = find_partners(images, maps, base / maps_at, "instance map")
    order = sorted(images)
    return list(zip([names[identity] for identity in order], [images[identity] for identity in order], found_masks,
                    found_maps, strict=True)), left_out


def _find_masks(base: Path, pattern: str, suffix: str) -> dict[str, Masks]:
    """Find masks by their images' identities."""
    found, _ = discovery.find_images(base, pattern, "dataset.root, dataset.masks and dataset.split")
    return {identity.removesuffix(suffix): {path: 0} for identity, path in found.items() if identity.endswith(suffix)}


@check(LISTED, "masks of each class: none for any class, or some for the class of the value 0")
def _find_class_masks(base: Path, pattern: str, suffix: str, labels: Sequence[Label]) -> dict[str, Masks]:
    """Find the masks of each class by their images' identities; a class without any is absent, or the background."""
    found: dict[str, Masks] = {}
    for label in labels:
        own = pattern.replace(CLASS, label.name)
        if not discovery.find_first_folder(base, own).is_dir():
            continue
        masks = _find_masks(base, own, suffix)
        if masks and label.label_id == 0:
            first = next(path for of_image in masks.values() for path in of_image)
            raise UserError(f"{first} is a mask of the class {label.name}, whose value is 0, as where no mask is: give "
                            "it another label_id in the class file; what no mask covers is a class of label_id 0 "
                            "without masks, or void with dataset.void=rest.")
        for identity, of_class in masks.items():
            found.setdefault(identity, {}).update(dict.fromkeys(of_class, label.label_id))
    if not found:
        names = ", ".join(label.name for label in labels[:5])
        raise UserError(f"{base / pattern}: no class of the class file ({names}) has a mask there; the names must be "
                        "those of the files or folders; check dataset.masks.")
    return found


@check(LISTED, "masks of classes that the class file does not list, which are left out", then=WARNED)
def _warn_of_other_classes(base: Path, pattern: str, used: set[Path]) -> None:
    """Name the masks under a pattern of one mask a class that are of none."""
    every = pattern.replace(CLASS, "*") + ("" if discovery.is_glob(pattern) else "/**")
    others = sorted({*discovery.find_images(base, every, "dataset.masks")[0].values()} - used)
    if others:
        log.warning("warning: %d masks are of no class in the class file and left out, the first is %s", len(others),
                    others[0])

@check(LISTED, "several masks beside one image")
def _find_beside(images: dict[str, Path], suffix: str) -> dict[str, Path]:
    """Find the masks of listed images in their own folders."""
    masks = {}
    for name, image in images.items():
        there = [path for path in (image.with_name(f"{image.stem}{suffix}{end}") for end in sorted(IMAGE_SUFFIXES))
                 if path.is_file() and path != image]
        if len(there) > 1:
            raise UserError(f"{there[0]} and {there[1]} are both masks of {image}: keep one of them.")
        if there:
            masks[name] = there[0]
    return masks
