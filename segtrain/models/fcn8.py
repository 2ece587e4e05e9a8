"""FCN-8s: VGG16 as a fully convolutional network, its scores at strides 32, 16 and 8 added on the way up."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.models.blocks import SegmentationNetwork, check_size, crop_like, kaiming_init, use_keras_batch_norm
from segtrain.models.encoders import VGG16Encoder
from segtrain.models.pretrained import Normalization, normalization


class FCN8(SegmentationNetwork):
    """Segment images with FCN-8s.

    It differs from the paper's: images are not padded by 100 pixels, but all convolutions keep the size, BatchNorm may
    follow the encoder's, the scores for the sum at stride 8 are enlarged to the image in one step without weights, and
    the score layers start from small random weights instead of zeros, so that the first step trains all layers. Odd
    sizes are not padded: pooling rounds up, and what becomes too large on the way up is cut off.

    Args:
        separable: Replace each convolution by a depthwise and a pointwise one.
        batch_norm: Put BatchNorm after each convolution of the encoder.
        dropout: The probability that a feature of the two wide layers is dropped in training; in [0, 1).
        fc_channels: Channels of the two wide layers, which are VGG16's fully connected ones.
        pretrained: For vgg16_bn, or vgg16 without `batch_norm`; the fully connected layers are not taken over.
        keras_compatible: `dropout` is the probability to keep a feature, in (0, 1]; the last scores are repeated 8x8
            times and cut to the middle, which shifts them by up to three pixels if the size is not divisible by 8; the
            learned enlargements start at random; BatchNorm has Keras's eps and momentum. By default the last scores are
            enlarged bilinearly and keep their place, and the learned enlargements start as bilinear ones.

    Source: Long et al., "Fully convolutional networks for semantic segmentation", CVPR 2015. Layers as in "FastFCN8".
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        separable: bool = False,
        batch_norm: bool = True,
        dropout: float = 0.5,
        fc_channels: int = 4096,
        pretrained: str | None = None,
        keras_compatible: bool = False,
    ):
        super().__init__(num_classes, in_channels, pretrained, keras_compatible)
        if fc_channels < 1:
            raise ValueError(f"fc_channels must be at least 1 (4096 as in VGG16), not {fc_channels}")
        drop = 1 - dropout if keras_compatible else dropout
        if not 0 <= drop < 1:
            wanted = "the probability to keep a feature, in (0, 1]" if keras_compatible else "a probability in [0, 1)"
            raise ValueError(f"dropout must be {wanted}, not {dropout}")
        if pretrained is not None and separable:
            raise ValueError("separable=true has no pretrained weights: set pretrained=null, or separable=false")

        conv = SeparableConv2d if separable else nn.Conv2d
        self.encoder = VGG16Encoder(in_channels, conv=conv, batch_norm=batch_norm, pretrained=pretrained)
        self.fc = nn.Sequential(
            nn.Sequential(conv(512, fc_channels, 7, padding=3), nn.ReLU(inplace=True), nn.Dropout(drop)),
            nn.Sequential(conv(fc_channels, fc_channels, 1), nn.ReLU(inplace=True), nn.Dropout(drop)),
        )
        self.score32 = conv(fc_channels, num_classes, 1)
        self.score16 = conv(512, num_classes, 1)
        self.score8 = conv(256, num_classes, 1)
        self.upscore32 = nn.ConvTranspose2d(num_classes, num_classes, 4, stride=2, padding=1, bias=False)
        self.upscore16 = nn.ConvTranspose2d(num_classes, num_classes, 4, stride=2, padding=1, bias=False)
        self.upscore8 = enlarge_nearest if keras_compatible else enlarge_bilinear

        for part in (self.fc, self.score32, self.score16, self.score8, self.upscore32, self.upscore16):
            kaiming_init(part)
        for layer in self.modules():
            if isinstance(layer, SeparableConv2d):  # no ReLU follows its first half
                nn.init.kaiming_normal_(layer.depthwise.weight, nonlinearity="linear")
        for score in (self.score32, self.score16, self.score8):
            mixing = score.pointwise if isinstance(score, SeparableConv2d) else score
            nn.init.normal_(mixing.weight, std=0.01)
        if keras_compatible:
            use_keras_batch_norm(self)
        else:
            bilinear_init(self.upscore32)
            bilinear_init(self.upscore16)

    @staticmethod
    def normalization(pretrained: str, batch_norm: bool = True, **others: Any) -> Normalization:
        """Return the normalisation that the encoder's weights expect, see `pretrained.normalization`."""
        return normalization("vgg16_bn" if batch_norm else "vgg16", pretrained)

    def forward(self, images: Tensor) -> Tensor:
        check_size(images)
        (_, _, pool3, pool4, pool5), _ = self.encoder(images)
        stride32 = self.score32(self.fc(pool5))
        stride16 = self.score16(pool4)
        stride16 = stride16 + crop_like(self.upscore32(stride32), stride16)
        stride8 = self.score8(pool3)
        stride8 = stride8 + crop_like(self.upscore16(stride16), stride8)
        return self.upscore8(stride8, images)


class SeparableConv2d(nn.Module):
    """Convolve each channel for itself, then mix the channels; the size is that of `nn.Conv2d`.

    Source: Chollet, "Xception: Deep learning with depthwise separable convolutions", CVPR 2017.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, padding: int = 0):
        super().__init__()
        self.depthwise = nn.Conv2d(
            in_channels, in_channels, kernel_size, padding=padding, groups=in_channels, bias=False
        )  # fmt: skip
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


def bilinear_init(layer: nn.ConvTranspose2d) -> None:
    """Let a transposed convolution with kernel 4 and stride 2 begin as bilinear enlargement of each channel."""
    ramp = torch.tensor([0.25, 0.75, 0.75, 0.25])
    with torch.no_grad():
        layer.weight.zero_()
        for channel in range(layer.in_channels):
            layer.weight[channel, channel] = torch.outer(ramp, ramp)


def enlarge_bilinear(scores: Tensor, images: Tensor) -> Tensor:
    """Enlarge scores eight times, smoothly, and cut off what exceeds the images on the right and at the bottom.

    Shape:
        - scores: (N, K, H', W'), float, H' and W' at least an eighth of the images'.
        - images: (N, C, H, W).
        - returns: (N, K, H, W), float.
    """
    height, width = scores.shape[-2:]
    return crop_like(F.interpolate(scores, size=(8 * height, 8 * width), mode="bilinear"), images)


def enlarge_nearest(scores: Tensor, images: Tensor) -> Tensor:
    """Repeat scores 8x8 times and cut out the middle, as the Keras original does; shapes as in `enlarge_bilinear`."""
    height, width = 8 * scores.shape[-2], 8 * scores.shape[-1]
    down, right = height - images.shape[-2], width - images.shape[-1]
    enlarged = F.interpolate(scores, size=(height, width), mode="nearest")
    return F.pad(enlarged, (-(right // 2), -((right + 1) // 2), -(down // 2), -((down + 1) // 2)))


def keras_layers(network: FCN8) -> dict[str, str]:
    """Map the layers of the Keras original to modules of the network."""
    layers = {"fc1": "fc.0.0", "fc2": "fc.1.0"}
    layers |= {name: name for name in ("score32", "score16", "score8", "upscore32", "upscore16")}
    stage, number = 1, 0
    for i, layer in enumerate(network.encoder.features):
        if isinstance(layer, nn.MaxPool2d):
            stage, number = stage + 1, 0
        elif isinstance(layer, nn.BatchNorm2d):
            layers[f"conv{stage}_{number}_bn"] = f"encoder.features.{i}"
        elif not isinstance(layer, nn.ReLU):
            number += 1
            layers[f"conv{stage}_{number}"] = f"encoder.features.{i}"
    return layers
