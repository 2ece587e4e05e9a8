"""Fetch a file over HTTP: resumed where a connection was cut, checked, and named only when it is whole."""

import hashlib
import logging
import os
import shutil
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPException, HTTPResponse, InvalidURL
from io import FileIO
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urljoin, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

import filelock
from tqdm import tqdm

from segtrain.errors import UserError

SCHEMES = ("http", "https")
TIMEOUT = 30.0  # seconds without a byte
WAITS = (1.0, 2.0, 4.0, 8.0)  # seconds before each further try that brings nothing new
CHUNK = 2**16
PASSING = (408, 425, 429, 500, 502, 503, 504)  # HTTP errors that may be gone at the next try

log = logging.getLogger("segtrain")


def fetch(url: str, path: Path, *, sha256: str | None = None, md5: str | None = None, size: int | None = None) -> str:
    """Fetch a file, unless it is there already.

    It grows as path.part. A later call goes on with what an earlier one left, if the server can send the rest and the
    file is the same: by its ETag or date, or where a checksum will tell. Two processes do not fetch the same file: one
    waits for the other.

    Args:
        url: http or https; a redirect may not leave them, nor lead from https to http.
        path: Where to put the file. One that is there is checked and otherwise left alone.
        sha256: What the file must have, in hexadecimal digits.
        md5: Likewise.
        size: Its bytes, likewise.

    Returns:
        The SHA-256 of the file, in hexadecimal digits.

    Raises:
        UserError: If it cannot be had, is not what it should be, or cannot be written. What has arrived is kept for
            the next call, unless it is wrong.
        ValueError: If url is neither http nor https.
    """
    if urlsplit(url).scheme not in SCHEMES:
        raise ValueError(f"{url} is no http or https address")
    wanted = {name: value.lower() for name, value in (("sha256", sha256), ("md5", md5)) if value}
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path):
        if path.exists():
            found = digests(path, {"sha256", *wanted})
            fault = _fault(path, found, size, wanted)
            if fault:
                raise UserError(f"{path} {fault}, so it is not the file of {url}: remove it.")
            return found["sha256"]
        _receive(url, path, size=size, has_checksum=bool(wanted))
        part = _part(path)
        found = digests(part, {"sha256", *wanted})
        fault = _fault(part, found, size, wanted)
        if fault:
            _discard(path)
            raise UserError(f"What {url} sent {fault}. It was deleted. Try again; if that does not help, the file has "
                            f"changed at its source: put the right one at {path}.")
        with writing(path):
            part.replace(path)
            _note(path).unlink(missing_ok=True)
        return found["sha256"]


def digests(path: Path, algorithms: Iterable[str]) -> dict[str, str]:
    """Return the digests of a file, in hexadecimal digits, by algorithm."""
    hashes = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            for each in hashes.values():
                each.update(chunk)
    return {name: each.hexdigest() for name, each in hashes.items()}


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold path.lock, after waiting for whoever holds it. The system frees it when its process ends, however it ends.

    Raises:
        UserError: If the lock's file cannot be written.
    """
    name = path.with_name(f"{path.name}.lock")
    lock = filelock.FileLock(name)
    with writing(name):
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            log.info("%s is being fetched by another process: waiting for it", path)
            lock.acquire()
    try:
        yield
    finally:
        # Who waits on the removed file gets its lock beside a later comer's; both look first whether the work is done.
        with suppress(OSError):
            name.unlink(missing_ok=True)
        lock.release()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system says against writing a file into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror or error}): make room or choose another folder.") \
            from error


def put(file: FileIO, data: bytes, path: Path) -> None:
    """Write data to a file opened without a buffer, for what is left in one fails again, elsewhere, at its end.

    Raises:
        UserError: If the disk is full, or the file cannot be written otherwise; `path` is for the message.
    """
    rest = memoryview(data)
    with writing(path):
        while rest:
            rest = rest[file.write(rest):]


def check_room(path: Path, num_bytes: int) -> None:
    """Refuse with UserError to write more bytes below an existing folder than its disk has room for."""
    free = shutil.disk_usage(path).free
    if free < num_bytes:
        raise UserError(f"{path} has room for {free / 2**20:.1f} MiB, but {num_bytes / 2**20:.1f} MiB are needed: "
                        "make room or choose another folder.")


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _note(path: Path) -> Path:
    """Name the file that says what the part is a part of: the address, and the server's mark of the version."""
    return path.with_name(f"{path.name}.part.txt")


def _discard(path: Path) -> None:
    with writing(path):
        _part(path).unlink(missing_ok=True)
        _note(path).unlink(missing_ok=True)


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _fault(path: Path, found: Mapping[str, str], size: int | None, wanted: Mapping[str, str]) -> str:
    """Say what is wrong with a file, nothing if nothing is."""
    if size is not None and _length(path) != size:
        return f"has {_length(path)} bytes instead of {size}"
    for name, value in wanted.items():
        if found[name] != value:
            return f"has the {name} {found[name]} instead of {value}"
    return ""


def _receive(url: str, path: Path, *, size: int | None, has_checksum: bool) -> None:
    """Bring path.part to its end, in as many tries as it takes, while they bring something new."""
    furthest, waits = _length(_part(path)), iter(WAITS)
    log.info("fetching %s", url)
    while True:
        try:
            return _request(url, path, size=size, has_checksum=has_checksum)
        except (OSError, HTTPException) as error:
            if _length(_part(path)) > furthest:
                furthest, waits = _length(_part(path)), iter(WAITS)
            wait = next(waits, None) if _may_pass(error) else None
            if wait is None:
                reason = error.reason if type(error) is URLError else error
                raise UserError(f"{url} cannot be fetched ({' '.join(str(reason).split()) or type(error).__name__}): "
                                f"check the network and try again, or fetch it elsewhere and put it at {path}.") \
                    from error
        time.sleep(wait)


def _may_pass(error: Exception) -> bool:
    if isinstance(error, HTTPError):
        return error.code in PASSING
    certificate = isinstance(error, URLError) and isinstance(error.reason, ssl.SSLCertVerificationError)
    return not certificate and not isinstance(error, InvalidURL)


def _request(url: str, path: Path, *, size: int | None, has_checksum: bool) -> None:
    """Ask for what path.part lacks, and add it.

    Raises:
        OSError, HTTPException: If the network fails; also if less comes than was announced.
        UserError: If it cannot be written, or the server has another file.
    """
    start, version = _resumable(url, path, size=size, has_checksum=has_checksum)
    if size is not None and start == size:
        return
    headers = {"User-Agent": "segtrain", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if version:
            headers["If-Range"] = version  # if the file has changed, the server sends all of it
    try:
        response = build_opener(_Redirects).open(Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        if error.code != 416 or not start:
            raise
        if error.headers.get("Content-Range", "") == f"bytes */{start}":
            return  # it was whole already
        _discard(path)
        raise ConnectionError("the server has no such part") from error
    with response:
        if response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            mode = "a"
        elif response.status == 200:
            start, mode = 0, "w"
        else:
            _discard(path)
            raise ConnectionError(f"the server answered {response.status} with another part than was asked for")
        announced = response.length
        if announced is not None:
            if size is not None and start + announced != size:
                raise UserError(f"{url} has {start + announced} bytes instead of {size}: the file has changed at its "
                                f"source; put the right one at {path}.")
            check_room(path.parent, announced)
        with writing(path):
            if start == 0:
                _note(path).write_text(f"{url}\n{_version(response)}", encoding="utf-8")
        _append(response, path, mode, start, announced)


def _append(response: HTTPResponse, path: Path, mode: str, start: int, announced: int | None) -> None:
    with writing(path):
        file = FileIO(_part(path), mode)
    total, received = None if announced is None else start + announced, 0
    with file, tqdm(total=total, initial=start, desc=path.name, unit="B", unit_scale=True, leave=False,
                    disable=None) as bar:
        while chunk := response.read(CHUNK):
            put(file, chunk, path)
            received += len(chunk)
            bar.update(len(chunk))
        if announced is not None and received < announced:
            raise ConnectionError(f"the connection was cut after {start + received} of {total} bytes")
        with writing(path):
            os.fsync(file.fileno())


def _resumable(url: str, path: Path, *, size: int | None, has_checksum: bool) -> tuple[int, str]:
    """Return the bytes to go on from, and the version that they are of ("" is unknown); discard what is of no use."""
    start, note = _length(_part(path)), _note(path)
    address, _, version = note.read_text(encoding="utf-8").partition("\n") if note.exists() else ("", "", "")
    if start and address == url and (version or has_checksum) and (size is None or start <= size):
        return start, version
    _discard(path)
    return 0, ""


def _version(response: HTTPResponse) -> str:
    """Return a mark that the server gives this version of the file; a weak ETag does not promise the same bytes."""
    tag = response.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")


class _Redirects(HTTPRedirectHandler):
    """Follow redirects within http and https, and never from https to http."""

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        target = urljoin(req.full_url, headers.get("Location", headers.get("URI", "")))
        allowed = ("https",) if req.type == "https" else SCHEMES
        if urlsplit(target).scheme not in allowed:
            raise UserError(f"{req.full_url} leads on to {target}, which is not {' or '.join(allowed)}: fetch it by "
                            "hand, if you trust it.")
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302
