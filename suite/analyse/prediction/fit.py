"""The parameters that published speeds give, and how far off the speeds that were held out come out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from suite.analyse.prediction.published import Speed, is_held_out
from suite.backbones import family_of
from suite.contract.baseline import BASELINE
from suite.measure.kernels import Trace
from suite.measure.prediction.cost import Reach, predict_forward
from suite.measure.prediction.fitted import FITTED, HELD_OUT, MERGER
from suite.measure.prediction.gpus import find_gpu
from suite.measure.prediction.shapes import TracedModel
from suite.rates.rate import rate_text
from suite.reducers import make_reducer

EXPECTED = Reach(launch_us=2.2, host_us=15, bandwidth=0.8, tensor=0.45, fp32=0.7)
"""Where the fit begins, and stays where no speed says otherwise: the H100 of `suite.measure.roofline`, a usual share of
ordinary cores, and what an eager forward takes a launch that computes nothing worth the name: 14 to 18 us on a server's
CPU, 10 to 50 with one (`python -m tests.perf.host_time`); 35 in what G2TM published at batch 1, of a GPU unnamed."""
LEAST = Reach(launch_us=0.5, host_us=3, bandwidth=0.2, tensor=0.1, fp32=0.1)
MOST = Reach(launch_us=10, host_us=50, bandwidth=0.95, tensor=0.95, fp32=0.95)
EASE = 0.1  # a parameter that is off by a factor counts as one speed that is off by a tenth of that
ROBUST = 0.1  # log ratio from which on a speed counts less than by its square: some tables have what nobody explains


@dataclass(frozen=True)
class Case:
    """A published speed, and the kernels of our forward of it and of the unreduced model."""

    speed: Speed
    trace: Trace
    unreduced: Trace
    part: str

    def im_s(self, reach: Reach) -> float:
        return self.speed.circumstances.batch / self._seconds(self.trace, reach)

    def speedup(self, reach: Reach, gpu: str = "") -> float:
        """gpu: in place of the one that it was measured on."""
        return self._seconds(self.unreduced, reach, gpu) / self._seconds(self.trace, reach, gpu)

    def _seconds(self, trace: Trace, reach: Reach, gpu: str = "") -> float:
        how = self.speed.circumstances
        return predict_forward(trace, reach.roofline(find_gpu(gpu or how.gpu), how.how.precision, how.tf32)).seconds

    def error(self, reach: Reach) -> float:
        """Log of predicted over published."""
        return math.log(self.im_s(reach) / self.speed.im_s)


def trace_cases(speeds: Sequence[Speed], steps: Callable[[Sequence[Speed]], Iterable[Speed]] = iter) -> list[Case]:
    """steps: shows how far it is."""
    models: dict[tuple[str, int | None], TracedModel] = {}
    cases = []
    for speed in steps(speeds):
        way, how = speed.way, speed.circumstances
        key = (way.model, way.image_size)
        model = models[key] = models.get(key) or TracedModel(*key)
        reducer = None if way.reducer == BASELINE else make_reducer(way.reducer, **way.options)
        trace, unreduced = (model.trace(one, way.rate, how.batch, how.how) for one in (reducer, None))
        held_out = is_held_out(how.gpu, family_of(model.model).layout(model.model))
        cases.append(Case(speed, trace, unreduced, MERGER if not speed.alike else HELD_OUT if held_out else FITTED))
    return cases


def fit(cases: Iterable[Case]) -> Reach:
    """Least squares of the logs of predicted over published speed, on the cases that are to be fitted."""
    fitted = [case for case in cases if case.part == FITTED]
    expected, *bounds = (np.log(astuple(reach)) for reach in (EXPECTED, LEAST, MOST))

    def off(logs: np.ndarray) -> list[float]:
        reach = Reach(*np.exp(logs))
        return [*(case.error(reach) for case in fitted), *(EASE * (logs - expected))]

    found = least_squares(off, expected, bounds=bounds, loss="soft_l1", f_scale=ROBUST, diff_step=1e-3)
    return Reach(*(float(f"{value:.4g}") for value in np.exp(found.x)))


def rows_of(cases: Sequence[Case], reach: Reach) -> list[dict[str, Any]]:
    """One row a case: published and predicted, and predicted by parameters that saw no speed of its GPU (`unseen`)."""
    gpus = {case.speed.circumstances.gpu for case in cases}
    blind = {gpu: fit(case for case in cases if case.speed.circumstances.gpu != gpu) for gpu in sorted(gpus)}
    return [_row(case, reach, blind[case.speed.circumstances.gpu]) for case in cases]


def _row(case: Case, reach: Reach, blind: Reach) -> dict[str, Any]:
    speed, how = case.speed, case.speed.circumstances
    ratio = speed.speedup
    return {
        "table": speed.table, "line": speed.line, "part": case.part,
        "gpu": how.gpu, "units": find_gpu(how.gpu).units(how.how.precision, how.tf32), "batch": how.batch,
        "precision": how.how.precision, "autocast": how.how.autocast, "tf32": how.tf32,
        "model": speed.way.model, "image_size": speed.way.image_size, "reducer": speed.way.reducer,
        "rate": rate_text(speed.way.rate), "options": dict(speed.way.options),
        "published": speed.im_s, "predicted": _digits(case.im_s(reach)), "unseen": _digits(case.im_s(blind)),
        "published_speedup": None if ratio is None else _digits(ratio),
        "predicted_speedup": None if ratio is None else _digits(case.speedup(reach)),
        "unseen_speedup": None if ratio is None else _digits(case.speedup(blind)),
    }  # fmt: skip


def _digits(value: float) -> float:
    return float(f"{value:.4g}")
