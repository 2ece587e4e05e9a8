"""The arguments of the command, as Hydra needs them: runs to continue, saved configs, paths of any name."""

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

from segtrain.config.overrides import CONFIG, CONFIG_DIR, OPEN_GROUPS, expand_home, unquote
from segtrain.errors import UserError

# Keys whose values are paths, which may have any name.
PATHS = ("checkpoint", "rerun", "hydra.run.dir", "hydra.sweep.dir", "dataset.root", "task.input", "task.output",
         "task.run", "task.evaluation", "task.predictions", "task.weights")


def prepare_arguments(arguments: Sequence[str]) -> list[str]:
    """Return the arguments as Hydra needs them to continue a run or to use a saved config; paths may have any name.

    `resume=DIR` becomes the run directory, before Hydra makes a new one; DIR may have any name. What is overridden in
    an open group need not be in the group's default file, for the saved config may have chosen another.

    Raises:
        UserError: If resume= names no run directory, or contradicts another argument.
    """
    own_files = find_config_dir(arguments)
    if own_files is not None and (own_files / CONFIG).is_file():
        raise UserError(f"{own_files / CONFIG} would not be read: --config-dir adds files to the groups. To run "
                        f"the configuration of a run again, use rerun={own_files}; values of your own belong into "
                        f"{own_files / 'experiment' / 'NAME.yaml'}, chosen by experiment=NAME.")
    arguments = [_prepare_path(argument) for argument in arguments]
    given = [argument for argument in arguments if argument.startswith("resume=") and argument != "resume=null"]
    uses_saved = (any(argument.startswith("task=") and argument != "task=train" for argument in arguments)
                  and any(argument.startswith("checkpoint=") for argument in arguments)
                  ) or any(argument.startswith("rerun=") for argument in arguments)
    if given or uses_saved:
        inside = re.compile(rf"({'|'.join((*OPEN_GROUPS, 'logger'))})\.")
        arguments = [f"++{argument}" if inside.match(argument) else argument for argument in arguments]
    if not given:
        return list(arguments)
    path = read_path(given[-1].removeprefix("resume="))
    if not path or not Path(path).is_dir():
        raise UserError(f"resume={path} is not a directory: give the run directory to continue.")
    if not (Path(path) / CONFIG).is_file():
        raise UserError(f"resume={path} is not a run directory: it has no {CONFIG}.")
    other = [argument for argument in arguments if argument.startswith("hydra.run.dir=")]
    if other:
        raise UserError(f"resume={path} continues the run in that directory: leave out {other[0]}.")
    rest = [argument for argument in arguments if argument not in given]
    return [f"resume={quote(path)}", f"hydra.run.dir={quote(path)}", *rest]


def find_config_dir(arguments: Sequence[str]) -> Path | None:
    """Return the folder that --config-dir gives."""
    found = re.search(r"(?:^|\n)(?:--config-dir|-cd)[=\n](.+)", "\n".join(arguments))
    return Path(expand_home(found[1])) if found else None


def _prepare_path(argument: str) -> str:
    """Quote the path, or the paths of a sweep, in an argument that Hydra would not read as it is, and expand ~.

    Hydra does not expand a ~ in the folder of --config-dir, nor a shell one behind an equals sign.
    """
    key, _, value = argument.partition("=")
    if key in (CONFIG_DIR, "-cd"):
        return f"{key}={expand_home(value)}" if value else key
    with contextlib.suppress(HydraException):
        read = OverridesParser.create().parse_override(argument).value()
        is_misread = read not in (None, unquote(value)) and (  # as 1e3, [1] or a,b, of which a,b may be a sweep
            _exists(value) or isinstance(read, bool | int | float | list | dict))
        return f"{key}={quote(read_path(value))}" if is_misread and key.lstrip("+") in PATHS else argument
    if key.lstrip("+") not in PATHS and not value.startswith("~"):
        return re.sub(r"(?<=[\[{,:])(\s*)~(?=[/,\]}])", rf"\1{Path.home()}", argument)
    several = value.split(",")
    is_sweep = not _exists(value) and all(_exists(path) or path.startswith("~/") for path in several)
    return f"{key}={','.join(quote(read_path(path)) for path in (several if is_sweep else [value]))}"


def _exists(path: str) -> bool:
    return _is_there(read_path(path))


def _is_there(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError:  # a name too long
        return False


def read_path(text: str) -> str:
    """Return the path that an argument gives, with or without quotes for Hydra."""
    path: str = expand_home(text if _is_there(text) else unquote(text))
    return path


def quote(path: str) -> str:
    """Quote a path for Hydra."""
    quoted: str = QuotedString(path, Quote.single).with_quotes()
    return quoted
