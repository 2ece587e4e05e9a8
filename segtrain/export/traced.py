"""A network with its preprocessing as one file that runs without segtrain: ONNX, or a program of torch.export."""

import contextlib
import importlib.util
import io
import json
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from segtrain.errors import UserError, install_extra
from segtrain.files import write_file

INPUT = "image"
OPSET = 18  # the oldest that torch translates into without a detour: more runtimes know it
NOTES = "segtrain.json"  # the metadata within a .pt2 file
# Of the example that the network is traced with. Torch would fix a side that becomes one cell within the network, and
# what is divisible already; no network here makes one cell of these.
TRACED_BATCH, TRACED_SIZE = 2, (133, 197)
SMALLEST, LARGEST = 32, 2**16  # sides that a network for every size must take


class Portable(nn.Module):
    """A network with its normalisation inside, and if wanted with its decision.

    Args:
        network: float32 (N, C, H, W), normalised -> logits.
        mean: One number a channel, of x / 255.
        std: One number a channel, above 0.
        labels: Whether the class numbers are wanted instead of the logits; pictures come as decoders give them then.

    Shape:
        - image: (N, C, H, W), float32, 0..255; with `labels` (N, H, W, C), uint8.
        - returns: logits (N, K, H, W), float32; with `labels` (N, H, W), uint8, 0..K-1.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float], *, labels: bool) -> None:
        super().__init__()
        self.network = network
        self.labels = labels
        means, stds = (torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1) for values in (mean, std))
        self.register_buffer("scale", (1 / (255 * stds)).float())
        self.register_buffer("shift", (-means / stds).float())

    def forward(self, image: Tensor) -> Tensor:
        if self.labels:
            image = image.permute(0, 3, 1, 2).float().contiguous()  # other strides make torch fix sizes on tracing
        logits = self.network(image * self.scale + self.shift)
        return logits.argmax(1).to(torch.uint8) if self.labels else logits


def output_name(labels: bool) -> str:
    """Name the output of a file."""
    return "labels" if labels else "logits"


def trace(portable: Portable, size: tuple[int, int] | None, target: str) -> ExportedProgram:
    """Record what a network computes.

    Args:
        portable: On the CPU; it is put into evaluation mode.
        size: (height, width) of the only pictures that the program takes, one at a time; None: of any batch and size.
        target: Its model._target_, for messages.

    Raises:
        UserError: If the network cannot be traced, or for one size only.
    """
    shape = (1, *size) if size else (TRACED_BATCH, *TRACED_SIZE)
    num_channels = portable.scale.shape[1]
    if portable.labels:
        example, open_dims = torch.zeros(*shape, num_channels, dtype=torch.uint8), (0, 1, 2)
    else:
        example, open_dims = torch.zeros(shape[0], num_channels, *shape[1:]), (0, 2, 3)
    try:
        with _quiet(), torch.no_grad():
            program = torch.export.export(portable.eval(), (example,), dynamic_shapes=None if size else
                                          (dict.fromkeys(open_dims, Dim.DYNAMIC),))
    except Exception as error:  # whatever the network's own code, or torch's tracing of it, may raise
        remedy = ("let its forward not decide by the values of tensors" if size else
                  "let its forward not decide by the values of tensors or by its input's size, or export for one size: "
                  "task.size=[height,width]")
        raise UserError(f"model._target_={target} cannot be exported ({_in_short(error)}): {remedy}.") from error
    for symbol, bounds in program.range_constraints.items():
        if size is None and (bounds.lower > SMALLEST or bounds.upper < LARGEST):
            raise UserError(f"model._target_={target} cannot be exported for every size: its forward decides by a side "
                            f"of its input ({bounds.lower} <= {symbol} <= {bounds.upper}). Let it not, or export for "
                            "one size: task.size=[height,width].")
    return program


def passes_places(program: ExportedProgram) -> bool:
    """Say whether a program puts values to places that it found, as unpooling does.

    Of two maxima that are equal but for rounding, another runtime may take the other one. A few pixels then differ.
    """
    return any("scatter" in str(node.target) for node in program.graph.nodes)


def write_onnx(path: Path, program: ExportedProgram, metadata: Mapping[str, str], *, labels: bool, target: str) -> int:
    """Write a traced network as ONNX.

    Args:
        path: The file.
        program: What `trace` returned.
        metadata: Goes into the file's metadata_props.
        labels: Whether the network gives labels.
        target: Its model._target_, for messages.

    Returns:
        The version of ONNX's operators.

    Raises:
        UserError: If an operator cannot be written as ONNX, or the file cannot be written.
    """
    need_export_extra()
    import onnx

    try:
        with _quiet():
            made = torch.onnx.export(program, (), dynamo=True, input_names=[INPUT], verbose=False,
                                     output_names=[output_name(labels)], opset_version=OPSET)
            assert made is not None
            model = made.model_proto
    except Exception as error:  # torch.onnx raises errors of its own kinds, in every version others
        missing = re.search(r"No ONNX function found for <OpOverload\(op='([\w.:]+)'", _all_of(error))
        said = f"its operator {missing[1]} has no counterpart in ONNX" if missing else _in_short(error)
        raise UserError(f"model._target_={target} cannot be written as ONNX with torch {torch.__version__} ({said}): "
                        "replace the operator in the network's forward, or use task.format=pt2, which keeps every "
                        "operator of torch.") from error
    _name_dimensions(model, labels)
    onnx.helper.set_model_props(model, dict(metadata))
    write_file(path, lambda file: file.write(model.SerializeToString()))
    return next(each.version for each in model.opset_import if each.domain == "")


def write_pt2(path: Path, program: ExportedProgram, metadata: Mapping[str, str]) -> None:
    """Write a traced network for torch.export.load; its metadata is the extra file segtrain.json.

    Raises:
        UserError: If it cannot be written.
    """
    held = io.BytesIO()
    with _quiet():
        torch.export.save(program, held, extra_files={NOTES: json.dumps(dict(metadata))})
    write_file(path, lambda file: file.write(held.getbuffer()))


def need_export_extra() -> None:
    """Check that what ONNX files are written and run with is installed.

    Raises:
        UserError: Says how to install it.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"task.format=onnx needs {', '.join(missing)}: {install_extra('export')}, "
                        "or use task.format=pt2.")


def _name_dimensions(model: "object", labels: bool) -> None:
    """Call the open dimensions batch, height and width, where torch has numbered them."""
    graph = model.graph  # type: ignore[attr-defined]
    dims = [each.dim_param for each in graph.input[0].type.tensor_type.shape.dim]
    names = ("batch", "height", "width", "") if labels else ("batch", "", "height", "width")
    new = {old: name for old, name in zip(dims, names, strict=True) if old}
    if not new:
        return
    numbered = re.compile(rf"\b({'|'.join(map(re.escape, new))})\b")
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = numbered.sub(lambda found: new[found[0]], dim.dim_param)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from telling of its own affairs: deprecations within it, its progress, graphs that it gave up on."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), \
                contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _all_of(error: BaseException | None) -> str:
    """Return the texts of an error and of all that it came from."""
    texts = []
    while error is not None:
        texts.append(str(error))
        error = error.__cause__ or error.__context__
    return "\n".join(texts)


def _in_short(error: Exception) -> str:
    """Return the kind of an error and the first line that it says."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {line[:300]}".rstrip(": ")
