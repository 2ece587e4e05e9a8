"""LR-ASPP on any encoder: a head so light that the encoder is nearly all of the network."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torchvision.models.segmentation.lraspp import LRASPPHead

from segtrain.models.blocks import SegmentationNetwork, crop_like, pad_to_multiple
from segtrain.models.named_encoders import NamedEncoder
from segtrain.models.pretrained import Normalization, normalization


class LRASPP(SegmentationNetwork):
    """Segment images with the head of MobileNetV3's authors, torchvision's implementation.

    The encoder's last map is weighed by what is in the whole image and classified together with its map at 1/8. Unlike
    in `torchvision/lraspp_mobilenet_v3_large` the encoder is not dilated: its last map is at 1/32, or 1/16.

    Args:
        encoder: One of `NamedEncoder`.
        width: Channels of the weighed map.

    Source: Howard et al., "Searching for MobileNetV3", ICCV 2019.
    """

    def __init__(self, num_classes: int, in_channels: int = 3, encoder: str = "mobilenet_v3_large",
                 pretrained: str | None = None, width: int = 128):
        super().__init__(num_classes, in_channels)
        if width < 1:
            raise ValueError(f"width must be at least 1 (128 is the paper's), not {width}")
        self.encoder = NamedEncoder(encoder, in_channels, pretrained)
        self.at8 = self.encoder.strides.index(8)
        self.head = LRASPPHead(self.encoder.channels[self.at8], self.encoder.channels[-1], num_classes, width)

    @staticmethod
    def normalization(pretrained: str, encoder: str = "mobilenet_v3_large", **others: Any) -> Normalization:
        """Return the normalisation that the encoder's weights expect, see `pretrained.normalization`."""
        return normalization(encoder, pretrained)

    def forward(self, images: Tensor) -> Tensor:
        padded = pad_to_multiple(images, self.encoder.strides[-1])
        maps = self.encoder(padded)
        logits = self.head({"low": maps[self.at8], "high": maps[-1]})
        return crop_like(F.interpolate(logits, padded.shape[-2:], mode="bilinear"), images)
