"""Cells that a request lists one by one, and the lists that are short for them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from suite.api import run
from suite.cli.flags import asked
from suite.errors import RequestError
from suite.sweep.cells import expand, list_cells
from suite.sweep.plan import make_plan
from suite.sweep.progress import Progress
from suite.sweep.spec import make_spec


def listed(spec, *cells):
    """The request that lists cells in place of reducers and rates."""
    return {key: value for key, value in spec.items() if key not in ("reducers", "rates")} | {"cells": list(cells)}


def keys(values):
    plan = make_plan(make_spec(values))
    return {(method.reducer, str(method.rate)): key for key, method in plan.methods.items()}


def test_lists_are_short_for_their_cells():
    short = {
        "reducers": ["dtem", "dtem@none", "evit", "diffrate"], "rates": ["r=4", "keep=0.7"], "flops": ["-35%"],
        "reducer_options": {"evit": {"fuse": False}},
    }  # fmt: skip
    one_by_one = [
        {"reducer": "dtem", "rate": "r=4"}, {"reducer": "dtem", "rate": "flops=-35%"},
        {"reducer": "dtem", "weights": "none", "rate": "r=4"},
        {"reducer": "dtem", "weights": "none", "rate": "flops=-35%"},
        {"reducer": "evit", "options": {"fuse": False}, "rate": "r=4"},
        {"reducer": "evit", "options": {"fuse": False}, "rate": "keep=0.7"},
        {"reducer": "evit", "options": {"fuse": False}, "rate": "flops=-35%"},
        {"reducer": "diffrate", "rate": "flops=-35%"},
    ]  # fmt: skip
    cells, skipped = list_cells(make_spec(short))
    assert skipped
    assert cells == list_cells(make_spec({"cells": one_by_one}))[0]
    assert list_cells(make_spec({"cells": cells}))[0][1:] == cells


def test_a_cell_has_the_same_key_however_it_is_asked_for(tiny_run):
    short = keys({**tiny_run, "rates": ["r=1", "keep=0.7"], "reducer_options": {"evit": {"fuse": False}}})
    one = {"reducer": "evit", "options": {"fuse": False}, "rate": "keep=0.7", "model": tiny_run["model"],
           "precision": "fp32", "runtime": "eager"}  # fmt: skip
    assert keys(listed(tiny_run, one)) == {cell: short[cell] for cell in (("none", "None"), ("evit", "keep=0.7"))}


def test_any_subset_is_asked_for_by_file_and_continues_the_folder(tiny_run, tmp_path):
    whole = run({**tiny_run, "rates": ["r=1", "r=2"]}, progress=Progress(quiet=True), report=False)
    written = {key: (whole.out / "cells" / key / "accuracy.json").stat().st_mtime_ns for key in whole.cells}
    file = tmp_path / "some.yaml"
    wanted = [("tome", "r=2"), ("evit", "r=1"), ("evit", "r=3")]
    cells = [{"reducer": reducer, "rate": rate} for reducer, rate in wanted]
    file.write_text(yaml.safe_dump(listed(tiny_run, *cells)))
    some = run(asked(file, {}), progress=Progress(quiet=True), report=False)
    frame = some.frame().loc[list(some.cells)]
    assert list(zip(frame.reducer, frame.rate)) == [("none", ""), *wanted]
    assert set(frame.status) == {"done"}
    assert len(set(some.cells) & set(whole.cells)) == 3
    assert written == {key: (whole.out / "cells" / key / "accuracy.json").stat().st_mtime_ns for key in written}
    stored = json.loads((Path(tiny_run["out"]) / "run.json").read_text())["spec"]
    assert make_spec(stored) == make_spec(asked(file, {}))


def test_a_cell_takes_what_it_leaves_out_from_the_keys_around_it(tmp_path):
    spec = make_spec({
        "model": "scenes_vit", "precision": "bf16", "runtime": "compiled", "reducer_options": {"evit": {"fuse": False}},
        "reducer_weights": {"dtem": "none"},
        "cells": [{"reducer": "evit", "rate": "r=2"}, {"reducer": "dtem", "rate": "r=2"}],
    })  # fmt: skip
    (none, evit, dtem), _ = list_cells(spec)
    assert {(cell.model, cell.precision, cell.runtime) for cell in (none, evit, dtem)} == {
        ("scenes_vit", "bf16", ("compiled",))
    }
    assert evit.options == {"fuse": False}
    assert dtem.weights == "none"


def test_a_run_is_of_what_its_cells_agree_on():
    spec = make_spec(
        {"cells": [{"reducer": "tome", "rate": "r=2", "model": "deit_tiny_patch16_224", "precision": "bf16"}]}
    )
    assert (spec.model, spec.precision, spec.runtime) == ("deit_tiny_patch16_224", "bf16", ("eager",))
    assert spec.out.endswith("scenes-deit_tiny_patch16_224")


@pytest.mark.parametrize(("key", "other"), [
    ("model", "deit_tiny_patch16_224"), ("precision", "bf16"), ("runtime", "compiled"),
])  # fmt: skip
def test_one_run_holds_one_model_one_precision_and_one_runtime(key, other):
    spec = make_spec({"cells": [{"reducer": "tome", "rate": "r=2"}, {"reducer": "tome", "rate": "r=2", key: other}]})
    asked = (other,) if key == "runtime" else other
    assert {getattr(cell, key) for cell in spec.cells} == {getattr(spec, key), asked}
    with pytest.raises(RequestError, match=rf"of several values of {key} \(.*{other}\); one run holds one {key}: ask"):
        make_plan(spec)


@pytest.mark.parametrize(("cell", "message"), [
    ({"reducer": "tomme", "rate": "r=2"}, r"unknown reducer 'tomme'; did you mean 'tome'"),
    ({"reducer": "tome*", "rate": "r=2"}, r"unknown reducer 'tome\*'"),
    ({"reducer": "tome", "rates": "r=2"}, r"unknown key of cells.1: 'rates'; did you mean 'rate'"),
    ({"rate": "r=2"}, r"cells.1=\{'rate': 'r=2'\} names no reducer; add one, such as reducer: tome"),
    ({"reducer": "tome"}, r"reducer 'tome' has no rate; add one, such as rate: flops=-35%"),
    ({"reducer": "none", "rate": "r=2"}, r"reducer 'none': nothing is reduced at rate r=2; leave the rate out"),
    ({"reducer": "tome", "rate": "r=two"}, r"rate 'r=two' cannot be read; write for example"),
    ({"reducer": "tome", "rate": 2}, r"cells.1.rate=2 is not valid: input should be a valid string"),
    ({"reducer": "tome", "rate": "keep=0.7"}, r"'tome' is not defined for rate keep=0.7; it takes r=... or flops=..."),
    ({"reducer": "evit", "rate": "r=2", "options": {"fusion": 1}}, r"unknown option of reducer 'evit': 'fusion'; did"),
    ({"reducer": "tome", "rate": "r=2", "weights": "no.pth"}, r"reducer weights 'no.pth' do not exist; give a"),
    ({"reducer": "tofu", "rate": "r=2", "weights": "embedded"}, r"no weights of 'tofu' come with model 'scenes_vit'"),
    ({"reducer": "tome", "rate": "r=2", "precision": "fp8"}, r"cells.1.precision='fp8' is not valid: .*'bf16'"),
    ({"reducer": "tome", "rate": "r=2", "runtime": "onnx"}, r"unknown runtime 'onnx'; known: aotinductor, compiled, "),
    ("tome r=2", r"cells.1='tome r=2' is not valid"),
])  # fmt: skip
def test_a_cell_that_cannot_be_is_refused_in_one_line(cell, message):
    with pytest.raises(RequestError, match=message) as caught:
        expand(make_spec({"cells": [{"reducer": "tome", "rate": "r=4"}, cell]}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("values", "message"), [
    ({"reducers": "evit"}, r"cells stand beside reducers='evit'; write these as cells too, or leave cells out"),
    ({"flops": ["-35%"]}, r"cells stand beside flops=\['-35%'\]"),
    ({"reducer_options": {"evit": {"fuse": False}}}, r"unknown reducer in reducer_options 'evit'; known: tome"),
    ({"cells": "tome r=2"}, r"cells='tome r=2' is not valid"),
])  # fmt: skip
def test_what_does_not_go_with_cells_is_refused_in_one_line(values, message):
    with pytest.raises(RequestError, match=message):
        expand(make_spec({"cells": [{"reducer": "tome", "rate": "r=4"}], **values}))
