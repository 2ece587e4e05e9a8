"""Torchvision's segmentation networks: FCN, DeepLabV3 and LR-ASPP, by the names that torchvision gives them."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torchvision.models import get_model, list_models, segmentation

from segtrain.models.blocks import SegmentationNetwork, UnknownNameError, check_size
from segtrain.models.encoders import set_in_channels
from segtrain.models.pretrained import Normalization, load_pretrained, normalization


class TorchvisionNetwork(SegmentationNetwork):
    """Segment images with one of torchvision's networks.

    It is built by torchvision and taken apart into encoder and head, whose parameters keep their names. What differs:
    the logits alone are returned, the auxiliary head is left out, and the images may have any number of channels.

    Args:
        name: The network as torchvision calls it, such as deeplabv3_resnet50.

    Source: FCN: Long et al., "Fully convolutional networks for semantic segmentation", CVPR 2015. DeepLabV3: Chen et
    al., "Rethinking atrous convolution for semantic image segmentation", 2017. LR-ASPP: Howard et al., "Searching for
    MobileNetV3", ICCV 2019.
    """

    def __init__(self, num_classes: int, name: str, in_channels: int = 3, pretrained: str | None = None):
        super().__init__(num_classes, in_channels)
        known = list_models(module=segmentation)
        if name not in known:
            raise UnknownNameError("network of torchvision", name, known)
        network = get_model(name, weights=None, weights_backbone=None, num_classes=num_classes)
        self.encoder, self.head = network.backbone, network.classifier
        # LR-ASPP's head reads two feature maps, those of the others the last one.
        self.reads_all_features = isinstance(network, segmentation.LRASPP)
        set_in_channels(self.encoder, in_channels)
        load_pretrained(
            self.encoder,
            encoder_name(name),
            pretrained,
            ignore=("fc.", "classifier."),
            rename=lambda key: key.removeprefix("features."),  # the encoder of a MobileNet is its features
        )

    @staticmethod
    def normalization(pretrained: str, name: str = "", **others: Any) -> Normalization:
        """Return the normalisation that the encoder's weights expect, see `pretrained.normalization`."""
        return normalization(encoder_name(name), pretrained)

    def forward(self, images: Tensor) -> Tensor:
        check_size(images)
        features = self.encoder(images)
        logits = self.head(features if self.reads_all_features else features["out"])
        return F.interpolate(logits, images.shape[-2:], mode="bilinear")


def encoder_name(name: str) -> str:
    """Return torchvision's name of a network's encoder: deeplabv3_resnet50 has a resnet50."""
    return name.partition("_")[2]
