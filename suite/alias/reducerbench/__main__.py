"""`python -m reducerbench` is `python run_bench.py` of what is installed."""

from reducerbench import main

if __name__ == "__main__":
    main()
