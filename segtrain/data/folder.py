"""Your own images and masks, as they lie there: in folders, under patterns or in lists, with a class file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segtrain.data import discovery
from segtrain.data.base import Dataset, Sample
from segtrain.data.class_files import read_class_file
from segtrain.data.discovery import find_partners
from segtrain.data.images import IMAGE_SUFFIXES, check_sizes, read_image
from segtrain.data.masks import mask_rule, read_instances, read_target
from segtrain.data.splits import split_off
from segtrain.errors import UserError


class Folder(Dataset):
    """Images with index, palette, colour or black-and-white masks.

    A mask without an image is left alone; an image without a mask is an error.

    Args:
        split: Any name; it fills {split} in images, masks and instance_maps.
        root: The folder that the other paths are relative to.
        classes: The class file; segtrain/datasets/classes.py says what it may look like.
        images: A folder, searched through all its subfolders; a path with the wildcards *, ** and ?; or a list file,
            .txt or .csv: an image a line, or an image and its mask. Paths in lists stay below root.
        masks: A folder or a path with wildcards; None: beside the images. Masks have their images' relative names
            without suffix; with wildcards, the wildcards stand for the same.
        mask_suffix: What a mask's name has behind its image's: "_mask" for x.jpg and x_mask.png.
        void: What means void: values of a mask, colours ("#rrggbb" or [r, g, b]), names of classes that are not to be
            learned. None: 255; nothing with binary or threshold.
        binary: Read masks of two classes that hold 0, and 1 or 255.
        threshold: Read masks of two classes by brightness: from this on, 1..255, a pixel is of the second.
        nearest_colors: Read colours that are in no table as the nearest that is; a number: up to that distance in RGB.
        palette: What counts in palette images, "index" or "colors". None: the index, and those whose colours are
            other classes' in the class file are refused.
        image_bits: How many bits a channel images of 16 bits use, 8..16; None: all, and fewer are reported.
        instance_maps: Maps of the separate objects, a folder or a path with wildcards: a number each, 8 or 16 bits, or
            as R + 256 G + 65536 B; 0 = none.
        names: A list file for each split, a name a line: stems, or paths below the images' folder. It picks the split
            out of one set of images.
        val_fraction: Split one set of images: this share, between 0 and 1, is val, the others are train.
        test_fraction: Likewise a share that is test; val is the same with it and without.
        group: A regular expression with one group, searched in the images' names: images for which it gives the same
            text stay in one split.
        split_seed: Of that split.
        targets_only: Whether a split whose images are missing is made of its masks, if it is told from their paths or
            a list.
    """

    def __init__(self, split: str, root: str | None = None, classes: str = "classes.csv",
                 images: str = "{split}/images", masks: str | None = "{split}/masks", mask_suffix: str = "",
                 void: list[int | str | list[int]] | None = None, binary: bool = False, threshold: int | None = None,
                 nearest_colors: bool | int = False, palette: str | None = None, image_bits: int | None = None,
                 instance_maps: str | None = None, names: str | None = None, val_fraction: float | None = None,
                 test_fraction: float | None = None, group: str | None = None, split_seed: int = 0,
                 targets_only: bool = False) -> None:
        if root is None:
            raise UserError("dataset.root is needed: the folder that holds your images and masks, dataset.root=/data/x")
        if image_bits is not None and not 8 <= image_bits <= 16:
            raise ValueError(f"image_bits={image_bits} must be from 8 to 16")
        base = Path(root).expanduser()
        if not base.is_dir():
            raise UserError(f"{base} is not a folder: check dataset.root.")
        paths = {"images": images, "masks": masks, "instance_maps": instance_maps}
        _check_splitting(paths, split, names, val_fraction, test_fraction, group)
        self._rule = mask_rule(read_class_file(base / classes), void, binary=binary, threshold=threshold,
                               nearest_colors=nearest_colors, palette=palette)
        self.labels = self._rule.labels
        self._bits = image_bits
        self._ungrouped = val_fraction is not None and group is None
        filled = {key: None if text is None else text.replace("{split}", split) for key, text in paths.items()}
        tells_split = names is not None or masks is None or ("{split}" in masks) == ("{split}" in images)
        pairs = _find(base, filled, mask_suffix, None if names is None else base / names.replace("{split}", split),
                      targets_only=targets_only and tells_split)
        if val_fraction is not None:
            kept = set(split_off([pair.name for pair in pairs], split, val_fraction, test_fraction, group=group,
                                 seed=split_seed))
            pairs = [pair for pair in pairs if pair.name in kept]
        self.names = [pair.name for pair in pairs]
        self._pairs = pairs

    def read(self, index: int) -> Sample:
        pair = self._pairs[index]
        image, (target, instances) = read_image(pair.image, self._bits), self.read_target(index)
        check_sizes(image, pair.image, target, pair.mask)
        return Sample(image, target, instances)

    def read_target(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        pair = self._pairs[index]
        target = read_target(pair.mask, self._rule)
        if pair.instances is None:
            return target, None
        instances = read_instances(pair.instances)
        check_sizes(target, pair.mask, instances, pair.instances, "instance map")
        return target, instances

    def paths(self, index: int) -> tuple[Path, Path | None]:
        return self._pairs[index].image, self._pairs[index].mask

    def remarks(self) -> list[str]:
        """Warn of a split that may leak."""
        return ["dataset.val_fraction without dataset.group: where several images show one place, as the frames of a "
                "video do, near-duplicates stand in several splits, and the scores are too good."] * self._ungrouped


@dataclass(frozen=True)
class _Pair:
    """The files of one sample."""

    name: str
    image: Path
    mask: Path
    instances: Path | None


def _check_splitting(paths: dict[str, str | None], split: str, names: str | None, val_fraction: float | None,
                     test_fraction: float | None, group: str | None) -> None:
    """Check that train and val will not be the same images.

    Raises:
        UserError: If they would, or two ways of splitting are mixed.
    """
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
    if names is not None and discovery.is_list(paths["images"] or ""):
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


def _find(base: Path, paths: dict[str, str | None], mask_suffix: str, listed: Path | None, *,
          targets_only: bool) -> list[_Pair]:
    """Find images and what belongs to them, sorted by name.

    `listed` is a list of names, or None for all. With targets_only no image need be there.
    """
    images_at, masks_at, maps_at = str(paths["images"]), paths["masks"], paths["instance_maps"]
    where = base / (masks_at or images_at)
    masks: dict[str, Path] = {}
    if discovery.is_list(images_at):
        path = base / images_at
        images, masks = discovery.check_list(discovery.read_list(path, base, "dataset.images"), base, path,
                                       masks_only=targets_only)
        names = {name: name for name in images}
        if not masks:
            masks = _beside(images, mask_suffix) if masks_at is None else discovery.match_by_tail(
                images, _masks(base, masks_at, mask_suffix), "dataset.masks")
    else:
        masks = _masks(base, images_at if masks_at is None else masks_at, mask_suffix)
        if targets_only and not discovery.first_folder(base, images_at).is_dir():
            images, names = {}, {}
        else:
            images, names = discovery.find_images(base, images_at, "dataset.root, dataset.images and dataset.split")
        mask_files = set(masks.values())
        some = bool(images)
        images = {identity: path for identity, path in images.items() if path not in mask_files}
        if targets_only and not images:
            images, names = masks, {identity: identity for identity in masks}
        elif some and not images:
            raise UserError(f"every image of {base / images_at} is also a mask: tell them apart with "
                            "dataset.mask_suffix=_mask, or dataset.images and dataset.masks with wildcards.")
    if listed is not None:
        images = discovery.pick_names(images, names, discovery.read_names(listed, "dataset.names"), listed)
    if not images:
        raise UserError(f"{base / images_at} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}): the split is "
                        "empty; check dataset.root, dataset.images and dataset.split.")
    found = find_partners(images, masks, where)
    maps: list[Path] | list[None] = [None] * len(images)
    if maps_at is not None:
        known, _ = discovery.find_images(base, maps_at, "dataset.instance_maps")
        if discovery.is_list(images_at):
            known = discovery.match_by_tail(images, known, "dataset.instance_maps")
        maps = find_partners(images, known, base / maps_at, "instance map")
    return [_Pair(names[identity], images[identity], mask, instances)
            for identity, mask, instances in zip(sorted(images), found, maps, strict=True)]


def _masks(base: Path, pattern: str, suffix: str) -> dict[str, Path]:
    """Find masks by their images' identities."""
    found, _ = discovery.find_images(base, pattern, "dataset.root, dataset.masks and dataset.split")
    return {identity.removesuffix(suffix): path for identity, path in found.items() if identity.endswith(suffix)}


def _beside(images: dict[str, Path], suffix: str) -> dict[str, Path]:
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
