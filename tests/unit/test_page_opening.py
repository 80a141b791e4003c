"""The first paragraph of a page says what the statistics say, and the command of a row asks for that row."""

import json
import re
import shlex

import pandas as pd
import pytest

from reports.frame import load_frame
from reports.groups import groups
from reports.page.command import command_of
from reports.page.opening import Compared, opening_of
from reports.page.outcomes import load_outcomes
from reports.page.pairs import compare_pairs
from reports.page.write import render
from suite.cli.flags import asked
from suite.store.folder import RunFolder
from suite.sweep.study import make_plans, make_study
from tests.docs.pages import parse
from tests.unit.run_folder import N, change_all, rewrite, write_cell, write_run

NOISY = {"noisy": True, "aa_low": 0.4, "aa_high": 2.5}


def compared(out):
    (part,) = groups(load_frame(out))
    outcomes = load_outcomes([part])
    return Compared(part, outcomes, compare_pairs(outcomes))


def opening(out):
    return " ".join(opening_of(compared(out)))


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", {"tome": 1.0, "evit": 2.0, "topk": 40.0, "random": 60.0})


def test_the_best_the_equals_and_the_worse_are_those_of_the_paired_statistics(run):
    said = opening(run)
    assert said.startswith("On vit_scenes and 400 samples of scenes, at −")
    assert "tome does best of 4 methods: Top-1 (%) 92.8, unreduced 93.0, difference −0.25 [" in said
    assert "evit cannot be told from it." in said
    assert "2 are worse, from topk (−12) to random (−18)." in said


def test_a_difference_is_that_of_the_pair_whichever_way_it_is_asked(run):
    of = compared(run)
    a, b = of.outcomes.keys[1], of.outcomes.keys[9]
    forth, back = of.difference(a, b), of.difference(b, a)
    assert forth[0] == pytest.approx(of.score(b) - of.score(a))
    assert forth[:3] == pytest.approx((-back[0], -back[2], -back[1]))
    assert forth[1] < forth[0] < forth[2]
    assert forth[3] == back[3]


def test_what_samples_can_tell_is_that_of_the_closest_comparisons(run):
    least = float(re.search(r"With 400 samples, a difference from it below ([\d.]+) points", opening(run))[1])
    of = compared(run)
    _, low, high, _ = of.difference("tome-flops--28", "evit-flops--28")  # the others are told from the best
    assert least == pytest.approx((1.96 + 0.8416) * (high - low) / (2 * 1.96), rel=0.05)


def test_speeds_that_must_not_be_ranked_are_said_to_be_and_are_not_ranked(run, tmp_path):
    assert "is fastest: 1." in opening(run)
    noisy = opening(write_run(tmp_path / "noisy", {"tome": 1.0, "evit": 2.0}, speed=NOISY))
    assert "must not be ranked: beside itself, the unreduced model had 0.40 to 2.50." in noisy
    assert "fastest" not in noisy


def test_a_method_that_lacks_what_it_has_to_learn_is_not_spoken_of(run):
    write_cell(run, "dtem", "flops=-28%", accuracy=0.99, cut=0.28)
    assert "dtem" not in opening(run)
    change_all(run, "cell", reducer_weights={"source": "embedded:vit_scenes/dtem", "sha256": "0"})
    assert "dtem (trained) does best" in opening(run)


def test_one_method_alone_is_compared_with_nothing_and_the_page_has_no_such_paragraph(tmp_path):
    out = write_run(tmp_path / "run", {"tome": 1.0})
    assert opening(out) == ""
    assert 'class="opening"' not in render(out, load_frame(out))[0]


def test_the_page_begins_with_it(run):
    html = render(run, load_frame(run))[0]
    assert html.index('class="opening"') < html.index('class="facts"')
    assert opening(run) in html.replace("&#39;", "'")


SWEEP = {
    "task": "scenes", "limit": 4, "speed": False, "batch_size": 8, "reducers": "tome,dtem@embedded,dtem@none,mctf",
    "rates": "r=8", "flops": "-35%", "reducer_options": {"mctf": {"tau_info": 20}},
}  # fmt: skip


def values_of(command):
    """What `run` makes of a command's flags."""
    flags = parse(shlex.split(command)[2:]).params
    return asked(flags.pop("config"), {key: value for key, value in flags.items() if key != "track"})


def test_the_command_of_a_row_asks_for_that_cell_and_no_other(tmp_path):
    (plan,) = make_plans(make_study({**SWEEP, "out": str(tmp_path / "run")})).by_name.values()
    spec = json.loads(plan.spec.model_dump_json())
    for key in plan.methods:
        about = plan.describe(key)
        weights = (about.get("reducer_weights") or {}).get("source")
        row = pd.Series(
            {
                "reducer": about["reducer"], "rate": about["rate"], "training": about["learned"] or "",
                "options": json.dumps(about["options"]) if about["options"] else "",
            }
        )  # fmt: skip
        command = command_of(spec, row, weights)
        (again,) = make_plans(make_study(values_of(command))).by_name.values()
        assert list(again.methods)[-1] == key, command
        assert len(again.methods) <= 2


def test_a_run_that_does_not_say_what_it_was_asked_for_has_no_commands(run):
    assert "data-command" not in render(run, load_frame(run))[0]
    rewrite(run / "run.json", spec={"task": "scenes", "model": "vit_scenes", "limit": N})
    assert render(run, load_frame(run))[0].count("data-command") == len(RunFolder(run).read_run()["cells"])
