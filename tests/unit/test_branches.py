"""Token reduction in the branches of a denoiser's blocks: what is taken out, what is given back, what is refused."""

import pytest
import torch

from suite.attachment.attach import attach
from suite.attachment.branch_hooks import BranchHooks
from suite.backbones import family_of
from suite.backbones.branched import BranchScope, downsampling
from suite.errors import RequestError
from suite.rates.rate import parse_rate
from suite.reducers import list_all_reducers, list_reducers, make_reducer
from suite.reducers.branch_signals import BranchSignals
from suite.reducers.todo import subgrid
from suite.tokens.destinations import draw_in_windows, split_grid, windows_of

diffusers = pytest.importorskip("diffusers", reason="extra 'generation' is not installed")
METHODS = ("tome_sd", "tofu", "todo", "tome", "random", "uniform", "heuristic")
HALF = parse_rate("r=0.5")


def u_net(**changes):
    torch.manual_seed(0)
    shape = {
        "sample_size": 16,
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
        "block_out_channels": [32, 64, 64],
        "layers_per_block": 1,
        "cross_attention_dim": 24,
        "attention_head_dim": 4,
        "norm_num_groups": 8,
    }
    return diffusers.UNet2DConditionModel(**{**shape, **changes}).eval()


@pytest.fixture(scope="module")
def unet():
    return u_net()


@pytest.fixture(scope="module")
def noisy():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 4, 16, 16, generator=generator), torch.randn(3, 7, 24, generator=generator)


def call(model, given, timestep=501):
    with torch.no_grad():
        return model(given[0], timestep, encoder_hidden_states=given[1]).sample


def scoped(model, **scope):
    model.branch_scope = BranchScope(**scope)
    return model


def num_hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_nothing_taken_out_is_the_model_itself_and_detaching_leaves_no_hook(unet, noisy):
    plain, before = call(unet, noisy), num_hooks(unet)
    for name in METHODS:
        with attach(unet, name, parse_rate("r=0")):
            assert torch.equal(call(unet, noisy), plain)
        handle = attach(unet, name, HALF)
        assert not torch.equal(call(unet, noisy), plain)
        handle.detach()
        assert num_hooks(unet) == before
        assert torch.equal(call(unet, noisy), plain)


@pytest.mark.parametrize("name", METHODS)
def test_nothing_taken_out_is_a_diffusion_transformer_itself(name):
    torch.manual_seed(0)
    model = diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, num_layers=2, sample_size=8, num_embeds_ada_norm=10
    ).eval()
    scoped(model, branches=("self", "mlp"), max_downsample=2)
    noise, classes = torch.randn(2, 4, 8, 8), torch.tensor([1, 10])

    def drawn():
        with torch.no_grad():
            return model(noise, torch.tensor([501, 501]), classes).sample

    plain = drawn()
    with attach(model, name, parse_rate("r=0")):
        assert torch.equal(drawn(), plain)
    with attach(model, name, HALF):
        assert not torch.equal(drawn(), plain)
    assert torch.equal(drawn(), plain)


@pytest.mark.parametrize("name", METHODS)
def test_every_block_in_scope_runs_on_what_the_share_of_its_own_tokens_leaves(name, noisy):
    model = scoped(u_net(), max_downsample=4)
    with attach(model, name, HALF) as handle:
        call(model, noisy)
        assert handle.token_counts == handle.planned_counts
        assert not handle.unplanned
        assert handle.token_counts[:3] == ([128, 32, 8] if name != "todo" else handle.token_counts[:3])
    scoped(model, max_downsample=1)
    with attach(model, name, HALF) as handle:
        call(model, noisy)
        assert handle.token_counts[1:5] == [64, 16, 64, 64], "blocks of fewer tokens are left as they are"


@pytest.mark.parametrize("name", METHODS)
def test_a_sample_is_the_same_alone_and_in_a_batch_and_in_the_other_half_of_guidance(name, unet, noisy):
    alone = tuple(part[:1] for part in noisy)
    twice = tuple(torch.cat([part, part]) for part in noisy)
    with attach(unet, name, HALF):
        together, by_itself, halves = call(unet, noisy), call(unet, alone), call(unet, twice)
    torch.testing.assert_close(together[:1], by_itself, atol=1e-5, rtol=0)
    torch.testing.assert_close(halves[3:], halves[:3], atol=1e-5, rtol=0)


def test_draws_follow_from_seed_time_block_and_window_alone():
    key = torch.full((2, 1), 501)
    first = draw_in_windows(key, 64, 0, 3)
    assert torch.equal(first[0], first[1])
    assert torch.equal(first, draw_in_windows(key, 64, 0, 3))
    assert torch.equal(first[:, :9], draw_in_windows(key, 9, 0, 3))
    for other in (draw_in_windows(key + 1, 64, 0, 3), draw_in_windows(key, 64, 1, 3), draw_in_windows(key, 64, 0, 4)):
        assert not torch.equal(first % 4, other % 4)
    counts = torch.bincount(draw_in_windows(torch.arange(500)[:, None], 64, 0, 3).flatten() % 4)
    assert counts.min() / counts.sum() > 0.24


@pytest.mark.parametrize(("grid", "stride"), [((8, 8), (2, 2)), ((7, 9), (2, 2)), ((6, 10), (4, 4)), ((5, 7), (2, 3))])
def test_every_window_holds_one_destination_and_what_is_in_no_window_is_a_source(grid, stride):
    down, across = windows_of(grid, stride)
    draws = draw_in_windows(torch.arange(20)[:, None], down * across, 0, 0)
    sources, targets = split_grid(draws, grid, stride, num_prefix=2)
    places = torch.cat([sources, targets], dim=1).sort(dim=1).values
    assert torch.equal(places, torch.arange(2, 2 + grid[0] * grid[1]).expand(20, -1))
    assert (sources.diff(dim=1) > 0).all()
    assert (targets.diff(dim=1) > 0).all()
    row, column = (targets - 2) // grid[1], (targets - 2) % grid[1]
    window = (row // stride[0] * across + column // stride[1]).sort(dim=1).values
    assert torch.equal(window, torch.arange(down * across).expand(20, -1))


def test_groups_hold_one_kept_token_and_means_keep_the_sum():
    torch.manual_seed(0)
    x = torch.randn(2, 63, 16)
    signals = BranchSignals(x, 0, 2, (7, 9), 0, torch.zeros(2, 1, dtype=torch.int64))
    reducer = make_reducer("tome_sd")
    amount = reducer.amount_in_branch(0.5, (7, 9))
    assert amount == 31
    z = torch.randn(2, 63, 16)
    merged = reducer("before_branch", signals.start(z), signals, amount)
    restored = merged.spread(merged.x)
    torch.testing.assert_close(restored.sum(1), z.sum(1), atol=1e-4, rtol=0)
    again = signals.start(restored).merge(signals.matching(amount, (2, 2)), plain=True)
    torch.testing.assert_close(again.x, merged.x, atol=1e-6, rtol=0)
    assert reducer.amount_in_branch(0.9, (7, 9)) == 63 - 12, "no more than all sources"


def test_tofu_with_averages_that_merges_everywhere_is_tome_sd(unet, noisy):
    with attach(unet, "tofu", HALF, d=0, merge="average"):
        merged = call(unet, noisy)
    with attach(unet, "tome_sd", HALF):
        assert torch.equal(call(unet, noisy), merged)
    with attach(unet, "tofu", HALF, d=7):
        assert not torch.equal(call(unet, noisy), merged), "all blocks prune"


@pytest.mark.parametrize(("grid", "share", "smaller"), [((64, 64), 0.75, (32, 32)), ((7, 9), 0.75, (3, 4))])
def test_todos_factor_of_two_is_a_share_of_three_quarters(grid, share, smaller):
    assert subgrid(grid, (1 - share) * grid[0] * grid[1]) == smaller


@pytest.mark.parametrize("branches", [("self",), ("mlp",), ("self", "cross"), ("self", "cross", "mlp")])
def test_only_the_branches_in_scope_are_touched(branches, noisy):
    model = scoped(u_net(), branches=branches)
    with attach(model, "tome_sd", HALF):
        hooked = {
            name.rpartition(".")[2]
            for name, module in model.named_modules()
            if any(isinstance(getattr(h, "__self__", None), BranchHooks) for h in module._forward_hooks.values())
        }
        call(model, noisy)
    assert hooked == {{"self": "attn1", "cross": "attn2", "mlp": "ff"}[name] for name in branches}


def test_what_cannot_be_meant_is_refused_in_one_line(unet):
    for reducer, rate, message in [
        ("tome_sd", "r=13", "is no share of a block's tokens"),
        ("evit", "keep=0.5", "needs what a block computes"),
        ("resize", "side=20", "shrinks images of 16 pixels to whole patches of 1; use side=16"),
        ("resize", "r=0.5", "is not defined for rate"),
        ("tome_sd", "keep=0.5", "is not defined for rate"),
    ]:
        with pytest.raises(RequestError, match=message):
            attach(unet, reducer, parse_rate(rate))
    coarse = u_net(
        down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"], up_block_types=["UpBlock2D"] * 3
    )
    with pytest.raises(RequestError, match="reaches none of the 2 blocks"):
        attach(coarse, "tome_sd", HALF)
    with pytest.raises(RequestError, match="branch 'attention' is unknown"):
        BranchScope(branches=("attention",))


def test_methods_of_branches_alone_are_not_listed_for_other_backbones_and_refused_there():
    import timm

    assert set(list_all_reducers()) - set(list_reducers()) == {"tome_sd", "todo"}
    vit = timm.create_model("vit_tiny_patch16_224", img_size=32)
    with pytest.raises(RequestError, match="acts in the branches of a denoiser's blocks"):
        attach(vit, "tome_sd", HALF)


@pytest.mark.parametrize("kind", ["SD3Transformer2DModel", "FluxTransformer2DModel", "SanaTransformer2DModel"])
def test_joint_blocks_of_text_and_image_are_refused_by_name(kind):
    with torch.device("meta"):
        model = getattr(diffusers, kind)(num_layers=1)
    with pytest.raises(RequestError, match=f"'{kind}' joins text and image tokens"):
        family_of(model)


def active(model, most):
    family = family_of(model)
    size = family.image_size(model)
    full = family.input_grid(model, size)
    return sum(downsampling(full, grid) <= most for grid in family.grids(model, size))


@pytest.mark.slow
def test_blocks_of_published_models_are_as_many_as_known():
    with torch.device("meta"):
        sd = diffusers.UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
        xl = diffusers.UNet2DConditionModel(
            sample_size=128, cross_attention_dim=2048, block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10), attention_head_dim=(5, 10, 20), use_linear_projection=True,
        )  # fmt: skip
        dit = diffusers.DiTTransformer2DModel(num_attention_heads=16, attention_head_dim=72, sample_size=32)
    assert [rows * columns for rows, columns in family_of(sd).grids(sd, (64, 64))] == [
        *[4096] * 2, *[1024] * 2, *[256] * 2, 64, *[256] * 3, *[1024] * 3, *[4096] * 3,
    ]  # fmt: skip
    assert [active(sd, most) for most in (1, 2, 4, 8)] == [5, 10, 15, 16]
    assert [active(xl, most) for most in (1, 2, 4)] == [0, 10, 70]
    assert [active(dit, most) for most in (1, 2)] == [0, 28]
    for model in (xl, dit):
        with pytest.raises(RequestError, match=r"max_downsample=1 reaches none of the \d+ blocks.*max_downsample=2"):
            attach(model, "tome_sd", HALF)
