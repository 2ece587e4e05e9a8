"""SegNet: VGG16 and its mirror image, which puts maxima back to where the pooling had found them."""

from torch import Tensor, nn

from segtrain.models.blocks import VGG16, bn_relu, check_channels, check_size, kaiming_init, unpool, vgg16_layers
from segtrain.models.pretrained import load_pretrained


class SegNet(nn.Module):
    """Segment images with SegNet.

    The last convolution gives the logits; it has a bias and neither batch normalisation nor ReLU.

    Args:
        num_classes: Classes to tell apart, K.
        in_channels: Channels of the images, C.
        width: Channels of the first stage; the others have 2, 4, 8 and 8 times as many. 64 is VGG16's.
        pretrained: Weights of the encoder: an entry of torchvision's vgg16_bn (IMAGENET1K_V1, DEFAULT), or a file with
            its state dict; `width` must then be 64. The first convolution is adapted to `in_channels`: one or two
            channels share the sum of the RGB kernels, channels after the third start from zero. None starts from
            scratch.

    Shape:
        - images: (N, C, H, W), float, normalised; any H and W >= 32. Odd sizes are not padded: pooling rounds up, and
          the decoder returns to the sizes of the encoder.
        - returns: logits (N, K, H, W), float, unbounded.

    Raises:
        ValueError: If an argument is out of range, or the weights are unknown or do not load; in forward, if the
            height or the width is below 32.

    Source: Badrinarayanan et al., "SegNet: A deep convolutional encoder-decoder architecture for image segmentation",
    PAMI 2017.
    """

    def __init__(self, num_classes: int, in_channels: int = 3, width: int = 64, pretrained: str | None = None):
        super().__init__()
        check_channels(num_classes, in_channels)
        self.encoder = VGGEncoder(in_channels, width, pretrained)
        self.decoder = nn.ModuleList()
        for (multiple, num_convs), (multiple_before, _) in zip(VGG16[:0:-1], VGG16[-2::-1], strict=True):
            channels = [width * multiple] * num_convs + [width * multiple_before]
            self.decoder.append(nn.Sequential(*map(_conv_bn_relu, channels, channels[1:])))
        self.decoder.append(nn.Sequential(_conv_bn_relu(width, width), nn.Conv2d(width, num_classes, 3, padding=1)))
        kaiming_init(self.decoder)

    def forward(self, images: Tensor) -> Tensor:
        check_size(images)
        x, pooled = self.encoder(images)
        for stage, (indices, size) in zip(self.decoder, reversed(pooled), strict=True):
            x = stage(unpool(x, indices, size))
        return x


class VGGEncoder(nn.Module):
    """Halve images five times with the convolutions of VGG16, and note where each maximum was.

    Parameters keep the names of torchvision's vgg16_bn (features.0 ...), so its state dicts fit. There is no
    classifier.

    Args:
        in_channels: Channels of the input.
        width: Channels of the first stage.
        pretrained: Where weights come from, see `load_pretrained`; None draws them at random.

    Shape:
        - images: (N, C, H, W), float, normalised.
        - returns: features (N, 8 * width, H/32, W/32), float, >= 0, sizes rounded up at each of the five halvings; and
          for each pooling, from the first to the last, the indices (N, C', H', W'), int64, that it returned, with the
          (height, width) that it read.

    Raises:
        ValueError: If the width is below 1, or the weights cannot be loaded or are wanted for another width.

    Source: Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015.
    """

    def __init__(self, in_channels: int = 3, width: int = 64, pretrained: str | None = None):
        super().__init__()
        if width < 1:
            raise ValueError(f"width must be at least 1 (64 is VGG16's), not {width}")
        self.features = nn.ModuleList(vgg16_layers(in_channels, width=width, return_indices=True))
        kaiming_init(self)
        if pretrained is not None:
            if width != 64:
                raise ValueError(f"pretrained weights are for width=64, not {width}: leave one of the two out")
            load_pretrained(self, "vgg16_bn", pretrained, first_conv="features.0.weight", ignore=("classifier.",))

    def forward(self, images: Tensor) -> tuple[Tensor, list[tuple[Tensor, tuple[int, int]]]]:
        x, pooled = images, []
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                height, width = x.shape[-2:]
                x, indices = layer(x)
                pooled.append((indices, (height, width)))
            else:
                x = layer(x)
        return x, pooled


def _conv_bn_relu(in_channels: int, out_channels: int) -> nn.Sequential:
    return bn_relu(nn.Conv2d(in_channels, out_channels, 3, padding=1))
