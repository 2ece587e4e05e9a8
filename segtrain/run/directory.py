"""The directory of a run: what it may hold, and what is removed if the run is refused."""

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from segtrain.errors import UserError


def remove_empty(made: Sequence[Path]) -> None:
    """Remove folders that a command made, the outermost first among them, as far as nothing is in them."""
    for folder in reversed(made):
        with contextlib.suppress(OSError):
            if {path.name for path in folder.iterdir()} == {"multirun.yaml"}:  # Hydra's, of a sweep without a job
                (folder / "multirun.yaml").unlink()
            folder.rmdir()


def refuse_links(run_dir: Path) -> None:
    """Refuse a run directory of which a part is a link to elsewhere: a run writes into its own directory only.

    Raises:
        UserError: Names the first such link.
    """
    inside = run_dir.resolve()
    for path in sorted(run_dir.rglob("*")):
        if path.is_symlink() and not path.resolve().is_relative_to(inside):
            raise UserError(f"{path} is a link to {path.resolve()}, and a run writes into its own directory only: put "
                            "what it leads to in its place, or move the whole run directory and link that.")


def holds_results(run_dir: Path) -> bool:
    """Return whether a run that ended by an error leaves what is worth keeping: weights, predictions, a report."""
    return ((run_dir / "results.json").exists() or any((run_dir / "checkpoints").glob("*.pt"))
            or any((run_dir / "predictions").rglob("*.png")))


def empty(folder: Path) -> None:
    """Remove all that is in a folder."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
