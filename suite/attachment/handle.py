"""Attach a reducer to a model in place, and take it off again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from suite.attachment.checks import check_called, check_fit, check_scope, unplanned
from suite.attachment.seen_images import SeenImages
from suite.attachment.shared_prefix import SharedPrefix
from suite.attachment.weight_swap import WeightSwap
from suite.backbones import backbone_of
from suite.backbones.base import BackboneFamily, Decoder
from suite.backbones.block import BlockTrace, checkpointed_block, reducible_block
from suite.backbones.fused import FusedProjections
from suite.backbones.mixin import reduced_class
from suite.errors import RequestError
from suite.rates.grid_lines import Grid
from suite.rates.rate import Rate
from suite.rates.schedule import Schedule, resolve
from suite.reducers.base import Reducer
from suite.reducers.signals import BlockCall, BlockParts
from suite.tokens.layout import Layout
from suite.tokens.places import Places
from suite.tokens.state import Tokens

SLOT = "_reducerbench"


def handle_of(model: nn.Module) -> Handle | None:
    """The handle of the reducer that is attached to `model`, or to its backbone, now."""
    handle: Handle | None = vars(backbone_of(model)).get(SLOT)
    return handle


class Handle:
    """A reducer at a rate on a backbone. Attach and detach as you like: nothing is copied, nothing left behind.

    decoder: what reads the backbone's tokens and has to be told how many there are; None where nothing does.
    """

    def __init__(
        self,
        model: nn.Module,
        family: BackboneFamily,
        reducer: Reducer,
        rate: Rate | None,
        decoder: Decoder | None = None,
    ) -> None:
        self.model, self.family, self.reducer, self.decoder = model, family, reducer, decoder
        self.layout: Layout = family.layout(model)
        self.images = SeenImages(family, model, reducer)
        self.rate = rate
        self.images.check()
        self._last: tuple[Tokens, list[BlockTrace], Grid] | None = None
        self._fused = FusedProjections()
        self._given_out = WeakTensorKeyDictionary()
        self._held: tuple[Tensor, Tokens] | None = None
        self.prefix: SharedPrefix | None = None
        self._swap = WeightSwap(model)
        check_scope(reducer, self.restoring)
        if self.reduces:
            check_fit(reducer, self.layout, self.restoring)
            try:
                reducer.build(self.layout, self.schedule(self.layout.tokens).num_stages)
            except Exception as error:  # also what torch says of sizes that no memory holds
                what = " ".join(str(error).split())
                raise RequestError(f"reducer {reducer.name!r} cannot be used on this model: {what}") from error

    def __getstate__(self) -> dict[str, object]:
        # features may hold a graph, which cannot be copied; all else that is of forwards is made again by them
        return {**self.__dict__, "_last": None, "_fused": None, "_given_out": None, "_held": None, "prefix": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._fused, self._given_out = FusedProjections(), WeakTensorKeyDictionary()

    @property
    def rate(self) -> Rate | None:
        """May be set to another, of the same number of stages where the method learns something per stage."""
        return self._rate

    @rate.setter
    def rate(self, rate: Rate | None) -> None:
        self._rate = rate
        self._schedules: dict[tuple[int, Grid | None, bool], Schedule] = {}
        self.images.rate = rate

    def schedule(self, tokens: int, grid: Grid | None = None) -> Schedule:
        """The rate resolved for sequences of `tokens` tokens, prefix included, of which the patches stand in `grid`.

        grid: default that of the model's own images, where those have so many tokens.
        """
        if grid is None and tokens == self.layout.tokens:
            grid = self.layout.grid
        key = tokens, grid if self.reducer.keeps_grid else None, self.restoring == "per_block"
        if key not in self._schedules:
            shape = {"depth": self.layout.depth, "tokens": tokens, "num_prefix": self.layout.num_prefix}
            self._schedules[key] = resolve(self.rate, self.reducer, **shape, restored_per_block=key[2], grid=grid)
        return self._schedules[key]

    @property
    def restoring(self) -> str | None:
        """When the model wants all its tokens back: see `Tokens.restoring`; None where it never does."""
        return "per_block" if self.reducer.restores_per_block else getattr(self.model, "restoring", None)

    @property
    def attached(self) -> bool:
        return handle_of(self.model) is self

    def attach(self) -> Handle:
        if not self.attached:
            if (other := handle_of(self.model)) is not None:
                raise RequestError(f"the model has reducer {other.reducer.name!r} attached; detach it first")
            check_called(self.model, self.family.blocks(self.model), self.family.mixin)
            like = next(self.model.parameters())
            self.reducer.to(device=like.device, dtype=like.dtype).train(self.model.training)
            if self.decoder is not None:
                self.decoder.remember()
            self._swap.bring()
            kind: Any = type(self.model)  # mypy takes a class of torch's for one of its instances, which is no key
            mixin: Any = self.family.mixin
            self.model.__class__ = reduced_class(mixin, kind)
            self.model.__dict__[SLOT] = self
        return self

    def detach(self) -> None:
        """The model is exactly what it was. Detaching twice is allowed."""
        if self.attached:
            del self.model.__dict__[SLOT]
            self.model.__class__ = type(self.model).__bases__[1]
            self._swap.take_out()
            if self.decoder is not None:
                self.decoder.restore()

    def bring(self, weights: Mapping[str, Tensor]) -> None:
        """Weights of the backbone that were trained with the method, by name: the model has them while attached.

        RequestError for those that do not fit.
        """
        if self.attached:
            raise RequestError("weights are brought before a reducer is attached; detach it first")
        self._swap = WeightSwap(self.model, weights)

    @property
    def swapped(self) -> list[Tensor]:
        """Tensors of the model whose values are this method's own while it is attached."""
        return self._swap.places

    def __enter__(self) -> Handle:
        return self.attach()

    def __exit__(self, *exception: object) -> None:
        self.detach()

    @property
    def proportional_attention(self) -> float:
        """What log size is taken times as a bias of attention; where the reducer leaves it open, as for the model."""
        asked = self.reducer.proportional_attention
        return getattr(self.model, "proportional_attention_off_the_shelf", True) if asked is None else asked

    def encode(self, model: nn.Module, x: Tensor) -> Tokens:
        """Images (B, 3, H, W) through embedding and blocks. All state is local, so forwards do not see each other."""
        x, embedding = self.images.of(x, model)
        grid = self.family.grid(model, (int(x.shape[-2]), int(x.shape[-1])))
        blocks, reducer = self.family.blocks(model), self.reducer
        tokens, first = self._start(embedding, x, blocks, grid)
        carried = tokens.carried
        schedule = self.schedule(tokens.count, grid)
        amounts, depth, called = schedule.amounts, len(schedule.amounts), schedule.called(reducer)
        traces, observed = [BlockTrace.plain(tokens.count)] * first, None
        again = self.family.checkpoints(model) and torch.is_grad_enabled() and not torch.jit.is_tracing()
        run = checkpointed_block if again else reducible_block
        fused = self._fused.of([parts for parts in blocks[first:] if called[parts.index]], reducer)
        for block, parts in enumerate(blocks[first:], start=first):
            call = BlockCall(
                amount=amounts[block],
                called=called[block],
                depth=depth,
                planned=schedule.counts[block],
                stage=schedule.stages[block],
                plan=schedule.plan,
                fused=fused.get(block),
                observed=observed,
                grid=grid,
                proportional=self.proportional_attention,
                watch=reducer.reads_previous and block + 1 < depth and called[block + 1],
                grids=schedule.grids[block] if schedule.grids else None,
                threshold=schedule.thresholds[block] if schedule.thresholds else None,
            )
            tokens, trace, observed = run(parts, tokens, reducer, call)
            traces.append(trace)
            if self.restoring == "per_block":
                tokens = replace(tokens.give_back(), carried=carried)
        self._last = (tokens, traces, grid)
        return tokens

    def _start(self, model: nn.Module, x: Tensor, blocks: list[BlockParts], grid: Grid) -> tuple[Tokens, int]:
        """The tokens of images `x`, and the block that they are about to enter: past what is shared of this batch."""

        def start(images: Tensor) -> Tokens:
            return self._tokens(*self.family.start(model, images))

        unlike = model.training or self._swap  # other weights give other tokens
        if self.prefix is None or self.prefix.images is not x or unlike:
            tokens = start(x)
            return self._begun(tokens, tokens.x, grid), 0
        embedded = self.prefix.entering(0, start, blocks)
        called = self.schedule(embedded.count, grid).called(self.reducer)
        first = next((block for block, acts in enumerate(called) if acts), len(called))
        if self.reducer.reads_previous and 0 < first < len(called):
            first -= 1
        shared = self.prefix.entering(first, start, blocks)
        x = shared.x.clone() if first < len(called) else shared.x  # others must not see what works in place
        return self._begun(self._tokens(x, shared.places), embedded.x, grid), first

    def _begun(self, tokens: Tokens, embedded: Tensor, grid: Grid) -> Tokens:
        """With what the method carries along, where it does and some block calls it."""
        if self.reducer.carries and any(self.schedule(tokens.count, grid).called(self.reducer)):
            begun: Tokens = self.reducer("begin", tokens, embedded, grid)
            return begun
        return tokens

    def _tokens(self, x: Tensor, places: Places | None) -> Tokens:
        reducer, places = self.reducer, places and replace(places, rule=self.reducer.group_position)
        counted = bool(reducer.reads_sizes or reducer.weighted_pooling or self.proportional_attention)
        return replace(Tokens.start(x, self.layout.num_prefix, self.restoring, counted), places=places)

    def give_out(self, features: Tensor, tokens: Tokens) -> None:
        """A user gets `features` of these tokens; what comes back is recognised by `behind`."""
        if torch.compiler.is_compiling():  # no compiler knows weak references, so the last are held
            self._held = features, tokens
        else:
            self._given_out[features] = tokens.with_features(tokens.x.detach())  # which may be `features`, the key

    def behind(self, features: Tensor) -> Tokens | None:
        """The tokens whose features a forward gave out, an earlier one, too; None for any other tensor."""
        if self._held is not None and self._held[0] is features:
            return self._held[1]
        return self._given_out.get(features)

    @property
    def reduces(self) -> bool:
        """Some block takes tokens out."""
        layout = self.images.layout()
        return any(self.schedule(layout.tokens, layout.grid).amounts)

    def moved(self) -> None:
        """Weights were: memory beside them is let go of."""
        self._fused.clear()
        self.images.moved()

    def forget(self) -> None:
        """Let go of the last forward's features; in a sweep, those of all cells would fill the memory."""
        self._last = self._held = None

    @property
    def tokens(self) -> Tokens | None:
        """State after the last block of the last forward: x (B, N, C), size (B, N) or None, owner (B, N0)."""
        return self._last[0].with_sizes() if self._last else None

    @property
    def trace(self) -> list[BlockTrace]:
        """Token counts of the last forward, per block; what parts of the block ran on them."""
        return self._last[1] if self._last else []

    @property
    def token_counts(self) -> list[int]:
        """Tokens that left each block in the last forward, prefix included."""
        return [trace.leaving for trace in self.trace]

    @property
    def planned_counts(self) -> list[int] | None:
        """What `token_counts` has to be: of the last forward, or at the model's own image size before the first.

        None where that depends on the image. Soft merging and pruning (training) keep all tokens.
        """
        layout = self.images.layout()
        entering, grid = (self.trace[0].entering, self._last[2]) if self._last else (layout.tokens, layout.grid)
        schedule = self.schedule(entering, grid)
        if self.reducer.input_dependent and any(schedule.amounts):
            return None
        soft = self._last[0].soft if self._last else self.reducer.soft
        return [entering] * self.layout.depth if soft else list(schedule.counts)

    @property
    def unplanned(self) -> str:
        """The first block of the last forward that passed on another number of tokens than planned, and the declaration
        that the method's author may have left out; '' where all went as planned.
        """
        return unplanned(self.planned_counts, self.trace)
