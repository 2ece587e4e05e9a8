"""What networks share: their interface, and blocks for padding, unpooling and initialisation."""

import difflib
from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Output = Tensor | dict[str, Tensor | dict[str, Tensor]]  # of a network, see `SegmentationNetwork`
MOST_NAMED = 40  # names in a message
MIN_SIZE = 32  # the smallest height and width that every network takes


class UnknownNameError(ValueError):
    """An argument names something that does not exist; of many known names the message has the nearest five."""

    def __init__(self, what: str, name: str, known: Iterable[str]):
        self.name, self.known = name, list(known)
        shown = self.known if len(self.known) <= MOST_NAMED else (
            difflib.get_close_matches(name, self.known, n=5, cutoff=0.0))
        among = "" if shown == self.known else f"the nearest of {len(self.known)}: "
        super().__init__(f"unknown {what} {name!r}: choose one of {among}{', '.join(shown)}.")


class SegmentationNetwork(nn.Module):
    """The interface of every network here.

    Args:
        num_classes: Classes to tell apart, K.
        in_channels: Channels of the images, C.
        pretrained: What `load_pretrained` loads into the encoder, where a network has one; None starts from scratch.
        keras_compatible: Compute what the network's Keras original computes, so that the original's weights can be
            used; the parameters are the same either way. Excludes `pretrained`.

    Attributes:
        aux_weights: The weights of the losses of its auxiliary heads by name, the paper's; empty if it has none. A head
            named boundary or detail has a loss of its own, and boundary_aware is no head, see
            `segtrain.auxiliary.AuxiliaryLoss`.
        aux: The auxiliary heads.

    Shape:
        - images: (N, C, H, W), float, normalised so that zero is the mean colour; any H and W >= 32. Where a network
          needs multiples of a number, it pads them right and bottom with zeros.
        - returns: logits (N, K, H, W), float, unbounded; with auxiliary heads, in training mode,
          {"logits": logits, "aux": {name: (N, K, H, W), or (N, 1, H, W) for boundary and detail}}.

    Raises:
        ValueError: If arguments are out of range, unknown or exclude each other, or if weights cannot be loaded; in
            forward, if the height or the width is below 32.
    """

    def __init__(
        self, num_classes: int, in_channels: int, pretrained: str | None = None, keras_compatible: bool = False
    ):
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, not {num_classes}")
        if in_channels < 1:
            raise ValueError(f"in_channels must be at least 1 (3 for colour images), not {in_channels}")
        if keras_compatible and pretrained is not None:
            raise ValueError(
                "keras_compatible=true excludes pretrained weights: set pretrained=null, or keras_compatible=false"
            )
        self.aux_weights: dict[str, float] = {}
        self.aux = nn.ModuleDict()

    def with_aux(
        self, logits: Tensor, taps: dict[str, Tensor], padded: Tensor | None = None, align_corners: bool = False
    ) -> Output:
        """Return the logits, in training mode with those of the auxiliary heads, enlarged to the same size.

        Args:
            logits: (N, K, H, W).
            taps: What each head reads.
            padded: (N, .., H', W'), the images as the network pads them, where it does: the taps have its scale.
            align_corners: How logits are enlarged.
        """
        if not self.training or not self.aux_weights:
            return logits
        like = logits if padded is None else padded
        aux = {name: crop_like(resize_like(head(taps[name]), like, align_corners=align_corners), logits)
               for name, head in self.aux.items()}
        return {"logits": logits, "aux": aux}


def check_size(images: Tensor) -> None:
    """Raise ValueError if the height or the width of images is below 32."""
    height, width = images.shape[-2:]
    if height < MIN_SIZE or width < MIN_SIZE:
        raise ValueError(f"images of {height}x{width} are too small: height and width must be at least {MIN_SIZE}")


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Pad right and bottom with zeros, for a network that halves its input several times.

    There is no shortcut for sizes that already fit, and the size is written as (...) // multiple * multiple: a branch
    would tie an exported graph to one size, and from this form torch.export sees that it can be halved.

    Shape:
        - images: (N, C, H, W), float, any range, H and W >= 32.
        - returns: (N, C, H', W'), same dtype; H' and W' are the next multiples of `multiple`.

    Raises:
        ValueError: If the height or the width is below 32.
    """
    check_size(images)
    height, width = images.shape[-2:]
    full_height = (height + multiple - 1) // multiple * multiple
    full_width = (width + multiple - 1) // multiple * multiple
    return F.pad(images, (0, full_width - width, 0, full_height - height))


def crop_like(features: Tensor, other: Tensor) -> Tensor:
    """Cut off what exceeds another map on the right and at the bottom, such as what `pad_to_multiple` had added.

    It is a negative padding: a slice would tie an exported graph to sizes that do, or do not, leave something to cut.

    Shape:
        - features: (N, C, H', W'), float, any range, H' >= H and W' >= W.
        - other: (N, .., H, W).
        - returns: (N, C, H, W).
    """
    height, width = other.shape[-2:]
    return F.pad(features, (0, width - features.shape[-1], 0, height - features.shape[-2]))


def unpool(features: Tensor, indices: Tensor, size: tuple[int, int]) -> Tensor:
    """Undo a max pooling: put features at its max-pooling indices, and zeros elsewhere.

    The same as torch's max_unpool2d for poolings that do not overlap, for any size, and exportable.

    Shape:
        - features: (N, C, H', W'), float, any range.
        - indices: (N, C, H', W'), int64, as `nn.MaxPool2d(2, ceil_mode=True, return_indices=True)` gives them.
        - size: The (height, width) of the pooling's input.
        - returns: (N, C, height, width), same dtype as the features.
    """
    num_images, channels = features.shape[:2]
    height, width = size
    zeros = torch.zeros(1, 1, 1, dtype=features.dtype, device=features.device)  # new_zeros does not load in OpenCV
    zeros = zeros.expand(num_images, channels, height * width)
    return zeros.scatter(2, indices.flatten(2), features.flatten(2)).reshape(num_images, channels, height, width)


def bn_relu(conv: nn.Conv2d | nn.ConvTranspose2d) -> nn.Sequential:
    """Follow a convolution with batch normalisation and ReLU."""
    return nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU(inplace=True))


def conv_bn(in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1, *, groups: int = 1,
            bias: bool = False) -> nn.Sequential:
    """Convolve with a padding that keeps the size, and normalise."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=bias),
        nn.BatchNorm2d(out_channels),
    )


def conv_bn_relu(in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1, *, groups: int = 1,
                 bias: bool = False) -> nn.Sequential:
    """Convolve with a padding that keeps the size, normalise and rectify."""
    return conv_bn(in_channels, out_channels, kernel, stride, groups=groups, bias=bias).append(nn.ReLU(inplace=True))


class PooledBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm behind a pooling that may leave one value a channel and image.

    A single value has no variance: it is normalised with the running statistics, in training too.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.shape[0] * x.shape[2] * x.shape[3] == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(x)


def mean_of_parts(features: Tensor, parts: int) -> Tensor:
    """Average a map (N, C, H, W) over parts x parts cells, as nn.AdaptiveAvgPool2d, but exportable for any size."""
    rows, columns = (_cells(length, parts, features) for length in features.shape[-2:])
    tall = (features[:, :, None] * rows[:, :, None]).sum(3)  # not a matrix product, whose tracing fixes sides of 1
    return (tall[:, :, :, None] * columns).sum(4)


def _cells(length: int, parts: int, like: Tensor) -> Tensor:
    """Return what each place counts in each part: (parts, length); parts may overlap."""
    number, place = torch.arange(parts, device=like.device)[:, None], torch.arange(length, device=like.device)
    start, end = number * length // parts, ((number + 1) * length + parts - 1) // parts
    inside = ((place >= start) & (place < end)).to(like.dtype)
    return inside / inside.sum(1, keepdim=True)


def fcn_head(in_channels: int, channels: int, num_classes: int, *, bias: bool = True) -> nn.Sequential:
    """Turn features into logits with a 3x3 convolution, BatchNorm, ReLU and a 1x1 convolution."""
    return conv_bn_relu(in_channels, channels, 3).append(nn.Conv2d(channels, num_classes, 1, bias=bias))


def resize_like(features: Tensor, other: Tensor, mode: str = "bilinear", align_corners: bool = False) -> Tensor:
    """Resize a map (N, C, ..) to the size of another one, (N, .., H, W)."""
    corners = None if mode == "nearest" else align_corners
    return F.interpolate(features, other.shape[-2:], mode=mode, align_corners=corners)


def preact(*layers: nn.Module) -> nn.Sequential:
    """Put BatchNorm and ReLU before a convolution, its padding in front of it and whatever follows it."""
    conv = next(layer for layer in layers if isinstance(layer, nn.Conv2d))
    return nn.Sequential(nn.BatchNorm2d(conv.in_channels), nn.ReLU(inplace=True), *layers)


class UpConv2d(nn.ConvTranspose2d):
    """Double height and width with a 3x3 transposed convolution; of 2H + 1 rows the last is dropped, as Keras does."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True):
        super().__init__(in_channels, out_channels, 3, stride=2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x)[..., :-1, :-1]


def kaiming_init(module: nn.Module, mode: Literal["fan_in", "fan_out"] = "fan_in") -> None:
    """Initialise the convolutions of a module for ReLU networks, with zero biases.

    Transposed convolutions that enlarge start as an interpolation: one random 1x1 kernel, spread by weights that add
    up to 1 at every output pixel. Independent kernels for neighbouring pixels would paint checkerboards until they have
    learnt to agree.

    Args:
        mode: Whether signals keep their variance on the way forward (fan_in) or gradients on the way back.

    Source: He et al., "Delving deep into rectifiers", ICCV 2015; Aitken et al., "Checkerboard artifact free sub-pixel
    convolution", 2017, for transposed convolutions.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            # A transposed convolution stores (in, out, kh, kw), so what torch calls its fan-out is its fan-in.
            swapped: Literal["fan_in", "fan_out"] = "fan_out" if mode == "fan_in" else "fan_in"
            transposed = isinstance(layer, nn.ConvTranspose2d)
            nn.init.kaiming_normal_(layer.weight, mode=swapped if transposed else mode, nonlinearity="relu")
            if isinstance(layer, nn.ConvTranspose2d) and layer.kernel_size[0] >= layer.stride[0] > 1:
                with torch.no_grad():
                    layer.weight.copy_(layer.weight[:, :, :1, :1] * _spread(layer))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _spread(conv: nn.ConvTranspose2d) -> Tensor:
    """Return the weights by which a transposed convolution interpolates: (1, 1, kh, kw), a box or a tent."""
    height, width = (
        torch.tensor([float(min(i + 1, size - i, stride, size - stride + 1)) for i in range(size)])
        / (size - stride + 1)
        for size, stride in zip(conv.kernel_size, conv.stride, strict=True)
    )
    return height[None, None, :, None] * width


def use_keras_batch_norm(network: nn.Module, eps: float = 1e-3, momentum: float = 0.01) -> None:
    """Give every BatchNorm the constants of a Keras network, by default Keras's own.

    What Keras calls a momentum of 0.99 is 0.01 in torch.
    """
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps, layer.momentum = eps, momentum
