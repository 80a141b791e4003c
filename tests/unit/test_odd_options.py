"""Every option of every method and of its recipe, with values that nobody means: one line, never a defect."""

import math
from itertools import pairwise

import pytest
import torch
from tiny_vit import images, make_model

from suite import RequestError, attach, list_reducers
from suite.rates.rate import KeptFraction, parse_rate
from suite.reducers import make_reducer, reducer_class, reducer_options
from suite.sweep.progress import Progress
from suite.train.recipe import REGISTERED, list_recipes, make_recipe
from suite.train.run import Request, train_method

ODD = [None, True, -1, 0, 1.5, 10**18, 10**30, 1e300, math.inf, math.nan, "x", "", [], [1], {}, {"a": 1}, b"x"]
UNBOUNDED = ("iterations",)  # so many are asked for and could be waited for
RATES = {"r": "r=3", "keep": "keep=0.7", "tau": "tau=0.9"}
OPTIONS = [(name, option) for name in list_reducers() for option in reducer_options(name)]


@pytest.mark.parametrize(("name", "option"), OPTIONS, ids=".".join)
@torch.no_grad()
def test_an_odd_option_of_a_method_is_refused_in_one_line_or_gives_numbers(name, option):
    model, batch = make_model(depth=2), images(2)
    forms, said = reducer_class(name).rates, []
    for value in ODD:
        if option in UNBOUNDED and value == 10**18:
            continue
        try:
            made = make_reducer(name, **{option: value})
            with attach(model, made, RATES[forms[0]] if forms and not made.has_fixed_schedule else None):
                assert model(batch).isfinite().all(), value
        except RequestError as error:
            said.append(str(error))
    assert all(name in line and "\n" not in line for line in said)


@pytest.mark.parametrize("method", list_recipes())
def test_an_odd_number_of_a_recipe_is_refused_in_one_line_or_kept(method):
    said = []
    for field in REGISTERED[method].model_fields:
        for value in ODD:
            try:
                assert make_recipe(method, **{field: value})
            except RequestError as error:
                said.append((field, str(error)))
    assert said
    assert all(field in line and "\n" not in line for field, line in said)


@pytest.mark.parametrize("method", list_recipes())
def test_a_recipe_that_changes_a_default_keeps_the_bounds_of_the_number(method):
    refused = {
        -1: ("batch_size", "epochs", "lr", "min_lr", "mixup", "drop_path", "clip", "warmup_epochs", "weight_decay"),
        0: ("batch_size", "epochs", "repeated", "lr", "backbone_lr", "clip", "accumulate", "steps"),
        1: ("drop_path", "smoothing"),
        math.inf: ("lr", "min_lr", "mixup", "cutmix", "jitter", "clip", "warmup_epochs", "weight_decay"),
        2**40: ("batch_size", "repeated", "epochs"),
    }
    for value, fields in refused.items():
        for field in fields:
            with pytest.raises(RequestError, match=rf"^{field}="):
                make_recipe(method, **{field: value})


def test_an_augmentation_that_timm_cannot_read_is_refused_before_anything_is_trained(tmp_path):
    request = Request("evit", limit=4, workers=0, out=str(tmp_path))
    with pytest.raises(RequestError, match=r"randaugment='rnd-m9' is no augmentation of timm's"):
        train_method(request, {"batch_size": 2, "crop": True, "randaugment": "rnd-m9"}, Progress(quiet=True))


@pytest.mark.parametrize("method", ["evit", "etps"])
@pytest.mark.parametrize("schedule", [{"from_scratch": True}, {"shrink_start": 5.0}, {"shrink_epochs": 7.0}, {}])
@pytest.mark.parametrize("rate", ["keep=0.7", "keep=0.5@1,2", "keep=[0.7,0.5,0.3]", "keep=[0.5]@2", "r=3", "r=0.2@1,2"])
def test_what_is_kept_shrinks_from_all_to_the_rate_in_every_form_of_it(method, schedule, rate):
    recipe, asked = make_recipe(method, rate=rate, **schedule), parse_rate(rate)
    assert recipe.rate == asked
    end = recipe.shrink_start + recipe.shrink_epochs
    steps = [recipe.rate_at(asked, end * part / 20) for part in range(21)]
    assert steps[-1] == asked
    assert {(type(step), step.blocks) for step in steps} == {(type(asked), asked.blocks)}
    if isinstance(asked, KeptFraction) and end:
        assert steps[0].is_zero
        kept = [step.keep if isinstance(step.keep, tuple) else (step.keep,) for step in steps]
        for sooner, later in pairwise(kept):
            assert all(a >= b for a, b in zip(sooner, later, strict=True))
