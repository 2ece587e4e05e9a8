"""Read the bands of TIFF files, whole or within a window, and of NumPy files; keep the georeference of a GeoTIFF."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from segtrain.data.checks import READ, check
from segtrain.data.file_kinds import explain_file
from segtrain.errors import UserError, install_extra
from segtrain.files import check_regular, open_regular, write_file

TIFF_SUFFIXES = {".tif", ".tiff"}
ARRAY_SUFFIXES = {".npy", ".npz"}
# What ties the pixels of a GeoTIFF to the ground: scale, tie points, transformation, and the keys of its projection.
GEO_TAGS = (33550, 33922, 34264, 34735, 34736, 34737)
ORIENTATION = 274
NODATA = 42113  # GDAL's tag, a number as text
JPEG = (6, 7, 34892, 33007)  # compressions whose tables stand apart from their segments
MOST_DECODED = 2**26  # pixels of a segment that is decoded for a window
TILE = 256  # pixels, of the files that are written
Window = tuple[slice, slice]  # rows and columns


def is_tiff(path: Path) -> bool:
    """Return whether a file's suffix is that of a TIFF."""
    return path.suffix.lower() in TIFF_SUFFIXES


def read_bands(path: Path, window: Window | None = None) -> np.ndarray:
    """Read the bands of a .tif, .npy or .npz file, (H, W, bands) in the file's own dtype, or a window of them.

    The bands of a TIFF are its samples, pixel by pixel or plane by plane, or its pages; overviews and mask pages are
    none. Of a tiled or uncompressed TIFF, no more is read than the window needs.

    Raises:
        UserError: If the file cannot be read; it names what is missing.
    """
    if path.suffix.lower() in ARRAY_SUFFIXES:
        values = _read_array(path)
        return values if window is None else values[window]
    with _opened(path) as pages:
        parts = [_read_page(page, path, window) for page in pages]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)


def read_band_shape(path: Path) -> tuple[int, int, int]:
    """Return height, width and number of bands of a TIFF, without reading its pixels."""
    with _opened(path) as pages:
        return pages[0].imagelength, pages[0].imagewidth, sum(page.samplesperpixel for page in pages)


def describe_tiff(path: Path) -> str:
    """Return what a TIFF is, as "TIFF, 5 bands, uint16"."""
    with _opened(path) as pages:
        num_bands = sum(page.samplesperpixel for page in pages)
        return f"TIFF, {num_bands} band{'s' * (num_bands > 1)}, {pages[0].dtype}"


def read_nodata(path: Path) -> float | None:
    """Return the value by which a GeoTIFF marks pixels without data; None if it names none."""
    with _opened(path) as pages:
        tag = pages[0].tags.get(NODATA)
        try:
            return None if tag is None else float(str(tag.value).strip(" \0"))
        except ValueError:
            return None


def read_tiff_palette(path: Path) -> np.ndarray | None:
    """Return the colours of a palette TIFF by their index, uint8 (256, 3); None of another."""
    with _opened(path) as pages:
        colors = pages[0].colormap
    return None if colors is None else np.ascontiguousarray((colors.T // 257).astype(np.uint8))


def read_georeference(path: Path) -> list[tuple[Any, ...]]:
    """Return the tags that tie a GeoTIFF to the ground, for `write_geotiff`; none of another file."""
    try:
        import tifffile
    except ImportError:
        return []
    try:
        check_regular(path)
        with tifffile.TiffFile(path) as tiff:
            first: Any = tiff.pages[0]
            tags = first.tags
            return [(code, tags[code].dtype, tags[code].count, tags[code].value, True)
                    for code in GEO_TAGS if code in tags]
    except (OSError, ValueError, KeyError, IndexError, tifffile.TiffFileError):
        return []


def write_geotiff(path: Path, values: np.ndarray, georeference: Sequence[tuple[Any, ...]], nodata: int,
                  palette: np.ndarray) -> None:
    """Write a label map, uint8 (H, W), as a tiled and compressed GeoTIFF.

    Args:
        path: The file.
        values: What it holds.
        georeference: As of `read_georeference`.
        nodata: The value of pixels without data.
        palette: The colour of each value, uint8 (256, 3).

    Raises:
        UserError: If it cannot be written.
    """
    import tifffile

    colors = np.ascontiguousarray(257 * palette.astype(np.uint16).T)
    tags = [*georeference, (NODATA, 2, 0, str(nodata), True)]
    write_file(path, lambda file: tifffile.imwrite(
        file, values, photometric="palette", colormap=colors, tile=(TILE, TILE), compression="zlib", extratags=tags,
        metadata=None))


@check(READ, "TIFF and NumPy files that cannot be read, whose pages differ, or whose channels cannot be told")
@contextmanager
def _opened(path: Path) -> Iterator[list[Any]]:
    """Yield the pages of a TIFF that hold its bands; whatever is wrong with the file becomes a UserError."""
    try:
        import tifffile
    except ImportError as error:
        raise UserError(f"{path}: TIFF files with dataset.channels or dataset.window need tifffile: "
                        f"{install_extra('tiff')}.") from error
    try:
        check_regular(path)
        with tifffile.TiffFile(path) as tiff:
            every: list[Any] = list(tiff.pages)
            pages = [page for page in every if not page.is_reduced and not page.is_mask]
            if not pages:
                raise ValueError("it holds no image")
            turn = pages[0].tags.get(ORIENTATION)
            if turn is not None and turn.value != 1:
                raise UserError(f"{path} is to be turned (orientation {int(turn.value)}), which is not done with "
                                "dataset.channels or dataset.window: save it upright.")
            if len({(page.imagelength, page.imagewidth, page.dtype) for page in pages}) != 1:
                raise UserError(f"{path} has {len(pages)} pages of different sizes or types: save the bands of an "
                                "image as one file, or each image as a file of its own.")
            yield pages
    except (UserError, MemoryError):
        raise
    except Exception as error:  # damaged files raise anything
        reason, remedy = explain_file(path) or (" ".join(str(error).split())[:300] or type(error).__name__,
                                                "replace it, or remove the sample")
        if "imagecodecs" in reason:
            remedy = install_extra("tiff")
        raise UserError(f"{path} cannot be read as a TIFF ({reason}): {remedy}.") from error


@check(READ, "files compressed as a whole, of which windows are to be read")
def _read_page(page: Any, path: Path, window: Window | None) -> np.ndarray:
    """Read a page, (H, W, samples), or a window of it."""
    if window is None:
        return _with_channels_last(page.asarray(), page)
    if page.is_memmappable:
        import tifffile

        return np.array(_with_channels_last(tifffile.memmap(path, page=page.index, mode="r"), page)[window])
    height, width = page.imagelength, page.imagewidth
    tile_height, tile_width = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, width)
    if min(tile_height, height) * min(tile_width, width) > MOST_DECODED:
        raise UserError(f"{path} is compressed as a whole, so that a window of it cannot be read by itself: save it "
                        "tiled, as with gdal_translate -co TILED=YES -co COMPRESS=DEFLATE.")
    (first_row, last_row, _), (first_column, last_column, _) = (
        part.indices(side) for part, side in zip(window, (height, width), strict=True))
    found = np.zeros((last_row - first_row, last_column - first_column, page.samplesperpixel), page.dtype)
    down, across = math.ceil(height / tile_height), math.ceil(width / tile_width)
    planes = page.samplesperpixel if page.planarconfig == 2 else 1
    tables = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader} if page.compression in JPEG else {}
    handle = page.parent.filehandle
    for plane in range(planes):
        for row in range(first_row // tile_height, min(down, math.ceil(last_row / tile_height))):
            for column in range(first_column // tile_width, min(across, math.ceil(last_column / tile_width))):
                index = (plane * down + row) * across + column
                handle.seek(page.dataoffsets[index])
                content = handle.read(page.databytecounts[index]) if page.databytecounts[index] else None
                segment, (_, _, top, left, _), _ = page.decode(content, index, **tables)
                if segment is None:  # a sparse file leaves out what is empty
                    continue
                above, before = max(first_row - top, 0), max(first_column - left, 0)
                part = segment[0, above:last_row - top, before:last_column - left]
                y, x = top + above - first_row, left + before - first_column
                target = slice(plane, plane + 1) if planes > 1 else slice(None)
                found[y:y + part.shape[0], x:x + part.shape[1], target] = part
    return found


def _with_channels_last(values: np.ndarray, page: Any) -> np.ndarray:
    """Return the values of a page as (H, W, samples)."""
    if values.ndim == 2:
        return values[..., None]
    return np.moveaxis(values, 0, 2) if page.planarconfig == 2 and page.samplesperpixel > 1 else values


@check(READ, "TIFF and NumPy files that cannot be read, whose pages differ, or whose channels cannot be told")
def _read_array(path: Path) -> np.ndarray:
    """Read a .npy or .npz file as (H, W, channels); of the outer axes the shorter one is that of the channels."""
    try:
        with open_regular(path) as file:
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                values = content
            else:
                name = "image" if "image" in content.files else next(iter(content.files), "")
                if name != "image" and len(content.files) != 1:
                    raise UserError(f"{path} holds {len(content.files)} arrays ({', '.join(content.files[:5])}): call "
                                    "the one to read image, or save it alone.")
                values = content[name]
    except (UserError, MemoryError):
        raise
    except Exception as error:
        raise UserError(f"{path} cannot be read as a NumPy file ({' '.join(str(error).split())[:300]}): save a plain "
                        "array with numpy.save.") from error
    if values.ndim == 2:
        return values[..., None]
    if values.ndim != 3 or values.shape[0] == values.shape[2]:
        raise UserError(f"{path} holds an array of shape {values.shape}: save (height, width, channels) or (channels, "
                        "height, width), with fewer channels than rows and columns.")
    return np.moveaxis(values, 0, 2) if values.shape[0] < values.shape[2] else values
