"""Find the images and videos to predict: named one by one, in folders, by patterns or in lists."""

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from segtrain.data.discovery import list_files
from segtrain.data.image_form import RGB, ImageForm
from segtrain.data.images import IMAGE_SUFFIXES
from segtrain.data.label_files import MARKER
from segtrain.data.lists import is_list, read_rows
from segtrain.data.rasters import ARRAY_SUFFIXES
from segtrain.errors import UserError, list_first

VIDEO_SUFFIXES = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv"}
SUFFIXES = IMAGE_SUFFIXES | VIDEO_SUFFIXES
OUTPUT_FOLDERS = ("predictions", "overlays", "probabilities", "videos", "geotiffs")
KEY = "task.input"


@dataclass(frozen=True)
class Item:
    """An image or a video to predict.

    Attributes:
        name: Its path without suffix, relative to the searched folder; unique among images and among videos.
        stream: For OpenCV, of a video that is no file: its URL, or the number of a camera.
    """

    path: Path
    name: str
    is_video: bool
    stream: str | int | None = None


def find_inputs(given: str, own: Path, form: ImageForm = RGB) -> tuple[list[Item], list[str]]:
    """Find images and videos. Predictions, of this run or of others, are left out.

    Args:
        given: An image, a video, a folder (searched through its subfolders), a pattern with * and **, or a list file
            (.txt, .csv): one path per line, relative to the list; what follows a tab or a comma is ignored.
        own: The folder that this run's predictions go to.
        form: What images are read as: with dataset.channels, NumPy files are images, too; where each band has a file
            of its own, that of the first stands for its image.

    Returns:
        The files, sorted by path, and remarks about what was left out.

    Raises:
        UserError: If nothing is found, a listed file is missing, or two inputs would have one output.
    """
    path = Path(given)
    if is_stream(given):
        shown = hide_password(given)
        name = f"camera{given}" if given.isdigit() else re.sub(r"[^\w.-]+", "_", shown)[-100:]
        return [Item(Path(shown), name, True, int(given) if given.isdigit() else given)], []
    own = own.resolve()
    others: Counter[str] = Counter()  # files that are neither images nor videos, by suffix

    known = SUFFIXES if form.channels is None else SUFFIXES | ARRAY_SUFFIXES

    def select(found: Iterable[Path]) -> list[Path]:
        suffixes = {file: file.suffix.lower() for file in found}
        others.update(suffix or file.name for file, suffix in suffixes.items() if suffix not in known)
        return [file for file, suffix in suffixes.items() if suffix in known]

    @cache
    def holds_predictions(folder: Path) -> bool:
        return folder == own or (folder / MARKER).is_file()

    if path.is_dir():
        folder, files = path, select(list_files(path, KEY))
    elif path.is_file():
        folder, files = (path.parent, [path]) if not is_list(given) else _read_list(path)
    elif glob.has_magic(given):
        matching = glob.glob(str(path), recursive=True)  # noqa: PTH207  # Path.glob takes no absolute pattern
        files = [Path(name) for name in matching if Path(name).is_file()]
        folder, files = _common_folder(files), select(sorted(files))
    else:
        raise UserError(f"{KEY}={given} does not exist: give an image, a video, a folder, a pattern as "
                        "'photos/**/*.jpg', or a list of paths in a .txt file.")
    kept = [file for file in files if not any(
        parent.name in OUTPUT_FOLDERS and holds_predictions(parent.parent) for parent in file.resolve().parents)]
    if form.band_files:
        kept = [file for file in kept if form.is_first_band(file)]
    if not kept:
        raise UserError(f"{KEY}={given} holds no image and no video ({', '.join(sorted(IMAGE_SUFFIXES))}; "
                        f"{', '.join(sorted(VIDEO_SUFFIXES))}): check the path.")
    remarks = []
    if others:
        kinds = list_first([f"{suffix} ({count})" for suffix, count in others.most_common()])
        remarks.append(f"left out, because they are neither images nor videos: {kinds}.")
    if len(kept) < len(files) and not form.band_files:
        remarks.append(f"{len(files) - len(kept)} files below {given} are predictions themselves and are not read.")
    items = [Item(file, file.relative_to(folder).with_suffix("").as_posix(), file.suffix.lower() in VIDEO_SUFFIXES)
             for file in kept]
    _check_names(items)
    return items, remarks


def is_stream(given: str) -> bool:
    """Return whether an input is the URL of a stream or the number of a camera, and no file of that name."""
    return bool(re.fullmatch(r"[0-9]{1,3}|[a-z]+://.+", given)) and not Path(given).exists()


def hide_password(given: str) -> str:
    """Return a text without the users and passwords in its URLs."""
    return re.sub(r"(?<=://)[^/@\s]*@", "", given)


def select_shard(items: Sequence[Item], which: str) -> list[Item]:
    """Return part i of n of the items, "i/n"; the parts are disjoint and complete.

    Raises:
        UserError: If it is not of that form, i from 1 to n.
    """
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", which)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"task.shard={which} must be i/n with i from 1 to n: 1/4, 2/4, 3/4 and 4/4 share the work out.")
    return list(items[int(match[1]) - 1::int(match[2])])


def _read_list(path: Path) -> tuple[Path, list[Path]]:
    """Read a list of paths; UserError if any is missing."""
    files: dict[Path, None] = {}
    missing = []
    for where, fields in read_rows(path, KEY, path.parent):
        first = re.split(r"[\t,;]", fields[0])[0].strip()  # a mask may follow on some lines only
        given = [path.parent / name for name in (fields[0], fields[0].replace("\\", "/"), first)]
        file = next((file for file in given if file.is_file()), given[-1])
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
