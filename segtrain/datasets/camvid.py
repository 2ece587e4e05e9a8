"""CamVid, in the 480x360 release of SegNet's authors and in the original one of 960x720."""

from pathlib import Path

import numpy as np

from segtrain.datasets import sources
from segtrain.datasets.base import Sample
from segtrain.datasets.camvid_classes import COLORS, MERGES, ORIGINAL, merged_ids
from segtrain.datasets.camvid_layouts import Frames, is_merged, merged_frames, original_frames
from segtrain.datasets.camvid_splits import SPLITS, official, shuffled
from segtrain.datasets.mask_colors import Color, counted, to_rows
from segtrain.datasets.pairs import pair_files
from segtrain.datasets.pictures import check_sizes, read_image, read_mask, to_train_ids
from segtrain.errors import UserError
from segtrain.labels import CAMVID, CAMVID_VOID, IGNORE_INDEX, Label

VOID_ROW = COLORS.index(CAMVID_VOID.color)


class CamVid:
    """Street scenes filmed from a car in Cambridge, 701 labelled frames.

    The layout is told from the folders below root: train and trainannot, ... hold index labels 0..11 (11 = void);
    701_StillsRaw_full and LabeledApproved_full, or images and labels, or train and train_labels, ... hold the labels
    x_L.png in 32 colours, which are merged.

    Source: Brostow et al., "Semantic object classes in video" (2009); splits and 11 classes of SegNet's authors.

    Args:
        split: "train", "val" or "test".
        root: The folder that holds these folders.
        splits: "official": the frames of SegNet's authors; "random": drawn from all labelled frames, with neighbours
            of the same video on both sides.
        seed: Of the random splits.
        num_train: Frames of the random training split; None: its share of the official one.
        num_val: Frames of the random validation split, likewise; test is the rest.
        merge: How the 32 classes become 11: "segnet" or "linknet".
        include_void: Whether void is a class of its own, trained and scored.
        download: Whether to fetch CamVid if root is missing or empty: the 480x360 release, or, for another merge than
            that of SegNet, the original one.
        targets_only: Whether a split whose images are missing is made of its labels.
    """

    def __init__(self, split: str, root: str | None = None, splits: str = "official", seed: int = 0,
                 num_train: int | None = None, num_val: int | None = None, merge: str = "segnet",
                 include_void: bool = False, download: bool = False, targets_only: bool = False) -> None:
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
        base = Path(root).expanduser()
        if download:
            sources.ensure(base, sources.CAMVID if merge == "segnet" else sources.CAMVID_ORIGINAL)
        self._is_merged = is_merged(base)
        if self._is_merged and merge != "segnet":
            raise UserError(f"dataset.merge={merge}: the labels in {base} are merged already, as dataset.merge=segnet; "
                            "the original release in 32 colours is needed for another.")
        self.labels: tuple[Label, ...] = (*CAMVID, CAMVID_VOID) if include_void else CAMVID
        self._merged_ids = merged_ids(merge, CAMVID_VOID.train_id if include_void else IGNORE_INDEX)
        self._is_random = splits == "random"
        if self._is_random:
            frames = (merged_frames(base, targets_only) if self._is_merged
                      else original_frames(base, split, targets_only))
            frames = {name: frames[name] for name in shuffled(sorted(frames), split, seed, num_train, num_val)}
        elif self._is_merged:
            names, images, masks = pair_files(base / split, base / f"{split}annot", "dataset.root",
                                              targets_only=targets_only)
            frames = dict(zip(names, zip(images, masks, strict=True), strict=True))
        else:
            frames = _official(original_frames(base, split, targets_only), base, split)
        self.names = list(frames)
        self._frames = list(frames.values())
        self._unknown: dict[int, dict[Color, int]] = {}  # colours of no class, by index

    def read(self, index: int) -> Sample:
        image_path, label_path = self._frames[index]
        image, (target, _) = read_image(image_path), self.read_target(index)
        check_sizes(image, image_path, target, label_path)
        return Sample(image, target)

    def read_target(self, index: int) -> tuple[np.ndarray, None]:
        if self._is_merged:
            path = self._frames[index][1]
            void = [value for value in (CAMVID_VOID.label_id, IGNORE_INDEX) if value >= len(self.labels)]
            return to_train_ids(read_mask(path, self.labels), self.labels, void, path), None
        table = np.full(256, self._merged_ids[VOID_ROW], dtype=np.uint8)
        table[:len(COLORS)] = self._merged_ids
        return table[self._read_rows(index)], None

    def _read_rows(self, index: int) -> np.ndarray:
        """Read a label of the original release as rows of its class table, uint8 (H, W); 255 for none of them."""
        path = self._frames[index][1]
        if path.stem.endswith("_P"):
            known = [Label(name, row, row, color) for row, (name, color, _, _) in enumerate(ORIGINAL)]
            return to_train_ids(read_mask(path), known, [IGNORE_INDEX], path)
        rows, unknown = to_rows(read_image(path), COLORS)
        void = np.count_nonzero(rows == VOID_ROW)  # black, which is as common in pictures of another kind
        if sum(unknown.values()) > (rows.size - void) // 2:
            raise UserError(f"{path} holds the colour {counted(unknown)}, which is none of CamVid's 32 classes, in "
                            "most of its pixels: it must be a label in the original colours.")
        if unknown:
            self._unknown[index] = unknown
        return rows

    def files(self, index: int) -> str:
        return str(self._frames[index][1])

    def paths(self, index: int) -> tuple[Path, Path | None]:
        return self._frames[index]

    def remarks(self) -> list[str]:
        """Return what the user should know: that a split leaks, and which colours became void."""
        found = []
        if self._is_random:
            found.append("dataset.splits=random: neighbouring frames of CamVid's videos are near-duplicates, and "
                         "random splits leak them from train into val and test: the scores come out too good.")
        if self._unknown:
            first = min(self._unknown)
            pixels = sum(sum(colors.values()) for colors in self._unknown.values())
            found.append(f"labels with colours of no class: {len(self._unknown)}, {pixels} pixels, which are void; "
                         f"the first is {self.files(first)}, {counted(self._unknown[first])}.")
        return found


def _official(frames: Frames, base: Path, split: str) -> Frames:
    names = official(split)
    missing = [name for name in names if name not in frames]
    if missing:
        raise UserError(f"{len(missing)} of the {len(names)} frames of CamVid's official split {split} are not in "
                        f"{base}, the first is {missing[0]}: complete the copy, or use dataset.splits=random.", missing)
    return {name: frames[name] for name in names}
