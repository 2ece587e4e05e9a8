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


# Of classes without a color. The first seven are those of Okabe and Ito (2008); each further one is as far as possible
# from all before it, and from black and white, in CIELAB, as seen with normal vision, protanopia and deuteranopia.
COLORS = ("e69f00", "56b4e9", "009e73", "f0e442", "0072b2", "d55e00", "cc79a7", "0000ff", "aaffaa", "0055d4",
          "aa002a", "802a55", "aaaa55", "aa80ff", "aad4aa", "802a80", "d4d4ff", "002ad4", "80ff80", "aa2a00")
BACKGROUNDS = ("background", "_background_", "bg")  # names of a first class that is not looked at


def is_background(name: str, train_id: int) -> bool:
    """Return whether a class is the background: the first, and called so."""
    return train_id == 0 and name.lower() in BACKGROUNDS


def make_up_color(train_id: int, name: str = "") -> tuple[int, int, int]:
    """Return a color for a class without one: black for a background, else one of COLORS as far as they go."""
    if is_background(name, train_id):
        return 0, 0, 0
    if train_id < len(COLORS):
        red, green, blue = bytes.fromhex(COLORS[train_id])
        return red, green, blue
    rgb = colorsys.hsv_to_rgb((train_id * 0.618034) % 1, 0.75, 0.9 - 0.3 * (train_id % 2))  # neighbours differ
    red, green, blue = (round(255 * value) for value in rgb)
    return red, green, blue
