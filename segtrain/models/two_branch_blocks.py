"""What DDRNet and PIDNet share: residual blocks that may end without ReLU, pyramids, heads.

Parameters keep the names that they have in the authors' code.
"""

import torch
from torch import Tensor, nn

from segtrain.models.blocks import PooledBatchNorm2d, conv_bn, preact, resize_like


class BasicBlock(nn.Module):
    """Add two 3x3 convolutions to the input; an open block ends without ReLU."""

    def __init__(self, in_channels: int, channels: int, stride: int = 1, is_open: bool = False):
        super().__init__()
        self.conv1, self.bn1 = conv_bn(in_channels, channels, 3, stride)
        self.relu = nn.ReLU(inplace=True)
        self.conv2, self.bn2 = conv_bn(channels, channels, 3)
        self.downsample = shortcut(in_channels, channels, stride)
        self.last = nn.Identity() if is_open else nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.last(out + self.downsample(x))


class Bottleneck(nn.Module):
    """Add a 3x3 convolution between two 1x1 ones, which double the channels at the end, to the input; without ReLU."""

    def __init__(self, in_channels: int, channels: int, stride: int = 1):
        super().__init__()
        self.conv1, self.bn1 = conv_bn(in_channels, channels)
        self.conv2, self.bn2 = conv_bn(channels, channels, 3, stride)
        self.conv3, self.bn3 = conv_bn(channels, 2 * channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(in_channels, 2 * channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))))
        return self.bn3(self.conv3(out)) + self.downsample(x)


def shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Return what brings the input of a residual block to the size of its output."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return conv_bn(in_channels, out_channels, 1, stride)


def chain(in_channels: int, channels: int, length: int, stride: int = 1) -> nn.Sequential:
    """Return basic blocks in a row, the first with the stride, the last one open."""
    blocks = [BasicBlock(in_channels, channels, stride, is_open=length == 1)]
    blocks += [BasicBlock(channels, channels, is_open=number == length - 1) for number in range(1, length)]
    return nn.Sequential(*blocks)


def stem(in_channels: int, channels: int) -> nn.Sequential:
    """Return two convolutions that each halve the size; they have a bias though BatchNorm follows."""
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 3, 2, 1), nn.BatchNorm2d(channels), nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels, 3, 2, 1), nn.BatchNorm2d(channels), nn.ReLU(inplace=True),
    )  # fmt: skip


def preact_conv(in_channels: int, out_channels: int, kernel: int = 1, groups: int = 1) -> nn.Sequential:
    """Return BatchNorm, ReLU and a convolution without bias that keeps the size."""
    return preact(nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, groups=groups, bias=False))


def pooled_preact(pool: nn.Module, in_channels: int, out_channels: int) -> nn.Sequential:
    """Return a pooling, then BatchNorm, ReLU and a 1x1 convolution without bias."""
    return nn.Sequential(pool, PooledBatchNorm2d(in_channels), nn.ReLU(inplace=True),
                         nn.Conv2d(in_channels, out_channels, 1, bias=False))


class Pyramid(nn.Module):
    """Pool features (N, C, H, W) at three scales and over the whole image: what both pyramids begin with."""

    def __init__(self, in_channels: int, channels: int, out_channels: int):
        super().__init__()
        self.scale0 = preact_conv(in_channels, channels)
        self.scale1, self.scale2, self.scale3 = (
            pooled_preact(nn.AvgPool2d(kernel, kernel // 2, kernel // 2), in_channels, channels)
            for kernel in (5, 9, 17))
        self.scale4 = pooled_preact(nn.AdaptiveAvgPool2d(1), in_channels, channels)
        self.compression = preact_conv(5 * channels, out_channels)
        self.shortcut = preact_conv(in_channels, out_channels)

    def pool(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the features at full size, and those of each scale brought to it; the last is a single cell."""
        full = self.scale0(x)
        pooled = [resize_like(scale(x), full) for scale in (self.scale1, self.scale2, self.scale3)]
        return full, [*pooled, self.scale4(x)]


class SerialPyramid(Pyramid):
    """Aggregate the scales one after the other, each on top of the last.

    Source: Pan et al., "Deep dual-resolution networks for real-time and accurate semantic segmentation of traffic
    scenes", T-ITS 2022 (DAPPM).
    """

    def __init__(self, in_channels: int, channels: int, out_channels: int):
        super().__init__(in_channels, channels, out_channels)
        self.process1, self.process2, self.process3, self.process4 = (
            preact_conv(channels, channels, 3) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        full, pooled = self.pool(x)
        outputs = [full]
        for process, scale in zip((self.process1, self.process2, self.process3, self.process4), pooled, strict=True):
            outputs.append(process(scale + outputs[-1]))
        return self.compression(torch.cat(outputs, 1)) + self.shortcut(x)


class ParallelPyramid(Pyramid):
    """Aggregate all scales at once.

    Source: Xu et al., PIDNet, CVPR 2023 (PAPPM).
    """

    def __init__(self, in_channels: int, channels: int, out_channels: int):
        super().__init__(in_channels, channels, out_channels)
        self.scale_process = preact_conv(4 * channels, 4 * channels, 3, groups=4)

    def forward(self, x: Tensor) -> Tensor:
        full, pooled = self.pool(x)
        scales = self.scale_process(torch.cat([scale + full for scale in pooled], 1))
        return self.compression(torch.cat([full, scales], 1)) + self.shortcut(x)


class Head(nn.Module):
    """Turn features into logits with two pre-activation convolutions."""

    def __init__(self, in_channels: int, channels: int, out_channels: int):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(in_channels), nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(channels), nn.Conv2d(channels, out_channels, 1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.relu(self.bn2(self.conv1(self.relu(self.bn1(x))))))
