"""What denoisers of published shapes cost, counted on tensors without numbers, and by the closed form."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from suite.attachment.attach import attach
from suite.backbones import family_of
from suite.backbones.bare_call import BareCall
from suite.backbones.branched import BranchScope
from suite.errors import RequestError
from suite.measure.closed_form import closed_form
from suite.measure.dispatch import dispatched_ops, quiet_forward
from suite.measure.flops import count_flops
from suite.measure.flops_target import attach as attach_at
from suite.measure.flops_target import solve_rate
from suite.models.load import load_model
from suite.rates.rate import parse_rate

diffusers = pytest.importorskip("diffusers", reason="extra 'generation' is not installed")

SHAPES = {
    "sd": ("UNet2DConditionModel", {"sample_size": 64, "cross_attention_dim": 768}),
    "sd_1024": ("UNet2DConditionModel", {"sample_size": 128, "cross_attention_dim": 768}),
    "sdxl": ("UNet2DConditionModel", {
        "sample_size": 128, "cross_attention_dim": 2048, "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10), "attention_head_dim": (5, 10, 20), "use_linear_projection": True,
        "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    }),
    "dit": ("DiTTransformer2DModel", {
        "num_attention_heads": 16, "attention_head_dim": 72, "sample_size": 32, "out_channels": 8,
    }),
    "pixart": ("PixArtTransformer2DModel", {"sample_size": 64}),
}  # fmt: skip
ALL = ("self", "cross", "mlp")
MODE = FakeTensorMode(allow_non_fake_inputs=True)


def shape_only(name):
    kind, config = SHAPES[name]
    with torch.device("meta"):
        model = getattr(diffusers, kind)(**config)
    with MODE:
        model.to_empty(device="cpu")
    BareCall(77).register(model)
    return model.eval()


def costs(model, rate=None, **scope):
    """(counted, closed form without the method's own) multiply-accumulates of one row."""
    family = family_of(model)
    side = family.image_size(model)
    model.branch_scope = BranchScope(**scope)
    handle = attach(model, "tome_sd", parse_rate(rate)) if rate else None
    with MODE, quiet_forward(model, torch.empty(1, 4, *side)) as noise:
        counted = sum(op.macs for op in dispatched_ops(model, noise)[0])
    formula = closed_form(model, family, side).total
    if handle:
        handle.detach()
    return counted, formula


def check(model, published, own, rate=None, **scope):
    """published: giga, three decimals. own: similarities of the method's, which the closed form leaves out."""
    counted, formula = costs(model, rate, **scope)
    assert round(counted / 1e9, 3) == published
    assert counted == formula + own


def similarities(*blocks):
    """(blocks, tokens, channels): every source of a grid with every destination, one in four."""
    return sum(count * (tokens - tokens // 4) * (tokens // 4) * width for count, tokens, width in blocks)


def test_stable_diffusion_costs_what_is_known_with_and_without_reduction():
    model, one = shape_only("sd"), similarities((5, 4096, 320))
    check(model, 401.637, 0)
    check(model, 362.210, one, "r=0.5")
    check(model, 350.047, one, "r=0.75")
    check(model, 347.026, one, "r=0.5", branches=ALL)
    deeper = similarities((5, 1024, 640), (5, 256, 1280), (1, 64, 1280))
    check(model, 348.651, one + deeper, "r=0.5", max_downsample=8)


def test_a_diffusion_transformer_costs_what_is_known_with_and_without_reduction():
    model, own = shape_only("dit"), similarities((28, 256, 1152))
    check(model, 118.667, 0)
    check(model, 96.867, own, "r=0.5", max_downsample=2)
    check(model, 58.816, own, "r=0.5", max_downsample=2, branches=("self", "mlp"))


@pytest.mark.slow
def test_larger_pictures_and_models_cost_what_is_known():
    check(shape_only("sd_1024"), 1756.511, similarities((5, 16384, 320)), "r=0.5")
    model, two = shape_only("sdxl"), similarities((10, 4096, 640))
    check(model, 3380.618, 0)
    check(model, 3206.135, two, "r=0.5", max_downsample=2)
    check(model, 2899.112, two + similarities((60, 1024, 1280)), "r=0.5", max_downsample=4)


def test_the_closed_form_holds_for_pixart_whose_text_is_projected_first():
    counted, formula = costs(shape_only("pixart"), "r=0.5", max_downsample=2, branches=ALL)
    assert counted == formula + similarities((28, 1024, 1152))


def tiny():
    torch.manual_seed(0)
    model = diffusers.UNet2DConditionModel(
        sample_size=16, layers_per_block=1, block_out_channels=(32, 64), cross_attention_dim=24, norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=4,
    ).eval()  # fmt: skip
    BareCall(7).register(model)
    return model


@pytest.mark.parametrize("name", ["tome_sd", "tofu", "todo", "random"])
def test_three_counters_agree_on_a_tiny_u_net_and_parts_are_told_apart(name):
    model = tiny()
    noise = torch.randn(1, 4, 16, 16)
    plain = count_flops(model, images=noise)
    with attach(model, name, parse_rate("r=0.5")):
        report = count_flops(model, images=noise)
    assert not plain.disputed
    assert not report.disputed
    assert plain.total == plain.formula > report.total
    assert report.total == report.formula + report.reducer
    assert len(report.by_block) == 4
    assert min(report.by_block) > 0
    assert report.by_part["mlp"] == plain.by_part["mlp"] > 0


@pytest.mark.parametrize("name", ["tome_sd", "tofu", "todo", "tome", "random", "uniform"])
def test_a_target_is_met_by_the_share_whose_counted_cost_comes_nearest(name):
    model = tiny()
    model.branch_scope = BranchScope(branches=ALL)
    base = count_flops(model).total
    target = -0.04 if name in ("todo", "tome") else -0.1
    solved = solve_rate(model, name, flops=target)
    assert abs(solved.reduction - target) < 0.01
    with attach(model, name, solved.rate):
        assert count_flops(model).total == solved.macs == round(base * (1 + solved.reduction))
    with attach_at(model, name, f"flops={target:.0%}") as handle:
        assert handle.rate == solved.rate
    with pytest.raises(RequestError, match=r"its strongest rate r=0\.\d+ gives"):
        solve_rate(model, name, flops=-0.9)


@pytest.mark.parametrize("size", [12, 9])
def test_drawn_smaller_a_u_net_costs_what_it_costs_at_that_size(size):
    model = tiny()
    with attach(model, "resize", parse_rate(f"side={size}")) as handle:
        report = count_flops(model)
        solved_at = count_flops(model, images=torch.randn(1, 4, size, size))
        assert handle.token_counts == handle.planned_counts
    plain = count_flops(model, images=torch.randn(1, 4, size, size))
    assert not report.disputed
    assert report.total == report.formula == solved_at.total == plain.total == plain.formula
    assert report.by_part["reducer"] == 0


def test_a_target_is_met_by_the_nearest_size():
    model = tiny()
    solved = solve_rate(model, "resize", flops=-0.5)
    costs = {}
    for size in range(8, 17):
        costs[size] = count_flops(model, images=torch.randn(1, 4, size, size)).total
    nearest = min(costs, key=lambda size: abs(costs[size] / costs[16] - 0.5))
    assert str(solved.rate) == f"side={nearest}"
    assert solved.macs == costs[nearest]


def test_a_target_is_met_on_the_embedded_denoiser():
    model = load_model("scenes_dit")[0]
    solved = solve_rate(model, "tome_sd", flops=-0.15)
    assert abs(solved.reduction + 0.15) < 0.01
    assert 0 < solved.rate.fraction < 0.75
