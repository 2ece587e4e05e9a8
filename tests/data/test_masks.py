"""Masks of all kinds become train ids, or are refused with what was found in them and the remedy."""

import numpy as np
import pytest
from helpers import refused
from made_files import make_mask, save_image
from PIL import Image

from segtrain.data.class_files import Classes
from segtrain.data.images import read_image, read_mask
from segtrain.data.masks import make_mask_rule, read_class_masks, read_instances, read_target
from segtrain.labels import Label

ROAD, CAR, SKY = (128, 64, 128), (0, 0, 142), (70, 130, 180)
LABELS = (Label("road", 0, 0, ROAD), Label("car", 1, 1, CAR), Label("sky", 2, 2, SKY))
THREE, TWO = Classes(LABELS, True), Classes(LABELS[:2], False)


def pattern():
    """Draw three classes in the corners, 0 elsewhere."""
    ids = make_mask()
    ids[:10, :10], ids[20:, 20:] = 1, 2
    return ids


def colored(ids, colors=(ROAD, CAR, SKY)):
    return np.array(colors, np.uint8)[ids]


def target(path, classes=THREE, void=None, **settings):
    found = read_target(path, make_mask_rule(classes, void, **settings))
    assert found.dtype == np.uint8
    return found


# ---- colours


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_colour_masks(tmp_path, suffix):
    path = save_image(tmp_path / f"m{suffix}", colored(pattern()))
    np.testing.assert_array_equal(target(path), pattern())


def test_alpha_of_a_colour_mask_is_dropped(tmp_path):
    path = save_image(tmp_path / "m.png", np.dstack([colored(pattern()), make_mask(value=0)]))
    np.testing.assert_array_equal(target(path), pattern())


def palette(path, ids, colors):
    made = Image.frombytes("P", (40, 32), ids.tobytes())
    made.putpalette([part for color in colors for part in color])
    made.save(path)
    return path


@pytest.mark.parametrize("suffix", [".png", ".gif", ".tif", ".bmp"])
def test_palette_counts_by_index_unless_its_colours_say_otherwise(tmp_path, suffix):
    path = tmp_path / f"m{suffix}"
    for colors in ((ROAD, CAR, SKY), ((0, 0, 0), (9, 9, 9), (8, 8, 8))):
        np.testing.assert_array_equal(target(palette(path, pattern(), colors)), pattern())
    palette(path, pattern(), (SKY, ROAD, CAR))
    with refused(path, "index 0 in #4682b4", "sky", "value 0 is road", "dataset.palette=colors"):
        target(path)
    np.testing.assert_array_equal(target(path, palette="index"), pattern())
    np.testing.assert_array_equal(target(path, palette="colors"), (pattern() + 2) % 3)


def test_black_and_white_the_other_way_round(tmp_path):
    path = palette(tmp_path / "m.gif", 1 - pattern() // 2, ((255, 255, 255), (0, 0, 0)))
    with refused(path, "0 white and 1 black", "dataset.binary=true"):
        target(path, TWO)
    np.testing.assert_array_equal(target(path, TWO, binary=True), pattern() // 2)
    np.testing.assert_array_equal(target(path, TWO, threshold=128), pattern() // 2)
    np.testing.assert_array_equal(target(path, TWO, palette="index"), 1 - pattern() // 2)


def test_unknown_colours_are_named_with_the_nearest_classes(tmp_path):
    mask = colored(pattern())
    mask[0, :3], mask[31, :7], mask[15, 0] = (0, 0, 140), (120, 64, 128), (255, 255, 255)
    path = save_image(tmp_path / "m.png", mask)
    with refused(path, "#784080 (7 pixels), nearest road #804080, distance 8", "#00008c (3 pixels), nearest car",
                 "#ffffff (1 pixels)", "dataset.nearest_colors=true", "dataset.void"):
        target(path)
    expected = pattern()
    expected[15, 0] = 2
    np.testing.assert_array_equal(target(path, nearest_colors=True), expected)
    with refused(path, "farther than dataset.nearest_colors=8", "#ffffff"):
        target(path, nearest_colors=8)
    expected[15, 0] = 255
    np.testing.assert_array_equal(target(path, void=["#ffffff"], nearest_colors=8), expected)
    with refused("#784080"):
        target(path, void=["#ffffff"], nearest_colors=7)


def test_the_nearest_may_be_void(tmp_path):
    mask = colored(pattern())
    mask[0, 0], mask[0, 1] = (3, 3, 3), (1, 0, 141)
    path = save_image(tmp_path / "m.png", mask)
    assert target(path, void=[[0, 0, 0]], nearest_colors=True)[0, :3].tolist() == [255, 1, 1]


def test_jpeg_colours_are_refused_as_lossy(tmp_path):
    path = tmp_path / "m.jpg"
    Image.fromarray(colored(pattern())).save(path, quality=95)
    with refused(path, "JPEG is lossy", "more colours", "dataset.nearest_colors=true"):
        target(path)
    assert (target(path, nearest_colors=True) == pattern()).mean() > 0.97


def test_colour_masks_need_colours(tmp_path):
    path = save_image(tmp_path / "m.png", colored(pattern()))
    with refused(path, "colour mask", "#804080", "column color"):
        target(path, Classes(LABELS, False))
    with refused("road and sky", "same colour", "#804080"):
        target(path, Classes((*LABELS[:2], Label("sky", 2, 2, ROAD)), True))


def test_numbers_saved_as_rgb(tmp_path):
    path = save_image(tmp_path / "m.png", np.stack([pattern()] * 3, -1))
    np.testing.assert_array_equal(target(path, Classes(LABELS, False)), pattern())
    with refused(path, "#000000", "#010101"):
        target(path)  # the class file has colours, and these are none of them


def test_classes_left_out_are_void_in_every_kind_of_mask(tmp_path):
    expected = np.array([0, 255, 1], np.uint8)[pattern()]
    for name, mask in (("i.png", pattern()), ("c.png", colored(pattern()))):
        np.testing.assert_array_equal(target(save_image(tmp_path / name, mask), void=["car"]), expected)
    assert make_mask_rule(THREE, ["car"]).labels == (LABELS[0], Label("sky", 2, 1, SKY))


def test_a_class_of_several_values_and_colours_in_every_kind_of_mask(tmp_path):
    mask = pattern().astype(np.uint16)
    mask[0, 39], mask[1, 39] = 7, 300
    car = Label("car", 1, 1, CAR, other_ids=(7, 300), other_colors=((9, 9, 9),))
    several = Classes((LABELS[0], car, LABELS[2]), True)
    expected = pattern()
    expected[:2, 39] = 1
    np.testing.assert_array_equal(target(save_image(tmp_path / "i.png", mask), several), expected)
    colors = colored(pattern())
    colors[:2, 39] = 9
    np.testing.assert_array_equal(target(save_image(tmp_path / "c.png", colors), several), expected)
    left_out = np.array([0, 255, 1], np.uint8)[expected]
    np.testing.assert_array_equal(target(tmp_path / "i.png", several, void=["car"]), left_out)
    np.testing.assert_array_equal(target(tmp_path / "c.png", several, void=["car"]), left_out)
    with refused("dataset.void holds 7", "the class car"):
        make_mask_rule(several, [7])


def test_the_rest_is_void_and_counted(tmp_path):
    rule = make_mask_rule(THREE, "rest")
    mask, colors = pattern().astype(np.uint16), colored(pattern())
    mask[0, :3], mask[5, 5] = 60_000, 255
    colors[0, :3], colors[5, 5] = (1, 2, 3), (0, 0, 140)
    expected = pattern()
    expected[0, :3] = expected[5, 5] = 255
    index, color = save_image(tmp_path / "i.png", mask), save_image(tmp_path / "c.png", colors)
    np.testing.assert_array_equal(read_target(index, rule), expected)
    assert f"4 pixels of 1 masks are of no class and void, the first is {index}, the value 255 (1 pixels), 60000" in (
        rule.remarks()[0])
    np.testing.assert_array_equal(read_target(color, rule), expected)
    assert "8 pixels of 2 masks" in rule.remarks()[0]
    assert "#010203 (3 pixels)" in rule.remarks()[0]
    expected[5, 5] = 1
    np.testing.assert_array_equal(target(color, void="rest", nearest_colors=2), expected)  # near ones are taken first
    assert not make_mask_rule(THREE, "rest").remarks()
    with refused("dataset.void=rest", "dataset.binary"):
        make_mask_rule(TWO, "rest", binary=True)
    Image.fromarray(colors).save(tmp_path / "m.jpg")
    with refused("lossy"):  # all that JPEG changed would be void
        target(tmp_path / "m.jpg", void="rest")


def test_one_mask_a_class(tmp_path):
    whole, part = make_mask(), make_mask()
    whole[:10], part[8:20, :4] = 255, 1
    files = {save_image(tmp_path / "car.png", whole): 1, save_image(tmp_path / "sky.png", part): 2}
    expected = np.where(part, 2, whole // 255).astype(np.uint8)
    rule = make_mask_rule(THREE, None, one_a_class=True)
    np.testing.assert_array_equal(read_class_masks(files, rule), expected)
    assert f"overlap in 8 pixels of 1 images, the first is {tmp_path / 'car.png'}" in rule.remarks()[0]
    no_background = Classes((Label("car", 1, 0, CAR), Label("sky", 2, 1, SKY)), True)
    as_void = np.array([255, 0, 1], np.uint8)[expected]
    for void in ([0], "rest"):
        found = read_class_masks(files, make_mask_rule(no_background, void, one_a_class=True))
        np.testing.assert_array_equal(found, as_void)
    with refused(tmp_path / "car.png", "the label 0", "dataset.void=[0,255] or rest"):
        read_class_masks(files, make_mask_rule(no_background, None, one_a_class=True))
    save_image(tmp_path / "sky.png", np.dstack([part * 200, part, part * 0]))  # any colour, any palette
    np.testing.assert_array_equal(read_class_masks(files, rule), expected)
    save_image(tmp_path / "sky.png", part[:20])
    with refused("sky.png", "40x20", "car.png", "40x32"):
        read_class_masks(files, rule)
    part[30, :3] = 200
    save_image(tmp_path / "sky.png", part)
    with refused("sky.png", "3 different values, 0 (1229 pixels), 1 (48 pixels), 200 (3 pixels)", "dataset.threshold"):
        read_class_masks(files, rule)
    cut = read_class_masks(files, make_mask_rule(THREE, None, threshold=128, one_a_class=True))
    np.testing.assert_array_equal(cut, np.where(part == 200, 2, whole // 255))
    with refused("dataset.masks has {class}", "dataset.binary"):
        make_mask_rule(TWO, None, binary=True, one_a_class=True)


# ---- numbers


def test_void_is_255_unless_it_is_said_otherwise(tmp_path):
    mask = pattern()
    mask[0, 0] = 255
    path = save_image(tmp_path / "m.png", mask)
    assert target(path)[0, 0] == 255
    assert target(path, void=[255])[0, 0] == 255
    with refused(path, "255 (1 pixels)", "void is 7"):
        target(path, void=[7])
    mask[0, 0] = 7
    assert target(save_image(path, mask), void=[7, 255])[0, 0] == 255


def test_16_bit_numbers(tmp_path):
    path = save_image(tmp_path / "m.png", pattern().astype(np.uint16))
    np.testing.assert_array_equal(target(path), pattern())
    with refused(path, "from 0 to 514", "dataset.instance_maps"):
        target(save_image(path, pattern().astype(np.uint16) * 257))


def test_bad_void_settings():
    for void, parts in ((["caar"], ["caar", "Did you mean 'car'"]), ([65536], ["65536"]), ([-1], ["-1"]),
                        ([1], ["value of the class car", "dataset.void=[car]"]), (["#804080"], ["colour of the class"]),
                        (["road", "car", "sky"], ["every class"]), ([[1, 2]], ["[1, 2]"])):
        with refused("dataset.void", *parts):
            make_mask_rule(THREE, void)


# ---- two classes


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_black_and_white_is_not_read_in_silence(tmp_path, suffix):
    expected = pattern() // 2
    path = save_image(tmp_path / f"m{suffix}", expected * 255)
    with refused(path, "0 (", "255 (240 pixels)", "dataset.binary=true", "dataset.void=[255]"):
        target(path, TWO)
    np.testing.assert_array_equal(target(path, TWO, binary=True), expected)
    np.testing.assert_array_equal(target(path, TWO, threshold=128), expected)
    assert set(np.unique(target(path, TWO, void=[255]))) == {0, 255}


def test_black_and_white_of_all_kinds(tmp_path):
    expected = pattern() // 2
    image = Image.fromarray(expected * 255)
    made = {"bits.png": image.convert("1"), "bits.tif": image.convert("1"), "rgb.png": image.convert("RGB"),
            "rgba.png": image.convert("RGBA"), "la.png": image.convert("LA"), "one.png": Image.fromarray(expected),
            "palette.gif": image}
    for name, kind in made.items():
        kind.save(tmp_path / name)
        np.testing.assert_array_equal(target(tmp_path / name, TWO, binary=True), expected)
        if name != "one.png":
            np.testing.assert_array_equal(target(tmp_path / name, TWO, threshold=128), expected)
    np.testing.assert_array_equal(target(tmp_path / "rgb.png", Classes(LABELS[:2], True), binary=True), expected)
    with refused("one.png", "dataset.binary=true"):
        target(tmp_path / "one.png", TWO, threshold=128)


def test_binary_masks_hold_nothing_else(tmp_path):
    mask = (pattern() // 2) * 255
    mask[0, :3] = 254
    path = save_image(tmp_path / "m.png", mask)
    with refused(path, "254 (3 pixels)", "dataset.threshold=128"):
        target(path, TWO, binary=True)
    assert target(path, TWO, binary=True, void=[254])[0, :4].tolist() == [255, 255, 255, 0]
    mask[0, :3] = 1
    with refused(path, "1 (3 pixels), 255 (240 pixels)", "one of 1, 255 and 65535"):
        target(save_image(path, mask), TWO, binary=True)


def test_jpeg_masks_are_cut_only_when_asked(tmp_path):
    expected = pattern() // 2
    path = tmp_path / "m.jpg"
    Image.fromarray(expected * 255).resize((80, 64)).save(path, quality=75)
    expected = np.array(Image.fromarray(expected * 255).resize((80, 64))) // 128
    with refused(path, "JPEG is lossy", "different values", "dataset.threshold=128"):
        target(path, TWO)
    with refused(path, "pixels", "dataset.threshold=128"):
        target(path, TWO, binary=True)
    assert (target(path, TWO, threshold=128) == expected).mean() > 0.98
    Image.fromarray(pattern()).save(path, quality=100)
    with refused(path, "JPEG is lossy"):  # no matter that all its values are classes
        target(path)


def test_whatever_is_saved_lossily_is_refused(tmp_path):
    noise = np.random.default_rng(0).integers(0, 3, (32, 40), dtype=np.uint8)
    made = {"a.jpg": {"quality": 100}, "a.tif": {"compression": "jpeg", "quality": 100}, "a.webp": {"quality": 100}}
    for name, options in made.items():
        Image.fromarray(noise).save(tmp_path / name, **options)
        with refused(tmp_path / name, "Save masks as PNG"):
            target(tmp_path / name, Classes(LABELS, False))
        if name != "a.webp":  # those are always in colours
            with refused(tmp_path / name, "saved lossily"):
                read_mask(tmp_path / name)
    for name, options in {"b.tif": {"compression": "tiff_lzw"}, "b.webp": {"lossless": True}}.items():
        Image.fromarray(noise).save(tmp_path / name, **options)
        np.testing.assert_array_equal(target(tmp_path / name, Classes(LABELS, False)), noise)
    Image.fromarray(make_mask(value=1)).save(tmp_path / "one.jpg")
    assert (read_mask(tmp_path / "one.jpg") == 1).all()  # there is no edge that could change


def test_bad_settings_for_two_classes():
    with refused("dataset.binary is for two classes", "road, car, sky"):
        make_mask_rule(THREE, None, binary=True)
    with refused("dataset.threshold is for two classes"):
        make_mask_rule(THREE, None, threshold=128)
    with refused("exclude each other"):
        make_mask_rule(TWO, None, threshold=128, binary=True)


# ---- instance maps


@pytest.mark.parametrize(("name", "array"), [
    ("8.png", pattern() * 100), ("16.png", pattern().astype(np.uint16) * 30_000),
    ("rgb.png", np.dstack([pattern(), make_mask(), pattern() * 9])), ("32.tif", pattern().astype(np.int32) * 1_000_000),
])
def test_instance_maps(tmp_path, name, array):
    found = read_instances(save_image(tmp_path / name, array))
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, pattern())


def test_an_instance_map_without_background_starts_at_1(tmp_path):
    assert set(np.unique(read_instances(save_image(tmp_path / "m.png", pattern() + 4)))) == {1, 2, 3}
    with refused("below.tif", "-1"):
        read_instances(save_image(tmp_path / "below.tif", pattern().astype(np.int32) - 1))


# ---- what a file means


@pytest.mark.parametrize("turn", [1, 3, 6, 8])
def test_masks_are_turned_by_the_rule_of_images(tmp_path, turn):
    """Image, index mask, colour mask and instance map hold the same pixels and the same EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = turn
    square = np.zeros((20, 30), np.uint8)
    square[2:9, 3:8] = 1
    colors = np.where(square[..., None] == 1, np.array([128, 64, 128], np.uint8), np.array([0, 0, 142], np.uint8))
    for name, pixels in (("image.png", colors), ("index.png", square), ("colors.png", colors), ("index.tif", square)):
        Image.fromarray(pixels).save(tmp_path / name, exif=exif)
    shown = (read_image(tmp_path / "image.png")[..., 1] == 64).astype(np.uint8)
    assert shown.shape == ((20, 30) if turn in (1, 3) else (30, 20))
    rule = make_mask_rule(Classes((Label("car", 0, 0, (0, 0, 142)), Label("road", 1, 1, (128, 64, 128))), True), None)
    for name in ("index.png", "colors.png", "index.tif"):
        np.testing.assert_array_equal(read_target(tmp_path / name, rule), shown, err_msg=name)
    for name in ("index.png", "index.tif"):
        np.testing.assert_array_equal(read_instances(tmp_path / name), shown)
        np.testing.assert_array_equal(read_mask(tmp_path / name), shown)


def test_shapes_that_only_transparency_shows_are_refused(tmp_path):
    mask = np.zeros((8, 8, 4), np.uint8)
    mask[2:5, 2:5, 3] = 255
    with refused("mask.png", "transparency tells apart pixels of one colour"):
        target(save_image(tmp_path / "mask.png", mask), TWO)
    with refused("mask.png", "transparency tells apart"):
        target(save_image(tmp_path / "mask.png", mask[..., 2:]), TWO)
    mask[2:5, 2:5, :3] = 1  # now their colour does
    assert target(save_image(tmp_path / "mask.png", mask), TWO)[3, 3] == 1


def test_255_is_a_class_where_void_is_given(tmp_path):
    grey = Classes(tuple(Label(name, value, place, (0, 0, 0)) for place, (name, value) in enumerate(
        {"soil": 0, "leaf": 127, "root": 255}.items())), False)
    path = save_image(tmp_path / "m.png", np.array([[0, 127, 255]], np.uint8))
    with refused("255 is the value of the class root", "dataset.void=[] for nothing"):
        make_mask_rule(grey, None)
    assert read_target(path, make_mask_rule(grey, [])).tolist() == [[0, 1, 2]]


def test_values_of_16_bits(tmp_path):
    deep = save_image(tmp_path / "deep.png", np.array([[0, 65535], [300, 0]], np.uint16))
    classes = Classes((Label("soil", 0, 0, (0, 0, 0)), Label("leaf", 65535, 1, (0, 0, 0))), False)
    assert read_target(deep, make_mask_rule(classes, [300])).tolist() == [[0, 1], [255, 0]]
    white = save_image(tmp_path / "white.png", np.array([[0, 65535]], np.uint16))
    assert target(white, TWO, binary=True).tolist() == [[0, 1]]
    with refused(deep, "300 (1 pixels)", "65535 for"):
        target(deep, TWO, binary=True)


def test_grey_values_that_are_colours_are_told_how_to_be_read(tmp_path):
    classes = Classes((Label("soil", 0, 0, (0, 0, 0)), Label("leaf", 1, 1, (127, 127, 127))), True)
    with refused("127 (1 pixels)", "give each class its grey value as label_id"):
        read_target(save_image(tmp_path / "m.png", np.array([[0, 127]], np.uint8)), make_mask_rule(classes, None))


def test_one_class_is_refused():
    with refused("thing is the only class", "dataset.binary=true"):
        make_mask_rule(Classes((Label("thing", 0, 0, (0, 0, 0)),), False), None)


def test_palettes_that_disagree_are_refused_until_it_is_said_what_counts(tmp_path):
    paths = []
    for number, colors in enumerate(([0, 0, 0, 255, 0, 0], [0, 0, 0, 0, 255, 0])):
        image = Image.fromarray(np.array([[0, 1]], np.uint8), "L").convert("P")
        image.putpalette(colors)
        image.save(tmp_path / f"{number}.png")
        paths.append(tmp_path / f"{number}.png")
    rule = make_mask_rule(TWO, None)
    assert read_target(paths[0], rule).tolist() == [[0, 1]]
    with refused("1.png paints its index 1 in #00ff00", "0.png in #ff0000", "dataset.palette=colors"):
        read_target(paths[1], rule)
    by_index = make_mask_rule(TWO, None, palette="index")
    assert [read_target(path, by_index).tolist() for path in paths] == [[[0, 1]]] * 2
    colors = (Label("soil", 0, 0, (0, 0, 0)), Label("leaf", 1, 1, (255, 0, 0)), Label("root", 2, 2, (0, 255, 0)))
    by_color = make_mask_rule(Classes(colors, True), None, palette="colors")
    assert [read_target(path, by_color).tolist() for path in paths] == [[[0, 1]], [[0, 2]]]
