"""Find the images and videos to predict: named one by one, in folders, by patterns or in lists."""

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from segtrain.data.discovery import files_below, is_list, read_lines
from segtrain.data.images import IMAGE_SUFFIXES
from segtrain.errors import UserError

VIDEO_SUFFIXES = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv"}
KEY = "task.input"


@dataclass(frozen=True)
class Item:
    """A file to be predicted.

    Attributes:
        path: The file.
        name: Its path without suffix, relative to what was searched: subfolders are kept, and no two have one name.
        is_video: Whether it is a video.
    """

    path: Path
    name: str
    is_video: bool


@dataclass(frozen=True)
class Inputs:
    """The files that were found.

    Attributes:
        items: Sorted by path.
        remarks: What was left out, for the user.
    """

    items: list[Item]
    remarks: list[str]


def find_inputs(given: str, marker: str, outputs: Sequence[str], own: Path) -> Inputs:
    """Find images and videos.

    Args:
        given: An image, a video, a folder (searched through its subfolders), a pattern with * and **, or a list file
            (.txt, .csv): one path per line, relative to the list; what follows a tab or a comma is ignored.
        marker: A folder that holds a file of this name holds predictions ...
        outputs: ... in these folders of it: what lies in them is not read.
        own: The folder that this run's predictions go to, marked or not.

    Raises:
        UserError: If nothing is found, a listed file is missing, or two inputs would have one output.
    """
    path = Path(given).expanduser()
    own = own.resolve()
    remarks: list[str] = []
    if path.is_dir():
        folder, files = path, [file for file in files_below(path, KEY) if _is_input(file, remarks)]
    elif path.is_file():
        folder, files = (path.parent, [path]) if not is_list(given) else _read_list(path)
    elif glob.has_magic(given):
        matching = glob.glob(str(path), recursive=True)  # noqa: PTH207  # Path.glob takes no absolute pattern
        files = [Path(name) for name in matching if Path(name).is_file()]
        folder, files = _common_folder(files), [file for file in sorted(files) if _is_input(file, remarks)]
    else:
        raise UserError(f"{KEY}={given} does not exist: give an image, a video, a folder, a pattern as "
                        "'photos/**/*.jpg', or a list of paths in a .txt file.")
    is_marked: dict[Path, bool] = {}
    kept = [file for file in files if not _is_prediction(file, marker, outputs, own, is_marked)]
    if not kept:
        raise UserError(f"{KEY}={given} holds no image and no video ({', '.join(sorted(IMAGE_SUFFIXES))}; "
                        f"{', '.join(sorted(VIDEO_SUFFIXES))}): check the path.")
    if len(kept) < len(files):
        remarks.append(f"{len(files) - len(kept)} files below {given} are predictions themselves and are not read.")
    items = [Item(file, file.relative_to(folder).with_suffix("").as_posix(), file.suffix.lower() in VIDEO_SUFFIXES)
             for file in kept]
    _check_names(items)
    return Inputs(items, _sum_up(remarks))


def select_shard(items: Sequence[Item], which: str) -> list[Item]:
    """Return one of n parts of the items, "i/n": together they are all, and no two share one.

    Raises:
        UserError: If it is not of that form, i from 1 to n.
    """
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", which)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"task.shard={which} must be i/n with i from 1 to n: 1/4, 2/4, 3/4 and 4/4 share the work out.")
    return list(items[int(match[1]) - 1::int(match[2])])


def _is_input(path: Path, remarks: list[str]) -> bool:
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES or suffix in VIDEO_SUFFIXES:
        return True
    remarks.append(suffix or path.name)
    return False


def _sum_up(remarks: Iterable[str]) -> list[str]:
    """Sum up the suffixes of what was left out; sentences stay as they are."""
    remarks = list(remarks)
    sentences = [text for text in remarks if text.endswith(".")]
    counts = Counter(text for text in remarks if not text.endswith("."))
    if counts:
        kinds = ", ".join(f"{suffix} ({count})" for suffix, count in counts.most_common(5))
        more = f" and {len(counts) - 5} more kinds" if len(counts) > 5 else ""
        sentences.insert(0, f"left out, because they are neither images nor videos: {kinds}{more}.")
    return sentences


def _is_prediction(path: Path, marker: str, outputs: Sequence[str], own: Path, is_marked: dict[Path, bool]) -> bool:
    """Return whether a file lies in an output folder of this run or of another."""
    for folder in path.resolve().parents:
        if folder.name in outputs:
            home = folder.parent
            if home not in is_marked:
                is_marked[home] = home == own or (home / marker).is_file()
            if is_marked[home]:
                return True
    return False


def _read_list(path: Path) -> tuple[Path, list[Path]]:
    """Read a list of paths; UserError if one is missing: it names the first, and holds them all."""
    files: dict[Path, None] = {}
    missing = []
    for where, line in read_lines(path, KEY):
        whole = path.parent / line.strip()
        file = whole if whole.is_file() else path.parent / re.split(r"[\t,]", line)[0].strip()
        if not file.is_file():
            missing.append(f"{where}: {file}")
        files[file] = None
    if missing:
        raise UserError(f"{missing[0]} is not there{f', nor are {len(missing) - 1} others' if missing[1:] else ''}: "
                        "paths in a list are relative to the list; correct it.", missing)
    if not files:
        raise UserError(f"{path} lists no file: give it a path a line.")
    return _common_folder(files), sorted(files)


def _common_folder(files: Iterable[Path]) -> Path:
    """Return the folder that all files lie below."""
    parents = [str(file.parent) for file in files]
    return Path(os.path.commonpath(parents)) if parents else Path()


def _check_names(items: Sequence[Item]) -> None:
    taken: dict[tuple[str, bool], Item] = {}
    for item in items:
        other = taken.setdefault((item.name, item.is_video), item)
        if other is not item:
            raise UserError(f"{other.path} and {item.path} would both be predicted as {item.name}: rename one, or take "
                            f"one kind at a time, {KEY}='{item.path.parent}/*{item.path.suffix}'",
                            [str(other.path), str(item.path)])
