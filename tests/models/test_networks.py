"""What U-Net, SegNet, ENet and Tiramisu promise beyond test_models.py: the tables and figures of their papers."""

import pytest
import torch
import torch.nn.functional as F
from helpers import images
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from segtrain.models.blocks import kaiming_init, unpool
from segtrain.models.enet import Bottleneck, DownBottleneck, ENet, PReLU
from segtrain.models.segnet import SegNet
from segtrain.models.tiramisu import Tiramisu
from segtrain.models.unet import UNet


def shapes_inside(model, modules, height, width):
    """Return the (channels, height, width) that modules give for one image, computing shapes only."""
    found = {}

    def note(name):
        def hook(module, arguments, output):
            found[name] = tuple((output[0] if isinstance(output, tuple) else output).shape[1:])

        return hook

    for name in modules:
        model.get_submodule(name).register_forward_hook(note(name))
    model(torch.zeros(1, 3, height, width, device="meta"))
    return [found[name] for name in modules]


# Unpooling


@pytest.mark.parametrize(("height", "width"), [(8, 12), (7, 12), (8, 11), (7, 11), (1, 1)])
def test_unpooling_is_that_of_torch(height, width):
    x = images(2, 3, height, width).double().requires_grad_()
    maxima, indices = F.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
    actual = unpool(maxima, indices, (height, width))
    expected = F.max_unpool2d(maxima, indices, 2, output_size=(height, width))
    assert torch.equal(actual, expected)
    weight = images(2, 3, height, width).double()
    (gradient,) = torch.autograd.grad((actual * weight).sum(), x, retain_graph=True)
    (expected_gradient,) = torch.autograd.grad((expected * weight).sum(), x)
    assert torch.equal(gradient, expected_gradient)


def test_unpooled_maxima_stand_where_they_stood():
    x = images(1, 2, 9, 6)
    maxima, indices = F.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
    restored = unpool(maxima, indices, (9, 6))
    places = restored != 0
    assert torch.equal(restored[places], x[places])
    assert places.sum() == maxima.numel()


# U-Net


def test_unet_has_the_channels_of_the_paper():
    with torch.device("meta"):
        model = UNet(2)
    modules = [*(f"encoder.{i}" for i in range(5)), *(f"decoder.{i}" for i in range(4)), "head"]
    assert shapes_inside(model, modules, 64, 96) == [
        (64, 64, 96), (128, 32, 48), (256, 16, 24), (512, 8, 12),
        (1024, 4, 6),
        (512, 8, 12), (256, 16, 24), (128, 32, 48), (64, 64, 96), (2, 64, 96),
    ]  # fmt: skip
    kinds = [type(layer) for layer in model.modules()]
    assert kinds.count(nn.Conv2d) + kinds.count(nn.ConvTranspose2d) == 23  # "in total the network has 23 layers"
    assert nn.BatchNorm2d not in kinds


@torch.no_grad()
def test_signals_survive_a_new_unet_without_batch_norm():
    torch.manual_seed(0)
    model, spreads = UNet(5, width=16), []
    for block in [*model.encoder, *model.decoder]:
        block.register_forward_hook(lambda module, arguments, output: spreads.append(output.std().item()))
    spreads.append(model(images(2, 3, 64, 64)).std().item())
    assert min(spreads) > 0.3
    assert max(spreads) < 3


def test_unet_with_batch_norm_normalises_each_convolution_of_its_blocks():
    with torch.device("meta"):
        plain, normalised = UNet(2, width=4), UNet(2, width=4, batch_norm=True)
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in normalised.modules()) == 18
    convolutions = [p.shape for p in normalised.parameters() if p.ndim == 4]
    assert convolutions == [p.shape for p in plain.parameters() if p.ndim == 4]


# SegNet


def test_segnet_parameters_for_the_eleven_classes_of_the_paper():
    with torch.device("meta"):
        assert sum(p.numel() for p in SegNet(11).parameters()) == 29_449_355


def test_segnet_decoder_mirrors_the_encoder():
    with torch.device("meta"):
        model = SegNet(11)
    convs = [[tuple(c.weight.shape[:2]) for c in part.modules() if isinstance(c, nn.Conv2d)]
             for part in (model.encoder, model.decoder)]  # fmt: skip
    assert len(convs[0]) == 13
    mirrored = [(read, given) for given, read in reversed(convs[0])]
    assert convs[1] == [*mirrored[:-1], (11, 64)]  # instead of the colours, the classes
    assert shapes_inside(model, [f"decoder.{i}" for i in range(5)], 45, 101) == [
        (512, 3, 7), (256, 6, 13), (128, 12, 26), (64, 23, 51), (11, 45, 101)
    ]  # fmt: skip


@torch.no_grad()
def test_segnet_unpools_the_last_pooling_first():
    torch.manual_seed(0)
    model, x = SegNet(5, width=8).eval(), images(2, 3, 50, 70)
    (*_, features), pooled = model.encoder(x)
    for stage, (indices, size) in zip(model.decoder, pooled[::-1], strict=True):
        features = stage(F.max_unpool2d(features, indices, 2, output_size=size))
    torch.testing.assert_close(model(x), features)


@torch.no_grad()
def test_segnet_takes_the_weights_of_torchvision(tmp_path):
    torch.manual_seed(0)
    vgg = nn.ModuleDict({"features": make_layers(cfgs["D"], batch_norm=True)})
    vgg["features"].train()(images(2, 3, 32, 32))
    torch.save({**vgg.state_dict(), "classifier.0.weight": torch.zeros(4, 4)}, tmp_path / "vgg16_bn.pth")
    encoder = SegNet(5, pretrained=str(tmp_path / "vgg16_bn.pth")).encoder.eval()
    assert encoder.state_dict().keys() == vgg.state_dict().keys()
    x = images(1, 3, 64, 96)
    torch.testing.assert_close(encoder(x)[0][-1], vgg["features"].eval()(x))
    grey = SegNet(5, in_channels=1, pretrained=str(tmp_path / "vgg16_bn.pth")).encoder.eval()
    torch.testing.assert_close(grey(x[:, :1])[0][-1], vgg["features"](x[:, :1].expand(-1, 3, -1, -1)),
                               rtol=1e-4, atol=1e-4)


# enlarging


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 2), (4, 2), (16, 8)])
def test_transposed_convolutions_start_without_checkerboards(kernel, stride):
    conv = nn.ConvTranspose2d(4, 3, kernel, stride, bias=False)
    kaiming_init(conv)
    inside = conv(images(1, 4, 1, 1).expand(1, 4, 6, 6))[..., 2 * stride:-2 * stride, 2 * stride:-2 * stride]
    torch.testing.assert_close(inside, inside[..., :1, :1].expand_as(inside))
    assert inside.abs().min() > 0


# ENet


def test_enet_has_the_sizes_of_the_paper():
    """Table 1 of the paper, for an image of 512x512."""
    with torch.device("meta"):
        model = ENet(12)
    modules = ["initial", "down1", "stage1", "down2", "stage2", "stage3", "up4", "stage4", "up5", "stage5", "head"]
    assert shapes_inside(model, modules, 512, 512) == [
        (16, 256, 256),
        (64, 128, 128), (64, 128, 128),
        (128, 64, 64), (128, 64, 64), (128, 64, 64),
        (64, 128, 128), (64, 128, 128),
        (16, 256, 256), (16, 256, 256),
        (12, 512, 512),
    ]  # fmt: skip


def test_enet_has_the_bottlenecks_of_the_paper():
    with torch.device("meta"):
        model = ENet(12)
    for stage in (model.stage2, model.stage3):
        convs = [[c for c in block.modules() if isinstance(c, nn.Conv2d)][1:-1] for block in stage]
        assert [(c[0].kernel_size, c[0].dilation[0]) for c in convs] == [
            ((3, 3), 1), ((3, 3), 2), ((5, 1), 1), ((3, 3), 4), ((3, 3), 1), ((3, 3), 8), ((5, 1), 1), ((3, 3), 16)
        ]  # fmt: skip
        assert convs[2][1].kernel_size == convs[6][1].kernel_size == (1, 5)
    assert [len(stage) for stage in (model.stage1, model.stage4)] == [4, 2]
    assert isinstance(model.stage5, Bottleneck)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_prelu_of_enet_is_that_of_torch(dtype):
    x, slopes = images(2, 3, 5, 7).to(dtype), [torch.tensor([value], requires_grad=True) for value in (0.3, 0.3)]
    inputs = [x.clone().requires_grad_() for _ in slopes]
    ours = PReLU()
    ours.weight = nn.Parameter(slopes[0].detach())
    outputs = ours(inputs[0]), F.prelu(inputs[1].float(), slopes[1])
    for output in outputs:
        (output.float() ** 2).sum().backward()
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 1e-2}
    torch.testing.assert_close(outputs[0].float(), outputs[1], **tolerance)
    torch.testing.assert_close(inputs[0].grad.float(), inputs[1].grad.float(), **tolerance)
    torch.testing.assert_close(ours.weight.grad, slopes[1].grad, **tolerance)


def test_enet_drops_channels_and_activates_as_in_the_paper():
    with torch.device("meta"):
        model = ENet(12)
    rates = {name: module.p for name, module in model.named_modules() if isinstance(module, nn.Dropout2d)}
    assert {rate for name, rate in rates.items() if name.startswith(("down1", "stage1"))} == {0.01}
    assert {rate for name, rate in rates.items() if not name.startswith(("down1", "stage1"))} == {0.1}
    assert len(rates) == 1 + 4 + 1 + 8 + 8 + 1 + 2 + 1 + 1  # one a bottleneck
    decoder = ("up4", "stage4", "up5", "stage5", "head")
    for name, module in model.named_modules():
        assert not isinstance(module, nn.PReLU if name.startswith(decoder) else nn.ReLU), name


@torch.no_grad()
def test_enet_halves_odd_sizes_upwards_and_even_ones_exactly():
    torch.manual_seed(0)
    block = DownBottleneck(16, 64).eval()
    x = images(1, 16, 8, 6)
    maxima = F.pad(F.max_pool2d(x, 2), (0, 0, 0, 0, 0, 48))
    torch.testing.assert_close(block(x)[0], block.activation(maxima + block.branch(x)))
    odd = x[..., :7, :5]
    maxima = F.pad(F.max_pool2d(F.pad(odd, (0, 1, 0, 1), value=-torch.inf), 2), (0, 0, 0, 0, 0, 48))
    torch.testing.assert_close(block(odd)[0], block.activation(maxima + block.branch(F.pad(odd, (0, 1, 0, 1)))))


def test_enet_passes_the_image_on_among_sixteen_channels():
    with torch.device("meta"):
        assert ENet(5, in_channels=15).initial.conv.out_channels == 1
    with pytest.raises(ValueError, match="in_channels must be below 16, not 16"):
        ENet(5, in_channels=16)


# Tiramisu


def test_tiramisu_has_the_feature_maps_of_the_paper():
    """Table 2 of the paper. It prints 578 where 304 + 160 + 7 * 16 is 576, and its parameters are those of 576."""
    with torch.device("meta"):
        model = Tiramisu(12, depth=103)
    down = [block[-1][0].num_features + 16 for block in (*model.blocks_down, model.bottom, *model.blocks_up)]
    assert down == [112, 192, 304, 464, 656, 896, 1088, 816, 576, 384, 256]
    assert [up.in_channels for up in model.ups] == [240, 192, 160, 112, 80]  # the new ones only
    assert model.head.in_channels == 256
    assert [len(block) for block in (*model.blocks_down, model.bottom)] == [4, 5, 7, 10, 12, 15]
    assert shapes_inside(model, ["bottom", "ups.4", "blocks_up.4"], 224, 200) == [
        (240, 7, 7), (80, 224, 224), (64, 224, 224)
    ]  # fmt: skip


@pytest.mark.parametrize("depth", [56, 67, 103])
def test_tiramisu_has_as_many_layers_as_its_name_says(depth):
    with torch.device("meta"):
        model = Tiramisu(12, depth=depth)
    assert sum(isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) for layer in model.modules()) == depth


@torch.no_grad()
def test_tiramisu_drops_values_in_training_only():
    torch.manual_seed(0)
    model, x = Tiramisu(3, depth=56), images(2, 3, 32, 32)
    drops = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    assert drops == [0.2] * (11 * 4 + 5)
    assert not torch.equal(model.train()(x), model(x))
    assert torch.equal(model.eval()(x), model(x))


# Arguments


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (UNet, {"width": 0}, "width must be at least 1 .* not 0"),
        (SegNet, {"width": 0}, "width must be at least 1 .* not 0"),
        (SegNet, {"width": 8, "pretrained": "DEFAULT"}, "pretrained weights are for width=64, not 8"),
        (SegNet, {"pretrained": "IMAGENET1K"}, "unknown weights of vgg16_bn .*IMAGENET1K_V1"),
        (Tiramisu, {"depth": 100}, "depth must be one of 56, 67.*103.* not 100"),
        (Tiramisu, {"dropout": 1.0}, r"dropout must be at least 0 and below 1 .* not 1\.0"),
    ],
)
def test_impossible_arguments_are_refused(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(5, **arguments)
