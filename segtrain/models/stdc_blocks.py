"""The encoder of STDC-Seg and PP-LiteSeg. Parameters keep the names that they have in the authors' code."""

import torch
from torch import Tensor, nn

from segtrain.models.blocks import conv_bn, kaiming_init

DEPTHS = {1: (2, 2, 2), 2: (4, 5, 3)}  # modules at 1/8, 1/16 and 1/32 of STDC1 and STDC2


class ConvBNReLU(nn.Module):
    """Convolve with a padding that keeps the size, normalise and rectify."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1, bias: bool = False,
        norm: type[nn.BatchNorm2d] = nn.BatchNorm2d,
    ):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=bias)
        self.bn = norm(out_channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(x)))


class STDCModule(nn.Module):
    """Concatenate the outputs of four convolutions in a row, each with half the channels of the one before.

    Args:
        stride: With 2 the size is halved after the first convolution, whose output is then pooled.
        counts_padding: Whether the padding counts in that pooling.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, counts_padding: bool):
        super().__init__()
        half, quarter, eighth = out_channels // 2, out_channels // 4, out_channels // 8
        self.conv_list = nn.ModuleList([
            ConvBNReLU(in_channels, half), ConvBNReLU(half, quarter, 3), ConvBNReLU(quarter, eighth, 3),
            ConvBNReLU(eighth, eighth, 3),
        ])  # fmt: skip
        self.avd_layer: nn.Module = nn.Identity()
        self.skip: nn.Module = nn.Identity()
        if stride == 2:
            self.avd_layer = conv_bn(half, half, 3, 2, groups=half)
            self.skip = nn.AvgPool2d(3, 2, 1, count_include_pad=counts_padding)

    def forward(self, x: Tensor) -> Tensor:
        first, *others = self.conv_list
        x = first(x)
        outputs = [self.skip(x)]
        x = self.avd_layer(x)
        for conv in others:
            x = conv(x)
            outputs.append(x)
        return torch.cat(outputs, 1)


class STDCEncoder(nn.Module):
    """Extract features at strides 2, 4, 8, 16 and 32.

    Args:
        depth: 1 or 2, for STDC1 or STDC2.
        counts_padding: See `STDCModule`; PyTorch's average pooling counts it by default, Paddle's does not.

    Source: Fan et al., "Rethinking BiSeNet for real-time semantic segmentation", CVPR 2021.
    """

    channels = (32, 64, 256, 512, 1024)

    def __init__(self, depth: int, in_channels: int, counts_padding: bool = True):
        super().__init__()
        layers: list[nn.Module] = [ConvBNReLU(in_channels, 32, 3, 2), ConvBNReLU(32, 64, 3, 2)]
        self.ends = [0, 1]  # the layers whose outputs are features
        channels = 64
        for width, length in zip(self.channels[2:], DEPTHS[depth], strict=True):
            for number in range(length):
                layers.append(STDCModule(channels, width, 2 if number == 0 else 1, counts_padding))
                channels = width
            self.ends.append(len(layers) - 1)
        self.features = nn.ModuleList(layers)
        kaiming_init(self, "fan_out")

    def forward(self, images: Tensor) -> list[Tensor]:
        x, outputs = images, []
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in self.ends:
                outputs.append(x)
        return outputs


class STDCHead(nn.Module):
    """Turn features into logits with a 3x3 convolution and a 1x1 one without bias."""

    def __init__(self, in_channels: int, channels: int, num_classes: int):
        super().__init__()
        self.conv = ConvBNReLU(in_channels, channels, 3)
        self.conv_out = nn.Conv2d(channels, num_classes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(self.conv(x))
