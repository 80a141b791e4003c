"""Cost: every product of matrices is counted once, in whatever kernel, and shown in the part that it belongs to."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers import set_fused_attn
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from suite import attach
from suite.attachment.handle import handle_of
from suite.backbones.block import BlockTrace
from suite.errors import CellError, RequestError
from suite.measure.flops import count_flops, count_macs_fast, smooth_image
from suite.measure.formula import base_macs
from suite.measure.op_handles import einsum_macs
from suite.reducers import make_reducer
from suite.reducers.base import Reducer
from suite.tokens.layout import Layout
from suite.tokens.matching import bipartite_soft_matching
from suite.tokens.state import rank
from tests.tiers import spread

GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "manifest.json"


def tiny(**options):
    """4 blocks, width 32, 2 heads, 4 x 4 patches: a real VisionTransformer that counts in milliseconds."""
    settings = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2, "num_classes": 10}
    return VisionTransformer(**{**settings, **options}).eval()


def agrees(report):
    return not report.disputed and report.formula == report.total - report.reducer and report.torch == report.total


@pytest.fixture(scope="module")
def deit_small():
    return timm.create_model("deit_small_patch16_224").eval()


@pytest.mark.parametrize(
    ("reducer", "rate", "gmacs"),
    [
        ("none", None, 4.599),
        pytest.param("tome", "r=13", 2.706, marks=pytest.mark.slow),
        ("tome", "r=16", 2.294),
        pytest.param("evit", "keep=0.7", 3.029, marks=pytest.mark.slow),
    ],
)
def test_deit_small_costs_what_the_literature_says(deit_small, reducer, rate, gmacs):
    with attach(deit_small, reducer, rate):
        report = count_flops(deit_small, 224)
    assert report.total / 1e9 == pytest.approx(gmacs, rel=0.003)
    assert agrees(report)
    assert report.uncounted == {}
    assert sum(report.by_part.values()) == report.total
    assert sum(report.by_block) == report.total - report.by_part["patch_embed"] - report.by_part["head"]


@pytest.mark.slow
def test_deit_small_at_512_pixels_pays_for_its_quadratic_term():
    report = count_flops(timm.create_model("deit_small_patch16_224", img_size=512), 512)
    assert report.total / 1e9 == pytest.approx(31.749, abs=0.001)
    assert agrees(report)


@pytest.mark.skipif(not GOLDEN.exists(), reason="reference outputs are not here")
def test_deit_tiny_costs_what_the_reference_run_counted():
    model = timm.create_model("deit_tiny_patch16_224")
    case = json.loads(GOLDEN.read_text())["cases"]["baseline_t"]
    assert count_flops(model).total == pytest.approx(case["gflops"] * 1e9, abs=1e3)


def test_the_model_is_left_as_it_was():
    model = tiny().train()
    model.blocks[1].eval()
    attach(model, "tome", "r=3")
    count_flops(model, 32)
    assert model.training
    assert not model.blocks[1].training
    assert model.blocks[2].mlp.fc1.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(type(count) is int for count in handle_of(model).token_counts)


@pytest.mark.parametrize(
    "name", ["deit_tiny_distilled_patch16_224", "vit_base_patch16_clip_224", "vit_base_patch16_rope_reg1_gap_256"]
)
def test_whole_timm_models_agree_three_ways_or_have_no_closed_form(name):
    model = timm.create_model(name, depth=2)
    size = model.patch_embed.img_size
    report = count_flops(model, size)
    assert not report.disputed
    assert report.torch == report.total
    assert report.formula in (None, report.total)


ODD = [
    {"reg_tokens": 4},
    {"reg_tokens": 4, "no_embed_class": True, "class_token": False, "global_pool": "avg"},
    {"init_values": 1e-5, "no_embed_class": True},
    {"qk_norm": True, "qkv_bias": False},
    {"global_pool": "avg", "fc_norm": True},
    {"global_pool": "map", "class_token": False},
    {"global_pool": "map", "reg_tokens": 2},
    {"global_pool": "map", "pool_include_prefix": True},
    {"mlp_ratio": 2.5},
    {"pre_norm": True},
    {"num_classes": 0},
    {"dynamic_img_size": True},
]


@pytest.mark.parametrize(("options", "reducer"), spread(2, ODD, [None, "tome"]), ids=str)
def test_odd_vits_are_counted_exactly(options, reducer):
    model = tiny(**options)
    if reducer:
        attach(model, reducer, "r=3")
    report = count_flops(model, 32)
    assert agrees(report)
    assert report.by_part["patch_embed"] == 16 * 3 * 8 * 8 * 32
    assert report.uncounted == {}


@pytest.mark.parametrize("mlp", ["GluMlp", "SwiGLUPacked", "SwiGLU"])
def test_gated_mlps_are_counted_as_mlp(mlp):
    import timm.layers

    model = tiny(mlp_layer=getattr(timm.layers, mlp))
    report = count_flops(model, 32)
    weights = sum(p.numel() for p in model.blocks[0].mlp.parameters() if p.dim() == 2)
    assert report.by_part["mlp"] == 4 * 17 * weights
    assert agrees(report)


def test_a_model_of_dynamic_size_is_counted_at_the_size_of_its_image():
    model = tiny(dynamic_img_size=True)
    attach(model, "tome", "r=3")
    report = count_flops(model, (48, 64))
    assert agrees(report)
    assert report.by_part["patch_embed"] == 48 * 3 * 8 * 8 * 32


def test_explicit_attention_costs_what_fused_attention_costs():
    fused = count_flops(tiny(), 32)
    set_fused_attn(False)
    try:
        explicit = count_flops(tiny(), 32)
    finally:
        set_fused_attn(True)
    assert explicit.total == fused.total
    assert explicit.by_part == fused.by_part
    assert explicit.torch == fused.torch


def test_tome_overhead_is_its_similarity_matrix_and_nothing_else():
    model = tiny()
    attach(model, "tome", "r=3")
    report = count_flops(model, 32)
    # 17, 14, 11 and 8 tokens, keys of 16 numbers: ceil(N/2) * floor(N/2) * d
    assert report.reducer == (9 * 8 + 7 * 7 + 6 * 5 + 4 * 4) * 16
    assert report.by_part["reducer"] == report.reducer


def test_attention_on_merged_tokens_stays_in_its_block():
    model = tiny()
    attach(model, "tome", "r=3@0")
    report = count_flops(model, 32)
    base = base_macs(handle_of(model).layout, [BlockTrace.plain(17, 14), *[BlockTrace.plain(14)] * 3])
    assert report.by_part["attention"] == base.by_part["attention"]
    assert report.by_part["head"] == 32 * 10
    assert report.by_block == [base.by_block[0] + report.reducer, *base.by_block[1:]]


class RoundAbout(Reducer):
    """Drops one patch after a pointless product of everything with everything, in one of several spellings."""

    name = "round_about"
    spelling = "cdist"

    def after_attention(self, tokens, signals, amount):
        x = tokens.x
        ways = {
            "cdist": lambda: torch.cdist(x, x),
            "cosine": lambda: F.cosine_similarity(x[:, :, None], x[:, None], dim=-1),
            "baddbmm": lambda: torch.baddbmm(x.new_zeros(1, 1, 1), x, x.transpose(1, 2)),
            "broadcast matmul": lambda: x[0].repeat(1, 1) @ x.transpose(1, 2),
            "einsum": lambda: torch.einsum("bnc,bmc->bnm", x, x),
            "mul and sum": lambda: (x[:, :, None] * x[:, None]).sum(-1),
        }
        score = ways[self.spelling]().sum(-1)
        return tokens.keep(rank(score, tokens.num_prefix)[:, :-amount])


@pytest.mark.parametrize("spelling", ["cdist", "cosine", "baddbmm", "broadcast matmul", "einsum"])
def test_no_spelling_of_a_product_hides_a_reducers_work(spelling):
    model, reducer = tiny(), RoundAbout()
    reducer.spelling = spelling
    attach(model, reducer, "r=1")
    report = count_flops(model, 32)
    assert report.reducer == sum(n * n * 32 for n in (17, 16, 15, 14))
    assert agrees(report)


def test_a_product_spelt_elementwise_is_named_as_uncounted():
    model, reducer = tiny(), RoundAbout()
    reducer.spelling = "mul and sum"
    attach(model, reducer, "r=1")
    assert count_flops(model, 32).uncounted == {"aten::mul (all pairs)": 4}


class Product(nn.Module):
    def __init__(self, product):
        super().__init__()
        self.product = product

    def forward(self, x):
        return self.product(x[0, 0])


@pytest.mark.parametrize(
    ("product", "macs"),
    [
        (lambda x: x @ x[0], 64),
        (lambda x: x[0] @ x, 64),
        (lambda x: x[0] @ x[1], 8),
        (lambda x: torch.mv(x, x[0]), 64),
        (lambda x: torch.addmm(x, x, x), 512),
        (lambda x: x @ x.expand(5, 8, 8), 5 * 512),
        (lambda x: x.expand(5, 1, 8, 8) @ x.expand(3, 8, 8), 15 * 512),
        (lambda x: torch.bmm(x.expand(2, 8, 8), x.expand(2, 8, 8)), 1024),
        (lambda x: F.linear(x[None], x[:3]), 8 * 8 * 3),
        (lambda x: torch.tensordot(x, x, dims=([1], [1])), 512),
        (lambda x: torch.inner(x, x), 512),
        (lambda x: F.conv2d(x[None, None], x[None, None, :3, :3], padding="same"), 64 * 9),
        (lambda x: F.conv2d(x.expand(1, 4, 8, 8), x[None, None, :2, :2].expand(4, 1, 2, 2), groups=4), 4 * 49 * 4),
        (lambda x: F.conv_transpose2d(x[None, None], x[None, None, :2, :2]), 64 * 4),
        (lambda x: F.scaled_dot_product_attention(*(x.view(1, 2, 4, 8),) * 3), 2 * 16 * 16),
        (lambda x: F.scaled_dot_product_attention(*(x.view(1, 2, 4, 8),) * 3, attn_mask=x[:4, :4]), 2 * 16 * 16),
        (lambda x: F.layer_norm(x, (8,)), 0),
        (lambda x: x.softmax(-1).sort(dim=-1).values.cumsum(0), 0),
    ],
)
def test_each_product_is_counted_alike_by_both_counters(product, macs):
    report = count_flops(Product(product), 8)
    assert (report.total, report.torch, report.uncounted) == (macs, macs, {})
    assert report.formula is None


@pytest.mark.parametrize(
    ("equation", "shapes", "macs"),
    [
        ("bnc,bmc->bnm", [(2, 5, 7), (2, 6, 7)], 2 * 5 * 6 * 7),
        ("...nc,...mc->...nm", [(2, 5, 7), (2, 6, 7)], 2 * 5 * 6 * 7),
        ("ij,jk", [(3, 4), (4, 5)], 60),
        ("ij,jk,kl->il", [(3, 4), (4, 5), (5, 6)], 60 + 90),
        ("i,j->ij", [(3,), (4,)], 0),
        ("bij->bji", [(2, 3, 4)], 0),
    ],
)
def test_einsum_costs_its_contractions(equation, shapes, macs):
    assert einsum_macs(equation, shapes) == macs


@pytest.mark.parametrize("need_weights", [False, True])
def test_torchs_own_attention_module_does_not_lose_its_cost(need_weights):
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    model = Product(lambda x: attention(x[None], x[None], x[None], need_weights=need_weights)[0])
    model.attention = attention
    report = count_flops(model, 8)
    assert report.total == report.torch == 8 * 8 * 8 * 4 + 2 * 8 * 8 * 8


def test_torchs_fused_encoder_layer_does_not_lose_its_cost():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = Product(lambda x: layer(x[None]))
    model.layer = layer
    report = count_flops(model, 8)
    assert report.total == report.torch == 8 * 8 * 8 * 4 + 2 * 8 * 8 * 8 + 2 * 8 * 8 * 16
    assert torch.backends.mha.get_fastpath_enabled()


def test_an_operator_without_a_handle_is_named():
    report = count_flops(Product(lambda x: torch.linalg.svdvals(x) + torch.fft.fft(x).real.sum()), 8)
    assert report.uncounted == {"aten::linalg_svdvals": 1, "aten::fft_fft": 1}


class BlindSpot(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x @ x

    @staticmethod
    def backward(ctx, grad):
        raise NotImplementedError


def test_work_that_one_counter_cannot_see_is_disputed_or_named():
    report = count_flops(Product(lambda x: BlindSpot.apply(x) + x @ x), 8)
    assert report.disputed or report.uncounted


def test_the_fast_count_is_the_dispatched_total():
    model = tiny()
    with attach(model, "tome", "r=3"):
        assert count_macs_fast(model, smooth_image(32)) == count_flops(model, 32).total


def test_a_forward_that_cannot_be_run_says_so_and_leaves_no_hooks():
    def fail(x):
        raise ValueError("no such token")

    model = Product(fail)
    with pytest.raises(CellError, match="cannot be run: no such token"):
        count_flops(model, 8)
    assert not model._forward_hooks


class InPlace(Reducer):
    """Merges like ToMe; its mask is written in a way that torch cannot trace."""

    def capacity(self, count, num_prefix):
        return (count - num_prefix) // 2

    def after_attention(self, tokens, signals, amount):
        pairs = bipartite_soft_matching(signals.keys, amount, protected=tokens.num_prefix)
        mask = torch.ones(signals.keys.shape[:2], dtype=torch.bool)
        mask.scatter_(1, torch.zeros(len(mask), 1, dtype=torch.long), False)
        return tokens.merge(pairs)


def test_a_reducer_that_cannot_be_traced_is_counted_as_dispatched_part_by_part_and_says_why():
    model = tiny()
    with attach(model, "tome", "r=3"):
        traced = count_flops(model, 32).as_dict()
    with attach(model, f"{__file__}:InPlace", "r=3"):
        report = count_flops(model, 32)
    assert "aten::scatter_" in report.untraced
    assert "bug" not in report.untraced
    assert report.as_dict() | {"untraced": ""} == traced


@pytest.mark.parametrize("reducer", ["dtem", "sit", "mctf", "evit", "pitome", "dpcknn"])
def test_what_is_dispatched_is_what_the_trace_finds_part_by_part_and_block_by_block(reducer, monkeypatch):
    def untraceable(*_):
        raise RuntimeError("no trace")

    model = tiny()
    with attach(model, reducer, "r=3" if "r" in make_reducer(reducer).rates else "keep=0.7"):
        traced = count_flops(model, 32)
        monkeypatch.setattr("suite.measure.flops._traced_ops", untraceable)
        assert replace(count_flops(model, 32), untraced="") == traced


def test_an_operator_that_no_counter_knows_is_named_without_a_trace_too():
    def forward(x):
        mask = torch.ones(3, 4, dtype=torch.bool)
        mask.scatter_(1, torch.zeros(3, 1, dtype=torch.long), False)
        return torch.linalg.svdvals(x) * mask.sum()

    assert count_flops(Product(forward), 8).uncounted == {"aten::_linalg_svd": 1}


def test_images_of_a_wrong_shape_are_refused():
    with pytest.raises(RequestError, match=r"\(3, 32, 32\)"):
        count_flops(tiny(), images=torch.zeros(3, 32, 32))


def test_the_closed_form_wants_one_count_a_block():
    layout = Layout(2, 1, 1, 16, 32, 2, 16, 3072, 1024, 8192, 98304, 320)
    with pytest.raises(ValueError, match="3 entries for 2 blocks"):
        base_macs(layout, [BlockTrace.plain(17)] * 3)
    cost = base_macs(layout, [BlockTrace.plain(17, 14), BlockTrace.plain(14)])
    assert cost.by_block[0] == 17 * 4096 + 2 * 17 * 17 * 32 + 14 * 8192
    assert cost.total == sum(cost.by_block) + 98304 + 320


def test_the_report_is_plain_data():
    assert json.loads(json.dumps(count_flops(tiny(), 32).as_dict()))["total"] > 0
