"""ENet: a small network for real time, most of whose work is done early, at an eighth of the size."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.models.blocks import SegmentationNetwork, check_size, crop_like, kaiming_init, unpool

WIDTH = 16  # channels after the initial block; the two stages below have 64 and 128


class ENet(SegmentationNetwork):
    """Segment images with ENet.

    Where the paper leaves a choice, this follows the common reading with 350,652 parameters for 12 classes: a PReLU
    has one slope for all channels, no convolution has a bias, transposed convolutions in bottlenecks are 2x2, the last
    one is 3x3. Unlike in the paper's figure, the expansion of a bottleneck that keeps its size is also followed by an
    activation. Odd sizes are not padded: pooling rounds up, and the decoder returns to the sizes of the encoder.

    Args:
        in_channels: At most 15: the initial block passes them on among its 16 channels.

    Source: Paszke et al., "ENet: A deep neural network architecture for real-time semantic segmentation", 2016,
    arXiv:1606.02147.
    """

    def __init__(self, num_classes: int, in_channels: int = 3):
        super().__init__(num_classes, in_channels)
        if in_channels >= WIDTH:
            raise ValueError(f"in_channels must be below {WIDTH}, not {in_channels}: use another network")
        self.initial = InitialBlock(in_channels)
        self.down1 = DownBottleneck(16, 64, dropout=0.01)
        self.stage1 = nn.Sequential(*(Bottleneck(64, dropout=0.01) for _ in range(4)))
        self.down2 = DownBottleneck(64, 128)
        self.stage2 = context_stage()
        self.stage3 = context_stage()
        self.up4 = UpBottleneck(128, 64)
        self.stage4 = nn.Sequential(*(Bottleneck(64, activation=nn.ReLU) for _ in range(2)))
        self.up5 = UpBottleneck(64, 16)
        self.stage5 = Bottleneck(16, activation=nn.ReLU)
        self.head = nn.ConvTranspose2d(16, num_classes, 3, stride=2, padding=1, output_padding=1, bias=False)
        kaiming_init(self)

    def forward(self, images: Tensor) -> Tensor:
        check_size(images)
        half = self.initial(images)
        quarter, indices1 = self.down1(half)
        quarter = self.stage1(quarter)
        eighth, indices2 = self.down2(quarter)
        x = self.stage3(self.stage2(eighth))
        x = self.stage4(self.up4(x, indices2, quarter))
        x = self.stage5(self.up5(x, indices1, half))
        return crop_like(self.head(x), images)


class PReLU(nn.PReLU):
    """A PReLU with one slope, which trains in less than half of the time of torch's on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.device.type == "cpu" and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            return _OneSlope.apply(x, self.weight)
        return super().forward(x)


class _OneSlope(torch.autograd.Function):
    """The leaky ReLU with its slope as a tensor: torch's PReLU writes a gradient of the slope for every element."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(x, slope)
        return F.leaky_relu(x, slope.item())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, slope = ctx.saved_tensors
        grad_x = torch.ops.aten.leaky_relu_backward(grad, x, slope.item(), False)
        return grad_x, (grad * x.clamp(max=0)).sum(dtype=slope.dtype).reshape(slope.shape)


class InitialBlock(nn.Module):
    """Halve the images, rounding up: 13 learned features next to the maxima of the three colours, 16 channels."""

    def __init__(self, in_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, WIDTH - in_channels, 3, stride=2, padding=1, bias=False)
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.norm = nn.Sequential(nn.BatchNorm2d(WIDTH), PReLU())

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(torch.cat([self.conv(images), self.pool(images)], dim=1))


class Bottleneck(nn.Module):
    """Add to the features what a narrow branch finds: reduce to a quarter, convolve 3x3, expand.

    Args:
        asymmetric: Convolve 5x1 and 1x5 instead of 3x3.
        activation: PReLU in the encoder, ReLU in the decoder.
    """

    def __init__(
        self,
        channels: int,
        dilation: int = 1,
        asymmetric: bool = False,
        dropout: float = 0.1,
        activation: type[nn.Module] = PReLU,
    ):
        super().__init__()
        mid = channels // 4
        if asymmetric:
            convs = [
                nn.Conv2d(mid, mid, (5, 1), padding=(2, 0), bias=False),
                nn.Conv2d(mid, mid, (1, 5), padding=(0, 2), bias=False),
            ]
        else:
            convs = [nn.Conv2d(mid, mid, 3, padding=dilation, dilation=dilation, bias=False)]
        reduce, expand = nn.Conv2d(channels, mid, 1, bias=False), nn.Conv2d(mid, channels, 1, bias=False)
        self.branch = branch([reduce, *convs, expand], activation, dropout)
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(x + self.branch(x))


class DownBottleneck(nn.Module):
    """Halve the size, rounding up, and widen: the maxima, with channels of zeros behind them, plus a narrow branch.

    Also returns the indices of the maxima, (N, in_channels, H/2, W/2), int64.
    """

    def __init__(self, in_channels: int, out_channels: int, dropout: float = 0.1):
        super().__init__()
        mid = in_channels // 4
        self.pool = nn.MaxPool2d(2, ceil_mode=True, return_indices=True)
        self.branch = branch(
            [
                nn.Conv2d(in_channels, mid, 2, stride=2, bias=False),
                nn.Conv2d(mid, mid, 3, padding=1, bias=False),
                nn.Conv2d(mid, out_channels, 1, bias=False),
            ],
            PReLU,
            dropout,
        )
        self.new_channels = out_channels - in_channels
        self.activation = PReLU()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        maxima, indices = self.pool(x)
        maxima = F.pad(maxima, (0, 0, 0, 0, 0, self.new_channels))
        # One more row and column of zeros complete the last window of an odd size and do not reach one of an even size.
        return self.activation(maxima + self.branch(F.pad(x, (0, 1, 0, 1)))), indices


class UpBottleneck(nn.Module):
    """Double the size and narrow: the features, put to where the encoder's maxima were, plus a narrow branch.

    Shape:
        - x: (N, in_channels, H, W), float.
        - indices: (N, out_channels, H, W), int64, of the pooling that this undoes.
        - like: (N, out_channels, H', W'), what that pooling read; only its size counts.
        - returns: (N, out_channels, H', W'), float, >= 0.
    """

    def __init__(self, in_channels: int, out_channels: int, dropout: float = 0.1):
        super().__init__()
        mid = in_channels // 4
        self.main = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
        self.branch = branch(
            [
                nn.Conv2d(in_channels, mid, 1, bias=False),
                nn.ConvTranspose2d(mid, mid, 2, stride=2, bias=False),
                nn.Conv2d(mid, out_channels, 1, bias=False),
            ],
            nn.ReLU,
            dropout,
        )
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor, indices: Tensor, like: Tensor) -> Tensor:
        height, width = like.shape[-2:]
        main = unpool(self.main(x), indices, (height, width))
        return self.activation(main + crop_like(self.branch(x), like))


def branch(convs: list[nn.Conv2d | nn.ConvTranspose2d], activation: type[nn.Module], dropout: float) -> nn.Sequential:
    """Follow each convolution with batch normalisation and an activation, and end in spatial dropout."""
    layers: list[nn.Module] = []
    for conv in convs:
        layers += [conv, nn.BatchNorm2d(conv.out_channels), activation()]
    return nn.Sequential(*layers, nn.Dropout2d(dropout))


def context_stage() -> nn.Sequential:
    """Look ever further around: eight bottlenecks at an eighth of the size, dilated up to 16."""
    return nn.Sequential(
        Bottleneck(128),
        Bottleneck(128, dilation=2),
        Bottleneck(128, asymmetric=True),
        Bottleneck(128, dilation=4),
        Bottleneck(128),
        Bottleneck(128, dilation=8),
        Bottleneck(128, asymmetric=True),
        Bottleneck(128, dilation=16),
    )
