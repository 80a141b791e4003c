"""What a forward dispatches: its cost by torch's own counter (the second opinion, and the fast one), its kernels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from suite.handle import handle_of
from suite.measure.op_handles import attention_macs, broadcast


def count_macs_fast(model: nn.Module, image: Tensor) -> int:
    """MACs of one forward of (1, 3, H, W) by torch's counter alone: a total in one forward's time, no parts."""
    with quiet_forward(model, image) as image:
        return dispatched_macs(model, image)


def dispatched_macs(model: nn.Module, image: Tensor) -> int:
    """torch.utils.flop_counter's figure for one forward, halved: it counts 2 per multiply-accumulate."""
    with (
        FlopCounterMode(display=False, custom_mapping=_missing_formulas()) as counter,
        _PairwiseFunctions() as pairwise,
    ):
        model(image)
    return counter.get_total_flops() // 2 + pairwise.macs


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


class _PairwiseFunctions(TorchFunctionMode):
    """Counts what is dispatched as elementwise operators although every pair of rows meets in it."""

    macs = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (F.cosine_similarity, torch.cosine_similarity, F.pairwise_distance, torch.pairwise_distance):
            named = kwargs or {}
            first = args[0] if args else named["x1"]
            second = args[1] if len(args) > 1 else named["x2"]
            self.macs += prod(broadcast(first.shape, second.shape))
        return func(*args, **(kwargs or {}))


def _rows_flop(position: int) -> Any:
    def flop(*shapes: Any, out_shape: Any = None, **_: Any) -> int:
        return 2 * prod(out_shape) * shapes[position][-1]

    return flop


def _attention_flop(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return 2 * attention_macs(query, key, value)


def _missing_formulas() -> dict[Any, Any]:
    """Operators that torch's counter gives 0 in some releases. It is keyed by operator: nothing is counted twice."""
    attention = ("flash_attention_for_cpu", "flash_attention", "efficient_attention", "cudnn_attention")
    formulas = {f"_scaled_dot_product_{kind}": _attention_flop for kind in attention}
    formulas["_scaled_dot_product_fused_attention_overrideable"] = _attention_flop
    formulas |= dict.fromkeys(("mv", "dot", "vdot", "_cdist_forward", "_euclidean_dist"), _rows_flop(0))
    formulas["addmv"] = _rows_flop(1)
    return {getattr(torch.ops.aten, op): flop for op, flop in formulas.items() if hasattr(torch.ops.aten, op)}


def attention_kernels(model: nn.Module, image: Tensor) -> str | None:
    """Which attention ran in one forward of (B, 3, H, W), with the calls: 'flash x 12', 'explicit x 3 + flash x 9'.

    Explicit is the softmax of a whole map (B, H, N, N), `scaled_dot_product_attention`'s own fallback included; a
    class token's row alone is not.
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
        elif name.startswith("_scaled_dot_product_"):
            kind = name.removeprefix("_scaled_dot_product_").removesuffix("_for_cpu")
            self.calls[kind.replace("_attention", "")] += 1
        return func(*args, **(kwargs or {}))
