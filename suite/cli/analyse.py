"""The verb `analyse`: what the DTEM paper finds out about its method, found out again; what lower precisions do."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reports.tables.console import fields_of
from suite.cli.console import err_console, print_table, say, warn
from suite.cli.ending import ExitCode
from suite.cli.help import Verb
from suite.cli.train import EXTRA
from suite.cli.values import parse_names, parse_numbers, parse_options, parse_settings
from suite.errors import RequestError

if TYPE_CHECKING:
    from suite.analyse.bench import Bench
    from suite.analyse.sheet import Sheet

analysing = typer.Typer(help="What training brings, what lower precisions do.", no_args_is_help=True)

TaskName = Annotated[str, typer.Option(help="Task: see `list tasks`.")]
Data = Annotated[str | None, typer.Option(help="Folder, zip or tar of the data to measure on.")]
TrainData = Annotated[str | None, typer.Option(help="Folder, zip or tar of the data to train on.")]
Model = Annotated[str, typer.Option(help="See `list models`. [the task's own]")]
Checkpoint = Annotated[str, typer.Option(help="pretrained, none (random weights), FILE, or FILE::MODEL_IN_IT.")]
TaskOption = Annotated[list[str] | None, typer.Option(help="OPTION=VALUE, repeatable.")]
Reducers = Annotated[str, typer.Option(help="As for `run`.")]
Rates = Annotated[str | None, typer.Option(help="As for `run`. [flops=-35%]")]
FlopsChanges = Annotated[str | None, typer.Option(help="Changes of total FLOPs: --flops=-35%,-50%.")]
ReducerWeights = Annotated[list[str] | None, typer.Option(help="FILE or NAME=FILE: what a reducer learned.")]
ReducerOption = Annotated[list[str] | None, typer.Option(help="NAME.OPTION=VALUE, repeatable.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Images in a batch.")]
Flops = Annotated[str, typer.Option(help="Changes of total FLOPs: --flops=-35%,-50%.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Samples to measure on, evenly spaced over the data. [all]")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or auto.")]
Workers = Annotated[int | None, typer.Option(min=0, help="Processes that read images.")]
Seeds = Annotated[str, typer.Option(help="Seeds of the trainings, separated by commas.")]
TrainLimit = Annotated[int | None, typer.Option(min=1, help="Samples to train on. [all]")]


@analysing.command("correlation", cls=Verb)
def correlation_command(
    task: TaskName = "scenes",
    data: Data = None,
    model: Model = "",
    checkpoint: Checkpoint = "",
    weights: Annotated[
        list[str] | None, typer.Option(help="Trained embedding: FILE, embedded, or none; repeatable. [embedded]")
    ] = None,
    rate: Annotated[str, typer.Option(help="How much is merged: r=16, flops=-50%, ...")] = "r=16",
    draws: Annotated[int, typer.Option(min=0, help="Random maps to compare with.")] = 4,
    limit: Annotated[int, typer.Option(min=1, help="Images, evenly spaced over the data.")] = 100,
    task_option: TaskOption = None,
    batch_size: BatchSize = 32,
    device: Device = "auto",
    workers: Workers = None,
    out: Annotated[str, typer.Option(help="Folder. [results/analyse/correlation-TASK-MODEL]")] = "",
) -> None:
    """Rank correlation of similarities by keys and by the embedding, block by block, before and after training."""
    from suite.analyse.correlation import correlate
    from suite.rates.rate import parse_rate
    from suite.sweep.progress import Progress
    from suite.sweep.spec import make_spec

    options = parse_options(task_option, "--task-option") if task_option else {}
    spec = make_spec({
        "task": task, "data": data, "model": model, "checkpoint": checkpoint, "limit": limit, "device": device,
        "workers": workers, "batch_size": batch_size, "task_options": options,
    })  # fmt: skip
    folder = folder_of(out, "correlation", task, spec.model)
    found = correlate(spec, tuple(weights or ("embedded",)), parse_rate(rate), draws, folder, Progress(err_console))
    show(found, folder)


@analysing.command("drift", cls=Verb)
def drift_command(
    task: TaskName = "scenes",
    data: Data = None,
    model: Model = "",
    checkpoint: Checkpoint = "",
    reducers: Reducers = "tome,tofu,pitome,dtem,mctf,evit",
    rates: Rates = None,
    flops: FlopsChanges = None,
    reducer_weights: ReducerWeights = None,
    reducer_option: ReducerOption = None,
    task_option: TaskOption = None,
    precisions: Annotated[str, typer.Option(help="What is compared with fp32.")] = "bf16,fp16,tf32",
    limit: Limit = None,
    batch_size: BatchSize = 64,
    device: Device = "auto",
    workers: Workers = None,
    out: Annotated[str, typer.Option(help="Folder. [results/analyse/drift-TASK-MODEL]")] = "",
) -> None:
    """Scores and answers in bf16, fp16 and TF32 beside those in float32, paired, for each method and the bare model."""
    from suite.analyse.drift import measure_drift
    from suite.cli.flags import asked
    from suite.sweep.progress import Progress
    from suite.sweep.spec import make_spec

    values = asked(None, {
        "task": task, "data": data, "model": model, "checkpoint": checkpoint, "reducers": reducers, "rates": rates,
        "flops": flops or (None if rates else "-35%"), "reducer_weights": reducer_weights,
        "reducer_option": reducer_option, "task_option": task_option, "limit": limit, "batch_size": batch_size,
        "device": device, "workers": workers,
    })  # fmt: skip
    folder = folder_of(out, "drift", task, make_spec(values).model)
    show(measure_drift(values, parse_names(precisions), folder, Progress(err_console)), folder)


@analysing.command("patterns", cls=Verb)
def patterns_command(
    task: TaskName = "scenes",
    data: Data = None,
    model: Annotated[str, typer.Option(help="One or more of one grid of patches: A,B. [the task's own]")] = "",
    checkpoint: Checkpoint = "",
    reducers: Reducers = "tome,tofu,pitome,dtem,mctf,evit,topk,random",
    rates: Rates = None,
    flops: FlopsChanges = None,
    reducer_weights: ReducerWeights = None,
    reducer_option: ReducerOption = None,
    task_option: TaskOption = None,
    images: Annotated[int, typer.Option(min=1, help="Images whose groups are compared.")] = 32,
    limit: Limit = None,
    batch_size: BatchSize = 64,
    device: Device = "auto",
    workers: Workers = None,
    out: Annotated[str, typer.Option(help="Folder. [results/analyse/patterns-TASK-MODEL]")] = "",
) -> None:
    """How alike methods, rates or models keep and group patches by block, and whether those alike score alike."""
    from suite.analyse.patterns import compare_patterns
    from suite.cli.flags import asked
    from suite.sweep.progress import Progress
    from tasks import task_class

    models = parse_names(model) if model else (task_class(task).default_model,)
    values = asked(None, {
        "task": task, "data": data, "checkpoint": checkpoint or None, "reducers": reducers, "rates": rates,
        "flops": flops or (None if rates else "-35%"), "reducer_weights": reducer_weights,
        "reducer_option": reducer_option, "task_option": task_option, "limit": limit, "batch_size": batch_size,
        "device": device, "workers": workers,
    })  # fmt: skip
    folder = folder_of(out, "patterns", task, "+".join(models))
    show(compare_patterns(values, models, images, folder, Progress(err_console)), folder)


def on_a_bench(analysis: Callable[..., "Sheet"]) -> Callable[..., None]:
    """A command that gives `analysis(bench, settings, ...)` its bench and a recipe's settings, from flags that all such
    commands share and the recipe's own, and shows what comes of it.
    """
    own = [*inspect.signature(analysis).parameters.values()][2:]
    shared = [*inspect.signature(bench_of).parameters.values()][1:]
    parameters = {
        "context": inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context),
        **{one.name: one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in (*shared, *own)},
    }

    def command(context: typer.Context, **flags: Any) -> None:
        bench = bench_of(analysis.__name__, **{one.name: flags.pop(one.name) for one in shared})
        show(analysis(bench, dict(parse_settings(context.args)), **flags), bench.out)

    command.__doc__ = analysis.__doc__
    vars(command)["__signature__"] = inspect.Signature(list(parameters.values()))
    command.__annotations__ = {name: parameter.annotation for name, parameter in parameters.items()}
    analysing.command(analysis.__name__, cls=Verb, context_settings=EXTRA)(command)
    return command


def bench_of(
    name: str,
    task: TaskName = "scenes",
    data: Data = None,
    train_data: TrainData = None,
    model: Model = "",
    checkpoint: Checkpoint = "",
    flops: Flops = "-35%,-50%,-60%",
    limit: Limit = None,
    task_option: TaskOption = None,
    device: Device = "auto",
    workers: Workers = None,
    out: Annotated[str, typer.Option(help="Folder. [results/analyse/ANALYSIS-TASK-MODEL]")] = "",
) -> "Bench":
    """Where the analysis `name` trains and measures."""
    from suite.analyse.bench import Bench
    from suite.rates.rate import parse_target
    from suite.sweep.progress import Progress
    from suite.sweep.spec import split_list
    from tasks import task_class

    model = model or task_class(task).default_model
    options = parse_options(task_option, "--task-option") if task_option else {}
    targets = tuple(map(parse_target, split_list(flops.strip(" ,"))))
    if not targets:
        raise RequestError("--flops names nothing; write for example --flops=-35%,-50%")
    return Bench(
        task=task, data=data, train_data=train_data, model=model, checkpoint=checkpoint, task_options=options,
        flops=targets, train_limit=None, limit=limit, device=device, workers=workers,
        out=folder_of(out, name, task, model), progress=Progress(err_console),
    )  # fmt: skip


@on_a_bench
def ablation(
    bench: "Bench", settings: dict[str, Any], seeds: Seeds = "0,1,2", train_limit: TrainLimit = None
) -> "Sheet":
    """Train ToMe, soft merging by keys, and DTEM end to end on one budget, and compare them at the same FLOPs.

    Every number of DTEM's recipe is a flag, for all three alike: `list recipes dtem`, e.g. --steps 250.
    """
    from suite.analyse.ablation import ablate

    return ablate(replace(bench, train_limit=train_limit), settings, parse_numbers(seeds, "--seeds", least=0))


@on_a_bench
def data(
    bench: "Bench",
    settings: dict[str, Any],
    samples: Annotated[str, typer.Option(help="Sizes of the training set.")] = "256,1024,4096",
    updates: Annotated[str, typer.Option(help="Numbers of updates.")] = "25,100,250",
    seeds: Seeds = "0",
) -> "Sheet":
    """Train DTEM's embedding on more and more samples and updates, and compare with training-free ToMe.

    Every number of DTEM's recipe is a flag: `list recipes dtem`.
    """
    from suite.analyse.data import grow

    sizes, steps = parse_numbers(samples, "--samples"), parse_numbers(updates, "--updates")
    return grow(bench, settings, sizes, steps, parse_numbers(seeds, "--seeds", least=0))


@on_a_bench
def trained(
    bench: "Bench",
    settings: dict[str, Any],
    methods: Annotated[str, typer.Option(help="Methods to train.")] = "dtem,mctf,tome,dtps,diffrate",
    free: Annotated[str, typer.Option(help="Methods to measure as they are.")] = "tome,mctf,etps",
    against: Annotated[str, typer.Option(help="What differences are taken to: NAME, or 'NAME trained'.")] = "tome",
    seeds: Seeds = "0,1,2",
    train_limit: TrainLimit = None,
) -> "Sheet":
    """Train methods by their recipes and compare them with each other and with untrained ones at the same FLOPs.

    Numbers that all their recipes have are flags: --steps 100. Another --against costs nothing more.
    """
    from suite.analyse.trained import compare_trained
    from suite.sweep.spec import split_list

    bench, names = replace(bench, train_limit=train_limit), (split_list(methods), split_list(free))
    return compare_trained(bench, settings, *names, against, parse_numbers(seeds, "--seeds", least=0))


def folder_of(out: str, name: str, task: str, model: str) -> Path:
    return Path(out) if out else Path("results") / "analyse" / f"{name}-{task}-{model}"


def show(sheet: "Sheet", folder: Path | None) -> None:
    """Print an analysis, write it where a folder is given, and say where its files are."""
    from suite.analyse.sheet import write_sheet

    files = write_sheet(sheet, folder) if folder else []
    fields = fields_of(sheet.headers, sheet.lines, sheet.names, words=sheet.names)
    begins = [line[0] for line in sheet.lines]
    sections = {i: "" for i in range(1, len(begins)) if sheet.grouped and begins[i] != begins[i - 1]}
    print_table(fields, title=sheet.title, notes=sheet.notes, sections=sections, numbers=sheet.records)
    if files:
        say(f"written: {', '.join(str(file) for file in files)}")
    for reason in sheet.failed:
        warn(f"failed: {reason}", style="red")
    if sheet.failed:
        raise typer.Exit(ExitCode.FAILED)
