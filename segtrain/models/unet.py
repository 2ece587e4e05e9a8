"""U-Net: what was seen on the way down is handed across, at every scale, to the way up."""

from typing import Any

import torch
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
from segtrain.models.named_encoders import NamedEncoder
from segtrain.models.pretrained import IMAGENET, Normalization, normalization


class UNet(SegmentationNetwork):
    """Segment images with U-Net.

    Two things differ from the original: convolutions pad, so that the logits have the images' size (the original loses
    92 pixels on each side); and there is no dropout at the bottom, for which the paper gives no rate.

    Args:
        width: Channels at full size; at each halving they double. 64 is the paper's; None: 64, and 16 with an encoder.
        batch_norm: Put batch normalisation between convolution and ReLU. The original has none; None: only with an
            encoder, in the decoder.
        aux: Add an auxiliary head on the decoder's map at 1/8, as deep supervision; not the paper's.
        encoder: None: the paper's; or one of `NamedEncoder` in its place.
        pretrained: What is loaded into such an encoder.

    Source: Ronneberger et al., "U-Net: Convolutional networks for biomedical image segmentation", MICCAI 2015.
    """

    def __init__(self, num_classes: int, in_channels: int = 3, width: int | None = None,
                 batch_norm: bool | None = None, aux: bool = False, encoder: str | None = None,
                 pretrained: str | None = None):
        super().__init__(num_classes, in_channels)
        width = (64 if encoder is None else 16) if width is None else width
        batch_norm = encoder is not None if batch_norm is None else batch_norm
        if width < 1:
            raise ValueError(f"width must be at least 1 (64 is the paper's), not {width}")
        if encoder is None and pretrained is not None:
            raise ValueError("pretrained weights are for an encoder by name, as encoder=resnet18: give one")
        self.encoder = UNetEncoder(in_channels, width, batch_norm) if encoder is None else (
            NamedEncoder(encoder, in_channels, pretrained))
        skips = dict(zip(self.encoder.strides, self.encoder.channels, strict=True))
        self.decoder, channels, stride = nn.ModuleList(), self.encoder.channels[-1], self.encoder.strides[-1]
        while stride > 1:
            stride //= 2
            self.decoder.append(DecoderBlock(channels, skips.get(stride, 0), width * stride, batch_norm))
            channels = width * stride
        self.head = nn.Conv2d(width, num_classes, 1)
        if aux:
            self.aux["at8"], self.aux_weights = fcn_head(8 * width, 2 * width, num_classes), {"at8": 0.4}
        # The paper's; without BatchNorm nothing else keeps signals from fading.
        for part in (*([self.encoder] if encoder is None else []), self.decoder, self.head, self.aux):
            kaiming_init(part)

    @staticmethod
    def normalization(pretrained: str, encoder: str | None = None, **others: Any) -> Normalization:
        """Return the normalisation that the encoder's weights expect, see `pretrained.normalization`."""
        return IMAGENET if encoder is None else normalization(encoder, pretrained)

    def forward(self, images: Tensor) -> Output:
        padded = pad_to_multiple(images, self.encoder.strides[-1])
        maps = dict(zip(self.encoder.strides, self.encoder(padded), strict=True))
        stride = self.encoder.strides[-1]
        x = maps[stride]
        for block in self.decoder:
            stride //= 2
            x = maps[stride] = block(x, maps.get(stride))
        return self.with_aux(crop_like(self.head(x), images), {"at8": maps[8]}, padded)


class UNetEncoder(nn.ModuleList):
    """The paper's way down: two convolutions at each of five scales, which a max pooling halves."""

    strides = (1, 2, 4, 8, 16)

    def __init__(self, in_channels: int, width: int, batch_norm: bool):
        self.channels = tuple(width * stride for stride in self.strides)
        super().__init__(double_conv(before, after, batch_norm)
                         for before, after in zip((in_channels, *self.channels), self.channels, strict=False))

    def forward(self, images: Tensor) -> list[Tensor]:
        maps: list[Tensor] = []
        for block in self:
            maps.append(block(F.max_pool2d(maps[-1], 2) if maps else images))
        return maps


class DecoderBlock(nn.Module):
    """Enlarge twofold, put the skip (N, skip_channels, 2H, 2W) in front where there is one, convolve twice."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int, batch_norm: bool):
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
        self.convs = double_conv(skip_channels + out_channels, out_channels, batch_norm)

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        x = self.up(x)
        return self.convs(x if skip is None else torch.cat([skip, x], dim=1))


def double_conv(in_channels: int, out_channels: int, batch_norm: bool) -> nn.Sequential:
    """Convolve twice, 3x3, each with ReLU; batch normalisation before it if wanted."""
    convs = [nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.Conv2d(out_channels, out_channels, 3, padding=1)]
    if batch_norm:
        return nn.Sequential(*map(bn_relu, convs))
    return nn.Sequential(convs[0], nn.ReLU(inplace=True), convs[1], nn.ReLU(inplace=True))
