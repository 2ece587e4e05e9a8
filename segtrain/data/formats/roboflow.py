"""Roboflow's "PNG masks for semantic segmentation"; its other exports are read as COCO's and YOLO's."""

from pathlib import Path

import numpy as np

from segtrain.data.folder import Folder
from segtrain.data.formats.files import list_folders, pick_split
from segtrain.errors import UserError, list_first
from segtrain.files import MAX_BYTES, read_text

TABLE = "_classes.csv"


class RoboflowMasks(Folder):
    """train/, valid/ and test/, in each x.jpg, x_mask.png and a _classes.csv, the same in all of them.

    The arguments are described in conf/dataset/roboflow.yaml.
    """

    def __init__(self, split: str, root: str | None = None, void: list[int | str | list[int]] | None = None,
                 image_bits: int | None = None, targets_only: bool = False) -> None:
        if root is None:
            raise UserError("dataset.root is needed: the folder that holds train, valid and test of a Roboflow export, "
                            "dataset.root=/data/mine")
        base = Path(root).expanduser()
        folders = list_tables(base)
        if not folders:
            raise UserError(f"{base} holds no folder with {TABLE}, as train/{TABLE}: check dataset.root.")
        name = pick_split([folder.name for folder in folders], split)
        if name is None:
            raise UserError(f"dataset.split={split}: {base} has the splits "
                            f"{list_first([folder.name for folder in folders])}.")
        self._table = base / name / TABLE
        own = _read_table(self._table)
        for folder in folders:
            if _read_table(folder / TABLE) != own:
                raise UserError(f"{self._table} and {folder / TABLE} differ, but all splits must have the same "
                                "classes: export them together.")
        super().__init__(name, root, classes=f"{name}/{TABLE}", images="{split}", masks=None, mask_suffix="_mask",
                         void=void, image_bits=image_bits, targets_only=targets_only)

    def read_target(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        try:
            return super().read_target(index)
        except UserError as error:
            raise UserError(f"{error} The class file is {self._table}.", error.files) from error


def list_tables(base: Path) -> list[Path]:
    """List the folders of an export: those with a table of classes."""
    return [folder for folder in list_folders(base) if (folder / TABLE).is_file()]


def _read_table(path: Path) -> list[list[str]]:
    text = read_text(path, MAX_BYTES, "export it again")
    return [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if line.strip()]
