"""Write a traced program as ONNX."""

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch.export import ExportedProgram

from segtrain.errors import UserError, install_extra
from segtrain.export.program import INPUT, first_line, output_name, quiet
from segtrain.files import write_file

OPSET = 18  # the oldest that torch exports to directly: more runtimes support it


def require_onnx() -> None:
    """Check that the packages that write and run ONNX files are installed; UserError if not."""
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"task.format=onnx needs {', '.join(missing)}: {install_extra('export')}, "
                        "or use task.format=pt2.")


def write_onnx(path: Path, program: ExportedProgram, metadata: Mapping[str, str], *, labels: bool, target: str) -> int:
    """Write a traced program, which returns `labels` or logits, as ONNX, and return the version of its operator set.

    Raises:
        UserError: If an operator cannot be written as ONNX, or the file cannot be written.
    """
    require_onnx()
    import onnx

    try:
        with quiet():
            made = torch.onnx.export(program, (), dynamo=True, input_names=[INPUT], verbose=False,
                                     output_names=[output_name(labels)], opset_version=OPSET)
            assert made is not None
            model = made.model_proto
    except Exception as error:  # torch.onnx raises various errors, which differ between versions
        missing = re.search(r"No ONNX function found for <OpOverload\(op='([\w.:]+)'", _join_texts(error))
        reason = f"its operator {missing[1]} has no counterpart in ONNX" if missing else first_line(error)
        raise UserError(f"model._target_={target} cannot be written as ONNX with torch {torch.__version__} ({reason}): "
                        "replace the operator in the network's forward, or use task.format=pt2, which keeps every "
                        "operator of torch.") from error
    _name_dimensions(model, labels)
    onnx.helper.set_model_props(model, dict(metadata))
    write_file(path, lambda file: file.write(model.SerializeToString()))
    return next(opset.version for opset in model.opset_import if opset.domain == "")


def _name_dimensions(model: "object", labels: bool) -> None:
    """Rename dynamic dimensions, which torch numbers, to batch, height and width."""
    graph = model.graph  # type: ignore[attr-defined]
    dims = [dim.dim_param for dim in graph.input[0].type.tensor_type.shape.dim]
    names = ("batch", "height", "width", "") if labels else ("batch", "", "height", "width")
    new = {old: name for old, name in zip(dims, names, strict=True) if old}
    if not new:
        return
    numbered = re.compile(rf"\b({'|'.join(map(re.escape, new))})\b")
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = numbered.sub(lambda found: new[found[0]], dim.dim_param)


def _join_texts(error: BaseException | None) -> str:
    """Return the texts of an error and of all its causes."""
    texts = []
    while error is not None:
        texts.append(str(error))
        error = error.__cause__ or error.__context__
    return "\n".join(texts)
