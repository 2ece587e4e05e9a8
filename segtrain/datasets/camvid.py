"""CamVid in the 480x360 layout published with the SegNet tutorial."""

from pathlib import Path

from segtrain.datasets.base import Sample
from segtrain.datasets.pictures import pair_files, read_pair, to_train_ids
from segtrain.errors import UserError
from segtrain.labels import CAMVID, IGNORE_INDEX

VOID_LABEL = 11


class CamVid:
    """The folders train, trainannot, val, valannot, test and testannot: RGB images, index labels 0..11 (11 = void).

    Source: Brostow et al., "Semantic object classes in video" (2009); splits and 11 classes of SegNet's authors.

    Args:
        split: "train", "val" or "test".
        root: The folder that holds these folders.
    """

    def __init__(self, split: str, root: str | None = None) -> None:
        if root is None:
            raise UserError("dataset.root is needed: the folder that holds CamVid's train and trainannot, "
                            "dataset.root=/data/CamVid")
        if split not in ("train", "val", "test"):
            raise UserError(f"dataset.split={split}: CamVid has the splits train, val and test.")
        self.labels = CAMVID
        base = Path(root).expanduser()
        self.names, self._images, self._masks = pair_files(base / split, base / f"{split}annot", "dataset.root")

    def read(self, index: int) -> Sample:
        image, mask = read_pair(self._images[index], self._masks[index])
        return Sample(image, to_train_ids(mask, self.labels, [VOID_LABEL, IGNORE_INDEX], self._masks[index]))

    def files(self, index: int) -> str:
        return str(self._masks[index])
