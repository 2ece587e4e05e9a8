"""Check the directory of a run, and clean up after a refused one."""

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from segtrain.errors import UserError


def remove_empty(made: Sequence[Path]) -> None:
    """Remove the empty ones of folders that a command made, given from the outermost to the innermost."""
    for folder in reversed(made):
        with contextlib.suppress(OSError):
            if {path.name for path in folder.iterdir()} == {"multirun.yaml"}:  # Hydra's, of a sweep without a job
                (folder / "multirun.yaml").unlink()
            folder.rmdir()


def refuse_links(run_dir: Path) -> None:
    """Raise UserError if a run directory holds a link to elsewhere: a run writes into its own directory only."""
    inside = run_dir.resolve()
    for path in sorted(run_dir.rglob("*")):
        if path.is_symlink() and not path.resolve().is_relative_to(inside):
            raise UserError(f"{path} is a link to {path.resolve()}, and a run writes into its own directory only: put "
                            "its target in its place, or move the whole run directory and link that.")


def holds_results(run_dir: Path) -> bool:
    """Return whether a failed run left files worth keeping: checkpoints, predictions, results.json."""
    return ((run_dir / "results.json").exists() or any((run_dir / "checkpoints").glob("*.pt"))
            or any((run_dir / "predictions").rglob("*.png")))


def empty(folder: Path) -> None:
    """Remove the content of a folder."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
