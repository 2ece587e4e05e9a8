"""What the command line may say in short: tasks as words, names of runs, the last run."""

import re
from collections.abc import Sequence
from pathlib import Path

from segtrain.config.arguments import quote, read_path
from segtrain.config.compose import all_keys
from segtrain.config.messages import unknown_key
from segtrain.config.overrides import CONFIG
from segtrain.config.packaged import list_files
from segtrain.errors import UserError, did_you_mean
from segtrain.run import directory
from segtrain.run.listing import RUNS, SWEEPS, find_last

TASKS = list_files("task")
INSIDE = ("evaluate", "predict", "export")  # tasks whose output goes into the run that they take the checkpoint from
COMMANDS = {"runs": "List the runs in outputs and multirun, with their scores.",  # modules of this package
            "models": "List the networks: parameters, MACs, speed and scores.",
            "env": "Show versions and hardware, for a bug report."}
MULTIRUN = ("-m", "--multirun")
# Hydra's, which may have their value behind an equals sign or, the short ones, without a blank.
FLAGS = ("--help", "--hydra-help", "--version", "--cfg", "--resolve", "--package", "--run", "--multirun",
         "--shell-completion", "--config-path", "--config-name", "--config-dir", "--experimental-rerun", "--info")
SHORT_FLAGS = ("-h", "-c", "-p", "-r", "-m", "-sc", "-cp", "-cn", "-cd", "-i")


def expand(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with everything that is said in short written out for Hydra.

    `evaluate` is task=evaluate; name=first is hydra.run.dir=outputs/first, or first-2 where that is taken; resume=last
    and checkpoint=last name the run that began last; what a checkpoint of a run is used for goes into that run.

    Raises:
        UserError: If a word is not a task, a name is not one, or there is no last run.
    """
    _refuse_unknown_flags(arguments)
    arguments = _expand_word(list(arguments))
    arguments = [_expand_last(argument) for argument in arguments]
    names = [argument for argument in arguments if argument.startswith("name=")]
    if names:
        return _expand_name(names[-1].partition("=")[2], [each for each in arguments if each not in names])
    return [*arguments, *_choose_folder(arguments)]


def _refuse_unknown_flags(arguments: Sequence[str]) -> None:
    for argument in arguments:
        name, _, value = argument.partition("=")
        if re.fullmatch(r"--?[a-zA-Z]\w[\w.-]*", name) and name not in FLAGS and not (
                name[:2] in SHORT_FLAGS or name[:3] in SHORT_FLAGS):
            key = name.lstrip("-").replace("-", "_")
            raise UserError(f"{argument} is not a flag of segtrain: a setting is written KEY={value or 'VALUE'}. "
                            f"{unknown_key(key, all_keys).partition('. ')[2]}".rstrip())


def _expand_word(arguments: list[str]) -> list[str]:
    for place, argument in enumerate(arguments):
        if argument.startswith("-"):
            if argument not in MULTIRUN:
                return arguments  # a flag of Hydra's, which may have a value
        elif not argument.isidentifier():
            return arguments  # a setting, or what Hydra refuses
        elif argument in TASKS:
            return [*arguments[:place], f"task={argument}", *arguments[place + 1:]]
        else:
            raise UserError(f"{argument} is neither a command nor key=value; the commands are {', '.join(TASKS)}, "
                            f"{', '.join(COMMANDS)}.{did_you_mean(argument, (*TASKS, *COMMANDS))}")
    return arguments


def _expand_last(argument: str) -> str:
    file = {"resume=last": "checkpoints/last.pt", "checkpoint=last": "checkpoints/best.pt"}.get(argument)
    if file is None or Path("last").exists():
        return argument
    found = find_last(Path(RUNS), file)
    print(f"last: {found}")
    return f"{argument.partition('=')[0]}={quote(str(found))}"


def _expand_name(name: str, arguments: list[str]) -> list[str]:
    if name in ("", ".", "..") or "/" in name or "\\" in name:
        raise UserError(f"name={name} must be the name of a folder in {RUNS}: for a path, use hydra.run.dir=.")
    is_sweep = any(argument in MULTIRUN for argument in arguments)
    key, root = ("hydra.sweep.dir", SWEEPS) if is_sweep else ("hydra.run.dir", RUNS)
    for argument in arguments:
        if argument.startswith((f"{key}=", "resume=")):
            raise UserError(f"name={name} and {argument} both say where the run goes: leave one of them out.")
    return [*arguments, f"{key}={quote(str(_free_folder(Path(root) / name)))}"]


def _choose_folder(arguments: Sequence[str]) -> list[str]:
    """Return the run directory inside the run whose checkpoint is used, if nothing says otherwise."""
    given = dict(argument.partition("=")[::2] for argument in arguments if "=" in argument)
    task = given.get("task")
    if task not in INSIDE or any(argument in MULTIRUN for argument in arguments) or {
            "hydra.run.dir", "resume", "rerun"} & given.keys():
        return []
    path = Path(read_path(given.get("checkpoint", "")))
    run = next((folder for folder in (path, path.parent.parent) if (folder / CONFIG).is_file()), None)
    if not given.get("checkpoint") or run is None:
        return []
    name = f"{task}-{given.get('dataset.split', 'val')}" if task == "evaluate" else task
    return [f"hydra.run.dir={quote(str(_free_folder(run / name)))}"]


def _free_folder(folder: Path) -> Path:
    """Return a folder that is not there yet, or unused: the given one, or with -2, -3, ... behind its name."""
    found, number = folder, 1
    while found.exists() and not (found.is_dir() and directory.is_unused(found)):
        number += 1
        found = folder.with_name(f"{folder.name}-{number}")
    if found != folder:
        print(f"{folder} is taken: this goes into {found}")
    return found
