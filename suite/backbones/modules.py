"""What others have put on a module: hooks, a forward of its own, weights that are more than tensors.

A reduced block runs in pieces, and a piece may be taken apart further. That is allowed where a module is nothing but
what its class says; otherwise it is called as a whole, so that whatever was put on it does its work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

HOOKS = "_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks"
COUNTERS = "fvcore.", "suite.measure."  # whose hooks only watch: what they count has to be what runs without them
TENSORS = Tensor, nn.Parameter, FakeTensor


def is_plain(layer: nn.Module) -> bool:
    """The layer is x W' + b of the tensors that it shows, and no more: no adapter, no quantised weights, no hook.

    Then a few of its rows, or more rows beside them, may be multiplied without calling it.
    """
    if type(layer) is not nn.Linear or is_hooked(layer) or has_own_forward(layer):
        return False
    return type(layer.weight) in TENSORS and type(layer.bias) in (*TENSORS, type(None))


def has_own_forward(module: nn.Module) -> bool:
    """Its forward was replaced on this one module, as some libraries do, and is not its class's."""
    return "forward" in vars(module)


def is_hooked(module: nn.Module) -> bool:
    """It has hooks, other than those of our counters."""
    # asked several times a block, so the usual answer comes first, and quickly
    if not (module._forward_pre_hooks or module._forward_hooks or module._backward_pre_hooks or module._backward_hooks):
        return False
    return any(_listens(hook) for kind in HOOKS for hook in getattr(module, kind).values())


def call_as(module: nn.Module, forward: Callable[..., Any], *inputs: Any) -> Any:
    """`module(*inputs)` with `forward` in place of its own: its hooks are called, with the module itself.

    By a stand-in that shares all that the module has, so that forwards of several threads do not meet.
    """
    if not is_hooked(module):
        return forward(*inputs)
    stand_in = object.__new__(type(module))
    hooks = {
        kind: {key: _with(module, hook) for key, hook in getattr(module, kind).items() if _listens(hook)}
        for kind in HOOKS
    }
    vars(stand_in).update({**vars(module), **hooks, "forward": forward, "_compiled_call_impl": None})
    return stand_in(*inputs)


def _listens(hook: Callable[..., Any]) -> bool:
    return not str(getattr(hook, "__module__", "")).startswith(COUNTERS)


def _with(module: nn.Module, hook: Callable[..., Any]) -> Callable[..., Any]:
    return lambda _, *seen: hook(module, *seen)
