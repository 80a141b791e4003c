"""Captions of a reduced GIT: what the tokens that are left say, with a cache or without, alone or in a batch."""

import copy
from functools import partial

import pytest
import torch
from tiny_git import SIDE, TOKENS, pictures, prompts, rows, tiny_git, tokens_of
from transformers.models.git.modeling_git import GitSelfAttention

from suite import RequestError, attach
from suite.backbones.git import ImageTokens
from suite.errors import OutputError
from suite.models.captioner import Captioner, Decoding
from tests.tiers import spread

REDUCTIONS = [("tome", "r=8"), ("evit", "keep=0.7"), ("random", "r=8"), ("ats", "keep=0.7")]
reductions = pytest.mark.parametrize(("reducer", "rate"), REDUCTIONS, ids=[name for name, _ in REDUCTIONS])
RATES = {"none": None, **dict(REDUCTIONS)}
searches = pytest.mark.parametrize("beams", [1, 4], ids=["greedy", "beam 4"])
endings = pytest.mark.parametrize("sooner", [0, 2], ids=["up to the limit", "ended before"])
END = 2


def ending(captioner: Captioner, sooner: float) -> Captioner:
    """With an end token that is likelier by `sooner`, so that captions are of several lengths."""
    captioner.git.output.bias.data[END] += sooner
    return captioner


@endings
@searches
def test_a_reduced_model_in_the_hands_of_transformers_generates_the_same(beams, sooner):
    captioner, images = ending(Captioner(tiny_git()), sooner), pictures(3)
    whole = tokens_of(captioner(images, num_beams=beams, max_new_tokens=12))
    with attach(captioner, "tome", "r=8"):
        own = captioner.git.generate(pixel_values=images, num_beams=beams, max_new_tokens=12, do_sample=False)[:, 1:]
        reduced = tokens_of(captioner(images, num_beams=beams, max_new_tokens=12))
    assert reduced == rows(own, end=END)
    assert reduced != whole
    assert not sooner or len({*map(len, reduced)}) > 1


@pytest.mark.parametrize(
    ("reducer", "beams", "lengths"), spread(3, dict(REDUCTIONS), [1, 4], [None, (4,), (2, 5, 3)]), ids=str
)
def test_cached_and_uncached_generation_agree_under_reduction(reducer, beams, lengths):
    captioner, images = Captioner(tiny_git()), pictures(3)
    ids, mask = (None, None) if lengths is None else prompts(lengths)
    ask = partial(captioner, images, num_beams=beams, max_new_tokens=8, input_ids=ids, attention_mask=mask)
    whole = ask()
    with attach(captioner, reducer, RATES[reducer]):
        cached = ask()
        assert cached == ask(use_cache=False)
        if lengths is not None:
            for row, caption in enumerate(cached):
                alone = ids[row : row + 1, mask[row] == 1]
                generate = partial(captioner, images[row : row + 1], num_beams=beams, max_new_tokens=8)
                assert generate(input_ids=alone) == [caption]
    assert tokens_of(cached) != tokens_of(whole)


def cached_agrees(git, images, ids, mask, beams) -> bool:
    """Whether transformers' own generation is the same with a cache and without."""
    generate = partial(git.generate, pixel_values=images, input_ids=ids, attention_mask=mask, do_sample=False)
    runs = [generate(num_beams=beams, max_new_tokens=8, use_cache=cache) for cache in (True, False)]
    return torch.equal(*runs)


def test_without_the_real_number_of_image_tokens_transformers_changes_captions(monkeypatch):
    """5.x widens the mask of padded prompts by `image_patch_tokens`; 4.x splits the cache by it, and takes no notice of
    padding there, reduced or not, so that only prompts without padding tell anything."""
    git, images = tiny_git(), pictures(3)
    ids, mask = prompts([16, 12, 14])
    cases = [(ids, mask, beams) for beams in (1, 4)] + [(prompts([16])[0], None, beams) for beams in (1, 4)]
    cases = [case for case in cases if cached_agrees(git, images, *case)]
    assert len(cases) >= 2
    with attach(git, "tome", "r=2"):
        assert all(cached_agrees(git, images, *case) for case in cases)
    monkeypatch.setattr(ImageTokens, "tell", lambda *_: None)
    with attach(git, "tome", "r=2"):
        assert not all(cached_agrees(git, images, *case) for case in cases)


@pytest.mark.parametrize(
    "whole", [lambda c: c, lambda c: c.git, lambda c: c.git.git], ids=["Captioner", "CausalLM", "Git"]
)
@torch.no_grad()
def test_the_decoder_knows_the_real_number_of_tokens_while_a_reducer_is_attached(whole):
    captioner, images = Captioner(tiny_git()), pictures(2)
    layers = [module for module in captioner.modules() if isinstance(module, GitSelfAttention)]
    for layer in layers:
        layer.image_patch_tokens = 77  # whatever it was, it comes back
    with attach(whole(captioner), "tome", "r=8") as handle:
        captioner.git(input_ids=torch.ones(2, 1, dtype=torch.long), pixel_values=images)
        assert handle.token_counts[-1] == 33
        assert [layer.image_patch_tokens for layer in layers] == [33] * 3
        captioner(images, max_new_tokens=2)
    assert [layer.image_patch_tokens for layer in layers] == [77] * 3
    with handle:
        captioner.git.generate(pixel_values=images, max_new_tokens=2)
        assert layers[0].image_patch_tokens == 33
    assert layers[0].image_patch_tokens == 77


@pytest.mark.parametrize(("reducer", "sooner", "beams"), spread(2, RATES, [0, 2], [1, 4]))
def test_captions_of_a_batch_are_those_of_its_images_alone(reducer, sooner, beams):
    captioner, images = ending(Captioner(tiny_git()), sooner), pictures(5)
    with attach(captioner, reducer, RATES[reducer]):
        together = captioner(images, num_beams=beams, max_new_tokens=12)
        assert together == [captioner(image[None], num_beams=beams, max_new_tokens=12)[0] for image in images]
    assert not sooner or len({*map(len, tokens_of(together))}) > 1


def test_padded_tokens_are_never_handed_to_the_decoder():
    captioner, images = Captioner(tiny_git()), pictures(3)
    with attach(captioner, "ats", "keep=0.7") as handle:
        captioner(images, max_new_tokens=2)
        assert handle.tokens.valid is not None
        with pytest.raises(RuntimeError, match="different numbers of tokens"):
            captioner.git.generate(pixel_values=images, max_new_tokens=2)
        captioner(images, max_new_tokens=2)
        with pytest.raises(RuntimeError, match="different numbers of tokens"):
            captioner.git(input_ids=torch.ones(3, 1, dtype=torch.long), pixel_values=images)
        captioner.git.generate(pixel_values=images[:1], max_new_tokens=2)
        assert captioner.backbone(images).last_hidden_state.shape == (3, handle.tokens.count, 32)
    assert all(type(layer) is GitSelfAttention for layer in ImageTokens(captioner).layers)


@pytest.mark.parametrize("cache", [True, False])
@searches
@pytest.mark.parametrize("reducer", ["none", "ats"])
def test_every_image_is_encoded_once(reducer, beams, cache):
    captioner, encoded = Captioner(tiny_git()), []
    captioner.backbone.embeddings.patch_embedding.register_forward_hook(lambda _, args, __: encoded.append(args[0]))
    with attach(captioner, reducer, None if reducer == "none" else "keep=0.7"):
        captioner(pictures(3), num_beams=beams, max_new_tokens=8, use_cache=cache)
    assert [len(batch) for batch in encoded] == [3]


def closed_form(config, image: int, steps: list[tuple[int, int]], output: list[int]) -> list[int]:
    """MACs of decoder steps on (rows, keys) that give logits for `output` rows; the first one projects the image."""
    width, words, depth = config.hidden_size, config.vocab_size, config.num_hidden_layers
    each = depth * (4 * width * width + 2 * width * config.intermediate_size)
    macs = [
        rows * each + depth * 2 * rows * keys * width + out * width * words for (rows, keys), out in zip(steps, output)
    ]
    macs[0] += image * config.vision_config.hidden_size * width
    return macs


@pytest.mark.parametrize(("reducer", "rate"), [("none", None), ("tome", "r=8"), ("ats", "keep=0.7")])
def test_prefill_and_the_cost_of_a_token_are_what_the_decoder_runs(reducer, rate):
    """Releases differ in what they compute anew at the second step, and in how many logits; both are observed here."""
    captioner, images = Captioner(tiny_git()), pictures(1)
    ran, logits = [], []
    layer, output = captioner.git.git.encoder.layer[0], captioner.git.output
    with attach(captioner, reducer, rate) as handle:
        hooks = [
            layer.register_forward_hook(lambda _, args, __: ran.append(args[0].shape[1])),
            output.register_forward_hook(lambda _, args, __: logits.append(args[0].shape[1])),
        ]
        macs = captioner.decoding_macs(images)
        for hook in hooks:
            hook.remove()
        count = handle.token_counts[-1]
        several = captioner.decoding_macs(pictures(3))
        each = [captioner.decoding_macs(image[None]) for image in pictures(3)]
    assert ran[0] == count + 1
    assert (count < TOKENS) == (reducer != "none")
    steps = [(count + 1, count + 1), (ran[1], count + 2)]
    prefill, per_token = closed_form(captioner.git.config, count, steps, logits)
    assert macs["prefill"] == pytest.approx(prefill, rel=0.005)
    if ran[1] == 1:  # elsewhere the image is projected again
        assert macs["per_token"] == pytest.approx(per_token, rel=0.005)
        assert macs["per_token"] < macs["prefill"] / 5
    for key in macs:
        assert several[key] == pytest.approx(sum(own[key] for own in each) / 3, abs=1)


def test_a_copy_of_an_attached_model_tells_its_own_decoder():
    git, images = tiny_git(), pictures(2)
    with attach(git, "tome", "r=8"):
        twin = copy.deepcopy(git)
    twin.generate(pixel_values=images, max_new_tokens=2)
    counts = [ImageTokens(model).layers[0].image_patch_tokens for model in (git, twin)]
    assert counts == [TOKENS, 33]


def test_half_precision_captions_are_mostly_those_of_full_precision():
    captions = []
    for dtype in (torch.float32, torch.bfloat16):
        captioner, images = Captioner(tiny_git()).to(dtype), pictures(16).to(dtype)
        with attach(captioner, "tome", "r=8"):
            captions.append(tokens_of(captioner(images, max_new_tokens=4)))
    full, half = (torch.tensor(tokens) for tokens in captions)
    assert (full == half).float().mean() > 0.5
    assert len(set(captions[1])) > 8


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"num_beams": 0}, "num_beams=0"),
        ({"max_new_tokens": 1.5}, "max_new_tokens=1.5"),
        ({"max_new_tokens": 65}, "the model has 64 positions; use at most 64"),
        ({"input_ids": torch.ones(3, 2, dtype=torch.long)}, "one prompt an image"),
        ({"input_ids": torch.ones(2, 2), "attention_mask": torch.tensor([[1, 1], [1, 0]])}, "to the left"),
        ({"input_ids": torch.ones(2, 2), "attention_mask": torch.tensor([[1, 1], [0, 0]])}, "to the left"),
    ],
)
def test_settings_and_prompts_that_cannot_be_used_are_one_line(options, reason):
    with pytest.raises(RequestError, match=reason) as caught:
        Captioner(tiny_git())(pictures(2, side=SIDE), **options)
    assert "\n" not in str(caught.value)


def test_nothing_beside_the_weights_decides_how_captions_are_generated():
    plain, other = Captioner(tiny_git()), Captioner(tiny_git())
    other.git.generation_config.update(num_beams=3, min_length=30, repetition_penalty=3.0, no_repeat_ngram_size=1)
    assert plain(pictures(2)) == other(pictures(2))
    assert Decoding() == Decoding(num_beams=1, max_new_tokens=20)


@searches
def test_scores_that_are_nan_are_an_error_that_names_the_image(beams):
    captioner, images = Captioner(tiny_git()), pictures(3)
    images[1, 0, 0, 0] = float("nan")
    with pytest.raises(OutputError, match="the scores of word 1 are NaN") as error:
        captioner(images, num_beams=beams, max_new_tokens=4)
    assert error.value.row == 1
