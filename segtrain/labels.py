"""Class tables as data: what each class is called, its value in a file, and how it is drawn."""

import colorsys
from dataclasses import dataclass

IGNORE_INDEX = 255  # the train id of void: pixels that are neither trained on nor scored


@dataclass(frozen=True)
class Label:
    """One class of a dataset.

    Attributes:
        name: The class as its dataset spells it.
        label_id: Its value in a label file.
        train_id: Its index in the logits, 0..K-1; IGNORE_INDEX for a label that is neither trained on nor scored.
        color: (red, green, blue), each 0..255, for pictures.
        has_instances: Whether separate objects of it can be counted, so that an iIoU is defined.
        category: The group of classes that it belongs to, where its dataset has such groups.
    """

    name: str
    label_id: int
    train_id: int
    color: tuple[int, int, int]
    has_instances: bool = False
    category: str | None = None


def default_color(train_id: int) -> tuple[int, int, int]:
    """Return the colour of a class that was given none; hues are spread by the golden ratio, so neighbours differ."""
    rgb = colorsys.hsv_to_rgb((train_id * 0.618034) % 1, 0.75, 0.9 - 0.3 * (train_id % 2))
    red, green, blue = (round(255 * value) for value in rgb)
    return red, green, blue
