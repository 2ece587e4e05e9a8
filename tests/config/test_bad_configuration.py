"""Wrong values of every key are refused with a message that names it, and every key has an effect.

Both lists of keys come from segtrain/config/schema.py and conf/: a new key without a proof of its effect fails here.
"""

import copy
import csv
import functools
import json
import math
import types
import typing
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import TINY, composed, mostly_slow
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from segtrain.config import build
from segtrain.config.check import check_config
from segtrain.config.instantiate import check_trust
from segtrain.config.overrides import OPEN_GROUPS
from segtrain.config.schema import TASKS, Config, DatasetSection, FoldsSection, SamplingSection, Section, TrainSection
from segtrain.data.camvid import CAMVID
from segtrain.data.folder import Folder
from segtrain.errors import UserError
from segtrain.training import state

CONF = Path(__file__).parents[2] / "conf"
CPU = torch.device("cpu")
PIXELS = [100, 300, *[200] * 9]
HUGE = 10**30
WRONG_TYPES = ("words", "", [], [1], ["a", "b", "c"], {"a": 1}, None, True, 7, 0.5)


@functools.cache
def composed_once(*overrides):
    return composed(*overrides).tree()


def set_value(tree, key, value):
    """Return a composed config with a key set to anything at all, as a YAML file could."""
    tree = copy.deepcopy(tree)
    *parents, name = key.split(".")
    node = tree
    for parent in parents:
        node = node[parent]
    if value is ...:
        del node[name]
    else:
        node[name] = value
    return tree


def source(name):
    """Return the text of a file of tests, whichever folder it is in."""
    return next(Path(__file__).parents[1].rglob(name)).read_text()


def refusal(function, *arguments):
    """Return the message of a UserError, which must be one printable line; None if there was none."""
    try:
        function(*arguments)
    except UserError as error:
        message = str(error)
        assert message.isprintable(), message
        assert len(message) < 1000
        return message
    return None


# ---- the fixed sections


def is_section(annotation):
    return isinstance(annotation, type) and issubclass(annotation, Section)


def fixed_fields(section, prefix=""):
    """Yield (key, field) of a section and those in it."""
    for name, field in section.model_fields.items():
        key = f"{prefix}{name}"
        if key == "logger":
            continue  # of which only what is chosen is there, see test_loggers.py
        if is_section(field.annotation):
            yield from fixed_fields(field.annotation, f"{key}.")
        elif key not in ("task", *OPEN_GROUPS, "dataset.target"):
            yield key, field


FIXED = dict(fixed_fields(Config))
FIXED_OF_TASKS = {(name, f"task.{key}"): field for name, section in TASKS.items() if name != "train"
                  for key, field in section.model_fields.items()}


def members(hint):
    """Yield the types that a hint offers, and the limits and validators of each."""
    if typing.get_origin(hint) is typing.Annotated:
        first, *metadata = typing.get_args(hint)
        for kind, more in members(first):
            yield kind, [*more, *metadata]
    elif typing.get_origin(hint) in (typing.Union, types.UnionType):
        for inner in typing.get_args(hint):
            yield from members(inner)
    else:
        yield hint, []


def wrong_values(field):
    """Yield values that a field must refuse, from its type and limits."""
    hint = typing.Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    found = list(members(hint))
    kinds = [typing.get_origin(kind) or kind for kind, _ in found]
    metadata = [each for _, more in found for each in more]
    limits = {name: getattr(inner, name) for each in metadata for inner in getattr(each, "metadata", [each])
              for name in ("ge", "gt", "lt") if getattr(inner, name, None) is not None}
    if type(None) not in kinds:
        yield None
    if dict in kinds:
        yield from ("words", 7, [1], True, {"a": [1]}, {"a": None})
    else:
        yield from ([{"a": 1}] if list not in kinds and tuple not in kinds else ["words", 7, {"a": 1}, True])
    if {int, float} & set(kinds):
        yield from ("many", "", [1], True, math.nan, math.inf, -math.inf)
        yield from ([limits["ge"] - 1] if "ge" in limits else [])
        yield from ([limits["gt"], limits["gt"] - 1] if "gt" in limits else [])
        yield from ([limits["lt"]] if "lt" in limits else [])
    if int in kinds:
        yield from (0.5, "1.5", HUGE)
    if bool in kinds:
        yield from ("maybe", "true", 0, 1, 7, 0.5, [True])
    if typing.Literal in kinds and not {int, list} & set(kinds):
        yield from ("nonsense", "", "AUTOx", 3, [1])
    if tuple in kinds:
        yield from ([], [64], [64, 64, 64], [0, 64], [31, 64], [-64, 64], ["a", "b"], [64.5, 64])


@pytest.mark.parametrize("key", FIXED)
def test_wrong_values_of_a_fixed_key_are_refused(key):
    for value in wrong_values(FIXED[key]):
        message = refusal(check_config, set_value(composed_once(), key, value))
        assert message is not None, f"{key}={value!r} is accepted"
        assert message.startswith(key), message


# task.class_sizes may be a path or a mapping: the task itself refuses what is neither, as test_score.py shows
@pytest.mark.parametrize(("task", "key"), [each for each in FIXED_OF_TASKS if each[1] != "task.class_sizes"])
def test_wrong_values_of_a_tasks_key_are_refused(task, key):
    for value in wrong_values(FIXED_OF_TASKS[task, key]):
        message = refusal(check_config, set_value(composed_once(f"task={task}"), key, value))
        assert message is not None, f"{key}={value!r} is accepted"
        assert message.startswith(key), message


@pytest.mark.parametrize("key", [*FIXED, *(key for _, key in FIXED_OF_TASKS)])
def test_a_fixed_key_that_is_missing_or_misspelt_is_named(key):
    task = next((name for name, own in FIXED_OF_TASKS if own == key), "train")
    cfg = composed_once(f"task={task}")
    if key != "task.name":
        assert f"{key} has no value" in refusal(check_config, set_value(cfg, key, ...))
        assert f"{key} has no value" in refusal(check_config, set_value(cfg, key, "???"))
    if key.startswith("dataset."):
        return  # the other keys there are its class's: below
    message = refusal(check_config, set_value(cfg, f"{key}z", 1))
    assert message == f"{key}z is not a key of the configuration. Did you mean '{key}'?"


@pytest.mark.parametrize("section", ["task", "train", "runtime", *OPEN_GROUPS])
@pytest.mark.parametrize("value", ["words", 7, True, [1], 0.5])
def test_a_section_that_is_none_is_named(section, value):
    message = refusal(check_config, set_value(composed_once(), section, value))
    assert message.startswith(f"{section}=")
    assert "it is a section" in message


# ---- the open groups


def choices(group):
    folder = CONF / group
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def leaves(node, prefix):
    """Yield (key, value) of what is not a mapping."""
    for name, value in node.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}.{name}")
        else:
            yield f"{prefix}.{name}", value


def group_keys(group, choice):
    node = resolved(f"{group}={choice}")[group]
    settings = set(DatasetSection.model_fields) if group == "dataset" else set()
    return {key: value for key, value in leaves(node, group) if key.split(".")[1] not in settings}


GROUPS = [(group, choice) for group in ("optim", "scheduler", "loss", "augmentation") for choice in choices(group)]
GROUPS += [("dataset", "streets"), ("model", "linknet"), ("model", "unet"), ("model", "fcn8"), ("model", "segnet"),
           ("model", "fc_densenet56"), ("model", "torchvision/fcn_resnet50")]
FAST = ("rmsprop", "poly", "cross_entropy_dice", "crop_flip", "streets", "linknet")  # one of each group
every_choice = pytest.mark.parametrize(("group", "choice"), [
    pytest.param(*row, id="=".join(row), marks=() if row[1] in FAST else pytest.mark.slow) for row in GROUPS])


@functools.cache
def resolved(*overrides):
    return composed(*overrides).plain()


def set_in_group(base, group, key, value):
    """Return a config with a key of a group set, unchecked: the group's classes are to refuse what is wrong."""
    tree = set_value(base, key, value)
    given = {**tree["dataset"], "folds": FoldsSection.model_construct(**tree["dataset"]["folds"])}
    dataset = DatasetSection.model_construct(target=given.pop("_target_"), **given)
    train = TrainSection.model_construct(
        **{**tree["train"], "sampling": SamplingSection.model_construct(**tree["train"]["sampling"])})
    return Config.model_construct(**{**tree, "dataset": dataset, "train": train})


def build_group(group, cfg):
    """Build what a group says, and use it once."""
    if group == "model":
        with torch.device("meta"):
            return build.model(cfg)
    if group == "optim":
        return build.optimizer(cfg, nn.Linear(2, 2), CPU)
    if group == "scheduler":
        return [build.schedule(cfg, 10, 5)(step) for step in (0, 4, 9)]
    if group == "loss":
        return build.loss(cfg, PIXELS, PIXELS)
    if group == "dataset":
        return build.dataset(cfg, "train").read(0)
    return build.augmentation(cfg, CAMVID)(*picture(), (0, 0, 0))


@functools.cache
def picture():
    noise = np.random.default_rng(0)
    return noise.integers(0, 256, (200, 260, 3), np.uint8), noise.integers(0, 11, (200, 260), np.uint8)


def is_wrong_type(value, old):
    """Say whether a value cannot stand where an old one does, whatever the class."""
    if isinstance(value, dict) or (isinstance(value, str) and value == ""):
        return True
    if isinstance(old, bool):
        return value in ("words", [1]) or isinstance(value, list)
    if isinstance(old, int | float):
        return isinstance(value, str | list)  # not every class minds true where a number should stand
    if isinstance(old, list):
        return isinstance(value, str)
    return False


# values of albumentations that are a number or a pair of them: it takes both
EITHER = {"augmentation.scale.scale_limit", "augmentation.light.brightness", "augmentation.light.contrast",
          "augmentation.light.saturation", "augmentation.light.hue", "augmentation.blur.sigma_limit",
          "augmentation.crop.fill", "augmentation.crop.fill_mask"}


@pytest.mark.filterwarnings("ignore")
@every_choice
def test_wrong_values_of_a_groups_keys_are_refused(group, choice):
    base = resolved(f"{group}={choice}")
    for key, old in group_keys(group, choice).items():
        name = key.rpartition(".")[2]
        for value in (*WRONG_TYPES, -1, 0, 1e30, math.nan, math.inf, HUGE):
            message = refusal(build_group, group, set_in_group(base, group, key, value))  # a UserError or nothing
            if message is None:
                is_number = isinstance(value, float) and not math.isfinite(value)
                assert not (is_wrong_type(value, old) and key not in EITHER), f"{key}={value!r} is accepted"
                assert not is_number, f"{key}={value!r} is accepted"
            else:
                section = key.rpartition(".")[0] if group != "augmentation" else group
                assert name in message or message.startswith(section), f"{key}={value!r}: {message}"
        message = refusal(build_group, group, set_in_group(base, group, f"{key}z", 1))
        assert message is not None, f"{key}z is accepted"
        assert f"{name}z" in message
        if name != "_target_" and "loss.weights" not in key:  # which names a loss
            assert f"Did you mean '{name}'" in message, message


# ---- keys that contradict each other


@pytest.mark.parametrize(("overrides", "said"), mostly_slow(8, [
    ("train.freeze_encoder=true train.encoder_lr=1e-4", "contradict"),
    ("train.freeze_encoder=true", "would keep random weights"),
    ("train.freeze_encoder=true model=fcn8 model.pretrained=null checkpoint=x.pt", "x.pt does not exist"),
    ("train.encoder_lr=1e-4 model=enet", "train.encoder_lr needs to know the encoder"),
    ("train.aux_weights={at8:0.1}", "LinkNet has no auxiliary head of that name: it has none"),
    ("train.monitor=iiou dataset.instances=null", "train.monitor=iiou needs instances"),
    ("train.new_head=true", "train.new_head=true needs checkpoint="),
    ("train.num_images=6", "train.num_images=6, but the training split has 5 images"),
    ("train.batch_size=6", "train.batch_size=6 is larger than the training split of 5 images"),
    ("train.num_images=1", "train.batch_size=2 is larger than the training split of 1 images"),
    ("dataset.crop=[31,64]", "dataset.crop=[31, 64] must be [height, width], each at least 32"),
    ("dataset.mean=[0.5]", "dataset.mean"), ("dataset.std=[1,1]", "dataset.std=[1, 1] must be auto or a list of 3"),
    ("model.in_channels=1", "model.in_channels=1, but dataset.channels=null"),
    ("dataset.num_classes=5", "dataset.num_classes=5, but the dataset has 11 classes"),
    ("model.num_classes=5", "but logits of shape"),
    ("model=fcn8 model.keras_compatible=true model.pretrained=DEFAULT", "keras_compatible"),
    ("model=segnet model.width=8 model.pretrained=DEFAULT", "width"),
    ("optim=sgd optim.momentum=0 optim.nesterov=true", "optim.nesterov=true: Nesterov momentum requires a momentum"),
    ("optim._target_=torch.optim.LBFGS", "optim."), ("task=evaluate", "task=evaluate needs checkpoint="),
    ("task=convert", "task.weights is needed"), ("task=benchmark task.sort=speed", "task.sort=speed is not a column"),
    ("task=doctor task.splits=[train,train]", "names a split twice"),
    ("task=evaluate checkpoint=nowhere.pt", "nowhere.pt does not exist"), ("checkpoint=nowhere", "nowhere does not"),
    ("dataset.instances=components train.monitor=iiou task=train train.epochs=0", "train.epochs=0 is too small"),
    ("resume=nowhere checkpoint=x.pt", "resume=nowhere is not a directory"),
    ("runtime.device=cuda:99", "runtime.device=cuda:99 is not available here"),
    ("runtime.precision=fp8", "runtime.precision=fp8 is unknown"),
]))
def test_what_contradicts_is_refused(segtrain, capsys, tmp_path, monkeypatch, overrides, said):
    monkeypatch.chdir(tmp_path)
    assert segtrain(*TINY, *overrides.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("segtrain: ")
    assert error.count("\n") == 1
    assert said in error
    assert not list(tmp_path.iterdir())


# ---- every key has an effect: the groups


def changed(key, value):
    """Return another value of a key's kind."""
    if key in OTHER:
        return OTHER[key]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return 0.5 * value if value else 0.25
    assert isinstance(value, list), f"say in OTHER what {key}={value!r} may be instead"
    return [0.5 * each for each in value]


# where the rule above does not give a value that is right
OTHER = {
    "loss.class_weights": "median_frequency", "loss.losses.cross_entropy.class_weights": "median_frequency",
    "model.encoder": "resnet34", "model.pretrained": "nothing.pt", "model.dropout": 0.125,
    "model.name": "fcn_resnet101",
    "loss.threshold": 0.9, "model.auxiliary_weight": 0.5, "model.weights": "nothing.pt", "model.width": 32,
    "model.bottleneck_blocks": 2, "augmentation.scale.scale_limit": [-0.1, 0.1],
    "augmentation.scale.mask_interpolation": 1, "augmentation.crop.height": 96, "augmentation.crop.width": 100,
    "augmentation.crop.max_share": 0.05,
    "augmentation.crop.pad_if_needed": False, "augmentation.crop.fill_mask": 3, "augmentation.blur.p": 1.0,
    "augmentation.light.p": 0.1,
    "augmentation.blur.sigma_limit": [3.0, 4.0], "dataset.height": 64, "dataset.width": 96, "dataset.num_train": 3,
    "dataset.num_val": 3, "model.depth": {56: 67, 121: 169}, "model.batch_norm": {None: True, True: False, False: True},
}


def effect(group, cfg, key):
    """Return what a group's object does, in a form that can be compared; or the message that refuses it."""
    try:
        if group == "model":
            with torch.device("meta"):
                network = build.model(cfg)
            return (repr(network), {name: value.shape for name, value in network.state_dict().items()},
                    {name: value for name, value in vars(network).items() if isinstance(value, int | float | str)})
        if group == "optim":
            return build.optimizer(cfg, nn.Linear(2, 2), CPU).defaults
        if group == "scheduler":
            return [build.schedule(cfg, 1000, 10)(step) for step in range(0, 1000, 7)]
        if group == "loss":
            torch.manual_seed(0)
            logits, target = torch.randn(2, 11, 8, 8), torch.randint(0, 11, (2, 8, 8))
            built = build.loss(cfg, PIXELS, PIXELS[::-1])
            return [*built(logits, target).tolist(), *built.normalizer(target).tolist()]
        if group == "dataset":
            splits = [build.dataset(cfg, split) for split in ("train", "val")]
            return [(data.names, data.read(0).image.tobytes()) for data in splits]
        image, target = (each[:90, :150] if "pad" in key or "fill" in key else each for each in picture())
        pairs = [build.augmentation(cfg, CAMVID)(image, target, (0, 0, number)) for number in range(24)]
        return [(each.shape, each.tobytes()) for pair in pairs for each in pair]
    except (UserError, ValueError) as error:
        return str(error)


@pytest.mark.filterwarnings("ignore")
@every_choice
def test_every_key_of_a_group_has_an_effect(group, choice):
    base = resolved(f"{group}={choice}")
    for key, old in group_keys(group, choice).items():
        name = key.rpartition(".")[2]
        if name in ("_target_", "num_classes") or key.startswith("augmentation.mix."):
            continue  # what is built at all, what the dataset gives, what needs other images (test_sampling.py)
        new = changed(key, old)
        new = new[old] if isinstance(new, dict) else new
        assert new != old
        assert effect(group, set_in_group(base, group, key, new), key) != effect(
            group, set_in_group(base, group, key, old), key), f"{key}={new} changes nothing"


@pytest.mark.parametrize("choice", [choice for choice in choices("dataset") if choice != "streets"])
def test_every_key_of_a_dataset_on_the_disk_is_set_by_its_own_tests(choice):
    target = resolved(f"dataset={choice}")["dataset"]["_target_"]
    module = "formats" if ".formats." in target else target.split(".")[2]
    files = (f"test_{module}.py", "test_masks.py", "test_download.py", "test_bad_configuration.py",
             "test_image_form.py")
    tests = "".join(map(source, files))
    for key in group_keys("dataset", choice):
        name = key.rpartition(".")[2]
        assert name == "_target_" or f"{name}=" in tests or f'"{name}":' in tests, f"{files} never set {key}"


def test_the_seed_of_a_folders_split(tmp_path):
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        for number in range(12):
            Image.new("L", (32, 32)).save(tmp_path / kind / f"{number}.png")
    (tmp_path / "classes.csv").write_text("name\na\nb\nc\n")
    given = {"root": str(tmp_path), "images": "images", "masks": "masks", "val_fraction": 0.5}
    names = [Folder("val", **given, split_seed=seed).names for seed in (0, 0, 1)]
    assert names[0] == names[1] != names[2]


# ---- every key has an effect: the fixed sections

RUN = (*TINY, "dataset.num_val=2", "train.epochs=1", "model=unet", "model.width=2", "optim=sgd", "optim.lr=0.01",
       "train.examples=0", "loss.class_weights=none")
TIMES = ("train/images_per_second", "train/data_wait", "seconds", "images_per_second", "checkpoint")


@pytest.fixture
def outcome(segtrain, tmp_path, monkeypatch):
    """Train in a folder of its own and return all that came of it but times: exit code, numbers, files, pictures."""
    monkeypatch.chdir(tmp_path)
    number = iter(range(99))

    def run(*overrides):
        run_dir = tmp_path / f"run{next(number)}"
        code = segtrain(*RUN, *overrides, f"hydra.run.dir={run_dir}")
        rows, results, pictures = [], {}, []
        if (run_dir / "metrics.csv").exists():
            with (run_dir / "metrics.csv").open() as file:
                rows = [{key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(file)]
            events = EventAccumulator(str(run_dir)).Reload()
            pictures = [(tag, [(each.width, each.height) for each in events.Images(tag)])
                        for tag in events.Tags()["images"]]
        if (run_dir / "results.json").exists():
            results = json.loads((run_dir / "results.json").read_text())
            results = {key: value for key, value in results.items() if key not in TIMES}
        files = sorted(path.name for path in (run_dir / "checkpoints").glob("*.pt"))
        return code, rows, results, pictures, files

    return run


# key: (what is set in both runs, the value of one, of the other); their outcomes differ
RUNS = {
    "train.epochs": ("", 1, 2), "train.max_steps": ("", "null", 1), "train.batch_size": ("", 2, 3),
    "train.max_minutes": ("train.epochs=3", "null", 1e-9), "train.accumulate": ("", 1, 2),
    "train.clip_norm": ("", "null", 1e-3), "train.ema_decay": ("", "null", 0.9),
    "train.on_nonfinite": ("optim.lr=1e30", "stop", "skip"), "train.save_steps": ("train.keep=9", "null", 1),
    "train.save_minutes": ("train.keep=9", "null", 1e-9), "train.keep": ("train.epochs=3", 1, 3),
    "train.save_every": ("train.epochs=3 train.keep=9", 1, 3), "train.val_every": ("train.epochs=2", 1, 2),
    "train.monitor": ("train.epochs=3 optim.lr=0.2", "loss", "pacc"),
    "train.patience": ("train.epochs=6 optim.lr=1e-30", "null", 1), "train.num_images": ("", "null", 2),
    "train.examples": ("", 0, 1), "train.weight_decay_on": ("optim.weight_decay=0.9", "all", "kernels"),
    "train.aux_weights": ("model.aux=true", "null", "{at8: 5}"),
    "train.encoder_lr": ("", "null", 0.5), "train.freeze_encoder": ("", "false", "true"),
    "runtime.precision": ("", "fp32", "bf16"), "runtime.device": ("", "cpu", "meta"), "seed": ("", 0, 1),
    "dataset.num_classes": ("", 11, 5), "dataset.instances": ("", "maps", "null"),
    "dataset.crop": ("", "[32,32]", "[32,48]"), "dataset.mean": ("", "auto", "[0.1,0.5,0.5]"),
    "dataset.std": ("", "auto", "[0.2,0.5,0.5]"), "resume": ("", "null", "elsewhere"),
}
OUTCOMES: dict = {}  # by their config: the first value is the default one for most keys
# shown by the tests of this name below
SHOWN = ("train.new_head", "checkpoint", "runtime.channels_last", "runtime.compile", "runtime.workers",
         "runtime.threads", "runtime.trusted", "dataset.split", "dataset.cache")
# their effect needs several processes, is a page, or needs a checkpoint: shown there
SHOWN_ELSEWHERE = {**{f"train.{key}": "test_distillation.py" for key in (
                       "teacher", "teacher_loss", "teacher_weight", "teacher_temperature")},
                   "runtime.sync_batchnorm": "test_distributed.py", "train.report": "test_report.py",
                   "dataset.class_map": "test_class_identity.py", "train.log_every": "test_loggers.py",
                   **dict.fromkeys(("dataset.fold", "dataset.folds.k", "dataset.folds.by", "dataset.folds.of",
                                    "dataset.folds.lists", "dataset.folds.group", "dataset.folds.seed"),
                                   "test_folds.py"),
                   **dict.fromkeys(("dataset.channels", "dataset.bands", "dataset.dtype", "dataset.range",
                                    "dataset.nodata", "dataset.rgb"), "test_channels.py"),
                   **dict.fromkeys(("train.sampling.by", "train.sampling.share", "train.sampling.classes"),
                                   "test_sampling.py"),
                   "train.accept_changed_data": "test_resume.py", "rerun": "test_cli.py"}


def test_the_effect_of_every_fixed_key_is_shown():
    assert set(FIXED) == {*RUNS, *SHOWN, *SHOWN_ELSEWHERE}, "a key without a proof, or a proof without a key"
    for key, file in SHOWN_ELSEWHERE.items():
        assert f"{key}=" in source(file)


@pytest.mark.slow
def test_two_runs_of_one_config_have_one_outcome(outcome):
    first = outcome()
    assert first == outcome()
    assert first[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("key", RUNS)
def test_a_fixed_key_changes_the_outcome(outcome, key):
    given, one, other = RUNS[key]
    first = repr(composed(*RUN, *given.split(), f"{key}={one}"))
    if first not in OUTCOMES:
        OUTCOMES[first] = outcome(*given.split(), f"{key}={one}")
    assert OUTCOMES[first] != outcome(*given.split(), f"{key}={other}")


@pytest.mark.slow
def test_checkpoint_and_new_head(outcome, tmp_path):
    assert outcome("optim.lr=0.1")[0] == 0
    weights = f"checkpoint={tmp_path / 'run0'}"
    plain, started, new = outcome(), outcome(weights), outcome(weights, "train.new_head=true")
    assert plain[0] == started[0] == new[0] == 0
    assert plain != started
    assert started != new


@pytest.mark.slow
def test_runtime_keys(monkeypatch, outcome):
    formats = {build.memory_format(composed(f"runtime.channels_last={value}")) for value in ("true", "false")}
    assert formats == {torch.channels_last, torch.contiguous_format}
    compiled, workers = [], []
    monkeypatch.setattr(torch, "compile", lambda network: compiled.append(network) or network)
    loader = state.TrainingLoader
    monkeypatch.setattr(state, "TrainingLoader", lambda *args, **given: workers.append(given["workers"]) or loader(
        *args, **{**given, "workers": 0}))
    assert outcome("runtime.compile=true")[0] == outcome("runtime.compile=false", "runtime.workers=3")[0] == 0
    assert (len(compiled), workers) == (1, [0, 3])
    build.device(composed("runtime.threads=2", "runtime.device=cpu"))
    assert torch.get_num_threads() == 2
    build.device(composed("runtime.threads=1", "runtime.device=cpu"))
    assert torch.get_num_threads() == 1
    config = {**resolved(), "model": {"_target_": "json.JSONDecoder"}}
    with pytest.raises(UserError):
        check_trust(config, [], [])
    check_trust(config, [], ["json"])


def test_dataset_keys():
    data = build.dataset(composed(*TINY), "train")
    assert type(build.cached(data, True)) is not type(build.cached(data, False))
    assert len(build.dataset(composed(*TINY), composed("dataset.split=train").dataset.split).names) == 5


# key of a task: its value, and what it changes in the results
TASK_KEYS = {
    ("benchmark", "task.name"): ("convert", "code"), ("benchmark", "task.size"): ("[32,64]", "macs"),
    ("benchmark", "task.batch_size"): ("2", "batch_size"), ("benchmark", "task.train"): ("true", "train_runs"),
    ("benchmark", "task.repeats"): ("5", "latency_runs"), ("benchmark", "task.layers"): ("true", "layers"),
    ("benchmark", "task.seconds"): ("1e-9", "latency_runs"), ("benchmark", "task.sort"): ("speed", "code"),
    ("convert", "task.name"): ("doctor", "code"), ("convert", "task.weights"): ("nowhere.npz", "message"),
    ("doctor", "task.name"): ("benchmark", "code"), ("doctor", "task.splits"): ("[train]", "splits"),
    ("doctor", "task.near_distance"): ("64", "leaks"), ("doctor", "task.examples"): ("0", "pictures"),
}
SETTLED = {"benchmark": ("task.size=[32,32]", "task.batch_size=1", "task.train=false", "task.repeats=4",
                         "task.seconds=9", "runtime.compile=false"),
           "convert": (), "doctor": ("task.near_distance=null",)}


# tasks that need a run, a checkpoint or predictions: shown there
TESTED_IN = {task: f"test_{task}.py" for task in ("evaluate", "score", "predict", "export", "report")}
TESTED_IN["rasterize"] = "test_formats.py"


def test_the_effect_of_every_key_of_a_task_is_shown():
    assert {each for each in FIXED_OF_TASKS if each[0] not in TESTED_IN} == set(TASK_KEYS)
    assert TASKS.keys() == {"train"} | SETTLED.keys() | TESTED_IN.keys()
    for task, key in FIXED_OF_TASKS:
        if task in TESTED_IN and key != "task.name":
            assert f"{key}=" in source(TESTED_IN[task])


@pytest.mark.slow
@pytest.mark.parametrize("task", SETTLED)
def test_a_tasks_key_changes_what_it_says(segtrain, capsys, tmp_path, monkeypatch, task):
    monkeypatch.chdir(tmp_path)
    number = iter(range(99))

    def run(*overrides):
        run_dir = tmp_path / f"run{next(number)}"
        capsys.readouterr()
        code = segtrain(*TINY, "model=unet", "model.width=2", f"task={task}", *SETTLED[task], *overrides,
                        f"hydra.run.dir={run_dir}")
        path = run_dir / "results.json"
        results = json.loads(path.read_text()) if path.exists() else {}
        return {**results, "code": code if results or code else None, "message": capsys.readouterr().err,
                "pictures": (run_dir / "examples.png").exists()}

    base = run()
    for (name, key), (value, changes) in TASK_KEYS.items():
        if name == task:
            after = run(f"{key}={value}")
            if key == "task.name":
                assert (after["code"], after.get("task"), after["message"]) != (
                    base["code"], base.get("task"), base["message"])
            elif key == "task.seconds":
                assert (after[changes], base[changes]) == (3, 4), "never fewer than 3"
            else:
                assert after.get(changes) != base.get(changes), f"{key}={value} changes nothing in {changes}"
