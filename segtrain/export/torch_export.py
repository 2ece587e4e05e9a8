"""Write a traced program as .pt2, for torch.export.load."""

import io
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch.export import ExportedProgram

from segtrain.export.program import quiet
from segtrain.files import write_file

METADATA_FILE = "segtrain.json"  # within the .pt2 file


def write_pt2(path: Path, program: ExportedProgram, metadata: Mapping[str, str]) -> None:
    """Write a traced program for torch.export.load, with its metadata as the extra file segtrain.json.

    Raises:
        UserError: If it cannot be written.
    """
    buffer = io.BytesIO()
    with quiet():
        torch.export.save(program, buffer, extra_files={METADATA_FILE: json.dumps(dict(metadata))})
    write_file(path, lambda file: file.write(buffer.getbuffer()))
