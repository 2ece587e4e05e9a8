"""Random and broken files, fed to what reads them: a right result or a UserError of one line, never anything else."""

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from segtrain.data.class_files import read_class_file
from segtrain.data.images import read_image
from segtrain.data.lists import read_list
from segtrain.data.masks import make_mask_rule, read_instances, read_target
from segtrain.errors import UserError

FAST = settings(max_examples=100, derandomize=True, deadline=None, database=None,
                suppress_health_check=[HealthCheck.function_scoped_fixture])
SUFFIXES = st.sampled_from([".png", ".jpg", ".gif", ".bmp", ".tif", ".webp"])
MODES = st.sampled_from(["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "I", "I;16", "F",
                         "RGB;16", "RGBA;16"])


def attempt(read, *arguments):
    """Return what a function reads; None after a UserError, whose message must be one line."""
    try:
        return read(*arguments)
    except UserError as error:
        message = str(error)
    assert "\n" not in message
    assert len(message) < 2000
    return None


def read_all(path, tables):
    """Read a file as an image, an instance map, and a mask under all rules; return how many gave a result."""
    shapes, num_read = set(), 0
    for classes in tables:
        rules = [{}, {"nearest_colors": True}, {"palette": "colors", "nearest_colors": 9}]
        rules += [{"binary": True}, {"threshold": 128}] if len(classes.labels) == 2 else []
        for rule in rules:
            found = attempt(read_target, path, make_mask_rule(classes, None, **rule))
            if found is not None:
                assert found.dtype == np.uint8
                assert set(np.unique(found)) <= {255, *range(len(classes.labels))}
                shapes.add(found.shape)
                num_read += 1
    for read, dtype in ((read_image, np.uint8), (read_instances, np.int32)):
        found = attempt(read, path)
        if found is not None:
            assert found.dtype == dtype
            shapes.add(found.shape[:2])
            num_read += 1
    assert len(shapes) <= 2  # an image is turned upright, a mask is not
    return num_read


def encoded(mode, suffix, size, values, seed):
    """Write a random image as a file's bytes; None where the format does not hold the mode."""
    noise = np.random.default_rng(seed)
    width, height = size
    if mode.endswith(";16") and mode != "I;16":
        if suffix not in (".png", ".tif"):
            return None
        deep = noise.integers(0, values**2, (height, width, len(mode) - 3), np.uint16)
        return cv2.imencode(suffix, deep)[1].tobytes()
    blank = Image.new(mode, size)
    buffer = io.BytesIO()
    try:
        made = Image.frombytes(mode, size, noise.integers(0, values, len(blank.tobytes()), np.uint8).tobytes())
        made.save(buffer, format={".jpg": "JPEG", ".tif": "TIFF"}.get(suffix, suffix[1:].upper()))
    except (OSError, ValueError, KeyError):
        return None
    return buffer.getvalue()


@pytest.fixture
def tables(tmp_path):
    """Give the class files of two and three classes."""
    (tmp_path / "two.csv").write_text("name\na\nb\n")
    (tmp_path / "three.csv").write_text("name,r,g,b\na,0,0,0\nb,255,0,0\nc,0,255,9\n")
    return [read_class_file(tmp_path / name) for name in ("two.csv", "three.csv")]


@FAST
@given(data=st.binary(max_size=300), suffix=SUFFIXES)
def test_random_bytes_are_no_image(tmp_path, tables, data, suffix):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(data)
    assert read_all(path, tables) == 0


@FAST
@given(mode=MODES, suffix=SUFFIXES, size=st.tuples(st.integers(1, 40), st.integers(1, 40)), seed=st.integers(0, 99),
       values=st.integers(1, 256))
def test_random_images(tmp_path, tables, mode, suffix, size, seed, values):
    data = encoded(mode, suffix, size, values, seed)
    if data is not None:
        path = tmp_path / f"x{suffix}"
        path.write_bytes(data)
        num_read = read_all(path, tables)
        if mode in ("1", "L", "P", "RGB", "RGBA", "CMYK"):
            assert num_read > 0


@pytest.mark.filterwarnings("ignore")  # Pillow's remarks on broken metadata
@FAST
@given(mode=st.sampled_from(["L", "P", "RGB", "I;16", "RGB;16"]), suffix=SUFFIXES, seed=st.integers(0, 99),
       keep=st.just(1.0) | st.floats(0, 1), flips=st.lists(st.integers(0, 10**5), max_size=4))
def test_damaged_images(tmp_path, tables, mode, suffix, seed, keep, flips):
    data = bytearray(encoded(mode, suffix, (20, 30), 3, seed) or b"")
    for flip in flips if data else ():
        data[flip % len(data)] ^= 1 << flip % 8
    path = tmp_path / f"x{suffix}"
    path.write_bytes(bytes(data[:int(keep * len(data))]))
    read_all(path, tables)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(
    ["road", "#ff8000", "1,2,3", 7, [1, 2, 3], [1, 2, 999]])
WORDS = st.sampled_from(["name", "label_id", "id", "color", "isthing", "r", "g", "b", "names", "classes"]) | st.text(
    max_size=5)
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
                     max_leaves=12)
TEXTS = st.binary(max_size=80) | st.text(max_size=80).map(lambda text: text.encode("utf-8", "surrogatepass"))
CELLS = st.sampled_from(["name", "label_id", "color", "r", "g", "b", "road", "3", "#ff8000", "", '"'])
TABLES = st.lists(st.lists(CELLS, max_size=5), max_size=5).map(
    lambda table: "\n".join(",".join(row) for row in table).encode())


@pytest.mark.slow
@FAST
@given(data=TREES.map(lambda tree: json.dumps(tree).encode()) | TEXTS | TABLES,
       suffix=st.sampled_from([".csv", ".json", ".yaml", ".txt"]))
def test_random_class_files(tmp_path, data, suffix):
    path = tmp_path / f"classes{suffix}"
    path.write_bytes(data)
    found = attempt(read_class_file, path)
    if found is not None:
        assert [label.train_id for label in found.labels] == list(range(len(found.labels)))
        assert len({label.name for label in found.labels}) == len({label.label_id for label in found.labels})
        assert all(0 <= label.label_id < 255 and label.name.isprintable() for label in found.labels)


@FAST
@given(data=TEXTS | st.lists(st.sampled_from(["x.jpg", "..", "/", "\\", " ", ",", "\t", "\n", "#", "C:"]),
                             max_size=12).map(lambda parts: "".join(parts).encode()))
def test_random_lists_stay_below_root(tmp_path, data):
    path = tmp_path / "list.txt"
    path.write_bytes(data)
    message = ""
    try:
        images, masks = read_list(path, tmp_path, "dataset.images")
        files = [*images.values(), *masks.values()]
    except UserError as error:
        message, files = str(error), error.files  # those that are missing
    assert "\n" not in message
    assert len(message) < 2000
    for file in files:
        assert Path(file).resolve().is_relative_to(tmp_path.resolve())
