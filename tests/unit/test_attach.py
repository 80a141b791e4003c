"""attach: names, options, files outside the project, and what a handle tells."""

import textwrap

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

import suite
from suite import RequestError, attach, list_reducers
from suite.attachment.handle import handle_of
from suite.rates.rate import parse_rate
from suite.reducers import make_reducer, reducer_class
from suite.reducers.base import REGISTERED, Reducer, register

SHAPE = {"img_size": 32, "patch_size": 4, "embed_dim": 32, "depth": 4, "num_heads": 2, "num_classes": 10}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return VisionTransformer(**SHAPE).eval()


@pytest.fixture
def reducer_file(tmp_path):
    def write(text, name="mine.py"):
        file = tmp_path / name
        file.write_text(textwrap.dedent(text))
        return file

    return write


MINE = """
    from suite.reducers.base import Reducer

    class Mine(Reducer):
        \"\"\"Keep the first patches.\"\"\"

        def __init__(self, offset: int = 0):
            super().__init__()
            self.offset = offset

        def after_attention(self, tokens, signals, amount):
            order = signals.class_attention[:, tokens.num_prefix:].argsort(1)[:, amount:]
            return tokens.keep(tokens.num_prefix + order)
"""


def test_every_public_name_is_there():
    for name in suite.__all__:
        assert getattr(suite, name) is not None


def test_all_methods_are_listed_the_unreduced_model_first():
    assert list_reducers()[0] == "none"
    assert {"random", "uniform", "tome", "evit", "topk"} <= set(list_reducers())


def test_a_handle_tells_what_happened(model):
    with attach(model, "tome", "r=6") as handle:
        assert handle.tokens is None
        assert handle.token_counts == handle.trace == []
        assert handle.planned_counts == [59, 53, 47, 41]
        assert handle.attached
        model(torch.randn(2, 3, 32, 32))
        assert handle.token_counts == handle.planned_counts
        assert handle.tokens.x.shape == (2, 41, 32)
        assert handle.tokens.size.shape == (2, 41)
        assert handle.tokens.owner.shape == (2, 65)
        assert [(t.entering, t.attended, t.mlp, t.leaving) for t in handle.trace] == [
            (n, n, n - 6, n - 6) for n in (65, 59, 53, 47)
        ]
        assert handle.layout.tokens == 65
        assert isinstance(handle.reducer, torch.nn.Module)
    assert not handle.attached


def test_a_rate_may_be_given_parsed_and_a_reducer_made(model):
    expected = attach(model, "tome", "r=6")
    expected.detach()
    with attach(model, make_reducer("tome"), parse_rate("r=6")) as handle:
        assert handle.planned_counts == expected.planned_counts


def test_options_reach_the_method(model):
    with attach(model, "tome", "r=6", proportional_attention=False) as handle:
        assert handle.reducer.proportional_attention is False


def test_a_target_is_solved_to_a_rate_that_the_handle_names(model):
    with attach(model, "tome", "flops=-30%") as handle:
        assert handle.rate.form == "r"
        model(torch.randn(1, 3, 32, 32))
        assert handle.token_counts == handle.planned_counts
        assert handle.token_counts[-1] < 65


@pytest.mark.parametrize(
    ("reducer", "rate", "options", "named"),
    [
        ("tom", "r=6", {}, "unknown reducer 'tom'; did you mean 'tome'"),
        ("nothing-like-it", "r=6", {}, "known: "),
        ("tome", "r=6", {"proportional": True}, "did you mean 'proportional_attention'"),
        ("tome", "r=500", {}, "at most 32 of 65; use r<=32"),
        ("no/such/file.py:Mine", "r=6", {}, "'no/such/file.py' does not exist"),
        ("none", "r=6", {}, "takes no rate"),
        ("none", "flops=-10%", {}, "takes no rate"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_the_model_alone(model, reducer, rate, options, named):
    with pytest.raises(RequestError) as caught:
        attach(model, reducer, rate, **options)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
    assert type(model) is VisionTransformer
    assert handle_of(model) is None


def test_options_beside_a_made_reducer_are_refused(model):
    with pytest.raises(RequestError, match="options"):
        attach(model, make_reducer("tome"), "r=6", proportional_attention=False)


def test_solving_on_an_attached_model_says_that_it_is_attached(model):
    with attach(model, "tome", "r=6"), pytest.raises(RequestError, match="detach it first"):
        suite.solve_rate(model, "tome", flops=-0.3)


def test_a_method_in_a_file_outside_the_project_is_as_good_as_one_inside(model, reducer_file):
    file = reducer_file(MINE)
    with attach(model, f"{file}:Mine", "r=2", offset=3) as handle:
        model(torch.randn(2, 3, 32, 32))
        assert handle.token_counts == handle.planned_counts == [63, 61, 59, 57]
        assert handle.reducer.name == "Mine"
        assert handle.reducer.offset == 3
    assert reducer_class(f"{file}:Mine") is type(handle.reducer)


def test_two_files_of_one_name_are_two_methods(reducer_file, tmp_path):
    (tmp_path / "other").mkdir()
    first = reducer_class(f"{reducer_file(MINE)}:Mine")
    second = reducer_class(f"{reducer_file(MINE.replace('[:, amount:]', '[:, :-amount]'), 'other/mine.py')}:Mine")
    assert first is not second
    assert first.__module__ != second.__module__


def test_the_source_of_a_method_outside_the_project_can_be_found(reducer_file):
    import inspect

    file = reducer_file(MINE)
    assert inspect.getfile(reducer_class(f"{file}:Mine")) == str(file)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("import no_such_package_at_all", "cannot be loaded: ModuleNotFoundError"),
        ("def broken(:", "cannot be loaded: SyntaxError"),
        ("class Mine: pass", "no Reducer class named 'Mine'"),
        ("Mine = 3", "no Reducer class named 'Mine'"),
        (
            "from suite.reducers.base import *\n@register('tome')\nclass Mine(Reducer): pass",
            "reducer 'tome' is registered twice",
        ),
        (
            "from suite.reducers.base import *\n@register('tome')\nclass ToMe(Reducer): pass",
            "reducer 'tome' is registered twice",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line_that_names_it(model, reducer_file, text, named):
    file = reducer_file(text)
    with pytest.raises(RequestError) as caught:
        attach(model, f"{file}:Mine", "r=2")
    assert named in str(caught.value)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_method_that_refuses_an_option_is_one_line(model, reducer_file):
    file = reducer_file(
        """
        from suite.reducers.base import Reducer

        class Mine(Reducer):
            def __init__(self, share: float):
                super().__init__()
                if share > 1:
                    raise ValueError("share must be at most 1")
        """
    )
    with pytest.raises(RequestError, match="share must be at most 1"):
        attach(model, f"{file}:Mine", "r=2", share=2)
    with pytest.raises(RequestError, match="share"):
        attach(model, f"{file}:Mine", "r=2")


def test_registering_a_name_again_needs_the_same_class():
    @register("passing")
    class Passing(Reducer):
        pass

    try:
        register("passing")(Passing)
        with pytest.raises(ValueError, match="registered twice"):
            register("passing")(type("Other", (Reducer,), {}))
    finally:
        del REGISTERED["passing"]


@pytest.mark.parametrize("seed", [0, -1, 2**40])
def test_random_choice_is_seeded_and_differs_between_samples(model, seed):
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad(), attach(model, "random", "r=20", seed=seed) as handle:
        model(images)
        first = handle.tokens.owner
        model(images)
        assert torch.equal(handle.tokens.owner, first)
        assert not torch.equal(first[0], first[1])
    with torch.no_grad(), attach(model, "random", "r=20", seed=seed + 1) as handle:
        model(images)
        assert not torch.equal(handle.tokens.owner, first)


def test_random_choice_is_uniform_over_positions(model):
    with torch.no_grad(), attach(model, "random", "r=32@0") as handle:
        model(torch.randn(300, 3, 32, 32))
    kept = (handle.tokens.owner[:, 1:] >= 0).float().mean(0)
    assert kept.mean().item() == pytest.approx(0.5)
    assert kept.min() > 0.36  # five standard deviations of a fair draw are 0.14
    assert kept.max() < 0.64


def test_uniform_choice_is_evenly_spaced(model):
    with torch.no_grad(), attach(model, "uniform", "r=48@0") as handle:
        model(torch.randn(1, 3, 32, 32))
    kept = (handle.tokens.owner[0, 1:] >= 0).nonzero().flatten()
    assert kept.tolist() == list(range(2, 64, 4))


def test_pruning_keeps_the_patches_that_the_class_token_attends_to_most(model):
    seen = []
    with torch.no_grad(), attach(model, "topk", "keep=0.5@0") as handle:
        handle.reducer.register_forward_hook(lambda module, given, result: seen.append(given[2].class_attention))
        model(torch.randn(3, 3, 32, 32))
    for attention, owner in zip(seen[0], handle.tokens.owner, strict=True):
        patches = attention[1:]
        kept = owner[1:] >= 0
        assert kept.sum() == 32
        assert patches[kept].min() >= patches[~kept].max()
        assert owner[1:][kept][patches[kept].argsort(descending=True)].tolist() == list(range(1, 33))
