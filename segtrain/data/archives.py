"""Unpack an archive into a folder that appears whole or not at all."""

import gzip
import shutil
import stat
import tarfile
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from io import FileIO
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from segtrain.data.download import check_room, put, writing
from segtrain.errors import UserError

MARKER = ".unpacked"
MAX_BYTES = 20 * 2**30
MAX_FILES = 500_000


class ArchiveError(UserError):
    """What is wrong is the archive itself: it is damaged, hostile or another one."""


def extract(archive: Path, folder: Path, *, inner: str = "", expected: Mapping[str, int] | None = None,
            max_bytes: int = MAX_BYTES) -> None:
    """Unpack a zip or tar archive (plain or gzip), unless an earlier call did.

    Files and folders only: an archive with links or devices below `inner`, or with names that lead out of the folder,
    is refused as a whole. What is unpacked lies in a hidden folder beside, until all of it is there.

    Args:
        archive: The file.
        folder: Where to; missing, empty, or unpacked by an earlier call.
        inner: The folder of the archive to unpack, without its own name; everything else is left out.
        expected: For patterns of file names below folder, how many files must match each; hidden ones do not count.
        max_bytes: The most that it may unpack to.

    Raises:
        ArchiveError: If the archive is not as it should be.
        UserError: If the folder holds something else, or cannot be written.
    """
    if (folder / MARKER).exists():
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not empty, so {archive} is not unpacked into it: choose another folder.")
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    with writing(folder):
        temporary.mkdir(parents=True)
    try:
        _unpack(archive, temporary, PurePosixPath(inner).parts, max_bytes)
        for pattern, number in (expected or {}).items():
            found = sum(path.is_file() for path in temporary.glob(pattern) if not path.name.startswith("."))
            if found != number:
                raise ArchiveError(f"{archive} holds {found} files {inner}/{pattern} instead of {number}, so it is not "
                                   "the archive that it should be.")
        with writing(folder):
            (temporary / MARKER).write_text(f"{archive.name}\n", encoding="utf-8")
            if folder.exists():
                folder.rmdir()  # it is empty; not every system renames onto a folder
            temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class _Member(NamedTuple):
    name: str
    size: int
    is_folder: bool
    open: Callable[[], IO[bytes] | None] | None  # None: neither a file nor a folder, or a folder


def _unpack(archive: Path, target: Path, inner: tuple[str, ...], max_bytes: int) -> None:
    num_bytes = num_files = 0
    with _reading(archive):
        for member in _members(archive):
            parts = PurePosixPath(member.name).parts
            if member.name.startswith("/") or ".." in parts or set("\\:\0") & set(member.name):
                raise ArchiveError(f"{archive} holds the name {member.name!r}, which could lead out of its folder.")
            if parts[:len(inner)] != inner or len(parts) == len(inner):
                continue
            if member.open is None and not member.is_folder:
                raise ArchiveError(f"{archive} holds {member.name!r}, which is neither a file nor a folder.")
            num_bytes, num_files = num_bytes + member.size, num_files + 1
            if member.size < 0 or num_bytes > max_bytes or num_files > MAX_FILES:
                raise ArchiveError(f"{archive} unpacks to more than {max_bytes} bytes or {MAX_FILES} files.")
            check_room(target.parent, member.size)
            _write(member, target.joinpath(*parts[len(inner):]), archive)
    if not num_files:
        raise ArchiveError(f"{archive} holds nothing{f' below {PurePosixPath(*inner)}' if inner else ''}.")


def _write(member: _Member, path: Path, archive: Path) -> None:
    with writing(path):
        (path if member.is_folder else path.parent).mkdir(parents=True, exist_ok=True)
    source = member.open() if member.open else None
    if source is None:
        return
    if path.exists():
        raise ArchiveError(f"{archive} holds {member.name!r} twice.")
    with writing(path):
        file = FileIO(path, "x")
    with source, file:
        while chunk := source.read(2**20):
            put(file, chunk, path)


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
    """Turn whatever a damaged archive brings forth into an ArchiveError."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:  # BadZipFile, TarError, EOFError, zlib.error, UnicodeError, RuntimeError if encrypted...
        if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
            raise UserError(f"{archive} cannot be unpacked ({error}): check the file and its disk.") from error
        raise ArchiveError(f"{archive} cannot be unpacked ({' '.join(str(error).split())}): it is damaged, or no zip "
                           "or tar archive; some servers send a web page instead.") from error


def _members(archive: Path) -> Iterator[_Member]:
    with archive.open("rb") as file:
        first = file.read(2)
    return _zip_members(archive) if first == b"PK" else _tar_members(archive, is_gzip=first == b"\x1f\x8b")


def _zip_members(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive comes from no Unix
            is_file = not info.is_dir() and kind in (0, stat.S_IFREG)
            yield _Member(info.orig_filename, info.file_size, info.is_dir() and kind in (0, stat.S_IFDIR),
                          partial(opened.open, info) if is_file else None)


def _tar_members(archive: Path, is_gzip: bool) -> Iterator[_Member]:
    with gzip.open(archive) if is_gzip else archive.open("rb") as stream:
        with tarfile.open(fileobj=stream, mode="r|") as opened:
            for info in opened:
                yield _Member(info.name, info.size, info.isdir(),
                              partial(opened.extractfile, info) if info.isreg() else None)
        while stream.read(2**20):  # only at its very end does gzip compare its checksum
            pass
