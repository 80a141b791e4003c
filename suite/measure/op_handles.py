"""What one operator costs in multiply-accumulates: the handles that fvcore's counter is given.

fvcore's own handles miss `scaled_dot_product_attention`, `baddbmm`, `cdist` and `cosine_similarity`, take only the
first operand's batch in a broadcast matmul, and add 5 per element of a normalisation. These count every product
of matrices in full and nothing else, so that the unit is pure multiply-accumulates (1 MAC = 1 FLOP).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isqrt, prod
from typing import Any, NamedTuple

Shape = Sequence[int]


class Op(NamedTuple):
    """One operator as it ran: names of the running modules (outermost first), operator, MACs.

    `pairs` is not cost: the elements of an elementwise operator that meets all pairs of its operands.
    """

    scope: tuple[str, ...]
    name: str
    macs: int
    pairs: int = 0


def broadcast(*shapes: Shape) -> list[int]:
    """Shape that operands of these shapes broadcast to."""
    rank = max(map(len, shapes))
    padded = [[1] * (rank - len(shape)) + list(shape) for shape in shapes]
    return [next((size for size in column if size != 1), 1) for column in zip(*padded)]


def einsum_macs(equation: str, shapes: Sequence[Shape]) -> int:
    """MACs of an einsum contracted from left to right; a step that sums over nothing is an elementwise product."""
    terms, out = _einsum_terms(equation, shapes)
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, shapes):
        for letter, size in zip(term, shape):
            sizes[letter] = max(size, sizes.get(letter, 1))
    total, left = 0, set(terms[0])
    for position, term in enumerate(terms[1:], start=1):
        later = set(out).union(*terms[position + 1 :])
        right = set(term)
        # an index of one operand alone that nobody needs later is summed out before the product
        left, right = left & (right | later), right & (left | later)
        if (left & right) - later:
            total += prod(sizes[letter] for letter in left | right)
        left = (left | right) & later
    return total


def _einsum_terms(equation: str, shapes: Sequence[Shape]) -> tuple[list[str], str]:
    """Index letters of the operands and of the result, ellipses spelt out in capitals counted from the right."""
    operands, arrow, out = equation.replace(" ", "").partition("->")
    terms = operands.split(",")
    spare = [chr(0x100 + i) for i in range(64)]
    widest = 0
    for i, (term, shape) in enumerate(zip(terms, shapes)):
        if "..." in term:
            extra = len(shape) - len(term) + 3
            widest = max(widest, extra)
            terms[i] = term.replace("...", "".join(reversed(spare[:extra])))
    ellipsis = "".join(reversed(spare[:widest]))
    if not arrow:
        letters = "".join(term for term in operands.replace("...", "").split(","))
        out = "..." + "".join(sorted(letter for letter in set(letters) if letters.count(letter) == 1))
    return terms, out.replace("...", ellipsis)


def attention_macs(query: Shape, key: Shape, value: Shape) -> int:
    """Queries (..., N, E) on keys (..., S, E) and values (..., S, V): N·S·(E + V) a head, masks left aside.

    Query heads decide where key heads are fewer (grouped queries).
    """
    return prod(broadcast(query[:-2], key[:-2])) * query[-2] * key[-2] * (query[-1] + value[-1])


def convolution_macs(x: Shape, weight: Shape, out: Shape, transposed: bool = False) -> int:
    """Grouped or not: every output element (input element when transposed) meets prod(weight[1:]) weights."""
    return prod(x if transposed else out) * prod(weight[1:])


def shape_of(value: Any) -> list[int] | None:
    """Sizes of a traced value; None for what is not a tensor of known shape."""
    return list(value.type().sizes()) if value.isCompleteTensor() else None


def _listed(value: Any) -> list[Any]:
    return [shape_of(item) for item in value.node().inputs()]


# (traced inputs, their shapes, shape of the first output) -> MACs
Cost = Callable[[Sequence[Any], Sequence[Any], Shape], int]


def _rows(position: int) -> Cost:
    """Every output element is a sum over the last dimension of input `position`."""
    return lambda _, shapes, out: prod(out) * shapes[position][-1]


def _pairs(_: Sequence[Any], shapes: Sequence[Any], __: Shape) -> int:
    return prod(broadcast(shapes[0], shapes[1]))


COSTS: dict[str, Cost] = {
    **{f"aten::{op}": _rows(0) for op in ("linear", "matmul", "mm", "bmm", "mv", "dot", "vdot", "inner", "cdist")},
    **{f"aten::{op}": _rows(0) for op in ("_cdist_forward", "_euclidean_dist", "linalg_matmul", "linalg_vecdot")},
    **{f"aten::{op}": _rows(1) for op in ("addmm", "addmv", "baddbmm", "baddbmm_")},
    "aten::addbmm": lambda _, shapes, out: prod(out) * shapes[1][0] * shapes[1][2],
    # both operands are prod(kept)·K elements, the result has the kept ones alone
    "aten::tensordot": lambda _, shapes, out: isqrt(prod(shapes[0]) * prod(shapes[1]) * prod(out)),
    "aten::einsum": lambda inputs, _, __: einsum_macs(inputs[0].toIValue(), _listed(inputs[1])),
    "aten::cosine_similarity": _pairs,
    "aten::pairwise_distance": _pairs,
    "aten::_convolution": lambda inputs, shapes, out: convolution_macs(
        shapes[0], shapes[1], out, bool(inputs[6].toIValue())
    ),
    **{
        f"aten::{op}": lambda _, shapes, out: convolution_macs(shapes[0], shapes[1], out)
        for op in ("_convolution_mode", "conv1d", "conv2d", "conv3d")
    },
    **{
        f"aten::{op}": lambda _, shapes, out: convolution_macs(shapes[0], shapes[1], out, transposed=True)
        for op in ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
    },
    **{
        f"aten::{op}": lambda _, shapes, __: attention_macs(*shapes[:3])
        for op in (
            "scaled_dot_product_attention",
            "_scaled_dot_product_attention_math",
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_flash_attention_for_cpu",
            "_scaled_dot_product_efficient_attention",
            "_scaled_dot_product_cudnn_attention",
            "_scaled_dot_product_fused_attention_overrideable",
        )
    },
}


class Recorder:
    """Gives fvcore its handles and keeps every operator in the order of execution.

    fvcore adds up by module; the order tells which block an operator outside any module belongs to.
    """

    def __init__(self) -> None:
        self.ops: list[Op] = []

    def handles(self) -> dict[str, Callable[[list[Any], list[Any]], int] | None]:
        """By operator: a cost, a watch on hidden products of pairs, or None for what is free."""
        return {
            **{op: self._counting(op, cost) for op, cost in COSTS.items()},
            **{f"aten::{op}": self._watching(op) for op in WATCHED},
            **{f"aten::{op}": None for op in FREE},
        }

    def _counting(self, name: str, cost: Cost) -> Callable[[list[Any], list[Any]], int]:
        def handle(inputs: list[Any], outputs: list[Any]) -> int:
            macs = int(cost(inputs, [shape_of(value) for value in inputs], shape_of(outputs[0]) or []))
            self._keep(name, outputs, macs=macs)
            return macs

        return handle

    def _watching(self, name: str) -> Callable[[list[Any], list[Any]], int]:
        """x[:, :, None] * y[:, None], summed later, is a product of matrices in elementwise clothes."""

        def handle(inputs: list[Any], outputs: list[Any]) -> int:
            operands = [shape for shape in map(shape_of, inputs[:2]) if shape is not None]
            elements = prod(shape_of(outputs[0]) or [])
            if len(operands) == 2 and all(prod(shape) < elements for shape in operands):
                self._keep(name, outputs, macs=0, pairs=elements)
            return 0

        return handle

    def _keep(self, name: str, outputs: list[Any], macs: int, pairs: int = 0) -> None:
        scope = tuple(part for part in outputs[0].node().scopeName().split("/") if part)
        self.ops.append(Op(scope, name.removeprefix("aten::"), macs, pairs))


_NORMS = """layer_norm rms_norm _fused_rms_norm group_norm batch_norm instance_norm native_layer_norm norm
    linalg_vector_norm linalg_norm frobenius_norm normalize"""
_ELEMENTWISE = """abs absolute add addcdiv addcmul neg negative exp expm1 exp2 log log1p log2 log10 pow sqrt
    rsqrt square reciprocal sigmoid logsigmoid log_sigmoid softplus tanh sin cos tan erf gelu relu relu6 silu
    mish elu selu leaky_relu hardtanh hardswish hardsigmoid prelu glu div divide true_divide multiply subtract
    floor_divide fmod remainder floor ceil round trunc frac sign sgn clamp clamp_min clamp_max clip maximum
    minimum fmax fmin lerp where logical_and logical_or logical_not logical_xor bitwise_and bitwise_or
    bitwise_xor bitwise_not __and__ __or__ __xor__ __lshift__ __rshift__ bitwise_left_shift
    bitwise_right_shift isnan isinf isfinite isclose nan_to_num eq ne lt le gt ge equal masked_fill threshold
    logit deg2rad atan atan2 logaddexp dropout feature_dropout native_dropout alpha_dropout bernoulli rand
    randn rand_like randn_like randint randperm multinomial normal uniform exponential gumbel_softmax"""
_REDUCTIONS = """sum mean nansum nanmean var std var_mean std_mean prod cumsum cumprod cummax cummin
    logcumsumexp max min amax amin aminmax argmax argmin median nanmedian mode all any count_nonzero logsumexp
    softmax log_softmax _softmax _log_softmax bincount histc adaptive_avg_pool1d adaptive_avg_pool2d
    adaptive_max_pool1d adaptive_max_pool2d avg_pool1d avg_pool2d max_pool1d max_pool2d trace"""
_ORDER = """sort argsort topk kthvalue msort unique _unique2 unique_dim unique_consecutive searchsorted
    bucketize nonzero nonzero_numpy isin"""
_MOVES = """gather scatter scatter_add scatter_reduce index index_select index_put index_add index_copy
    index_fill index_reduce masked_select masked_scatter take take_along_dim put embedding one_hot cat concat
    stack hstack vstack split split_with_sizes chunk tensor_split unbind select slice narrow view view_as
    reshape reshape_as flatten unflatten permute transpose swapaxes swapdims movedim t numpy_T mT mH adjoint
    squeeze unsqueeze expand expand_as broadcast_to broadcast_tensors repeat repeat_interleave tile roll flip
    rot90 pad constant_pad_nd reflection_pad2d replication_pad2d tril triu tril_indices triu_indices diag
    diagonal diag_embed diagonal_scatter diagflat select_scatter slice_scatter unfold im2col col2im fold
    pixel_shuffle pixel_unshuffle contiguous clone copy detach alias to type_as float half double int long
    bool _cast_Float lift_fresh set_ as_strided meshgrid cartesian_prod combinations upsample_nearest1d
    upsample_nearest2d upsample_linear1d upsample_bilinear2d upsample_bicubic2d _upsample_bicubic2d_aa
    _upsample_bilinear2d_aa grid_sampler resolve_conj resolve_neg real"""
_MADE = """arange linspace empty empty_like zeros zeros_like ones ones_like full full_like new_empty new_zeros
    new_ones new_full eye scalar_tensor tensor fill zero size numel dim len is_floating_point item Int Float
    Bool ScalarImplicit IntImplicit FloatImplicit Implicit device dtype __getitem__ __contains__ __isnot__
    __is__ _set_item append warn _shape_as_tensor sym_size"""

_KERNELS = """_unsafe_view _reshape_alias _to_copy _local_scalar_dense native_batch_norm native_group_norm
    _native_batch_norm_legit _native_batch_norm_legit_no_training unsafe_split unsafe_split_with_sizes
    unsafe_chunk _index_put_impl _foreach_copy _upsample_nearest_exact2d promote_types
    max_pool2d_with_indices _adaptive_avg_pool2d"""

_NAMES = f"{_NORMS} {_ELEMENTWISE} {_REDUCTIONS} {_ORDER} {_MOVES} {_MADE} {_KERNELS}".split()
WATCHED = ("mul", "sub", "rsub")
FREE: frozenset[str] = frozenset(_NAMES) | frozenset(f"{name}_" for name in [*_NAMES, "mul", "sub"])
"""Operators that are free by convention: no product of matrices in them (in-place forms included)."""
