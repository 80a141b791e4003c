"""Which group every patch of an image is in after every block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from suite.attachment.handle import Handle
from suite.errors import RequestError
from suite.reducers.signals import Signals
from suite.tokens.history import Step
from suite.tokens.state import Tokens


@dataclass(frozen=True)
class TokenMaps:
    """What became of the patches of B images, block by block.

    owners: (B, P) int16 (int32 for P > 32767) after each block, of each of the P original patches: the place, among the
        patch tokens, of the token that stands for it; -1: it was dropped, or merged into a prefix token.
    grid: (h, w) rows and columns of the patches; P = h * w, row by row.
    counts: (depth + 1,) int64 tokens that enter the first block and leave each, prefix tokens and padding included.
    present: (B, depth + 1) int64, the same of each image, padding left out: less than `counts` where a method takes
        more out of one image than of another.
    """

    owners: list[np.ndarray]
    grid: tuple[int, int]
    counts: np.ndarray
    present: np.ndarray

    def groups(self, image: int, block: int) -> np.ndarray:
        """(h, w) owners of one image's patches after `block`, from 0."""
        return self.owners[block][image].reshape(self.grid)


@torch.no_grad()
def token_maps(handle: Handle, images: Tensor) -> TokenMaps:
    """One forward of preprocessed `images` (B, 3, H, W), of the model's device and type, through an attached `handle`.

    Raises RequestError where patches have no owners: while tokens are merged or pruned softly (training), for methods
    whose tokens are mixtures of all patches, and where every block gives its tokens back.
    """
    name, model = handle.reducer.name, handle.model
    if not handle.attached:
        raise RequestError(f"reducer {name!r} is not attached; attach it before its token groups are asked for")
    if handle.restoring in ("per_block", "per_branch"):
        which = (
            "with restore=per_block every block" if handle.restoring == "per_block" else "every branch of a denoiser"
        )
        raise RequestError(f"{which} gives its tokens back, so there are no groups to show")
    after: dict[int, Tokens] = {}

    def remember(module: nn.Module, arguments: tuple[Any, ...], result: Any) -> None:
        if isinstance(signals := arguments[2], Signals):  # else it is the image that was made smaller
            after[signals.block] = getattr(result, "tokens", result)

    watching = handle.reducer.register_forward_hook(remember)
    try:
        last = handle.encode(model, images)
    finally:
        watching.remove()
    if last.soft:
        raise RequestError(f"reducer {name!r} merges or prunes softly (training), so no patch has an owner; use eval()")
    if not handle.reducer.exact_groups and any(step.assigned is not None for step in last.steps):
        raise RequestError(f"the tokens of reducer {name!r} are mixtures of all patches; they form no groups")
    prefix, batch = last.num_prefix, len(images)
    owner = torch.arange(last.origin, device=last.x.device).expand(batch, -1)
    there = torch.full((batch,), last.origin, device=last.x.device)
    owners, present, done = [], [there], 0
    for block in range(len(handle.trace)):
        if block in after:
            owner = compose_owners(owner, after[block].steps[done:])
            done, there = len(after[block].steps), after[block].counts
        owners.append(among_patches(owner, prefix))
        present.append(there)
    return TokenMaps(
        owners=owners,
        grid=handle.images.grid((images.shape[-2], images.shape[-1])),
        counts=np.array([last.origin, *handle.token_counts]),
        present=torch.stack(present, 1).cpu().numpy(),
    )


def compose_owners(owner: Tensor, steps: tuple[Step, ...]) -> Tensor:
    """(B, N0) owners after further `steps`; what has none gets none."""
    for step in steps:
        moved = step.index_map().gather(1, owner.clamp(min=0))
        owner = torch.where(owner < 0, owner, moved)
    return owner


def among_patches(owner: Tensor, num_prefix: int) -> np.ndarray:
    """(B, P) owners counted over patch tokens alone, -1 for none, from those of all N0 tokens."""
    patches = (owner[:, num_prefix:] - num_prefix).clamp(min=-1)
    return patches.cpu().numpy().astype(np.int16 if patches.shape[1] <= np.iinfo(np.int16).max else np.int32)
