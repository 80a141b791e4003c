"""A reducer by its name, on a model: the handle that its family needs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from suite.attachment.branch_handle import BranchHandle
from suite.attachment.handle import Handle, handle_of
from suite.attachment.reducer_weights import read_reducer_weights
from suite.backbones import backbone_of, family_of
from suite.backbones.branched import DenoiserFamily
from suite.errors import RequestError
from suite.models.shipped import weights_path
from suite.rates.rate import Rate
from suite.reducers import make_reducer
from suite.reducers.base import Reducer


def attach(
    model: nn.Module,
    reducer: str | Reducer,
    rate: Rate | None = None,
    *,
    weights: str | Path | None = None,
    **options: object,
) -> Handle:
    """`suite.attach` at a rate that is no FLOPs target; those are solved above, from what attaching costs."""
    if (other := handle_of(model)) is not None:
        raise RequestError(f"the model has reducer {other.reducer.name!r} attached; detach it first")
    whole, model, family = model, backbone_of(model), family_of(model)
    made = make_prepared(reducer, weights, options)
    if isinstance(family, DenoiserFamily):
        handle: Handle = BranchHandle(model, family, made, rate)
    else:
        handle = Handle(model, family, made, rate, family.decoder(whole))
    if weights is not None:
        trained = read_reducer_weights(made, weights_path(str(weights)))
        handle.bring(trained.backbone)
        if handle.reduces:  # else nothing was built that could be filled
            trained.load_into(made)
        else:
            made.mark_trained()
    return handle.attach()


def make_prepared(reducer: str | Reducer, weights: str | Path | None, options: Mapping[str, object]) -> Reducer:
    """The reducer with its options; what `weights` say that it learned of its rates is known to it."""
    if isinstance(reducer, Reducer) and options:
        raise RequestError(
            f"options {sorted(options)} go with a reducer's name, not with a Reducer that is made already"
        )
    made = reducer if isinstance(reducer, Reducer) else make_reducer(reducer, **options)
    if weights is not None:
        read_reducer_weights(made, weights_path(str(weights))).prepare(made)
    return made
