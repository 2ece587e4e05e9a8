"""Prediction as a user sees it: every file in its place, the same numbers as elsewhere, nothing lost."""

import json
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import UNET, segtrain_exits
from PIL import Image
from torch import nn

from segtrain.data.camvid import CAMVID
from segtrain.data.cityscapes import CITYSCAPES
from segtrain.data.label_files import FileForm, map_file_values, with_colors
from segtrain.errors import UserError
from segtrain.inference import video
from segtrain.inference.forward import InferenceSettings
from segtrain.inference.inputs import Item, find_inputs, select_shard
from segtrain.inference.pipeline import predict_video
from segtrain.inference.predictor import Predictor
from segtrain.inference.video import VideoReader, open_video
from segtrain.inference.writers import Outputs, open_probabilities
from segtrain.labels import Label, make_up_color
from segtrain.profiling import measure_bytes_per_pixel
from segtrain.run.trained import read_classes
from segtrain.visualize import add_legend, blend, colorize, find_occurring

CPU = torch.device("cpu")


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def draw(size, seed):
    """Draw a smooth image, uint8 (H, W, 3)."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    return cv2.resize(small, (size[1], size[0]), interpolation=cv2.INTER_CUBIC)


def read(path):
    return np.asarray(Image.open(path))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on own classes whose data is then removed: a checkpoint must be enough."""
    root = tmp_path_factory.mktemp("predict")
    for split in ("train", "val"):
        for number in range(4):
            image = draw((40, 48), number)
            save(root / "data" / split / "images" / f"{number}.png", image)
            save(root / "data" / split / "masks" / f"{number}.png", (image[..., 0] // 64 % 3).astype(np.uint8))
    (root / "data" / "classes.csv").write_text("name,color\nwall,#ff0000\nfloor,#00ff00\ndoor,#0000ff\n")
    assert segtrain_exits("dataset=folder", f"dataset.root={root}/data", *UNET, "dataset.crop=[32,32]",
                          "train.batch_size=2", "train.epochs=2", "runtime.workers=0", f"hydra.run.dir={root}/run") == 0
    assert segtrain_exits("task=evaluate", f"checkpoint={root}/run", "task.save_predictions=true", "task.worst=0",
                          "runtime.workers=0", f"hydra.run.dir={root}/evaluated") == 0
    shutil.move(root / "data", root / "moved")
    return root


@pytest.fixture
def predict(segtrain, trained, tmp_path):
    """Predict: predict(folder, "task.flip=true") -> exit code, run directory."""
    count = iter(range(100))

    def run(given, *arguments):
        run_dir = tmp_path / f"run{next(count)}"
        code = segtrain("task=predict", f"checkpoint={trained}/run", f"task.input='{given}'",
                        f"hydra.run.dir={run_dir}", *arguments)
        return code, run_dir

    return run


def results(run_dir):
    return json.loads((run_dir / "results.json").read_text())


def outputs(folder, kind="predictions"):
    return {path.relative_to(folder / kind).as_posix() for path in (folder / kind).rglob("*") if path.is_file()}


# ---- what is written


@pytest.mark.slow
def test_predictions_are_those_of_an_evaluation_without_its_dataset(predict, trained):
    code, run_dir = predict(trained / "moved" / "val" / "images")
    assert code == 0
    assert outputs(run_dir) == {f"{number}.png" for number in range(4)} == outputs(trained / "evaluated")
    for name in outputs(run_dir):
        assert np.array_equal(read(run_dir / "predictions" / name), read(trained / "evaluated" / "predictions" / name))
    said = results(run_dir)
    assert (said["task"], said["num_images"], said["num_failed"], said["failed"]) == ("predict", 4, 0, [])
    assert said["seconds"] > 0
    assert said["images_per_second"] > 0
    assert [(each["name"], each["color"]) for each in said["classes"]] == [
        ("wall", [255, 0, 0]), ("floor", [0, 255, 0]), ("door", [0, 0, 255])]


@pytest.mark.slow
def test_every_kind_of_image_keeps_its_name_folder_and_size(predict, tmp_path, capsys):
    rng = np.random.default_rng(0)
    photos = tmp_path / "photos"
    save(photos / "a.jpg", draw((40, 48), 0))
    save(photos / "night" / "a.png", rng.integers(0, 256, (33, 57), np.uint8))
    save(photos / "night" / "deep" / "alpha.png", rng.integers(0, 256, (40, 48, 4), np.uint8))
    save(photos / "sixteen.png", rng.integers(5000, 60000, (40, 48)).astype(np.uint16))
    Image.fromarray(draw((40, 48), 1)).quantize(8).save(photos / "palette.png")
    save(photos / "tiny.png", draw((7, 90), 2))
    turned = Image.fromarray(draw((40, 48), 3))
    turned.getexif()[0x0112] = 6
    turned.save(photos / "turned.jpg", exif=turned.getexif())
    code, run_dir = predict(photos, "task.probabilities=true", "train.batch_size=3")
    assert code == 0
    said = capsys.readouterr().out
    sizes = {"a": (40, 48), "night/a": (33, 57), "night/deep/alpha": (40, 48), "sixteen": (40, 48),
             "palette": (40, 48), "tiny": (7, 90), "turned": (48, 40)}
    for kind, suffix in (("predictions", ".png"), ("overlays", ".jpg"), ("probabilities", ".npy")):
        assert outputs(run_dir, kind) == {f"{name}{suffix}" for name in sizes}
    for name, size in sizes.items():
        pred = read(run_dir / "predictions" / f"{name}.png")
        assert pred.dtype == np.uint8
        assert pred.shape == size
        colored = Image.open(run_dir / "predictions" / f"{name}.png")
        assert np.array_equal(np.asarray(colored.convert("RGB")), np.eye(3, dtype=np.uint8)[pred] * 255)
        counts = {label: (pred == number).mean() for number, label in enumerate(("wall", "floor", "door"))}
        (line,) = re.findall(rf"{re.escape(str(photos / name))}\.\w+: (.*)", said)
        assert line == ", ".join(f"{label} {100 * share:.1f} %" for label, share in sorted(
            counts.items(), key=lambda item: -item[1]) if share)
        shares = np.load(run_dir / "probabilities" / f"{name}.npy", mmap_mode="r")
        assert shares.dtype == np.float16
        assert shares.shape == (3, *size)
        assert np.allclose(shares.astype(float).sum(0), 1, atol=2e-3)
        chosen = np.take_along_axis(shares, pred[None].astype(int), 0)[0]
        assert (chosen >= shares.max(0) - 1e-3).all()
        shown = read(run_dir / "overlays" / f"{name}.jpg")
        assert shown.shape[1] == size[1]
        assert shown.shape[0] > size[0]


def test_an_overlay_is_half_image_half_color_and_its_legend_names_what_occurs():
    image, pred = draw((40, 400), 0), np.zeros((40, 400), np.uint8)
    pred[:, 200:] = 8
    drawn = blend(image, pred, CAMVID)
    assert np.abs(drawn.astype(int) - (image.astype(int) + colorize(pred, CAMVID)) / 2).max() <= 1
    labels = find_occurring(pred, CAMVID)
    assert [label.name for label in labels] == ["Sky", "Car"]
    legend = add_legend(drawn, labels)[40:]
    colors = {tuple(color) for color in legend.reshape(-1, 3)}
    assert {CAMVID[0].color, CAMVID[8].color} <= colors
    assert CAMVID[3].color not in colors
    odd = [replace(CAMVID[0], name="sky\n\x1b[2J"), *CAMVID[1:]]
    assert add_legend(drawn, odd).shape[1] == 400


def test_a_background_lets_the_image_through_and_is_black():
    labels = [Label(name, number, number, make_up_color(number, name)) for number, name in enumerate(
        ("Background", "crop", "weed"))]
    assert labels[0].color == (0, 0, 0)
    assert make_up_color(1, "background") != (0, 0, 0), "only the first class is left out"
    image, pred = draw((40, 48), 0), np.zeros((40, 48), np.uint8)
    pred[:20] = 2
    drawn = blend(image, pred, labels)
    assert np.array_equal(drawn[20:], image[20:])
    assert not np.array_equal(drawn[:20], image[:20])
    form = with_colors(FileForm(), labels)
    assert [tuple(form.palette[number]) for number in range(3)] == [label.color for label in labels]


# as eyes without the receptors for red, or for green, see linear RGB (Machado et al., 2009, severity 1)
EYES = (np.eye(3), np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                             [-0.003882, -0.048116, 1.051998]]),
        np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]))


def test_made_up_colors_are_told_apart_by_all_eyes():
    colors = np.array([(0, 0, 0), *map(make_up_color, range(20))]) / 255
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    for eye in EYES:
        seen = np.clip(linear @ eye.T, 0, 1)
        rgb = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
        lab = cv2.cvtColor(np.float32(rgb)[None], cv2.COLOR_RGB2Lab)[0]
        distances = np.linalg.norm(lab[:, None] - lab[None], axis=2)[~np.eye(len(lab), dtype=bool)]
        assert distances.min() > 15  # 2.3 is just noticeable
    assert len({make_up_color(number) for number in range(255)}) > 240


def test_batches_and_restarts_do_not_change_a_prediction(predict, tmp_path):
    for number, size in enumerate([(40, 48), (33, 57), (40, 48), (33, 57), (40, 48)]):
        save(tmp_path / "photos" / f"{number}.png", draw(size, number))
    _, one = predict(tmp_path / "photos", "train.batch_size=1")
    _, many = predict(tmp_path / "photos", "train.batch_size=4")
    assert len(outputs(one)) == 5
    for name in outputs(one):
        assert np.array_equal(read(one / "predictions" / name), read(many / "predictions" / name))


def test_flip_gives_the_mirror_image_of_the_mirror_image(predict, tmp_path):
    image = draw((40, 48), 5)
    save(tmp_path / "photos" / "as_is.png", image)
    save(tmp_path / "photos" / "mirrored.png", image[:, ::-1])
    _, run_dir = predict(tmp_path / "photos", "task.flip=true", "train.batch_size=1")
    as_is, mirrored = (read(run_dir / "predictions" / f"{name}.png") for name in ("as_is", "mirrored"))
    assert (as_is == mirrored[:, ::-1]).mean() > 0.999


# ---- large images


class Local(nn.Module):
    """A network that sees one pixel: windows must not change what it says."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1)

    def forward(self, images):
        return self.layer(images)


def local_predictor(**options):
    torch.manual_seed(0)
    network = Local()
    return Predictor(network, lambda images: images.permute(0, 3, 1, 2).float(), InferenceSettings(overlap=0.25),
                     device=CPU, precision="fp32", batch_size=4, num_classes=3, **options)


def test_what_exceeds_the_memory_is_cut_into_windows_and_comes_out_the_same(monkeypatch):
    image = draw((700, 900), 0)[None]
    whole = local_predictor()
    assert not whole.plan((700, 900)).is_too_large
    assert whole.plan((700, 900)).num_images == 4
    monkeypatch.setattr("segtrain.inference.predictor.free_memory", lambda device: 2**24)
    monkeypatch.setattr("segtrain.inference.predictor.WINDOW", 256)
    short = local_predictor()
    plan = short.plan((700, 900))
    assert plan.is_too_large
    assert plan.settings.window == (256, 256)
    assert plan.settings.overlap == 0.25
    parts = []
    assert (short(image, lambda top, values: parts.append((top, values))) == whole(image)).mean() > 0.9999
    assert [top for top, _ in parts] == sorted(top for top, _ in parts)
    assert len(parts) > 2
    assert sum(values.shape[2] for _, values in parts) == 700


def test_images_beyond_all_cameras_are_cut_whatever_the_memory(monkeypatch):
    monkeypatch.setattr("segtrain.inference.predictor.free_memory", lambda device: 2**50)
    predictor = local_predictor()
    assert not predictor.plan((4320, 7680)).is_too_large
    assert predictor.plan((10000, 10000)).is_too_large
    assert predictor.plan((10000, 10000)).num_images == 1


def test_the_memory_of_a_pass_is_measured():
    # alive at once at most: an image of 3 x 4 bytes a pixel, and the logits of 3 x 4
    assert measure_bytes_per_pixel(Local(), 3) == 24


def test_windows_that_are_asked_for_are_used_and_said(predict, tmp_path):
    save(tmp_path / "photos" / "a.png", draw((70, 90), 0))
    code, run_dir = predict(tmp_path / "photos", "task.window=[48,64]", "task.overlap=0.5")
    assert code == 0
    assert results(run_dir)["inference"] == {"window": [48, 64], "overlap": 0.5, "flip": False, "scales": [1.0]}
    assert results(run_dir)["num_windowed"] == 0
    assert read(run_dir / "predictions" / "a.png").shape == (70, 90)


def test_a_file_of_probabilities_is_whole_or_not_there(tmp_path):
    values = np.random.default_rng(0).random((3, 10, 7), np.float32)
    with open_probabilities(tmp_path / "a.npy", values.shape) as write:
        write(0, values[:, :4])
        assert not (tmp_path / "a.npy").exists()
        write(4, values[:, 4:])
    assert np.array_equal(np.load(tmp_path / "a.npy"), values.astype(np.float16))
    with pytest.raises(RuntimeError), open_probabilities(tmp_path / "b.npy", values.shape):
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


# ---- what is read


def names(given, output="out"):
    return [item.name for item in find_inputs(str(given), Path(output))[0]]


@pytest.fixture
def photos(tmp_path):
    for name in ("b.png", "a.JPG", "night/a.png", "night/deep/c.webp", ".hidden.png", "[1]/d.png"):
        save(tmp_path / "photos" / name, np.zeros((32, 32, 3), np.uint8), format="PNG")
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    (tmp_path / "photos" / "phone.heic").write_text("no image that can be read")
    (tmp_path / "photos" / "drive.mp4").write_text("")
    return tmp_path / "photos"


def test_inputs_are_found_by_file_folder_pattern_and_list(photos):
    assert names(photos / "b.png") == ["b"]
    assert names(photos) == ["[1]/d", "a", "b", "drive", "night/a", "night/deep/c"]
    assert names(photos / "[1]") == ["d"]
    assert names(photos / "*.png") == ["b"]
    assert names(f"{photos}/**/*.png") == ["[1]/d", "b", "night/a"]
    (photos / "list.txt").write_text(f"night/a.png\n# a remark\n{photos}/b.png\nnight/deep/c.webp,mask.png\n")
    assert names(photos / "list.txt") == ["b", "night/a", "night/deep/c"]
    _, remarks = find_inputs(str(photos), Path("out"))
    assert len(remarks) == 1
    assert ".heic (1)" in remarks[0]


@pytest.mark.slow
def test_predictions_are_no_input_wherever_they_lie(predict, photos):
    (photos / "drive.mp4").unlink()
    expected = names(photos)
    for output in (photos, photos / "out", None):
        code, run_dir = predict(photos, *[f"task.output='{output}'"] if output else [], "task.overlays=true")
        assert code == 0
        assert results(run_dir)["num_found"] == len(expected)
    assert names(photos) == expected


@pytest.mark.parametrize(("break_it", "said"), [
    (lambda photos: save(photos / "b.jpg", np.zeros((32, 32, 3), np.uint8)), "would both be predicted as b"),
    (lambda photos: (photos / "list.txt").write_text("b.png\nnone.png\n"), "list.txt, line 2: "),
    (lambda photos: (photos / "list.txt").write_text("\n"), "lists no file"),
])
def test_what_is_wrong_with_the_input_is_said_before_any_work(photos, break_it, said):
    break_it(photos)
    given = photos / "list.txt" if (photos / "list.txt").exists() else photos
    with pytest.raises(UserError, match=said):
        names(given)


@pytest.mark.parametrize(("given", "said"), [
    ("nowhere", "task.input=nowhere does not exist"), ("empty", "holds no image and no video"),
    ("nowhere/*.png", "holds no image and no video")])
def test_nothing_to_be_found_is_an_error(predict, capsys, tmp_path, monkeypatch, given, said):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    code, run_dir = predict(given)
    assert code == 2
    assert said in capsys.readouterr().err
    assert not run_dir.exists()


@pytest.mark.parametrize("number", [1, 2, 3, 7, 12])
def test_shards_are_all_of_the_input_and_share_nothing(number):
    items = [Item(Path(f"{index}.png"), str(index), False) for index in range(10)]
    parts = [select_shard(items, f"{part}/{number}") for part in range(1, number + 1)]
    assert sorted(item.name for part in parts for item in part) == sorted(item.name for item in items)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("which", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
def test_a_shard_that_is_none_is_refused(which):
    with pytest.raises(UserError, match="i from 1 to n"):
        select_shard([], which)


# ---- faults, restarts, mixed folders


def test_a_broken_image_costs_only_itself(predict, photos, capsys):
    (photos / "drive.mp4").unlink()
    (photos / "b.png").write_text("broken")
    whole = (photos / "a.JPG").read_bytes()
    (photos / "night" / "a.png").write_bytes(whole[:len(whole) // 2])
    code, run_dir = predict(photos)
    assert code == 2
    assert "2 of 5 files failed, all others are done" in capsys.readouterr().err
    assert outputs(run_dir) == {"[1]/d.png", "a.png", "night/deep/c.png"}
    said = results(run_dir)
    assert (said["num_images"], said["num_failed"]) == (3, 2)
    assert [Path(each["file"]).name for each in said["failed"]] == ["b.png", "a.png"]
    assert all(each["file"] in each["reason"] for each in said["failed"])


@pytest.mark.slow
def test_a_restart_does_only_what_is_missing(predict, photos, tmp_path):
    (photos / "drive.mp4").unlink()
    output = f"task.output={tmp_path}/out"
    for part in ("1/2", "2/2"):
        _, run_dir = predict(photos, output, "task.overlays=false", f"task.shard={part}")
        assert results(run_dir)["num_skipped"] == 0
    before = {name: (tmp_path / "out" / "predictions" / name).stat().st_mtime_ns for name in outputs(tmp_path / "out")}
    assert len(before) == 5
    (tmp_path / "out" / "predictions" / "night" / "a.png").unlink()
    _, run_dir = predict(photos, output, "task.overlays=false")
    assert (results(run_dir)["num_skipped"], results(run_dir)["num_images"]) == (4, 1)
    after = {name: (tmp_path / "out" / "predictions" / name).stat().st_mtime_ns for name in outputs(tmp_path / "out")}
    assert {name for name in before if after[name] != before[name]} == {"night/a.png"}
    _, run_dir = predict(photos, output, "task.overlays=true")
    assert results(run_dir)["num_images"] == 5
    assert len(outputs(tmp_path / "out", "overlays")) == 5


def test_a_image_that_is_newer_than_its_prediction_is_predicted_anew(predict, tmp_path):
    save(tmp_path / "photos" / "a.png", draw((40, 48), 0))
    output = f"task.output={tmp_path}/out"
    predict(tmp_path / "photos", output)
    save(tmp_path / "photos" / "a.png", draw((50, 60), 1))
    _, run_dir = predict(tmp_path / "photos", output)
    assert results(run_dir)["num_images"] == 1
    assert read(tmp_path / "out" / "predictions" / "a.png").shape == (50, 60)


@pytest.mark.slow
def test_a_folder_does_not_mix_predictions(segtrain, predict, trained, photos, tmp_path, capsys):
    (photos / "drive.mp4").unlink()
    output = f"task.output={tmp_path}/out"
    predict(photos, output)
    last = trained / "run" / "checkpoints" / "last.pt"
    for arguments, said in (((photos, output, f"checkpoint={last}"), "another checkpoint"),
                            ((photos / "night", output), "another task.input"),
                            ((photos, output, "task.scales=[0.5,1]"), "other windows, overlap, flip or scales")):
        code, run_dir = predict(*arguments)
        assert code == 2
        assert said in capsys.readouterr().err
        assert not run_dir.exists()
    save(tmp_path / "foreign" / "predictions" / "b.png", np.zeros((2, 2), np.uint8))
    code, _ = predict(photos, f"task.output={tmp_path}/foreign")
    assert code == 2
    assert "choose another task.output=" in capsys.readouterr().err


def test_a_run_that_was_stopped_is_resumed(segtrain, predict, tmp_path):
    for number in range(3):
        save(tmp_path / "photos" / f"{number}.png", draw((40, 48), number))
    _, run_dir = predict(tmp_path / "photos", "task.flip=true")
    (run_dir / "results.json").unlink()
    (run_dir / "predictions" / "1.png").unlink()
    assert segtrain(f"resume={run_dir}") == 0
    assert (results(run_dir)["num_skipped"], results(run_dir)["num_images"]) == (2, 1)
    assert results(run_dir)["inference"]["flip"]


@pytest.mark.parametrize(("arguments", "said"), [
    ((), "task=predict needs checkpoint="),
    (("checkpoint=nowhere.pt",), "nowhere.pt does not exist"),
    (("checkpoint=foreign.pt",), "is not a checkpoint of segtrain"),
    (("checkpoint=weights.pt",), "weights.pt holds weights, but not what they were trained for")])
def test_a_checkpoint_that_is_none_is_refused(segtrain, tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {}}, "foreign.pt")
    torch.save({"state_dict": {"a": torch.ones(1)}}, "weights.pt")
    save(Path("photos/a.png"), draw((40, 48), 0))
    assert segtrain("task=predict", "task.input=photos", "hydra.run.dir=run", *arguments) == 2
    assert said in capsys.readouterr().err
    assert not Path("run").exists()


# ---- classes


def test_a_checkpoint_keeps_what_its_dataset_wants_in_files():
    form = FileForm(label_ids=True)
    saved = {"labels": [asdict(label) for label in CITYSCAPES], "file_form": asdict(form),
             "config": {"dataset": {"num_classes": len(CITYSCAPES)}}}
    labels, found = read_classes(saved, Path("best.pt"))
    assert (labels, found) == (CITYSCAPES, form)
    assert map_file_values(labels, found)[:19].tolist() == [label.label_id for label in CITYSCAPES]
    assert map_file_values(CAMVID, FileForm())[:11].tolist() == list(range(11))
    saved["labels"] = saved["labels"][:5]
    with pytest.raises(UserError, match="its table of classes is not that of 19 classes"):
        read_classes(saved, Path("best.pt"))


# ---- videos


def write_video(path, num_frames, size=(40, 48)):
    with open_video(path, 10, size) as write:
        for number in range(num_frames):
            write(draw(size, number))


def frames_of(path):
    return list(VideoReader(path).frames())


def test_a_video_becomes_a_video_of_as_many_frames(predict, tmp_path, capsys):
    (tmp_path / "in" / "day").mkdir(parents=True)
    write_video(tmp_path / "in" / "day" / "drive.mp4", 7)
    save(tmp_path / "in" / "a.png", draw((40, 48), 0))
    (tmp_path / "in" / "broken.mp4").write_text("no video")
    code, run_dir = predict(tmp_path / "in", "train.batch_size=3", f"task.output={tmp_path}/out")
    assert code == 2
    printed = capsys.readouterr()
    assert "7 frames in" in printed.out
    assert "frames a second" in printed.out
    assert "broken.mp4 cannot be read as a video" in printed.err
    said = results(run_dir)
    assert (said["num_images"], said["num_videos"], said["num_frames"], said["num_failed"]) == (1, 1, 7, 1)
    assert said["frames_per_second"] > 0
    assert f"1 images in {1 / said['images_per_second']:.1f} s, " in printed.out  # without the time of the video
    made = VideoReader(tmp_path / "out" / "videos" / "day" / "drive.mp4")
    assert made.frames_per_second == 10
    assert made.size[1] == 48
    assert made.size[0] > 40
    assert len(list(made.frames())) == 7
    assert outputs(tmp_path / "out", "videos") == {"day/drive.mp4"}
    (tmp_path / "in" / "broken.mp4").unlink()
    code, run_dir = predict(tmp_path / "in", f"task.output={tmp_path}/out")
    assert code == 0
    assert results(run_dir)["num_skipped"] == 2


def test_videos_refuse_what_is_for_images(predict, tmp_path, capsys):
    write_video(tmp_path / "drive.mp4", 2)
    code, _ = predict(tmp_path / "drive.mp4", "task.probabilities=true")
    assert code == 2
    assert "task.probabilities=true is for images" in capsys.readouterr().err


def test_a_camera_and_a_stream_are_read_through_opencv(predict, tmp_path, monkeypatch, capsys):
    write_video(tmp_path / "drive.mp4", 4)
    opened, original = [], cv2.VideoCapture

    def open_capture(source):
        opened.append(source)
        return original(str(tmp_path / "drive.mp4") if source in (0, "rtsp://me:secret@cam/a?b=1") else str(source))

    monkeypatch.setattr(cv2, "VideoCapture", open_capture)
    for given, name in (("0", "camera0"), ("rtsp://me:secret@cam/a?b=1", "rtsp_cam_a_b_1")):
        code, run_dir = predict(given)
        assert code == 0
        assert len(frames_of(run_dir / "videos" / f"{name}.mp4")) == 4
        assert not any(b"secret" in path.read_bytes() for path in run_dir.rglob("*") if path.is_file())
    assert 0 in opened
    assert "secret" not in "".join(capsys.readouterr())
    code, _ = predict("7")
    assert code == 2
    assert "camera 7 cannot be opened" in capsys.readouterr().err


def test_ctrl_c_ends_a_stream_and_keeps_what_was_recorded(tmp_path):
    write_video(tmp_path / "drive.mp4", 6)
    outputs = Outputs(tmp_path / "out", CAMVID[:3], FileForm(), False, False)

    def interrupt(num_frames):
        raise KeyboardInterrupt

    item = Item(Path("stream"), "stream", True, str(tmp_path / "drive.mp4"))
    frames, _, fault = predict_video(item, local_predictor(), outputs, interrupt)
    assert (frames, fault) == (4, None)
    assert len(frames_of(tmp_path / "out" / "videos" / "stream.mp4")) == 4
    with pytest.raises(KeyboardInterrupt):
        predict_video(replace(item, path=tmp_path / "drive.mp4", stream=None), local_predictor(), outputs, interrupt)


def test_a_video_that_breaks_off_is_predicted_so_far_and_reported(predict, tmp_path, capsys):
    writer = cv2.VideoWriter(str(tmp_path / "whole.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for number in range(20):
        writer.write(draw((48, 64), number))
    writer.release()
    data = (tmp_path / "whole.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[:len(data) // 2])
    code, run_dir = predict(tmp_path / "cut.avi")
    assert code == 2
    said = results(run_dir)
    assert 0 < said["num_frames"] < 15
    assert "breaks off" in capsys.readouterr().err
    assert len(frames_of(run_dir / "videos" / "cut.mp4")) == said["num_frames"]


def test_a_missing_codec_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(video, "CODEC", "zzzz")
    with pytest.raises(UserError, match="lacks the codec zzzz"), open_video(tmp_path / "a.mp4", 10, (40, 48)):
        pass
    assert not list(tmp_path.iterdir())


def test_a_video_that_fails_half_way_leaves_no_file(tmp_path):
    def break_off(write):
        write(draw((40, 48), 0))
        raise RuntimeError

    with pytest.raises(RuntimeError), open_video(tmp_path / "a.mp4", 10, (40, 48)) as write:
        break_off(write)
    assert not list(tmp_path.iterdir())
