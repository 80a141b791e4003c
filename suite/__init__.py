"""Benchmark and evaluation of token reduction in Vision Transformers.

from suite import attach, count_flops, solve_rate
with attach(model, "tome", "r=13") as handle:
    logits = model(images)
    handle.token_counts
"""

from suite.attach import Handle, attach
from suite.errors import CellError, RequestError
from suite.measure.flops import count_flops
from suite.reducers import list_reducers
from suite.solve import solve_rate

__all__ = [
    "CellError",
    "Handle",
    "RequestError",
    "attach",
    "count_flops",
    "list_reducers",
    "measure_speed",
    "run",
    "solve_rate",
]


def __getattr__(name: str):
    # a sweep's machinery (pandas, pyarrow, ...) is imported only by those who run one
    if name == "measure_speed":
        from suite.measure.speed import measure_speed

        return measure_speed
    if name == "run":
        from suite.sweep import run

        return run
    raise AttributeError(f"module 'suite' has no attribute {name!r}")
