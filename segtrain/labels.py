"""Describe classes: name, value in label files, train id and colour."""

import colorsys
from dataclasses import dataclass

IGNORE_INDEX = 255  # the train id of void pixels, which are neither trained on nor scored


@dataclass(frozen=True)
class Label:
    """One class of a dataset.

    Attributes:
        name: The class as its dataset spells it.
        label_id: Its value in a label file.
        train_id: Its index in the logits, 0..K-1; IGNORE_INDEX for a label that is neither trained on nor scored.
        color: (red, green, blue), 0..255, for label maps.
        has_instances: Whether its objects can be counted, so that an iIoU is defined.
        category: The group of classes that it belongs to, if its dataset has groups.
        other_ids: Further values in label files that mean it, too.
        other_colors: Further colours of colour masks that mean it, too.
    """

    name: str
    label_id: int
    train_id: int
    color: tuple[int, int, int]
    has_instances: bool = False
    category: str | None = None
    other_ids: tuple[int, ...] = ()
    other_colors: tuple[tuple[int, int, int], ...] = ()

    @property
    def ids(self) -> tuple[int, ...]:
        """All values in label files that mean it."""
        return self.label_id, *self.other_ids

    @property
    def colors(self) -> tuple[tuple[int, int, int], ...]:
        """All colours of colour masks that mean it."""
        return self.color, *self.other_colors


def make_up_color(train_id: int) -> tuple[int, int, int]:
    """Return a colour for a class without one; hues are spread by the golden ratio, so that neighbours differ."""
    rgb = colorsys.hsv_to_rgb((train_id * 0.618034) % 1, 0.75, 0.9 - 0.3 * (train_id % 2))
    red, green, blue = (round(255 * value) for value in rgb)
    return red, green, blue
