"""Class tables as data: what each class is called, its value in a file, and how it is drawn."""

from dataclasses import dataclass

IGNORE_INDEX = 255  # the train id of void: pixels that are neither trained on nor scored


@dataclass(frozen=True)
class Label:
    """One class of a dataset.

    Attributes:
        name: The class as its dataset spells it.
        label_id: Its value in a label file.
        train_id: Its index in the logits, 0..K-1.
        color: (red, green, blue), each 0..255, for pictures.
        has_instances: Whether separate objects of it can be counted, so that an iIoU is defined.
    """

    name: str
    label_id: int
    train_id: int
    color: tuple[int, int, int]
    has_instances: bool = False


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
