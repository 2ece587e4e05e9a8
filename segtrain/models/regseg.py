"""RegSeg: an encoder of dilated blocks that sees far without giving up size, and a light decoder."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.models.blocks import SegmentationNetwork, check_size, resize_like
from segtrain.models.stdc_blocks import ConvBNReLU

# dilations of the blocks at 1/16; with two, each has half of the channels
DILATIONS = ((1,), (1,), (1, 2), *[(1, 4)] * 4, *[(1, 14)] * 7)

RENAMED = {r"^stem\.": "encoder.stem.", r"^body\.": "encoder."}


class RegSeg(SegmentationNetwork):
    """Segment images with RegSeg.

    Source: Gao, "Rethinking dilated convolution for real-time semantic segmentation", 2021.
    """

    def __init__(self, num_classes: int, in_channels: int = 3):
        super().__init__(num_classes, in_channels)
        self.encoder = Encoder(in_channels)
        self.decoder = Decoder(num_classes)

    def forward(self, images: Tensor) -> Tensor:
        check_size(images)
        return resize_like(self.decoder(*self.encoder(images)), images)


class Encoder(nn.Module):
    """Extract features at strides 4, 8 and 16."""

    def __init__(self, in_channels: int):
        super().__init__()
        self.stem = ConvBNReLU(in_channels, 32, 3, 2)
        self.stage4 = DilatedBlock(32, 48, 2)
        self.stage8 = nn.Sequential(DilatedBlock(48, 128, 2), DilatedBlock(128, 128), DilatedBlock(128, 128))
        first, *others, last = DILATIONS
        self.stage16 = nn.Sequential(DilatedBlock(128, 256, 2, first),
                                     *(DilatedBlock(256, 256, 1, dilations) for dilations in others),
                                     DilatedBlock(256, 320, 1, last))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x4 = self.stage4(self.stem(images))
        x8 = self.stage8(x4)
        return x4, x8, self.stage16(x8)


class DilatedBlock(nn.Module):
    """Add convolutions in groups of 16 channels, between two 1x1 ones, to the input (D block).

    Args:
        dilations: Of the grouped convolutions; with two, each has half of the channels.
    """

    def __init__(self, in_channels: int, channels: int, stride: int = 1, dilations: tuple[int, ...] = (1,)):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels)
        self.conv2 = SplitConv(channels, stride, dilations) if len(dilations) > 1 else grouped(channels, stride, 1)
        self.bn2 = nn.BatchNorm2d(channels)
        self.se = SqueezeExcite(channels, in_channels // 4)
        self.conv3, self.bn3 = nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels)
        self.shortcut = Shortcut(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.se(F.relu(self.bn2(self.conv2(out))))
        return F.relu(self.bn3(self.conv3(out)) + self.shortcut(x))


def grouped(channels: int, stride: int, dilation: int) -> nn.Conv2d:
    """Return a 3x3 convolution in groups of 16 channels."""
    return nn.Conv2d(channels, channels, 3, stride, dilation, dilation, groups=channels // 16, bias=False)


class SplitConv(nn.Module):
    """Convolve equal parts of the channels, each with its own dilation."""

    def __init__(self, channels: int, stride: int, dilations: tuple[int, ...]):
        super().__init__()
        self.convs = nn.ModuleList(grouped(channels // len(dilations), stride, dilation) for dilation in dilations)

    def forward(self, x: Tensor) -> Tensor:
        parts = x.chunk(len(self.convs), 1)
        return torch.cat([conv(part) for conv, part in zip(self.convs, parts, strict=True)], 1)


class SqueezeExcite(nn.Module):
    """Weigh the channels by what the whole image shows."""

    def __init__(self, channels: int, squeezed: int):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv2(F.relu(self.conv1(x.mean((2, 3), keepdim=True)))).sigmoid()


class Shortcut(nn.Module):
    """Bring the input of a block to the size of its output."""

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.pool = nn.AvgPool2d(2, 2, ceil_mode=True) if stride == 2 else nn.Identity()
        self.conv: nn.Module = nn.Identity()
        self.bn: nn.Module = nn.Identity()
        if stride == 2 or in_channels != channels:
            self.conv, self.bn = nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(self.pool(x)))


class Decoder(nn.Module):
    """Bring the features back to 1/4, and classify."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.head16, self.head8, self.head4 = ConvBNReLU(320, 128), ConvBNReLU(128, 128), ConvBNReLU(48, 8)
        self.conv8, self.conv4 = ConvBNReLU(128, 64, 3), ConvBNReLU(72, 64, 3)
        self.classifier = nn.Conv2d(64, num_classes, 1)

    def forward(self, x4: Tensor, x8: Tensor, x16: Tensor) -> Tensor:
        x8 = self.head8(x8)
        x8 = self.conv8(x8 + resize_like(self.head16(x16), x8))
        x4 = self.head4(x4)
        return self.classifier(self.conv4(torch.cat([resize_like(x8, x4), x4], 1)))
