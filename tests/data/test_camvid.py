"""CamVid in its two releases: layouts, merges, splits, void, and what is said when something is amiss."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from helpers import composed, refused
from made_files import make_image, make_mask, save_image

from segtrain.data.base import Cached, take_first
from segtrain.data.camvid import (
    CAMVID,
    CAMVID_VOID,
    COLORS,
    MERGES,
    OFFICIAL,
    ORIGINAL,
    SPLITS,
    CamVid,
    list_official_names,
)
from segtrain.data.statistics import compute_statistics

COLOR_OF = {name: color for name, color, _, _ in ORIGINAL}
LAYOUTS = {"original": ("701_StillsRaw_full", "LabeledApproved_full", "_L"), "images": ("images", "labels", "_L"),
           "split": ("train", "train_labels", "_L"), "bare": ("train", "train_labels", "")}


def flat(name, size=(32, 40)):
    """Return a label of one class of the original release."""
    return np.full((*size, 3), COLOR_OF.get(name, name), dtype=np.uint8)


def release(root, frames, label=None, layout="original"):
    """Write frames of the original release, all with the same label."""
    images, labels, ending = LAYOUTS[layout]
    for name in frames:
        save_image(root / images / f"{name}.png", make_image())
        save_image(root / labels / f"{name}{ending}.png", flat("Road") if label is None else label)
    return root


def drawn(root, **options):
    return CamVid("train", str(root), splits="random", **options)


# ---- classes


def test_there_are_32_classes_with_a_colour_each():
    assert len(COLOR_OF) == len(set(COLORS)) == 32
    assert {value for color in COLORS for value in color} == {0, 64, 128, 192}
    names = {label.name for label in (*CAMVID, CAMVID_VOID)}
    assert all(set(merge.values()) == names for merge in MERGES.values())
    own = {label.name: label.color for label in CAMVID} | {CAMVID_VOID.name: CAMVID_VOID.color}
    spelled = {"Column_Pole": "Pole", "Sidewalk": "Pavement"}
    shared = {spelled.get(name, name): color for name, color in COLOR_OF.items() if spelled.get(name, name) in own}
    assert shared == own
    assert all(merge[name] == spelled.get(name, name) for merge in MERGES.values() for name in COLOR_OF
               if spelled.get(name, name) in own)


def test_merges_differ_in_three_classes():
    segnet, linknet = MERGES["segnet"], MERGES["linknet"]
    assert {name: (segnet[name], linknet[name]) for name in segnet if segnet[name] != linknet[name]} == {
        "Animal": ("Pedestrian", "Void"), "RoadShoulder": ("Pavement", "Road"), "Wall": ("Building", "Fence")}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("merge", MERGES)
def test_every_colour_becomes_its_class(tmp_path, layout, merge):
    label = np.repeat(np.array(COLORS, dtype=np.uint8)[:, None], 40, axis=1)  # a row each
    data = drawn(release(tmp_path, ["a"], label, layout), merge=merge, num_train=1)
    assert (data.labels, data.names) == (CAMVID, ["a"])
    read = data.read(0)
    np.testing.assert_array_equal(read.image, make_image())
    assert (read.target.dtype, read.instances) == (np.uint8, None)
    names = [label.name for label in CAMVID]
    expected = [names.index(merged) if merged in names else 255 for merged in MERGES[merge].values()]
    np.testing.assert_array_equal(read.target, np.repeat(np.array(expected)[:, None], 40, axis=1))
    assert data.remarks()[1:] == []


def test_index_labels_of_the_original_release(tmp_path):
    save_image(tmp_path / "images" / "a.png", make_image())
    save_image(tmp_path / "labels" / "a_P.png", np.repeat(np.arange(32, dtype=np.uint8)[:, None], 40, axis=1))
    target = drawn(tmp_path, num_train=1).read(0).target
    assert target[[21, 30, 31], 0].tolist() == [0, 255, 1]  # Sky, Void, Wall
    path = save_image(tmp_path / "labels" / "a_P.png", make_mask(value=32))
    with refused(path, "32 (1280 pixels)", "0..31"):
        drawn(tmp_path, num_train=1).read(0)


# ---- splits


def test_official_splits_are_367_101_233_frames_of_701():
    names = {split: list_official_names(split) for split in SPLITS}
    assert [len(names[split]) for split in SPLITS] == [367, 101, 233]
    assert len({name for each in names.values() for name in each}) == 701
    assert names["train"][0] == "0001TP_006690"
    assert names["val"][::100] == ["0016E5_07959", "0016E5_08159"]
    assert {"0016E5_00901", "0006R0_f03930", "0016E5_08640"} <= set(names["train"])
    assert {"0001TP_008550", "0001TP_010380", "Seq05VD_f00000", "Seq05VD_f05100"} <= set(names["test"])
    for parts in OFFICIAL.values():
        for _, _, frames in parts:
            assert all(first < second for first, second in pairwise(frames))


def test_official_splits_are_picked_from_all_folders(tmp_path):
    names = [name for split in SPLITS for name in list_official_names(split)]
    release(tmp_path, names[::2], layout="split")
    for name in names[1::2]:
        save_image(tmp_path / "val" / f"{name}.png", make_image())
        save_image(tmp_path / "val_labels" / f"{name}_L.png", flat("Sky"))
    save_image(tmp_path / "val" / "more.png", make_image())
    save_image(tmp_path / "val_labels" / "more_L.png", flat("Sky"))
    for split in SPLITS:
        assert CamVid(split, str(tmp_path)).names == list_official_names(split)
    assert compute_statistics(CamVid("val", str(tmp_path)), None).class_pixels[0] == 1280 * 51
    (tmp_path / "train" / "0001TP_006690.png").unlink()
    with refused("1 of the 367 frames", "split train", "0001TP_006690", tmp_path, "dataset.splits=random"):
        CamVid("train", str(tmp_path))


def test_a_holdout_divides_the_official_train_split(tmp_path):
    names = list_official_names("train")
    for name in names:
        save_image(tmp_path / "train" / f"{name}.png", make_image((4, 4)))
        save_image(tmp_path / "trainannot" / f"{name}.png", make_mask((4, 4), 1))

    def split(holdout, which):
        return CamVid(which, str(tmp_path), holdout=holdout).names

    for holdout, number in (("fold_a", 101), ("fold_b", 84), (["0001TP", "0016E5:8190-9000"], 62 + 16)):
        train, val = split(holdout, "train"), split(holdout, "val")
        assert (len(val), sorted(train + val)) == (number, names)
    assert {name[:6] for name in split("fold_a", "val")} == {"0006R0"}
    assert split("fold_b", "val")[::83] == ["0001TP_008070", "0016E5_02400"]
    for holdout, parts in (("fold_c", ["fold_a or fold_b", "Did you mean"]), (["0006R1"], ["0001TP, 0006R0, 0016E5"]),
                           (["0016E5:1-2"], ["holds no frame"]), ([], ["leaves the split val empty"]),
                           (["0001TP", "0006R0", "0016E5"], ["leaves the split train empty"])):
        with refused("dataset.holdout", *parts):
            split(holdout, "val")
    with refused("dataset.splits=random"):
        CamVid("val", str(tmp_path), splits="random", holdout="fold_a")


def test_random_splits_share_no_frame_and_follow_the_seed(tmp_path):
    frames = [f"f{number:03}" for number in range(70)]
    release(tmp_path, frames)

    def splits(**options):
        return [CamVid(split, str(tmp_path), splits="random", **options).names for split in SPLITS]

    names = splits()
    assert [len(each) for each in names] == [37, 10, 23]
    assert sorted(name for each in names for name in each) == frames
    assert splits() == names
    assert splits(seed=1) != names
    assert all(each == sorted(each) for each in names)
    assert [len(each) for each in splits(num_train=20)] == [20, 10, 40]
    assert [len(each) for each in splits(num_train=20, num_val=45)] == [20, 45, 5]


def test_random_splits_of_the_merged_release_use_all_its_frames(tmp_path):
    for split in ("train", "val"):
        for number in range(5):
            save_image(tmp_path / split / f"{split}{number}.png", make_image())
            save_image(tmp_path / f"{split}annot" / f"{split}{number}.png", make_mask(value=3))
    data = CamVid("train", str(tmp_path), splits="random", num_train=9, num_val=1)
    assert len(data.names) == 9
    assert compute_statistics(data, None).class_pixels[3] == 9 * 1280


def test_random_splits_say_that_they_leak_through_every_view(tmp_path):
    data = drawn(release(tmp_path, "abc"), num_train=2)
    for seen in (data, Cached(data), take_first(data, 1), Cached(take_first(data, 1))):
        assert [remark.split(":")[0] for remark in compute_statistics(seen, None).remarks] == ["dataset.splits=random"]
    save_image(tmp_path / "x" / "train" / "a.png", make_image())
    save_image(tmp_path / "x" / "trainannot" / "a.png", make_mask())
    assert compute_statistics(CamVid("train", str(tmp_path / "x")), None).remarks == []


# ---- void


def test_colours_of_no_class_are_void_and_counted_once(tmp_path):
    label = flat("Sky")
    label[0, :3] = 64
    label[1, 0] = (1, 2, 3)
    release(tmp_path, ["a", "b"], label)
    release(tmp_path, ["c"])
    data = drawn(tmp_path, num_train=3)
    for _ in range(2):  # as every epoch reads
        found = compute_statistics(data, None)
    assert found.class_pixels[0] == 2 * (1280 - 4)
    (remark,) = found.remarks[1:]
    assert "labels with colours of no class: 2, 8 pixels" in remark
    assert "a_L.png, #404040 (3 pixels), #010203 (1 pixels)" in remark
    assert CamVid("train", str(tmp_path), splits="random", num_train=3, include_void=True).read(0).target[0, 0] == 11


def test_image_that_is_no_label_is_refused(tmp_path):
    release(tmp_path, ["a"], make_image())
    with refused(tmp_path / "LabeledApproved_full" / "a_L.png", "and 12", "32 classes", "original colours"):
        drawn(tmp_path, num_train=1).read(0)
    mask = make_mask()
    mask[:3] = 5  # numbers of classes, most of them 0
    release(tmp_path, ["a"], mask)
    with refused("#050505 (120 pixels)", "original colours"):
        drawn(tmp_path, num_train=1).read(0)


def test_void_can_be_a_class(tmp_path):
    label = flat("Sky")
    label[0] = 0
    release(tmp_path / "b", ["a"], label)
    save_image(tmp_path / "a" / "train" / "a.png", make_image())
    mask = make_mask()
    mask[0], mask[1] = 11, 255
    save_image(tmp_path / "a" / "trainannot" / "a.png", mask)
    for root, last in (("a", 255), ("b", 0)):
        data = CamVid("train", str(tmp_path / root), splits="random", num_train=1, include_void=True)
        assert [label.name for label in data.labels][10:] == ["Bicyclist", "Void"]
        assert data.read(0).target[:3, 0].tolist() == [11, last, 0]


def test_number_of_classes_follows_void(hydra):
    for options, number in (((), 11), (("dataset.include_void=true",), 12)):
        cfg = composed("dataset=camvid", *options)
        assert (cfg.dataset.num_classes, cfg.model["num_classes"]) == (number, number)


# ---- refusals


@pytest.mark.parametrize(("options", "parts"), [
    ({"splits": "mine"}, ["dataset.splits=mine", "official and random"]),
    ({"merge": "mine"}, ["dataset.merge=mine", "segnet and linknet"]),
    ({"seed": -1}, ["dataset.seed=-1"]),
    ({"num_train": 3}, ["dataset.num_train", "dataset.splits=random"]),
    ({"num_val": 3}, ["dataset.num_val", "dataset.splits=random"]),
    ({"splits": "random", "num_train": 0}, ["dataset.num_train=0", "at least 1"]),
    ({"splits": "random", "num_train": 4}, ["dataset.num_train=4", "3 labelled frames"]),
    ({"splits": "random", "num_train": 2, "num_val": 2}, ["dataset.num_val=2", "3 labelled frames"]),
    ({"split": "test", "splits": "random", "num_train": 2, "num_val": 1}, ["no frame for the split test"]),
])
def test_bad_options(tmp_path, options, parts):
    release(tmp_path, "abc")
    with refused(*parts):
        CamVid(**{"split": "train", "root": str(tmp_path), **options})


def test_merged_labels_cannot_be_merged_otherwise(tmp_path):
    save_image(tmp_path / "train" / "a.png", make_image())
    save_image(tmp_path / "trainannot" / "a.png", make_mask())
    with refused("dataset.merge=linknet", tmp_path, "original release"):
        CamVid("train", str(tmp_path), merge="linknet")


def test_missing_folders_and_labels(tmp_path):
    with refused(tmp_path / "no", "not a folder", "dataset.root"):
        CamVid("train", str(tmp_path / "no"))
    with refused(tmp_path, "701_StillsRaw_full and LabeledApproved_full", "dataset.root"):
        CamVid("train", str(tmp_path))
    release(tmp_path, "ab")
    label = tmp_path / "LabeledApproved_full" / "b_L.png"
    save_image(tmp_path / "LabeledApproved_full" / "b_P.png", make_mask())
    with refused(label, "b_P.png", "keep one"):
        drawn(tmp_path)
    (tmp_path / "LabeledApproved_full" / "b_P.png").unlink()
    label.unlink()
    with refused(tmp_path / "701_StillsRaw_full" / "b.png", "no mask", "b_L.png"):
        drawn(tmp_path)
    save_image(label, flat("Sky", (40, 32)))
    with refused(label, "40x32", "32x40"):
        compute_statistics(drawn(tmp_path, num_train=2), None)
    label.write_bytes(b"no image")
    with refused(label, "cannot be read"):
        compute_statistics(drawn(tmp_path, num_train=2), None)


def test_frames_without_a_label_are_left_out_where_that_is_set(tmp_path):
    (release(tmp_path, "abcd") / "LabeledApproved_full" / "b_L.png").unlink()
    with refused("1 of 4 images have no mask", "dataset.skip_without_mask=true"):
        drawn(tmp_path)
    data = drawn(tmp_path, num_train=3, skip_without_mask=True)
    assert data.names == ["a", "c", "d"]
    assert "1 of 4 images have no mask and are left out" in data.remarks()[0]


def test_frame_in_two_folders_is_refused(tmp_path):
    release(tmp_path, "a", layout="original")
    release(tmp_path, "a", layout="images")
    with refused(tmp_path / "701_StillsRaw_full" / "a.png", tmp_path / "images" / "a.png", "same frame"):
        drawn(tmp_path)


# ---- the command

RUN = ("dataset=camvid", "dataset.crop=[32,32]", "train.batch_size=2", "runtime.workers=0", "runtime.threads=1",
       "train.epochs=1", "train.num_images=2", "train.report=false", "hydra.run.dir=run")


@pytest.mark.slow
def test_train_and_evaluate_the_original_release(segtrain, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    label = flat("Sky")
    label[:16] = COLOR_OF["LaneMkgsDriv"]
    label[0] = 0
    label[1, 0] = 64
    release(tmp_path / "data", "abcdefghijkl", label)
    assert segtrain(*RUN, "dataset.root=data", "dataset.include_void=true", "dataset.splits=random") == 0
    assert "labels with colours of no class: 2, 2 pixels" in capsys.readouterr().out
    assert segtrain("task=evaluate", "checkpoint=run", "dataset.split=test", "hydra.run.dir=test") == 0
    results = json.loads(Path("test/results.json").read_text())
    assert (results["num_images"], results["policy"]["num_classes"]) == (4, 12)
    pixels = [sum(row) for row in results["confusion_matrix"]]
    assert (pixels[0], pixels[3], pixels[11], sum(pixels)) == (4 * 640, 4 * (15 * 40 - 1), 4 * 41, 4 * 1280)


@pytest.mark.slow
def test_random_splits_are_warned_of(segtrain, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    label = flat("Sky")
    label[:9] = flat("Road")[:9]
    release(tmp_path / "data", "abcdefgh", label)
    assert segtrain(*RUN, "dataset.root=data", "dataset.splits=random") == 0
    assert capsys.readouterr().out.count("near-duplicates") == 1
    assert segtrain(*RUN, "dataset.root=data", "hydra.run.dir=other") == 2
    assert "367 of the 367 frames" in capsys.readouterr().err
    assert not Path("other").exists()


@pytest.mark.slow
def test_benchmark_needs_no_camvid(segtrain, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert segtrain("task=benchmark", "dataset=camvid", "task.size=[32,32]", "task.repeats=1", "task.seconds=0.01",
                    "runtime.threads=1", "dataset.include_void=true", "hydra.run.dir=run") == 0
