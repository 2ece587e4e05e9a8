"""What a checkpoint holds, and whether the state of an optimizer belongs to its parameters."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, model_validator
from torch import Tensor

from segtrain.errors import UserError
from segtrain.schemas import MOST_CLASSES, Byte, Color, Count, Number, Part, Text

NEW_RUN = "start a new run from its weights with checkpoint=, or choose another file"


class SavedLabel(Part):
    """A class of the dataset."""

    name: Text
    label_id: Annotated[int, Field(ge=-1, le=65535)]
    train_id: Byte
    color: Color
    has_instances: bool = False
    category: Text | None = None
    other_ids: Annotated[Sequence[Annotated[int, Field(ge=0, le=65535)]], Field(max_length=65536)] = ()
    other_colors: Annotated[Sequence[Color], Field(max_length=65536)] = ()


class SavedForm(Part):
    """What label files of predictions hold."""

    label_ids: bool
    palette: Annotated[Sequence[Color], Field(max_length=256)] | None


class ParameterGroup(Part):
    """A group of an optimizer's parameters, by their numbers."""

    params: list[Count]
    lr: Number


class Optimizer(Part):
    """What the state of an optimizer consists of, whichever it is."""

    state: dict[Count, dict[str, Any]]
    param_groups: Annotated[list[ParameterGroup], Field(min_length=1)]


class Scheduler(Part):
    """The state of the learning-rate schedule."""

    last_epoch: Count


class Scaler(Part):
    """The state of the loss scaling of fp16; of other precisions it is empty."""

    scale: Annotated[float, Field(gt=0, le=1e30)] = 1.0
    growth_factor: Annotated[float, Field(gt=1, le=1e6)] = 2.0
    backoff_factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    growth_interval: Annotated[int, Field(gt=0, le=2**31)] = 1
    growth_tracker: Annotated[int, Field(ge=0, le=2**31, alias="_growth_tracker")] = 0


class Generators(Part):
    """The state of torch's generators of random numbers."""

    cpu: Tensor
    cuda: list[Tensor]


class State(Part):
    """The content of a checkpoint; best.pt has None for what only a resume needs."""

    model: dict[str, Tensor]
    optimizer: Optimizer | None
    scheduler: Scheduler | None
    scaler: Scaler | None
    ema: dict[str, Tensor] | None
    rng: Generators | None
    epoch: Count
    step: Count
    progress: dict[str, Any] | None
    config: dict[str, Any]
    class_sizes: Annotated[dict[Text, Number | None], Field(max_length=MOST_CLASSES)] | None
    class_pixels: Annotated[list[Count], Field(max_length=MOST_CLASSES)] | None
    image_pixels: Annotated[list[Count], Field(max_length=MOST_CLASSES)] | None
    format: Text
    labels: Annotated[list[SavedLabel], Field(min_length=1, max_length=65536)]
    file_form: SavedForm
    names: dict[Text, list[Text]] = Field({})  # of a training: those of the samples of each split,
    samples: dict[Text, list[Count]] = Field({})  # and digests of their content
    processes: Annotated[int, Field(gt=0, le=2**20)] = 1
    teacher: Text | None = None  # a digest of its weights

    @model_validator(mode="after")
    def _check_samples(self) -> "State":
        if {split: len(names) for split, names in self.names.items()} != {
                split: len(digests) for split, digests in self.samples.items()}:
            raise ValueError("names and samples are not of the same samples")
        return self


def check_resumable(saved: Mapping[str, Any], path: Path) -> None:
    """Raise UserError if a checkpoint has weights, but not all that a resume needs."""
    for key in ("optimizer", "scheduler", "scaler", "rng", "progress"):
        if saved[key] is None:
            raise UserError(f"{path} has no state of a run to go on from ({key} is empty): {NEW_RUN}.")


def check_optimizer(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any], path: Path) -> None:
    """Check that a saved state has the keys, shapes and dtypes that an optimizer has after a step, all of them finite.

    Other numbers of groups or parameters are left to `Optimizer.load_state_dict`.

    Raises:
        UserError: Names the parameter and the key.
    """
    sizes = [len(group["params"]) for group in optimizer.param_groups]
    if [len(group["params"]) for group in saved["param_groups"]] != sizes:
        return
    numbers = [number for group in saved["param_groups"] for number in group["params"]]
    unknown = saved["state"].keys() - set(numbers)
    if unknown or len(set(numbers)) < len(numbers):
        raise UserError(f"{path} is damaged: the optimizer's parameters are not numbered as segtrain does; {NEW_RUN}.")
    for number, wanted in zip(numbers, _try_step(optimizer), strict=True):
        found = saved["state"].get(number)
        fault = None if found is None else _find_fault(found, wanted)
        if fault is not None:
            raise UserError(f"{path} is damaged: in the optimizer's state of parameter {number} {fault}; {NEW_RUN}.")


def _try_step(optimizer: torch.optim.Optimizer) -> list[dict[str, Any] | None]:
    """Return the state that each parameter has after a step of an optimizer of this kind; None if it takes none."""
    groups = [{**group, "params": [torch.zeros_like(parameter) for parameter in group["params"]]}
              for group in optimizer.param_groups]
    parameters = [parameter for group in groups for parameter in group["params"]]
    try:
        trial = type(optimizer)(groups)  # type: ignore[call-arg]
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        trial.step()
    except Exception:  # an optimizer of the user may need anything
        return [None for _ in parameters]
    return [trial.state.get(parameter, {}) for parameter in parameters]


def _find_fault(found: Mapping[str, Any], wanted: Mapping[str, Any] | None) -> str | None:
    """Return what is wrong with the state of a parameter; None if nothing is."""
    if wanted is not None and found.keys() != wanted.keys():
        return f"there is {', '.join(map(str, found)) or 'nothing'} instead of {', '.join(wanted) or 'nothing'}"
    for key, value in found.items():
        like = None if wanted is None else wanted[key]
        if like is not None and isinstance(value, Tensor) != isinstance(like, Tensor):
            return f"{key} is a {type(value).__name__}"
        if isinstance(value, Tensor):
            if value.layout != torch.strided or value.is_quantized or value.is_meta:
                return f"{key} is not a dense tensor"
            if like is not None and (value.shape, value.dtype.is_floating_point) != (like.shape,
                                                                                     like.dtype.is_floating_point):
                return f"{key} is {value.dtype} {tuple(value.shape)} instead of {like.dtype} {tuple(like.shape)}"
            if value.is_complex() or not bool(value.isfinite().all()):
                return f"{key} is not finite"
    return None
