"""Datasets from files: right results on hand-made images, and faults that are named with their remedy."""

import pickle

import cv2
import numpy as np
import pytest
from helpers import refused
from made_files import LABELS, Memory, make_image, make_mask, make_sample, save_image
from PIL import Image

from segtrain.data.base import Cached, take_first
from segtrain.data.camvid import CAMVID, CamVid
from segtrain.data.class_files import read_class_file
from segtrain.data.folder import Folder
from segtrain.data.images import read_image, read_mask, to_train_ids
from segtrain.data.statistics import compute_statistics, find_instances
from segtrain.data.streets.dataset import Streets
from segtrain.labels import Label


def camvid(root, num_images=2, value=0, split="train"):
    for index in range(num_images):
        save_image(root / split / f"{index}.png", make_image(seed=index))
        save_image(root / f"{split}annot" / f"{index}.png", make_mask(value=value))
    return root


def folder(root, classes="name\na\nb\n", split="train"):
    save_image(root / split / "images" / "x.jpg", make_image())
    save_image(root / split / "masks" / "x.png", make_mask())
    (root / "classes.csv").write_text(classes)
    return root


# ---- images


def test_image_is_rgb_whatever_its_kind(tmp_path):
    image = make_image()
    np.testing.assert_array_equal(read_image(save_image(tmp_path / "rgb.png", image)), image)
    grey = image[..., 0]
    np.testing.assert_array_equal(read_image(save_image(tmp_path / "grey.png", grey)), np.stack([grey] * 3, -1))
    alpha = np.dstack([image, grey])
    np.testing.assert_array_equal(read_image(save_image(tmp_path / "alpha.png", alpha)), image)
    jpeg = read_image(save_image(tmp_path / "smooth.jpg", np.full((32, 40, 3), (200, 100, 50), np.uint8)))
    assert jpeg.shape == (32, 40, 3)
    assert jpeg.dtype == np.uint8
    assert np.abs(jpeg.astype(int) - (200, 100, 50)).max() <= 3


def test_photo_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees clockwise
    Image.fromarray(make_image()).save(tmp_path / "photo.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "photo.png"), np.rot90(make_image(), -1))


def test_image_with_broken_exif_is_read_as_it_is(tmp_path):
    Image.fromarray(make_image()).save(tmp_path / "photo.png", exif=b"Exif\0\0garbage")
    np.testing.assert_array_equal(read_image(tmp_path / "photo.png"), make_image())


def test_mask_holds_the_numbers_of_the_file(tmp_path):
    mask = np.arange(32 * 40, dtype=np.uint16).reshape(32, 40).astype(np.uint8)
    np.testing.assert_array_equal(read_mask(save_image(tmp_path / "grey.png", mask)), mask)
    palette = Image.frombytes("P", (40, 32), mask.tobytes())
    palette.putpalette([255 - value // 3 for value in range(768)])
    palette.save(tmp_path / "palette.png")
    read = read_mask(tmp_path / "palette.png")
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, mask)
    bits = mask % 2
    Image.fromarray(bits * 255).convert("1").save(tmp_path / "bits.png")
    read = read_mask(tmp_path / "bits.png")
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, bits)


@pytest.mark.parametrize("num_colors", [2, 4, 16])
def test_mask_of_a_small_palette_is_not_scaled(tmp_path, num_colors):
    mask = np.arange(32 * 40).reshape(32, 40).astype(np.uint8) % num_colors
    made = Image.frombytes("P", (40, 32), mask.tobytes())
    made.putpalette([17 * value for value in range(3 * num_colors) if value < 15] or [0])
    made.save(tmp_path / "small.png", bits={2: 1, 4: 2, 16: 4}[num_colors])
    np.testing.assert_array_equal(read_mask(tmp_path / "small.png"), mask)


@pytest.mark.parametrize(("name", "array", "mode"), [
    ("rgb.png", make_image(), "RGB"),
    ("rgba.png", np.dstack([make_image(), make_mask()]), "RGBA"),
    ("deep.png", make_mask().astype(np.uint16), "I;16"),
    ("float.tif", make_mask().astype(np.float32), "F"),
])
def test_mask_that_is_no_index_is_refused(tmp_path, name, array, mode):
    path = save_image(tmp_path / name, array)
    with refused(path, f"mode {mode}", "8-bit class number"):
        read_mask(path)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_deep_image_is_scaled_to_8_bits(tmp_path, suffix, channels):
    deep = np.random.default_rng(0).integers(0, 65536, (32, 40, channels), dtype=np.uint16)
    deep[0, 0], deep[0, 1] = 0, 65535
    path = tmp_path / f"deep{suffix}"
    cv2.imwrite(str(path), deep)  # in the order blue, green, red
    expected = np.round(deep / 257).astype(np.uint8)[..., [0, 0, 0] if channels == 1 else [2, 1, 0]]
    if channels == 4 and suffix == ".tif":  # OpenCV does not say that the fourth is transparency
        with refused(path, "1 more bands than its colours"):
            read_image(path)
        return
    np.testing.assert_array_equal(read_image(path), expected)
    np.testing.assert_array_equal(read_image(path, 16), expected)


@pytest.mark.parametrize("bits", [12, 14, 15])
def test_16_bits_of_which_fewer_are_used_are_noticed(tmp_path, bits):
    cv2.imwrite(str(tmp_path / "deep.png"), np.full((4, 5), 2**bits - 1, np.uint16))
    with refused("16 bits a channel", f"{bits}-bit", f"dataset.image_bits={bits}"):
        read_image(tmp_path / "deep.png")
    assert read_image(tmp_path / "deep.png", bits).min() == 255


@pytest.mark.parametrize("channels", [1, 3])
def test_12_bits_in_16_are_noticed(tmp_path, channels):
    deep = np.random.default_rng(0).integers(0, 4096, (32, 40, channels), dtype=np.uint16)
    path = tmp_path / "deep.png"
    cv2.imwrite(str(path), deep)
    with refused(path, str(deep.max()), "12-bit", "dataset.image_bits=12"):
        read_image(path)
    expected = np.round(deep / 4095 * 255).astype(np.uint8)[..., [0, 0, 0] if channels == 1 else [2, 1, 0]]
    np.testing.assert_array_equal(read_image(path, 12), expected)
    assert read_image(path, 16).max() == 16
    with refused(path, "0 to 255", "dataset.image_bits"):
        read_image(path, 8)


def test_deep_images_are_turned_and_inks_refused(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = np.arange(32 * 40, dtype=np.uint16).reshape(32, 40) * 51
    Image.fromarray(deep).save(tmp_path / "deep.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png")[..., 0], np.rot90(np.round(deep / 257), -1))
    Image.new("CMYK", (40, 32), (0, 255, 255, 0)).save(tmp_path / "print.tif")
    with refused("print.tif", "CMYK", "convert it to RGB"):
        read_image(tmp_path / "print.tif")


@pytest.mark.parametrize("suffix", [".gif", ".tif", ".png", ".webp"])
def test_several_images_in_one_file_are_refused(tmp_path, suffix):
    first, second = (Image.fromarray(make_image(seed=seed)) for seed in (0, 1))
    first.save(tmp_path / f"x{suffix}", save_all=True, append_images=[second])
    with refused(tmp_path / f"x{suffix}", "2 images", "save each"):
        read_image(tmp_path / f"x{suffix}")


def test_a_file_is_not_opened_as_what_programs_are_run_for(tmp_path):
    (tmp_path / "x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 32\n%%EndComments\n")
    with refused(tmp_path / "x.png", "it is none of PNG"):
        read_image(tmp_path / "x.png")


def test_bomb_is_refused(tmp_path, monkeypatch):
    path = save_image(tmp_path / "bomb.png", make_mask())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with refused(path, "1280 pixels", "tiles"):
        read_image(path)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow's own remark on half a TIFF
@pytest.mark.parametrize("read", [read_image, read_mask])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp"])
@pytest.mark.parametrize("fault", ["empty", "text", "header", "half", "missing"])
def test_broken_file_is_named(tmp_path, read, suffix, fault):
    path = save_image(tmp_path / f"x{suffix}", make_image((64, 64)) if read is read_image or suffix == ".webp"
                else make_image((64, 64))[..., 0].copy())
    whole = path.read_bytes()
    if fault == "missing":
        path.unlink()
    else:
        kept = {"empty": b"", "text": b"no image", "header": whole[:20], "half": whole[:len(whole) // 2]}
        path.write_bytes(kept[fault])
    with refused(path, "empty" if fault == "empty" else ""):
        read(path)


def test_labels_become_train_ids():
    labels = (Label("a", 7, 0, (0, 0, 0)), Label("b", 0, 1, (0, 0, 0)), Label("c", 254, 2, (0, 0, 0)))
    mask = np.array([[7, 0], [254, 11]], np.uint8)
    train_ids = to_train_ids(mask, labels, [11, 255], "x.png")
    assert train_ids.dtype == np.uint8
    assert train_ids.tolist() == [[0, 1], [2, 255]]


def test_unknown_label_is_counted(tmp_path):
    mask = make_mask()
    mask[:2] = 12
    mask[5, 5] = 77
    with refused("m.png", "12 (80 pixels)", "77 (1 pixels)", "0..2", "void is 11, 255", "Correct"):
        to_train_ids(mask, LABELS, [11, 255], tmp_path / "m.png")
    with refused("and 2 more"):
        to_train_ids(np.arange(3, 10, dtype=np.uint8)[None], LABELS, [255], tmp_path / "m.png")


# ---- pairs of files


def test_pairs_nested_folders_of_any_suffix(tmp_path):
    save_image(tmp_path / "train" / "b" / "x.1.jpg", make_image())
    save_image(tmp_path / "train" / "a.JPEG", make_image())
    save_image(tmp_path / "trainannot" / "b" / "x.1.png", make_mask())
    save_image(tmp_path / "trainannot" / "a.PNG", make_mask())
    data = CamVid("train", str(tmp_path))
    assert data.names == ["a", "b/x.1"]
    assert [path.name for path in data.images] == ["a.JPEG", "x.1.jpg"]
    assert [path.name for path in data.masks] == ["a.PNG", "x.1.png"]


def test_files_that_lie_around_are_left_alone(tmp_path):
    camvid(tmp_path)
    for side in ("train", "trainannot"):
        (tmp_path / side / "Thumbs.db").write_bytes(b"x")
        (tmp_path / side / ".DS_Store").write_bytes(b"x")
        (tmp_path / side / "._0.png").write_bytes(b"x")
        (tmp_path / side / "notes.txt").write_text("x")
        (tmp_path / side / "dir.png").mkdir()
        save_image(tmp_path / side / ".ipynb_checkpoints" / "0-checkpoint.png", make_mask())
    save_image(tmp_path / "trainannot" / "mask_without_image.png", make_mask())
    data = CamVid("train", str(tmp_path))
    assert data.names == ["0", "1"]
    compute_statistics(data, None)


@pytest.mark.parametrize("side", ["images", "masks"])
def test_missing_folder_and_doubled_names(tmp_path, side):
    folder(tmp_path)
    there = tmp_path / "train" / side
    doubled = save_image(there / "x.bmp", make_mask())
    with refused(doubled, "same name", "keep one"):
        Folder("train", str(tmp_path))
    there.rename(tmp_path / "elsewhere")
    with refused(there, "not a folder", "dataset.root"):
        Folder("train", str(tmp_path))


def test_links_are_followed_once(tmp_path):
    camvid(tmp_path)
    save_image(tmp_path / "elsewhere" / "2.png", make_image())
    (tmp_path / "train" / "day").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "train" / "again").symlink_to(tmp_path / "train")
    (tmp_path / "trainannot" / "day").mkdir()
    (tmp_path / "trainannot" / "day" / "2.png").symlink_to(tmp_path / "trainannot" / "1.png")
    data = CamVid("train", str(tmp_path))
    assert data.names == ["0", "1", "day/2"]
    compute_statistics(data, None)
    (tmp_path / "elsewhere" / "2.png").unlink()
    (tmp_path / "elsewhere" / "2.png").symlink_to(tmp_path / "nowhere")
    with refused(tmp_path / "train" / "day" / "2.png", "cannot be read"):
        compute_statistics(CamVid("train", str(tmp_path)), None)


def test_image_without_mask(tmp_path):
    camvid(tmp_path)
    (tmp_path / "trainannot" / "1.png").unlink()
    with refused("1 of 2 images", tmp_path / "train" / "1.png", tmp_path / "trainannot", "add its mask"):
        CamVid("train", str(tmp_path))


def test_empty_split(tmp_path):
    (tmp_path / "val").mkdir()
    (tmp_path / "valannot").mkdir()
    with refused(tmp_path / "val", "no image", "dataset.root"):
        CamVid("val", str(tmp_path))


def test_size_mismatch(tmp_path):
    camvid(tmp_path)
    save_image(tmp_path / "trainannot" / "1.png", make_mask((40, 32)))
    with refused(tmp_path / "train" / "1.png", tmp_path / "trainannot" / "1.png", "40x32", "32x40", "turn the mask"):
        CamVid("train", str(tmp_path)).read(1)
    save_image(tmp_path / "trainannot" / "1.png", make_mask((40, 31)))
    with refused(tmp_path / "train" / "1.png", tmp_path / "trainannot" / "1.png", "40x32", "31x40", "save the mask"):
        CamVid("train", str(tmp_path)).read(1)


# ---- CamVid


def test_camvid(tmp_path):
    camvid(tmp_path)
    mask = np.arange(32 * 40).reshape(32, 40).astype(np.uint8) % 13
    mask[mask == 12] = 255
    save_image(tmp_path / "trainannot" / "1.png", mask)
    data = CamVid("train", str(tmp_path))
    assert data.labels == CAMVID
    assert data.names == ["0", "1"]
    assert data.locate(1) == str(tmp_path / "trainannot" / "1.png")
    read = data.read(1)
    np.testing.assert_array_equal(read.image, make_image(seed=1))
    np.testing.assert_array_equal(read.target, np.where(mask >= 11, 255, mask))
    assert read.target.dtype == np.uint8
    assert read.instances is None


def test_camvid_refusals(tmp_path):
    with refused("dataset.root", "trainannot"):
        CamVid("train")
    with refused(tmp_path / "train", "not a folder", "dataset.root"):
        CamVid("train", str(tmp_path))
    with refused("dataset.split=night", "train, val and test"):
        CamVid("night", str(tmp_path))
    camvid(tmp_path, value=12)
    with refused(tmp_path / "trainannot" / "0.png", "12 (1280 pixels)", "0..10", "11, 255"):
        CamVid("train", str(tmp_path)).read(0)
    with refused(tmp_path / "test", "not a folder"):
        CamVid("test", str(tmp_path))


# ---- folders of one's own


def test_folder(tmp_path):
    folder(tmp_path, "name,label_id,color,has_instances\nroad,3,#ff8000,false\ncar,9,#0000FF,True\n")
    mask = make_mask(value=3)
    mask[0, 0], mask[0, 1] = 9, 255
    save_image(tmp_path / "train" / "masks" / "x.png", mask)
    data = Folder("train", str(tmp_path))
    assert data.labels == (Label("road", 3, 0, (255, 128, 0)), Label("car", 9, 1, (0, 0, 255), True))
    assert data.names == ["x"]
    target = data.read(0).target
    assert target[0, :3].tolist() == [1, 255, 0]
    save_image(tmp_path / "train" / "masks" / "x.png", make_mask())
    with refused("x.png", "0 (1280 pixels)", "3, 9", "255"):
        data.read(0)


def test_folder_with_other_paths(tmp_path):
    save_image(tmp_path / "in{0}" / "day" / "x.png", make_image())
    save_image(tmp_path / "gt" / "x.png", make_mask())
    (tmp_path / "c.csv").write_text("name\na\nb\n")
    data = Folder("day", str(tmp_path), classes="c.csv", images="in{0}/{split}", masks="gt")
    assert data.names == ["x"]


def test_folder_refusals(tmp_path):
    with refused("dataset.root"):
        Folder("train")
    with refused(tmp_path / "no", "dataset.root"):
        Folder("train", str(tmp_path / "no"))
    with refused(tmp_path / "classes.csv", "name,label_id,color,has_instances"):
        Folder("train", str(tmp_path))


def test_class_file_of_names_only(tmp_path):
    path = tmp_path / "c.csv"
    path.write_text("name\nroad\ncar\n\n  \n")
    labels = read_class_file(path).labels
    assert [(label.name, label.label_id, label.train_id, label.has_instances) for label in labels] == [
        ("road", 0, 0, False), ("car", 1, 1, False)]
    assert labels[0].color != labels[1].color


def test_class_file_as_spreadsheets_write_it(tmp_path):
    path = tmp_path / "c.csv"
    path.write_bytes(b'\xef\xbb\xbfname , label_id\r\n"car, parked", 4\r\n\r\n,\r\n"the ""road""",0\r\n')
    assert [(label.name, label.label_id, label.train_id) for label in read_class_file(path).labels] == [
        ("car, parked", 4, 0), ('the "road"', 0, 1)]


@pytest.mark.parametrize(("text", "parts"), [
    ("", ["lists no class"]),
    ("name\n", ["lists no class"]),
    ("road\ncar\n", ["starts with road", "header"]),
    ("name,tint\nroad,#ffffff\n", ["name, tint", "color"]),
    ("name,name\nroad,car\n", ["each once"]),
    ("name;label_id\nroad;1\n", ["separated by commas"]),
    ("name\nroad\n\nroad\n", ["name road", "twice"]),
    ("name,label_id\nroad,3\ncar,3\n", ["label_id 3", "twice"]),
    ("name,label_id\nroad,\ncar,0\n", ["label_id 0", "twice"]),
    ("name,color\nroad,red\n", ["line 2", "color red", "#ff8000"]),
    ("name,color\nroad,#ff80\n", ["line 2", "color #ff80"]),
    ("name,label_id\n\nroad,x\n", ["line 3", "label_id x", "0 to 65535"]),
    ("name,label_id\nroad,-1\n", ["line 2", "label_id -1"]),
    ("name,label_id\nroad,1.0\n", ["line 2", "label_id 1.0"]),
    ("name,label_id\nroad,65536\n", ["line 2", "label_id 65536"]),
    ("name,has_instances\nroad,maybe\n", ["line 2", "maybe", "true or false"]),
    ("name,label_id\n,3\n", ["line 2", "no name"]),
    ("name,label_id\nroad\n", ["line 2", "2 values"]),
    ("name\nroad,3\n", ["line 2", "1 values"]),
    ("name\n" + "\n".join(f"c{number}" for number in range(256)), ["256 classes", "at most 255"]),
])
def test_bad_class_file(tmp_path, text, parts):
    path = tmp_path / "classes.csv"
    path.write_text(text)
    with refused(path, *parts):
        read_class_file(path)


def test_class_file_that_is_no_text(tmp_path):
    path = tmp_path / "classes.csv"
    path.write_bytes("name\nroad\n".encode("utf-16"))
    with refused(path, "cannot be read"):
        read_class_file(path)


# ---- streets


def test_streets():
    data = Streets("val", height=48, width=64, num_val=3)
    assert data.names == ["street_val_00000", "street_val_00001", "street_val_00002"]
    assert data.locate(1) == "street_val_00001"
    read = data.read(2)
    assert (read.image.shape, read.target.shape, read.instances.shape) == ((48, 64, 3), (48, 64), (48, 64))
    assert not np.array_equal(read.image, Streets("val", height=48, width=64, seed=1).read(2).image)
    with refused("dataset.split=test", "train and val"):
        Streets("test")
    for argument in ({"height": 31}, {"width": 0}, {"num_train": 0}, {"num_val": -1}, {"seed": -1}):
        with pytest.raises(ValueError, match=next(iter(argument))):
            Streets("train", **argument)


# ---- statistics


def test_statistics_counts_pixels():
    first, second = make_mask(), make_mask((36, 32), 1)
    first[:4, :10] = 1    # 40 pixels
    first[-1] = 255       # 40 pixels
    found = compute_statistics(Memory([make_sample(first), make_sample(second)]), None)
    assert found.sizes == [(32, 40), (36, 32)]
    assert found.class_pixels == [1280 - 80, 40 + 1152, 0]
    assert found.image_pixels == [1240, 1240 + 1152, 0]
    assert found.class_sizes is None


def test_statistics_measures_components():
    target = make_mask()
    target[0:2, 0:5] = 1      # 10 pixels
    target[2, 5] = 1          # touches by a corner: 11
    target[10:13, 10] = 1     # 3
    data = Memory([make_sample(target), make_sample(make_mask(value=255))])
    assert compute_statistics(data, "components").class_sizes == {"b": 7.0, "c": None}


def test_statistics_measures_instance_maps():
    target = make_mask()
    target[0, :10] = 1
    instances = np.zeros(target.shape, np.int32)
    instances[0, :4], instances[0, 4:10] = 1, 70000   # two objects that touch
    other = make_mask()
    other[5, :20] = 1
    numbers = np.zeros(target.shape, np.int32)
    numbers[5, :17] = 1                               # 3 pixels are a crowd
    found = compute_statistics(Memory([make_sample(target, instances), make_sample(other, numbers)]), "maps")
    assert found.class_sizes == {"b": (4 + 6 + 17) / 3, "c": None}


def test_statistics_refusals(tmp_path):
    with refused("2 images", "sample0.png", "void"):
        compute_statistics(Memory([make_sample(make_mask(value=255))] * 2), None)
    with refused("dataset.instances=maps", "sample0.png", "components"):
        compute_statistics(Memory([make_sample(make_mask())]), "maps")
    with refused("dataset.instances=components", "has_instances"):
        compute_statistics(Memory([make_sample(make_mask())], LABELS[:1]), "components")
    with refused("sample1.png", "40x31", "32x32"):
        compute_statistics(Memory([make_sample(make_mask()), make_sample(make_mask((31, 40)))]), None)
    with refused("sample0.png", "train id 3 (1280 pixels)", "0..2 or 255"):
        compute_statistics(Memory([make_sample(make_mask(value=3))]), None)


def test_statistics_names_the_first_broken_file(tmp_path):
    camvid(tmp_path, num_images=40)
    for index in (35, 7):
        path = tmp_path / "train" / f"{index}.png"
        path.write_bytes(path.read_bytes()[:1000])
    # names are ordered as text: 0, 1, 10, 11, ..., 35, ..., 7
    with refused(tmp_path / "train" / "35.png", "cannot be read"):
        compute_statistics(Cached(CamVid("train", str(tmp_path))), None)


def test_statistics_reads_each_sample_once_in_order_and_not_far_ahead():
    class Counting(Memory):
        def __init__(self):
            super().__init__([make_sample(make_mask())] * 200)
            self.num_reads = 0
            self.yielded = 0
            self.ahead = 0

        def read(self, index):
            self.num_reads += 1
            self.ahead = max(self.ahead, self.num_reads - self.yielded)
            return super().read(index)

        def locate(self, index):
            self.yielded = index + 1
            return super().locate(index)

    data = Counting()
    compute_statistics(data, "components")  # asks for the file name of each sample that it has reached
    assert data.num_reads == 200
    assert data.ahead < 100


def test_statistics_in_threads_sees_what_one_thread_sees():
    data = Streets("train", height=48, width=64, num_train=24)
    counts = sum(np.bincount(data.read(index).target.ravel(), minlength=256)[:11] for index in range(24))
    assert compute_statistics(data, "maps").class_pixels == counts.tolist()


# ---- instances, cache, subset


def test_find_instances():
    target = make_mask()
    target[0, 0] = target[5, 5] = 1
    found = find_instances(target, None, LABELS, "components", "x")
    assert found.dtype == np.int32
    assert sorted({found[0, 0], found[5, 5]}) == [1, 2]
    assert found.sum() == 3
    numbers = np.ones(target.shape, np.int32)
    assert find_instances(target, numbers, LABELS, "maps", "x") is numbers


def test_cache_reads_once_and_cannot_be_written():
    class Counting(Memory):
        num_reads = 0

        def read(self, index):
            self.num_reads += 1
            target = make_mask(value=index)
            return make_sample(target, target.astype(np.int32))

    data = Counting([None] * 3)
    cached = Cached(data)
    assert (cached.labels, cached.names, cached.locate(1)) == (data.labels, data.names, "sample1.png")
    compute_statistics(cached, None)
    assert data.num_reads == 3
    for _ in range(2):
        assert cached.read(2).target[0, 0] == 2
    assert data.num_reads == 3
    for array in (cached.read(0).image, cached.read(0).target, cached.read(0).instances):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 1
    assert cv2.flip(cached.read(0).target, 1)[0, 0] == 0  # reading is what OpenCV does with it


def test_subset_is_the_first_samples():
    data = Memory([make_sample(make_mask(value=value)) for value in range(3)])
    subset = take_first(data, 2)
    assert subset.names == ["sample0", "sample1"]
    assert subset.labels == data.labels
    assert subset.read(1) is data.read(1)
    assert compute_statistics(subset, None).class_pixels == [1280, 1280, 0]
    assert len(compute_statistics(Cached(subset), None).sizes) == 2


def test_datasets_can_be_sent_to_a_process(tmp_path):
    camvid(tmp_path)
    for data in (CamVid("train", str(tmp_path)), Streets("train", num_train=2)):
        again = pickle.loads(pickle.dumps(Cached(take_first(data, 1))))
        np.testing.assert_array_equal(again.read(0).image, data.read(0).image)
