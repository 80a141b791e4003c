"""GIT: its encoder and its captions are transformers' own; any method reduces it and leaves nothing behind."""

import copy

import pytest
import torch
from tiny_git import TOKENS, pictures, rows, spread, tiny_git, tokens_of
from torch import nn
from transformers import GitForCausalLM
from transformers.models.git.modeling_git import GitVisionConfig, GitVisionTransformer

from suite import RequestError, attach, count_flops, measure_speed, solve_rate
from suite.attachment.handle import handle_of
from suite.backbones import backbone_of, family_of
from suite.backbones.git import use_fused_attention
from suite.measure.flops import count_macs_fast, smooth_image
from suite.models.captioner import Captioner
from suite.models.load import load_model
from suite.models.registry import find_entry

REDUCTIONS = [("tome", "r=8"), ("evit", "keep=0.7"), ("random", "r=8"), ("ats", "keep=0.7")]
reductions = pytest.mark.parametrize(("reducer", "rate"), REDUCTIONS, ids=[name for name, _ in REDUCTIONS])
searches = pytest.mark.parametrize("beams", [1, 4], ids=["greedy", "beam 4"])


def stock(captioner: Captioner) -> GitForCausalLM:
    """The same weights in a model that is transformers' alone."""
    git = GitForCausalLM(captioner.git.config).eval()
    git.load_state_dict(captioner.git.state_dict())
    return git


@pytest.fixture(scope="module")
def base():
    """GIT-B with random weights, two images, and transformers' own model."""
    captioner, info = load_model("git_base_coco", "none")
    assert info.kind == "random"
    spread(captioner.git)
    return captioner, pictures(3, side=224)[::2], stock(captioner)


@pytest.fixture(params=["tiny", pytest.param("base", marks=pytest.mark.slow)])
def pair(request):
    if request.param == "base":
        return request.getfixturevalue("base")
    captioner = Captioner(tiny_git())
    return captioner, pictures(4), stock(captioner)


@torch.no_grad()
def test_the_unreduced_encoder_gives_what_transformers_own_gives(pair):
    captioner, images, git = pair
    own = git.git.image_encoder(images).last_hidden_state
    fused = captioner.backbone(images).last_hidden_state
    torch.testing.assert_close(fused, own, atol=2e-5 * own.abs().max().item(), rtol=0)
    assert all("Fused" in type(block.self_attn).__name__ for block in captioner.backbone.encoder.layers)
    assert not any("Fused" in type(module).__name__ for module in git.modules())


@searches
def test_captions_are_what_transformers_own_generate_gives(pair, beams):
    captioner, images, git = pair
    own = git.generate(pixel_values=images, num_beams=beams, max_new_tokens=5, do_sample=False)[:, 1:]
    captions = tokens_of(captioner.generate(images, num_beams=beams, max_new_tokens=5))
    assert captions == rows(own, git.config.eos_token_id)
    assert len(set(captions)) > 1
    assert min(map(len, captions)) > 1


@searches
def test_captions_that_end_before_the_limit_are_what_transformers_own_generate_gives(beams):
    captioner, images = Captioner(tiny_git()), pictures(5)
    git = stock(captioner)
    for model in (captioner.git, git):
        model.output.bias.data[model.config.eos_token_id] += 2
    own = git.generate(pixel_values=images, num_beams=beams, max_new_tokens=12, do_sample=False)[:, 1:]
    captions = tokens_of(captioner.generate(images, num_beams=beams, max_new_tokens=12))
    assert captions == rows(own, git.config.eos_token_id)
    assert len({*map(len, captions)}) > 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("git_base_coco", {0: (17.58, 197), 8: (13.12, 101), 11: (11.47, 65), 13: (10.38, 41), 16: (8.78, 11)}),
        ("git_large_coco", {0: (81.1, 257), 8: (49.9, 65)}),
    ],
)
def test_encoder_cost_in_gmacs_and_tokens_to_the_decoder(name, rates):
    vision = GitVisionTransformer(GitVisionConfig(**find_entry(name).shape)).eval()
    use_fused_attention(vision)
    for r, (gmacs, tokens) in rates.items():
        with attach(vision, "tome", f"r={r}") as handle:
            macs = count_macs_fast(vision, smooth_image(224))
            assert handle.token_counts[-1] == handle.planned_counts[-1] == tokens
        assert macs / 1e9 == pytest.approx(gmacs, rel=0.005)


@pytest.mark.parametrize("explicit", [False, True])
def test_the_cost_of_a_whole_model_is_that_of_its_encoder_and_undisputed(explicit):
    model = tiny_git() if explicit else Captioner(tiny_git())
    plain = count_flops(model)
    with attach(model, "tome", "r=8"):
        reduced = count_flops(model)
    for report in (plain, reduced):
        assert not report.disputed, report.why
        assert report.total == report.torch == report.formula + report.reducer
        assert report.by_part["head"] == 0
        assert report.by_part["patch_embed"] == 64 * 32 * 3 * 4 * 4
        assert len(report.by_block) == 4
    assert plain.total == count_flops(backbone_of(model)).total > reduced.total


@reductions
def test_detaching_leaves_the_whole_model_exactly_what_it_was(reducer, rate):
    captioner, images = Captioner(tiny_git()), pictures(2)
    before = captioner(images, max_new_tokens=5)
    state = {name: value.clone() for name, value in captioner.state_dict().items()}
    things = [(type(module), dict(module.__dict__)) for module in captioner.modules()]
    handle = attach(captioner, reducer, rate)
    captioner(images, max_new_tokens=5)
    assert handle.model is captioner.backbone
    assert handle_of(captioner) is handle_of(captioner.git) is handle
    with pytest.raises(RequestError, match="detach it first"):
        attach(captioner.git, "tome", "r=1")
    handle.detach()
    handle.detach()
    assert handle_of(captioner) is None
    for module, (cls, attributes) in zip(captioner.modules(), things, strict=True):
        assert type(module) is cls
        assert module.__dict__ == attributes
    assert all(torch.equal(value, state[name]) for name, value in captioner.state_dict().items())
    assert captioner(images, max_new_tokens=5) == before


def test_solving_for_a_target_and_timing_work_on_the_backbone_of_a_whole_model():
    captioner = Captioner(tiny_git())
    solved = solve_rate(captioner, "tome", flops="-30%")
    assert solved.baseline_macs == count_flops(captioner).total
    with attach(captioner, "tome", "flops=-30%"):
        assert count_flops(captioner).total == solved.macs
    handles = {}
    for name, rate in REDUCTIONS:
        with attach(captioner, name, rate) as handles[name]:
            pass
    speed = measure_speed(captioner, pictures(2), handles, rounds=1, min_block_s=0.01, warmup_s=0.01)
    assert all(result.im_s > 0 for result in speed.values()), speed
    assert family_of(captioner) is family_of(captioner.git.git) is family_of(captioner.backbone)
    assert family_of(captioner).layout(captioner.backbone).tokens == TOKENS
    assert backbone_of(captioner.git.git.image_encoder) is captioner.backbone


@torch.no_grad()
def test_what_a_reduced_encoder_cannot_give_is_refused():
    git, images = tiny_git(), pictures(1)
    with attach(git, "tome", "r=8"):
        for option in ("output_hidden_states", "output_attentions", "interpolate_pos_encoding"):
            with pytest.raises(RuntimeError, match=f"{option} is not possible"):
                backbone_of(git)(images, **{option: True})
    fused = copy.deepcopy(git)
    use_fused_attention(fused)
    attention = [model.git.image_encoder.vision_model.encoder.layers[0].self_attn for model in (git, fused)]
    own, asked = (layer(torch.ones(1, 5, 32), output_attentions=True) for layer in attention)
    torch.testing.assert_close(asked, own)


class OwnForward(GitVisionTransformer):
    def forward(self, pixel_values):
        return super().forward(2 * pixel_values)


def odd_block() -> nn.Module:
    git = tiny_git()
    backbone_of(git).encoder.layers[1] = nn.Identity()
    return git


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: OwnForward(tiny_git().config.vision_config), "a forward of its own"),
        (odd_block, "Identity in its blocks"),
        (lambda: tiny_git().git.encoder, "'GitEncoder' is not supported"),
        (lambda: tiny_git(num_image_with_embedding=6), "6 frames"),
    ],
)
def test_a_git_of_another_kind_is_refused_in_one_line(model, reason):
    with pytest.raises(RequestError, match=reason) as caught:
        attach(model(), "tome", "r=1")
    assert "\n" not in str(caught.value)
