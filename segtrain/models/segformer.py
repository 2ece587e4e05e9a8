"""SegFormer: a hierarchy of transformer stages without position codes, and a decoder of linear layers."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from segtrain.models.blocks import SegmentationNetwork, UnknownNameError, check_size, resize_like

VARIANTS = {"b0": (32, 64, 160, 256), "b1": (64, 128, 320, 512)}  # channels of the four stages
HEADS, REDUCTIONS = (1, 2, 5, 8), (8, 4, 2, 1)  # of each stage: attention heads, reduction of the keys' sides
DEPTH = 2  # blocks of each stage
NON_COMMERCIAL = "NVIDIA's Source Code License for SegFormer"  # of the weights that its authors have published

RENAMED = {  # of transformers 5, and of the files of its earlier versions
    r"^segformer\.stages\.": "encoder.stages.",
    r"\.patch_embeddings\.(?=proj|layer_norm)": ".patch.",
    r"\.attention\.sequence_reduction\.sequence_reduction\.": ".attention.reduction.",
    r"\.attention\.sequence_reduction\.layer_norm\.": ".attention.reduction_norm.",
    r"\.mlp\.dwconv\.dwconv\.": ".mlp.dwconv.",
    r"^segformer\.encoder\.patch_embeddings\.(\d)\.": r"encoder.stages.\1.patch.",
    r"^segformer\.encoder\.block\.(\d)\.(\d)\.": r"encoder.stages.\1.blocks.\2.",
    r"^segformer\.encoder\.layer_norm\.(\d)\.": r"encoder.stages.\1.layer_norm.",
    r"\.layer_norm_1\.": ".layernorm_before.",
    r"\.layer_norm_2\.": ".layernorm_after.",
    r"\.attention\.self\.sr\.": ".attention.reduction.",
    r"\.attention\.self\.layer_norm\.": ".attention.reduction_norm.",
    r"\.attention\.self\.query\.": ".attention.q_proj.",
    r"\.attention\.self\.key\.": ".attention.k_proj.",
    r"\.attention\.self\.value\.": ".attention.v_proj.",
    r"\.attention\.output\.dense\.": ".attention.o_proj.",
    r"\.mlp\.dense(\d)\.": r".mlp.fc\1.",
    r"^decode_head\.(?:linear_c|linear_projections)\.(\d)\.proj\.": r"head.linear.\1.",
    r"^decode_head\.linear_fuse\.": "head.fuse.",
    r"^decode_head\.": "head.",
}


class SegFormer(SegmentationNetwork):
    """Segment images with SegFormer; its logits have 1/4 of the size.

    Written from the paper. The weights that its authors publish are for non-commercial use only.

    Args:
        variant: b0 or b1.

    Source: Xie et al., "SegFormer: Simple and efficient design for semantic segmentation with transformers", NeurIPS
    2021.
    """

    def __init__(self, num_classes: int, in_channels: int = 3, variant: str = "b0"):
        super().__init__(num_classes, in_channels)
        if variant not in VARIANTS:
            raise UnknownNameError("variant", variant, VARIANTS)
        widths = VARIANTS[variant]
        self.encoder = Encoder(in_channels, widths)
        self.head = Head(widths, 256, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        check_size(images)
        return resize_like(self.head(self.encoder(images)), images)


class Encoder(nn.Module):
    """Extract features at strides 4, 8, 16 and 32."""

    def __init__(self, in_channels: int, widths: tuple[int, ...]):
        super().__init__()
        rates = iter(torch.linspace(0, 0.1, DEPTH * len(widths), device="cpu").tolist())
        self.stages = nn.ModuleList()
        for width, heads, reduction in zip(widths, HEADS, REDUCTIONS, strict=True):
            kernel, stride = (3, 2) if len(self.stages) else (7, 4)
            blocks = [Block(width, heads, reduction, next(rates)) for _ in range(DEPTH)]
            self.stages.append(Stage(in_channels, width, kernel, stride, blocks))
            in_channels = width
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> list[Tensor]:
        x, outputs = images, []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return outputs


class Stage(nn.Module):
    """Reduce the size with overlapping patches, then attend."""

    def __init__(self, in_channels: int, channels: int, kernel: int, stride: int, blocks: list["Block"]):
        super().__init__()
        self.patch = nn.ModuleDict({"proj": nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2),
                                    "layer_norm": nn.LayerNorm(channels)})
        self.blocks = nn.ModuleList(blocks)
        self.layer_norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch["proj"](x)
        size = x.shape[2:]
        tokens = self.patch["layer_norm"](to_tokens(x))
        for block in self.blocks:
            tokens = block(tokens, size)
        return to_map(self.layer_norm(tokens), size)


def to_tokens(x: Tensor) -> Tensor:
    """Turn a map (N, C, H, W) into tokens (N, H W, C)."""
    return x.flatten(2).mT


def to_map(tokens: Tensor, size: torch.Size) -> Tensor:
    """Turn tokens (N, H W, C) into a map (N, C, H, W) of `size`; other strides would fix sizes on tracing."""
    return tokens.mT.unflatten(2, size).contiguous()


class Block(nn.Module):
    """Add attention, then a mixed feed-forward network, to the tokens."""

    def __init__(self, channels: int, heads: int, reduction: int, rate: float):
        super().__init__()
        self.layernorm_before, self.layernorm_after = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attention = Attention(channels, heads, reduction)
        self.mlp = MixMLP(channels)
        self.drop = StochasticDepth(rate, "row")

    def forward(self, x: Tensor, size: torch.Size) -> Tensor:
        x = x + self.drop(self.attention(self.layernorm_before(x), size))
        return x + self.drop(self.mlp(self.layernorm_after(x), size))


class Attention(nn.Module):
    """Attend from every token to the tokens of a reduced map."""

    def __init__(self, channels: int, heads: int, reduction: int):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(channels, channels) for _ in range(4))
        self.reduces, self.heads = reduction > 1, heads
        if self.reduces:
            self.reduction = nn.Conv2d(channels, channels, reduction, reduction)
            self.reduction_norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor, size: torch.Size) -> Tensor:
        source = x
        if self.reduces:
            source = self.reduction_norm(to_tokens(self.reduction(to_map(x, size))))
        query, key, value = (projected.unflatten(2, (self.heads, -1)).transpose(1, 2) for projected in (
            self.q_proj(x), self.k_proj(source), self.v_proj(source)))
        return self.o_proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class MixMLP(nn.Module):
    """Widen the channels four times, with a depthwise convolution between the two linear layers."""

    def __init__(self, channels: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)
        self.dwconv = nn.Conv2d(4 * channels, 4 * channels, 3, padding=1, groups=4 * channels)

    def forward(self, x: Tensor, size: torch.Size) -> Tensor:
        return self.fc2(F.gelu(to_tokens(self.dwconv(to_map(self.fc1(x), size)))))


class Head(nn.Module):
    """Project the features of all stages to one width, join them at 1/4 and classify."""

    def __init__(self, widths: tuple[int, ...], channels: int, num_classes: int):
        super().__init__()
        self.linear = nn.ModuleList(nn.Linear(width, channels) for width in widths)
        self.fuse = nn.Conv2d(len(widths) * channels, channels, 1, bias=False)
        self.batch_norm, self.dropout = nn.BatchNorm2d(channels), nn.Dropout(0.1)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        maps = [resize_like(to_map(linear(to_tokens(x)), x.shape[2:]), features[0])
                for linear, x in zip(self.linear, features, strict=True)]
        return self.classifier(self.dropout(F.relu(self.batch_norm(self.fuse(torch.cat(maps[::-1], 1))))))
