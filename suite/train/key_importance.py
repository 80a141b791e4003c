"""What every patch is worth to the loss as a key: attention times its gradient, of the model as it is."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from suite.attachment.attach import attach
from suite.errors import RequestError
from suite.reducers.base import Reducer
from suite.tokens.grouping import full_precision
from suite.train.examples import Order, move_to, read
from suite.train.numbers import Numbers
from suite.train.session import Session


class AttentionTimesGradient(Reducer):
    """Looks on while gradients come back, and takes nothing out.

    means: by block, (N,) float32 at least, the mean over images, heads and queries of A * dL/dA, key by key, of the
    last backward pass. No map is needed for it: as o = A v, the sum over queries of A_qk dL/dA_qk, where dL/dA_qk is
    the product of dL/do_q and v_k, is that of v_k and dL/dv_k. Attention stays fused.
    """

    name = "attention_times_gradient"
    rates = ()
    only_looks = True
    reads_sizes = False

    def __init__(self) -> None:
        super().__init__()
        self.means: dict[int, Tensor] = {}

    def after_attention(self, tokens, signals, amount):
        values = signals.heads[2]
        values.register_hook(partial(self.note, signals.block, values.detach()))
        return tokens

    def note(self, block: int, values: Tensor, gradient: Tensor) -> None:
        batch, heads, count, _ = values.shape
        total = (full_precision(values) * full_precision(gradient)).sum(dim=(0, 1, 3))
        self.means[block] = total / (batch * heads * count)


def measure_importance(session: Session, recipe: Numbers) -> Tensor:
    """(L, n) float64 >= 0: of every block's patches, the absolute value of a batch's mean, summed over batches.

    Source: Mao et al., 2025, arXiv 2503.23455. recipe: `steps` batches of `batch_size` are read as it says. The model
    is in evaluation mode, in its own precision, and stays as it is: what the authors' code does to it on the way,
    optimiser steps at a rate of 1e-6, is left out. RequestError for gradients that are no numbers.
    """
    model, looking = session.model, AttentionTimesGradient()
    objective = type(session.objective)(session.task, model, recipe)
    order = Order(len(session.task.samples), recipe)
    with attach(model, looking) as handle, session.progress.updates("scoring patches", order.steps) as advance:
        model.eval().requires_grad_(False)
        layout = handle.layout
        total = torch.zeros(layout.depth, layout.num_patches, dtype=torch.float64)
        for batch in read(objective, order, 0, session.workers):
            batch = objective.prepare(move_to(session.device, batch))
            images = batch.images.requires_grad_()  # what is made of them has gradients, and no parameter
            torch.autograd.grad(objective.loss(model, replace(batch, images=images)), images)
            means = torch.stack([looking.means[block] for block in range(layout.depth)])
            if not bool(means.isfinite().all()):
                seen = ", ".join(batch.ids[:8]) + (" and others" if len(batch.ids) > 8 else "")
                raise RequestError(f"the gradients of samples {seen} are no numbers, so no plan comes of them")
            total += means[:, layout.num_prefix :].double().abs().cpu()
            advance("", 1)
    return total
