"""Trains what comes with the embedded models: `python -m suite.train.embedded.reducers --cache FOLDER`.

It goes on where it was interrupted. The models themselves are made by `suite.train.embedded.classifier`,
`captioner` and `segmenter`; `make weights` runs all four.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file

from suite.attachment.reducer_weights import about, write_tensors
from suite.measure.heap import keep_freed_memory
from suite.models.shipped import FOLDER
from suite.sweep.progress import Progress
from suite.train.run import Request, train_method
from tasks import task_class

SHIPPED = (
    *(("scenes", method) for method in ("dtem", "mctf", "tome", "dtps", "diffrate")),
    ("scenes-caption", "dtem"),
    ("scenes-seg", "dtem"),
)


def write_as_shipped(made: Path, file: Path) -> None:
    """A copy of a trained file in half precision: a file of 1 MB holds twice as much."""
    tensors = load_file(made)
    halved = {name: value.half() if value.dtype == torch.float32 else value for name, value in tensors.items()}
    write_tensors(file, halved, **about(made))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, required=True, help="folder for checkpoints and logs")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the weights; default: in the suite")
    parser.add_argument("--only", default="", help="TASK/METHOD; default: all")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    for task, method in SHIPPED:
        if args.only in ("", f"{task}/{method}"):
            model = task_class(task).default_model
            request = Request(method, task, workers=0, out=str(args.cache / f"{task}-{method}"))
            made = train_method(request, {}, Progress())
            write_as_shipped(made.weights, args.out / model / f"{method}.safetensors")


if __name__ == "__main__":
    main()
