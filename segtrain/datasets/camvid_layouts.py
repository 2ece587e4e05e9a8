"""The folders in which people have CamVid, and the labelled frames in them."""

from pathlib import Path

from segtrain.datasets.camvid_splits import SPLITS
from segtrain.datasets.pairs import has_pictures, pair_files
from segtrain.datasets.pictures import PICTURE_SUFFIXES
from segtrain.errors import UserError

Frames = dict[str, tuple[Path, Path]]  # image and label by the frame's name

# Images and labels of the original release: as it is published, and as it is often passed on.
ORIGINAL_FOLDERS = (("701_StillsRaw_full", "LabeledApproved_full"), ("images", "labels"),
                    *((split, f"{split}_labels") for split in SPLITS))
LABEL_ENDINGS = ("_L", "_P", "")  # after the frame's name: colours, index masks, either


def is_merged(base: Path) -> bool:
    """Say whether a folder holds the 480x360 release: train and trainannot, or those of another split."""
    return any((base / f"{split}annot").is_dir() for split in SPLITS)


def merged_frames(base: Path, targets_only: bool = False) -> Frames:
    """Return all frames of the 480x360 release, of whatever splits are there; images may be missing if told so."""
    frames: Frames = {}
    for split in SPLITS:
        if (base / f"{split}annot").is_dir():
            names, images, masks = pair_files(base / split, base / f"{split}annot", "dataset.root",
                                              targets_only=targets_only)
            frames |= _new(frames, dict(zip(names, zip(images, masks, strict=True), strict=True)))
    return frames


def original_frames(base: Path, split: str, targets_only: bool = False) -> Frames:
    """Return all frames of the original release, of whatever folders are there; images may be missing if told so.

    Raises:
        UserError: If it is not there, or a frame has no label or two; `split` is for the message.
    """
    if not base.is_dir():
        raise UserError(f"{base / split} is not a folder, for {base} is none: check dataset.root, or "
                        "fetch CamVid with dataset.download=true.")
    folders = [(base / images, base / labels) for images, labels in ORIGINAL_FOLDERS if (base / labels).is_dir()]
    if not folders:
        pairs = ", ".join(f"{images} and {labels}" for images, labels in ORIGINAL_FOLDERS[:3])
        raise UserError(f"{base / f'{split}annot'} is not a folder, and {base} holds no other layout of CamVid "
                        f"({pairs}): check dataset.root, or fetch CamVid into a new folder with "
                        "dataset.download=true.")
    frames: Frames = {}
    for images, labels in folders:
        frames |= _new(frames, _labelled(images, labels, targets_only))
    return frames


def _labelled(images: Path, labels: Path, targets_only: bool) -> Frames:
    """Match images with labels; a label without an image is left alone, unless there is no image at all."""
    found_labels = _pictures_in(labels)
    if targets_only and not has_pictures(images):
        found_images = {name: images / f"{name}.png" for name in map(_frame, found_labels)}
    else:
        found_images = _pictures_in(images)
    frames: Frames = {}
    for name, image in found_images.items():
        fitting = [found_labels[name + ending] for ending in LABEL_ENDINGS if name + ending in found_labels]
        if not fitting:
            raise UserError(f"{image} has no label {name}_L.png in {labels}: add it, or remove the image.")
        if len(fitting) > 1:
            raise UserError(f"{fitting[0]} and {fitting[1]} are both labels of {image}: keep one of them.")
        frames[name] = (image, fitting[0])
    return frames


def _frame(label: str) -> str:
    """Return the name of the frame that a label's name belongs to."""
    return label.removesuffix(next(ending for ending in LABEL_ENDINGS if label.endswith(ending)))


def _pictures_in(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: check dataset.root.")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".") and not path.is_dir():
            if path.stem in found:
                raise UserError(f"{found[path.stem]} and {path} have the same name: keep one of them.")
            found[path.stem] = path
    return found


def _new(frames: Frames, more: Frames) -> Frames:
    """Return `more`, which must not repeat a frame."""
    for name in sorted(frames.keys() & more.keys()):
        raise UserError(f"{frames[name][0]} and {more[name][0]} are the same frame: keep one of them.")
    return more
