"""Tell what a file is that cannot be used as an image, by its first bytes, so that a message can give the remedy."""

import re
from contextlib import suppress
from pathlib import Path

from PIL import Image

from segtrain.files import open_regular

COLORS = {2: 3, 5: 4, 6: 3, 8: 3}  # channels of a TIFF's photometric interpretation; 1 of all others
SAMPLES, PHOTOMETRIC, EXTRA_SAMPLES = 277, 262, 338
ALPHA = (1, 2)  # kinds of extra samples that are transparency; 0 is not specified
# What begins a file, what it then is, and what to do.
BEGINNINGS = (
    (rb"version https://git-lfs", "it is a pointer of Git LFS, not the file itself", "run git lfs pull"),
    (rb"\s*<(!doctype html|html|\?xml|svg)", "it is a web page or XML text",
     "download the file itself; a link may need a login"),
    (rb"....ftyp(hei|hev|mif1|msf1|avif)", "it is a HEIC or AVIF photo", "convert it to JPEG or PNG"),
    (rb"\x89PNG\n|\x89PNG\r\n\n|\x89PNG\r\r\n", "it is a PNG whose line endings were converted, as of text",
     "copy it again as a binary file; in Git, mark *.png as binary in .gitattributes"),
    (rb"PK\x03\x04", "it is a ZIP archive", "unpack it"),
    (rb"\x1f\x8b", "it is a gzip archive", "unpack it"),
    (rb"\x93NUMPY", "it is a NumPy array", "set dataset.channels to its number of channels, or save it as PNG"),
    (rb"%PDF", "it is a PDF", "save its picture as PNG"),
    (rb"\x89HDF|CDF", "it is a file of scientific data (HDF5 or NetCDF)", "export the image as PNG"),
)


def explain_file(path: Path) -> tuple[str, str] | None:
    """Return what a path is that cannot be read as an image, and the remedy; None if that is not known."""
    with suppress(OSError, ValueError):  # a name too long, or with a zero byte
        if path.is_symlink() and not path.exists():
            return f"it is a link to {path.readlink()}, which is not there", "restore the file, or remove the link"
        if path.is_dir():
            return "it is a folder", "remove it, or rename it"
        if not path.is_file():
            return None
        with open_regular(path) as file:
            start = file.read(64)
        if not start:
            return "the file is empty", "replace it, or remove the sample"
        for pattern, kind, remedy in BEGINNINGS:
            if re.match(pattern, start, re.IGNORECASE | re.DOTALL):
                return kind, remedy
    return None


def explain_bands(path: Path) -> tuple[str, str] | None:
    """Return how many bands a TIFF has that Pillow does not open for that reason, and the remedy; None of others."""
    bands = _count_bands(path)
    return None if bands is None or bands <= 4 else (
        f"it is a TIFF of {bands} bands, and without dataset.channels segtrain reads three",
        f"set dataset.channels={bands}, or take three, dataset.channels=3 with dataset.bands=[1, 2, 3]")


def count_extra_bands(image: Image.Image) -> int:
    """Return how many bands a TIFF has beyond its colours and one of transparency; 0 for other files."""
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return 0
    extra = int(tags.get(SAMPLES, 1)) - COLORS.get(tags.get(PHOTOMETRIC), 1)
    kinds = tags.get(EXTRA_SAMPLES, ())
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    return extra - any(kind in ALPHA for kind in kinds)


def _count_bands(path: Path) -> int | None:
    """Return the bands of a TIFF that Pillow does not open."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    with suppress(Exception), open_regular(path) as file:  # a damaged one has no number
        header = file.read(8)
        if header[:4] in (b"II*\0", b"MM\0*"):
            directory = ImageFileDirectory_v2(header)
            file.seek(directory.next)
            directory.load(file)
            return int(directory[SAMPLES])
    return None
