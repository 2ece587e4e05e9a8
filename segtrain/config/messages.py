"""Explain errors of Hydra, OmegaConf and the system: which key or file is at fault, and the remedy."""

import difflib
import errno
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from segtrain.config.packaged import list_files, read_file
from segtrain.errors import did_you_mean, install_extra

Keys = Callable[[], Iterable[str]]  # returns the keys that exist; called only where one is suggested: it is slow
# What a folder or a disk may refuse; any other OSError that names no file is a bug.
REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EMFILE)
PLUGINS = ("optuna", "joblib", "submitit_local", "submitit_slurm")  # choices that need packages of the extra `sweep`

# What other programs call the keys and groups, without _ and in small letters.
SYNONYMS = {
    "learningrate": "optim.lr", "wd": "optim.weight_decay", "decay": "optim.weight_decay", "optimizer": "optim",
    "lrscheduler": "scheduler", "lrschedule": "scheduler", "schedule": "scheduler", "criterion": "loss",
    "lossfn": "loss", "net": "model", "network": "model", "arch": "model", "architecture": "model",
    "backbone": "model.encoder", "weights": "checkpoint", "ckpt": "checkpoint", "augment": "augmentation",
    "transforms": "augmentation", "aug": "augmentation", "data": "dataset", "datadir": "dataset.root",
    "dataroot": "dataset.root", "imgsz": "dataset.crop", "imagesize": "dataset.crop", "inputsize": "dataset.crop",
    "classes": "dataset.num_classes", "numclasses": "dataset.num_classes", "bs": "train.batch_size",
    "batch": "train.batch_size", "gradclip": "train.clip_norm", "clip": "train.clip_norm", "ema": "train.ema_decay",
    "gpu": "runtime.device", "gpus": "runtime.device", "accelerator": "runtime.device", "amp": "runtime.precision",
    "fp16": "runtime.precision", "numworkers": "runtime.workers", "output": "hydra.run.dir", "out": "hydra.run.dir",
    "outputdir": "hydra.run.dir", "savedir": "hydra.run.dir", "project": "hydra.run.dir", "source": "task.input",
    "command": "task", "mode": "task"}


def composition_error(error: Exception, known_keys: Keys,
                      in_folders: Callable[[str], list[str]] = lambda group: []) -> str:
    """Explain an error of Hydra's; `in_folders` gives a group's files that are in folders of it, as folder/name."""
    text = _plain(str(error))
    kind = type(error).__name__
    if kind == "MissingConfigException":
        return _missing_file(text, getattr(error, "missing_cfg_file", None), getattr(error, "options", None),
                             in_folders)
    if kind == "OverrideParseException":
        return _syntax(str(getattr(error, "override", "")), text)
    cause = error.__cause__ or error.__context__
    if hasattr(cause, "full_key") and not text.startswith("Could not override"):
        file = re.match(r"In '([^']*)'", text)
        return value_error(cause, known_keys) + (f" (in {file[1]}.yaml)" if file else "")
    unknown = re.match(r"(?:Could not override|Could not delete from config\.|Could not delete|"
                       r"Could not append to config\. An item is already at) '([^']*)'", text)
    if unknown and "already at" in text:
        return f"{unknown[1]} is there already: write it without the plus, {unknown[1]}=..."
    if unknown and "/" in unknown[1] and in_folders(unknown[1].partition("/")[0]):
        group, _, folder = unknown[1].partition("/")
        return f"{unknown[1]} is a folder of {group}: choose one of its files by {group}={folder}/NAME."
    if unknown and "The value of" not in text:
        return unknown_key(unknown[1], known_keys)
    group = re.search(r"config group '([^']*)' does not exist", text)
    if group:
        return unknown_key(group[1], known_keys)
    if "Config group override must be a string" in text:
        return "a group was given what is not the name of one of its files (null or a number): write group=name."
    ambiguous = re.match(r"Ambiguous value for argument '([^=]*)=([^']*)'", text)
    if ambiguous:
        key, values = ambiguous.groups()
        return f"{key}={values} are several values: add -m for a sweep over them, or write {key}=[{values}] for a list."
    return text


def value_error(error: Any, known_keys: Keys) -> str:
    """Explain an error of OmegaConf's, which knows its key."""
    key = getattr(error, "full_key", None) or ""
    reason = _plain(getattr(error, "msg", None) or str(error)).split(" full_key:")[0].split(" reference_type=")[0]
    if type(error).__name__ in ("ConfigAttributeError", "ConfigKeyError"):
        return unknown_key(key, known_keys)
    if reason.endswith("is not Optional"):
        return f"{key}=null has the wrong type: it needs a value."
    if "is not a subclass of" in reason:
        return f"{key} is a section: set its values one by one, {key}.name=..."
    if "does not support deletion" in reason:
        return f"{key} cannot be deleted: every key of its section needs a value."
    if "is not a ListConfig" in reason:
        return f"{key} has the wrong type: it must be a list, {key}=[...]."
    return f"{key}: {reason}" if key else reason


def unknown_key(key: str, known_keys: Keys) -> str:
    """Return the message for a key that does not exist, with the nearest one that does.

    The keys of its own section come first, then all keys, then their last parts: so `epochs` suggests train.epochs.
    """
    known = list(known_keys())
    section, _, name = key.replace("/", ".").rpartition(".")
    if section and key in known:  # another override has put a value in the section's place
        return f"{section} has the wrong type: it is a section, set its values one by one, {key}=..."
    having = _files_with(section, name) if "." not in section else []
    if having and section in {other.partition(".")[0] for other in known}:
        return (f"{key} is not a key of the {section} that is chosen, but of {', '.join(having)}. "
                f"Did you mean {section}={having[0]} {key}=...?")
    meant = SYNONYMS.get(re.sub(r"[_.-]", "", key.lower()))
    if meant is not None:
        return f"{key} is not a key of the configuration. Did you mean '{meant}'?"
    siblings = {other.rpartition(".")[2]: other for other in known if other.rpartition(".")[0] == section}
    last_parts = {other.rpartition(".")[2]: other for other in reversed(known)}
    for wanted, candidates, cutoff in ((name, siblings, 0.6),
                                       (key.replace("/", "."), {other: other for other in known}, 0.8),
                                       (name, last_parts, 0.6)):
        for match in difflib.get_close_matches(wanted, candidates, n=1, cutoff=cutoff):
            return f"{key} is not a key of the configuration. Did you mean '{candidates[match]}'?"
    return f"{key} is not a key of the configuration."


def _files_with(group: str, name: str) -> list[str]:
    """Return the files of a group of conf/ that have a key, the one for users' own data first."""
    found = [file for file in list_files(group) if name in (read_file(group, file) or {})]
    return sorted(found, key=lambda file: (file != "folder", file))


def machine(error: Exception) -> str | None:
    """Explain an error of memory, a disk or a folder; None for another one."""
    text = " ".join(str(error).split())
    if type(error).__name__ in ("OutOfMemoryError", "MemoryError") or "can't allocate memory" in text:
        return (f"out of memory ({text[:200]}): lower train.batch_size (train.accumulate keeps the images of a step), "
                "dataset.crop, or set dataset.cache=false.")
    if "Could not determine home directory" in text:
        return "~ and the cache need a home directory: set HOME, or write whole paths."
    if (isinstance(error, OSError) and error.errno == errno.EMFILE) or "Too many open files" in text:
        return ("too many open files for this shell: raise its limit (ulimit -n 1024), or set runtime.workers=0.")
    if "DataLoader worker" in text and "killed" in text:
        return f"{text} Memory may be short: lower runtime.workers, or set dataset.cache=false."
    if isinstance(error, OSError) and (error.filename is not None or error.errno in REFUSALS):
        return (f"{error.filename or 'a file of the run'}: {error.strerror}. Choose another folder with hydra.run.dir= "
                "(hydra.sweep.dir= for a sweep), or make room.")
    return None


def _missing_file(text: str, missing: str | None, options: Sequence[str] | None,
                  in_folders: Callable[[str], list[str]]) -> str:
    group, _, choice = (missing or "").partition("/")
    if group == "hydra":  # its groups lie deeper
        group, _, choice = (missing or "").rpartition("/")
        if group in ("hydra/sweeper", "hydra/launcher") and choice in PLUGINS:
            return (f"{group}={choice} needs a plugin of Hydra's that is not installed: {install_extra('sweep')} "
                    "(docs/how-to/sweeps.md).")
    if options and choice:
        options = [*options, *in_folders(group)]
        return (f"{group}={choice} does not exist: {group} is one of {', '.join(options)}."
                f"{_suggest_files(choice, options)}")
    return text


def _suggest_files(choice: str, options: Sequence[str]) -> str:
    """Suggest the files of a group that a name may mean: its initials, a part of theirs, or a misspelling of one."""
    plain = choice.lower().replace("-", "").replace("_", "")
    initials = [option for option in options if "".join(part[0] for part in option.split("_")) == plain]
    parts = [option for option in options if len(plain) > 2 and plain in option.replace("_", "")]
    found = (initials or parts)[:3]
    return f" Did you mean {' or '.join(map(repr, found))}?" if found else did_you_mean(choice, options)


def _syntax(override: str, text: str) -> str:
    if "=" not in override:
        return f"{override} is not an override: write key=value, or ~key to delete one."
    key, value = override.split("=", 1)
    if not key.strip("+~"):
        return f"{override} is not an override: it has no key, write key=value."
    reason = text.split(" See https://")[0].rpartition(f"Error parsing override '{override}' ")[2]
    return (f"{key}={value} cannot be read ({reason}): check its brackets; a value with spaces, commas, =, quotes or "
            f"letters beyond a-z needs quotes of its own, \"{key}='...'\".")


def _plain(text: str) -> str:
    """Return a message on one line, without Hydra's advice to add any key that does not exist."""
    lines = (line.strip() for line in text.splitlines())
    return " ".join(line for line in lines if line and not line.startswith(("To append", "See https", "Set the env")))
