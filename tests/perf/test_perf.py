"""What measures the program still runs, on little: its figures are printed, not asserted."""

import subprocess
import sys

import pytest

COMMANDS = {
    "sweep": ["--images", "128", "--cells", "2", "--forward-ms", "1"],
    "ray_driver": ["--workers", "1", "--images", "128", "--cells", "2"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_measurement_runs_and_prints_its_figures(name):
    if name == "ray_driver":
        pytest.importorskip("ray")
    command = [sys.executable, "-m", f"tests.perf.{name}", *COMMANDS[name]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert {"sweep": "sweep over forwards", "ray_driver": "ms a record"}[name] in done.stdout
