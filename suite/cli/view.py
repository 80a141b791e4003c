"""The verb `view`: pictures of what a model makes of its tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from suite.cli.console import say, warn
from suite.cli.flags import HOW, METHODS, WHAT, asked, option, with_flags
from suite.cli.help import Verb

FREQUENT = ("task", "data", "model", "checkpoint", "reducers", "rates", "flops")
viewing = typer.Typer(help="Pictures of what a model makes of its tokens.", no_args_is_help=True)


@viewing.command("masks", cls=Verb)
@with_flags(
    frequent=FREQUENT,
    out=Annotated[Path | None, option(HOW, "Picture to write: .png, .svg or .pdf. [masks.png]")],
    samples=Annotated[str | None, option(WHAT, "Ids, by commas. [the first two]")],
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


@viewing.command("tokens", cls=Verb)
@with_flags(
    frequent=FREQUENT,
    image=Annotated[list[Path] | None, option(WHAT, "Picture file, repeatable. [two samples]")],
    samples=Annotated[str | None, option(WHAT, "Ids of the task's samples, by commas.")],
    reducers=Annotated[str | None, option(METHODS, "[tome,dtem,mctf,evit]", "--reducers", "--reducer")],
    rates=Annotated[str | None, option(METHODS, "[flops=-50%]", "--rates", "--rate")],
    blocks=Annotated[str | None, option(HOW, "3,6,9,12 (from 1), or all. [each quarter]")],
    out=Annotated[Path | None, option(HOW, "Picture to write: .png, .svg or .pdf. [tokens.png]")],
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

    Flags as for `run`; an image file needs no task. Of tasks that draw pictures: step by step, at r=0.5.
    """
    from suite.pictures.token_pictures import write_token_pictures

    file, ids = out or Path("tokens.png"), tuple(filter(None, (samples or "").split(",")))
    notes = write_token_pictures(asked(config, flags), file, images=image or (), samples=ids, blocks=blocks or "")
    for line in notes:
        warn(f"left out: {line}")
    say(f"picture: {file}")
