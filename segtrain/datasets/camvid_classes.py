"""The 32 classes of the original CamVid release, and how they are merged to 11."""

from segtrain.datasets.mask_colors import Color
from segtrain.labels import CAMVID, CAMVID_VOID

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


def merged_ids(merge: str, void: int) -> list[int]:
    """Return the train id of each row of ORIGINAL, `void` for those that have no class."""
    train_ids = {label.name: label.train_id for label in CAMVID} | {VOID: void}
    return [train_ids[MERGES[merge][name]] for name, _, _, _ in ORIGINAL]
