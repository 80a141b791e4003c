"""The rate at which a method reaches a FLOPs target, found from what the model truly costs, and attaching at one."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from suite.attachment.attach import attach as attach_at_rate
from suite.attachment.attach import make_prepared
from suite.attachment.handle import Handle
from suite.backbones import family_of
from suite.backbones.branched import DenoiserFamily
from suite.measure.denoiser_search import DenoiserSearch
from suite.measure.rate_search import Search, Solved
from suite.rates.rate import FlopsTarget, Rate, parse_rate, parse_target
from suite.rates.schedule import check_form
from suite.reducers import make_reducer
from suite.reducers.base import Reducer


def attach(
    model: nn.Module,
    reducer: str | Reducer,
    rate: str | Rate | None = None,
    *,
    weights: str | Path | None = None,
    **options: object,
) -> Handle:
    """Make `model` reduce its tokens from now on, in place and without copying weights.

    Args:
        model: a supported backbone, or a model around one (transformers' GIT, a Captioner); its state dict stays what
            it is.
        reducer: a registered name, 'path/to/file.py:ClassName', or a Reducer.
        rate: 'r=13', 'r=16:-1', 'r=[16,16,8]', 'r=0.35@3,6,9' (fraction taken out), 'keep=0.7', 'keep=0.7@3,6,9',
            'plan=1' (of learned ones) or 'flops=-35%' (solved from the true cost); None reduces nothing, unless the
            method has a plan of its own.
        weights: file of what was trained with the method ('embedded:model/method' for one that comes with the suite).
        options: the method's own options.

    Returns a Handle, also a context manager that detaches at its end. RequestError for what cannot be done.
    """
    asked = None if rate is None else rate if isinstance(rate, Rate) else parse_rate(str(rate))
    if isinstance(asked, FlopsTarget) and not asked.is_zero:
        reducer, options = make_prepared(reducer, weights, options), {}
        asked = solve_rate(model, reducer, flops=asked).rate
    return attach_at_rate(model, reducer, asked, weights=weights, **options)


def solve_rate(
    model: nn.Module,
    reducer: str | Reducer,
    *,
    flops: float | str | FlopsTarget,
    images: Tensor | None = None,
    **options: object,
) -> Solved:
    """The rate of `reducer` on `model` whose true cost, overhead included, is closest to a change of `flops`.

    images: (B, 3, H, W) preprocessed images whose mean cost it is, where that depends on the image; default one
    synthetic image of the model's own size.
    flops: -0.35 or '-35%'. r is solved over integers and never interpolated (ties: the smaller r), keep to 1e-4,
        tau to 1e-3.
    RequestError if the method takes no rate, or its strongest rate is still too expensive.
    """
    family_of(model)  # refused before anything is measured
    target = flops if isinstance(flops, FlopsTarget) else parse_target(str(flops))
    made = reducer if isinstance(reducer, Reducer) else make_reducer(reducer, **options)
    check_form(target, made)
    return search_of(model, made, images).solve(target.change)


def search_of(model: nn.Module, reducer: Reducer, images: Tensor | None = None) -> Search:
    """The search over what a rate means on the model's family."""
    in_branches = isinstance(family_of(model), DenoiserFamily) and reducer.site != "before_embedding"
    return (DenoiserSearch if in_branches else Search)(model, reducer, images)
