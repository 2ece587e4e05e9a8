"""A U-Net on MobileNetV2: its expanded features are the skips of a decoder of transposed convolutions."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segtrain.models.blocks import (
    Output,
    SegmentationNetwork,
    UpConv2d,
    crop_like,
    fcn_head,
    kaiming_init,
    pad_to_multiple,
    use_keras_batch_norm,
)
from segtrain.models.encoders import MobileNetV2Encoder
from segtrain.models.pretrained import Normalization, normalization


class MobileNetV2UNet(SegmentationNetwork):
    """Segment images with a U-Net whose encoder is MobileNetV2.

    It follows the Keras network of ssnets, which is that of TensorFlow's tutorial on segmentation. Keras pads its
    convolutions of stride 2 right and bottom only; here they are padded on all sides, as torchvision's weights want it.

    Args:
        keras_compatible: The padding of the Keras network, and its constants in BatchNorm.
        aux: Add an auxiliary head on the decoder's map at 1/8, as deep supervision; not the paper's.

    Source: Sandler et al., "MobileNetV2: Inverted residuals and linear bottlenecks", CVPR 2018; Ronneberger et al.,
    "U-Net: Convolutional networks for biomedical image segmentation", MICCAI 2015; the decoder's steps are those of
    Isola et al., "Image-to-image translation with conditional adversarial networks" (pix2pix), CVPR 2017.
    """

    def __init__(
        self, num_classes: int, in_channels: int = 3, pretrained: str | None = None, keras_compatible: bool = False,
        aux: bool = False,
    ):
        super().__init__(num_classes, in_channels, pretrained, keras_compatible)
        self.encoder = MobileNetV2Encoder(in_channels, pretrained)
        *skips, channels = self.encoder.channels
        self.decoder = nn.ModuleList()
        for skip, width in zip(reversed(skips), (512, 256, 128, 64), strict=True):
            self.decoder.append(DecoderBlock(channels, width))
            channels = width + skip
        self.head = nn.ConvTranspose2d(channels, num_classes, 3, stride=2)
        if aux:
            self.aux["at8"] = fcn_head(256 + skips[1], (256 + skips[1]) // 4, num_classes)
            self.aux_weights = {"at8": 0.4}
        for part in (self.decoder, self.head, self.aux):
            kaiming_init(part)
        if keras_compatible:
            pad_as_keras(self.encoder)
            use_keras_batch_norm(self)
            use_keras_batch_norm(self.encoder, momentum=0.001)

    @staticmethod
    def normalization(pretrained: str, **others: Any) -> Normalization:
        """Return the normalisation that the encoder's weights expect, see `pretrained.normalization`."""
        return normalization("mobilenet_v2", pretrained)

    def forward(self, images: Tensor) -> Output:
        padded = pad_to_multiple(images, 32)
        *skips, x = self.encoder(padded)
        maps = []
        for block, skip in zip(self.decoder, reversed(skips), strict=True):
            x = torch.cat([block(x), skip], 1)
            maps.append(x)
        logits = crop_like(self.head(x), images)  # also cuts the row and the column too many
        return self.with_aux(logits, {"at8": maps[1]}, padded)


class DecoderBlock(nn.Module):
    """Double the size with a transposed convolution, normalise and rectify."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = UpConv2d(in_channels, out_channels, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class RightBottomConv2d(nn.Conv2d):
    """Convolve with padding right and bottom only, as Keras's "same" does with 3x3, stride 2 and an even size."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, 1, 0, 1)))


def pad_as_keras(encoder: nn.Module) -> None:
    """Replace the convolutions of stride 2 below a module by ones that pad right and bottom only."""
    for parent in list(encoder.modules()):
        for name, conv in parent.named_children():
            if isinstance(conv, nn.Conv2d) and conv.stride == (2, 2):
                padded = RightBottomConv2d(
                    conv.in_channels, conv.out_channels, 3, stride=2, groups=conv.groups, bias=False
                )
                padded.weight = conv.weight
                setattr(parent, name, padded)


def keras_layers(network: MobileNetV2UNet) -> dict[str, str]:
    """Map the layers of the Keras network to modules of the same network here."""
    layers = {"Conv1": "encoder.features.0.0", "bn_Conv1": "encoder.features.0.1", "conv2d_transpose_4": "head"}
    for index, block in enumerate(network.encoder.features):
        if index == 0:
            continue
        keras = f"block_{index - 1}" if index > 1 else "expanded_conv"
        *convs, project = (name for name, layer in block.conv.named_children() if not isinstance(layer, nn.BatchNorm2d))
        here = f"encoder.features.{index}.conv"
        for conv, part in zip(reversed(convs), ("depthwise", "expand"), strict=False):  # the first has no expansion
            layers[f"{keras}_{part}"], layers[f"{keras}_{part}_BN"] = f"{here}.{conv}.0", f"{here}.{conv}.1"
        layers[f"{keras}_project"] = f"{here}.{project}"
        if index < 17:
            layers[f"{keras}_project_BN"] = f"{here}.{int(project) + 1}"
    for step in range(len(network.decoder)):
        number = f"_{step}" if step else ""
        layers[f"conv2d_transpose{number}"] = f"decoder.{step}.conv"
        layers[f"batch_normalization{number}"] = f"decoder.{step}.norm"
    return layers
