#!/usr/bin/env python3
"""Benchmark of token reduction in Vision Transformers. `python run_bench.py` runs the embedded default."""

from suite.cli.program import main

if __name__ == "__main__":
    main()
