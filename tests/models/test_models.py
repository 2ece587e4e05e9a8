"""Every network through one set of checks: a network joins by a line in MODELS."""

import copy
import functools
import importlib.util
import logging
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torch.nn.functional as F
import torchvision
from helpers import images, mostly_slow
from omegaconf import OmegaConf
from torch import nn

from segtrain.auxiliary import AuxiliaryLoss
from segtrain.config.instantiate import locate
from segtrain.export.program import one_is_any_size
from segtrain.inference.folding import fold_batchnorm
from segtrain.losses import CrossEntropy, mean_loss
from segtrain.models import ddrnet, pidnet
from segtrain.models.bisenetv2 import BiSeNetV2
from segtrain.models.blocks import crop_like, pad_to_multiple
from segtrain.models.ddrnet import DDRNet
from segtrain.models.efficientvit_seg import EfficientViTSeg
from segtrain.models.encoders import DENSENETS
from segtrain.models.enet import ENet
from segtrain.models.fast_scnn import FastSCNN
from segtrain.models.fc_densenet import FCDenseNet
from segtrain.models.fcn8 import FCN8
from segtrain.models.linknet import LinkNet
from segtrain.models.linknet_preact import LinkNetPreact
from segtrain.models.lraspp import LRASPP
from segtrain.models.mobilenetv2_unet import MobileNetV2UNet
from segtrain.models.pidnet import PIDNet
from segtrain.models.pp_liteseg import PPLiteSeg
from segtrain.models.pretrained import adapt_first_conv
from segtrain.models.regseg import RegSeg
from segtrain.models.segformer import SegFormer
from segtrain.models.segnet import SegNet
from segtrain.models.smp import SMPNetwork
from segtrain.models.stdc import STDC
from segtrain.models.tiramisu import VARIANTS, Tiramisu
from segtrain.models.torchvision import TorchvisionNetwork
from segtrain.models.unet import UNet
from segtrain.profiling import count_parameters

CONF = Path(__file__).parents[2] / "conf" / "model"

DENSENETS[21] = (2, 2, 2, 2)  # DenseNet-121 is too slow to be traced and trained in every run of the tests
VARIANTS[34] = (12, (2, 2, 2, 2, 2), 2)  # so is FC-DenseNet56
pidnet.VARIANTS["tiny"] = (8, 2, 2, 8, 16)
ddrnet.VARIANTS["tiny"] = (8, 16)

# id, class, arguments beside num_classes, trainable parameters for 12 classes and 3 channels, and how many of them are
# left without auxiliary heads.
# An id that is the name of a file in conf/model/ must build the same network as that file.
MODELS = [
    ("linknet", LinkNet, {}, 11_534_796),
    ("linknet_resnet34", LinkNet, {"encoder": "resnet34"}, 21_642_956),
    ("linknet_resnet50", LinkNet, {"encoder": "resnet50"}, 28_763_276),
    ("linknet_mobilenet", LinkNet, {"encoder": "mobilenet_v3_small"}, 898_152),
    ("lraspp", LRASPP, {}, 2_859_688),
    ("lraspp_small", LRASPP, {"encoder": "mobilenet_v3_small"}, 897_240),
    ("linknet_preact", LinkNetPreact, {}, 11_542_962),
    ("fcn8", FCN8, {}, 134_332_004),
    ("fcn8_separable", FCN8, {"separable": True}, 20_660_223),
    ("fcn8_plain", FCN8, {"batch_norm": False, "fc_channels": 64}, 16_339_172),
    ("fcn8_small", FCN8, {"separable": True, "fc_channels": 64, "dropout": 0.0}, 1_758_207),
    ("fc_densenet21", FCDenseNet, {"depth": 21}, 1_317_132),
    ("fc_densenet121", FCDenseNet, {}, 28_644_812),
    ("fc_densenet169", FCDenseNet, {"depth": 169}, 50_360_908),
    ("fc_densenet201", FCDenseNet, {"depth": 201}, 72_241_996),
    ("fc_densenet121_bottleneck", FCDenseNet, {"bottleneck_blocks": 32}, 40_874_444),
    ("fc_densenet169_bottleneck", FCDenseNet, {"depth": 169, "bottleneck_blocks": 32}, 66_432_588),
    ("fc_densenet201_bottleneck", FCDenseNet, {"depth": 201, "bottleneck_blocks": 32}, 91_737_932),
    ("mobilenetv2_unet", MobileNetV2UNet, {}, 6_484_364),
    ("fc_densenet34", Tiramisu, {"depth": 34}, 424_140),
    ("fc_densenet56", Tiramisu, {"depth": 56}, 1_376_988),  # ours: implementations do not agree on it
    ("fc_densenet67", Tiramisu, {"depth": 67}, 3_463_532),
    ("fc_densenet103", Tiramisu, {}, 9_322_348),
    ("unet", UNet, {}, 31_032_460),
    ("unet_width16", UNet, {"width": 16}, 1_941_292),
    ("unet_batch_norm", UNet, {"batch_norm": True}, 31_044_236),
    ("unet_resnet18", UNet, {"encoder": "resnet18"}, 14_242_460),
    ("segnet", SegNet, {}, 29_449_932),
    ("segnet_width8", SegNet, {"width": 8}, 463_716),
    ("enet", ENet, {}, 350_652),
    ("pidnet_s", PIDNet, {}, 7_719_129, 7_624_812),
    ("pidnet_m", PIDNet, {"variant": "m"}, 28_761_305, 28_537_612),
    ("pidnet_l", PIDNet, {"variant": "l"}, 37_310_713, 36_937_772),
    ("pidnet_tiny", PIDNet, {"variant": "tiny"}, 356_457, 352_676),
    ("ddrnet_23_slim", DDRNet, {}, 5_733_432, 5_695_532),
    ("ddrnet_23", DDRNet, {"variant": "23"}, 20_297_560, 20_148_044),
    ("ddrnet_tiny", DDRNet, {"variant": "tiny"}, 994_080, 991_508),
    ("stdc1", STDC, {}, 8_570_208, 8_273_312),
    ("stdc2", STDC, {"depth": 2}, 12_600_672, 12_303_776),
    ("pp_liteseg_t", PPLiteSeg, {}, 8_140_480, 8_028_096),
    ("pp_liteseg_b", PPLiteSeg, {"variant": "b"}, 12_365_120, 12_234_304),
    ("bisenetv2", BiSeNetV2, {}, 14_787_532, 3_351_708),
    ("bisenetv2_coincheung", BiSeNetV2, {"variant": "coincheung"}, 5_214_764, 3_351_452),
    ("fast_scnn", FastSCNN, {}, 1_455_252, 1_399_036),
    ("fast_scnn_tramac", FastSCNN, {"variant": "tramac"}, 1_156_040, 1_137_148),
    ("efficientvit_seg_b0", EfficientViTSeg, {}, 705_788),
    ("efficientvit_seg_b1", EfficientViTSeg, {"variant": "b1"}, 4_801_644),
    ("segformer_b0", SegFormer, {}, 3_717_228),
    ("segformer_b1", SegFormer, {"variant": "b1"}, 13_680_332),
    ("regseg", RegSeg, {}, 3_334_496),
    ("torchvision/fcn_resnet50", TorchvisionNetwork, {"name": "fcn_resnet50"}, 32_952_396),
    ("torchvision/fcn_resnet101", TorchvisionNetwork, {"name": "fcn_resnet101"}, 51_944_524),
    ("torchvision/deeplabv3_resnet50", TorchvisionNetwork, {"name": "deeplabv3_resnet50"}, 39_636_556),
    ("torchvision/deeplabv3_resnet101", TorchvisionNetwork, {"name": "deeplabv3_resnet101"}, 58_628_684),
    ("torchvision/deeplabv3_mobilenet_v3_large", TorchvisionNetwork, {"name": "deeplabv3_mobilenet_v3_large"},
     11_023_164),
    ("torchvision/lraspp_mobilenet_v3_large", TorchvisionNetwork, {"name": "lraspp_mobilenet_v3_large"}, 3_220_008),
]
SMP = importlib.util.find_spec("segmentation_models_pytorch") is not None  # an optional package
if SMP:
    MODELS += [("smp", SMPNetwork, {"architecture": "Linknet", "encoder": "resnet18"}, 11_664_140)]


def smallest_of_each_class():
    """What a size or an encoder cannot change is checked on the smallest network of each class only."""
    rows = {}
    for row in sorted(MODELS, key=lambda row: row[3]):
        rows.setdefault(row[1], row)
    return [row for row in MODELS if row in rows.values()]


def parametrized(rows, fast=None):
    """Run a test on networks; on those that are not `fast`, if that is given, only with the slow tests."""
    return pytest.mark.parametrize(("make", "kwargs"), [
        pytest.param(*row[1:3], id=row[0], marks=() if fast is None or row[0] in fast else pytest.mark.slow)
        for row in rows])


SMALLEST = smallest_of_each_class()
FAST = [row[0] for row in SMALLEST if row[1] in (LinkNet, UNet, ENet, PIDNet, FastSCNN, EfficientViTSeg)]
every_model = parametrized([row for row in MODELS if row[3] < 45e6],  # larger ones only repeat their blocks
                           fast=FAST)
every_class = parametrized(SMALLEST, fast=FAST)
every_class_slowly = parametrized(SMALLEST, fast=["unet_width16"])
# of the real-time networks, whose export is tested, two with pyramids and attention are compiled
compiled_classes = parametrized([row for row in SMALLEST if row[1] not in (
    DDRNet, STDC, PPLiteSeg, BiSeNetV2, FastSCNN, EfficientViTSeg, RegSeg)], fast=["unet_width16"])


def build(make, kwargs, num_classes=5, seed=0, **more):
    torch.manual_seed(seed)
    return make(num_classes, **{**kwargs, **more})


def training_loss(model, x, target):
    """Return the cross entropy, and the sum of it and the losses of auxiliary heads, where a network has some."""
    loss = AuxiliaryLoss(CrossEntropy(), model.aux_weights) if model.aux_weights else CrossEntropy()
    sums, normalizers = loss(model(x), target), loss.normalizer(target)
    return mean_loss(sums[:1], normalizers[:1]), mean_loss(sums, normalizers)


@functools.cache
@torch.enable_grad()
def trained(make, **kwargs):
    """Train on one batch until it is learnt, once for all tests; return the network, the batch and the losses."""
    model, x = build(make, kwargs).train(), images(2, 3, 64, 64)
    target = torch.zeros(2, 64, 64, dtype=torch.long)
    target[0, :, 32:], target[1, 32:] = 1, 2
    normalised = any(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3 if normalised else 1e-3)
    losses = []
    for _ in range(40):
        main, loss = training_loss(model, x, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(main.item())
        if losses[-1] < 0.15 * losses[0]:
            break
    return model, x, target, losses


def assert_close(actual, expected):
    """Compare with the largest logit in view: an untrained residual network answers with thousands."""
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Keep to one thread: on tensors this small, threads on a busy machine spend their time waiting for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("make", "kwargs", "counts"), mostly_slow(20, [
    pytest.param(*m[1:3], m[3:], id=m[0]) for m in sorted(MODELS, key=lambda m: m[3])]))
def test_parameter_count(make, kwargs, counts):
    with torch.device("meta"):
        model = make(12, **kwargs)
        assert count_parameters(model, aux=True) == counts[0]
        assert count_parameters(model, aux=False) == counts[-1]
        if len(counts) == 2:
            assert count_parameters(make(12, **kwargs, aux=False), aux=True) == counts[1]


@pytest.mark.parametrize("name", mostly_slow(8, sorted(
    path.relative_to(CONF).with_suffix("").as_posix() for path in CONF.rglob("*.yaml"))))
def test_a_config_builds_the_network_of_its_name(name):
    """The file's arguments are those of its row: same class, same parameters, under the same names."""
    if name == "smp" and not SMP:
        pytest.skip("needs segmentation_models_pytorch")
    (make, kwargs, parameters), = [row[1:4] for row in MODELS if row[0] == name]
    dataset = {"num_classes": 12, "channels": None}
    cfg = OmegaConf.create({"dataset": dataset, "model": OmegaConf.load(CONF / f"{name}.yaml")})
    arguments = OmegaConf.to_container(cfg.model, resolve=True)
    assert locate(arguments.pop("_target_"), "model") is make
    assert arguments.get("pretrained") is None
    assert arguments["num_classes"] == 12
    with torch.device("meta"):
        built, expected = make(**arguments), make(12, **kwargs)
    assert count_parameters(built, aux=True) == parameters
    assert repr(built) == repr(expected)


@every_class
@torch.no_grad()
def test_logits_have_the_size_of_the_images(make, kwargs):
    model = build(make, kwargs).eval()
    for height, width in [(32, 32), (33, 47), (64, 96), (97, 32), (45, 101), (360, 480)]:
        logits = model(images(1, 3, height, width))
        assert logits.shape == (1, 5, height, width)
        assert logits.dtype == torch.float32
        assert logits.isfinite().all()


@every_class
@torch.no_grad()
def test_images_below_the_smallest_size_are_refused(make, kwargs):
    model = build(make, kwargs).eval()
    for height, width in [(31, 64), (64, 31)]:
        with pytest.raises(ValueError, match=f"{height}x{width}.*at least 32"):
            model(images(1, 3, height, width))


@every_class
@pytest.mark.parametrize(("num_classes", "in_channels"), [(1, 1), (2, 4), (19, 2)])
@torch.no_grad()
def test_channels_in_and_classes_out(make, kwargs, num_classes, in_channels):
    model = build(make, kwargs, num_classes, in_channels=in_channels).eval()
    assert model(images(1, in_channels, 32, 40)).shape == (1, num_classes, 32, 40)


@every_class
@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"num_classes": 0}, "num_classes.*not 0"), ({"num_classes": 5, "in_channels": 0}, "in_channels.*not 0")],
)
def test_impossible_channels_are_refused(make, kwargs, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**kwargs, **arguments)


@every_model
def test_gradients_reach_every_parameter(make, kwargs):
    model = build(make, kwargs).train()
    x, target = images(2, 3, 40, 64), torch.arange(5120).reshape(2, 40, 64) // 640 % 5
    output = model(x)
    if model.aux_weights:
        assert set(output["aux"]) == set(model.aux) == set(model.aux_weights) - {"boundary_aware"}
        assert {tuple(head.shape[2:]) for head in output["aux"].values()} == {(40, 64)}
        output = output["logits"]
    assert output.shape == (2, 5, 40, 64)
    training_loss(model, x, target)[1].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.ndim == 1 or parameter.grad.any(), name  # a bias before BatchNorm has none


@every_class
@torch.no_grad()
def test_a_new_network_is_unsure(make, kwargs):
    model = build(make, kwargs).train()
    output = model(images(4, 3, 64, 64))
    logits = output["logits"] if model.aux_weights else output
    loss = F.cross_entropy(logits, torch.zeros(4, 64, 64, dtype=torch.long))
    assert loss < 2 * torch.log(torch.tensor(5.0))


@every_class
@torch.no_grad()
def test_state_dict_round_trip(make, kwargs, tmp_path):
    model, other = build(make, kwargs, seed=0).eval(), build(make, kwargs, seed=1).eval()
    torch.save(model.state_dict(), tmp_path / "model.pt")
    other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    x = images(1, 3, 33, 47)
    assert torch.equal(model(x), other(x))


@every_class
@torch.no_grad()
def test_the_seed_decides(make, kwargs):
    x = images(2, 3, 33, 47)
    first, again, other = (build(make, kwargs, seed=seed).eval()(x) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


@every_class
@torch.no_grad()
def test_an_image_does_not_depend_on_its_batch(make, kwargs):
    model = build(make, kwargs).eval()
    x = images(3, 3, 48, 40)
    assert_close(torch.cat([model(image[None]) for image in x]), model(x))


@every_class
@torch.no_grad()
def test_channels_last_gives_the_same(make, kwargs):
    model, x = build(make, kwargs).eval(), images(2, 3, 40, 56)
    expected = model(x)
    model.to(memory_format=torch.channels_last)
    actual = model(x.to(memory_format=torch.channels_last))
    assert_close(actual, expected)


@pytest.mark.slow
@every_class_slowly
@torch.no_grad()
def test_bfloat16_is_close(make, kwargs):
    """After training: in a new network, the place of a maximum, which SegNet and ENet hand on, is up to rounding."""
    model, x, *_ = copy.deepcopy(trained(make, **kwargs))
    expected = model.eval()(x)
    with torch.autocast("cpu", torch.bfloat16):
        actual = model(x).float()
    assert actual.isfinite().all()
    assert (actual - expected).abs().mean() < 0.1 * expected.std()


@pytest.mark.slow
@every_class_slowly
def test_learns_one_batch(make, kwargs):
    *_, losses = trained(make, **kwargs)
    assert losses[-1] < 0.15 * losses[0], losses


@pytest.mark.slow
@every_class_slowly
@torch.no_grad()
def test_export_with_any_size(make, kwargs):
    model = build(make, kwargs).eval()
    dims = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    with one_is_any_size():
        program = torch.export.export(model, (images(3, 3, 70, 101),), dynamic_shapes=(dims,)).module()
    for x in (images(2, 3, 90, 65), images(1, 3, 128, 192), images(1, 3, 40, 41)):
        assert_close(program(x), model(x))


@pytest.mark.slow
@every_class
@torch.no_grad()
def test_folding_batchnorm_changes_nothing(make, kwargs):
    model = copy.deepcopy(trained(make, **kwargs)[0]).eval()
    folded, x = fold_batchnorm(model, images(1, 3, 64, 64)), images(2, 3, 90, 65)
    assert (folded is model) == (make in (UNet, Tiramisu)), "one has none by default, one none behind a convolution"
    assert_close(folded(x), model(x))


@compiled_classes
@torch.no_grad()
def test_compiles_as_one_graph(make, kwargs):
    """As a training does it, for one size: that a network can be traced for all, its export shows at half the cost."""
    model, x = build(make, kwargs).eval(), images(1, 3, 33, 47)
    compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=False)
    torch.testing.assert_close(compiled(x), model(x))


@pytest.mark.slow
@torch.no_grad()
def test_one_graph_serves_every_size():
    model, graphs = build(UNet, {"width": 4}).eval(), []
    compiled = torch.compile(model, backend=lambda graph, _: graphs.append(graph) or graph, fullgraph=True,
                             dynamic=True)
    for x in (images(2, 3, 33, 47), images(3, 3, 50, 90)):
        torch.testing.assert_close(compiled(x), model(x))
    assert len(graphs) == 1


@pytest.mark.slow
@torch.no_grad()
def test_compiles_to_machine_code():
    """By inductor, for one small network only: what it compiles are torch's operators."""
    model, x = build(UNet, {"width": 4}).eval(), images(1, 3, 64, 96)
    assert_close(torch.compile(model)(x), model(x))


@every_class
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize(("precision", "tolerance"), [(torch.float32, 0.01), (torch.bfloat16, 0.1)])
def test_gpu_agrees_with_cpu(make, kwargs, precision, tolerance):
    model, x, target, _ = copy.deepcopy(trained(make, **kwargs))
    expected = model.eval()(x).detach()
    model = model.cuda().to(memory_format=torch.channels_last)
    with torch.autocast("cuda", precision, enabled=precision != torch.float32):
        actual = model(x.cuda()).detach()
        training_loss(model.train(), x.cuda(), target.cuda())[1].backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert (actual.float().cpu() - expected).abs().mean() < tolerance * expected.std()


# What LinkNet and its encoder promise beyond that


def test_linknet_shapes_inside():
    model = build(LinkNet, {}).eval()
    features = model.encoder(images(1, 3, 64, 96))
    assert [tuple(f.shape[1:]) for f in features] == [
        (64, 16, 24), (64, 16, 24), (128, 8, 12), (256, 4, 6), (512, 2, 3)
    ]  # fmt: skip
    assert not any("bias" in name for name, _ in model.decoder.named_parameters() if ".0.bias" in name)


@pytest.fixture(scope="module")
def resnet18():
    """Torchvision's network with BatchNorm statistics of its own, so that a forgotten buffer shows."""
    torch.manual_seed(3)
    network = torchvision.models.resnet18(weights=None)
    network.train()(images(2, 3, 64, 64))
    return network.eval()


@pytest.fixture
def checkpoint(resnet18, tmp_path):
    """Save a state dict, that of torchvision's ResNet-18 unless given another, and return the path."""

    def save(state=None):
        path = tmp_path / "weights.pth"
        torch.save(resnet18.state_dict() if state is None else state, path)
        return str(path)

    return save


@torch.no_grad()
def test_local_weights_are_loaded_exactly(resnet18, checkpoint):
    encoder = LinkNet(5, pretrained=checkpoint()).encoder
    expected = {k: v for k, v in resnet18.state_dict().items() if not k.startswith("fc.")}
    actual = encoder.state_dict()
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[k], expected[k]) for k in expected)
    resnet18.fc, fc = nn.Identity(), resnet18.fc
    x = images(2, 3, 64, 64)
    torch.testing.assert_close(encoder.eval()(x)[-1].mean((2, 3)), resnet18(x))
    resnet18.fc = fc


def test_weights_without_fc_or_batch_counters_fit(resnet18, checkpoint):
    old = {k: v for k, v in resnet18.state_dict().items() if "fc." not in k and "num_batches" not in k}
    assert torch.equal(LinkNet(5, pretrained=checkpoint(old)).encoder.conv1.weight, resnet18.conv1.weight)


@pytest.mark.parametrize(("wrap", "said"), [
    (lambda state: {"epoch": 3, "state_dict": state}, ""),
    (lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}}, "below module."),
    (lambda state: {"net": {f"_orig_mod.module.{key}": value for key, value in state.items()}}, "_orig_mod.module."),
    (lambda state: {"model": {"state_dict": {**{f"backbone.{key}": value for key, value in state.items()},
                                             "head.weight": torch.ones(1)}}}, "backbone., 1 others are left out"),
    (lambda state: {"model": {**{f"encoder.{key}": value for key, value in state.items()}}, "ema": None}, "encoder."),
], ids=["lightning", "parallel", "compiled", "detector", "segtrain"])
def test_wrapped_weights_are_unwrapped(resnet18, checkpoint, caplog, wrap, said):
    with caplog.at_level(logging.INFO):
        encoder = LinkNet(5, pretrained=checkpoint(wrap(dict(resnet18.state_dict())))).encoder
    assert torch.equal(encoder.conv1.weight, resnet18.conv1.weight)
    assert torch.equal(encoder.layer4[1].conv2.weight, resnet18.layer4[1].conv2.weight)
    assert said in caplog.text


def test_a_file_without_weights_says_what_it_holds(checkpoint):
    loop = {"epoch": 3}
    loop["model"] = loop
    for content in (loop, {"epoch": 3, "model": 4}):
        with pytest.raises(ValueError, match=r"holds no state dict \(names to tensors\), but epoch, model; give that"):
            LinkNet(5, pretrained=checkpoint(content))
    with pytest.raises(ValueError, match=r"does not fit resnet18 \(missing: conv1.weight, .*, .*, .*, .* and "):
        LinkNet(5, pretrained=checkpoint({"a": {"state_dict": 1}, "state_dict": {"x.y": torch.ones(1)}}))


@torch.no_grad()
def test_first_conv_for_other_channels(resnet18, checkpoint):
    path, grey, rgb = checkpoint(), images(1, 1, 32, 32), images(1, 3, 32, 32)
    one, two, four = (LinkNet(5, n, pretrained=path).encoder.conv1 for n in (1, 2, 4))
    answer = resnet18.conv1(grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(one(grey), answer)
    torch.testing.assert_close(two(grey.expand(-1, 2, -1, -1)), answer)
    torch.testing.assert_close(four(torch.cat([rgb, 100 * grey], 1)), resnet18.conv1(rgb), atol=1e-5, rtol=1e-4)
    weight = images(8, 1, 7, 7)
    assert adapt_first_conv(weight, 1) is weight


def test_weights_by_name_come_from_torchvision(resnet18, monkeypatch):
    calls = []

    def download(url, **kwargs):
        calls.append((url, kwargs))
        return resnet18.state_dict()

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    for name in ("IMAGENET1K_V1", "DEFAULT", "ResNet18_Weights.IMAGENET1K_V1"):
        model = LinkNet(5, pretrained=name)
        assert torch.equal(model.encoder.layer4[1].conv2.weight, resnet18.layer4[1].conv2.weight)
    assert {url for url, _ in calls} == {torchvision.models.ResNet18_Weights.DEFAULT.url}
    assert all(kwargs["weights_only"] and kwargs["check_hash"] for _, kwargs in calls)


@pytest.mark.parametrize("error", [URLError("no route to host"), RuntimeError("invalid hash value"), TimeoutError()])
def test_a_failed_download_names_the_file_to_fetch(monkeypatch, tmp_path, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # no weights downloaded earlier
    monkeypatch.setattr("torch.hub.download_url_to_file", fail)
    with pytest.raises(ValueError, match="cannot download") as caught:
        LinkNet(5, pretrained="IMAGENET1K_V1")
    url = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url
    assert url in str(caught.value)
    assert f"model.pretrained=/path/to/{url.rsplit('/', 1)[-1]}" in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"encoder": "resnet81"}, r"unknown encoder 'resnet81': choose one of the nearest of \d+: resnet18, "),
        ({"pretrained": "IMAGENET_V1"}, "IMAGENET1K_V1, DEFAULT"),
        ({"pretrained": "IMAGENET1K_V2"}, "weights of resnet18 'IMAGENET1K_V2': choose one of IMAGENET1K_V1, DEFAULT"),
        ({"pretrained": "/nowhere/weights.pth"}, "/nowhere/weights.pth.*no such file"),
    ],
)
def test_unknown_names_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        LinkNet(5, **arguments)


@pytest.mark.parametrize("content", [b"", b"hello", bytes(range(256)) * 9, b"PK\x03\x04 torn"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"weights\.pth is not a PyTorch checkpoint"):
        LinkNet(5, pretrained=str(path))


class Harmful:
    """An object whose unpickling would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_nothing_in_a_file_is_executed(checkpoint, tmp_path):
    with pytest.raises(ValueError, match="none of it was executed"):
        LinkNet(5, pretrained=checkpoint({"conv1.weight": Harmful(str(tmp_path / "executed"))}))
    assert not (tmp_path / "executed").exists()


def test_a_checkpoint_that_does_not_fit_is_refused(resnet18, checkpoint):
    state = resnet18.state_dict()
    with pytest.raises(ValueError, match="holds no state dict"):
        LinkNet(5, pretrained=checkpoint({"epoch": 3, "model": "resnet18"}))
    with pytest.raises(ValueError, match=r"missing: conv1\.weight, .* and \d+ more; unexpected: conv1\.weight\.x"):
        LinkNet(5, pretrained=checkpoint({f"{k}.x": v for k, v in state.items()}))
    with pytest.raises(ValueError, match=r"resnet18 \(of another shape: bn1\.bias \(3,\) instead of \(64,\)"):
        LinkNet(5, pretrained=checkpoint(state | {"bn1.bias": torch.zeros(3)}))
    with pytest.raises(ValueError, match=r"of another shape: conv1\.weight"):
        LinkNet(5, 3, pretrained=checkpoint(state | {"conv1.weight": torch.zeros(64, 1, 7, 7)}))
    with pytest.raises(ValueError, match=r"does not fit resnet34 \(missing: layer1\.2\.conv1\.weight(, [\w.]+){4} and"):
        LinkNet(5, encoder="resnet34", pretrained=checkpoint())


def test_padding_and_cropping():
    x = images(1, 2, 33, 64)
    padded = pad_to_multiple(x, 32)
    assert padded.shape == (1, 2, 64, 64)
    assert torch.equal(crop_like(padded, x), x)
    assert (padded[..., 33:, :] == 0).all()
    assert torch.equal(pad_to_multiple(padded, 32), padded)
