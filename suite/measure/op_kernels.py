"""What one operator costs a GPU: kernels that are launched, bytes that move, multiply-accumulates."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, prod
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from suite.measure.kernels import ATTENTION, BATCHED, BIASED, PRODUCT, Kernel
from suite.measure.op_handles import attention_macs

LAUNCHES = {
    **dict.fromkeys(("sort", "argsort", "msort"), 4),
    **dict.fromkeys(("topk", "kthvalue", "masked_fill", "scatter", "scatter_add", "scatter_reduce"), 2),
    **dict.fromkeys(("index_add", "index_copy", "index_fill", "index_put", "index_reduce", "slice_scatter"), 2),
    **dict.fromkeys(("select_scatter", "masked_scatter", "constant_pad_nd", "eye"), 2),
}
"""Kernels of what takes more than one: a sort moves, counts, and orders; an out-of-place write copies first."""

UNSEEN = {
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize_", "set_"),
    *("detach", "alias", "lift_fresh", "_unsafe_view"),
}
"""What makes or renames memory and launches nothing; views are told by their aliasing."""

HOST_READS = {
    "_local_scalar_dense",
    "nonzero",
    "equal",
    "is_nonzero",
    "masked_select",
    "unique_consecutive",
    "_unique2",
}
"""What the CPU waits for."""

ROWS_READ = {"gather", "index_select", "index", "take", "embedding"}
"""Of their first operand they read as much as they write."""

ROWS_WRITTEN = {"scatter_", "scatter_add_", "scatter_reduce_", "index_add_", "index_copy_", "index_put_", "put_"}
"""Of what they change they touch as much as they are given."""

COPIES = "_foreach_copy_"
"""Many tensors in one kernel, which takes at most so many of them, and so many blocks of so many elements."""
TENSORS_A_COPY, BLOCKS_A_COPY, ELEMENTS_A_BLOCK = 64, 320, 65536

PRODUCTS = {"mm", "addmm", "mv", "addmv", "convolution", "_convolution"}
BATCHES = {"bmm", "baddbmm", "baddbmm_"}


def kernel_of(func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> Kernel | None:
    """What the operator `func` costs that was called with these and returned `out`; None where it launches nothing."""
    name = func.overloadpacket.__name__
    results = [leaf for leaf in tree_leaves(args[0] if name == COPIES else out) if isinstance(leaf, Tensor)]
    if name in HOST_READS:
        return Kernel(name, 1, 0, host_read=True)
    if name in UNSEEN or is_view(func) or not any(result.numel() for result in results):
        return None
    operands = [leaf for leaf in tree_leaves((args, {**kwargs, "out": None})) if isinstance(leaf, Tensor)]
    macs, kind = arithmetic(name, args, operands, results)
    return Kernel(name, launches(name, args), moved(name, args, operands, results), macs, kind)


def is_view(func: Any) -> bool:
    """Its result is memory of its operand, which it does not change."""
    returns = [value.alias_info for value in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in returns)


def launches(name: str, args: Sequence[Any]) -> int:
    if name in ("convolution", "_convolution"):
        return 1 + (args[2] is not None)
    if name == COPIES:
        blocks = sum(ceil(tensor.numel() / ELEMENTS_A_BLOCK) for tensor in args[0])
        return max(ceil(len(args[0]) / TENSORS_A_COPY), ceil(blocks / BLOCKS_A_COPY))
    return LAUNCHES.get(name, 1)


def moved(name: str, args: Sequence[Any], operands: list[Tensor], results: list[Tensor]) -> int:
    """Bytes: every operand is read and every result written once, expanded dimensions not counted again."""
    read, written = [extent(tensor) for tensor in operands], [extent(tensor) for tensor in results]
    if name in ROWS_READ:
        read[0] = min(read[0], written[0])
    elif name in ROWS_WRITTEN:
        given = sum(read[1:])
        rows = max(read[1:], default=0)
        return given + 2 * rows
    elif name in ("fill_", "zero_", "copy_", COPIES):
        read = read[len(results) :]
    return sum(read) + sum(written)


def extent(tensor: Tensor) -> int:
    """Bytes of the different elements of a tensor: a dimension of stride 0 repeats the same ones."""
    sizes = [int(size) for size, stride in zip(tensor.shape, tensor.stride()) if stride]
    return prod(sizes) * tensor.element_size() if tensor.numel() else 0


def arithmetic(name: str, args: Sequence[Any], operands: list[Tensor], results: list[Tensor]) -> tuple[int, str]:
    """Multiply-accumulates, and the units that do them."""
    if name in PRODUCTS or name in BATCHES:
        first = operands[1] if name.startswith(("add", "badd")) else operands[0]
        if "convolution" in name:
            weight = args[1]
            return results[0].numel() * prod(weight.shape[1:]), PRODUCT
        return results[0].numel() * first.shape[-1], BATCHED if name in BATCHES else PRODUCT
    if name.startswith(("scaled_dot_product", "_scaled_dot_product")):
        biased = len(operands) > 3
        return attention_macs(*(list(tensor.shape) for tensor in operands[:3])), BIASED if biased else ATTENTION
    if name == "_cdist_forward":
        return results[0].numel() * operands[0].shape[-1], BATCHED
    return 0, ""
