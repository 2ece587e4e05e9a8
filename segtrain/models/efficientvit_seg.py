"""EfficientViT-Seg: linear attention that mixes two scales, between depthwise convolutions."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.models.blocks import SegmentationNetwork, UnknownNameError, check_size, resize_like

# channels of the five stages; their blocks (in the last two, of attention); channels and blocks of the head
VARIANTS = {
    "b0": ((8, 16, 32, 64, 128), (1, 2, 2, 2, 2), 32, 1),
    "b1": ((16, 32, 64, 128, 256), (1, 2, 3, 3, 4), 64, 3),
}
DIM = 16  # channels of an attention head

RENAMED = {
    r"\.(op_list|main)(?=\.)": "",
    r"^backbone\.input_stem\.": "encoder.stem.",
    r"^backbone\.": "encoder.",
    r"\.qkv\.conv\.": ".qkv.",
    r"\.aggreg\.0\.": ".aggreg.",
    r"^head\.input_ops\.([01])\.0\.": r"head.inputs.\1.",
    r"^head\.input_ops\.2\.": "head.inputs.2.",
    r"^head\.output_ops\.0\.0\.": "head.output.0.",
    r"^head\.output_ops\.0\.1\.conv\.": "head.output.1.",
}


class EfficientViTSeg(SegmentationNetwork):
    """Segment images with EfficientViT-Seg, the Cityscapes variant, whose logits have 1/8 of the size.

    Args:
        variant: b0 or b1.

    Source: Cai et al., "EfficientViT: Multi-scale linear attention for high-resolution dense prediction", ICCV 2023.
    """

    def __init__(self, num_classes: int, in_channels: int = 3, variant: str = "b0"):
        super().__init__(num_classes, in_channels)
        if variant not in VARIANTS:
            raise UnknownNameError("variant", variant, VARIANTS)
        widths, depths, width, depth = VARIANTS[variant]
        self.encoder = Encoder(in_channels, widths, depths)
        self.head = Head(widths, width, depth, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        check_size(images)
        return resize_like(self.head(self.encoder(images)), images, "bicubic")


class ConvNorm(nn.Module):
    """Convolve with a padding that keeps the size, normalise (or add a bias) and activate by hard-swish, each if so."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1, *, groups: int = 1,
        is_normed: bool = True, is_active: bool = True,
    ):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=not is_normed)
        self.norm = nn.BatchNorm2d(out_channels) if is_normed else nn.Identity()
        self.act = nn.Hardswish(inplace=True) if is_active else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


class MBConv(nn.Module):
    """Expand the channels four times for a depthwise convolution; with stride 1 the input is added.

    Args:
        is_normed: Whether the first two convolutions have norms, or else biases.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, is_normed: bool = True):
        super().__init__()
        wide = 4 * in_channels
        self.inverted_conv = ConvNorm(in_channels, wide, is_normed=is_normed)
        self.depth_conv = ConvNorm(wide, wide, 3, stride, groups=wide, is_normed=is_normed)
        self.point_conv = ConvNorm(wide, out_channels, is_active=False)
        self.adds = stride == 1

    def forward(self, x: Tensor) -> Tensor:
        out = self.point_conv(self.depth_conv(self.inverted_conv(x)))
        return x + out if self.adds else out


class DSConv(nn.Module):
    """Add a depthwise and a pointwise convolution to the input."""

    def __init__(self, channels: int):
        super().__init__()
        self.depth_conv = ConvNorm(channels, channels, 3, groups=channels)
        self.point_conv = ConvNorm(channels, channels, is_active=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.point_conv(self.depth_conv(x))


class LinearAttention(nn.Module):
    """Attend to all positions at a cost that is linear in their number, at two scales, and add the input."""

    def __init__(self, channels: int):
        super().__init__()
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.aggreg = nn.Sequential(
            nn.Conv2d(3 * channels, 3 * channels, 5, padding=2, groups=3 * channels, bias=False),
            nn.Conv2d(3 * channels, 3 * channels, 1, groups=3 * channels // DIM, bias=False),
        )
        self.proj = ConvNorm(2 * channels, channels, is_active=False)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x)
        qkv = torch.cat([qkv, self.aggreg(qkv)], 1)
        if torch.is_autocast_enabled(x.device.type):
            with torch.autocast(x.device.type, enabled=False):  # the sums over all positions overflow in float16
                out = attend(qkv.float()).to(qkv.dtype)
        else:
            out = attend(qkv)
        return x + self.proj(out)


def attend(qkv: Tensor) -> Tensor:
    """Return ReLU attention of each group of query, key and value channels: (N, 3 C, H, W) -> (N, C, H, W)."""
    query, key, value = qkv.flatten(2).unflatten(1, (-1, 3, DIM)).unbind(2)
    query, key = F.relu(query), F.relu(key)
    total = key.sum(3, keepdim=True).mT @ query
    # a clamp, not a tiny summand, which exporters drop: a position whose queries are all 0 would become NaN
    return ((value @ key.mT) @ query / total.clamp_min(1e-15)).flatten(1, 2).unflatten(2, qkv.shape[2:])


class AttentionBlock(nn.Module):
    """Look at the whole image, then at the neighbours."""

    def __init__(self, channels: int):
        super().__init__()
        self.context_module = LinearAttention(channels)
        self.local_module = MBConv(channels, channels, is_normed=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.local_module(self.context_module(x))


class Encoder(nn.Module):
    """Extract features at strides 8, 16 and 32."""

    def __init__(self, in_channels: int, widths: tuple[int, ...], depths: tuple[int, ...]):
        super().__init__()
        channels = widths[0]
        self.stem = nn.Sequential(ConvNorm(in_channels, channels, 3, 2), *(DSConv(channels) for _ in range(depths[0])))
        self.stages = nn.ModuleList()
        for number, (width, depth) in enumerate(zip(widths[1:], depths[1:], strict=True)):
            attends = number >= 2
            blocks: list[nn.Module] = [MBConv(channels, width, 2, is_normed=not attends)]
            blocks += [AttentionBlock(width) if attends else MBConv(width, width)
                       for _ in range(depth if attends else depth - 1)]
            self.stages.append(nn.Sequential(*blocks))
            channels = width

    def forward(self, images: Tensor) -> list[Tensor]:
        x, outputs = self.stem(images), []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return outputs[1:]


class Head(nn.Module):
    """Add up the features at 1/8, and turn them into logits."""

    def __init__(self, widths: tuple[int, ...], channels: int, depth: int, num_classes: int):
        super().__init__()
        self.inputs = nn.ModuleList(ConvNorm(width, channels, is_active=False) for width in reversed(widths[2:]))
        self.middle = nn.Sequential(*(MBConv(channels, channels) for _ in range(depth)))
        self.output = nn.Sequential(ConvNorm(channels, 4 * channels), nn.Conv2d(4 * channels, num_classes, 1))

    def forward(self, features: list[Tensor]) -> Tensor:
        high, middle, low = features
        x = resize_like(self.inputs[0](low), high, "bicubic") + resize_like(self.inputs[1](middle), high, "bicubic")
        return self.output(self.middle(x + self.inputs[2](high)))
