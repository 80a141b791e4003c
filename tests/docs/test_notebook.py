"""examples/first_steps.ipynb runs from its first cell to its last, and is kept with what it shows."""

from __future__ import annotations

import json
import sys

import pytest

from tests.docs.pages import ROOT

FILE = ROOT / "examples" / "first_steps.ipynb"


def test_the_notebook_is_kept_with_its_pictures_and_without_errors():
    cells = [cell for cell in json.loads(FILE.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert [cell["execution_count"] for cell in cells] == [*range(1, len(cells) + 1)]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(FILE, as_version=4)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": sys.executable}
    done = nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    texts = [output.get("text", "") for cell in done.cells for output in cell.get("outputs", ())]
    assert "tokens leaving each block: [184, 171, 158" in "".join(texts)
