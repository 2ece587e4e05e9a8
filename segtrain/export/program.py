"""Trace a network with its preprocessing into a program of torch.export, and write it as .pt2."""

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as config

from segtrain.data.image_form import ImageForm
from segtrain.errors import UserError
from segtrain.files import write_file
from segtrain.labels import Label

INPUT = "image"
METADATA_FILE = "segtrain.json"  # within a .pt2 file
# Of the example that the network is traced with: torch specializes sides that are already divisible by its stride.
TRACED_BATCH, TRACED_SIZE = 2, (133, 197)
# Sides that a network for any size must take. Not 32: where a network leaves a single cell, torch may fix that.
SMALLEST, LARGEST = 40, 2**16


class ModelWithPreprocessing(nn.Module):
    """A network with its normalization, and with argmax if `labels` are wanted instead of logits.

    `mean` and `std` are those of x / 255 in each channel. With `ranges`, (low, high) of each channel, the values that
    become 0 and 255, images hold the values of files, and those beyond are cut off.

    Shape:
        - image: (N, C, H, W), float32, 0..255; with `labels` (N, H, W, C), uint8, with `ranges` float32.
        - returns: logits (N, K, H, W), float32; with `labels` (N, H, W), uint8, 0..K-1.
    """

    scale: Tensor
    shift: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float], *, labels: bool,
                 ranges: Sequence[tuple[float, float]] | None = None) -> None:
        super().__init__()
        self.has_ranges = ranges is not None
        if ranges is not None:
            for name, bounds in zip(("low", "high"), zip(*ranges, strict=True), strict=True):
                self.register_buffer(name, torch.tensor(bounds).view(1, -1, 1, 1))
        self.network = network
        self.labels = labels
        means, stds = (torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1) for values in (mean, std))
        self.register_buffer("scale", (1 / (255 * stds)).float())
        self.register_buffer("shift", (-means / stds).float())

    def forward(self, image: Tensor) -> Tensor:
        if self.labels:
            image = image.permute(0, 3, 1, 2).float().contiguous()  # other strides make torch fix sizes on tracing
        if self.has_ranges:
            image = ((image - self.low) * (255 / (self.high - self.low))).clamp(0, 255)
        logits = self.network(image * self.scale + self.shift)
        return logits.argmax(1).to(torch.uint8) if self.labels else logits


def output_name(labels: bool) -> str:
    """Return the name of an exported file's output."""
    return "labels" if labels else "logits"


def trace_program(model: ModelWithPreprocessing, size: tuple[int, int] | None, target: str) -> ExportedProgram:
    """Trace a network on the CPU; it is put into evaluation mode.

    Args:
        model: The network.
        size: (height, width) of the only images that the program takes, one at a time; None: any batch and size.
        target: The network's model._target_, for messages.

    Raises:
        UserError: If the network cannot be traced, or for one size only.
    """
    shape = (1, *size) if size else (TRACED_BATCH, *TRACED_SIZE)
    num_channels = model.scale.shape[1]
    if model.labels:
        dtype = torch.float32 if model.has_ranges else torch.uint8
        example, open_dims = torch.zeros(*shape, num_channels, dtype=dtype), (0, 1, 2)
    else:
        example, open_dims = torch.zeros(shape[0], num_channels, *shape[1:]), (0, 2, 3)
    try:
        with quiet(), one_is_any_size(), torch.no_grad():
            program = torch.export.export(model.eval(), (example,), dynamic_shapes=None if size else
                                          (dict.fromkeys(open_dims, Dim.DYNAMIC),))
    except Exception as error:  # the network's own code, or torch's tracing of it, may raise anything
        remedy = ("its forward must not branch on the values of tensors" if size else
                  "its forward must not branch on the values of tensors or on its input's size; or export for one "
                  "size: task.size=[height,width]")
        raise UserError(f"model._target_={target} cannot be exported ({first_line(error)}): {remedy}.") from error
    for symbol, bounds in program.range_constraints.items():
        if size is None and (bounds.lower > SMALLEST or bounds.upper < LARGEST):
            raise UserError(f"model._target_={target} cannot be exported for every size: its forward branches on a "
                            f"side of its input ({bounds.lower} <= {symbol} <= {bounds.upper}). Remove that branch, or "
                            "export for one size: task.size=[height,width].")
    return program


def one_is_any_size() -> contextlib.AbstractContextManager[object]:
    """Keep torch.export from taking a side that is 1 within a network, as pyramids make them, for a case of its own."""
    known = hasattr(config, "backed_size_oblivious")
    return config.patch(backed_size_oblivious=True) if known else contextlib.nullcontext()  # type: ignore[attr-defined]


def reuses_pooling_indices(program: ExportedProgram) -> bool:
    """Return whether a program reuses max-pooling indices, as unpooling does.

    Of two maxima that are equal up to rounding, another runtime may choose the other one. A few pixels then differ.
    """
    return any("scatter" in str(node.target) for node in program.graph.nodes)


def make_metadata(*, labels: Sequence[Label], mean: Sequence[float], std: Sequence[float], form: ImageForm,
                  size: tuple[int, int] | None, gives_labels: bool, model: str, checkpoint: Path,
                  version: str) -> dict[str, str]:
    """Return the metadata of an exported file: text, lists as JSON."""
    batch, sides = ("1", "{}, {}".format(*size)) if size else ("N", "H, W")
    values = "RGB, 0..255" if form.channels is None else f"{form.channels} channels, " + (
        "0..255" if form.range is None else f"values as in files of {form.dtype}")
    if gives_labels:
        kind = "uint8" if form.range is None else "float32"
        given, result = f"{kind} ({batch}, {sides}, {len(mean)})", f"uint8 ({batch}, {sides}), class numbers"
    else:
        given, result = f"float32 ({batch}, {len(mean)}, {sides})", f"float32 ({batch}, {len(labels)}, {sides})"
    return {
        "segtrain": version, "model": model, "checkpoint": str(checkpoint),
        "input": f"{INPUT}: {given}, {values}", "output": f"{output_name(gives_labels)}: {result}",
        "classes": json.dumps([label.name for label in labels]),
        "colors": json.dumps([list(label.color) for label in labels]),
        "label_ids": json.dumps([label.label_id for label in labels]),
        "normalization": "inside: (image / 255 - mean) / std" if form.range is None else
                         "inside: (clip((image - low) / (high - low), 0, 1) - mean) / std",
        **({} if form.range is None else {"range": json.dumps(form.range)}),
        "mean": json.dumps(list(mean)), "std": json.dumps(list(std)),
    }


def write_pt2(path: Path, program: ExportedProgram, metadata: Mapping[str, str]) -> None:
    """Write a traced program for torch.export.load, its metadata as the extra file segtrain.json."""
    buffer = io.BytesIO()
    with quiet():
        torch.export.save(program, buffer, extra_files={METADATA_FILE: json.dumps(dict(metadata))})
    write_file(path, lambda file: file.write(buffer.getbuffer()))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence torch's messages during an export: deprecations, progress, failed attempts."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), \
                contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def first_line(error: Exception) -> str:
    """Return the kind of an error and the first line of its text."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {line[:300]}".rstrip(": ")
