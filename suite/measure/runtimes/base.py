"""What a runtime is: how a model is run. It is prepared once, then called."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from suite.attachment.handle import handle_of
from suite.formats.base import Session
from suite.formats.packages import missing
from suite.measure.memory import peak_memory_bytes
from suite.measure.timing import Forward

REGISTERED: dict[str, type[Runtime]] = {}


def register(name: str) -> Callable[[type[Runtime]], type[Runtime]]:
    """Class decorator: makes a runtime known by `name`."""

    def add(cls: type[Runtime]) -> type[Runtime]:
        cls.name = name
        REGISTERED[name] = cls
        return cls

    return add


@dataclass(frozen=True)
class Prepared:
    """A model that is ready to be called, on batches of the shape and type that it was prepared with.

    forward: (B, 3, H, W) -> what the model returns. seconds: what preparing took; None: there was nothing to prepare.
    notes: what must be known of what was compiled, such as what was left out. peak: bytes in tensors while it was
    prepared, where a forward no longer shows them.
    """

    forward: Forward
    seconds: float | None = None
    notes: tuple[str, ...] = ()
    peak: int | None = None


class Runtime(ABC):
    """A way to run a model. The class attributes say what it is; it has no options."""

    name: ClassVar[str]
    compiler: ClassVar[str | None] = None
    """What compiles the model, as messages call it. What is prepared then stays as the model was at that moment,
    whatever is attached to the model later, and its buffers are its own. None: PyTorch runs the model itself, with
    what is attached to it at every call, and every buffer is seen."""
    exact: ClassVar[bool] = False
    """True: it returns what the model itself returns, bit by bit."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Modules that a plain installation lacks."""

    @property
    def lacking(self) -> list[str]:
        """Those of its packages that are not installed."""
        return missing(*self.packages)

    @abstractmethod
    def prepare(self, model: nn.Module, example: Tensor) -> Prepared:
        """Make `model`, in eval mode and with its reducer attached, ready for batches such as `example`.

        example: (B, 3, H, W) on the model's device, in its precision. The model stays what it was, and its weights are
        shared, not copied. Whatever is raised is told as the compiler's failure.
        """

    def runs_on(self, device: torch.device) -> bool:
        """Whether models on this device can be prepared."""
        return True

    def peak_memory(self, prepared: Prepared, images: Tensor, model: nn.Module) -> int | None:
        """Largest number of bytes in tensors at any moment of a forward (`peak_memory_bytes`); None: nobody knows."""
        return peak_memory_bytes(prepared.forward, images, model)

    def hold(self, models: int) -> AbstractContextManager[None]:
        """Context in which as many variants of a model as that are prepared and called."""
        return nullcontext()


def through_numpy(session: Session, example: Tensor) -> Forward:
    """A session as a forward on tensors, which on a CPU are read where they are."""

    def forward(images: Tensor) -> Tensor:
        return torch.from_numpy(session(images.cpu().numpy())).to(example.device)

    return forward


def frozen_copy(model: nn.Module) -> nn.Module:
    """A copy of the model as it is now, with what is attached to it, sharing the original's weights.

    But for those that the method brought: they leave the original when it is detached.
    """
    handle = handle_of(model)
    own = {id(tensor) for tensor in handle.swapped} if handle else set()
    tensors = [*model.parameters(), *model.buffers()]
    weights: dict[int, object] = {id(tensor): tensor for tensor in tensors if id(tensor) not in own}
    return copy.deepcopy(model, weights)
