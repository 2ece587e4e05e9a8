"""Download public datasets: fetch an archive, check it, and unpack it into a folder, whole or not at all."""

import gzip
import logging
import shutil
import stat
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, NamedTuple
from urllib.parse import urljoin, urlsplit

from tqdm import tqdm

from segtrain.errors import UserError
from segtrain.files import locked, refuse_unwritable

if TYPE_CHECKING:
    import requests

TIMEOUT = 30.0  # seconds without a byte
WAITS = (1.0, 4.0)  # seconds before each further try
PASSING = (408, 425, 429, 500, 502, 503, 504)  # HTTP errors that may be gone at the next try
REMEDY = "make room or choose another folder"
MAX_BYTES, MAX_FILES = 20 * 2**30, 500_000  # that an archive may unpack to

log = logging.getLogger("segtrain")


@dataclass(frozen=True)
class Source:
    """One public archive."""

    name: str  # of the dataset, for messages
    url: str
    archive: str  # the name of its file
    inner: str  # the folder of the archive that becomes the dataset's folder
    expected: Mapping[str, int]  # for patterns of file names below that folder, how many files must match
    page: str  # the dataset's own, with its terms of use
    md5: str | None = None  # None where the publisher gives none for the whole file


def fetch(root: str | Path, source: Source) -> None:
    """Fetch and unpack a dataset into its folder, unless that holds something already.

    All work is done in a hidden folder beside, which is removed at the end, or by the next call after a crash. An
    archive put beside the folder by hand is used and kept. Of several processes one works, and the others wait.

    Raises:
        UserError: If it cannot be fetched, unpacked or written, or is not what it must be; the message says what to
            fetch and where to put it.
    """
    folder = Path(root).expanduser().resolve()
    if _is_filled(folder):
        return
    with refuse_unwritable(folder, REMEDY):
        folder.parent.mkdir(parents=True, exist_ok=True)
    working = folder.with_name(f".{folder.name}.download")
    with locked(folder, REMEDY):
        try:
            if not _is_filled(folder):  # or another process was faster
                shutil.rmtree(working, ignore_errors=True)
                _make(folder, source, working)
        finally:
            shutil.rmtree(working, ignore_errors=True)


def _is_filled(folder: Path) -> bool:
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))


def _make(folder: Path, source: Source, working: Path) -> None:
    import pooch  # here, as few commands need it

    given = folder.with_name(source.archive)
    if given.exists() and not given.is_file():
        raise UserError(f"{given} is not a regular file: remove it, or put the archive {source.url} in its place.")
    unpacked = working / "unpacked"
    with refuse_unwritable(working, REMEDY):
        unpacked.mkdir(parents=True)
    if not given.exists():
        log.info("%s is missing: downloading %s; its terms of use: %s", folder, source.name, source.page)
    try:
        archive = given if given.exists() else _receive(source, working, given)
        if source.md5 is not None and (found := pooch.file_hash(str(archive), alg="md5")) != source.md5:
            raise _ArchiveError(f"has the md5 {found} instead of {source.md5}")
        sha256 = pooch.file_hash(str(archive))
        _unpack(archive, unpacked, source.inner)
        for pattern, number in source.expected.items():
            number_found = sum(path.is_file() for path in unpacked.glob(pattern) if not path.name.startswith("."))
            if number_found != number:
                raise _ArchiveError(f"holds {number_found} files {source.inner}/{pattern} instead of {number}")
    except _ArchiveError as error:
        where, remedy = (given, "Remove it") if given.exists() else (source.url, "It was deleted: try again")
        raise UserError(f"{where} {error}. {remedy}, or fetch {source.url} elsewhere and put it at {given}.") from error
    with refuse_unwritable(folder, REMEDY):
        if folder.exists():
            folder.rmdir()  # it is empty; not every system renames onto a folder
        unpacked.replace(folder)
    log.info("%s is unpacked in %s (SHA-256 of its archive: %s)", source.name, folder, sha256)


def _receive(source: Source, working: Path, given: Path) -> Path:
    """Download the archive into a folder; `given` is where the user may put it instead."""
    import pooch
    import requests

    pooch.get_logger().setLevel("WARNING")
    for wait in (*WAITS, None):
        # pooch sets the total; a bar whose total is not above 0 is false, and pooch would not use it
        bar = tqdm(desc=source.archive, total=1, unit="B", unit_scale=True, leave=False, disable=None)
        downloader = pooch.HTTPDownloader(
            bar, chunk_size=2**16, timeout=TIMEOUT, headers={"User-Agent": "segtrain", "Accept-Encoding": "identity"},
            hooks={"response": partial(_check_response, working=working)})
        try:
            return Path(pooch.retrieve(source.url, None, source.archive, working, downloader=downloader))
        except requests.RequestException as error:
            status = None if error.response is None else error.response.status_code
            if wait is None or (status is not None and status not in PASSING):
                cause: BaseException = error
                while cause.__context__ is not None and status is None:
                    cause = cause.__context__  # what the network said; each layer above wraps it in its own words
                reason = " ".join(str(cause).split()) or type(cause).__name__
                raise UserError(f"{source.url} cannot be downloaded ({reason}): check the network and try again, or "
                                f"fetch it elsewhere and put it at {given}.") from error
            time.sleep(wait)
        except OSError as error:
            raise UserError(f"{given} cannot be written ({error}): {REMEDY}.") from error
        finally:
            bar.close()
    raise AssertionError("the last try returns or raises")


def _check_response(response: "requests.Response", *_: object, working: Path, **__: object) -> None:
    """Refuse redirects to other schemes or from https to http, and more bytes than there is room for."""
    if response.is_redirect:
        target = urljoin(response.url, response.headers["Location"])
        allowed = ("https",) if urlsplit(response.url).scheme == "https" else ("http", "https")
        if urlsplit(target).scheme not in allowed:
            raise UserError(f"{response.url} leads on to {target}, which is not {' or '.join(allowed)}: fetch it by "
                            "hand, if you trust it.")
    length, free = int(response.headers.get("Content-Length", 0)), shutil.disk_usage(working).free
    if length > free:
        raise UserError(f"{working.parent} has room for {free / 2**20:.1f} MiB, but {length / 2**20:.1f} MiB are "
                        f"needed: {REMEDY}.")


class _ArchiveError(Exception):
    """What is wrong with an archive, to be followed by the remedy: it is damaged, hostile or another one."""


class _Member(NamedTuple):
    name: str
    size: int
    is_folder: bool
    is_file: bool
    open: Callable[[], IO[bytes] | None]


def _unpack(archive: Path, target: Path, inner: str) -> None:
    """Unpack the folder `inner` of a zip or tar archive (plain or gzip) into an empty one: files and folders only.

    Raises:
        _ArchiveError: If it is damaged, holds links or devices below `inner`, names that lead out of the folder or
            occur twice, nothing, or too much.
        UserError: If the folder cannot be written.
    """
    within = PurePosixPath(inner).parts
    num_bytes, names = 0, set()
    with archive.open("rb") as file:
        is_zip = file.read(2) == b"PK"
    try:
        for member in _list_zip(archive) if is_zip else _list_tar(archive):
            parts = PurePosixPath(member.name).parts
            if member.name.startswith("/") or ".." in parts or set("\\:\0") & set(member.name):
                raise _ArchiveError(f"holds the name {member.name!r}, which could lead out of its folder")
            if parts[:len(within)] != within or len(parts) == len(within):
                continue
            name = "/".join(parts[len(within):])
            if not (member.is_folder or member.is_file):
                raise _ArchiveError(f"holds {member.name!r}, which is neither a file nor a folder")
            if name in names and member.is_file:
                raise _ArchiveError(f"holds {member.name!r} twice")
            names.add(name)
            num_bytes += member.size
            if member.size < 0 or num_bytes > MAX_BYTES or len(names) > MAX_FILES:
                raise _ArchiveError(f"unpacks to more than {MAX_BYTES} bytes or {MAX_FILES} files")
            _extract(member, target / name)
    except (_ArchiveError, MemoryError):
        raise
    except Exception as error:  # BadZipFile, TarError, EOFError, zlib.error, UnicodeError, RuntimeError if encrypted...
        if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
            raise UserError(f"{archive} cannot be unpacked in {target.parent} ({error}): {REMEDY}.") from error
        raise _ArchiveError(f"cannot be unpacked ({' '.join(str(error).split())}): it is damaged, or not a zip or tar "
                            "archive; some servers send a web page instead") from error
    if not names:
        raise _ArchiveError(f"holds nothing{f' below {inner}' if inner else ''}")


def _extract(member: _Member, path: Path) -> None:
    """Write a member under another name, with the rights and the time of any new file."""
    folder = path if member.is_folder else path.parent
    folder.mkdir(parents=True, exist_ok=True)
    content = None if member.is_folder else member.open()
    if content is not None:
        with content, path.open("xb") as file:
            shutil.copyfileobj(content, file)


def _list_zip(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive does not come from Unix
            yield _Member(info.orig_filename, info.file_size, info.is_dir() and kind in (0, stat.S_IFDIR),
                          not info.is_dir() and kind in (0, stat.S_IFREG), partial(opened.open, info))


def _list_tar(archive: Path) -> Iterator[_Member]:
    with archive.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    with gzip.open(archive) if is_gzip else archive.open("rb") as stream:
        with tarfile.open(fileobj=stream, mode="r|") as opened:
            for info in opened:
                yield _Member(info.name, info.size, info.isdir(), info.isreg(), partial(opened.extractfile, info))
        while stream.read(2**20):  # only at its very end does gzip compare its checksum
            pass
