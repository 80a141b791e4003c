"""What every reduced backbone does beside its own forward: the reducer trains, moves and is converted with it."""

from __future__ import annotations

from torch import nn


class Reduced:
    """Mixed into the class of a backbone while a reducer is attached to it; `_reducerbench` is the handle."""

    def train(self, mode: bool = True) -> nn.Module:
        self._reducerbench.reducer.train(mode)
        self._reducerbench.changed()
        return super().train(mode)

    def _apply(self, *args: object, **options: object) -> nn.Module:
        """`to`, `half`, `cuda` and the like move the reducer's weights with the model's."""
        self._reducerbench.reducer._apply(*args, **options)
        self._reducerbench.changed()
        return super()._apply(*args, **options)
