"""AdaMerge: what redundancy is usual in every block, measured on a share of the training images; nothing is updated."""

from __future__ import annotations

from typing import ClassVar, cast

import numpy as np
from pydantic import Field
from torch import Tensor

from suite.errors import RequestError
from suite.rates.rate import FlopsTarget, TokensPerBlock
from suite.reducers import adamerge
from suite.sweep.spec import AskedRate
from suite.train.numbers import FROZEN, Count
from suite.train.recipe import Recipe, register
from suite.train.redundancy import measure_statistics
from suite.train.session import Session


@register
class AdaMerge(Recipe):
    """Two passes over drawn images, prepared as in evaluation. What comes of them goes with `rate`, which the second
    was made at: another rate wants its own file.
    """

    method = "adamerge"
    source = "Lee, Go and Choi, 2026, arXiv 2605.27465: 1 % of the training images, two passes; `least` is ours"
    kinds: ClassVar = ("classification", "captioning", "segmentation")
    measured_by: ClassVar = frozenset({"rate", "reducer_options", "share", "least", "batch_size", "seed"})

    rate: AskedRate = TokensPerBlock(14)
    share: float = Field(0.01, gt=0, le=1)
    """Share of the training images that redundancy is measured on."""
    least: Count = 256
    """Images that it is measured on where the share comes to fewer; all, where there are fewer."""
    backbone: str = FROZEN

    def begin(self, session: Session) -> None:
        handle, reducer = session.handle, cast(adamerge.AdaMerge, session.reducer)
        if reducer.trained:
            raise RequestError("'adamerge' was given mean and deviation as options, so there is nothing to measure")
        if isinstance(self.rate, FlopsTarget):
            raise RequestError(f"rate {self.rate}: what 'adamerge' costs, its statistics decide; give r=14, say")
        if not handle.reduces:
            raise RequestError(f"rate {session.rate} takes nothing out, so there is nothing to measure; give r=14")
        handle.detach()
        samples = session.task.samples
        count = min(len(samples), max(self.least, round(self.share * len(samples))))
        drawn = np.random.default_rng(self.seed).permutation(len(samples))[:count]
        session.found |= measure_statistics(session, [samples[place] for place in drawn], self.batch_size)
        reducer.prepare(session.found)
        handle.attach()

    def collect_learned(self, session: Session) -> dict[str, Tensor]:
        """As measured: what the reducer holds was converted to the model's precision."""
        return session.found
