"""Files that are no images are called what they are, with a remedy that fits."""

import numpy as np
import pytest
from helpers import refused
from PIL import Image, TiffImagePlugin

from segtrain.data.images import read_image


@pytest.mark.parametrize(("content", "said"), [
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "git lfs pull"),
    (b"\n<!DOCTYPE html><html><head><title>Sign in</title>", "it is a web page or XML text): download the file itself"),
    (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "it is a HEIC or AVIF photo): convert it to JPEG or PNG"),
    (b"\x89PNG\n\x1a\n\0\0\0\rIHDR", "line endings were converted, as of text): copy it again as a binary file"),
    (b"PK\x03\x04\x14\0\0\0", "it is a ZIP archive): unpack it"), (b"\x93NUMPY\x01\0v\0", "it is a NumPy array"),
    (b"", "the file is empty): replace it, or remove the sample"), (b"\0" * 100, "replace it, or remove the sample")])
def test_a_file_that_is_something_else_is_called_so(tmp_path, content, said):
    (tmp_path / "x.jpg").write_bytes(content)
    with refused(tmp_path / "x.jpg", "cannot be read as an image", said):
        read_image(tmp_path / "x.jpg")


def write_bands(path, count, extra):
    """Write a TIFF of some bands, 8 bits each."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 9, count), dtype=np.uint8)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    values = {256: 9, 257: 8, 258: (8,) * count, 259: 1, 262: 2, 277: count, 278: 8, 279: pixels.nbytes, 284: 1}
    for tag, value in values.items():
        tags[tag] = value
    tags[338], tags[273] = extra, 8
    with path.open("wb") as file:
        file.write(tags.prefix + b"*\0" + (8 + pixels.nbytes).to_bytes(4, "little"))
        file.write(pixels.tobytes())
        file.write(tags.tobytes(8 + pixels.nbytes))


def test_bands_beyond_colours_are_refused_and_transparency_is_not(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 9, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "alpha.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "alpha.tif"), pixels[..., :3])
    write_bands(tmp_path / "infrared.tif", 4, (0,))
    with refused("infrared.tif", "has 1 more bands than its colours", "segtrain reads three"):
        read_image(tmp_path / "infrared.tif")
    write_bands(tmp_path / "twelve.tif", 12, (0,) * 9)
    with refused("twelve.tif", "it is a TIFF of 12 bands", "set dataset.channels=12"):
        read_image(tmp_path / "twelve.tif")


def test_a_profile_and_a_palette_leave_the_colours_as_they_are_stored(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png", icc_profile=b"not a profile")
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), pixels)
