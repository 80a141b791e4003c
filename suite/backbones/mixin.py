"""What every reduced backbone does beside its own forward: the reducer trains, moves and is converted with it."""

from __future__ import annotations

from functools import cache
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
    reduces: bool
    images: Any  # `SeenImages`, which stands above

    def encode(self, model: nn.Module, x: Tensor) -> Tokens: ...

    def give_out(self, features: Tensor, tokens: Tokens) -> None: ...

    def behind(self, features: Tensor) -> Tokens | None: ...

    def moved(self) -> None: ...


class Reduced(Beside):
    """Mixed into the class of a backbone while a reducer is attached to it; `_reducerbench` is the handle."""

    _reducerbench: Attached

    def train(self, mode: bool = True) -> Any:
        self._reducerbench.reducer.train(mode)
        return super().train(mode)

    def _apply(self, *args: Any, **options: Any) -> Any:
        """`to`, `half`, `cuda` and the like move the reducer's weights with the model's."""
        self._reducerbench.reducer._apply(*args, **options)
        self._reducerbench.moved()
        return super()._apply(*args, **options)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied and pickled with its handle; its class is made on the way and cannot be found by its name."""
        return unfilled, type(self).__bases__, self.__getstate__()


@cache
def reduced_class(mixin: type, cls: type) -> type:
    return type(f"Reduced{cls.__name__}", (mixin, cls), {})


def unfilled(mixin: type, cls: type) -> Any:
    """A model of `reduced_class` whose state is yet to be set."""
    return object.__new__(reduced_class(mixin, cls))
