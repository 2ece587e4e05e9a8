"""Fast-SCNN: two branches that share their first layers, all of separable convolutions."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.models.blocks import (
    Output,
    PooledBatchNorm2d,
    SegmentationNetwork,
    UnknownNameError,
    check_size,
    conv_bn,
    conv_bn_relu,
    mean_of_parts,
    resize_like,
)

VARIANTS = ("mmseg", "tramac")
BINS = (1, 2, 3, 6)  # parts per side of the pyramid

RENAMED = {  # of mmsegmentation's code, and of Tramac's
    r"^backbone\.": "",
    r"^learning_to_downsample\.conv\.": "down.0.",
    r"^learning_to_downsample\.dsconv(\d)\.": r"down.\1.",
    r"^(down\.\d)\.conv\.(\d)\.": r"\1.\2.",
    r"^global_feature_extractor\.(bottleneck\d\.\d)\.conv\.": r"\1.layers.",
    r"^global_feature_extractor\.(bottleneck\d\.\d)\.block\.([01])\.conv\.": r"\1.layers.\2.",
    r"^global_feature_extractor\.(bottleneck\d\.\d)\.block\.2\.": r"\1.layers.2.0.",
    r"^global_feature_extractor\.(bottleneck\d\.\d)\.block\.3\.": r"\1.layers.2.1.",
    r"^global_feature_extractor\.ppm\.(\d)\.1\.": r"pyramid.\1.",
    r"^global_feature_extractor\.ppm\.conv(\d)\.conv\.": lambda match: f"pyramid.{int(match[1]) - 1}.",
    r"^global_feature_extractor\.ppm\.out\.conv\.": "pyramid_out.",
    r"^global_feature_extractor\.out\.": "pyramid_out.",
    r"^feature_fusion\.dwconv\.conv\.(\d)\.": r"feature_fusion.dwconv.\1.",
    r"^decode_head\.convs\.": "classifier.",
    r"^decode_head\.conv_seg\.": "classifier.3.",
    r"^classifier\.dsconv(\d)\.conv\.": lambda match: f"classifier.{int(match[1]) - 1}.",
    r"^classifier\.conv\.1\.": "classifier.3.",
    r"^auxiliary_head\.0\.": "aux.low.",
    r"^auxiliary_head\.1\.": "aux.high.",
    r"^(aux\.\w+)\.convs\.0\.": r"\1.",
    r"^(aux\.\w+)\.conv_seg\.": r"\1.4.",
    r"^auxlayer\.": "aux.high.",
    r"\.depthwise_conv\.conv\.": ".0.",
    r"\.depthwise_conv\.bn\.": ".1.",
    r"\.pointwise_conv\.conv\.": ".3.",
    r"\.pointwise_conv\.bn\.": ".4.",
    r"\.conv\.(weight|bias)$": r".0.\1",
    r"\.bn\.(\w+)$": r".1.\1",
}


class FastSCNN(SegmentationNetwork):
    """Segment images with Fast-SCNN.

    The paper's own code is not published. Two others' are in use, and their weights do not fit each other.

    Args:
        variant: mmseg: mmsegmentation's, more accurate; tramac: Tramac's, smaller, which does not pad its first
            convolution and enlarges with align_corners.
        aux: Add auxiliary heads: high, on the features at 1/8, and low, on the pyramid (mmseg).

    Source: Poudel et al., "Fast-SCNN: Fast semantic segmentation network", BMVC 2019.
    """

    def __init__(self, num_classes: int, in_channels: int = 3, variant: str = "mmseg", aux: bool = True):
        super().__init__(num_classes, in_channels)
        if variant not in VARIANTS:
            raise UnknownNameError("variant", variant, VARIANTS)
        is_mmseg = variant == "mmseg"
        self.align_corners = not is_mmseg
        first = nn.Sequential(nn.Conv2d(in_channels, 32, 3, 2, 1 if is_mmseg else 0, bias=False), nn.BatchNorm2d(32),
                              nn.ReLU(inplace=True))
        self.down = nn.Sequential(first, separable(32, 48, 2, rectified=not is_mmseg),
                                  separable(48, 64, 2, rectified=not is_mmseg))
        self.bottleneck1 = inverted_residuals(64, 64, 2)
        self.bottleneck2 = inverted_residuals(64, 96, 2)
        self.bottleneck3 = inverted_residuals(96, 128, 1)
        self.pyramid = nn.ModuleList(nn.Sequential(
            nn.Conv2d(128, 32, 1, bias=False), (PooledBatchNorm2d if parts == 1 else nn.BatchNorm2d)(32),
            nn.ReLU(inplace=True)) for parts in BINS)
        self.pyramid_out = conv_bn_relu(256, 128, 3 if is_mmseg else 1)
        self.feature_fusion = FeatureFusion(64, 128, bias=not is_mmseg, align_corners=self.align_corners)
        self.classifier = nn.Sequential(*(separable(128, 128, 1, rectified=not is_mmseg) for _ in range(2)),
                                        nn.Dropout(0.1), nn.Conv2d(128, num_classes, 1))
        if aux:
            for name, channels in {"low": 128, "high": 64}.items():
                if name == "high" or is_mmseg:
                    self.aux[name] = nn.Sequential(*conv_bn_relu(channels, 32, 3), nn.Dropout(0.1),
                                                   nn.Conv2d(32, num_classes, 1))
                    self.aux_weights[name] = 0.4
        if is_mmseg:
            for layer in self.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.momentum = 0.01

    def forward(self, images: Tensor) -> Output:
        check_size(images)
        high = self.down(images)
        x = self.bottleneck3(self.bottleneck2(self.bottleneck1(high)))
        one, *others = (conv(mean_of_parts(x, parts)) for conv, parts in zip(self.pyramid, BINS, strict=True))
        # A single cell is repeated: the same as to resize it, of which OpenCV makes garbage.
        pooled = [one.expand(-1, -1, *x.shape[2:]),
                  *(resize_like(part, x, align_corners=self.align_corners) for part in others)]
        low = self.pyramid_out(torch.cat([x, *pooled], 1))
        logits = resize_like(self.classifier(self.feature_fusion(high, low)), images, align_corners=self.align_corners)
        return self.with_aux(logits, {"low": low, "high": high}, align_corners=self.align_corners)


def separable(in_channels: int, out_channels: int, stride: int, *, rectified: bool) -> nn.Sequential:
    """Convolve 3x3 within the channels, rectified or not, then 1x1 across them."""
    middle = nn.ReLU(inplace=True) if rectified else nn.Identity()
    return nn.Sequential(*conv_bn(in_channels, in_channels, 3, stride, groups=in_channels), middle,
                         *conv_bn_relu(in_channels, out_channels))


def inverted_residuals(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """Return three inverted residuals, the first with the stride."""
    return nn.Sequential(InvertedResidual(in_channels, out_channels, stride),
                         *(InvertedResidual(out_channels, out_channels, 1) for _ in range(2)))


class InvertedResidual(nn.Module):
    """Expand the channels six times for a depthwise convolution; add the input where the shapes agree."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        wide = 6 * in_channels
        self.layers = nn.Sequential(conv_bn_relu(in_channels, wide), conv_bn_relu(wide, wide, 3, stride, groups=wide),
                                    conv_bn(wide, out_channels))
        self.adds = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.adds else self.layers(x)


class FeatureFusion(nn.Module):
    """Add the features of the pyramid to those at 1/8."""

    def __init__(self, high_channels: int, channels: int, bias: bool, align_corners: bool):
        super().__init__()
        self.dwconv = conv_bn_relu(channels, channels, 3, groups=channels)
        self.conv_lower_res = conv_bn(channels, channels, bias=bias)
        self.conv_higher_res = conv_bn(high_channels, channels, bias=bias)
        self.align_corners = align_corners

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        low = self.dwconv(resize_like(low, high, align_corners=self.align_corners))
        return F.relu(self.conv_lower_res(low) + self.conv_higher_res(high))
