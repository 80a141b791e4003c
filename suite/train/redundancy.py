"""What AdaMerge takes for usual: mean and deviation of every block's redundancy, over images, in two passes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from suite.attachment.attach import attach
from suite.contract.task import Reader, Sample, collate
from suite.errors import RequestError
from suite.reducers.adamerge import COSINES, AdaMerge, redundancy_of
from suite.sweep.ahead import read_ahead
from suite.train.session import Session


class WatchedAdaMerge(AdaMerge):
    """AdaMerge that notes every image's S, in all blocks; without statistics it takes nothing out."""

    orders_tokens = True  # else the hook would not be called in blocks that the rate leaves alone

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.noted: dict[int, list[Tensor]] = defaultdict(list)

    def most(self, best, first, block, r):
        self.noted[block].append(redundancy_of(best, first)[:, 0].double().cpu())
        return super().most(best, first, block, r) if self.trained else 0


def measure_statistics(session: Session, samples: Sequence[Sample], batch_size: int) -> dict[str, Tensor]:
    """`mean` and `deviation` (L,) float64 of S over the images of samples, with the reduction of a pass before active;
    `cosines`, whether salience is of those.

    Source: Lee, Go and Choi, 2026, arXiv 2605.27465: two passes, for a third oscillates. In the first nothing is taken
    out. The deviation is that of these images, divided by their number. Where a sample is cut into windows, each is an
    image. The session's reducer is not to be attached meanwhile; the model is in evaluation mode, in its own precision.
    RequestError for a sample that cannot be read, and for a block in which S does not vary.
    """
    statistics: dict[str, Tensor] = {}
    for number in (1, 2):
        seen = watch(session, samples, batch_size, statistics, f"pass {number} of 2")
        deviation, mean = torch.std_mean(seen, dim=1, correction=0)
        if not bool((deviation > 0).all()):
            block = int(deviation.argmin())
            raise RequestError(
                f"the redundancy of block {block} is the same in all {seen.shape[1]} images of pass {number}, so none "
                f"has more than is usual; take more images (share, least) or a rate below {session.rate}"
            )
        statistics = {"mean": mean, "deviation": deviation, COSINES: torch.tensor(session.reducer.salience == COSINES)}
    return statistics


@torch.no_grad()
def watch(
    session: Session, samples: Sequence[Sample], batch_size: int, statistics: dict[str, Tensor], label: str = ""
) -> Tensor:
    """(L, n) float64: S of every block and image, with the reduction that `statistics` bring, or without."""
    watched, model = WatchedAdaMerge(**session.recipe.reducer_options), session.model.eval()
    if statistics:
        watched.prepare(statistics)
    batches = -(-len(samples) // batch_size)
    with attach(model, watched, session.rate) as handle, session.progress.updates(label, batches) as advance:
        for images in read(session, samples, batch_size):
            session.task.predict(model, images.to(session.device, next(model.parameters()).dtype))
            advance("", 1)
        return torch.stack([torch.cat(watched.noted[block]) for block in range(handle.layout.depth)])


def read(session: Session, samples: Sequence[Sample], batch_size: int) -> Iterator[Tensor]:
    """Images (B, 3, H, W) of samples in their order, prepared as in evaluation. RequestError for one that cannot be
    read, MachineError as `read_ahead`."""
    reader = Reader(session.task, samples, session.task.preprocessing(session.model))
    batches = torch.arange(len(samples)).split(batch_size)

    def make(batches: Iterable[list[int]], workers: int) -> DataLoader[Any]:
        return DataLoader(reader, batch_sampler=batches, collate_fn=collate, num_workers=workers)

    for batch in read_ahead(make, (batch.tolist() for batch in batches), session.workers):
        if batch.errors:
            raise RequestError(f"unreadable sample: {batch.errors[0]}; repair it or take it out of the data")
        yield batch.images
