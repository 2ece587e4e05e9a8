"""Unpacking: whole or not at all, and nothing out of an archive that means harm."""

import gzip
import os
import stat
import tarfile
import zipfile

import pytest
from helpers import refused, small_files
from made_files import ARCHIVED, list_folder, make_tar, make_zip

from segtrain.data import download
from segtrain.data.download import Source, fetch


def extract(archive, folder, *, inner="", expected=None):
    """Unpack an archive that lies beside the folder, as one that a user put there."""
    fetch(folder, Source("Letters", "http://127.0.0.1:1/x", archive.name, inner, expected or {}, "http://a.example"))


def special(kind, target=""):
    info = tarfile.TarInfo()
    info.type, info.linkname = kind, target
    return info


KINDS = pytest.mark.parametrize("made", [
    make_zip, lambda path, files: make_tar(path, files), lambda path, files: make_tar(path, files, "w")],
    ids=["zip", "tgz", "tar"])


@KINDS
def test_the_inner_folder_is_unpacked_and_nothing_else(tmp_path, made):
    archive = made(tmp_path / "x", ARCHIVED)
    extract(archive, tmp_path / "out", inner="top/data", expected={"*.txt": 1, "**/*.txt": 2})  # without the hidden one
    assert list_folder(tmp_path / "out") == ["._a.txt", "a.txt", "deep"]
    assert (tmp_path / "out" / "deep" / "b.txt").read_bytes() == b"bb"
    assert list_folder(tmp_path) == [".out.lock", "out", "x"]
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o777 & ~_umask()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


@KINDS
def test_a_second_call_does_nothing(tmp_path, made):
    archive = made(tmp_path / "x", ARCHIVED)
    (tmp_path / "out").mkdir()  # an empty folder is filled
    extract(archive, tmp_path / "out")
    archive.unlink()
    (tmp_path / "out" / "other" / "c").write_text("mine")
    extract(archive, tmp_path / "out")
    assert (tmp_path / "out" / "other" / "c").read_text() == "mine"


@KINDS
@pytest.mark.parametrize("name", ["../evil", "top/../../evil", "/evil", "..\\evil", "C:/evil", "C:evil"])
def test_a_name_that_leads_out_is_refused(tmp_path, made, name):
    archive = made(tmp_path / "x", {"fine": b"x", name: b"evil"})
    with refused(archive, repr(name)):
        extract(archive, tmp_path / "out")
    assert list_folder(tmp_path) == [".out.lock", "x"]


@pytest.mark.parametrize("info", [
    special(tarfile.SYMTYPE, "/etc"), special(tarfile.SYMTYPE, "b"), special(tarfile.LNKTYPE, "top/data/a.txt"),
    special(tarfile.CHRTYPE), special(tarfile.BLKTYPE), special(tarfile.FIFOTYPE)],
    ids=["symlink", "inner symlink", "hard link", "character device", "block device", "fifo"])
def test_what_is_neither_file_nor_folder_is_refused(tmp_path, info):
    archive = make_tar(tmp_path / "x", {**ARCHIVED, "top/data/link": info})
    with refused(archive, "top/data/link", "neither a file nor a folder"):
        extract(archive, tmp_path / "out", inner="top")
    assert list_folder(tmp_path) == [".out.lock", "x"]
    extract(archive, tmp_path / "out", inner="other")  # what is left out does no harm
    assert list_folder(tmp_path / "out") == ["c"]


def test_a_symlink_in_a_zip_is_refused(tmp_path):
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "x", "w") as archive:
        archive.writestr(info, "/etc")
    with refused("link", "neither a file nor a folder"):
        extract(tmp_path / "x", tmp_path / "out")


@KINDS
def test_a_bomb_is_refused(tmp_path, monkeypatch, made):
    archive = made(tmp_path / "x", {f"{index}": b"\0" * 1000 for index in range(5)})
    monkeypatch.setattr(download, "MAX_BYTES", 4999)
    with refused(archive, "more than 4999 bytes"):
        extract(archive, tmp_path / "out")
    assert list_folder(tmp_path) == [".out.lock", "x"]
    monkeypatch.setattr(download, "MAX_BYTES", 5000)
    extract(archive, tmp_path / "out")


@KINDS
def test_too_many_files_are_refused(tmp_path, monkeypatch, made):
    archive = made(tmp_path / "x", {f"{index}": b"" for index in range(5)})
    monkeypatch.setattr(download, "MAX_FILES", 4)
    with refused(archive, "more than", "4 files"):
        extract(archive, tmp_path / "out")
    assert list_folder(tmp_path) == [".out.lock", "x"]


def test_a_size_that_a_zip_understates_is_found(tmp_path):
    archive = make_zip(tmp_path / "x", {"large": b"q" * 100_000})
    content = bytearray(archive.read_bytes())
    while (place := content.find((100_000).to_bytes(4, "little"))) >= 0:
        content[place:place + 4] = (10).to_bytes(4, "little")
    archive.write_bytes(content)
    with refused(archive, "damaged"):
        extract(archive, tmp_path / "out")


def test_a_name_that_stands_twice_is_refused(tmp_path):
    with tarfile.open(tmp_path / "x", "w") as archive:
        for _ in range(2):
            archive.addfile(tarfile.TarInfo("a"))
    with refused("'a' twice"):
        extract(tmp_path / "x", tmp_path / "out")


@KINDS
@pytest.mark.parametrize("kept", [0, 30, 2048, 2600])
def test_a_cut_archive_is_refused(tmp_path, made, kept):
    archive = made(tmp_path / "x", {"a": os.urandom(1500), "b": os.urandom(1500)})
    archive.write_bytes(archive.read_bytes()[:kept])
    with refused(archive):
        extract(archive, tmp_path / "out", expected={"*": 2})
    assert list_folder(tmp_path) == [".out.lock", "x"]


def test_a_changed_byte_is_found_by_the_archives_own_checksum(tmp_path):
    body = b"q" * 5000
    for name, made in (("zip", make_zip), ("tgz", lambda path, files: make_tar(path, files, "w"))):
        archive = made(tmp_path / name, {"a": body})
        content = archive.read_bytes()
        if name == "tgz":
            content = bytearray(gzip.compress(content, compresslevel=0))
        changed = bytearray(content)
        changed[content.index(b"qqqq") + 100] ^= 1
        archive.write_bytes(changed)
        with refused(archive, "damaged"):
            extract(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_web_page_is_no_archive(tmp_path):
    (tmp_path / "x").write_text("<html>" + "log in first " * 100)
    with refused(tmp_path / "x", "web page"):
        extract(tmp_path / "x", tmp_path / "out")


def test_missing_files_are_counted(tmp_path):
    archive = make_zip(tmp_path / "x", ARCHIVED)
    with refused(archive, "1 files top/data/*.txt instead of 3"):
        extract(archive, tmp_path / "out", inner="top/data", expected={"*.txt": 3})
    with refused(archive, "nothing below nowhere"):
        extract(archive, tmp_path / "out", inner="nowhere")
    assert list_folder(tmp_path) == [".out.lock", "x"]


def test_a_disk_that_gets_full_while_unpacking_leaves_nothing(tmp_path):
    archive = make_zip(tmp_path / "x", {"a": b"a", "b": b""})
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("large", bytes(500_000))
    with small_files(), refused("cannot be unpacked", "make room"):
        extract(archive, tmp_path / "out")
    assert list_folder(tmp_path) == [".out.lock", "x"]
