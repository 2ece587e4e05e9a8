"""Real-time networks compute what the originals compute, and take their weights by the originals' names.

The records hold samples of outputs in float64 arithmetic, with weights that follow from their names. PIDNet, DDRNet,
STDC, EfficientViT and RegSeg are their authors' code, PP-LiteSeg is PaddleSeg's, SegFormer transformers' 5.24.
"""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import mostly_slow

from segtrain.models import (
    bisenetv2,
    ddrnet,
    efficientvit_seg,
    fast_scnn,
    pidnet,
    pp_liteseg,
    regseg,
    segformer,
    stdc,
)
from segtrain.models.original_weights import convert_original, rename_original

RECORDS = Path(__file__).parents[1] / "parity" / "originals.npz"
TOLERANCE = 1e-5  # of the largest value of an output

# each: record, class, arguments, {output: the module whose output it is, or the auxiliary head whose full-size logits}
PIDNET = {"main": "final_layer", "p": "aux.p", "d": "aux.boundary"}
DDRNET = {"main": "final_layer", "aux": "aux.high"}
STDC = {"aux16_up": "at8", "aux32_up": "at16", "d8": "aux.detail"}
LITESEG = {"aux16_up": "at16", "aux32_up": "at32"}
STAGES = {2: "stem", 3: "stage3", 4: "stage4", 5: "stage5"}
CASES = [
    ("pidnet_s_k19_64x128", pidnet.PIDNet, {}, PIDNET),
    ("ddrnet_23s_k19_64x128", ddrnet.DDRNet, {}, DDRNET),
    ("stdc1_k19_64x128", stdc.STDC, {}, STDC),
    ("pp_liteseg_t_k19_64x128", pp_liteseg.PPLiteSeg, {}, LITESEG),
    ("bisenetv2_nearest_k19_64x128", bisenetv2.BiSeNetV2, {"variant": "coincheung"},
     {f"aux{number}_up": name for number, name in STAGES.items()}),
    ("fastscnn_mm_k11_65x97", fast_scnn.FastSCNN, {},
     {"main": "classifier", "aux_low": "aux.low", "aux_high": "aux.high"}),
    ("fastscnn_tramac_k19_64x128", fast_scnn.FastSCNN, {"variant": "tramac"}, {"aux_up": "high"}),
    ("efficientvit_seg_b0_k19_64x128", efficientvit_seg.EfficientViTSeg, {}, {"main": "head"}),
    ("segformer_b0_k19_65x97", segformer.SegFormer, {}, {"main": "head"}),
    ("regseg_k11_65x97", regseg.RegSeg, {}, {}),
    # slow: the same blocks again
    ("bisenetv2_bilinear_k11_65x97", bisenetv2.BiSeNetV2, {},
     {"main": "head", **{f"aux{number}": f"aux.{name}" for number, name in STAGES.items()}}),
    ("pidnet_s_k11_200x328", pidnet.PIDNet, {}, PIDNET),
    ("pidnet_m_k11_72x104", pidnet.PIDNet, {"variant": "m"}, PIDNET),
    ("ddrnet_23s_k11_200x328", ddrnet.DDRNet, {}, DDRNET),
    ("stdc2_k11_65x97", stdc.STDC, {"depth": 2}, STDC),
    ("pp_liteseg_b_k11_65x97", pp_liteseg.PPLiteSeg, {"variant": "b"}, LITESEG),
    ("efficientvit_seg_b1_k11_96x64", efficientvit_seg.EfficientViTSeg, {"variant": "b1"}, {"main": "head"}),
]


@pytest.fixture(scope="module")
def records():
    return np.load(RECORDS)


def draw(name, shape, kind, gain):
    """Draw a weight of the original, or the images, from its name."""
    z = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    scale = np.sqrt(2 / np.prod(shape[1:])) * gain
    made = {"gamma": 1 + 0.1 * z, "running_var": 1 + 0.1 * np.abs(z), "fixed": np.ones(shape), "images": z}
    if kind in ("kernel", "linear"):
        made[kind] = z * scale
    return made.get(kind, 0.1 * z).astype(np.float32)


def draw_weights(records, tag):
    """Draw all weights of an original; return them, and what else the record says of it."""
    about = json.loads(bytes(records[f"{tag}/about"]))
    weights = {}
    for line in bytes(records[f"{tag}/weights"]).decode().splitlines():
        name, shape, kind = line.split(" ")
        weights[name] = draw(name, [int(side) for side in shape.split(",")], kind, about["gain"])
    return weights, about


@pytest.mark.parametrize(("tag", "make", "kwargs", "outputs"), mostly_slow(10, [
    pytest.param(*case, id=case[0]) for case in CASES]))
@torch.no_grad()
def test_outputs_are_the_originals(records, tag, make, kwargs, outputs):
    weights, about = draw_weights(records, tag)
    with torch.device("meta"):  # no weights are drawn that would be replaced anyway
        model = make(about["classes"], **kwargs)
    module = {pidnet.PIDNet: pidnet, ddrnet.DDRNet: ddrnet, stdc.STDC: stdc, pp_liteseg.PPLiteSeg: pp_liteseg,
              bisenetv2.BiSeNetV2: bisenetv2, fast_scnn.FastSCNN: fast_scnn, segformer.SegFormer: segformer,
              efficientvit_seg.EfficientViTSeg: efficientvit_seg, regseg.RegSeg: regseg}[make]
    model.load_state_dict(convert_original(weights, model, module.RENAMED), assign=True)
    model.eval()
    found = {}
    for output, name in outputs.items():
        if not output.endswith("_up"):
            model.get_submodule(name).register_forward_hook(
                lambda module, args, result, output=output: found.update({output: result}))
    height, width = map(int, tag.rpartition("_")[2].split("x"))
    x = torch.from_numpy(draw("input", (1, 3, height, width), "images", 1))
    found["main_up"] = model(x)
    if model.aux_weights:
        model.training = True  # of the network alone, so that the heads are read; its layers stay in evaluation mode
        aux = model(x)["aux"]
        found |= {output: aux[name] for output, name in outputs.items() if output.endswith("_up")}
    for output in ("main_up", *outputs):
        channels, rows, columns, step = records[f"{tag}/{output}/where"]
        actual = found[output][:, ::channels, ::rows, ::columns].flatten()[::step].numpy()
        error = np.abs(actual - records[f"{tag}/{output}"]).max() / records[f"{tag}/{output}/max"]
        assert error < TOLERANCE, (output, error)


def test_segformers_older_names_are_known():
    """Files of transformers before 5 have other names."""
    for old, new in {
        "segformer.encoder.patch_embeddings.2.proj.weight": "encoder.stages.2.patch.proj.weight",
        "segformer.encoder.block.1.0.attention.self.query.bias": "encoder.stages.1.blocks.0.attention.q_proj.bias",
        "segformer.encoder.block.1.0.attention.self.sr.weight": "encoder.stages.1.blocks.0.attention.reduction.weight",
        "segformer.encoder.block.0.1.attention.output.dense.weight":
            "encoder.stages.0.blocks.1.attention.o_proj.weight",
        "segformer.encoder.block.0.1.mlp.dense2.weight": "encoder.stages.0.blocks.1.mlp.fc2.weight",
        "segformer.encoder.block.0.1.mlp.dwconv.dwconv.bias": "encoder.stages.0.blocks.1.mlp.dwconv.bias",
        "segformer.encoder.block.0.1.layer_norm_2.bias": "encoder.stages.0.blocks.1.layernorm_after.bias",
        "segformer.encoder.layer_norm.3.weight": "encoder.stages.3.layer_norm.weight",
        "decode_head.linear_c.3.proj.weight": "head.linear.3.weight",
    }.items():
        assert rename_original(old, segformer.RENAMED) == new
        assert new in segformer.SegFormer(2).state_dict()


def test_weights_that_do_not_fit_are_named(records):
    weights, about = draw_weights(records, "efficientvit_seg_b0_k19_64x128")
    model = efficientvit_seg.EfficientViTSeg(about["classes"])
    weights["strange.weight"] = weights.pop("head.output_ops.0.op_list.1.conv.bias")
    with pytest.raises(ValueError, match=r"unknown: strange\.weight; missing: head\.output\.1\.bias"):
        convert_original(weights, model, efficientvit_seg.RENAMED)
    with pytest.raises(ValueError, match=r"of another shape: head\.output_ops\.0\.op_list\.1\.conv\.weight \(19, "):
        convert_original(weights, efficientvit_seg.EfficientViTSeg(5), efficientvit_seg.RENAMED)


@pytest.mark.parametrize("make", [pidnet.PIDNet, stdc.STDC, pp_liteseg.PPLiteSeg, bisenetv2.BiSeNetV2,
                                  fast_scnn.FastSCNN])
def test_one_image_trains_in_spite_of_global_pooling(make):
    """BatchNorm has no variance of a single value: there it normalises with its running statistics."""
    model = make(3, aux=False).train()
    model(torch.randn(1, 3, 96, 96)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
