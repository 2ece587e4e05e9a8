"""LinkNet: an encoder whose features are added, not concatenated, to those of a thin decoder."""

from itertools import pairwise
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
from segtrain.models.encoders import RESNETS, ResNetEncoder
from segtrain.models.named_encoders import NamedEncoder
from segtrain.models.pretrained import Normalization, normalization


class LinkNet(SegmentationNetwork):
    """Segment images with LinkNet.

    Args:
        encoder: resnet18 (the paper's), resnet34 or resnet50, each torchvision's without its fc; or any other one of
            `NamedEncoder`, whose map at stride 2, where it has one, takes the place of the ResNet's at stride 4.
        aux: Add an auxiliary head on the decoder's map at 1/8, as deep supervision; not the paper's.

    Source: Chaurasia and Culurciello, "LinkNet: Exploiting encoder representations for efficient semantic
    segmentation", VCIP 2017.
    """

    def __init__(
        self, num_classes: int, in_channels: int = 3, encoder: str = "resnet18", pretrained: str | None = None,
        aux: bool = False,
    ):
        super().__init__(num_classes, in_channels)
        kind = ResNetEncoder if encoder in RESNETS else NamedEncoder
        self.encoder = kind(encoder, in_channels, pretrained)
        levels = list(zip(self.encoder.channels, self.encoder.strides, strict=True))
        # The first stage of a ResNet keeps the size of its stem: there the stride is 1.
        self.decoder = nn.ModuleList(
            DecoderBlock(channels, skip, stride=stride // skip_stride)
            for (skip, skip_stride), (channels, stride) in reversed(list(pairwise(levels))))
        channels, stride = levels[0]
        self.head = nn.Sequential(
            bn_relu(nn.ConvTranspose2d(channels, 32, 3, stride=2, padding=1, output_padding=1) if stride == 4 else
                    nn.Conv2d(channels, 32, 3, padding=1)),
            bn_relu(nn.Conv2d(32, 32, 3, padding=1)),
            nn.ConvTranspose2d(32, num_classes, 2, stride=2),
        )
        if aux:
            at8 = self.encoder.channels[self.encoder.strides.index(8)]
            self.aux["at8"], self.aux_weights = fcn_head(at8, max(1, at8 // 4), num_classes), {"at8": 0.4}
        for part in (self.decoder, self.head, self.aux):
            kaiming_init(part)

    @staticmethod
    def normalization(pretrained: str, encoder: str = "resnet18", **others: Any) -> Normalization:
        """Return the normalisation that the encoder's weights expect, see `pretrained.normalization`."""
        return normalization(encoder, pretrained)

    def forward(self, images: Tensor) -> Output:
        padded = pad_to_multiple(images, self.encoder.strides[-1])
        *skips, x = self.encoder(padded)
        maps = [x]
        for block, skip in zip(self.decoder, reversed(skips), strict=True):
            x = F.relu(skip + block(x))
            maps.insert(0, x)
        return self.with_aux(crop_like(self.head(x), images), {"at8": maps[self.encoder.strides.index(8)]}, padded)


class DecoderBlock(nn.Sequential):
    """Squeeze to a quarter of the channels, enlarge by `stride`, widen to the channels of the skip."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 2):
        mid = max(1, in_channels // 4)
        super().__init__(
            bn_relu(nn.Conv2d(in_channels, mid, 1, bias=False)),
            bn_relu(nn.ConvTranspose2d(mid, mid, 3, stride, padding=1, output_padding=stride - 1, bias=False)),
            bn_relu(nn.Conv2d(mid, out_channels, 1, bias=False)),
        )
