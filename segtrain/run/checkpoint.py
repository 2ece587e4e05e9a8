"""Read and write checkpoints: plain dicts of tensors, numbers and text, written completely or not at all."""

import zipfile
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from segtrain.config import messages
from segtrain.distributed import process_group
from segtrain.errors import UserError, list_part
from segtrain.files import is_utf8, open_regular, write_file
from segtrain.models.pretrained import find_state_dict, strip_prefix
from segtrain.run.checkpoint_schema import State
from segtrain.schemas import check_content

FORMAT = "segtrain-1"
LAST, BEST = "last.pt", "best.pt"


def save(path: Path, state: Mapping[str, Any], before_rename: Callable[[], object] = lambda: None) -> None:
    """Write a checkpoint, from the first of several processes.

    `before_rename` is called when its temporary file is complete.

    Raises:
        UserError: If it cannot be written; an earlier file of that name is intact.
    """
    if not process_group.is_main():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, lambda file: torch.save({**state, "format": FORMAT}, file), before_rename=before_rename)


def save_last(folder: Path, state: Mapping[str, Any], *, former_step: int | None, keep: int) -> None:
    """Write last.pt, and keep earlier ones as step-<number>.pt.

    Args:
        folder: Of the checkpoints.
        state: The new checkpoint.
        former_step: The step of the existing last.pt; None if there is none worth keeping.
        keep: How many of the newest checkpoints to keep, last.pt included.

    Raises:
        UserError: If it cannot be written; existing files are intact.
    """
    last = folder / LAST

    def keep_former() -> None:
        if former_step not in (None, state["step"]) and keep > 1 and last.exists():
            # a process that dies here leaves no last.pt, but find_last looks for these too
            last.replace(folder / f"step-{former_step:08d}.pt")

    save(last, state, before_rename=keep_former)
    if not process_group.is_main():
        return
    for path in _former(folder)[keep - 1:]:
        path.unlink(missing_ok=True)


def _former(folder: Path) -> list[Path]:
    """Return the checkpoints before the last one, newest first."""
    return sorted(folder.glob("step-*.pt"), reverse=True)


def find_last(folder: Path) -> tuple[dict[str, Any], Path, list[UserError]] | None:
    """Read the newest intact checkpoint of a run; None if it has none.

    Returns:
        The checkpoint, its file, and the errors of newer ones.

    Raises:
        UserError: If all are damaged.
    """
    faults: list[UserError] = []
    for path in (folder / LAST, *_former(folder)):
        if path.exists():
            try:
                return load(path), path, faults
            except UserError as error:
                faults.append(error)
    if faults:
        raise UserError(f"{faults[0]} No earlier one is intact. Remove {folder / LAST} to start the run again, or "
                        f"start a new run from {folder / BEST} with checkpoint=.")
    return None


def find(path: str, key: str = "checkpoint") -> Path:
    """Return the file that a key names, `checkpoint=` or another: a .pt file, or a run directory's best checkpoint."""
    given = Path(path)
    found = given / "checkpoints" / BEST if given.is_dir() else given
    if not found.exists():
        raise UserError(f"{found} does not exist: {key}= takes a .pt file or a run directory "
                        f"with checkpoints/{BEST}.")
    return found


def load(path: Path, *, mapped: bool = False, weights_suffice: bool = False) -> dict[str, Any]:
    """Read a checkpoint to the CPU; nothing in it is executed.

    Args:
        mapped: Read weights when they are used.
        weights_suffice: Accept a state dict of other training code: then there are only `model`, and an empty `config`.

    Raises:
        UserError: If it cannot be read, is truncated, or is not a checkpoint of segtrain.
    """
    try:
        with open_regular(path) as file:
            is_archive = _check_archive(file)
            mapped = mapped and is_archive and is_utf8(path)  # torch maps no file of another name
            file.seek(0)
            state = torch.load(path if mapped else file, map_location="cpu", weights_only=True, mmap=mapped)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist.") from error
    except UserError:
        raise
    except Exception as error:  # torch.load fails in many ways: pickle, zip, runtime errors
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        if "weights_only" in reason or "Weights only" in reason:  # torch goes on to advise how to execute it
            reason = "it holds other things than tensors, numbers and text; none of it was executed"
        raise UserError(f"{path} is damaged or not a checkpoint of segtrain ({reason}): choose another "
                        "file.") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        is_ours = isinstance(state, dict) and str(state.get("format")).startswith("segtrain-")  # of another version
        weights = None if is_ours else find_state_dict(state)
        if weights is None:
            raise UserError(f"{path} is not a checkpoint of segtrain ({FORMAT}): choose a file that segtrain wrote.")
        if not weights_suffice:
            raise UserError(f"{path} holds weights, but not what they were trained for, as a checkpoint of segtrain "
                            "does: choose such a file. A training starts from these weights, but for the head, with "
                            "checkpoint= and train.new_head=true; an encoder with model.pretrained=.")
        return {"model": weights, "config": {}}
    check_content(State, state, path, "choose another file")
    return state


def _check_archive(file: BinaryIO) -> bool:
    """Return whether a file is an archive; refuse a compressed one, which may expand to any size.

    torch.save compresses nothing.
    """
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise UserError(f"{file.name} is a compressed archive, which segtrain does not write: choose another file.")
    return True


@contextmanager
def restoring(path: Path) -> Iterator[None]:
    """Turn errors while a run's state is restored into a UserError that names the checkpoint."""
    try:
        yield
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError) as error:
        if messages.machine(error):
            raise
        reason = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]
        raise UserError(f"{path} does not hold the state of a run like this one ({reason}): start a new run from its "
                        "weights with checkpoint=, or choose another run.") from error


def load_weights(model: nn.Module, weights: Mapping[str, torch.Tensor], path: Path, *, head: Set[str],
                 new_head: bool = False) -> None:
    """Load weights into a model; they must fit it completely, but for auxiliary heads that one of the two lacks.

    A prefix that all names have is no difference.

    Args:
        head: The keys of the head, whose shapes depend on the number of classes.
        new_head: Whether to keep the model's own head.

    Raises:
        UserError: If keys, shapes or dtypes differ; it names the first five.
    """
    own = model.state_dict()
    weights = strip_prefix(weights, own, str(path))
    kept = head if new_head else frozenset()
    missing = [key for key in own if key not in weights and key not in kept and not is_auxiliary(key)]
    unknown = [key for key in weights if key not in own and not is_auxiliary(key)]
    differing = [key for key in own if key in weights and key not in kept and own[key].shape != weights[key].shape]
    other = [key for key in own if key in weights and not _is_alike(weights[key], own[key])]
    shapes = [f"{key} {tuple(weights[key].shape)} instead of {tuple(own[key].shape)}" for key in differing]
    if missing or unknown:
        raise UserError(f"{path} holds another model than this configuration: "
                        f"{list_part('missing in the file', missing)}{list_part('unknown to the model', unknown)}"
                        "give the model that it was trained with.")
    if other:
        kinds = [f"{key} {str(weights[key].dtype).removeprefix('torch.')}" for key in other]
        raise UserError(f"{path} has weights of another type than the model's: "
                        f"{list_part('they are', kinds)}choose another file.")
    if differing and set(differing) <= head:
        raise UserError(f"{path} was trained for other classes: {list_part('its head differs', shapes)}"
                        "train.new_head=true starts from all its other layers.")
    if differing:
        raise UserError(f"{path} has layers of other sizes: {list_part('they differ', shapes)}"
                        "give the model that it was trained with.")
    model.load_state_dict({key: own[key] if key in kept else weights.get(key, own[key]) for key in own})


def is_auxiliary(key: str) -> bool:
    """Return whether a weight is one of an auxiliary head, which only training needs."""
    return key.startswith("aux.")


def _is_alike(given: Tensor, own: Tensor) -> bool:
    """Return whether a tensor of a file may be copied into a weight: both dense, and of the same kind of number."""
    return (given.layout == own.layout and not given.is_quantized and not given.is_meta
            and (given.is_floating_point(), given.is_complex()) == (own.is_floating_point(), own.is_complex()))


def random_state() -> dict[str, Any]:
    """Return the state of torch's generators; samples and their order do not depend on them."""
    return {"cpu": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Set torch's generators to a saved state."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
