"""segtrain --help, and the help of each task: its keys with their defaults, written from the schema and conf/."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from shutil import get_terminal_size
from sys import stdout
from typing import Annotated, Any, get_args

from pydantic.fields import FieldInfo

from segtrain.commands.shortcuts import COMMANDS, TASKS
from segtrain.config.check import expected
from segtrain.config.overrides import flatten
from segtrain.config.packaged import list_files, read_file
from segtrain.config.schema import TASKS as SCHEMAS
from segtrain.config.schema import Config, DatasetSection, RuntimeSection, TrainSection
from segtrain.errors import show_value
from segtrain.terminal import takes_colors

BOLD, END = "\x1b[1m", "\x1b[0m"
TOP = ("seed", "checkpoint", "resume", "rerun")
GROUPS = {"train": ("model", "optim", "scheduler", "loss", "dataset", "augmentation", "logger", "experiment", "search",
                    "debug"),
          "benchmark": ("model",), "convert": ("model",)}  # what a task builds; others: a dataset, a saved run
WITHOUT_DATA = ("predict", "export", "report", "benchmark", "convert")
STARTS = (("segtrain name=first", "train on built-in street scenes"),
          ("segtrain dataset=folder dataset.root=DIR", "your own images and masks"),
          ("segtrain -m optim=adam,sgd seed=0,1,2", "a sweep, with a leaderboard"),
          ("segtrain predict checkpoint=last task.input=DIR", "use the last run"))


def show_help(arguments: Sequence[str]) -> None:
    """Print the help of the task that the arguments name, or that of segtrain."""
    words = [argument.removeprefix("task=") for argument in arguments]
    task = next((word for word in words if word in TASKS), None)
    print("\n".join(_describe_segtrain() if task is None else _describe_task(task)))


def _describe_segtrain() -> Iterator[str]:
    yield "segtrain trains and evaluates semantic-segmentation networks."
    yield f"{_title('Usage:')} segtrain [COMMAND] [GROUP=FILE ...] [KEY=VALUE ...]"
    yield ""
    yield from _list({**{name: _summary(name) for name in ["train", *(task for task in TASKS if task != "train")]},
                      **COMMANDS}, 12)
    yield ""
    yield from _list(dict(STARTS), max(len(command) for command, _ in STARTS) + 2)
    yield ""
    yield "segtrain COMMAND --help lists all that a command takes."
    yield "More flags: --version, --cfg job, --config-dir DIR, --hydra-help"


def _describe_task(task: str) -> Iterator[str]:
    yield f"{_title('Usage:')} segtrain {task} [GROUP=FILE ...] [KEY=VALUE ...]"
    yield ""
    yield _summary(task)
    defaults = flatten({**(read_file("", "config") or {}), "task": read_file("task", task) or {}})
    fields = {"task.": SCHEMAS[task].model_fields, "": {name: Config.model_fields[name] for name in TOP}}
    if task == "train":
        fields["train."] = TrainSection.model_fields
    if task not in WITHOUT_DATA:
        fields["dataset."] = DatasetSection.model_fields
        defaults |= flatten({"dataset": read_file("dataset", "streets") or {}})
    if task != "report":
        fields["runtime."] = RuntimeSection.model_fields
    for prefix, section in fields.items():
        keys = {f"{prefix}{field.alias or name}": field for name, field in section.items()
                if (prefix, name) != ("task.", "name")}
        if keys:
            yield ""
            yield _title(f"Keys of {prefix.rstrip('.')}:" if prefix else "Keys:")
            yield from _list({key: _describe_key(field, defaults.get(key)) for key, field in keys.items()}, 28)
    groups = GROUPS.get(task, () if task in WITHOUT_DATA else ("dataset",))
    if groups:
        yield ""
        yield _title("Groups, and their files, whose keys docs/reference/config-files.md shows:")
        yield from _list({group: ", ".join(_list_choices(group)) for group in groups}, 14)


def _list_choices(group: str) -> list[str]:
    folders = ("torchvision",) if group == "model" else ()
    return [*list_files(group), *(f"{folder}/{name}" for folder in folders for name in list_files(f"{group}/{folder}"))]


def _summary(task: str) -> str:
    """Return the first line of what the schema says about a task."""
    return (SCHEMAS[task].__doc__ or "").splitlines()[0]


def _describe_key(field: FieldInfo, default: Any) -> str:
    interpolated = isinstance(default, str) and "${" in default
    return f"{field.description} [{describe_values(field)}; default {'auto' if interpolated else show_value(default)}]"


def describe_values(field: FieldInfo) -> str:
    """Return which values a key takes, and their range: "null or a whole number, ≥ 1"."""
    hint: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    limits = dict(_limits(hint))
    ranges = [f"{sign} {limits[name]:g}" for name, sign in (("ge", "≥"), ("gt", ">"), ("lt", "<"))
              if name in limits and limits[name] < 2**31]
    return expected(hint) + (f", {' and '.join(ranges)}" if ranges else "")


def _limits(hint: Any) -> Iterator[tuple[str, float]]:
    """Yield the limits of a type and of the types in it."""
    for inner in get_args(hint):
        for limit in getattr(inner, "metadata", [inner]):
            yield from ((name, getattr(limit, name)) for name in ("ge", "gt", "lt")
                        if getattr(limit, name, None) is not None)
        yield from _limits(inner)


def _list(entries: Mapping[str, str], indent: int) -> Iterator[str]:
    """Yield the lines of a list of names and what they mean, wrapped to the terminal."""
    width = max(60, min(120, get_terminal_size().columns))
    for name, text in entries.items():
        lines = textwrap.wrap(text, width - indent - 2, break_long_words=False) or [""]
        if len(name) >= indent:
            yield f"  {name}"
            name = ""
        yield f"  {name:<{indent}}{lines[0]}".rstrip()
        yield from (" " * (indent + 2) + line for line in lines[1:])


def _title(text: str) -> str:
    return f"{BOLD}{text}{END}" if takes_colors(stdout) else text
