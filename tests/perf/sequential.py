"""How often `check` is wrong, and what it finds, when it looks at 1000, 2000, ... 16,000 samples: by simulation.

    python -m tests.perf.sequential [TRIALS]                 # of differences that are known
    python -m tests.perf.sequential TRIALS RUN:NEW RUN:BASE  # samples drawn from a run's outcomes

Wins and losses of every row are judged at every look by the gate's own bounds and tests, until it can tell. A false
pass: NEW is worse by the margin and passes. A false alarm: NEW is equal and regressed. Both stay below alpha.
"""

from __future__ import annotations

import sys

import numpy as np

from suite.gate.pairing import same_cost
from suite.gate.select import load_side
from suite.stats import holm, look_levels, look_sizes, mcnemar, paired_share_interval

ALPHA, MARGIN, MOST = 0.05, 0.005, 16_000
SHARES = (0.005, 0.02, 0.05, 0.1)


def simulate(share: float, difference: float, trials: int, rows: int = 1, most: int = MOST) -> dict[str, float]:
    """How trials end if so many samples differ in every row, the rows apart, and NEW - BASE is `difference`."""
    sizes = look_sizes(most)
    chances = [(share + difference) / 2, (share - difference) / 2, 1 - share]
    draw = np.random.default_rng(0)
    counts = [draw.multinomial(part, chances, (trials, rows))[..., :2] for part in np.diff([0, *sizes])]
    return tally(np.cumsum(counts, axis=0), sizes)


def redrawn(changes: np.ndarray, trials: int, most: int = MOST) -> dict[str, float]:
    """The same of samples drawn from those of a run. changes: (samples, rows), 1 for a win of NEW, -1 for a loss."""
    sizes, draw = look_sizes(most), np.random.default_rng(0)
    counts = np.empty((len(sizes), trials, changes.shape[1], 2), dtype=np.int64)
    for trial in range(trials):
        drawn = changes[draw.integers(0, len(changes), most)]
        for side, sign in enumerate((1, -1)):
            counts[:, trial, :, side] = np.cumsum(drawn == sign, axis=0)[np.array(sizes) - 1]
    return tally(counts, sizes)


def tally(counts: np.ndarray, sizes: list[int], margin: float = MARGIN, alpha: float = ALPHA) -> dict[str, float]:
    """Shares of trials that end in each verdict, and the mean of the samples that they take.

    counts: (looks, trials, rows, 2), wins and losses of NEW in the samples of each look.
    """
    trials, rows = counts.shape[1:3]
    passed, regressed, used = np.zeros((trials, rows), bool), np.zeros(trials, bool), np.zeros(trials)
    for size, level, (wins, losses) in zip(sizes, look_levels(sizes, alpha), np.moveaxis(counts, -1, 1), strict=True):
        going = ~regressed & ~passed.all(axis=1)
        used[going] = size
        bound, _ = paired_share_interval(wins, losses, size, 1 - 2 * level)
        passes = bound > -margin
        adjusted = np.array([holm(values) for values in np.where(passed, 1.0, mcnemar(wins, losses, "less"))])
        falls = (adjusted <= level) & ((wins - losses) / size < -margin) & ~passes & ~passed
        regressed |= going & falls.any(axis=1)
        passed |= passes & going[:, None]
    good = passed.all(axis=1) & ~regressed
    ends = {"pass": good, "regressed": regressed, "cannot tell": ~good & ~regressed, "samples": used}
    return {name: float(values.mean()) for name, values in ends.items()}


def changes_of(new: str, base: str) -> np.ndarray:
    """(samples, rows) of two sides whose outcomes are right or wrong: what NEW changes at equal cost."""
    pairs = [(match.new.read(), match.base.read()) for match in same_cost(load_side(new), load_side(base))]
    return np.stack([one["correct"].astype(int) - other["correct"].astype(int) for one, other in pairs], axis=1)


def main(trials: int = 2000, new: str = "", base: str = "") -> None:
    if new:
        changes = changes_of(new, base)
        print("differing:", ", ".join(f"{share:.2%}" for share in (changes != 0).mean(axis=0)))
        print("NEW - BASE:", ", ".join(f"{mean:+.2%}" for mean in changes.mean(axis=0)))
        print("as it is:", redrawn(changes, trials))
        print("exactly equal:", redrawn(np.concatenate([changes, -changes]), trials))
        return
    print("differing  rows  NEW is              pass  regressed  cannot tell  mean samples")
    for share in SHARES:
        for rows in (1, 4):
            for name, difference in (("equal", 0.0), ("worse by margin", -MARGIN), ("worse by 2 margins", -2 * MARGIN)):
                if share >= -difference:
                    found = simulate(share, difference, trials, rows)
                    print(
                        f"{share:9.1%}  {rows:4d}  {name:18s}{found['pass']:6.3f}  {found['regressed']:9.3f}  "
                        f"{found['cannot tell']:11.3f}  {found['samples']:12.0f}"
                    )


if __name__ == "__main__":
    main(*(int(text) if text.isdigit() else text for text in sys.argv[1:]))
