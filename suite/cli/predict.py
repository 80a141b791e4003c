"""The verb `predict`: which method pays on which GPU, before there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from suite.cli.analyse import show
from suite.cli.console import err_console
from suite.cli.flags import asked
from suite.cli.values import parse_names, parse_numbers
from suite.errors import RequestError
from suite.measure.prediction.gpus import GPUS

Gpu = Annotated[str, typer.Option(help=f"Of {', '.join(GPUS)}: a,b.")]


def predict_command(
    gpu: Gpu = "h100",
    model: Annotated[str, typer.Option(help="Names, see `list models`: a,b. No weights are needed.")] = (
        "deit_small_patch16_224"
    ),
    reducers: Annotated[str | None, typer.Option(help="As for `run`. [a selection]")] = None,
    rates: Annotated[str | None, typer.Option(help="As for `run`. [flops=-35%]")] = None,
    flops: Annotated[str | None, typer.Option(help="Changes of total FLOPs: --flops=-35%,-50%.")] = None,
    batch: Annotated[str, typer.Option("--batch", "--batch-size", help="Images in a batch: 1,64,256.")] = "256",
    precision: Annotated[str, typer.Option(help="fp32, fp16 or bf16.")] = "bf16",
    tf32: Annotated[bool, typer.Option("--tf32/--no-tf32", help="Products of float32 may run in TF32.")] = False,
    image_size: Annotated[int | None, typer.Option(help="Side in pixels. [the model's own]")] = None,
    reducer_file: Annotated[list[str] | None, typer.Option(help="path/to/file.py:Name, beside --reducers.")] = None,
    reducer_option: Annotated[list[str] | None, typer.Option(help="NAME.OPTION=VALUE, repeatable.")] = None,
    fit: Annotated[bool, typer.Option("--fit", help="Fit the parameters on published speeds anew; minutes.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder: table, records, and a plot of the fit. [none]")] = None,
) -> None:
    """Predict time, im/s, speed-up, efficiency and what binds, with error bands, from shapes alone: no GPU is needed.

    A roofline over the kernels that a forward launches: data sheets give its parameters, published speeds what is
    reached of them. --fit shows how well those come out, and keeps the fit in --out.
    """
    from suite.sweep.progress import Progress

    progress = Progress(err_console)
    if fit:
        from suite.analyse.prediction.fit_sheet import fit_published

        folder = out or Path("results") / "predict"
        show(fit_published(folder, progress), folder)
        return
    from suite.analyse.prediction.predict import predict
    from suite.sweep.spec import make_spec

    flags: dict[str, Any] = {
        "reducers": reducers, "rates": rates, "flops": "-35%" if rates is None and flops is None else flops,
        "precision": precision, "image_size": image_size, "reducer_file": reducer_file,
        "reducer_option": reducer_option,
    }  # fmt: skip
    specs = [make_spec(asked(None, {**flags, "model": name})) for name in named(model, "--model")]
    batches = parse_numbers(batch, "--batch", example="1,64,256")
    show(predict(specs, named(gpu, "--gpu"), batches, tf32, progress), out)


def named(text: str, flag: str) -> list[str]:
    """The different names of a list. RequestError where it names nothing."""
    names = list(dict.fromkeys(parse_names(text)))
    if not names:
        raise RequestError(f"{flag} {text!r} names nothing; write {flag} NAME or {flag} NAME,NAME")
    return names
