"""Published figures of token-reduction papers, one row a printed row; README.md here says by which rules."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas

FOLDER = Path(__file__).parent
NUMBERS = (
    "r", "gflops", "throughput_im_s", "top1", "bleu4", "cider", "meteor", "spice", "tokens", "miou", "fid",
)  # fmt: skip
# Another place than the paper whose method and figure it is: leaderboards, and papers that quote or measure again.
SECONDARY_SOURCES = ("Papers-with-Code leaderboard", "Frequency-Aware TR", "OpenToMe repository")


@cache
def _rows() -> pandas.DataFrame:
    import pandas

    frames = []
    for file in sorted(FOLDER.glob("*.csv")):
        rows = pandas.read_csv(file, dtype=str, keep_default_na=False)
        rows["file"], rows["line"] = file.stem, range(2, len(rows) + 2)
        frames.append(rows)
    rows = pandas.concat(frames, ignore_index=True)
    rows["printed_gflops"] = rows["gflops"]
    for column in NUMBERS:
        rows[column] = pandas.to_numeric(rows[column])
    quoted = rows["source"].str.startswith(SECONDARY_SOURCES) | rows["note"].str.contains("secondary")
    rows["primary"] = ~(rows["file"].str.startswith("secondary_") | quoted)
    return rows


def load_published() -> pandas.DataFrame:
    """One row a published cell: the columns of the CSV files, numbers as float64 (NaN: not stated), text as printed.

    Added: `file` (stem of the CSV), `line` (in it, from 2), `printed_gflops` (the digits as printed; their number says
    how far the figure was rounded) and `primary` (False: read in another place than the paper or its repository).
    `gflops` follows each paper's own convention (README.md); rates and accuracies are as printed.
    """
    return _rows().copy()
