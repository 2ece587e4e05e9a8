"""Hold and check the directory of a run, and clean up after a refused one."""

import contextlib
import json
import logging
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from segtrain.errors import UserError
from segtrain.files import refuse_unwritable, remove_alias, write_text

log = logging.getLogger(__name__)
LOCK, HOLDER = ".lock", ".lock.json"
# of a training without checkpoints
UNSAVED = re.compile(r".*\.log|config\.yaml|metrics\.csv|events\.out\.tfevents\..*")
SECONDS_OF_WORKERS = 60  # for which the loader processes of a killed run may keep its lock


class InUseError(UserError):
    """Another process runs in the directory."""


@contextlib.contextmanager
def hold(folder: Path, part: str = "", remedy: str = "choose another hydra.run.dir=") -> Iterator[None]:
    """Hold the directory of a run or a sweep, so that no other process writes it.

    The system frees the lock of a killed process.

    Args:
        folder: The directory, which must exist.
        part: What of it is held, if other processes may write the rest.
        remedy: Ends the error message.

    Raises:
        InUseError: If another process holds it; it names the process.
    """
    name, holder_name = folder / f"{LOCK}{part}", folder / f"{LOCK}{part}.json"
    lock = FileLock(name)
    with refuse_unwritable(name):
        remove_alias(name)
        try:
            lock.acquire(timeout=0)
        except NotImplementedError:
            log.warning("warning: %s is on a file system without locks: let no other process run in it", folder)
        except Timeout:
            holder = _read_holder(holder_name)
            try:
                lock.acquire(timeout=0 if _is_alive(holder) else SECONDS_OF_WORKERS)
            except Timeout:
                raise InUseError(f"{folder} is in use by process {holder.get('pid', 'unknown')} on "
                                 f"{holder.get('host', 'an unknown host')}, since {holder.get('started', 'unknown')}: "
                                 f"wait until it ends, or stop it; or {remedy}.") from None
    try:
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        write_text(holder_name, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "started": started}))
        yield
    finally:
        for path in (holder_name, name):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        lock.release()


def is_held(run_dir: Path) -> bool:
    """Return whether another process runs in a directory, as far as can be told."""
    if not (run_dir / LOCK).is_file():
        return False
    holder = _read_holder(run_dir / HOLDER)
    return bool(holder) and _is_alive(holder)


def _read_holder(path: Path) -> dict[str, Any]:
    """Return what is known of the process that holds a directory; {} if nothing is."""
    from segtrain.run.file_schemas import Holder  # slow to import: --help must not wait for it
    from segtrain.schemas import read_checked

    with contextlib.suppress(UserError):
        holder: dict[str, Any] = read_checked(path, Holder, "remove it").model_dump()
        return holder
    return {}


def _is_alive(holder: dict[str, Any]) -> bool:
    """Return whether a process may still run: one on another host cannot be asked."""
    if holder.get("host") != socket.gethostname():
        return True
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def is_empty(run_dir: Path) -> bool:
    """Return whether a run directory holds nothing, or what a run leaves that was killed before it wrote anything."""
    return all(path.name in (LOCK, HOLDER) or (path.suffix == ".log" and path.is_file()) for path in run_dir.iterdir())


def is_unused(run_dir: Path) -> bool:
    """Return whether a run directory is empty, or holds what a training leaves that was killed before it saved itself.

    Then the same command may use it again, for there is nothing to go on from.
    """
    entries = list(run_dir.iterdir())
    return is_empty(run_dir) or (any(path.name == "train.log" for path in entries) and all(
        path.name in (LOCK, HOLDER) or (path.is_file() and UNSAVED.fullmatch(path.name)) for path in entries))


def remove_empty(made: Sequence[Path]) -> None:
    """Remove the empty ones of folders that a command made, given from the outermost to the innermost."""
    for folder in reversed(made):
        with contextlib.suppress(OSError):
            if {path.name for path in folder.iterdir()} == {"multirun.yaml"}:  # Hydra's, of a sweep without a job
                (folder / "multirun.yaml").unlink()
            folder.rmdir()


def refuse_link_out(job_dir: Path, sweep_dir: Path) -> None:
    """Raise UserError if the folder of a job is a link that leads out of its sweep's directory."""
    if not job_dir.resolve().is_relative_to(sweep_dir.resolve()):
        raise UserError(f"{job_dir} is a link to {job_dir.resolve()}, but the jobs of a sweep stay in its directory: "
                        "remove the link, or put its target in its place.")


def refuse_links(run_dir: Path) -> None:
    """Raise UserError if a run directory holds a link to elsewhere: its files are read and written in it only."""
    inside = run_dir.resolve()
    for path in sorted(run_dir.rglob("*")):
        if path.is_symlink() and not path.resolve().is_relative_to(inside):
            raise UserError(f"{path} is a link to {path.resolve()}, but a run's files stay in its own directory: put "
                            "its target in its place, or move the whole run directory and link that.")


def holds_results(run_dir: Path) -> bool:
    """Return whether a failed run left files worth keeping: checkpoints, predictions, results.json."""
    return ((run_dir / "results.json").exists() or any((run_dir / "checkpoints").glob("*.pt"))
            or any((run_dir / "predictions").rglob("*.png")))


def empty(folder: Path) -> None:
    """Remove the content of a folder, but for the lock that this process holds."""
    for path in folder.iterdir():
        if path.name in (LOCK, HOLDER):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
