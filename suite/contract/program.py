"""How the program is called, for messages that tell what to type."""

from pathlib import Path

PROGRAM = "python run_bench.py" if (Path(__file__).parents[2] / "run_bench.py").is_file() else "reducerbench"
"""From a clone, or where it was installed."""
