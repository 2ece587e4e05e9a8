"""Train and evaluate semantic-segmentation networks from one config-driven command."""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else importing it asks the network for a newer version
