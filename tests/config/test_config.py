"""The schema, what is laid over a saved config, and that every config of every group composes."""

import copy
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import composed
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from made_files import FRAME_SIZE, cityscapes_frame, make_image, save_image

from segtrain.config import build
from segtrain.config.check import check_config, replace_values
from segtrain.config.instantiate import locate, targets
from segtrain.config.overrides import OPEN_GROUPS, RECIPE_GROUPS, flatten, lay_over, merge_overrides
from segtrain.config.saved import find_difference, from_checkpoint, read_config
from segtrain.config.schema import TASKS, Config, Section
from segtrain.errors import UserError
from segtrain.training.state import build_state
from segtrain.training.step import train_step

CPU = torch.device("cpu")
CONF = Path(__file__).parents[2] / "conf"
FILES = [path.relative_to(CONF).with_suffix("").as_posix() for path in sorted(CONF.glob("*/**/*.yaml"))]
CHOICES = [tuple(name.split("/", 1)) for name in FILES if not name.startswith("hydra/")]


@pytest.mark.parametrize(("group", "choice"), CHOICES, ids="=".join)
def test_every_config_composes(group, choice):
    if group == "search":
        pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs pip install '.[sweep]'")
    cfg = composed(f"{group}={choice}")
    assert cfg.train.epochs >= 1
    for section in cfg.plain().values():
        for _, target in targets(section, group):
            assert callable(locate(target, group))


def test_every_group_is_known():
    groups = {group for group, _ in CHOICES}
    assert groups == {"task", "logger", *OPEN_GROUPS, *RECIPE_GROUPS}


def test_defaults_are_those_of_the_recipe():
    cfg = composed()
    assert cfg.model["_target_"] == "segtrain.models.linknet.LinkNet"
    assert cfg.model["num_classes"] == cfg.dataset.num_classes == 11
    assert (cfg.optim["_target_"], cfg.optim["lr"]) == ("torch.optim.RMSprop", 5e-4)
    assert [cfg.augmentation["crop"]["height"], cfg.augmentation["crop"]["width"]] == list(cfg.dataset.crop)


def test_experiment_camvid_linknet():
    cfg = composed("experiment=camvid_linknet", "train.batch_size=8")
    assert cfg.dataset.target == "segtrain.data.camvid.CamVid"
    assert list(cfg.dataset.crop) == [320, 480]
    assert (cfg.train.epochs, cfg.train.batch_size, cfg.train.val_every) == (800, 8, 5)
    assert (cfg.optim["_target_"], cfg.optim["lr"]) == ("torch.optim.RMSprop", 5e-4)


RECIPES = ("bisenetv2", "ddrnet", "efficientvit_seg", "fast_scnn", "pidnet", "pp_liteseg", "regseg", "segformer",
           "stdc", "camvid_linknet")


@pytest.fixture
def layouts(tmp_path):
    """Write tiny data as CamVid and Cityscapes come, and return the overrides that read them."""
    ids = np.repeat([7, 26], FRAME_SIZE[0] // 2).astype(np.uint8)[:, None].repeat(FRAME_SIZE[1], 1)  # road, car
    for number, split in enumerate(("train", "val")):
        for name in range(2):
            save_image(tmp_path / "camvid" / split / f"{name}.png", make_image(FRAME_SIZE, seed=2 * number + name))
            save_image(tmp_path / "camvid" / f"{split}annot" / f"{name}.png", ids // 8)  # sky, road
            frame = f"{split}{name}_000000_000019"
            cityscapes_frame(tmp_path / "cityscapes", frame, split, labels=ids, instances=1000 * ids.astype(int))
    return [(f"dataset={name}", f"dataset.root={tmp_path / name}") for name in ("camvid", "cityscapes")]


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_starts_on_camvid_and_cityscapes(layouts, tmp_path, name):
    """With its own optimizer, schedule, loss, heads and augmentation, on small crops."""
    own = composed(f"experiment={name}", "dataset.root=/data/cityscapes")
    if name != "camvid_linknet":
        assert own.dataset.target == "segtrain.data.cityscapes.Cityscapes"
        assert own.model["_target_"].startswith(f"segtrain.models.{name}.")
    for layout in layouts:
        state = build_state(composed(f"experiment={name}", *layout, "dataset.crop=[64,64]", "train.batch_size=2",
                                     "runtime.workers=0", "runtime.threads=1", "runtime.device=cpu"), tmp_path / "run")
        state.set_training_mode()
        step = train_step(state.model, [next(iter(state.loader.batches(0, first_image=0)))], state.train_loss_fn,
                          state.optimizer, state.scheduler, state.normalize, device=state.device)
        state.loader.close()
        assert step.is_finite
        assert step.loss > 0


def test_experiment_blog_optimizers_sweeps():
    GlobalHydra.instance().clear()
    with initialize_config_module("segtrain.conf", version_base="1.3"):
        cfg = compose("config", ["experiment=blog_optimizers"], return_hydra_config=True)
    assert cfg.hydra.sweeper.params == {"optim": "rmsprop,adam,sgd"}
    assert cfg.train.epochs == 800
    rates = {name: composed("experiment=blog_optimizers", f"optim={name}").optim["lr"] for name in ("rmsprop", "sgd")}
    assert rates == {"rmsprop": 5e-4, "sgd": 1e-3}


def test_debug_changes_what_its_name_says():
    smoke, overfit = composed("debug=smoke"), composed("debug=overfit")
    assert (smoke.train.max_steps, smoke.runtime.compile) == (1, False)
    assert (overfit.train.num_images, overfit.augmentation) == (1, {})


@pytest.mark.parametrize(("override", "said"), [
    ("+train.epocs=3", "train.epocs is not a key of the configuration. Did you mean 'train.epochs'?"),
    ("++runtime.wokers=3", "runtime.wokers is not a key of the configuration. Did you mean 'runtime.workers'?"),
    ("+sed=1", "sed is not a key of the configuration. Did you mean 'seed'?"),
    ("+task.nam=1", "task.nam is not a key of the configuration. Did you mean 'task.name'?"),
    ("train.epochs=-1", "train.epochs=-1 is too small: it must be at least 1."),
    ("train.epochs=???", "train.epochs has no value: give it one, train.epochs=..."),
    ("model.encoder=???", "model.encoder has no value: give it one, model.encoder=..."),
    ("train.batch_size=0", "train.batch_size=0 is too small"),
    ("train.ema_decay=1", "train.ema_decay=1 is too large: it must be below 1."),
    ("train.max_minutes=0", "train.max_minutes=0 is too small: it must be above 0."),
    ("train.monitor=acc", "train.monitor=acc is unknown: use one of miou, macc, pacc, fwiou, iiou, loss."),
    ("seed=-1", "seed=-1 is too small"),
    ("seed=9223372036854775808", "seed=9223372036854775808 is too large"),
    ("runtime.workers=-1", "runtime.workers=-1 is too small: it must be at least 0."),
    ("runtime.workers=abc", "runtime.workers=abc has the wrong type: it must be auto or a whole number."),
    ("runtime.workers=1.5", "runtime.workers=1.5 has the wrong type"),
    ("runtime.workers=true", "runtime.workers=true has the wrong type"),
    ("runtime.workers=null", "runtime.workers=null has the wrong type"),
    ("runtime.compile=maybe", "runtime.compile=maybe is unknown: use one of auto, true, false."),
    ("runtime.compile=1", "runtime.compile=1 is unknown"),
    ("runtime.compile='true'", "runtime.compile=true is unknown"),
    ("dataset.cache=yes", "dataset.cache=yes is unknown: use one of auto, true, false."),
    ("dataset.cache=0", "dataset.cache=0 is unknown"),
    ("dataset.crop=7", "dataset.crop=7 must be [height, width], each at least 32 pixels."),
    ("dataset.crop=[0,0]", "dataset.crop=[0, 0] must be [height, width], each at least 32 pixels."),
    ("dataset.crop=[64]", "dataset.crop=[64] must be [height, width]"),
    ("dataset.crop=[a,b]", "dataset.crop=[a, b] must be [height, width]"),
    ("dataset.std=[1,1]", "dataset.std=[1, 1] must be auto or a list of 3 numbers above 0"),
    ("dataset.std=[1,1,0]", "dataset.std=[1, 1, 0] must be auto"),
    ("dataset.std=null", "dataset.std=null must be auto"),
    ("dataset.instances=map", "dataset.instances=map is unknown: use one of maps, components. Did you mean 'maps'?"),
    ("~dataset.crop", "dataset.crop has no value"),
    ("train.epochs=${train.epocs}", "train.epochs: Interpolation key 'train.epocs' not found"),
    ("model.num_classes=${nothing}", "model.num_classes: Interpolation key 'nothing' not found"),
    ("train.new_head=true", "train.new_head=true needs checkpoint="),
    ("train.encoder_lr=0", "train.encoder_lr=0 is too small: it must be above 0."),
    ("train.weight_decay_on=kernel", "train.weight_decay_on=kernel is unknown: use one of all, kernels. Did you mean"),
])
def test_what_is_wrong_is_named(override, said):
    with pytest.raises(UserError) as refused:
        composed(override)
    assert str(refused.value).startswith(said)
    assert "\n" not in str(refused.value)


def test_iiou_is_no_monitor_without_instances():
    with pytest.raises(UserError, match=r"dataset\.instances=components"):
        composed("train.monitor=iiou", "dataset.instances=null")
    composed("train.monitor=iiou")
    composed("train.monitor=iiou", "dataset.instances=null", "task=evaluate")  # the checkpoint's dataset may have them


@pytest.mark.parametrize("override", [
    "runtime.workers=auto", "runtime.workers=0", "runtime.compile=true", "runtime.compile=auto", "dataset.cache=false",
    "dataset.std=auto", "dataset.std=[0.2,0.2,1]", "train.patience=null", "runtime.trusted=[a,b]",
    "train.batch_size=${train.accumulate}"])
def test_what_is_right_is_kept(override):
    composed(override)


# ---- what is laid over a saved config


def saved(*overrides):
    return composed(*overrides).plain()


def laid(base, *overrides):
    return check_config(lay_over(base, composed(*overrides).tree(), overrides)).plain()


def test_a_value_override_replaces_its_value_only():
    base = saved("optim=sgd", "optim.momentum=0.5", "train.epochs=3")
    expected = copy.deepcopy(base)
    expected["train"]["epochs"] = 9
    assert laid(base, "train.epochs=9") == expected


def test_a_group_override_replaces_the_group():
    base = saved("optim=sgd", "optim.momentum=0.5")
    result = laid(base, "optim=adamw", "optim.lr=0.1")
    assert result["optim"] == {**composed("optim=adamw").optim, "lr": 0.1}
    assert {**result, "optim": None} == {**base, "optim": None}


def test_a_group_reads_the_saved_values_around_it():
    base = saved()
    base["dataset"]["num_classes"] = 5
    assert laid(base, "model=linknet")["model"]["num_classes"] == 5


def test_what_follows_an_overridden_value_follows_it():
    base = saved("augmentation=strong")
    assert laid(base, "dataset.crop=[64,96]")["augmentation"]["crop"]["width"] == 96
    assert laid(saved("augmentation=none"), "dataset.crop=[64,96]")["augmentation"] == {}


def test_added_and_deleted_keys():
    base = saved()
    assert laid(base, "+optim.centered=true")["optim"]["centered"] is True
    assert "flip" not in laid(base, "~augmentation.flip")["augmentation"]
    assert laid(base, "++train.epochs=2")["train"]["epochs"] == 2


def test_what_several_commands_said_is_one_command():
    first = ["optim=sgd", "optim.lr=0.1", "train.epochs=3", "++dataset.root=/a"]
    assert merge_overrides(first, ["train.epochs=9"]) == [
        "optim=sgd", "optim.lr=0.1", "++dataset.root=/a", "train.epochs=9"]
    assert merge_overrides(first, ["optim=adam"]) == ["train.epochs=3", "++dataset.root=/a", "optim=adam"]


def test_a_value_that_is_replaced_is_followed_and_checked():
    cfg = replace_values(composed("dataset=folder"), {"dataset.num_classes": 3})
    assert (cfg.dataset.num_classes, cfg.model["num_classes"]) == (3, 3)
    with pytest.raises(UserError, match=r"dataset\.num_classes=0 is too small"):
        replace_values(cfg, {"dataset.num_classes": 0})


def test_a_frozen_encoder_has_no_learning_rate():
    with pytest.raises(UserError, match="contradict"):
        composed("train.freeze_encoder=true", "train.encoder_lr=1e-4")


@pytest.mark.parametrize("override", ["experiment=camvid_linknet", "debug=smoke", "+debug=smoke"])
def test_recipes_are_not_laid_over_a_run(override):
    with pytest.raises(UserError, match="cannot be laid over a saved run"):
        lay_over(saved(), composed("debug=smoke").tree(), [override])


@pytest.mark.parametrize(("values", "key"), [
    ({"runtime.workers": 3, "train.report": False}, None), ({"seed": 1}, "seed"),
    ({"dataset.std": [1.0, 1.0, 1.0]}, None),  # what auto has been settled to
    ({"dataset.std": [2, 2, 2]}, "dataset.std"), ({"dataset.num_classes": 4}, "dataset.num_classes"),
    ({"augmentation": {}}, "augmentation.blur._target_"), ({"model.pretrained": "DEFAULT"}, "dataset.std")])
def test_two_configs_are_the_same_if_they_mean_the_same(values, key):
    cfg = composed("dataset=folder", "augmentation=strong")
    run = build.settle(cfg, CPU, num_classes=3, cached_in_memory=True).plain()
    found = find_difference(replace_values(cfg, values), run)
    assert (found and found[0]) == key


def test_another_dataset_leaves_the_normalisation_to_the_network():
    base = saved("dataset.mean=[0.1,0.2,0.3]", "dataset.std=[0.5,0.5,0.5]", "dataset.crop=[64,64]")
    cfg = from_checkpoint(base, Path("best.pt"), composed("task=evaluate", "dataset=camvid", "dataset.std=[1,1,2]"))
    assert (cfg.dataset.mean, cfg.dataset.std, list(cfg.dataset.crop)) == ([0.1, 0.2, 0.3], [1, 1, 2], [320, 480])


def list_texts(kind, prefix=""):
    """Yield every key of a section that may hold text, and whether it holds a list of it."""
    for name, field in kind.model_fields.items():
        key, annotation = f"{prefix}{field.alias or name}", field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            yield from list_texts(annotation, f"{key}.")
        elif re.search(r"\bstr\b", str(annotation)) and "dict[" not in str(annotation) and key != "task":
            yield key, "list[str]" in str(annotation)


def test_home_is_expanded_in_every_text(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    keys = {("train", *found) for found in list_texts(Config)} | {
        (name, *found) for name, task in TASKS.items() for found in list_texts(task, "task.") if "name" not in found[0]}
    assert {"checkpoint", "resume", "rerun", "task.input", "task.output", "task.run", "task.evaluation", "task.weights",
            "task.predictions", "runtime.trusted"} <= {key for _, key, _ in keys}
    for task, key, is_list in keys:
        given, expected = (["~/x", "~"], ["/home/me/x", "/home/me"]) if is_list else ("~/x", "/home/me/x")
        found = replace_values(composed(f"task={task}"), {key: given}).plain()
        assert flatten(found)[key] == expected, key
    cfg = replace_values(composed("dataset=folder", "task=score"), {
        "model.pretrained": "~/x.pth", "dataset.root": "~/data", "task.class_sizes": "~/results.json",
        "dataset.folders": ["~/a", {"at": "~/b"}], "dataset.images": "~", "dataset.split": "~x"})
    assert (cfg.model["pretrained"], cfg.task.class_sizes) == ("/home/me/x.pth", "/home/me/results.json")
    given = cfg.dataset.arguments
    assert (given["root"], given["images"], given["folders"]) == (
        "/home/me/data", "/home/me", ["/home/me/a", {"at": "/home/me/b"}])
    assert cfg.dataset.split == "~x"


@pytest.mark.parametrize(("text", "said"), [("a: [1", "not valid YAML"), ("- 1", "not a YAML mapping"),
                                            ("a: 1\na: 2", "not valid YAML")])
def test_a_damaged_file_is_named(tmp_path, text, said):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=said) as refused:
        read_config(path)
    assert str(path) in str(refused.value)
