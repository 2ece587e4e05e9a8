"""The command: compose the config, check it, run its task. The only place that ends the process."""

import contextlib
import importlib
import logging
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra shall raise its errors for us to explain, not print them and exit

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segtrain import config, leaderboard
from segtrain.errors import Stopped, UserError

USER_ERROR, BUG = 2, 1
failures: list[BaseException] = []  # of this process's jobs: a sweep reports only its first


def main() -> NoReturn:
    """Run the command line and exit: 0 done, 2 the user's to mend, 128 + signal stopped, 1 a bug."""
    try:
        _continue_run(sys.argv)
        _hydra_main()
        if failures:
            raise failures[0]
    except Stopped as stopped:
        sys.exit(128 + stopped.signum)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except BaseException as error:
        if isinstance(error, SystemExit):
            raise
        message = _user_message(error)
        if message is None or any(_user_message(failure) is None for failure in failures):
            raise
        print(f"segtrain: {message}", file=sys.stderr)
        sys.exit(USER_ERROR)
    sys.exit(0)


def _continue_run(argv: list[str]) -> None:
    """Make `resume=DIR` the run directory, before Hydra makes a new one."""
    given = [argument for argument in argv[1:] if argument.startswith("resume=")]
    if not given or given[-1] in ("resume=", "resume=null"):
        return
    directory = Path(given[-1].removeprefix("resume=").strip("'\""))
    if not (directory / "config.yaml").is_file():
        raise UserError(f"resume={directory} is no run directory: it has no config.yaml.")
    argv.append(f"hydra.run.dir='{directory}'")


@hydra.main(config_path="pkg://segtrain.conf", config_name="config", version_base="1.3")
def _hydra_main(cfg: DictConfig) -> float | None:
    context = HydraConfig.get()
    run_dir = Path(context.runtime.output_dir)
    overrides = [override for override in context.overrides.task if config.override_key(override) != "resume"]
    is_sweep = context.mode == RunMode.MULTIRUN
    was_empty = not any(run_dir.iterdir())
    try:
        score = _run_task(cfg, run_dir, overrides, is_sweep)
    except Exception as error:
        failures.append(error)
        message = _user_message(error)
        log = logging.getLogger("segtrain")
        if message is not None and was_empty and not is_sweep:
            _remove_refused(run_dir)
        elif message is not None:
            log.error("%s", message)
        else:
            log.exception("a bug of segtrain")
        if not is_sweep and message is not None:
            return None  # main reports it; Hydra would print a line of its own first
        if is_sweep:
            leaderboard.update(Path(context.sweep.dir), run_dir, overrides, error=message or repr(error))
        raise
    finally:
        _release()
    if is_sweep:
        leaderboard.update(Path(context.sweep.dir), run_dir, overrides)
    return score


def _run_task(cfg: DictConfig, run_dir: Path, overrides: list[str], is_sweep: bool) -> float | None:
    """Check the config, lay it over the run to continue if there is one, and run its task."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("several processes (torchrun) are not supported: start segtrain by itself.")
    cfg = config.check(cfg)
    saved = _saved_config(cfg, run_dir, overrides, is_sweep)
    if saved is not None:
        finished = run_dir / "results.json"
        if finished.exists():
            print(f"{run_dir} is finished: nothing to do, its scores are in {finished}")
            return leaderboard.read_score(finished, saved.train.monitor)
        cfg = saved
    from segtrain import tracking  # imports torch, as do the tasks: --help must not wait for it

    tracking.start_log(run_dir / f"{cfg.task.name}.log")
    if saved is not None:
        from segtrain import build

        build.check_trust(cfg, overrides, cfg.runtime.trusted)
    return importlib.import_module(f"segtrain.tasks.{cfg.task.name}").run(cfg, run_dir, overrides)


def _saved_config(cfg: DictConfig, run_dir: Path, overrides: list[str], is_sweep: bool) -> DictConfig | None:
    """Return the config of the run to continue, under this command's overrides; None for a new run."""
    path = run_dir / "config.yaml"
    if cfg.resume is None and not is_sweep and any(run_dir.iterdir()):
        raise UserError(f"{run_dir} is not empty: continue the run in it with resume={run_dir}, "
                        "or choose another hydra.run.dir=.")
    if not path.exists():
        return None
    saved = config.read_yaml(path)
    saved.pop("versions", None)
    laid = config.check(config.overlay(saved, cfg, overrides))
    laid.runtime.trusted = cfg.runtime.trusted  # trust is given on the command line, never by a file
    if is_sweep and not _is_same(laid, saved):
        raise UserError(f"{run_dir} holds a run of another configuration: choose another hydra.sweep.dir=.")
    return laid


def _is_same(one: DictConfig, other: DictConfig) -> bool:
    """Compare two configs but for what a machine or the trust in it decides."""
    containers = [OmegaConf.to_container(cfg, resolve=True) for cfg in (one, other)]
    return all(containers[0][key] == containers[1][key] for key in containers[0] if key != "runtime")


def _user_message(error: BaseException) -> str | None:
    """Return the message of an error that the user can mend; None for a bug of ours."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return _explain_composition(error)
    if type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error):
        return (f"out of memory ({str(error).splitlines()[0]}): lower train.batch_size (train.accumulate keeps the "
                "images of a step), dataset.crop, or set dataset.cache=false.")
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}: choose a folder that can be written with hydra.run.dir=."
    return None


def _explain_composition(error: Exception) -> str:
    """Say in our words what Hydra could not compose: the key, and the nearest one that exists."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if type(error).__name__ == "MissingConfigException":
        return _explain_missing(str(error), getattr(error, "options", None), getattr(error, "missing_cfg_file", None))
    if isinstance(cause, OmegaConfBaseException):
        return config.explain(cause, _all_keys())
    lines = str(error).splitlines()
    first = lines[0].removeprefix("Could not override ").split(". ")[0]
    if "Could not override" in str(error) or "Could not append" in str(error):
        key = first.strip("'").removeprefix("Could not append to config. An item is already at ").strip("'")
        return f"{key} is not a key of the configuration.{config.nearest(key, _all_keys())}"
    return " ".join(lines)


def _explain_missing(text: str, options: Any, missing: Any) -> str:
    group, _, choice = str(missing or "").rpartition("/")
    if not options or not group:
        return " ".join(text.splitlines())
    return f"{group}={choice} does not exist: {group} is one of {', '.join(options)}.{config.nearest(choice, options)}"


def _all_keys() -> list[str]:
    """Return every key of the default config, and the groups."""
    with contextlib.suppress(Exception):
        from hydra import compose, initialize_config_module
        from hydra.core.global_hydra import GlobalHydra

        GlobalHydra.instance().clear()
        with initialize_config_module("segtrain.conf", version_base="1.3"):
            return [*config.known_keys(compose("config")), *config.RECIPE_GROUPS]
    return []


def _remove_refused(run_dir: Path) -> None:
    """Remove the directory that a refused run made, unless it holds a state worth keeping."""
    if any((run_dir / "checkpoints").glob("*.pt")):
        return
    from segtrain import tracking

    tracking.stop_log()
    shutil.rmtree(run_dir, ignore_errors=True)
    for parent in list(run_dir.parents)[:2]:
        with contextlib.suppress(OSError):  # not empty: other runs are in it
            if parent.name and parent != Path.cwd():
                parent.rmdir()


def _release() -> None:
    """Close the log and free memory: the jobs of a sweep share a process."""
    import gc

    if "segtrain.tracking" in sys.modules:
        sys.modules["segtrain.tracking"].stop_log()
    gc.collect()
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        torch._dynamo.reset()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
