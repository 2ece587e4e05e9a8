"""Check that a model returns logits of the right shape, each image's its own, before the work begins."""

import traceback
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segtrain.auxiliary import BOUNDARY_AWARE, OWN
from segtrain.config import messages
from segtrain.data.checks import START, check
from segtrain.errors import UserError
from segtrain.profiling import keep_state

TOLERANCE = 1e-2  # of the largest logit: kernels may round otherwise for another batch, with TF32 by a thousandth


@check(START, "a network that fails or does not return one logit for each class and pixel")
def check_logits(network: nn.Module, target: str, image_size: tuple[int, int], *, in_channels: int, num_classes: int,
                 training: bool = False) -> None:
    """Check that a network returns logits of the right shape for blank images, and leave it as it was.

    Args:
        network: On any device; its modes, buffers and random state are restored.
        target: Its model._target_, for messages.
        image_size: (height, width).
        in_channels: Channels of the images.
        num_classes: Classes of the dataset.
        training: Run it in training mode, on two images, because BatchNorm needs more than one value.

    Raises:
        UserError: If it fails, or does not return float (N, num_classes, H, W). Bugs of segtrain and a lack of memory
            are raised as they are.
    """
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    mode = " in training mode" if training else ""
    images = torch.zeros(2 if training else 1, in_channels, *image_size, device=device)
    try:
        with keep_state(network), torch.no_grad():
            output = network.train(training)(images)
    except Exception as error:
        place = _find_place(error)
        is_own = place is not None and place.filename.startswith(str(Path(__file__).parents[1]))
        if messages.machine(error) or (is_own and not isinstance(error, ValueError)):
            raise
        where = "" if place is None else f" ({place.filename}, line {place.lineno})"
        raise UserError(f"model._target_={target} fails{mode} on images of shape {tuple(images.shape)}: "
                        f"{type(error).__name__}: {' '.join(str(error).split())[:300]}{where}.") from error
    expected = (len(images), num_classes, *image_size)
    heads = {*getattr(network, "aux_weights", ())} - {BOUNDARY_AWARE}
    if training and heads and isinstance(output, Mapping) and {*output} == {"logits", "aux"}:
        _check_heads(output["aux"], heads, expected, target)
        output = output["logits"]
    if not isinstance(output, Tensor) or tuple(output.shape) != expected or not output.is_floating_point():
        raise UserError(f"model._target_={target} returns {_describe(output)}{mode} for images of shape "
                        f"{tuple(images.shape)}, but logits of shape {expected} are needed: "
                        f"{_suggest(output, expected, target)}.")


@check(START, "a network of your own whose prediction of an image depends on the batch or on chance")
def check_independence(network: nn.Module, target: str, image_size: tuple[int, int], *, in_channels: int) -> None:
    """Check that a network predicts an image alike alone and in a batch, or scores depend on the batch size.

    Args:
        network: On any device, with finite weights; its modes and random state are restored.
        target: Its model._target_, for messages.
        image_size: (height, width).
        in_channels: Channels of the images.

    Raises:
        UserError: If, in evaluation mode, the logits of an image differ by more than rounding does.
    """
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    images = torch.randn(2, in_channels, *image_size, generator=torch.Generator().manual_seed(0)).to(device)
    images[1] = images[1] / 2 + 1  # another image, of another mean and contrast
    with keep_state(network), torch.no_grad():
        network.eval()
        alone, again, together = network(images[:1]), network(images[:1]), network(images)[:1]
    if not torch.isfinite(together).all():
        return  # training will say so
    largest = together.abs().max().item()
    for other, what, remedy in (
            (again, "when it is called again", "functional dropout needs training=self.training"),
            (together, "in a batch with another",
             "let BatchNorm keep its running statistics, and take no means over the batch")):
        difference = (other - alone).abs().max().item()
        if difference > TOLERANCE * max(largest, 1e-6):
            raise UserError(f"model._target_={target} gives an image other logits {what} (they differ by "
                            f"{difference:.3g}, and are up to {largest:.3g}), in evaluation mode: {remedy}.")


@check(START, "a network whose auxiliary heads are not those that it names, or do not fit the classes")
def _check_heads(aux: Any, names: Set[str], expected: tuple[int, ...], target: str) -> None:
    """Check that auxiliary heads are those that a network lists in aux_weights, and of the right shape."""
    if not isinstance(aux, Mapping) or {*aux} != names:
        raise UserError(f"model._target_={target} lists {', '.join(sorted(names))} in aux_weights, but returns "
                        f"{_describe(aux)} as aux in training mode: let both name the same heads.")
    for name, output in aux.items():
        shape = (expected[0], 1 if name in OWN else expected[1], *expected[2:])
        if not isinstance(output, Tensor) or tuple(output.shape) != shape:
            raise UserError(f"model._target_={target} returns {_describe(output)} as its auxiliary head {name}, but "
                            f"logits of shape {shape} are needed.")


def _find_place(error: Exception) -> traceback.FrameSummary | None:
    """Return where in the network's own code, outside torch, an error was raised; None if nowhere."""
    elsewhere = (str(Path(torch.__file__).parent), __file__)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(elsewhere)]
    return frames[-1] if frames else None


def _describe(output: Any) -> str:
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)} and type {str(output.dtype).removeprefix('torch.')}"
    if isinstance(output, Mapping):
        return f"a mapping with the keys {', '.join(str(key) for key in output)}"
    if isinstance(output, list | tuple):
        return f"a {type(output).__name__} of {len(output)}"
    return f"an object of type {type(output).__name__}"


def _suggest(output: Any, expected: tuple[int, ...], target: str) -> str:
    if target.startswith("torchvision.models.segmentation."):
        return f"choose model=torchvision/{target.rpartition('.')[2]}"
    if not isinstance(output, Tensor):
        return ("let its forward return the logits alone, or list its auxiliary heads in aux_weights and return "
                "{logits, aux} in training mode")
    if output.ndim != 4 or len(output) != expected[0] or not output.is_floating_point():
        return "let its forward return one score a class and pixel, before any softmax or argmax"
    if output.shape[1] != expected[1]:
        return f"the dataset has {expected[1]} classes, set model.num_classes or the channels of the last layer so"
    return "enlarge its logits to the size of the images, with torch.nn.functional.interpolate"
