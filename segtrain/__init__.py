"""Train and evaluate semantic-segmentation networks from one config-driven command."""
