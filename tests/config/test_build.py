"""From config to objects: every group builds, what does not fit is named, and files cannot smuggle code in."""

import functools
import sys
from pathlib import Path

import pytest
import torch
from helpers import composed, mostly_slow
from omegaconf import OmegaConf
from torch import nn

from segtrain import losses
from segtrain.config import build
from segtrain.config.check import replace_values
from segtrain.config.instantiate import call, check_trust
from segtrain.config.overrides import OPEN_GROUPS, walk
from segtrain.data.camvid import CAMVID
from segtrain.errors import UserError
from segtrain.models.pretrained import IMAGENET

CONF = Path(__file__).parents[2] / "conf"
CPU = torch.device("cpu")
PIXELS = [100] * 11


pytestmark = pytest.mark.usefixtures("hydra")


def choices(group):
    folder = CONF / group
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


# ---- every file of every group


@pytest.mark.parametrize("choice", mostly_slow(4, choices("model")))
def test_every_model_builds(choice):
    if choice == "smp":
        pytest.importorskip("segmentation_models_pytorch")
    with torch.device("meta"):
        network = build.model(composed(f"model={choice}"))
    assert isinstance(network, nn.Module)
    layer = build.head_keys(composed(f"model={choice}"))
    assert layer
    assert layer < network.state_dict().keys()


@pytest.mark.parametrize("choice", choices("optim"))
def test_every_optimizer_builds(choice):
    cfg = composed(f"optim={choice}", "optim.lr=0.5")
    built = build.optimizer(cfg, nn.Linear(2, 2), CPU)
    assert built.defaults["lr"] == 0.5
    betas = built.defaults.get("betas", ())
    assert isinstance(betas, tuple), "torch wants the list of the YAML as a tuple"
    assert list(betas) == list(cfg.optim.get("betas", []))


@pytest.mark.parametrize("choice", choices("scheduler"))
def test_every_schedule_builds(choice):
    schedule = build.schedule(composed(f"scheduler={choice}"), 100, 10)
    assert schedule(0) == 1


@pytest.mark.parametrize("choice", choices("loss"))
def test_every_loss_builds(choice):
    built = build.loss(composed(f"loss={choice}"), PIXELS, PIXELS)
    assert isinstance(built, losses.Loss)


def test_class_weights_are_computed_wherever_they_stand():
    cfg = composed("loss=cross_entropy_dice", "loss.losses.cross_entropy.class_weights=median_frequency")
    weights = build.loss(cfg, [100, 200, *PIXELS[2:]], [1000] * 11).state_dict()
    assert any(len(value) == 11 and value[0] == 2 * value[1] for value in weights.values() if value.ndim)
    given = build.loss(composed("dataset.num_classes=11", f"loss.class_weights={list(range(11))}"), None, None)
    assert given.class_weights.tolist() == list(range(11))
    for weights, said in (("[1,2]", "has 2 values, but the dataset has 11 classes"),
                          (str([0] * 11), "not all of them 0"), (str([-1] * 11), "at least 0")):
        with pytest.raises(UserError, match=said):
            build.loss(composed(f"loss.class_weights={weights}"), None, None)
    with pytest.raises(UserError, match=r"loss\.class_weights=median: .*median_frequency"):
        build.loss(composed("loss.class_weights=median"), PIXELS, PIXELS)


@pytest.mark.parametrize("choice", choices("augmentation"))
def test_every_augmentation_builds(choice):
    build.augmentation(composed(f"augmentation={choice}"), CAMVID)


def test_dataset_builds():
    cfg = composed("dataset.num_train=5", "dataset.num_val=3", "train.num_images=2")
    assert (len(build.dataset(cfg, "train").names), len(build.dataset(cfg, "val").names)) == (2, 3)


@pytest.mark.parametrize("choice", [choice for choice in choices("dataset") if choice != "streets"])
def test_datasets_ask_for_their_root(choice):
    with pytest.raises(UserError, match=r"dataset\.root"):
        build.dataset(composed(f"dataset={choice}"), "train")


# ---- what does not fit


def build_all(cfg):
    """Build as a training does, in its order, without reading an image."""
    build.device(cfg)
    build.dataset(cfg, "train")
    cfg = build.settle(cfg, CPU, num_classes=11, cached_in_memory=True)
    with torch.device("meta"):
        network = build.model(cfg)
    build.optimizer(cfg, network, CPU)
    build.loss(cfg, PIXELS, PIXELS)
    build.schedule(cfg, 10, 5)
    build.normalize(cfg, CPU)
    build.augmentation(cfg)


@pytest.mark.parametrize(("override", "said"), [
    ("optim.lr=fast", "optim.lr=fast has the wrong type"),
    ("optim.lr=true", "optim.lr=true has the wrong type"),
    ("optim.lr=-1", "optim.lr=-1: Invalid learning rate: -1"),
    ("+optim.lrr=3", "optim.lrr is not an argument of torch.optim.RMSprop. Did you mean 'lr'?"),
    ("+optim.params=3", "optim.params is not an argument of torch.optim.RMSprop."),
    ("optim._target_=torch.optim.RMSProp", "Did you mean 'RMSprop'?"),
    ("optim._target_=torch.optm.SGD", "optim._target_=torch.optm.SGD cannot be imported"),
    ("optim._target_=nopackage.SGD", "optim._target_=nopackage.SGD cannot be imported (No module named 'nopackage')"),
    ("optim._target_=torch.pi", "optim._target_=torch.pi is not a class or function."),
    ("optim._target_=null", "optim._target_ has no value"),
    ("optim={_target_:torch.optim.LBFGS}", "optim.alpha is not an argument of torch.optim.LBFGS."),
    ("model._target_=builtins.dict", "model._target_ gave an object of type dict, but model must be a torch.nn"),
    ("+model.encodr=resnet34", "model.encodr is not an argument of segtrain.models.linknet.LinkNet. Did you mean 'enc"),
    ("model.encoder=resnet19", "model.encoder=resnet19: "),
    ("model.num_classes=eleven", "model.num_classes=eleven has the wrong type"),
    ("model.in_channels=1", "model.in_channels=1, but dataset.channels=null"),
    ("+loss.gama=3", "loss.gama is not an argument of segtrain.losses.CrossEntropy."),
    ("loss.label_smoothing=2", "loss.label_smoothing=2: must be in [0, 1), not 2"),
    ("loss._target_=torch.nn.CrossEntropyLoss", "loss.class_weights is not an argument of torch.nn.CrossEntropyLoss."),
    ("scheduler.warmup_epochs=-1", "scheduler.warmup_epochs=-1"),
    ("+dataset.hight=3",
     "dataset.hight is not an argument of segtrain.data.streets.dataset.Streets. Did you mean 'heigh"),
    ("+dataset.spilt=val", "Did you mean 'split'?"),
    ("dataset.height=0", "dataset.height=0: must be at least 32"),
    ("dataset.num_train=-1", "dataset.num_train=-1: must be at least 1"),
    ("dataset.num_train=1.5", "dataset.num_train=1.5 has the wrong type"),
    ("dataset.num_classes=5", "dataset.num_classes=5, but the dataset has 11 classes"),
    ("dataset._target_=builtins.dict", "dataset._target_=builtins.dict is not a dataset"),
    ("train.num_images=1000", "train.num_images=1000, but the training split has 160 images"),
    ("+augmentation.crop.hight=3", "augmentation.crop.hight is not an argument of segtrain.data.crops.RandomCrop. Did"),
    ("augmentation.flip.p=2", "augmentation.flip.p=2: "),
    ("augmentation.flip.p=often", "augmentation.flip.p=often"),
    ("+augmentation.flp.p=1", "augmentation.flp._target_ has no value"),
    ("+augmentation.flp=1", "augmentation.flp=1 must be a transform"),
    ("+augmentation.more={_target_:torch.nn.Identity}", "augmentation.more._target_ gave an object of type Identity"),
    ("runtime.device=foo", "runtime.device=foo is not available here"),
    ("runtime.device=meta", "runtime.device=meta is not available here"),
    pytest.param("runtime.device=cuda", "runtime.device=cuda is not available here",
                 marks=pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")),
])
def test_what_does_not_fit_is_named(override, said):
    with pytest.raises(UserError) as refused:
        build_all(composed(override))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_optimizer_that_needs_a_closure_is_refused():
    cfg = replace_values(composed(), {"optim": {"_target_": "torch.optim.LBFGS"}})
    with pytest.raises(UserError, match="choose another optimizer"):
        build.optimizer(cfg, nn.Linear(2, 2), CPU)


def test_a_missing_argument_is_named():
    with pytest.raises(UserError, match=r"model\.num_classes has no value, but .*LinkNet needs it"):
        call({"_target_": "segtrain.models.linknet.LinkNet"}, "model")


def test_a_name_of_digits_is_a_name():
    with pytest.raises(UserError, match="2024"):
        build.dataset(composed("dataset=camvid", "dataset.root=2024"), "train")


# ---- groups of parameters


class Halves(nn.Module):
    """An encoder and a head, each with a kernel of 8 and a bias of 2, and a frozen number."""

    def __init__(self):
        super().__init__()
        self.encoder, self.head = nn.Linear(4, 2), nn.Conv2d(2, 2, (1, 2))
        self.fixed = nn.Parameter(torch.zeros(1), requires_grad=False)


def updated(*overrides):
    """One step with all gradients 1: the values before, by name, and what the step took off them."""
    network = Halves()
    built = build.optimizer(composed("optim=sgd", "optim.momentum=0", "optim.lr=0.1", *overrides), network, CPU)
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
    built.step()
    return before, {name: before[name] - value.detach() for name, value in network.named_parameters()}


def test_without_options_all_parameters_are_one_group():
    network = Halves()
    group, = build.optimizer(composed(), network, CPU).param_groups
    assert group["params"] == [*network.encoder.parameters(), *network.head.parameters()]


def test_the_encoder_learns_at_its_own_rate():
    _, taken = updated("train.encoder_lr=0.001")
    for name, value in taken.items():
        rate = 0 if name == "fixed" else 0.001 if name.startswith("encoder") else 0.1
        torch.testing.assert_close(value, torch.full_like(value, rate), rtol=1e-3, atol=1e-7)


def test_the_schedule_moves_both_rates_alike():
    cfg = composed("train.encoder_lr=0.001", "optim=sgd", "optim.lr=0.1", "scheduler=poly")
    built = build.optimizer(cfg, Halves(), CPU)
    assert [group["lr"] for group in built.param_groups] == [0.1, 0.001], "the first is what train/lr shows"
    course = torch.optim.lr_scheduler.LambdaLR(built, build.schedule(cfg, 10, 5))
    for step in range(1, 5):
        built.step()
        course.step()
        factor = (1 - step / 10) ** 0.9
        assert [group["lr"] for group in built.param_groups] == pytest.approx([0.1 * factor, 0.001 * factor])


def test_decay_of_kernels_only():
    before, taken = updated("train.weight_decay_on=kernels", "optim.weight_decay=0.5")
    for name, value in taken.items():
        by_hand = {"weight": 0.1 * (1 + 0.5 * before[name]), "bias": torch.full_like(value, 0.1)}
        torch.testing.assert_close(value, by_hand.get(name.rpartition(".")[2], torch.zeros(1)))


def test_decay_of_all():
    before, taken = updated("optim.weight_decay=0.5")
    torch.testing.assert_close(taken["head.bias"], 0.1 * (1 + 0.5 * before["head.bias"]))


def test_the_options_combine():
    _, taken = updated("train.encoder_lr=0.001", "train.weight_decay_on=kernels", "optim.weight_decay=0.5")
    torch.testing.assert_close(taken["encoder.bias"], torch.full((2,), 0.001), rtol=1e-3, atol=1e-7)
    _, taken = updated("train.freeze_encoder=true", "train.weight_decay_on=kernels", "optim.weight_decay=0.5")
    assert {name for name, value in taken.items() if value.any()} == {"head.weight", "head.bias"}


def test_what_cannot_be_grouped_is_refused():
    without = nn.Sequential(nn.Linear(1, 1))
    for key, value in (("train.encoder_lr", 0.1), ("train.freeze_encoder", "true")):
        with pytest.raises(UserError, match=f"{key} needs .* Sequential has no module named encoder"):
            build.optimizer(composed(f"{key}={value}"), without, CPU)
    only = nn.Module()
    only.encoder = nn.Linear(1, 1)
    with pytest.raises(UserError, match=r"no parameter to train outside its encoder: leave out train\.freeze_encoder"):
        build.optimizer(composed("train.freeze_encoder=true"), only, CPU)
    with pytest.raises(UserError, match="Identity has no parameter to train"):
        build.optimizer(composed(), nn.Identity(), CPU)
    cfg = replace_values(composed("train.weight_decay_on=kernels"), {"optim": {"_target_": "torch.optim.Rprop"}})
    with pytest.raises(UserError, match=r"torch\.optim\.Rprop has no weight_decay"):
        build.optimizer(cfg, Halves(), CPU)


# ---- the user's own code

OWN = '''
import torch
from segtrain.models.linknet import LinkNet


class Own(torch.nn.Module):
    def __init__(self, num_classes: int, width: int = 8):
        super().__init__()
        self.head = torch.nn.Conv2d(3, num_classes, 1)


def make(num_classes):
    return Own(num_classes)


def clumsy():
    raise ValueError("no luck")


def fixed():
    return Own(3)


class Reader(Own):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.rates = [rate.item() for rate in torch.linspace(0, 1, 3)]
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_package.py").write_text(OWN)
    (tmp_path / "broken_package.py").write_text("x = 1\nprint(y)\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("own_package", None)


def test_own_classes_and_functions_build(own):
    cfg = replace_values(composed(), {"model": {"_target_": "own_package.Own", "num_classes": 4}})
    assert build.model(cfg, pretrained=False).head.out_channels == 4
    assert build.head_keys(cfg) == {"head.weight", "head.bias"}
    cfg = replace_values(cfg, {"model": {"_target_": "own_package.make", "num_classes": 4}})
    assert build.model(cfg).head.out_channels == 4
    cfg = replace_values(cfg, {"model": {"_target_": "own_package.fixed"}})
    assert build.head_keys(cfg) == set()
    state = torch.get_rng_state()
    cfg = replace_values(cfg, {"model": {"_target_": "own_package.Reader", "num_classes": 4}})
    assert build.head_keys(cfg) == {"head.weight", "head.bias"}
    assert torch.equal(torch.get_rng_state(), state)


def test_own_mistakes_are_named(own):
    for node, said in [({"_target_": "own_package.Own", "num_classes": 4, "widht": 3}, "Did you mean 'width'"),
                       ({"_target_": "own_package.Onw"}, "Did you mean 'Own'"),
                       ({"_target_": "own_package.clumsy"}, "model: no luck"),
                       ({"_target_": "broken_package.X"}, r"NameError: .*broken_package\.py, line 2")]:
        with pytest.raises(UserError, match=said):
            call(node, "model")


def test_nested_nodes_are_built_in_mappings_and_lists():
    built = call({"_target_": "torch.nn.ModuleList", "modules": [{"_target_": "torch.nn.Identity"}]}, "model")
    assert isinstance(built[0], nn.Identity)
    built = call({"_target_": "torch.nn.ModuleDict", "modules": {"one": {"_target_": "torch.nn.Identity"}}}, "model")
    assert isinstance(built["one"], nn.Identity)


# ---- what auto means


def settled(*overrides, on=CPU, **given):
    return build.settle(composed(*overrides), on,
                        **{"num_classes": 11, "cached_in_memory": True, "train_steps": 10, **given})


def test_auto_on_a_cpu():
    cfg = settled()
    assert (cfg.runtime.device, cfg.runtime.precision, cfg.runtime.workers) == ("cpu", "fp32", 0)
    assert cfg.runtime.channels_last is True
    assert cfg.runtime.compile is False, "ten steps do not pay for it"
    assert list(cfg.dataset.std) == [1.0, 1.0, 1.0]
    assert {key for key, value in walk(cfg.plain()) if value == "auto"} == {"dataset.cache", "dataset.nodata"}
    assert settled(cached_in_memory=False).runtime.workers in (1, 2)
    assert settled("dataset=folder", num_classes=3).model["num_classes"] == 3


def test_no_more_loaders_than_a_machine_bears(monkeypatch, caplog):
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    assert settled("runtime.workers=24").runtime.workers == 24
    assert caplog.text == ""
    assert settled("runtime.workers=25").runtime.workers == 24
    assert "runtime.workers=25 would fill this machine's memory" in caplog.text


def test_auto_compiles_long_runs_on_gpus(monkeypatch):
    gpu = {"on": torch.device("cuda"), "train_steps": 100_000}
    monkeypatch.setattr(build, "can_compile", lambda on: True)
    assert settled("runtime.precision=fp32", **gpu).runtime.compile is True
    assert settled("runtime.precision=fp32", "runtime.compile=false", **gpu).runtime.compile is False
    assert settled(train_steps=100_000).runtime.compile is False, "on a CPU it gains nothing"
    assert settled("runtime.compile=true").runtime.compile is True
    monkeypatch.setattr(build, "can_compile", lambda on: False)
    assert settled("runtime.precision=fp32", **gpu).runtime.compile is False


@pytest.mark.parametrize(("overrides", "mean", "std"), [
    ([], IMAGENET[0], [1, 1, 1]),
    (["model.pretrained=IMAGENET1K_V1"], *IMAGENET),
    (["model.pretrained=weights.pth"], *IMAGENET),
    (["model=fcn8", "model.batch_norm=false", "model.pretrained=IMAGENET1K_FEATURES"],
     [0.48235, 0.45882, 0.40784], [1 / 255] * 3),
    (["model.pretrained=IMAGENET1K_V1", "dataset.std=[1,1,1]"], IMAGENET[0], [1, 1, 1]),
    (["model.pretrained=IMAGENET1K_V1", "dataset.mean=[0,0,0]"], [0, 0, 0], IMAGENET[1]),
])
def test_auto_mean_and_std_are_those_of_the_pretrained_weights(overrides, mean, std):
    dataset = settled(*overrides).dataset
    assert dataset.mean == pytest.approx(mean, abs=1e-4)
    assert dataset.std == pytest.approx(std)


def test_cache(monkeypatch):
    data = build.dataset(composed("dataset.num_train=2"), "train")
    assert isinstance(build.cached(data, True), build.Cached)
    assert build.cached(data, False) is data
    monkeypatch.setattr(build, "free_memory", lambda device: 0)
    assert build.cached(data, "auto") is data
    monkeypatch.setattr(build, "free_memory", lambda device: 1 << 40)
    assert isinstance(build.cached(data, "auto"), build.Cached)


# ---- configs that come out of files


@functools.cache
def saved_container():
    return composed("loss=cross_entropy_dice").plain()


def saved(key, node):
    cfg = OmegaConf.create(saved_container())
    OmegaConf.update(cfg, key, node, merge=False, force_add=True)
    return OmegaConf.to_container(cfg)


@pytest.mark.parametrize("key", ["model", "optim", "scheduler", "loss", "dataset", "augmentation.crop",
                                 "loss.losses.dice", "augmentation.more", "model.encoder"])
@pytest.mark.parametrize("target", [
    "os.system", "builtins.eval", "subprocess.Popen", "torch.load", "torch.serialization.os.getcwd",
    "torch.optim.optimizer.functools.partial", "torch.optimx.SGD", "trap.Own", "segtrain.cli.main",
    "segtrain.losses.compute_class_weights", "albumentations.core.serialization.load"])
def test_a_foreign_target_is_refused_before_it_is_imported(tmp_path, monkeypatch, key, target):
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError) as refused:
        check_trust(saved(key, {"_target_": target, "command": "touch x"}), [], [])
    assert f"{key}._target_={target} in the saved configuration" in str(refused.value)
    assert f"runtime.trusted=[{target.split('.')[0]}]" in str(refused.value)


@pytest.mark.parametrize(("group", "target"), [
    ("model", "torch.optim.SGD"), ("optim", "segtrain.models.linknet.LinkNet"), ("optim", "torch.optim.Nothing"),
    ("augmentation.crop", "segtrain.data.streets.dataset.Streets"), ("scheduler", "segtrain.optim.math.floor"),
    ("dataset", "segtrain.data.images.read_image")])
def test_a_target_of_another_kind_is_refused(group, target):
    with pytest.raises(UserError, match="_target_="):
        check_trust(saved(group, {"_target_": target}), [], [])


@pytest.mark.parametrize("choice", [f"{group}={choice}" for group in OPEN_GROUPS for choice in choices(group)])
def test_own_configs_are_trusted(choice):
    check_trust(composed(choice).plain(), [], [])


def test_torchvisions_networks_are_trusted():
    check_trust(saved("model", {"_target_": "torchvision.models.resnet18"}), [], [])
    check_trust(saved("model", {"_target_": "torchvision.models.ResNet"}), [], [])


def test_own_packages_are_trusted_when_named(own):
    cfg = saved("model", {"_target_": "own_package.make", "num_classes": 3})
    with pytest.raises(UserError, match=r"runtime\.trusted=\[own_package\]"):
        check_trust(cfg, [], [])
    assert "own_package" not in sys.modules
    check_trust(cfg, [], ["own_package"])
    with pytest.raises(UserError):  # what a module imports is not its own
        check_trust(saved("model", {"_target_": "own_package.torch.load"}), [], ["own_package"])


@pytest.mark.parametrize(("overrides", "is_trusted"), [
    (["model=x"], True), (["model._target_=own_package.make"], True), (["+model=x"], True), (["optim=x"], False),
    (["model.num_classes=3"], False)])
def test_what_the_command_line_chooses_is_the_users_own(own, overrides, is_trusted):
    cfg = saved("model", {"_target_": "own_package.make", "num_classes": 3})
    if is_trusted:
        check_trust(cfg, overrides, [])
    else:
        with pytest.raises(UserError):
            check_trust(cfg, overrides, [])
