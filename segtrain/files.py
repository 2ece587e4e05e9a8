"""Files that are written whole or not at all."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from segtrain.errors import UserError


def write_whole(path: Path, write: Callable[[BinaryIO], object],
                before_naming: Callable[[], object] = lambda: None) -> None:
    """Write to a temporary file, force it to the disk, and only then give it its name.

    Args:
        path: The file; its folder must exist.
        write: Called with the temporary file, open for writing bytes.
        before_naming: Called when the temporary file is complete, just before it gets its name.

    Raises:
        UserError: If it cannot be written; an earlier file of that name is intact.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)  # it may be a link to anywhere
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        before_naming()
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch.save turns some write errors into RuntimeError
        temporary.unlink(missing_ok=True)
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        raise UserError(f"{path} cannot be written ({reason}): make room or choose another folder with hydra.run.dir= "
                        "(hydra.sweep.dir= for a sweep); what was written before is intact.") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all; UserError if it cannot be written."""
    write_whole(path, lambda file: file.write(text.encode()))
