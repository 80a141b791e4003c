"""What every reduced backbone does beside its own forward: the reducer trains, moves and is converted with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

from suite.reducers.base import Reducer
from suite.tokens.state import Tokens

if TYPE_CHECKING:
    from torch.nn import Module as Beside
else:
    Beside = object  # what it is mixed into is a module; it must not be one before that


class Decoder(Protocol):
    """What reads a backbone's tokens and keeps their number, which a reducer changes."""

    def remember(self) -> None:
        """Note the number to go back to."""

    def tell(self, count: int | None) -> None:
        """None: images of one batch have different numbers of tokens."""

    def restore(self) -> None: ...


class Attached(Protocol):
    """What a mixin asks of the handle."""

    reducer: Reducer
    tokens: Tokens | None
    decoder: Decoder | None

    def encode(self, model: nn.Module, x: Tensor) -> Tokens: ...

    def changed(self) -> None: ...


class Reduced(Beside):
    """Mixed into the class of a backbone while a reducer is attached to it; `_reducerbench` is the handle."""

    _reducerbench: Attached

    def train(self, mode: bool = True) -> Any:
        self._reducerbench.reducer.train(mode)
        self._reducerbench.changed()
        return super().train(mode)

    def _apply(self, *args: Any, **options: Any) -> Any:
        """`to`, `half`, `cuda` and the like move the reducer's weights with the model's."""
        self._reducerbench.reducer._apply(*args, **options)
        self._reducerbench.changed()
        return super()._apply(*args, **options)
