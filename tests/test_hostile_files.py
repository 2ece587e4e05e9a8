"""Files that others made to do harm: nothing in them is executed, nothing is written outside the run directory."""

import copy
import io
import json
import os
import pickle
import shutil
import struct
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from helpers import TINY, mostly_slow
from PIL import Image

from segtrain.config import instantiate
from segtrain.config.saved import read_config
from segtrain.data.base import Dataset
from segtrain.data.cityscapes import draw
from segtrain.data.class_files import read_class_file
from segtrain.data.images import read_image
from segtrain.data.streets.dataset import Streets
from segtrain.data.voc import Voc
from segtrain.errors import UserError
from segtrain.run import directory
from segtrain.sweep import leaderboard, table
from segtrain.terminal import printable

SMALL = (*TINY, "model=unet", "model.width=2", "optim=sgd", "augmentation=crop_flip")
FETCH = {"_target_": "segtrain.data.download.fetch", "url": "http://127.0.0.1:9/x", "path": "harm"}
SYSTEM = {"_target_": "os.system", "command": "touch harm"}
SECRET = "a-secret-of-this-machine"


class Payload:
    """What a pickle may hold: a call."""

    def __reduce__(self):
        return os.system, ("touch harm",)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train for two steps; the tests alter copies of what it leaves."""
    from hydra.core.global_hydra import GlobalHydra

    from segtrain import cli

    run = tmp_path_factory.mktemp("trained") / "run"
    arguments = sys.argv
    sys.argv = ["segtrain", f"hydra.run.dir={run}", "train.epochs=2", "train.max_steps=2", *SMALL]
    GlobalHydra.instance().clear()
    try:
        with pytest.raises(SystemExit) as ended:
            cli.main()
    finally:
        sys.argv = arguments
    assert ended.value.code == 0
    return run


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Work in an empty folder, with a secret in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("SECRET", SECRET)


@pytest.fixture
def run(trained):
    """Copy the run directory, told to train for another step."""
    shutil.copytree(trained, "run")
    (Path("run") / "results.json").unlink()
    return Path("run")


@pytest.fixture
def refused(segtrain, capsys):
    """Run the command, which must be refused: exit 2, one line without control characters, nothing new, no harm."""

    def check(*arguments):
        before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
        capsys.readouterr()
        assert segtrain(*arguments) == 2
        error = capsys.readouterr().err
        assert "Traceback" not in error
        assert error.startswith("segtrain: ")
        assert error.endswith("\n")
        message = error.removeprefix("segtrain: ").removesuffix("\n")
        assert message.isprintable(), message
        assert SECRET not in message
        left = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file() and path.suffix != ".log"}
        assert left == {path: data for path, data in before.items() if path.suffix != ".log"}
        return message

    return check


def altered(state, key, value):
    """Set one value of a nested dict, in a copy of it."""
    state = copy.deepcopy(state)
    *parents, name = key.split(".")
    node = state
    for parent in parents:
        node = node[parent]
    node[name] = value
    return state


def evaluate(refused, path, *arguments):
    return refused("task=evaluate", f"checkpoint={path}", "hydra.run.dir=evaluated", *arguments)


# ---- checkpoints


@pytest.fixture
def best(trained):
    return torch.load(trained / "checkpoints" / "best.pt", weights_only=True)


def test_a_pickle_in_a_checkpoint_is_not_executed(refused, best):
    torch.save({**best, "progress": Payload()}, "hidden.pt")
    Path("raw.pt").write_bytes(pickle.dumps(Payload()))
    for name in ("hidden.pt", "raw.pt"):
        message = evaluate(refused, name)
        assert f"{name} is damaged or not a checkpoint" in message
        assert "none of it was executed" in message
        assert "False" not in message, "torch advises to load it without protection"
    torch.save({"fc.weight": torch.zeros(1), "x": Payload()}, "encoder.pt")
    assert "pretrained=encoder.pt: holds other things than tensors" in refused("model.pretrained=encoder.pt", *TINY)


@pytest.mark.parametrize("node", [SYSTEM, FETCH, {"_target_": "segtrain.data.download.fetch", "root": "harm"},
                                  {"_target_": "builtins.exec", "source": "open('harm', 'w')"},
                                  {"_target_": "segtrain.data.cityscapes.os.system", "command": "touch harm"}],
                         ids=lambda node: node["_target_"])
@pytest.mark.parametrize("key", ["model", "optim", "scheduler", "loss", "dataset", "augmentation.flip",
                                 "augmentation.more", "dataset.seed", "loss.class_weights", "model.width", "optim.lr",
                                 "augmentation.flip.p", "scheduler.power"])
def test_a_foreign_target_in_a_saved_config_is_refused(trained, key, node):
    saved = altered(read_config(trained / "config.yaml"), key, node)
    with pytest.raises(UserError, match="among what may be built from a file") as found:
        instantiate.check_trust(saved, [], [])
    assert f"{key}._target_={node['_target_']}" in str(found.value)


def test_a_foreign_target_in_a_list_is_refused_too(refused, best):
    torch.save(altered(best, "config.loss.x", [0, [SYSTEM]]), "x.pt")
    assert "loss.x[1][0]._target_=os.system" in evaluate(refused, "x.pt")


def test_only_datasets_are_built_as_datasets():
    assert issubclass(Streets, Dataset)
    assert issubclass(Voc, Dataset)
    assert not issubclass(Image.Image, Dataset)


@pytest.mark.parametrize("value", ["${oc.env:SECRET}", "${if:true,val,val}", "${swept_keys:1}", "a${seed}"])
def test_an_interpolation_in_a_checkpoint_is_not_resolved(refused, best, value):
    torch.save(altered(best, "config.dataset.split", value), "x.pt")
    assert f"dataset.split={value} is an interpolation" in evaluate(refused, "x.pt")


def test_a_file_does_not_choose_where_data_are_fetched_to(refused, best):
    voc = {"_target_": "segtrain.data.voc.Voc", "root": "fetched", "download": True, "classes": None}
    state = altered(best, "config.dataset", {**best["config"]["dataset"], **voc})
    for key in ("height", "width", "num_train", "num_val", "seed"):
        state["config"]["dataset"].pop(key)
    torch.save(state, "x.pt")
    assert "fetched/JPEGImages is not a folder" in evaluate(refused, "x.pt")


@pytest.mark.parametrize(("key", "value", "said"), mostly_slow(3, [
    ("model", None, "model is not what"), ("model", {"a": 1}, "model.a is not what"), ("model", {1: 2}, "model.1"),
    ("config", None, "config is not what"), ("config", [1], "config is not what"), ("config", {1: 2}, "config.1"),
    ("config", {}, "has no value"), ("config", {"dataset": "x"}, "dataset=x has the wrong type: it is a section"),
    ("config", {"dataset": [1]}, "dataset=[1] has the wrong type"), ("config.train", 3, "train=3 has the wrong type"),
    ("config.train.epochs", "many", "train.epochs=many has the wrong type"),
    ("config.x", torch.zeros(1), "x is a Tensor"),
    ("config.train.batch_size", 2**40, "train.batch_size=1099511627776 is too large"),
    ("config.dataset.num_val", 10**12, "num_val=1000000000000: must be"),
    ("config.dataset.height", 10**9, "height=1000000000: must be"),
    ("class_sizes", 3, "class_sizes is not what"), ("class_sizes", {"Unicorn": 3.0}, "class Unicorn"),
    ("class_pixels", "many", "class_pixels is not what"), ("class_pixels", [-1], "class_pixels.0 is not what"),
    ("epoch", -1, "epoch is not what"), ("epoch", "x\n\x1b[2J", "epoch is not what"), ("step", None, "step is not"),
    ("optimizer", 7, "optimizer is not what"), ("format", "segtrain-9", "is not a checkpoint of segtrain (segtrain-1)"),
]))
def test_a_checkpoint_with_something_else_in_a_place_is_refused(refused, best, key, value, said):
    torch.save(altered(best, key, value), "x.pt")
    message = evaluate(refused, "x.pt")
    assert said in message


def test_a_checkpoint_without_a_key_is_refused(refused, best):
    best.pop("rng")
    torch.save(best, "x.pt")
    assert "x.pt is damaged: rng is not what segtrain writes there" in evaluate(refused, "x.pt")


def test_a_config_nested_a_hundred_deep_is_refused(refused, best):
    node = {}
    for _ in range(100):
        node = {"a": node}
    torch.save(altered(best, "config.extra", node), "x.pt")
    assert "nested too deep" in evaluate(refused, "x.pt")


@pytest.mark.parametrize(("make", "said"), mostly_slow(3, [
    (lambda weight: torch.zeros(1).expand(10**9, 10**6), "(1000000000, 1000000) instead of (2, 3, 3, 3)"),
    (lambda weight: weight.to(torch.int8), "int8"), (lambda weight: weight.to(torch.complex64), "complex64"),
    (lambda weight: weight.to_sparse(), "of another type"), (lambda weight: weight.to("meta"), "of another type"),
    (lambda weight: torch.quantize_per_tensor(weight, 0.1, 0, torch.quint8), "quint8"),
    (lambda weight: weight * float("nan"), "the loss over 3 images is nan"),
]), ids=["gigantic", "int8", "complex", "sparse", "meta", "quantized", "nan"])
@pytest.mark.filterwarnings("ignore")  # torch's on quantization
def test_weights_of_another_size_or_kind_are_refused(refused, best, make, said):
    name = next(iter(best["model"]))
    best["model"][name] = make(best["model"][name])
    torch.save(best, "x.pt")
    assert said in evaluate(refused, "x.pt")


def test_a_packed_checkpoint_is_refused_before_it_is_unpacked(refused, trained):
    with zipfile.ZipFile(trained / "checkpoints" / "best.pt") as source, zipfile.ZipFile(
            "x.pt", "w", zipfile.ZIP_DEFLATED) as bomb:
        for entry in source.infolist():
            bomb.writestr(entry.filename, bytes(2**26) if entry.filename.endswith("/data/0") else source.read(entry))
    assert "is a compressed archive" in evaluate(refused, "x.pt")


def test_files_of_other_kinds_are_no_checkpoints(refused, trained):
    whole = (trained / "checkpoints" / "best.pt").read_bytes()
    with tarfile.open("tar.pt", "w") as archive:
        archive.add(trained / "config.yaml", "../harm")
    for name, data in {"empty.pt": b"", "zero.pt": bytes(999), "half.pt": whole[:len(whole) // 2]}.items():
        Path(name).write_bytes(data)
    torch.save([1], "list.pt")
    for name in ("tar.pt", "empty.pt", "zero.pt", "half.pt", "list.pt"):
        assert f"{name} is " in evaluate(refused, name)


# ---- run directories


@pytest.mark.parametrize(("text", "said"), mostly_slow(3, [
    ("a: &a [1]\nb: *a\n", "YAML aliases"),
    ("a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60)), "YAML aliases"),
    ("a0: &a0 {k: x}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 60)), "aliases"),
    ("x: !!python/object/apply:os.system ['touch harm']\n", "not valid YAML"),
    ("x: !!python/name:os.system ''\n", "not valid YAML"),
    ("[" * 50_000, "nested too deep"), ("a: " * 1000, "not valid YAML"), ("x" * 2_000_000, "larger than"),
    ("\x00\x01", "not valid YAML"), ("? [1, 2]\n: 3\n", "valid YAML"), ("1: 2\n", "has the key 1"),
    ("seed: ${oc.env:SECRET}\n", "is an interpolation"),
]))
def test_a_run_directory_with_a_hostile_config_is_refused(refused, text, said):
    Path("run").mkdir()
    Path("run/config.yaml").write_text(text)
    message = refused("resume=run")
    assert said in message
    assert "run/config.yaml" in message


@pytest.mark.parametrize("key", ["optim", "dataset.seed", "augmentation.flip", "loss.class_weights"])
def test_a_run_directory_with_a_foreign_target_is_refused(refused, run, key):
    saved = read_config(run / "config.yaml")
    (run / "config.yaml").write_text(yaml.safe_dump(altered(saved, key, SYSTEM)))
    assert f"{key}._target_=os.system in the saved configuration" in refused("resume=run", "train.epochs=3")


@pytest.mark.parametrize("name", ["train.log", "metrics.csv", "config.yaml", "checkpoints"])
def test_a_run_directory_with_links_to_elsewhere_is_not_written_into(refused, run, name):
    outside = Path("outside")
    shutil.move(run / name, outside)
    (run / name).symlink_to(outside.absolute())
    assert f"run/{name} is a link to {outside.absolute()}" in refused("resume=run", "train.epochs=3")


def test_links_within_a_run_and_to_a_run_are_the_users_own(segtrain, trained):
    shutil.copytree(trained, "there")
    Path("run").symlink_to("there")
    Path("there/checkpoints/final.pt").symlink_to("best.pt")
    directory.refuse_links(Path("run"))
    assert segtrain("resume=run") == 0


def test_a_link_in_the_place_of_a_temporary_file_is_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (tmp_path / "x.json.tmp").symlink_to(outside)
    from segtrain.files import write_text
    write_text(tmp_path / "x.json", "new")
    assert ((tmp_path / "x.json").read_text(), outside.read_text()) == ("new", "mine")


@pytest.mark.parametrize(("key", "value"), mostly_slow(3, [
    ("progress", None), ("progress.best", 3), ("progress.epoch", "x"), ("progress.loss_sums", [None]),
    ("rng", None), ("rng", {"cpu": torch.zeros(3), "cuda": []}), ("scheduler", {"last_epoch": "x"}),
    ("optimizer", None), ("optimizer", {}), ("optimizer", {"state": {}, "param_groups": [{"params": [1] * 46}]}),
    ("optimizer.param_groups", "x"), ("scaler", None)]))
def test_a_state_that_cannot_be_restored_is_refused(segtrain, capsys, run, key, value):
    path = run / "checkpoints" / "last.pt"
    torch.save(altered(torch.load(path, weights_only=True), key, value), path)
    assert segtrain("resume=run", "train.max_steps=3") in ((0, 2) if key in ("scaler", "scheduler") else (2,))
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert not error or "last.pt" in error


@pytest.mark.parametrize("text", mostly_slow(2, [
    "", "[", "[1]", "null", '{"miou": "much"}', "[" * 100_000, '"\\u001b[2J"']))
def test_a_hostile_results_file_is_refused(refused, trained, text):
    shutil.copytree(trained, "run")
    Path("run/results.json").write_text(text)
    assert "run/results.json" in refused("resume=run")


@pytest.mark.parametrize("text", ["", "{}", "[3]", '[{"job": 1}]', '[{"job": "x", "status": "done"}]', "[" * 99_999,
                                  '[{"job": "x", "status": "done", "error": null, "miou": "much"}]'])
def test_a_hostile_leaderboard_is_refused(tmp_path, text):
    (tmp_path / "leaderboard.json").write_text(text)
    with pytest.raises(UserError, match=r"leaderboard\.json"):
        leaderboard.update(tmp_path, tmp_path / "job", "train", [], error="failed")
    assert (tmp_path / "leaderboard.json").read_text() == text


def test_a_leaderboard_does_not_speak_to_the_terminal(tmp_path, capsys):
    row = {"job": "x\x1b[2J", "status": "failed", "task": "train", "settings": {}, "overrides": "",
           "error": "\x1b]0;owned\x07"}
    (tmp_path / "leaderboard.json").write_text(json.dumps([row]))
    leaderboard.update(tmp_path, tmp_path / "job", "train", [], error="failed")
    shown = table.format_leaderboard(tmp_path)
    assert "\x1b" not in shown + capsys.readouterr().out
    assert r"x\x1b[2J" in shown


@pytest.mark.parametrize("text", mostly_slow(1, ["epoch\nx\n", "a,b\n1,2\n", "\x00", '"', "epoch\n-3\n"]))
def test_a_hostile_metrics_file_is_refused_or_read_as_text(segtrain, capsys, run, text):
    (run / "metrics.csv").write_text(text)
    assert segtrain("resume=run", "train.max_steps=3") in (0, 2)
    assert "Traceback" not in capsys.readouterr().err


# ---- data


def png(width, height, rows=b""):
    """Write a PNG's frame around rows, whatever size it declares."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


@pytest.mark.parametrize("size", [(100_000, 100_000), (2**31 - 1, 2**31 - 1), (20_000, 20_000)])
def test_a_image_that_unpacks_to_gigabytes_is_refused(tmp_path, size):
    (tmp_path / "x.png").write_bytes(png(*size, bytes(10**6)))
    with pytest.raises(UserError, match=r"x\.png is refused, for its size may be an attack"):
        read_image(tmp_path / "x.png")


@pytest.mark.slow
@pytest.mark.parametrize("text", [
    "- !!python/object/apply:os.system ['touch harm']\n", "- !!python/name:os.system x\n", "[" * 50_000,
    "a0: &a0 {k: x}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 60)),
    "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60)),
    "".join(f"k{n}: 1\n" for n in range(30_000)), "".join(f"- n{n}\n" for n in range(30_000)),
    '- "\\e[2J"\n', '- "a\\nb"\n', "- ${oc.env:SECRET}\n"], ids=range(10))
def test_a_hostile_class_file(tmp_path, text):
    path = tmp_path / "classes.yaml"
    path.write_text(text)
    if "SECRET" in text:
        assert read_class_file(path).labels[0].name == "${oc.env:SECRET}", "text and nothing else"
        return
    with pytest.raises(UserError) as found:
        read_class_file(path)
    assert str(path) in str(found.value)
    assert str(found.value).isprintable()
    assert len(str(found.value)) < 1000
    assert not Path("harm").exists()


@pytest.mark.parametrize("content", [
    {"imgWidth": 10**6, "imgHeight": 10**6, "objects": []}, {"imgWidth": -1, "imgHeight": 5, "objects": []},
    {"imgWidth": float("inf"), "imgHeight": 5, "objects": []}, {"imgWidth": 5, "imgHeight": 5, "objects": 3},
    {"imgWidth": 5, "imgHeight": 5, "objects": [{"label": "car", "polygon": [[10**400, 0], [1, 1], [2, 0]]}]},
    [[]]])
def test_a_hostile_polygon_file_is_refused(tmp_path, content):
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"x\.json is not a polygon file"):
        draw(tmp_path / "x.json")


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "a/../../b", "x\x1b[2J"])
def test_a_list_of_voc_does_not_lead_out_of_the_dataset(tmp_path, name):
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / "voc" / folder).mkdir(parents=True)
    Image.new("L", (40, 40)).save(tmp_path / "secret.png")
    (tmp_path / "voc/ImageSets/Segmentation/train.txt").write_text(f"{name}\n")
    with pytest.raises(UserError, match="leads out of the dataset"):
        Voc("train", str(tmp_path / "voc"))


# what names of files may hold, on Linux
NAMES = ["a\nsegtrain: done", "\x1b[2J\x1b]0;owned\x07", "with blanks ", "größe-日本語-\u202e", "-rf", "--help",
         "$x^{$", "'; touch harm; '", "%s%n{0}", "${oc.env:SECRET}", os.fsdecode(b"bad\xff")]


def folder_dataset(names, root=Path("data")):
    """Write images and masks of two classes with names, for both splits."""
    for split in ("train", "val"):
        for name in names:
            for kind, image in (("images", np.full((40, 48, 3), 99, np.uint8)),
                                  ("masks", np.eye(40, 48, dtype=np.uint8))):
                path = root / split / kind / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    (root / "classes.csv").write_text("name\nroad\n$x^{$\n")


def of_folder(root="data"):
    return ("dataset=folder", f"dataset.root={root}", "dataset.crop=[32,32]", "train.batch_size=2",
            "runtime.workers=0", "runtime.threads=1", "model=unet", "model.width=2", "train.max_steps=1")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Glyph")
def test_images_of_any_name_are_used(segtrain, capsys):
    folder_dataset(NAMES)
    assert segtrain(*of_folder(), "hydra.run.dir=run") == 0
    assert segtrain("task=doctor", *of_folder()[:3], "hydra.run.dir=checked") == 0
    shown = "".join(capsys.readouterr())
    written = "".join(path.read_text(encoding="utf-8") for path in Path().rglob("*.log"))
    for text in (shown, written):
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert SECRET not in text
    assert not Path("harm").exists()


@pytest.mark.parametrize("name", mostly_slow(3, NAMES), ids=range(len(NAMES)))
def test_a_image_of_any_name_is_named_in_plain_text(refused, name):
    folder_dataset(["good", name])
    broken = next(path for path in Path("data/train/images").iterdir() if path.name != "good.png")
    broken.write_bytes(b"no image")
    message = refused(*of_folder(), "hydra.run.dir=run")
    assert printable(str(broken)) in message


def test_images_behind_links_are_the_users_own(segtrain):
    folder_dataset(["a", "b"], Path("disk"))
    Path("data").symlink_to(Path("disk").absolute())
    (Path("disk/train/images/c.png")).symlink_to(Path("disk/train/images/a.png").absolute())
    (Path("disk/train/masks/c.png")).symlink_to(Path("disk/train/masks/a.png").absolute())
    assert segtrain(*of_folder(), "hydra.run.dir=run") == 0


# ---- weights of others


@pytest.mark.parametrize("kind", mostly_slow(2, ["objects", "declared", "pickle", "bomb", "text"]))
def test_a_hostile_npz_file_is_refused(refused, kind):
    path = Path("weights.npz")
    if kind == "objects":
        np.savez(path, x=np.array([Payload()], dtype=object))
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(Payload()))
    elif kind == "text":
        path.write_text("x")
    else:
        header = io.BytesIO()
        size = 10**15 if kind == "declared" else 2**22
        np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (size,)})
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x.npy", header.getvalue() + bytes(8 if kind == "declared" else 8 * size))
    message = refused("task=convert", f"task.weights={path}", "model=mobilenetv2_unet", "model.keras_compatible=true",
                      "dataset.num_classes=3", "hydra.run.dir=converted")
    assert "weights.npz" in message


# ---- what is shown


@pytest.mark.parametrize(("text", "shown"), [
    ("plain größe 日本", "plain größe 日本"), ("\x1b[31m", r"\x1b[31m"), ("a\nb", r"a\nb"), ("\u202egpj", r"\u202egpj"),
    ("\udcff", r"\udcff"), ("\x7f\x9b", r"\x7f\x9b"), ("\u2028", r"\u2028")])
def test_what_a_terminal_obeys_is_shown_as_an_escape(text, shown):
    assert printable(text) == shown


def test_a_hostile_name_on_the_command_line_is_shown_as_an_escape(segtrain, capsys):
    assert segtrain("task=evaluate", "checkpoint='\x1b[2J'") == 2
    assert "\x1b" not in capsys.readouterr().err
