"""What a reducer or a model has about it that keeps them apart: refused in one line when a reducer is attached. And
what a method does otherwise than it has declared."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from suite.backbones.block import BlockTrace, refuse_hooks
from suite.backbones.mixin import Reduced
from suite.backbones.modules import has_own_forward, is_hooked
from suite.errors import RequestError
from suite.reducers.base import Reducer, acts_in_blocks
from suite.reducers.signals import BlockParts
from suite.tokens.layout import Layout


def check_fit(reducer: Reducer, layout: Layout, restoring: str | None) -> None:
    """RequestError for a method that has nothing to do, or nothing to go by, on such a model."""
    check_class_token(reducer, layout)
    check_site(reducer, restoring)


def check_class_token(reducer: Reducer, layout: Layout) -> None:
    """RequestError for a method that selects by class attention on a model without a class token."""
    if reducer.needs_class_token and not layout.num_class:
        raise RequestError(
            f"reducer {reducer.name!r} selects by class attention, but the model has no class token; "
            "use a method that needs none"
        )


def check_site(reducer: Reducer, restoring: str | None) -> None:
    """RequestError for a method that takes tokens out where a block that gives them back has nothing left to do."""
    if restoring == "per_block" and reducer.site == "after_block":
        raise RequestError(
            f"reducer {reducer.name!r} takes tokens out at the end of a block, so restore=per_block would give them "
            "back at once; use before_decoder or after_decoder"
        )


def check_scope(reducer: Reducer, restoring: str | None) -> None:
    """RequestError for a method that has nothing to do in a block whose tokens are not restored after each branch."""
    if restoring != "per_branch" and not acts_in_blocks(type(reducer)):
        raise RequestError(
            f"reducer {reducer.name!r} acts in the branches of a denoiser's blocks; other models have none of these"
        )


def check_called(model: nn.Module, blocks: Sequence[BlockParts], mixin: type[Reduced]) -> None:
    """RequestError for hooks and forwards of others that a reduced model would pass by, on the way to its blocks.

    Hooks on the model, on blocks and on layers are called. mixin: whose methods take the place of the model's.
    """
    for name in vars(mixin).keys() & vars(model).keys():
        if name != "forward" and callable(vars(model)[name]):
            raise RequestError(
                f"{type(model).__name__!r} has a {name} of its own set on it, which a reducer would pass by; take it "
                "off"
            )
    names = {module: name for name, module in model.named_modules()}
    for parts in blocks:
        refuse_hooks(parts)
        path = names[parts.block].split(".")
        between = [model.get_submodule(".".join(path[:end])) for end in range(1, len(path))]
        for module in between:
            if is_hooked(module):
                raise RequestError(
                    f"a hook on {names[module]!r} would not be called while a reducer is attached, for blocks are "
                    "run one by one; put it on a block or on the model, or detach the reducer first"
                )
        for module in (model, *between, parts.block, parts.attention, *parts.in_pieces.values()):
            if has_own_forward(module):
                raise RequestError(
                    f"{names[module] or type(model).__name__!r} has a forward of its own set on it, which a reducer "
                    "would pass by; take it off, or attach the reducer first"
                )


def unplanned(planned: Sequence[int] | None, trace: Sequence[BlockTrace]) -> str:
    """The first block that passed on another number of tokens than `planned`, and what the method may have left
    undeclared; '' where all went as planned or nobody could plan."""
    if planned is None or list(planned) == [block.leaving for block in trace]:
        return ""
    block, wanted, seen = next(
        (i, p, seen) for i, (p, seen) in enumerate(zip(planned, trace, strict=True)) if p != seen.leaving
    )
    if seen.leaving > wanted:
        most = f"take more than {seen.entering - seen.leaving} of {seen.entering} tokens out"
        remedy = f"if it cannot {most}, it has to declare so: def capacity(self, count, num_prefix)"
    else:
        remedy = "if a step makes tokens of those it takes out, it has to declare so: def leaving(self, count, amount)"
    return f"block {block} passed on {seen.leaving} tokens, but the rate plans {wanted}; {remedy}"
