"""What somebody removes of a run while it goes on is named at its end, and its exit code is that of a failure."""

from __future__ import annotations

import shutil

import yaml

import suite.api as api
from suite.cli import app
from suite.cli.ending import ExitCode, outcome_of


def test_cells_that_were_removed_meanwhile_are_named_and_completed_by_the_same_command(
    tiny_run, tmp_path, capsys, monkeypatch
):
    spec = {**tiny_run, "out": str(tmp_path / "run"), "speed": False}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(spec))
    run, removed = api.run, []

    def removing(*given, **values):
        results = run(*given, **values, report=False)
        if not removed:
            removed.extend(results.cells[:2])
            shutil.rmtree(results.out / "cells" / removed[0])
            (results.out / "cells" / removed[1] / "samples.parquet").unlink()
        return results

    monkeypatch.setattr(api, "run", removing)
    codes = []
    for _ in range(2):
        codes.append(outcome_of(lambda: app.main(["run", str(tmp_path / "run.yaml")]))[0])
        said = " ".join(capsys.readouterr().err.split())
        assert (f"cell {removed[0]}: not stored" in said) == (len(codes) == 1)
        assert ("0 of 12 images stored; the same command completes it" in said) == (len(codes) == 1)
    assert codes == [ExitCode.FAILED, ExitCode.DONE]


def test_scores_are_shown_before_times_without_a_word_on_files_that_are_still_to_come(tiny_run, tmp_path, capsys):
    spec = {**tiny_run, "out": str(tmp_path / "run"), "speed": True, "speed_rounds": 2}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(spec))
    assert outcome_of(lambda: app.main(["run", str(tmp_path / "run.yaml")]))[0] == ExitCode.DONE
    said = " ".join(" ".join(capsys.readouterr()).split())
    assert "scores and costs; times follow" in said
    assert "somebody removed" not in said
    assert said.count("page, tables and plots:") == 1
