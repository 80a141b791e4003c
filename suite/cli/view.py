"""The verb `view`: pictures of what a model makes of its tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from suite.cli.console import say, warn
from suite.cli.flags import asked, with_flags

viewing = typer.Typer(help="Pictures of what a model makes of its tokens.", no_args_is_help=True)


@viewing.command("masks")
@with_flags(
    out=Annotated[Path | None, typer.Option(help="Picture to write: .png, .svg or .pdf. [masks.png]")],
    samples=Annotated[str | None, typer.Option(help="Ids, separated by commas. [the first two]")],
)
def view_masks_command(
    config: Path | None = None, out: Path | None = None, samples: str | None = None, **flags: Any
) -> None:
    """Image, truth, predictions without and with reduction, and token groups, side by side for chosen samples.

    Flags as for `run`; without rates, merge=0.5, and without reducers, tome.
    """
    from suite.pictures.mask_pictures import write_mask_pictures

    file = out or Path("masks.png")
    for line in write_mask_pictures(asked(config, flags), tuple(filter(None, (samples or "").split(","))), file):
        warn(f"left out: {line}")
    say(f"picture: {file}")


@viewing.command("tokens")
@with_flags(
    image=Annotated[list[Path] | None, typer.Option(help="Picture file, repeatable. [the task's first two samples]")],
    samples=Annotated[str | None, typer.Option(help="Ids of the task's samples, separated by commas.")],
    reducers=Annotated[str | None, typer.Option("--reducers", "--reducer", help="As for `run`. [tome,dtem,mctf,evit]")],
    rates=Annotated[str | None, typer.Option("--rates", "--rate", help="As for `run`. [flops=-50%]")],
    blocks=Annotated[str | None, typer.Option(help="3,6,9,12 (from 1), or all. [each quarter of the depth]")],
    out=Annotated[Path | None, typer.Option(help="Picture to write: .png, .svg or .pdf. [tokens.png]")],
)
def view_tokens_command(
    config: Path | None = None,
    image: list[Path] | None = None,
    samples: str | None = None,
    blocks: str | None = None,
    out: Path | None = None,
    **flags: Any,
) -> None:
    """What methods make of an image's tokens: groups in their mean colour with borders, side by side, block by block.

    Flags as for `run`; an image file needs no task.
    """
    from suite.pictures.token_pictures import write_token_pictures

    file, ids = out or Path("tokens.png"), tuple(filter(None, (samples or "").split(",")))
    notes = write_token_pictures(asked(config, flags), file, images=image or (), samples=ids, blocks=blocks or "")
    for line in notes:
        warn(f"left out: {line}")
    say(f"picture: {file}")
