"""Every file of a run's folder, and every field in it.

run.json           the request (RunFile)
environment.json   packages, machine and git state of the process that wrote the run first
manifest.parquet   id, label (class index, or list of reference captions) of the expected samples, in order
contents.parquet   what the samples' files held when they were read (CONTENTS)
missing.jsonl      id, path, reason of each sample that could not be read
logs/*.log         rows that are made now, of all cells and of the contents: one file a process (`suite.store.log`);
                   when the process has ended, they are joined into the Parquet files
.lock, .claims     of processes that work on the run at the same time: nothing is in them
cells/<key>/       one cell: (task, model, reducer, rate, precision), see below
exhibits/          thumbnails, views and token groups for the page; made from data and model, safe to delete
report/            page, tables and plots, made from the rest and safe to delete

A cell's folder:
cell.json          what the cell is; written before it runs (CellFile)
flops.json         multiply-accumulates per image, as `FlopReport` names them (FlopsFile)
kernels.json       what a GPU would be given to do by the backbone's forward (KernelsFile); older runs have none
samples.parquet    the task's `outcomes`, a row a sample in the manifest's order; some rows, where a run was stopped
support.parquet    the same of what samples are scored by, such as the training images of a kNN, where there is any
accuracy.json      batch_size: the largest forward that ran (smaller than asked after an out-of-memory)
scores.json        what the outcomes add up to (ScoresFile)
scores.parquet     scores of every sample, for tasks whose outcomes do not say them already
speed.json         the backbone: rates, ratios and raw rounds, runtime by runtime (SpeedFile)
single_speed.json  the same on single images, where their latency was asked for
whole_speed.json   the same of the whole model, where it is more than a backbone
elsewhere.json     the same three on other devices, of runs that were merged (ElsewhereFile)
failed.json        reason; present while the last attempt failed

All but those of report/ carry a checksum (`suite.store.sealed`), and JSON objects the version of their fields, as
"schema". What was found damaged lies beside its successor as NAME.damaged-1, and outcomes of samples that have changed
since as NAME.changed-1. Files that were written before there were checksums and contents are read as they are, and so
are samples/batch-*.parquet and contents/batch-*.parquet, in which earlier versions kept what is in logs now.
"""

from __future__ import annotations

from typing import Any, NotRequired

import pyarrow as pa
from typing_extensions import TypedDict  # pydantic needs this one below Python 3.12

SCHEMA = 5
OLDEST = 3
"""The first version that is read still (`suite.store.upgrade`); a file that does not say its own is of this one."""

CONTENTS = pa.schema(
    [
        ("id", pa.string()),
        ("stamp", pa.string()),  # sizes and times of the sample's files: if they are the same, so is the digest
        ("digest", pa.string()),  # of the bytes that were decoded
    ]
)

Number = float | None


class MetricFields(TypedDict):
    """As `Metric` names them."""

    name: str
    label: str
    aggregate: NotRequired[dict[str, Any] | None]
    lower_is_better: NotRequired[bool]
    bound_to_data: NotRequired[bool]
    largest: NotRequired[Number]
    scale: NotRequired[float]
    decimals: NotRequired[int]
    hidden: NotRequired[bool]


class CostFields(TypedDict):
    """As `Cost` names them."""

    name: str
    label: str


class TaskReportFields(TypedDict):
    """As `TaskReport` names them."""

    metrics: list[MetricFields]
    costs: list[CostFields]
    throughput: str
    remark: str
    part: NotRequired[str]


class RunFile(TypedDict):
    """run.json"""

    schema: int
    spec: dict[str, Any]  # the RunSpec that was run last
    # what all cells share and no later command may change: data, weights, versions, precision, ...
    identity: dict[str, Any]
    cells: list[str]  # keys of the cells that belong to the run
    slots: dict[str, str]  # what each of them measures
    shown: TaskReportFields  # what the task reports


class EnvironmentFile(TypedDict):
    """environment.json, as `describe_machine` names its fields"""

    packages: dict[str, str | None]
    python: NotRequired[str | None]
    cpu: NotRequired[str | None]
    os: NotRequired[str | None]
    logical_cpus: NotRequired[int | None]
    ram_bytes: NotRequired[int | None]
    gpus: NotRequired[list[dict[str, Any]] | None]
    git: NotRequired[dict[str, Any] | None]


class MissingLine(TypedDict):
    """A line of missing.jsonl"""

    id: str
    path: str
    reason: str


class CellFile(TypedDict):
    """cell.json. Its key, which names its folder, is a hash of everything that can change the cell's numbers."""

    task: str
    model: str
    weights: str  # where they came from
    weights_kind: str  # 'trained' or 'random'
    reducer: str  # registered name or path/to/file.py:ClassName
    options: dict[str, Any]  # the method's options that were set
    learned: NotRequired[str | None]  # what the method has to learn, e.g. 'embedding'; null: training-free
    # {source, sha256} of the trained weights that the method was given, and of a training by the suite {training,
    # seed}, a digest of what decided it beside the seed; null: none
    reducer_weights: NotRequired[dict[str, str] | None]
    formulation: NotRequired[str | None]  # which of several formulations of attention was run; null: it has one
    # when a dense model gets its tokens back, e.g. 'before_decoder'; null: it never does
    restore: NotRequired[str | None]
    rate: str  # as asked, e.g. 'flops=-35%'; '' for the unreduced model
    # what it came to, e.g. 'r=11'; equal to rate unless that was a FLOPs target; null: unresolved
    resolved_rate: str | None
    solved_reduction: NotRequired[Number]  # change of FLOPs that solving promised; null if nothing was solved
    # [rate, reduction] on both sides of a FLOPs target that no rate meets within one point
    neighbours: NotRequired[list[list[Any]]]
    precision: str  # fp32, fp16, bf16 or tf32
    batch_size: int  # samples in a batch
    image_size: int | None  # side in pixels; null: the model's own
    depth: int  # blocks
    tokens_in: int  # tokens that enter the first block, prefix included
    planned_counts: list[int] | None  # tokens leaving each block; null where they depend on the image
    # of merged runs: what was otherwise where the cell was made than the run's identity says, e.g. {'torch': '2.12.0'}
    circumstances: NotRequired[dict[str, Any]]


class FlopsFile(TypedDict):
    """flops.json"""

    total: float
    reducer: float
    disputed: bool
    uncounted: dict[str, int]
    further: dict[str, float]  # costs beyond the backbone's, by the names in run.json's shown.costs
    baseline_total: NotRequired[Number]  # the unreduced model's
    by_block: NotRequired[list[Any]]
    images: NotRequired[int]  # how many were counted
    untraced: NotRequired[str]  # why total is what was dispatched, "" where it is the trace's
    # percentiles over them (total is their mean) and tokens leaving the last block; null unless they depend on it
    total_p5: NotRequired[Number]
    total_p95: NotRequired[Number]
    tokens_mean: NotRequired[Number]
    tokens_p5: NotRequired[Number]
    tokens_p95: NotRequired[Number]


class KernelSums(TypedDict):
    """Of one forward of a whole batch."""

    launches: int
    moved: int  # bytes read and written
    macs: int
    host_reads: int  # times that the CPU waits for a value
    peak: int  # bytes in tensors at once, weights included


class KernelsFile(TypedDict):
    """kernels.json: a forward as a GPU would run it, traced and not measured"""

    batch_size: int
    precision: str
    on: str  # 'shapes', or 'images' where what is launched depends on their content
    reason: str  # why there is no trace, "" where there is one
    blocks: int  # how many reduce
    traced: KernelSums | None
    unreduced: KernelSums  # the unreduced model's at the same batch size and precision
    # [name, launches, bytes, multiply-accumulates, their units or '', host read, times] of every different kernel
    kernels: list[list[Any]]


class ScoreFields(TypedDict):
    """A score of a cell with its 95 % interval; where there is no value, why."""

    value: Number
    low: Number
    high: Number
    reason: str
    chance: NotRequired[Number]  # what guessing comes to; older runs do not say it


class ScoresFile(TypedDict):
    """scores.json"""

    of: str  # hash of the outcomes and scorers that the scores were made of
    scores: dict[str, ScoreFields]  # by metric
    notes: list[str]
    per_sample: NotRequired[bool]  # there is a scores.parquet


class AccuracyFile(TypedDict):
    """accuracy.json"""

    batch_size: int


class SpeedFields(TypedDict):
    """As `SpeedResult` names them."""

    runtime: str
    im_s: Number
    im_s_low: Number
    im_s_high: Number
    speedup: Number
    speedup_low: Number
    speedup_high: Number
    batch_size: NotRequired[int | None]
    precision: NotRequired[str | None]
    device: NotRequired[str | None]
    peak_memory_bytes: NotRequired[Number]
    aa_low: NotRequired[Number]
    aa_high: NotRequired[Number]
    noisy: NotRequired[bool | None]
    note: NotRequired[str | None]
    # since schema 5; the fastest runtime is the unreduced model's, of those in the same file
    speedup_fastest: NotRequired[Number]
    speedup_fastest_low: NotRequired[Number]
    speedup_fastest_high: NotRequired[Number]
    fastest_runtime: NotRequired[str | None]
    latency_p50_ms: NotRequired[Number]
    latency_p90_ms: NotRequired[Number]
    latency_p99_ms: NotRequired[Number]
    forwards: NotRequired[int]
    energy_j: NotRequired[Number]
    compile_s: NotRequired[Number]
    first_s: NotRequired[Number]
    attention: NotRequired[str | None]
    reads_map: NotRequired[bool]
    tf32: NotRequired[str | None]
    source: NotRequired[str]  # digest of the runtime's code


class SpeedFile(TypedDict):
    """speed.json, single_speed.json and whole_speed.json; all of a file was timed in the same rounds."""

    runtimes: dict[str, SpeedFields]  # by the runtime's name


class ElsewhereFile(TypedDict):
    """elsewhere.json: what was timed on other devices than the run's tables show"""

    devices: dict[str, dict[str, dict[str, SpeedFields]]]  # by the device, the name of the file, and the runtime's


class FailedFile(TypedDict):
    """failed.json"""

    reason: str


CELL_FILES = {
    "cell": CellFile,
    "flops": FlopsFile,
    "kernels": KernelsFile,
    "accuracy": AccuracyFile,
    "scores": ScoresFile,
    "speed": SpeedFile,
    "single_speed": SpeedFile,
    "whole_speed": SpeedFile,
    "elsewhere": ElsewhereFile,
    "failed": FailedFile,
}
TIMINGS = ("speed", "single_speed", "whole_speed")
"""Those of them that hold timings."""
