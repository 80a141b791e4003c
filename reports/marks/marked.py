"""All marks of a frame at once."""

import pandas as pd

from reports.marks.dominance import mark_dominated
from reports.marks.oracle import mark_oracle


def marked(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with the floors that dominate its rows, and with what the best rate for every image would reach."""
    return mark_oracle(mark_dominated(frame))
