"""Checkpoints: plain dicts of tensors and numbers, written whole or not at all."""

from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import torch
from torch import nn

from segtrain.errors import UserError
from segtrain.files import write_whole

FORMAT = "segtrain-1"
KEYS = ("model", "optimizer", "scheduler", "scaler", "ema", "epoch", "step", "rng", "config", "class_sizes",
        "class_pixels", "image_pixels", "progress", "format")
LATER_KEYS = ("labels", "file_form")  # which older checkpoints lack
LAST, BEST = "last.pt", "best.pt"


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint to a temporary file, force it to the disk, and only then give it its name.

    Raises:
        UserError: If it cannot be written; an earlier file of that name is intact.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda file: torch.save({**state, "format": FORMAT}, file))


def find(path: str) -> Path:
    """Return the file that `checkpoint=` means: itself, or a run directory's best checkpoint."""
    given = Path(path)
    found = given / "checkpoints" / BEST if given.is_dir() else given
    if not found.is_file():
        raise UserError(f"{found} does not exist: checkpoint= takes a .pt file or a run directory "
                        f"with checkpoints/{BEST}.")
    return found


def load(path: Path, *, mapped: bool = False) -> dict[str, Any]:
    """Read a checkpoint to the CPU; nothing in it is executed.

    What it lacks because it is older is None in it.

    Args:
        path: The file.
        mapped: Leave the weights in the file until they are used: for whoever wants what stands beside them.

    Raises:
        UserError: If it cannot be read, is truncated, or is no checkpoint of segtrain.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist.") from error
    except Exception as error:  # torch.load fails in many ways: pickle, zip, runtime errors
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} is damaged or no checkpoint of segtrain ({reason[:200]}): "
                        "choose another file.") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT or any(key not in state for key in KEYS):
        raise UserError(f"{path} is no checkpoint of segtrain ({FORMAT}): choose a file that segtrain wrote.")
    return {**dict.fromkeys(LATER_KEYS), **state}


def load_weights(model: nn.Module, weights: Mapping[str, torch.Tensor], path: Path, *, class_layer: Set[str],
                 new_head: bool = False) -> None:
    """Load weights into a model that must have them all.

    Args:
        model: Changed in place.
        weights: A state dict.
        path: Where they come from, for the message.
        class_layer: The keys whose shapes depend on the number of classes.
        new_head: Leave the class layer as it is in the model.

    Raises:
        UserError: If keys or shapes differ; it names the first five.
    """
    own = model.state_dict()
    kept = class_layer if new_head else frozenset()
    missing = [key for key in own if key not in weights]
    unknown = [key for key in weights if key not in own]
    differing = [key for key in own if key in weights and key not in kept and own[key].shape != weights[key].shape]
    shapes = [f"{key} {tuple(weights[key].shape)} instead of {tuple(own[key].shape)}" for key in differing]
    if missing or unknown:
        raise UserError(f"{path} holds another model than this configuration: "
                        f"{_first_five('missing in the file', missing)}{_first_five('unknown to the model', unknown)}"
                        "give the model that it was trained with.")
    if differing and set(differing) <= class_layer:
        raise UserError(f"{path} was trained for other classes: {_first_five('its class layer differs', shapes)}"
                        "train.new_head=true starts from all its layers but this one.")
    if differing:
        raise UserError(f"{path} has layers of other sizes: {_first_five('they differ', shapes)}"
                        "give the model that it was trained with.")
    model.load_state_dict({key: own[key] if key in kept else weights[key] for key in own})


def _first_five(what: str, items: list[str]) -> str:
    if not items:
        return ""
    more = f", and {len(items) - 5} more" if len(items) > 5 else ""
    return f"{what}: {', '.join(items[:5])}{more}; "


def random_state() -> dict[str, Any]:
    """Return the state of torch's generators (samples and their order do not depend on them)."""
    return {"cpu": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Set torch's generators to a saved state."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
