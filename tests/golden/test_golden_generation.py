"""Token reduction in the branches of a denoiser's blocks, against reference outputs of tomesd on diffusers' modules.

What `data/generation` does not hold is looked for in the larger set, and skipped where that is absent.
"""

import json
from pathlib import Path

import generation_recipe as recipe
import numpy as np
import pytest
import torch

from suite.attachment.attach import attach
from suite.attachment.branch_hooks import BlockPlan, BranchHooks, Running
from suite.backbones.branched import BranchedBlock, BranchScope
from suite.errors import RequestError
from suite.rates.rate import parse_rate
from suite.reducers.tofu import ToFu
from suite.reducers.tome_sd import ToMeSD
from suite.tokens.destinations import match_to_destinations, num_sources, split_grid
from suite.tokens.grouping import take
from suite.tokens.state import Tokens

diffusers = pytest.importorskip("diffusers", reason="extra 'generation' is not installed")

DATA = Path(__file__).parent / "data" / "generation"
FOLDERS = (DATA, Path(__file__).parents[3] / "shared" / "golden-generation")
CASES = json.loads((DATA / "manifest.json").read_text())["cases"]
CLOSE = {"atol": 1e-5, "rtol": 0}
ADAPTIVE = {"atol": 2e-5, "rtol": 0}  # a product more before the branch


def of_kind(kind):
    found = {name: next((f for f in FOLDERS if (f / f"{name}.npz").exists()), None) for name in CASES}
    absent = pytest.mark.skip(reason="the larger set of reference outputs is not here")
    names = [name for name, case in CASES.items() if case["kind"] == kind]
    return pytest.mark.parametrize("name", [pytest.param(name, marks=() if found[name] else absent) for name in names])


def stored(name):
    folder = next(folder for folder in FOLDERS if (folder / f"{name}.npz").exists())
    return CASES[name], np.load(folder / f"{name}.npz")


def made(text):
    """An input that a case describes by a call of the recipe."""
    return torch.from_numpy(eval(text, {}, {"noise": recipe.noise, "picture": recipe.picture}))


def with_weights(module, offset):
    shapes = {name: list(parameter.shape) for name, parameter in module.named_parameters()}
    state = {name: torch.from_numpy(array) for name, array in recipe.weights(shapes, offset).items()}
    module.load_state_dict(state, strict=False)  # buffers are not in it
    return module.eval()


def drawn(kind, draws, **options):
    """A reducer whose draws are given, one array a matching, in order; it keeps the owners that it made."""

    class Drawn(kind):
        def before_branch(self, tokens, signals, amount):
            if not signals._matchings:
                numbers = torch.from_numpy(draws[len(self.owners)]).flatten()
                signals.draw = lambda key, windows, seed, block: numbers.expand(len(key), windows)
                self.owners.append(None)
            out = super().before_branch(tokens, signals, amount)
            self.owners[-1] = raster_owner(out)
            return out

    reducer = Drawn(**options)
    reducer.owners = []
    return reducer


def raster_owner(tokens):
    """(B, N) raster position of the kept token that every token belongs to."""
    return tokens.steps[-1].kept.gather(1, tokens.owner).numpy()


def in_order_of(case_rows, tokens, x):
    """Rows of merged tokens in the order of the reference: ascending raster position."""
    order = tokens.steps[-1].kept.argsort(dim=1)
    assert np.array_equal(tokens.steps[-1].kept.gather(1, order).numpy(), case_rows)
    return take(x, order)


@of_kind("matching")
def test_destinations_groups_and_means_are_those_of_the_reference(name):
    case, arrays = stored(name)
    x, grid, stride = made(case["tokens"]), (case["h"], case["w"]), (case["sy"], case["sx"])
    draws = torch.from_numpy(arrays["draws"]).reshape(1, -1).expand(len(x), -1)
    assert np.array_equal(split_grid(draws, grid, stride)[1][0].numpy(), arrays["dst"])
    assert min(case["r_asked"], num_sources(grid, stride)) == case["r_done"]
    tokens = Tokens.start(x, 0, counted=False)
    merged = tokens.merge(match_to_destinations(x, case["r_asked"], 0, grid, stride, draws), plain=True)
    assert np.array_equal(raster_owner(merged), arrays["owner"])
    torch.testing.assert_close(
        in_order_of(arrays["kept"], merged, merged.x), torch.from_numpy(arrays["merged"]), **CLOSE
    )
    torch.testing.assert_close(merged.expand(), torch.from_numpy(arrays["round_trip"]), **CLOSE)
    branch = torch.empty_like(merged.x).scatter_(
        1, merged.steps[-1].kept.argsort(dim=1)[..., None].expand_as(merged.x), made(case["branch"])
    )
    assert torch.equal(merged.expand(branch), torch.from_numpy(arrays["unmerged"]))


def block_of(case):
    from diffusers.models.attention import BasicTransformerBlock

    adaptive = case["norm_type"] == "ada_norm_zero"
    block = BasicTransformerBlock(
        case["C"], case["heads"], case["C"] // case["heads"], norm_type=case["norm_type"], norm_eps=case["norm_eps"],
        activation_fn=case["activation"], cross_attention_dim=None if case["encoder"] is None else 24,
        num_embeds_ada_norm=1000 if adaptive else None, attention_bias=adaptive,
        norm_elementwise_affine=not adaptive,
    )  # fmt: skip
    return with_weights(block, case["weights_offset"])


def call_block(block, case):
    given = {}
    if case["encoder"] is not None:
        given["encoder_hidden_states"] = made(case["encoder"])
    if case["timestep"] is not None:
        given |= {"timestep": torch.tensor(case["timestep"]), "class_labels": torch.tensor(case["class_labels"])}
    with torch.no_grad():
        return block(made(case["tokens"]), **given)


@of_kind("block")
def test_a_block_with_reduced_branches_is_the_reference(name):
    case, arrays = stored(name)
    close = ADAPTIVE if name.startswith("b4") else CLOSE
    block, args = block_of(case), case["args"]
    torch.testing.assert_close(call_block(block, case), torch.from_numpy(arrays["output_unreduced"]), **close)
    grid = (case["h"], case["w"])
    operator = {"prune": (ToFu, {"d": 1}), "mlerp": (ToFu, {"d": 0})}.get(case.get("operator"), (ToMeSD, {}))
    reducer = drawn(operator[0], [arrays["draws"]], **operator[1])
    amount = reducer.amount_in_branch(args["ratio"], grid)
    running = Running([BlockPlan(amount, grid)], torch.zeros(case["B"], 1, dtype=torch.int64), counts=[{}])
    branches = {"self": block.attn1, "cross": block.attn2, "mlp": block.ff}
    of = BranchedBlock("block", block, {key: part for key, part in branches.items() if part is not None})
    reduced = [key for key, flag in zip(branches, ("merge_attn", "merge_crossattn", "merge_mlp")) if args[flag]]
    hooks = BranchHooks(of, 0, 2, 0, reducer, lambda: running).register(tuple(reduced))
    output = call_block(block, case)
    for hook in hooks:
        hook.remove()
    assert np.array_equal(reducer.owners[0], arrays["owner"])
    torch.testing.assert_close(output, torch.from_numpy(arrays["output"]), **close)


def network_of(case):
    kinds = {"unet": diffusers.UNet2DConditionModel, "dit": diffusers.DiTTransformer2DModel}
    return with_weights(kinds[case["kind"]](**case["config"]), case["weights_offset"])


@of_kind("unet")
def test_a_u_net_is_the_reference_in_every_call(name):
    case, arrays = stored(name)
    model, sample, encoder = network_of(case), made(case["sample"]), made(case["encoder"])
    count = sum(key.startswith("draws_") for key in arrays)
    reducer = drawn(ToMeSD, [arrays[f"draws_{i}"] for i in range(count)])
    model.branch_scope = BranchScope(max_downsample=case["args"].get("max_downsample", 1))

    def call(timestep):
        with torch.no_grad():
            return model(sample, timestep, encoder_hidden_states=encoder).sample

    for timestep, expected in zip(case["timesteps"], arrays["output_unreduced"], strict=True):
        torch.testing.assert_close(call(timestep), torch.from_numpy(expected), **CLOSE)
    with attach(model, reducer, parse_rate(f"r={case['args']['ratio']}")):
        for timestep, expected in zip(case["timesteps"], arrays["output"], strict=True):
            torch.testing.assert_close(call(timestep), torch.from_numpy(expected), **CLOSE)
    assert len(reducer.owners) == count
    for i, owner in enumerate(reducer.owners):
        assert np.array_equal(owner, arrays[f"owner_{i}"])


def call_dit(model, case):
    with torch.no_grad():
        timestep, labels = torch.tensor([case["timestep"]]), torch.tensor(case["class_labels"])
        return model(made(case["sample"]), timestep.expand(2), labels).sample


def test_a_dit_is_the_reference():
    case, arrays = stored("d2_max_downsample2")
    model = network_of(case)
    model.branch_scope = BranchScope(max_downsample=2)
    reducer = drawn(ToMeSD, [arrays[f"draws_{i}"] for i in range(3)])
    torch.testing.assert_close(call_dit(model, case), torch.from_numpy(arrays["output_unreduced"]), **CLOSE)
    with attach(model, reducer, parse_rate("r=0.5")):
        torch.testing.assert_close(call_dit(model, case), torch.from_numpy(arrays["output"]), **CLOSE)
    for i, owner in enumerate(reducer.owners):
        assert np.array_equal(owner, arrays[f"owner_{i}"])


def test_what_reaches_no_block_and_does_nothing_in_silence_elsewhere_is_refused():
    case, arrays = stored("d1_default_does_nothing")
    model = network_of(case)
    assert np.array_equal(arrays["output"], arrays["output_unreduced"])
    with pytest.raises(RequestError, match=r"'r=0.5' with max_downsample=1 reaches none of the 3 blocks;.*=2"):
        attach(model, "tome_sd", parse_rate("r=0.5"))
