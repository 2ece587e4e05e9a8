"""STDC-Seg: a slim encoder, a context path on its deep features, and details that only training needs to see."""

import torch
from torch import Tensor, nn

from segtrain.models.blocks import (
    Output,
    PooledBatchNorm2d,
    SegmentationNetwork,
    UnknownNameError,
    check_size,
    resize_like,
)
from segtrain.models.stdc_blocks import DEPTHS, ConvBNReLU, STDCEncoder, STDCHead

RENAMED = {
    r"^cp\.backbone\.(features|x\d+)\.(?:0\.)?(\d+)\.": r"encoder.features.\2.",
    r"^cp\.backbone\.": None,  # the classifier that the encoder was pretrained with
    r"^conv_out_sp(2|4|16)\.": None,  # detail heads that the paper does not train
    r"^conv_out16\.": "aux.at8.",
    r"^conv_out32\.": "aux.at16.",
    r"^conv_out_sp8\.": "aux.detail.",
}


class STDC(SegmentationNetwork):
    """Segment images with STDC-Seg.

    The authors' BatchNorm outside the encoder (InPlaceABN) scales with |weight| + 1e-5; here it scales with its weight.

    Args:
        depth: 1 or 2, for STDC1 or STDC2.
        aux: Add auxiliary heads on both maps of the context path, at8 and at16, and one on the encoder that finds
            details.

    Source: Fan et al., "Rethinking BiSeNet for real-time semantic segmentation", CVPR 2021.
    """

    def __init__(self, num_classes: int, in_channels: int = 3, depth: int = 1, aux: bool = True):
        super().__init__(num_classes, in_channels)
        if depth not in DEPTHS:
            raise UnknownNameError("depth", str(depth), map(str, DEPTHS))
        self.encoder = STDCEncoder(depth, in_channels)
        self.cp = ContextPath()
        self.ffm = FeatureFusion(384, 256)
        self.conv_out = STDCHead(256, 256, num_classes)
        if aux:
            self.aux["at8"], self.aux["at16"] = STDCHead(128, 64, num_classes), STDCHead(128, 64, num_classes)
            self.aux["detail"] = STDCHead(256, 64, 1)
            self.aux_weights = {"at8": 1.0, "at16": 1.0, "detail": 1.0}

    def forward(self, images: Tensor) -> Output:
        check_size(images)
        *_, x8, x16, x32 = self.encoder(images)
        at8, at16 = self.cp(x8, x16, x32)
        logits = resize_like(self.conv_out(self.ffm(x8, at8)), images, align_corners=True)
        return self.with_aux(logits, {"at8": at8, "at16": at16, "detail": x8}, align_corners=True)


class AttentionRefinement(nn.Module):
    """Narrow features, and weigh their channels by what the whole image shows."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = ConvBNReLU(in_channels, out_channels, 3)
        self.conv_atten = nn.Conv2d(out_channels, out_channels, 1, bias=False)
        self.bn_atten = PooledBatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * self.bn_atten(self.conv_atten(x.mean((2, 3), keepdim=True))).sigmoid()


class ContextPath(nn.Module):
    """Bring deep features back to 1/16 and 1/8, from the mean of the image upwards."""

    def __init__(self) -> None:
        super().__init__()
        self.arm16, self.arm32 = AttentionRefinement(512, 128), AttentionRefinement(1024, 128)
        self.conv_head32, self.conv_head16 = ConvBNReLU(128, 128, 3), ConvBNReLU(128, 128, 3)
        self.conv_avg = ConvBNReLU(1024, 128, norm=PooledBatchNorm2d)

    def forward(self, x8: Tensor, x16: Tensor, x32: Tensor) -> tuple[Tensor, Tensor]:
        refined = self.arm32(x32) + self.conv_avg(x32.mean((2, 3), keepdim=True))
        at16 = self.conv_head32(resize_like(refined, x16, "nearest"))
        at8 = self.conv_head16(resize_like(self.arm16(x16) + at16, x8, "nearest"))
        return at8, at16


class FeatureFusion(nn.Module):
    """Join details and context, and weigh the channels by what the whole image shows."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.convblk = ConvBNReLU(in_channels, channels)
        self.conv1 = nn.Conv2d(channels, channels // 4, 1, bias=False)
        self.conv2 = nn.Conv2d(channels // 4, channels, 1, bias=False)

    def forward(self, details: Tensor, context: Tensor) -> Tensor:
        x = self.convblk(torch.cat([details, context], 1))
        gate = self.conv2(self.conv1(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return x * gate + x
