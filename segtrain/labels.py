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

# All labels of Cityscapes (Cordts et al., "The Cityscapes dataset for semantic urban scene understanding", 2016), in
# the order of the label ids. Those without a train id are ignored in evaluation; the number -1 stands in no label file.
CITYSCAPES_LABELS = (
    Label("unlabeled", 0, IGNORE_INDEX, (0, 0, 0), category="void"),
    Label("ego vehicle", 1, IGNORE_INDEX, (0, 0, 0), category="void"),
    Label("rectification border", 2, IGNORE_INDEX, (0, 0, 0), category="void"),
    Label("out of roi", 3, IGNORE_INDEX, (0, 0, 0), category="void"),
    Label("static", 4, IGNORE_INDEX, (0, 0, 0), category="void"),
    Label("dynamic", 5, IGNORE_INDEX, (111, 74, 0), category="void"),
    Label("ground", 6, IGNORE_INDEX, (81, 0, 81), category="void"),
    Label("road", 7, 0, (128, 64, 128), category="flat"),
    Label("sidewalk", 8, 1, (244, 35, 232), category="flat"),
    Label("parking", 9, IGNORE_INDEX, (250, 170, 160), category="flat"),
    Label("rail track", 10, IGNORE_INDEX, (230, 150, 140), category="flat"),
    Label("building", 11, 2, (70, 70, 70), category="construction"),
    Label("wall", 12, 3, (102, 102, 156), category="construction"),
    Label("fence", 13, 4, (190, 153, 153), category="construction"),
    Label("guard rail", 14, IGNORE_INDEX, (180, 165, 180), category="construction"),
    Label("bridge", 15, IGNORE_INDEX, (150, 100, 100), category="construction"),
    Label("tunnel", 16, IGNORE_INDEX, (150, 120, 90), category="construction"),
    Label("pole", 17, 5, (153, 153, 153), category="object"),
    Label("polegroup", 18, IGNORE_INDEX, (153, 153, 153), category="object"),
    Label("traffic light", 19, 6, (250, 170, 30), category="object"),
    Label("traffic sign", 20, 7, (220, 220, 0), category="object"),
    Label("vegetation", 21, 8, (107, 142, 35), category="nature"),
    Label("terrain", 22, 9, (152, 251, 152), category="nature"),
    Label("sky", 23, 10, (70, 130, 180), category="sky"),
    Label("person", 24, 11, (220, 20, 60), has_instances=True, category="human"),
    Label("rider", 25, 12, (255, 0, 0), has_instances=True, category="human"),
    Label("car", 26, 13, (0, 0, 142), has_instances=True, category="vehicle"),
    Label("truck", 27, 14, (0, 0, 70), has_instances=True, category="vehicle"),
    Label("bus", 28, 15, (0, 60, 100), has_instances=True, category="vehicle"),
    Label("caravan", 29, IGNORE_INDEX, (0, 0, 90), has_instances=True, category="vehicle"),
    Label("trailer", 30, IGNORE_INDEX, (0, 0, 110), has_instances=True, category="vehicle"),
    Label("train", 31, 16, (0, 80, 100), has_instances=True, category="vehicle"),
    Label("motorcycle", 32, 17, (0, 0, 230), has_instances=True, category="vehicle"),
    Label("bicycle", 33, 18, (119, 11, 32), has_instances=True, category="vehicle"),
    Label("license plate", -1, IGNORE_INDEX, (0, 0, 142), category="vehicle"),
)
CITYSCAPES = tuple(label for label in CITYSCAPES_LABELS if label.train_id != IGNORE_INDEX)  # the 19 classes

# Mean pixels of an object, which the official iIoU of Cityscapes weighs with (cityscapesScripts 2.3.0).
CITYSCAPES_SIZES = {
    "person": 3462.4756337644, "rider": 3930.4788056518, "car": 12794.0202738185, "truck": 27855.1264367816,
    "bus": 35732.1511111111, "caravan": 36771.8241758242, "trailer": 16926.9763313609, "train": 67583.7075812274,
    "motorcycle": 6298.7200839748, "bicycle": 4672.3249222261,
}

# The classes of PASCAL VOC (Everingham et al., "The PASCAL visual object classes challenge", 2015) and its palette.
VOC = (
    Label("background", 0, 0, (0, 0, 0)),
    Label("aeroplane", 1, 1, (128, 0, 0), has_instances=True),
    Label("bicycle", 2, 2, (0, 128, 0), has_instances=True),
    Label("bird", 3, 3, (128, 128, 0), has_instances=True),
    Label("boat", 4, 4, (0, 0, 128), has_instances=True),
    Label("bottle", 5, 5, (128, 0, 128), has_instances=True),
    Label("bus", 6, 6, (0, 128, 128), has_instances=True),
    Label("car", 7, 7, (128, 128, 128), has_instances=True),
    Label("cat", 8, 8, (64, 0, 0), has_instances=True),
    Label("chair", 9, 9, (192, 0, 0), has_instances=True),
    Label("cow", 10, 10, (64, 128, 0), has_instances=True),
    Label("diningtable", 11, 11, (192, 128, 0), has_instances=True),
    Label("dog", 12, 12, (64, 0, 128), has_instances=True),
    Label("horse", 13, 13, (192, 0, 128), has_instances=True),
    Label("motorbike", 14, 14, (64, 128, 128), has_instances=True),
    Label("person", 15, 15, (192, 128, 128), has_instances=True),
    Label("pottedplant", 16, 16, (0, 64, 0), has_instances=True),
    Label("sheep", 17, 17, (128, 64, 0), has_instances=True),
    Label("sofa", 18, 18, (0, 192, 0), has_instances=True),
    Label("train", 19, 19, (128, 192, 0), has_instances=True),
    Label("tvmonitor", 20, 20, (0, 64, 128), has_instances=True),
)
