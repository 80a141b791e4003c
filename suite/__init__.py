"""Benchmark and evaluation of token reduction in Vision Transformers.

from suite import attach, count_flops, solve_rate
with attach(model, "tome", "r=13") as handle:
    logits = model(images)
    handle.token_counts
"""

from importlib import import_module

from suite.contract.names import claim_names

claim_names()
PUBLIC = {
    "CellError": "suite.errors",
    "Handle": "suite.attachment.handle",
    "RequestError": "suite.errors",
    "attach": "suite.measure.flops_target",
    "count_flops": "suite.measure.flops",
    "list_reducers": "suite.reducers",
    "load": "suite.sweep.api",
    "measure_speed": "suite.measure.speed",
    "run": "suite.api",
    "solve_rate": "suite.measure.flops_target",
}
__all__ = list(PUBLIC)


def __getattr__(name: str):
    # imported when first used: a report or --help should not wait for torch
    if name not in PUBLIC:
        raise AttributeError(f"module 'suite' has no attribute {name!r}")
    return getattr(import_module(PUBLIC[name]), name)
