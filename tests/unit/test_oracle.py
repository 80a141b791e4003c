"""What the best rate for every image would reach: a bound with the cost of what it chose."""

import numpy as np
import pytest

from reports.frame import load_frame
from reports.marks.oracle import best_by_image, mark_oracle
from suite import run
from suite.sweep.progress import Progress

RIGHT = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0]], dtype=float)  # 3 rates, the cheapest first, on 4 images


def test_every_image_has_the_cheapest_of_the_rates_that_are_best_on_it():
    score, cost = best_by_image(RIGHT, np.array([1.0, 2.0, 4.0]))
    assert score.tolist() == [0.25, 0.5, 0.75]
    assert cost.tolist() == [1.0, (1 + 2 + 1 + 1) / 4, (1 + 2 + 4 + 1) / 4]


def test_of_an_error_the_least_is_best():
    error, cost = best_by_image(np.array([[0.4, 0.1], [0.2, 0.3]]), np.array([1.0, 3.0]), sign=-1)
    assert error.tolist() == pytest.approx([0.25, 0.15])
    assert cost.tolist() == [1.0, 2.0]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return run(
        task="scenes", limit=48, reducers=["tome", "dtem@none", "resize"], flops=["-35%", "-60%"], speed=False,
        workers=0, out=str(tmp_path_factory.mktemp("oracle") / "run"), progress=Progress(quiet=True),
    )  # fmt: skip


def test_it_is_never_below_the_rates_that_it_chooses_among_nor_dearer_than_the_dearest(study):
    frame = mark_oracle(load_frame(study.out))
    rows = frame[frame.oracle.notna()]
    assert set(rows.reducer) == {"tome", "resize"}  # an untrained method's scores are not its own
    assert (rows.oracle >= rows.top1).all()
    assert (rows.oracle_gmacs <= rows.gmacs).all()
    cheapest = rows[rows["rate"] == "flops=-60%"]
    assert (cheapest.oracle == cheapest.top1).all()
    dearer = rows[rows["rate"] == "flops=-35%"].set_index("reducer")
    answers = {key: study.samples(key).correct.to_numpy() for key in rows.index[rows.reducer == "tome"]}
    assert dearer.oracle["tome"] == pytest.approx(np.any([*answers.values()], axis=0).mean())


def test_table_and_figure_say_what_it_is(study):
    table = (study.out / "report" / "table.md").read_text()
    assert "| Oracle |" in table
    assert "Oracle: per image the best of the method's rates up to the row's cost, the cheapest of equals" in table
    assert "<!-- oracle: its best rate for every image -->" in (study.out / "report" / "pareto_flops.svg").read_text()
