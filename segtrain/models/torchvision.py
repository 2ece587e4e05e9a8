"""Torchvision's segmentation networks: FCN, DeepLabV3 and LR-ASPP, by the names that torchvision gives them."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import get_model, list_models, segmentation

from segtrain.models.blocks import UnknownNameError, check_channels, check_size
from segtrain.models.encoders import set_in_channels
from segtrain.models.pretrained import Normalization, load_pretrained, normalization


class TorchvisionNetwork(nn.Module):
    """Segment images with one of torchvision's networks.

    It is built by torchvision and taken apart into encoder and head, whose parameters keep their names. What differs:
    the logits alone are returned, the auxiliary head is left out, and the images may have any number of channels.

    Args:
        num_classes: Classes to tell apart, K.
        name: The network as torchvision calls it, such as deeplabv3_resnet50.
        in_channels: Channels of the images, C.
        pretrained: ImageNet weights of the encoder, torchvision's classifier such as resnet50, see `load_pretrained`;
            None starts from scratch.

    Shape:
        - images: (N, C, H, W), float, normalised; any H and W >= 32.
        - returns: logits (N, K, H, W), float, unbounded.

    Raises:
        ValueError: If an argument is out of range, the network or the weights are unknown, or do not load; in forward,
            if the height or the width is below 32.

    Source: FCN: Long et al., "Fully convolutional networks for semantic segmentation", CVPR 2015. DeepLabV3: Chen et
    al., "Rethinking atrous convolution for semantic image segmentation", 2017. LR-ASPP: Howard et al., "Searching for
    MobileNetV3", ICCV 2019.
    """

    def __init__(self, num_classes: int, name: str, in_channels: int = 3, pretrained: str | None = None):
        super().__init__()
        check_channels(num_classes, in_channels)
        known = list_models(module=segmentation)
        if name not in known:
            raise UnknownNameError("network of torchvision", name, known)
        network = get_model(name, weights=None, weights_backbone=None, num_classes=num_classes)
        self.encoder, self.head = network.backbone, network.classifier
        # LR-ASPP's head reads two feature maps, those of the others the last one.
        self.reads_all_features = isinstance(network, segmentation.LRASPP)
        key, conv = next(pair for pair in self.encoder.named_modules() if isinstance(pair[1], nn.Conv2d))
        set_in_channels(conv, in_channels)
        if pretrained is not None:
            load_pretrained(
                self.encoder,
                encoder_name(name),
                pretrained,
                first_conv=f"{key}.weight",
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
