"""task=doctor: a clean dataset gives the numbers counted by hand, and each planted fault is found by name."""

import io
import json
import math

import cv2
import numpy as np
import pytest
import yaml
from helpers import TINY, UNET, composed, mostly_slow
from made_files import Memory, make_sample, save_image
from PIL import Image

from segtrain.data.doctor.findings import check_split, compare_splits, find_all
from segtrain.data.doctor.inspection import count_file_values, describe_image, read_split, summarize
from segtrain.data.folder import Folder
from segtrain.data.hashes import compute_difference_hash, find_equal, find_nearest_hash
from segtrain.data.images import decode
from segtrain.data.statistics import compute_statistics
from segtrain.data.survey import Split, measure
from segtrain.training.state import NEAR_DISTANCE
from segtrain.visualize import shrink

SIZE = (48, 64)


def scene(seed):
    """An image with large shapes, as photos have them; another seed is another scene."""
    cells = np.random.default_rng(seed).integers(40, 200, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(cells, SIZE[::-1], interpolation=cv2.INTER_CUBIC)


def mask(size=SIZE):
    """Half of the pixels of each of two classes."""
    target = np.zeros(size, np.uint8)
    target[size[0] // 2:] = 1
    return target


@pytest.fixture
def root(tmp_path):
    """A dataset of 3 training and 2 validation images without a fault."""
    folder = tmp_path / "data"
    for split, seeds in (("train", (0, 1, 2)), ("val", (3, 4))):
        for seed in seeds:
            save_image(folder / split / "images" / f"{seed}.png", scene(seed))
            save_image(folder / split / "masks" / f"{seed}.png", mask())
    (folder / "classes.csv").write_text("name\nroad\ncar\n")
    return folder


@pytest.fixture
def doctor(segtrain, tmp_path):
    """Run the task on a folder: exit code and report."""
    def run(folder, *overrides):
        out = tmp_path / "run"
        code = segtrain("task=doctor", "dataset=folder", f"dataset.root={folder}", "dataset.crop=[32,32]",
                        "task.examples=0", f"hydra.run.dir={out}", *overrides)
        return code, json.loads((out / "results.json").read_text())

    return run


def found(report):
    return [(each["severity"], each["kind"]) for each in report["findings"]]


# ---- a dataset without a fault


def test_clean_dataset_gives_the_numbers_counted_by_hand(root, doctor, tmp_path, capsys):
    code, report = doctor(root, "task.examples=2")
    assert (code, report["errors"], report["warnings"], report["findings"]) == (0, 0, 0, [])
    train = report["splits"]["train"]
    half = 3 * 48 * 64 // 2
    assert (train["num_images"], train["num_usable"], train["sizes"]) == (3, 3, {"64x48": 3})
    assert train["class_pixels"] == {"road": half, "car": half}
    assert train["class_images"] == {"road": 3, "car": 3}
    assert (train["void_pixels"], train["absent_classes"]) == (0, [])
    values = np.concatenate([scene(seed).reshape(-1, 3) for seed in (0, 1, 2)]) / 255
    np.testing.assert_allclose(report["advice"]["mean"], values.mean(0), atol=1e-4)
    np.testing.assert_allclose(report["advice"]["std"], values.std(0), atol=1e-4)
    assert report["advice"]["crop"] == [32, 64]
    assert report["advice"]["class_weights"]["median_frequency"] == {"road": 1, "car": 1}
    assert report["advice"]["class_weights"]["enet"]["road"] == pytest.approx(1 / math.log(1.52))
    assert report["leaks"] == [{"of": "val", "in": "train", "images": 2, "exact": 0, "near": 0, "near_distance": 6,
                                "share": 0.0}]
    assert "test" in report["left_out"]
    assert Image.open(tmp_path / "run" / "examples.png").width > 500
    said = capsys.readouterr().out
    assert "no errors, no warnings" in said
    assert "road" in said


def test_test_split_is_read_where_there_is_one(root, doctor):
    save_image(root / "test" / "images" / "9.png", scene(9))
    save_image(root / "test" / "masks" / "9.png", mask())
    code, report = doctor(root)
    assert (code, report["left_out"]) == (0, {})
    assert [report["splits"][split]["num_images"] for split in ("train", "val", "test")] == [3, 2, 1]
    assert [(each["of"], each["in"]) for each in report["leaks"]] == [("val", "train"), ("test", "train"),
                                                                      ("test", "val")]


def test_test_split_that_is_asked_for_must_be_there(root, doctor):
    code, report = doctor(root, "task.splits=[train,test]")
    assert (code, found(report), list(report["splits"])) == (2, [("error", "split")], ["train"])
    assert str(root / "test") in report["findings"][0]["message"]


@pytest.mark.slow
def test_settled_settings_train(root, doctor, segtrain, tmp_path):
    assert doctor(root)[0] == 0
    settled = yaml.safe_load((tmp_path / "run" / "conf" / "dataset" / "checked.yaml").read_text())
    assert (settled["num_classes"], settled["crop"], settled["root"]) == (2, [32, 64], str(root))
    out = tmp_path / "trained"
    assert segtrain("--config-dir", str(tmp_path / "run" / "conf"), "dataset=checked", "debug=smoke",
                    "train.batch_size=2", "runtime.workers=0", *UNET, f"hydra.run.dir={out}") == 0
    used = yaml.safe_load((out / "config.yaml").read_text())["dataset"]
    assert (used["mean"], used["std"], used["crop"]) == (settled["mean"], settled["std"], [32, 64])


@pytest.mark.slow
def test_streets_are_without_errors(segtrain, tmp_path):
    assert segtrain("task=doctor", *TINY, f"hydra.run.dir={tmp_path / 'run'}") == 0
    report = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (report["errors"], report["splits"]["val"]["num_images"]) == (0, 3)
    assert "train and val" in report["left_out"]["test"]


# ---- planted faults


def corrupt_image(root):
    path = root / "train" / "images" / "1.png"
    path.write_bytes(b"no image")
    return path


def empty_image(root):
    path = root / "val" / "images" / "3.png"
    path.write_bytes(b"")
    return path


def truncated_mask(root):
    path = save_image(root / "train" / "masks" / "1.png",
                np.random.default_rng(0).integers(0, 2, (480, 640), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:-2000])
    return path


def other_size(root):
    return save_image(root / "train" / "masks" / "1.png", mask((48, 60)))


def unknown_label(root):
    return save_image(root / "val" / "masks" / "4.png", mask() + 6)


def unknown_color(root):
    return save_image(root / "val" / "masks" / "4.png", scene(0))


def deep_mask(root):
    return save_image(root / "train" / "masks" / "0.png", mask().astype(np.uint16) * 1000)


def missing_mask(root):
    (root / "train" / "masks" / "1.png").unlink()
    return root / "train" / "images" / "1.png"


def tiny_image(root):
    save_image(root / "train" / "images" / "1.png", scene(1)[:20])
    return save_image(root / "train" / "masks" / "1.png", mask((20, 64)))


def void_split(root):
    for seed in (3, 4):
        save_image(root / "val" / "masks" / f"{seed}.png", np.full(SIZE, 255, np.uint8))
    return root / "val" / "masks" / "3.png"


def no_split(root):
    (root / "val").rename(root / "validation")
    return root / "val" / "masks"


def class_file(root):
    path = root / "classes.csv"
    path.write_bytes(b"\xff\xfe\x00name")
    return path


def one_class_to_learn(root):
    for seed in (0, 1, 2):
        save_image(root / "train" / "masks" / f"{seed}.png", np.zeros(SIZE, np.uint8))
    return root / "train" / "masks" / "0.png"


ERRORS = [one_class_to_learn, corrupt_image, missing_mask, truncated_mask, other_size, unknown_label, unknown_color,
          deep_mask, empty_image, tiny_image, void_split, no_split, class_file]


@pytest.mark.parametrize("plant", mostly_slow(4, ERRORS))
def test_what_training_would_fail_with_is_an_error(root, doctor, tmp_path, capsys, plant):
    path = plant(root)
    code, report = doctor(root)
    assert (code, report["errors"]) == (2, 1)
    message = next(each["message"] for each in report["findings"] if each["severity"] == "error")
    assert str(path) in message
    said = capsys.readouterr()
    assert message in said.out
    assert "results.json" in said.err
    assert str(path) in said.err
    assert not (tmp_path / "run" / "conf").exists()  # settings of a dataset that cannot be used
    if plant is missing_mask:  # the images that have one are looked at all the same
        assert report["splits"]["train"]["num_usable"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("plant", ERRORS)
def test_training_fails_with_the_same_message(root, doctor, segtrain, tmp_path, capsys, plant):
    plant(root)
    message = next(each["message"] for each in doctor(root)[1]["findings"] if each["severity"] == "error")
    capsys.readouterr()
    assert segtrain("dataset=folder", f"dataset.root={root}", "debug=smoke", *UNET, "train.batch_size=1",
                    "runtime.workers=0", "dataset.crop=[32,32]", f"hydra.run.dir={tmp_path / 'trained'}") == 2
    assert message in capsys.readouterr().err


def absent_class(root):
    (root / "classes.csv").write_text("name\nroad\ncar\nsky\n")
    for seed in (0, 1, 2):
        save_image(root / "train" / "masks" / f"{seed}.png", np.stack([mask(), mask() * 2])[seed % 2])
    return "sky"


def one_class(root):
    for seed in (3, 4):
        save_image(root / "val" / "masks" / f"{seed}.png", np.zeros(SIZE, np.uint8))
    return root / "val" / "masks" / "3.png"


def void_image(root):
    return save_image(root / "train" / "masks" / "1.png", np.full(SIZE, 255, np.uint8))


def sizes(root):
    save_image(root / "train" / "images" / "1.png", scene(1)[:40])
    return save_image(root / "train" / "masks" / "1.png", mask((40, 64)))


def blank_image(root):
    save_image(root / "val" / "images" / "3.png", np.full((*SIZE, 3), 100, np.uint8))
    return "3.png"


def copy_across(root):
    save_image(root / "val" / "images" / "3.bmp", scene(2))
    (root / "val" / "images" / "3.png").unlink()
    return "3.bmp"


def copy_within(root):
    save_image(root / "train" / "images" / "1.png", scene(0))
    return "1.png"


def jpeg_across(root):
    (root / "val" / "images" / "3.png").unlink()
    Image.fromarray(scene(2)).save(root / "val" / "images" / "3.jpg", quality=60)
    return "3.jpg"


def brighter_across(root):
    save_image(root / "val" / "images" / "3.png", np.clip(scene(2) * 1.15 + 10, 0, 255).astype(np.uint8))
    return "3.png"


def smaller_across(root):
    save_image(root / "val" / "images" / "3.png", cv2.resize(scene(2), (40, 36), interpolation=cv2.INTER_AREA))
    save_image(root / "val" / "masks" / "3.png", mask((36, 40)))
    return "3.png"


@pytest.mark.parametrize(("plant", "kinds"), mostly_slow(3, [
    (absent_class, ["absent_class"]), (one_class, ["one_class"]), (void_image, ["void"]), (sizes, ["sizes"]),
    (blank_image, ["flat"]),
    (copy_across, ["duplicate_across"]), (copy_within, ["duplicate"]), (jpeg_across, ["near_duplicate"]),
    (brighter_across, ["near_duplicate"]), (smaller_across, ["sizes", "near_duplicate"]),
]))
def test_what_training_bears_is_a_warning(root, doctor, plant, kinds):
    named = plant(root)
    code, report = doctor(root)
    assert (code, found(report)) == (0, [("warning", kind) for kind in kinds])
    assert str(named) in report["findings"][-1]["message"]


def test_every_faulty_file_is_listed_and_the_others_are_counted(root, doctor, capsys):
    paths = [corrupt_image(root), unknown_label(root), save_image(root / "train" / "images" / "2.png", scene(2)[:20])]
    code, report = doctor(root)
    assert (code, report["errors"]) == (2, 3)
    for path in paths:
        assert sum(str(path) in each["message"] for each in report["findings"]) == 1
    assert (report["splits"]["train"]["num_images"], report["splits"]["train"]["num_usable"]) == (3, 1)
    assert "(3 errors)" in capsys.readouterr().err


def test_terminal_shows_the_first_of_a_kind_and_the_report_all(root, doctor, capsys):
    for number in range(10, 17):
        save_image(root / "train" / "images" / f"{number}.png", scene(number))
        save_image(root / "train" / "masks" / f"{number}.png", mask() + 6)
    code, report = doctor(root)
    assert (code, report["errors"]) == (2, 7)
    said = capsys.readouterr().out
    assert "and 2 more" in said
    assert (f"{root / 'train' / 'masks' / '14.png'} holds" in said, f"{root / 'train' / 'masks' / '15.png'} holds" in
            said) == (True, False)


def test_near_duplicates_may_be_left_out(root, doctor):
    jpeg_across(root)
    code, report = doctor(root, "task.near_distance=null")
    assert (code, report["findings"], report["leaks"][0]["near"]) == (0, [], None)


def test_share_of_leaked_images_counts_each_once(root, doctor):
    jpeg_across(root)
    save_image(root / "val" / "images" / "4.png", scene(0))
    code, report = doctor(root)
    assert code == 0
    assert [report["leaks"][0][key] for key in ("exact", "near", "share")] == [1, 1, 1.0]


def test_instances_that_are_missing_are_errors(root, doctor):
    code, report = doctor(root, "dataset.instances=maps")
    assert (code, len(report["findings"])) == (2, 1)
    assert "has_instances" in report["findings"][0]["message"]
    assert report["findings"][0]["splits"] == ["train", "val"]


@pytest.mark.slow
def test_sweep_lists_a_faulty_dataset_as_failed_and_keeps_its_report(root, segtrain, tmp_path):
    corrupt_image(root)
    sweep = tmp_path / "sweep"
    assert segtrain("-m", "task=doctor", "dataset=folder", f"dataset.root={root}", "dataset.crop=[32,32]",
                    "task.splits=[val],[train,val]", f"hydra.sweep.dir={sweep}") == 2
    rows = json.loads((sweep / "leaderboard.json").read_text())
    assert sorted((row["status"], row["errors"]) for row in rows) == [("done", 0), ("failed", None)]
    assert len(list(sweep.glob("*/results.json"))) == 2


def test_all_images_without_a_label_are_listed(segtrain, tmp_path, capsys):
    images = [save_image(tmp_path / "data" / "leftImg8bit" / split / "x" / f"{number}_leftImg8bit.png", scene(number))
              for split, number in (("train", 0), ("train", 1), ("train", 2), ("val", 3))]
    assert segtrain("task=doctor", "dataset=cityscapes", f"dataset.root={tmp_path / 'data'}",
                    f"hydra.run.dir={tmp_path / 'run'}") == 2
    report = json.loads((tmp_path / "run" / "results.json").read_text())
    files = [(each["splits"], each["files"]) for each in report["findings"] if each["kind"] == "split"]
    assert files == [(["train"], [str(path) for path in images[:3]]), (["val"], [str(images[3])])]
    said = capsys.readouterr().out
    for path in images:
        assert str(path) in said


# ---- files that a dataset tells


@pytest.fixture
def camvid(root):
    for split in ("train", "val"):
        (root / split / "masks").rename(root / f"{split}annot")
        for path in (root / split / "images").iterdir():
            path.rename(root / split / path.name)
        (root / split / "images").rmdir()
    return root


def test_kinds_and_raw_values_of_the_files(camvid, segtrain, tmp_path):
    target = mask()
    target[0] = 11
    save_image(camvid / "trainannot" / "0.png", target)
    assert segtrain("task=doctor", "dataset=camvid", f"dataset.root={camvid}", "dataset.crop=[32,32]",
                    f"hydra.run.dir={tmp_path / 'run'}") == 0
    report = json.loads((tmp_path / "run" / "results.json").read_text())
    train = report["splits"]["train"]
    assert train["image_files"] == {"PNG, RGB, 8 bits": 3}
    assert train["mask_files"] == {"PNG, L, 8 bits": 3}
    half = 3 * 48 * 64 // 2
    assert train["mask_values"] == {
        "1": {"pixels": half, "images": 3, "first": str(camvid / "trainannot" / "0.png")},
        "0": {"pixels": half - 64, "images": 3, "first": str(camvid / "trainannot" / "0.png")},
        "11": {"pixels": 64, "images": 1, "first": str(camvid / "trainannot" / "0.png")}}
    assert report["advice"]["void"]["values"] == [11]


def test_values_outside_the_table_are_listed(camvid, segtrain, tmp_path):
    save_image(camvid / "trainannot" / "0.png", mask() + 20)
    assert segtrain("task=doctor", "dataset=camvid", f"dataset.root={camvid}", "dataset.crop=[32,32]",
                    f"hydra.run.dir={tmp_path / 'run'}") == 2
    report = json.loads((tmp_path / "run" / "results.json").read_text())
    assert report["advice"]["void"]["only_in_refused"].keys() == {"20", "21"}


def test_mask_without_an_image_is_a_warning(camvid, segtrain, tmp_path):
    alone = save_image(camvid / "valannot" / "lonely.png", mask())
    assert segtrain("task=doctor", "dataset=camvid", f"dataset.root={camvid}", "dataset.crop=[32,32]",
                    f"hydra.run.dir={tmp_path / 'run'}") == 0
    report = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [each["files"] for each in report["findings"] if each["kind"] == "unused"] == [[str(alone)]]


@pytest.mark.parametrize(("image", "kind", "values"), [
    (Image.fromarray(mask()), "PNG, L, 8 bits", {"0": 1536, "1": 1536}),
    (Image.fromarray(mask() * 255).convert("1"), "PNG, 1, 1 bit", {"0": 1536, "1": 1536}),
    (Image.fromarray(mask().astype(np.uint16) * 700), "PNG, I;16, 16 bits", {"0": 1536, "700": 1536}),
    (Image.fromarray(np.stack([mask() * 255, mask(), mask()], -1)), "PNG, RGB, 8 bits",
     {"#000000": 1536, "#ff0101": 1536}),
])
def test_kind_and_values_of_a_file(tmp_path, image, kind, values):
    path = tmp_path / "x.png"
    image.save(path)
    assert (decode(path, describe_image), decode(path, count_file_values)) == (kind, values)


# ---- parts


def test_train_ids_outside_the_classes_are_errors():
    split = read("train", [make_sample(mask()), make_sample(mask() + 7)])
    assert [each.kind for each in check_split(split, (32, 32)) if each.severity == "error"] == ["unusable"]
    assert "train id 7" in split.seen[1].fault
    assert summarize(split)["num_usable"] == 1


def test_images_smaller_than_the_crop_are_named():
    split = read("train", [make_sample(mask()), make_sample(mask((48, 40)))])
    warnings = {each.kind: each.files for each in check_split(split, (48, 64))}
    assert warnings["smaller_than_crop"] == [split.seen[1].image]


def test_same_image_with_other_mask_is_a_contradiction():
    split = read("train", [make_sample(mask()), make_sample(1 - mask())])
    assert "contradict" in next(each.message for each in check_split(split, (32, 32)) if each.kind == "duplicate")


def test_remark_of_all_splits_is_told_once(camvid, segtrain, tmp_path):
    assert segtrain("task=doctor", "dataset=camvid", f"dataset.root={camvid}", "dataset.splits=random",
                    "dataset.num_train=2", "dataset.num_val=2", "dataset.crop=[32,32]", "task.examples=0",
                    f"hydra.run.dir={tmp_path / 'run'}") == 0
    report = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [each["splits"] for each in report["findings"] if each["kind"] == "remark"] == [["train", "val", "test"]]


def test_images_are_shrunk_with_their_targets():
    image, target = shrink(scene(0), mask(), most=32)
    assert (image.shape, target.shape) == ((24, 32, 3), (24, 32))
    assert set(np.unique(target)) == {0, 1}


def with_faults(root):
    """Plant what training can see, too, in a dataset; return the kinds."""
    absent_class(root)
    copy_across(root)
    Image.fromarray(scene(0)).save(root / "train" / "images" / "0.png", exif=b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0"
                                   b"\x01\0\0\0\x03\0\0\0\0\0\0\0")
    sizes(root)
    save_image(root / "val" / "masks" / "old.png", mask())
    save_image(root / "val" / "images" / "4.png", np.full((*SIZE, 3), 100, np.uint8))
    return ["absent_class", "absent_class", "duplicate_across", "exif", "flat", "sizes", "unused"]


def test_training_sees_what_the_doctor_sees(root):
    kinds = with_faults(root)
    data = {name: Folder(name, str(root)) for name in ("train", "val")}
    for look in (lambda split: compute_statistics(split, None).seen, lambda split: list(read_split(split, None))):
        splits = [Split(name, split.labels, look(split), split.remarks()) for name, split in data.items()]
        findings, _ = find_all(splits, data, (32, 32), NEAR_DISTANCE, find_unused=True)
        assert sorted(each.kind for each in findings) == kinds
    assert composed("task=doctor").task.near_distance == NEAR_DISTANCE


@pytest.mark.slow
def test_training_shows_its_warnings_in_one_block_once(root, segtrain, tmp_path, capsys):
    kinds, run = with_faults(root), tmp_path / "run"
    assert segtrain("dataset=folder", f"dataset.root={root}", *UNET, "train.batch_size=1", "train.epochs=1",
                    "runtime.workers=0", "runtime.threads=1", "dataset.crop=[32,32]", "train.report=false",
                    f"hydra.run.dir={run}") == 0
    said = capsys.readouterr().out
    assert said.count(f"warning: {len(kinds)} warnings about the data") == 1
    assert all(said.count(f"warning: {kind}, ") == 1 for kind in kinds)
    assert segtrain(f"resume={run}", "train.epochs=2") == 0
    assert "about the data" not in capsys.readouterr().out


def test_flat_images_have_no_near_duplicates():
    splits = [read("train", [make_sample(mask())]), read("val", [make_sample(mask()[:40])])]
    findings, leaks = compare_splits(splits, 64)
    assert (findings, leaks[0]["near"]) == ([], 0)


def read(name, samples):
    data = Memory(samples)
    return Split(name, data.labels, list(read_split(data, None)))


def test_hash_bears_jpeg_size_and_brightness_and_tells_scenes_apart():
    hashes = [compute_difference_hash(scene(seed)) for seed in range(20)]
    for seed in range(20):
        text = io.BytesIO()
        Image.fromarray(scene(seed)).save(text, format="JPEG", quality=50)
        for changed in (np.asarray(Image.open(text)), (scene(seed) * 0.8).astype(np.uint8),
                        cv2.resize(scene(seed), (128, 96), interpolation=cv2.INTER_LINEAR)):
            place, distance = find_nearest_hash(compute_difference_hash(changed), np.array(hashes, dtype=np.uint64))
            assert place == seed
            assert distance <= 6
    others = [find_nearest_hash(value, np.array(hashes[:n] + hashes[n + 1:], dtype=np.uint64))[1]
              for n, value in enumerate(hashes)]
    assert min(others) > 6


def test_nearest_hash_counts_bits():
    assert find_nearest_hash(0b1011, np.array([2**64 - 1, 0b1000, 0b1111], dtype=np.uint64)) == (2, 1)
    assert find_nearest_hash(2**63, np.array([0], dtype=np.uint64)) == (0, 1)


def test_digests_are_of_size_and_values():
    target, other = mask(), mask()
    other[0, 0] = 1
    one, same, turned, changed = (measure(make_sample(values)) for values in (target, target.copy(), target.T, other))
    assert one == same
    assert len({one.image_digest, turned.image_digest, changed.image_digest}) == 2
    assert len({found.target_digest for found in (one, turned, changed)}) == 3
    assert find_equal([b"a", b"b", b"a", b"c"]) == [[0, 2]]
