"""How often intervals of paired scores hold the truth, and how often a loss as large as the margin passes.

    python run_bench.py run --task scenes-caption --task-option scenes=3000 --reducers tome,topk --flops=-20%,-35% \
        --no-speed --out results/pool
    python -m tests.perf.coverage --captions results/pool

Not run by the test suite: it takes minutes. Captions are drawn from those of a run that is large enough to be the
population: a reduced cell against the unreduced one, the share of differing captions set. Masks are drawn from a made
population whose classes have Zipf's frequencies: K of them, 15 at most in an image, rare ones harder. The truth is the
score of the population; the margin is the true loss, so that every pass is false.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reports.text.markup import markdown_row, markdown_rule
from suite.gate.outcomes import Paired, pair_up
from suite.gate.run_side import run_side
from suite.stats import jackknife_interval, paired_scores, pseudo_values
from suite.stats.areas import AREAS, mean_iou

CAPTIONS = ((200, 0.02), (200, 0.05), (200, 0.2), (1000, 0.02), (1000, 0.05), (1000, 0.2))
MASKS = ((20, 200, 0.05), (20, 200, 1.0), (150, 200, 0.05), (150, 200, 1.0), (150, 1000, 1.0))
SCORES = ("cider", "meteor", "bleu_4", "rouge_l")
LEVEL, ALPHA, POOL, MOST = 0.95, 0.05, 20_000, 15
HEADERS = ("score", "K", "n", "differ", "coverage", "false passes", "point outside", "single score")


@dataclass(frozen=True)
class Population:
    """Samples (N, k) of two methods, of which a share differs: those of `differing`; the others are alike."""

    new: np.ndarray
    base: np.ndarray
    statistic: Callable[[np.ndarray, int], np.ndarray]
    share: float

    def __post_init__(self) -> None:
        apart = (self.new != self.base).any(axis=1)
        object.__setattr__(self, "places", (np.flatnonzero(~apart), np.flatnonzero(apart)))

    def truth(self) -> tuple[float, float]:
        """Scores of both sides."""
        weights = 1 - self.share, self.share
        mean = np.zeros((2, self.new.shape[1]))
        for weight, rows in zip(weights, self.places, strict=True):
            if weight > 0:
                mean += weight * np.stack([side[rows].mean(axis=0, dtype=float) for side in (self.new, self.base)])
        new, base = self.statistic(mean * POOL, POOL)
        return float(new), float(base)

    def draw(self, random: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        apart = random.random(n) < self.share
        rows = np.where(apart, *(random.choice(places if len(places) else [0], n) for places in self.places[::-1]))
        return self.new[rows], self.base[rows]


def captions(out: Path, share: float) -> Iterator[tuple[str, Population]]:
    side = run_side(out, str(out))
    unreduced = next(entry for entry in side.entries if not entry.reduced).read()
    reduced = next(entry for entry in side.entries if entry.reduced).read()
    for pair in pair_up(reduced, unreduced, side.shown):
        if pair.metric.name in SCORES:
            yield pair.metric.name, Population(pair.new, pair.base, scaled(pair), share)


def scaled(pair: Paired) -> Callable[[np.ndarray, int], np.ndarray]:
    """The statistic of a pair for sums over another number of samples."""
    return lambda sums, n: pair.statistic(sums * (pair.samples / n))


def masks(classes: int, share: float, seed: int = 0) -> Population:
    """Areas of `POOL` images; the new method is 2 points of pixels worse, and much worse on one segment of 20."""
    draw = np.random.default_rng(seed)
    frequency = 1 / np.arange(1, classes + 1)
    skill = np.clip(np.linspace(0.85, 0.4, classes) + draw.normal(0, 0.1, classes), 0.1, 0.95)
    present = np.argsort(-np.log(frequency) - draw.gumbel(size=(POOL, classes)), axis=1)[:, :MOST]
    many, differs = np.minimum(1 + draw.poisson(6, POOL), min(classes, MOST)), draw.random(POOL) < share
    areas = np.zeros((2, POOL, len(AREAS), classes), np.float32)
    for place in range(MOST):
        image = np.flatnonzero(many > place)
        true, size = present[image, place], np.rint(draw.gamma(0.7, 20_000, len(image)))
        hit = draw.beta(3 * skill[true], 3 * (1 - skill[true]))
        near = present[image, draw.integers(0, many[image])]
        said = np.where(
            draw.random(len(image)) < 0.15, draw.choice(classes, len(image), p=frequency / frequency.sum()), near
        )
        said = np.where(said == true, (true + 1) % classes, said)
        change = draw.normal(-0.02, 0.1, len(image)) - 0.4 * (draw.random(len(image)) < 0.05)
        for side, right in enumerate((np.clip(hit + differs[image] * change, 0, 1), hit)):
            both = np.rint(size * right)
            for kind, area in enumerate((both, both, size)):
                np.add.at(areas[side], (image, kind, true), area)
            np.add.at(areas[side], (image, 1, said), size - both)
    flat = areas.reshape(2, POOL, -1)

    def statistic(sums: np.ndarray, n: int) -> np.ndarray:
        return mean_iou(sums.reshape(len(sums), len(AREAS), classes))

    return Population(*flat, statistic, (flat[0] != flat[1]).any(axis=1).mean())


def measure(population: Population, n: int, trials: int) -> list[float]:
    """Shares of trials in which the truth is held, a loss as large as the margin passes, the point lies outside, and
    the truth of one score alone is held.
    """
    new_score, base_score = population.truth()
    truth, random, found = new_score - base_score, np.random.default_rng(1), []

    def statistic(sums: np.ndarray) -> np.ndarray:
        return population.statistic(sums, n)

    for _ in range(trials):
        new, base = (side.astype(float) for side in population.draw(random, n))
        scores = paired_scores(new, base, statistic)
        low, high = scores.interval(LEVEL)
        alone = jackknife_interval(*pseudo_values(base, statistic), LEVEL)
        passes = scores.lower_bound(ALPHA) > truth
        outside = not low <= scores.difference <= high
        found.append((low <= truth <= high, passes, outside, alone[0] <= base_score <= alone[1]))
    return np.mean(found, axis=0).tolist()


def cases(out: Path | None) -> Iterator[tuple[str, str, int, Population]]:
    for share in dict.fromkeys(share for _, share in CAPTIONS) if out else ():
        for name, population in captions(out, share):
            yield from ((name, "", n, population) for n, its in CAPTIONS if its == share)
    for classes, share in dict.fromkeys((classes, share) for classes, _, share in MASKS):
        population = masks(classes, share)
        for n in (n for *about, n in ((c, s, n) for c, n, s in MASKS) if about == [classes, share]):
            yield "miou", str(classes), n, population


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=Path, help="a run of captions whose samples are the population")
    parser.add_argument("--trials", type=int, default=1000)
    asked = parser.parse_args()
    print(markdown_row(HEADERS), markdown_rule([False] + [True] * (len(HEADERS) - 1)), sep="\n")
    for name, classes, n, population in cases(asked.captions):
        shares = [f"{value:.3f}" for value in measure(population, n, asked.trials)]
        print(markdown_row([name, classes, str(n), f"{population.share:.0%}", *shares]), flush=True)


if __name__ == "__main__":
    main()
