"""SegNet: VGG16 and a mirrored decoder, which unpools with the encoder's max-pooling indices."""

from typing import Any

from torch import Tensor, nn

from segtrain.models.blocks import SegmentationNetwork, bn_relu, check_size, kaiming_init, unpool
from segtrain.models.encoders import VGG16, VGG16Encoder
from segtrain.models.pretrained import Normalization, normalization


class SegNet(SegmentationNetwork):
    """Segment images with SegNet.

    The last convolution gives the logits; it has a bias and neither batch normalisation nor ReLU. Odd sizes are not
    padded: pooling rounds up, and the decoder returns to the sizes of the encoder.

    Args:
        width: Channels of the first stage; the others have 2, 4, 8 and 8 times as many. 64 is VGG16's.
        pretrained: Needs a `width` of 64.

    Source: Badrinarayanan et al., "SegNet: A deep convolutional encoder-decoder architecture for image segmentation",
    PAMI 2017.
    """

    def __init__(self, num_classes: int, in_channels: int = 3, width: int = 64, pretrained: str | None = None):
        super().__init__(num_classes, in_channels)
        self.encoder = VGG16Encoder(in_channels, width=width, return_indices=True, pretrained=pretrained)
        self.decoder = nn.ModuleList()
        for (multiple, num_convs), (multiple_before, _) in zip(VGG16[:0:-1], VGG16[-2::-1], strict=True):
            channels = [width * multiple] * num_convs + [width * multiple_before]
            self.decoder.append(nn.Sequential(*map(conv_bn_relu, channels, channels[1:])))
        self.decoder.append(nn.Sequential(conv_bn_relu(width, width), nn.Conv2d(width, num_classes, 3, padding=1)))
        kaiming_init(self.decoder)

    @staticmethod
    def normalization(pretrained: str, **others: Any) -> Normalization:
        """Return the normalisation that the encoder's weights expect, see `pretrained.normalization`."""
        return normalization("vgg16_bn", pretrained)

    def forward(self, images: Tensor) -> Tensor:
        check_size(images)
        (*_, x), poolings = self.encoder(images)
        for stage, (indices, size) in zip(self.decoder, reversed(poolings), strict=True):
            x = stage(unpool(x, indices, size))
        return x


def conv_bn_relu(in_channels: int, out_channels: int) -> nn.Sequential:
    """Convolve 3x3, normalise and rectify."""
    return bn_relu(nn.Conv2d(in_channels, out_channels, 3, padding=1))
