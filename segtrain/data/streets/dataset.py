"""The embedded dataset: synthetic street scenes, nothing to download."""

from segtrain.data.base import Dataset, Sample
from segtrain.data.camvid import CAMVID
from segtrain.data.streets.scene import draw_scene
from segtrain.errors import UserError


class Streets(Dataset):
    """Street scenes drawn from (seed, split, index), with CamVid's classes and an instance map each.

    The splits are "train" and "val"; another seed is another dataset. ValueError for a number out of range.
    """

    def __init__(self, split: str, height: int = 128, width: int = 192, num_train: int = 160, num_val: int = 32,
                 seed: int = 0) -> None:
        sizes = {"train": num_train, "val": num_val}
        if split not in sizes:
            raise UserError(f"dataset.split={split}: streets has the splits {' and '.join(sizes)}.")
        for name, value, least, most in (("height", height, 32, 8192), ("width", width, 32, 8192),
                                         ("seed", seed, 0, 2**63 - 1), ("num_train", num_train, 1, 10**6),
                                         ("num_val", num_val, 1, 10**6)):
            if not least <= value <= most:
                raise ValueError(f"{name}={value} must be at least {least} and at most {most}")
        self.labels = CAMVID
        self.names = [f"street_{split}_{index:05d}" for index in range(sizes[split])]
        self._drawing = (seed, split)
        self._size = (height, width)

    def read(self, index: int) -> Sample:
        image, target, instances = draw_scene(*self._drawing, index, *self._size)
        return Sample(image, target, instances)
