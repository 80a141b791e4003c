"""Optional sinks for what a run finds: TensorBoard, MLflow, Weights & Biases.

The store is the record; a tracker gets a copy once the cells are finished. Whatever goes wrong in one is said in one
line and stops nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from operator import methodcaller
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from suite.errors import describe_error, unknown

LABELS = (
    "task",
    "model",
    "weights",
    "restore",
    "reducer",
    "training",
    "options",
    "rate",
    "resolved_rate",
    "precision",
    "batch_size",
    "runtime",
)


class Tracker(Protocol):
    """A sink. It is opened before the run with `config`, the keys and values of its spec, and the run's folder."""

    name: str

    def open(self, config: dict[str, Any], out: Path) -> None: ...

    def cell(self, key: str, labels: dict[str, str], numbers: dict[str, float]) -> None:
        """One finished cell: what it is, and its scores, cost and speed, by the names of the frame's columns."""

    def pictures(self, files: Sequence[Path]) -> None:
        """The report's PNG files."""

    def close(self) -> None: ...


class TensorBoard:
    """A row of the HPARAMS tab per cell, in the run's report/tensorboard, beside earlier runs of the same folder."""

    name = "tensorboard"
    writer: Any  # opened with the first cell

    def open(self, config: dict[str, Any], out: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # the writer makes its folder at once, and a folder that is not empty is no place for a new run
        folder = out / "report" / "tensorboard" / datetime.now().strftime("%Y%m%d-%H%M%S")
        self.config, self.writer = config, None
        self.start: Callable[[], Any] = lambda: SummaryWriter(str(folder))

    def open_writer(self) -> Any:
        if self.writer is None:
            self.writer = self.start()
            self.writer.add_text("spec", f"```json\n{json.dumps(self.config, indent=1, sort_keys=True)}\n```")
        return self.writer

    def cell(self, key: str, labels: dict[str, str], numbers: dict[str, float]) -> None:
        self.open_writer().add_hparams(labels, numbers, run_name=key)

    def pictures(self, files: Sequence[Path]) -> None:
        import numpy as np
        from PIL import Image

        for file in files:
            with Image.open(file) as image:
                self.open_writer().add_image(file.stem, np.asarray(image.convert("RGB")), dataformats="HWC")

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


class MLflow:
    """A run per cell below one of the sweep; where to is MLflow's own setting (MLFLOW_TRACKING_URI, ...)."""

    name = "mlflow"

    def open(self, config: dict[str, Any], out: Path) -> None:
        import mlflow

        self.mlflow = mlflow
        self.client = mlflow.MlflowClient()
        self.experiment = mlflow.set_experiment("reducerbench").experiment_id
        self.sweep = self.client.create_run(self.experiment, run_name=out.name).info.run_id
        for name, value in config.items():
            self.client.log_param(self.sweep, name, value)

    def cell(self, key: str, labels: dict[str, str], numbers: dict[str, float]) -> None:
        tags = {"mlflow.parentRunId": self.sweep, "cell": key}
        name = " ".join(filter(None, (labels["reducer"], labels["rate"])))
        run = self.client.create_run(self.experiment, tags=tags, run_name=name).info.run_id
        for label, text in labels.items():
            self.client.log_param(run, label, text)
        for metric, number in numbers.items():
            self.client.log_metric(run, metric, number)
        self.client.set_terminated(run)

    def pictures(self, files: Sequence[Path]) -> None:
        for file in files:
            self.client.log_artifact(self.sweep, str(file), "report")

    def close(self) -> None:
        self.client.set_terminated(self.sweep)


class Wandb:
    """One run with a table of the cells, a row each, and a history of them to plot; WANDB_MODE=offline is respected."""

    name = "wandb"

    def open(self, config: dict[str, Any], out: Path) -> None:
        import os

        import wandb

        # without a login it would ask for one and wait
        if os.environ.get("WANDB_MODE", "online") == "online" and not wandb.login(prompt=False):
            raise RuntimeError("nobody is logged in; run 'wandb login' or set WANDB_MODE=offline")
        self.wandb = wandb
        self.rows: list[Any] = []
        settings = wandb.Settings(silent=True, console="off", init_timeout=30)
        self.run = wandb.init(project="reducerbench", name=out.name, config=config, settings=settings)

    def cell(self, key: str, labels: dict[str, str], numbers: dict[str, float]) -> None:
        self.rows.append({"cell": key, **labels, **numbers})
        self.run.log(self.rows[-1])

    def pictures(self, files: Sequence[Path]) -> None:
        self.run.log({file.stem: self.wandb.Image(str(file)) for file in files})

    def close(self) -> None:
        if self.rows:
            self.run.log({"cells": self.wandb.Table(dataframe=pd.DataFrame(self.rows))})
        self.run.finish()


TRACKERS: dict[str, Callable[[], Tracker]] = {cls.name: cls for cls in (TensorBoard, MLflow, Wandb)}


class Tracking:
    """The trackers of one run. One that raises is named by `note`, once, and left alone from then on."""

    def __init__(
        self, trackers: str | Iterable[str | Tracker], config: dict[str, Any], out: Path, note: Callable[[str], None]
    ) -> None:
        """trackers: names of TRACKERS, as a list or 'a,b', or sinks of one's own.

        RequestError for a name that is not known; whatever else goes wrong, `note` says.
        """
        self.note, self.alive = note, {}
        config = {
            name: value if isinstance(value, int | float | str) else json.dumps(value) for name, value in config.items()
        }
        listed = trackers.split(",") if isinstance(trackers, str) else trackers
        for tracker in [make_tracker(one) for one in listed]:
            self.alive[tracker.name] = tracker
        self.each(lambda tracker: tracker.open(config, out))

    def each(self, act: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self.alive.items()):
            try:
                act(tracker)
            except ModuleNotFoundError as error:
                remedy = f"{error.name} is not installed; pip install 'reducerbench[trackers]'"
                self.note(f"tracker {name}: {remedy}; the run goes on without it")
                del self.alive[name]
            except Exception as error:  # a sink must not cost the run
                self.note(f"tracker {name}: {describe_error(error)}; the run goes on without it")
                del self.alive[name]

    def hand_over(self, frame: pd.DataFrame, pictures: Sequence[Path]) -> None:
        """Hand over the cells of a frame (see `reports.frame.load_frame`) that are done, and pictures."""
        for key, row in frame[frame.status == "done"].iterrows():
            hand_over = methodcaller("cell", key, labels_of(row), numbers_of(frame, row))
            self.each(hand_over)
        self.each(lambda tracker: tracker.pictures(pictures))

    def close(self) -> None:
        self.each(lambda tracker: tracker.close())


def make_tracker(tracker: str | Tracker) -> Tracker:
    """The tracker of that name; a sink of one's own as it is. RequestError for an unknown name."""
    if not isinstance(tracker, str):
        return tracker
    if tracker.strip() not in TRACKERS:
        raise unknown("tracker", tracker.strip(), TRACKERS)
    return TRACKERS[tracker.strip()]()


def labels_of(row: pd.Series) -> dict[str, str]:
    return {name: str(row[name]) for name in LABELS}


def numbers_of(frame: pd.DataFrame, row: pd.Series) -> dict[str, float]:
    """What is known of the frame's numeric columns; what is not is left out."""
    numeric = [
        name
        for name in frame
        if name not in LABELS and is_numeric_dtype(frame[name]) and not is_bool_dtype(frame[name])
    ]
    return {name: float(row[name]) for name in numeric if pd.notna(row[name])}
