"""LinkNet: a ResNet encoder whose features are added, not concatenated, to those of a thin decoder."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.models.blocks import (
    Output,
    SegmentationNetwork,
    bn_relu,
    crop_like,
    fcn_head,
    kaiming_init,
    pad_to_multiple,
)
from segtrain.models.encoders import ResNetEncoder
from segtrain.models.pretrained import Normalization, normalization


class LinkNet(SegmentationNetwork):
    """Segment images with LinkNet.

    Args:
        encoder: resnet18 (the paper's), resnet34 or resnet50, each torchvision's without its fc.
        aux: Add an auxiliary head on the decoder's map at 1/8, as deep supervision; not the paper's.

    Source: Chaurasia and Culurciello, "LinkNet: Exploiting encoder representations for efficient semantic
    segmentation", VCIP 2017.
    """

    def __init__(
        self, num_classes: int, in_channels: int = 3, encoder: str = "resnet18", pretrained: str | None = None,
        aux: bool = False,
    ):
        super().__init__(num_classes, in_channels)
        self.encoder = ResNetEncoder(encoder, in_channels, pretrained)
        stem, c1, c2, c3, c4 = self.encoder.channels
        self.decoder = nn.ModuleList([
            DecoderBlock(c4, c3),
            DecoderBlock(c3, c2),
            DecoderBlock(c2, c1),
            DecoderBlock(c1, stem, stride=1),  # the encoder's first stage keeps the size of its stem
        ])  # fmt: skip
        self.head = nn.Sequential(
            bn_relu(nn.ConvTranspose2d(stem, 32, 3, stride=2, padding=1, output_padding=1)),
            bn_relu(nn.Conv2d(32, 32, 3, padding=1)),
            nn.ConvTranspose2d(32, num_classes, 2, stride=2),
        )
        if aux:
            self.aux["at8"], self.aux_weights = fcn_head(c2, c2 // 4, num_classes), {"at8": 0.4}
        for part in (self.decoder, self.head, self.aux):
            kaiming_init(part)

    @staticmethod
    def normalization(pretrained: str, encoder: str = "resnet18", **others: Any) -> Normalization:
        """Return the normalisation that the encoder's weights expect, see `pretrained.normalization`."""
        return normalization(encoder, pretrained)

    def forward(self, images: Tensor) -> Output:
        padded = pad_to_multiple(images, 32)
        *skips, x = self.encoder(padded)
        maps = []
        for block, skip in zip(self.decoder, reversed(skips), strict=True):
            x = F.relu(skip + block(x))
            maps.append(x)
        return self.with_aux(crop_like(self.head(x), images), {"at8": maps[1]}, padded)


class DecoderBlock(nn.Sequential):
    """Squeeze to a quarter of the channels, enlarge by `stride`, widen to the channels of the skip."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 2):
        mid = in_channels // 4
        super().__init__(
            bn_relu(nn.Conv2d(in_channels, mid, 1, bias=False)),
            bn_relu(nn.ConvTranspose2d(mid, mid, 3, stride, padding=1, output_padding=stride - 1, bias=False)),
            bn_relu(nn.Conv2d(mid, out_channels, 1, bias=False)),
        )
