"""Images of any number of channels: files, bands, types, ranges, pixels without data, windows, georeference."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import refused
from made_files import Memory
from PIL import Image

from segtrain.data.base import FileDataset, Sample
from segtrain.data.channel_statistics import measure_channels
from segtrain.data.folder import Folder
from segtrain.data.image_form import ImageForm, cut_into_windows, read_pixels, to_pixels
from segtrain.data.images import read_image, turn_array, turn_upright
from segtrain.data.masks import read_instances
from segtrain.data.rasters import read_bands, read_georeference, read_nodata, write_geotiff
from segtrain.inference.large_images import LargeImage

tifffile = pytest.importorskip("tifffile")
WINDOW = (slice(30, 75), slice(41, 97))
# A georeference as GDAL writes it: 10 m pixels, the upper left corner, EPSG:32633.
GEO = [(33550, 12, 3, (10.0, 10.0, 0.0), True), (33922, 12, 6, (0.0, 0.0, 0.0, 500000.0, 5200000.0, 0.0), True),
       (34735, 3, 16, (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633), True)]
NODATA = [(42113, 2, 0, "0", True)]


def make_bands(channels=5, dtype=np.uint16, size=(90, 110), top=60000):
    return np.random.default_rng(channels).integers(1, top, (*size, channels)).astype(dtype)


def save_tiff(path, bands, **given):
    path.parent.mkdir(parents=True, exist_ok=True)
    planes = given.get("planarconfig", "contig") == "separate"
    given = given if bands.shape[2] == 1 else {"planarconfig": "contig", **given}
    tifffile.imwrite(path, np.moveaxis(bands, 2, 0) if planes else bands.squeeze(2) if bands.shape[2] == 1 else bands,
                     photometric="minisblack", metadata=None, **given)
    return path


@pytest.mark.parametrize("layout", [
    {}, {"planarconfig": "separate"}, {"tile": (32, 16), "compression": "zlib", "predictor": True},
    {"tile": (16, 32), "compression": "zlib", "planarconfig": "separate"}, {"rowsperstrip": 7, "compression": "zlib"}])
def test_every_layout_of_a_tiff_gives_its_bands_whole_and_in_windows(tmp_path, layout):
    bands = make_bands()
    path = save_tiff(tmp_path / "x.tif", bands, **layout)
    np.testing.assert_array_equal(read_bands(path), bands)
    np.testing.assert_array_equal(read_bands(path, WINDOW), bands[WINDOW])


def test_pages_are_bands_and_overviews_are_not(tmp_path):
    bands = make_bands(7, np.uint8, top=255)
    with tifffile.TiffWriter(tmp_path / "x.tif") as file:
        for band in np.moveaxis(bands, 2, 0):
            file.write(band, metadata=None, contiguous=False)
        file.write(bands[::2, ::2, 0], subfiletype=1, metadata=None)
    np.testing.assert_array_equal(read_bands(tmp_path / "x.tif"), bands)
    with tifffile.TiffWriter(tmp_path / "x.tif") as file:
        file.write(bands[..., 0], metadata=None)
        file.write(bands[:50, :, 0], metadata=None)
    with refused("x.tif", "2 pages of different sizes"):
        read_bands(tmp_path / "x.tif")
    (tmp_path / "x.tif").write_bytes(b"II*\0 nothing")
    with refused("x.tif", "cannot be read as a TIFF"):
        read_bands(tmp_path / "x.tif")


@pytest.mark.parametrize(("channels", "suffix"), [(1, ".png"), (3, ".png"), (4, ".png"), (1, ".tif"), (4, ".tif"),
                                                  (16, ".tif"), (5, ".npy"), (6, ".npz"), (2, ".npy")])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_values_of_any_number_of_channels_are_as_in_the_file(tmp_path, channels, suffix, dtype):
    bands, path = make_bands(channels, dtype, (34, 41), top=np.iinfo(dtype).max), tmp_path / f"x{suffix}"
    if suffix == ".png":
        cv2.imwrite(str(path), bands[..., [2, 1, 0, 3][:channels]] if channels > 1 else bands)
    elif suffix == ".tif":
        save_tiff(path, bands)
    elif suffix == ".npz":
        np.savez(path, other=np.zeros(3), image=bands)
    else:
        np.save(path, bands if channels == 2 else np.moveaxis(bands, 2, 0))
    found = read_pixels(path, ImageForm(channels=channels)).image
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, bands)
    if channels == 4:
        three = read_pixels(path, ImageForm(channels=3, bands=(4, 1, 2))).image
        np.testing.assert_array_equal(three, bands[..., [3, 0, 1]])


def test_exif_turns_images_of_stated_channels_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    grey = make_bands(1, np.uint8, (34, 41), 255)[..., 0]
    Image.fromarray(grey).save(tmp_path / "x.png", exif=exif)
    found = read_pixels(tmp_path / "x.png", ImageForm(channels=1))
    np.testing.assert_array_equal(found.image[..., 0], np.rot90(grey, -1))
    assert found.turn == 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_arrays_are_turned_as_pillow_turns_images(orientation):
    image = Image.fromarray(make_bands(3, np.uint8, (5, 7), 255))
    turned = turn_array(np.asarray(image), orientation)
    image.getexif()[0x0112] = orientation
    np.testing.assert_array_equal(turned, np.asarray(turn_upright(image)))


@pytest.mark.parametrize(("form", "parts"), [
    (ImageForm(channels=4), ("x.tif has 5 bands, but dataset.channels=4: set dataset.channels=5",
                             "dataset.channels=4 with dataset.bands=[1, 2, 3, 4]")),
    (ImageForm(channels=6), ("x.tif has 5 bands, but dataset.channels=6: set dataset.channels=5.",)),
    (ImageForm(channels=2, bands=(1, 6)), ("5 bands", "names the band 6")),
    (ImageForm(channels=5, dtype="uint8"), ("uint16", "dataset.dtype=uint8"))])
def test_an_image_of_another_form_is_refused(tmp_path, form, parts):
    path = save_tiff(tmp_path / "x.tif", make_bands(size=(33, 34)))
    with refused(*parts):
        read_pixels(path, form)


def test_without_channels_the_refusals_name_the_setting(tmp_path):
    for channels, dtype in ((4, np.uint8), (5, np.uint16)):
        path = tmp_path / f"{channels}.tif"
        tifffile.imwrite(path, make_bands(channels, dtype, (33, 34), 255), photometric="rgb",
                         extrasamples=[0] * (channels - 3), metadata=None)
        with refused(path, f"dataset.channels={channels}", "dataset.channels=3 with dataset.bands=[1, 2, 3]"):
            read_image(path)
    np.save(tmp_path / "x.npy", make_bands())
    with refused("x.npy", "set dataset.channels"):
        read_image(tmp_path / "x.npy")


def test_a_range_becomes_0_to_255_and_comes_back():
    form = ImageForm(channels=2, range=((100, 300), (0, 1)))
    values = np.array([[[100, 0], [200, 0.5], [300, 1], [0, 7]]], np.float32)
    np.testing.assert_allclose(form.scale(values), [[[0, 0], [127.5, 127.5], [255, 255], [0, 255]]], atol=1e-4)
    np.testing.assert_allclose(form.unscale(form.scale(values))[0, :3], values[0, :3], rtol=1e-5)


def test_pixels_without_data_are_void_and_black(tmp_path):
    bands = make_bands(3, np.float32)
    bands[:5] = np.nan
    bands[10, 10, 1] = np.nan
    bands[20, :] = -9999
    bands[30, 30, 0] = -9999
    form = ImageForm(channels=3, range=((0, 60000),) * 3, nodata=-9999)
    image, nodata, _ = to_pixels(bands, form, "it", form.nodata)
    assert nodata[:5].all()
    assert nodata[20].all()
    assert nodata.sum() == 6 * 110, "a band alone does not make a pixel void"
    assert np.isfinite(image).all()
    assert not image[nodata].any()
    assert image[10, 10, 1] == image[30, 30, 0] == 0 < image[10, 10, 0]
    path = save_tiff(tmp_path / "x.tif", np.where(nodata[..., None], 0, make_bands(3)), extratags=NODATA)
    assert read_nodata(path) == 0
    np.testing.assert_array_equal(read_pixels(path, ImageForm(channels=3)).nodata, nodata)
    assert read_pixels(path, ImageForm(channels=3, nodata=None)).nodata is None


def test_drawing_takes_the_stated_channels():
    image = make_bands(5, np.uint8, top=255)
    np.testing.assert_array_equal(ImageForm(channels=5, rgb=(4, 3, 2)).draw(image), image[..., [3, 2, 1]])
    np.testing.assert_array_equal(ImageForm(channels=5).draw(image), image[..., :3])
    np.testing.assert_array_equal(ImageForm(channels=5, rgb=(5,)).draw(image), image[..., [4, 4, 4]])
    np.testing.assert_array_equal(ImageForm(channels=2).draw(image[..., :2]), image[..., [0, 0, 0]])
    faint = (image / 255).astype(np.float32)
    drawn = ImageForm(channels=5).draw(faint)
    assert (drawn.min(), drawn.max()) == (0, 255)
    assert np.corrcoef(drawn[..., 0].ravel(), image[..., 0].ravel())[0, 1] > 0.99


class Made(FileDataset):
    """Images in memory, read as files are."""

    labels = ()

    def __init__(self, *images, nodata=None):
        self.names, self._images, self._nodata = [str(number) for number in range(len(images))], images, nodata

    def read(self, index):
        found = to_pixels(self._images[index], self.form, self.names[index], self._nodata)
        return Sample(found.image, np.zeros(found.image.shape[:2], np.uint8), None, found.nodata)

    def read_target(self, index):
        raise NotImplementedError

    def locate(self, index):
        return self.names[index]


@pytest.fixture
def own(monkeypatch):
    monkeypatch.setattr(Made, "__module__", "segtrain.data.made")


@pytest.mark.usefixtures("own")
def test_channels_are_measured_where_there_is_data():
    rng = np.random.default_rng(0)
    image = rng.normal((1000, 3000), (100, 50), (60, 60, 2)).clip(1).astype(np.uint16)
    image[:10] = 0
    data = Made(image, image.copy(), nodata=0)
    data.form = ImageForm(channels=2)
    found = measure_channels(data, "auto")
    known = image[10:].reshape(-1, 2)
    assert found.dtype == "uint16"
    np.testing.assert_allclose(found.range, np.percentile(known, (0.1, 99.9), axis=0).T, rtol=1e-3)
    low, high = np.array(found.range).T
    scaled = ((known - low) / (high - low)).clip(0, 1)
    np.testing.assert_allclose(found.mean, scaled.mean(0), rtol=1e-3)
    np.testing.assert_allclose(found.std, scaled.std(0), rtol=1e-3)
    data.form = replace(data.form, range=tuple(map(tuple, found.range)))
    np.testing.assert_allclose(data.read(0).image[10:].reshape(-1, 2) / 255, scaled, atol=1e-5)
    assert measure_channels(data, [[0, 4000], [0, 4000]]).range == [[0, 4000], [0, 4000]]
    with refused("dataset.range=null", "uint16"):
        measure_channels(data, None)
    data = Made(image.astype(np.uint8), image)
    data.form = ImageForm(channels=2)
    with refused("1 has an image of type uint16"):
        measure_channels(data, "auto")
    grey = Made(np.full((40, 40, 1), 51, np.uint8))
    grey.form = ImageForm(channels=1)
    assert (measure_channels(grey, "auto").range, measure_channels(grey, "auto").mean) == (None, [0.2])


def test_a_class_of_the_user_has_made_0_to_255_itself():
    data = Memory([Sample(np.full((32, 32, 5), 51, np.float32), np.zeros((32, 32), np.uint8))])
    data.form = ImageForm(channels=5)
    assert measure_channels(data, "auto").range is None


def make_folder(root, *, split="train", size=(90, 110), channels=5, **layout):
    """Write a folder of one image with a mask as TIFF; return both."""
    bands, mask = make_bands(channels, size=size), np.random.default_rng(0).integers(0, 2, size).astype(np.uint8)
    bands[:7] = 0
    save_tiff(root / split / "images" / "a.tif", bands, extratags=[*GEO, *NODATA], **layout)
    save_tiff(root / split / "masks" / "a.tif", mask[..., None], **layout)
    (root / "classes.csv").write_text("name\nland\nwater\n")
    return bands, mask


def test_windows_of_an_image_are_samples_and_together_the_whole(tmp_path):
    bands, mask = make_folder(tmp_path, tile=(16, 16), compression="zlib")
    Image.fromarray(mask).save(tmp_path / "train/masks/objects.png")
    (tmp_path / "objects").mkdir()
    (tmp_path / "train/masks/objects.png").rename(tmp_path / "objects/a.png")
    data = Folder("train", root=str(tmp_path), window=[48, 64], instance_maps="objects")
    data.form = ImageForm(channels=5)
    assert data.names == [f"a_y{top}_x{left}" for top in (0, 45) for left in (0, 55)]
    seen, found, objects = np.zeros_like(bands), np.zeros_like(mask), np.zeros(mask.shape, np.int32)
    for index, window in enumerate(data.windows):
        sample = data.read(index)
        seen[window], found[window], objects[window] = sample.image, sample.target, sample.instances
    np.testing.assert_array_equal(seen, bands)
    np.testing.assert_array_equal(found[7:], mask[7:])
    assert (found[:7] == 255).all()
    np.testing.assert_array_equal(objects > 0, read_instances(tmp_path / "objects/a.png") > 0)
    rgb = Folder("train", root=str(tmp_path), window=[40, 64])
    with refused("a.tif", "5 bands", "dataset.channels=5"):
        rgb.read(0)
    assert cut_into_windows("x", tmp_path / "train/images/a.tif", (1000, 1000)) == [
        ("x_y0_x0", (slice(0, 90), slice(0, 110)))]


def test_windows_of_ordinary_images(tmp_path):
    image = make_bands(3, np.uint8, top=255)
    Image.fromarray(image).save(tmp_path / "x.png")
    save_tiff(tmp_path / "x.tif", image, tile=(16, 16))
    for name in ("x.png", "x.tif"):
        np.testing.assert_array_equal(read_image(tmp_path / name, window=WINDOW), image[WINDOW])
    cv2.imwrite(str(tmp_path / "deep.png"), make_bands(3))
    with refused("deep.png", "8 bits a channel"):
        read_image(tmp_path / "deep.png", window=WINDOW)


def test_each_band_may_have_a_file_of_its_own(tmp_path):
    bands = make_bands(3, size=(40, 50))
    (tmp_path / "classes.csv").write_text("name\na\nb\n")
    for number, name in enumerate(("B02", "B03", "B08")):
        save_tiff(tmp_path / f"train/images/s2_B02/x_{name}.tif", bands[..., [number]])
    Image.fromarray(np.zeros((40, 50), np.uint8)).save(tmp_path / "x.png")
    (tmp_path / "train/masks/s2_B02").mkdir(parents=True)
    (tmp_path / "x.png").rename(tmp_path / "train/masks/s2_B02/x.png")
    given = {"images": "{split}/images/**/*_{band}.tif", "masks": "{split}/masks/**/*.png"}
    data = Folder("train", root=str(tmp_path), band_files=["B02", "B03", "B08"], **given)
    data.form = replace(data.form, channels=3)
    np.testing.assert_array_equal(data.read(0).image, bands)
    assert [path.name for path in data.list_files(0)] == ["x_B02.tif", "x_B03.tif", "x_B08.tif", "x.png"]
    first = data.images[0]
    assert data.form.is_first_band(first)
    assert not data.form.is_first_band(first.with_name("x_B03.tif"))
    save_tiff(first.with_name("x_B08.tif"), bands[::2, ::2, :1])
    with refused("x_B08.tif is 25x20", "x_B02.tif", "50x40"):
        data.read(0)
    first.with_name("x_B08.tif").unlink()
    with refused("x_B08.tif"):
        data.read(0)
    for wrong in ({"band_files": ["B02"], **given, "images": "{split}/images"}, given):
        with refused("{band}"):
            Folder("train", root=str(tmp_path), **wrong)


def test_a_georeference_and_colours_are_kept(tmp_path):
    source = save_tiff(tmp_path / "x.tif", make_bands(), extratags=GEO)
    values, colors = np.arange(90 * 110, dtype=np.uint8).reshape(90, 110), np.zeros((256, 3), np.uint8)
    colors[1] = 255, 128, 0
    write_geotiff(tmp_path / "y.tif", values, read_georeference(source), 255, colors)
    with tifffile.TiffFile(tmp_path / "y.tif") as file:
        page = file.pages[0]
        for code, *_, value, _ in GEO:
            assert page.tags[code].value == value
        np.testing.assert_array_equal(page.asarray(), values)
        assert (page.colormap[:, 1] // 257).tolist() == [255, 128, 0]
    assert read_nodata(tmp_path / "y.tif") == 255
    assert read_georeference(save_tiff(tmp_path / "z.tif", make_bands())) == []


def test_a_large_image_is_read_by_windows(tmp_path):
    bands = make_bands(2, size=(300, 700))
    bands[280:, 5:9] = 0
    path = save_tiff(tmp_path / "x.tif", bands, extratags=NODATA, tile=(64, 64))
    form = ImageForm(channels=2, range=((0, 65535),) * 2)
    large = LargeImage(path, form, bands.shape[:2])
    assert large.shape == (1, 300, 700, 2)
    np.testing.assert_allclose(large[0, slice(10, 99), slice(3, 333)], bands[10:99, 3:333] / 257, rtol=1e-5)


def test_a_survey_of_a_large_image_takes_every_nth_pixel(tmp_path, monkeypatch):
    monkeypatch.setattr("segtrain.inference.large_images.STRIP", 64)
    monkeypatch.setattr("segtrain.inference.large_images.DRAWN_SIDE", 100)
    bands = make_bands(2, np.uint8, (300, 700), 255)
    bands[280:, 5:9] = 0
    large = LargeImage(save_tiff(tmp_path / "x.tif", bands, extratags=NODATA), ImageForm(channels=2), (300, 700))
    small, nodata = large.survey()
    np.testing.assert_array_equal(small, bands[::7, ::7])
    np.testing.assert_array_equal(nodata, (bands == 0).all(-1))


def test_a_file_that_gdal_wrote():
    """The numbers are those of rasterio 1.4.4."""
    path = Path(__file__).with_name("gdal_5_bands.tif")
    found = read_pixels(path, ImageForm(channels=5))
    assert (found.image.shape, found.image.dtype, int((~found.nodata).sum())) == ((30, 41, 5), np.uint16, 1206)
    sums = read_bands(path, (slice(8, 24), slice(10, 31))).astype(int).sum((0, 1)).tolist()
    assert sums == [373128, 675528, 977928, 1280328, 1582728]
    assert [tag[0] for tag in read_georeference(path)] == [33550, 33922, 34735, 34737]
