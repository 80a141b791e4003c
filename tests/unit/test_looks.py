"""Looking at growing data: the samples nest, what is stored is not predicted again, and the error stays what it was."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from suite.contract.choice import spread
from suite.errors import RequestError
from suite.gate import looks as looks_module
from suite.gate.check import check
from suite.gate.looks import decide, expected, plan_looks
from suite.gate.matched_run import _only
from suite.gate.side import Side
from suite.rates.rate import FlopsTarget, KeptFraction
from suite.stats import look_levels, look_sizes
from suite.sweep.plan import make_task
from suite.sweep.spec import make_spec
from tasks.classification import ClassificationTask
from tasks.scenes.classes import Scenes
from tests.perf.sequential import redrawn, simulate
from tests.unit.gate_runs import IDENTITY, cli, entry, identified
from tests.unit.run_folder import write_run
from tests.unit.test_gate import BROKEN
from tests.unit.test_paired_stats import chance


@pytest.mark.parametrize("most", [1, 999, 1000, 1999, 2000, 5000, 16_000, 50_000])
def test_looks_double_up_to_all_samples_and_their_levels_add_up_to_alpha(most):
    sizes = look_sizes(most)
    assert sizes[-1] == most
    assert sizes[0] >= min(1000, most)
    assert all(abs(2 * few - many) <= 1 for few, many in pairwise(sizes))
    assert sum(look_levels(sizes, 0.05)) == pytest.approx(0.05)


@pytest.mark.parametrize("total", [0, 1, 2, 37, 1000])
def test_a_longer_beginning_of_spread_samples_holds_a_shorter_one_and_both_are_spread_evenly(total):
    order = spread(range(total))
    assert sorted(order) == list(range(total))
    for length in (total // 8, total // 3, total // 2):
        gaps = np.diff([-1, *sorted(order[:length]), total])
        assert length == 0 or gaps.max() <= 4 * total / length + 1


def test_the_rule_keeps_its_errors_and_passes_an_equal_method():
    trials = 400
    equal = simulate(0.02, 0.0, trials, rows=4)
    assert equal["pass"] >= 0.8
    assert equal["regressed"] <= 0.05
    assert simulate(0.1, 0.0, trials, rows=4)["regressed"] <= 0.05 + chance(0.05, trials)
    for share in (0.005, 0.02, 0.1):
        assert simulate(share, -0.005, trials)["pass"] <= 0.05 + chance(0.05, trials)
    assert simulate(0.02, -0.01, trials)["regressed"] >= 0.95


def test_samples_drawn_from_a_runs_outcomes_are_judged_as_drawn_ones():
    changes = np.zeros((1000, 2), dtype=int)
    changes[:10], changes[10:20] = 1, -1
    found = redrawn(changes, 20)
    assert found["regressed"] == 0
    assert found["pass"] >= 0.8


def growing(rates: dict[str, int], most: int, seen: list):
    """NEW and BASE at so many rates, of which the first `losses` samples in a thousand are lost and as many won."""

    def side(name: str, right: bool, samples: int, wanted) -> Side:
        def read(differing: int) -> pd.DataFrame:
            place = np.arange(samples) % 1000
            correct = np.where(place < differing, right, np.where(place < 2 * differing, not right, True))
            return pd.DataFrame({"correct": correct}, index=pd.Index([f"{i}" for i in range(samples)], name="id"))

        entries = [
            entry(name, cost, rate=rate, disputed=False, read=partial(read, differing))
            for cost, (rate, differing) in enumerate(rates.items(), start=1)
            if wanted is None or rate in wanted
        ]
        return Side(name, IDENTITY, {}, ClassificationTask.shown, tuple(entries))

    def see(look, wanted):
        seen.append((look.samples, wanted))
        return side("new", True, look.samples, wanted), side("base", False, look.samples, wanted)

    return see


def decided(rates: dict[str, int], seen: list):
    looks = plan_looks({"task": "scenes"}, 0.05, 16_000)
    return decide(looks, growing(rates, 16_000, seen), 0.05, None, 0.02, lambda text: None)


def test_a_row_that_passed_is_not_looked_at_again_and_keeps_the_samples_that_it_passed_on():
    seen = []
    rows, last = decided({"r=1": 0, "r=2": 10, "r=3": 15}, seen)
    assert [row.verdict for row in rows] == ["pass"] * 3
    assert [row.match.base.rate for row in rows] == ["r=1", "r=2", "r=3"]
    samples = [row.contrast.samples for row in rows]
    assert samples == sorted(samples)
    assert samples[0] < samples[-1] == last.samples < 16_000
    assert seen[0] == (1000, None)
    assert all("r=1" not in wanted for samples_, wanted in seen if samples_ > samples[0])


def test_what_the_last_look_cannot_tell_stays_open_and_says_what_would():
    rows, last = decided({"r=1": 120}, [])
    assert (last.number, rows[0].verdict) == (5, "cannot tell")
    assert rows[0].needed > 16_000


def test_how_many_samples_the_margin_needs_is_said_before_anything_is_run():
    looks = plan_looks({"task": "scenes"}, 0.05, None)
    assert [look.values["task_options"]["scenes"] for look in looks] == [1000, 2000, 4000, 8000, 16_000]
    assert "about 4946" in expected(looks, ClassificationTask.shown, None, 0.05)
    assert "about 1237" in expected(looks, ClassificationTask.shown, 1.0, 0.05)


def test_a_fixed_number_of_samples_is_one_look_at_the_whole_alpha():
    for values in ({"limit": 20}, {"task_options": {"scenes": 30}}):
        (look,) = plan_looks({"task": "scenes", **values}, 0.05, None)
        assert (look.level, look.values) == (0.05, {})
        with pytest.raises(RequestError, match="exclude each other"):
            plan_looks({"task": "scenes", **values}, 0.05, 100)


def test_a_later_look_predicts_new_samples_alone_and_times_nothing_again(tmp_path, monkeypatch):
    from suite.sweep import evaluate as evaluation
    from suite.sweep import timing

    monkeypatch.setattr(looks_module, "look_sizes", partial(look_sizes, first=20))
    predicted, timed = [], []
    forward, measure = evaluation.forward, timing.measure_runtimes

    def counted(task, model, cell, images, batch):
        predicted.append((len(task.samples), task.samples.index(batch.samples[0]) // 10))
        return forward(task, model, cell, images, batch)

    def clocked(*args, **kwargs):
        timed.append(args)
        return measure(*args, **kwargs)

    monkeypatch.setattr(evaluation, "forward", counted)
    monkeypatch.setattr(timing, "measure_runtimes", clocked)
    asked = {"rates": ["r=15"], "batch_size": 10, "workers": 0, "device": "cpu", "speed_rounds": 2}
    asked["out"] = str(tmp_path / "run")
    report = check(f"{BROKEN}:Copy", "tome", asked, contract=False, most=40)
    assert report.verdict == "cannot tell"  # forty samples show no margin of half a point
    assert report.samples == [40]
    assert set(predicted) == {(20, 0), (20, 1), (40, 2), (40, 3)}
    assert len(predicted) == 2 * 2 * 3
    assert len(timed) == 1
    assert report.rows[0].pace.ratio is not None
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["run-20", "run-40"]


def test_given_data_are_read_further_at_every_look_up_to_all_of_them(monkeypatch):
    monkeypatch.setattr(looks_module, "look_sizes", partial(look_sizes, first=20))
    monkeypatch.setattr(Scenes, "drawn", "")
    asked = {"task": "scenes", "task_options": {"scenes": 90}}
    looks = plan_looks(asked, 0.05, None)
    read = [[one.id for one in make_task(make_spec({**asked, **look.values})).samples] for look in looks]
    assert [len(ids) for ids in read] == [look.samples for look in looks] == [23, 45, 90]
    assert all(more[: len(few)] == few for few, more in pairwise(read))
    assert [look.samples for look in plan_looks(asked, 0.05, 50)] == [25, 50]


def test_a_later_look_asks_for_the_open_rates_and_targets_alone():
    spec = make_spec({"rates": "r=3, keep=0.7", "flops": "-20%,-35.5%"})
    assert _only({"keep=0.7", "flops=-35.5%"}, spec) == {"rates": [KeptFraction(0.7)], "flops": [FlopsTarget(-0.355)]}
    assert _only({"flops=-20%"}, spec) == {"rates": [], "flops": [FlopsTarget(-0.2)]}
    assert _only({""}, spec) == {}


def test_a_number_of_samples_that_cannot_be_met_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli("check", "tome", "--against", "tofu", "--max-samples", 0, "--no-contract") == 2
    assert "--max-samples 0" in capsys.readouterr().err
    run = identified(write_run(tmp_path, {"tome": 4.0}))
    assert cli("check", "tofu", "--against", run, "--max-samples", 2000, "--no-contract") == 2
    assert "what is stored decides" in capsys.readouterr().err
