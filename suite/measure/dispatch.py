"""What a forward dispatches: its cost by torch's own counter (the second opinion, and the fast one), its kernels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry, shape_wrapper

from suite.attachment.handle import handle_of
from suite.measure.op_handles import FREE, WATCHED, Op, attention_macs, broadcast


def count_macs_fast(model: nn.Module, image: Tensor) -> int:
    """MACs of one forward of (1, 3, H, W) by torch's counter alone: a total in one forward's time, no parts."""
    with quiet_forward(model, image) as image:
        return sum(op.macs for op in dispatched_ops(model, image)[0])


def dispatched_ops(model: nn.Module, *inputs: Tensor) -> tuple[list[Op], dict[str, int]]:
    """Every product of matrices of one forward, in order, and how often what may cost something and is not counted.

    By torch.utils.flop_counter, halved: it counts 2 per multiply-accumulate. The scope of an operator is the names of
    the modules of `model` that were running.
    """
    ops: list[Op] = []
    running: list[str] = []

    def keep(name: str, macs: int, pairs: int = 0) -> None:
        ops.append(Op(tuple(running), name, macs, pairs))

    with (
        _followed(model, running),
        FlopCounterMode(display=False, custom_mapping=_recording(keep)),
        _Others(keep) as others,
        _PairwiseFunctions(keep),
    ):
        model(*inputs)
    return ops, dict(others.unknown)


@contextmanager
def quiet_forward(model: nn.Module, image: Tensor) -> Iterator[Tensor]:
    """Eval mode, nothing that asks for gradients, and the image where and as the model is; all put back afterwards.

    torch's fused encoder layer (a kernel of eval mode alone) is switched off meanwhile: no counter sees inside it.
    """
    handle = handle_of(model)
    modules = [*model.modules(), *(handle.reducer.modules() if handle else ())]
    modes = [(module, module.training) for module in modules]
    # torch's counter stumbles over a parameter that is handed to a module, even without gradients
    learning = [p for module in modules for p in module.parameters(recurse=False) if p.requires_grad]
    fused_encoder = torch.backends.mha.get_fastpath_enabled()
    weight = next(model.parameters(), image)
    try:
        model.eval()
        for parameter in learning:
            parameter.requires_grad_(False)
        torch.backends.mha.set_fastpath_enabled(False)
        with torch.no_grad():
            yield image.to(device=weight.device, dtype=weight.dtype)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused_encoder)
        for module, training in modes:
            module.training = training
        for parameter in learning:
            parameter.requires_grad_(True)


@contextmanager
def _followed(model: nn.Module, running: list[str]) -> Iterator[None]:
    """Keeps the names of the running modules of `model` in a list, outermost first."""

    def enter(name: str) -> Any:
        return lambda *_: running.append(name)

    def leave(*_: Any) -> None:
        running.pop()

    hooks = []
    try:
        for name, module in model.named_modules():
            if name:
                hooks.append(module.register_forward_pre_hook(enter(name)))
                hooks.append(module.register_forward_hook(leave, always_call=True))
        yield
    finally:
        for hook in hooks:
            hook.remove()


# of an operator: name, MACs, and the elements of an elementwise one that meets all pairs
Keep = Callable[..., None]


class _PairwiseFunctions(TorchFunctionMode):
    """Counts what is dispatched as elementwise operators although every pair of rows meets in it."""

    def __init__(self, keep: Keep) -> None:
        super().__init__()
        self.keep = keep

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (F.cosine_similarity, torch.cosine_similarity, F.pairwise_distance, torch.pairwise_distance):
            named = kwargs or {}
            first = args[0] if args else named["x1"]
            second = args[1] if len(args) > 1 else named["x2"]
            self.keep(func.__name__, prod(broadcast(first.shape, second.shape)))
        return func(*args, **(kwargs or {}))


class _Others(TorchDispatchMode):
    """Watches for operators that no counter knows, and for products of pairs in elementwise clothes."""

    def __init__(self, keep: Keep) -> None:
        super().__init__()
        self.keep = keep
        self.unknown: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out, packet = func(*args, **(kwargs or {})), func.overloadpacket
        name = packet.__name__
        if name in WATCHED:
            operands = [arg.numel() for arg in args[:2] if isinstance(arg, Tensor)]
            if len(operands) == 2 and all(elements < out.numel() for elements in operands):
                self.keep(name, 0, out.numel())
        elif name not in FREE and packet not in flop_registry and packet not in _missing_formulas():
            self.unknown[f"aten::{name}"] += 1
        return out


def _recording(keep: Keep) -> dict[Any, Any]:
    """The formulas of torch's counter and those that it lacks, each telling `keep` what it found."""

    def recording(operator: Any, formula: Any) -> Any:
        def counted(*args: Any, **kwargs: Any) -> int:
            flops = formula(*args, **kwargs)
            keep(getattr(operator, "__name__", str(operator)), flops // 2)
            return flops

        vars(counted)["_get_raw"] = True  # it passes on what it is given; the formula makes shapes of it
        return counted

    missing = {operator: shape_wrapper(formula) for operator, formula in _missing_formulas().items()}
    return {operator: recording(operator, formula) for operator, formula in {**flop_registry, **missing}.items()}


def _rows_flop(position: int) -> Any:
    def flop(*shapes: Any, out_shape: Any = None, **_: Any) -> int:
        return 2 * prod(out_shape) * shapes[position][-1]

    return flop


def _attention_flop(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return 2 * attention_macs(query, key, value)


@cache
def _missing_formulas() -> dict[Any, Any]:
    """Operators that torch's counter gives 0 in some releases. It is keyed by operator: nothing is counted twice."""
    attention = ("flash_attention_for_cpu", "flash_attention", "efficient_attention", "cudnn_attention")
    formulas = {f"_scaled_dot_product_{kind}": _attention_flop for kind in attention}
    formulas["_scaled_dot_product_fused_attention_overrideable"] = _attention_flop
    formulas |= dict.fromkeys(("mv", "dot", "vdot", "_cdist_forward", "_euclidean_dist"), _rows_flop(0))
    formulas |= dict.fromkeys(("addmv", "baddbmm_"), _rows_flop(1))
    return {getattr(torch.ops.aten, op): flop for op, flop in formulas.items() if hasattr(torch.ops.aten, op)}


def attention_kernels(model: nn.Module, image: Tensor) -> str | None:
    """Which attention ran in one forward of (B, 3, H, W), with the calls: 'flash x 12', 'explicit x 3 + flash x 9'.

    flash, efficient, cudnn and math are the kernels of `scaled_dot_product_attention`, which chooses by shapes, types
    and whether there is a bias, alike for all methods. Explicit is the softmax of a whole map (B, H, N, N) that
    somebody reads; a class token's row alone is not.
    """
    kernels = _Kernels()
    with quiet_forward(model, image) as image, kernels:
        model(image)
    return " + ".join(f"{name} x {n}" for name, n in sorted(kernels.calls.items())) or None


class _Kernels(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name == "_softmax" and args[0].dim() == 4 and args[0].shape[-2] == args[0].shape[-1]:
            self.calls["explicit"] += 1
        elif name == "_safe_softmax":  # of nothing but the fallback of scaled_dot_product_attention
            self.calls["math"] += 1
        elif name.startswith("_scaled_dot_product_"):
            kind = name.removeprefix("_scaled_dot_product_").removesuffix("_for_cpu")
            self.calls[kind.replace("_attention", "")] += 1
        return func(*args, **(kwargs or {}))
