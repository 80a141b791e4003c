"""int8 is compared with fp32 answer by answer, on the same pictures."""

import numpy as np
import pytest

from reports.pareto.quantised import draw_quantised
from suite.cli.app import main
from suite.deploy.agreement import is_right
from suite.deploy.int8 import BATCH, ROUNDS, measure_int8, paired, side_by_side
from suite.errors import RequestError


def test_what_is_lost_is_counted_on_the_same_pictures_with_an_interval():
    whole = np.array([True] * 90 + [False] * 10)
    small = np.array([True] * 80 + [False] * 10 + [True] * 5 + [False] * 5)
    found = paired(whole, small)
    assert (found["fp32"], found["int8"]) == (0.9, 0.85)
    assert found["difference"] == pytest.approx(-0.05)
    assert found["difference_low"] < -0.05 < found["difference_high"]
    assert found["int8_low"] < 0.85 < found["int8_high"]


def test_any_of_several_labels_is_right():
    logits = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]])
    assert is_right(logits, [(0, 1), (1,), (2,)]).tolist() == [True, False, True]


def test_forwards_take_turns_and_the_first_round_is_not_timed():
    seen = []
    times = side_by_side([lambda images: seen.append("a"), lambda images: seen.append("b")], np.zeros((BATCH, 1)))
    assert seen == ["a", "b"] * (ROUNDS + 1)
    assert len(times) == 2


def test_a_model_without_accuracy_to_lose_is_refused():
    with pytest.raises(RequestError, match="was not trained for the classes of task 'scenes'"):
        measure_int8({"model": "test_vit", "checkpoint": "none", "device": "cpu"}, ["tome"], "r=2", None)


def test_an_unknown_method_is_named(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["int8", "--model", "no_such_model"])
    assert ended.value.code == 2
    assert "no_such_model" in capsys.readouterr().err


def test_the_figure_has_a_line_a_method():
    record = {"difference": -0.01, "difference_low": -0.03, "difference_high": 0.01}
    records = [{"method": m, "runtime": r, **record} for m in ("none", "tome r=8") for r in ("onnxruntime", "openvino")]
    axes = draw_quantised(records, "int8").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["none", "tome r=8"]
