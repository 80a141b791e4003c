"""The verb `fetch`: what is too large to come with the suite, from where its authors publish it."""

from __future__ import annotations

from typing import Annotated

import typer

from suite.cli.console import err_console, say
from suite.errors import RequestError
from tasks.caption_scoring import spice_jars

THINGS = ("spice",)


def fetch_command(
    what: Annotated[str, typer.Argument(help="spice: 388 MB.")],
    source: Annotated[
        str, typer.Option("--from", envvar=spice_jars.MIRROR, help="Maven repository: an address, or a folder.")
    ] = spice_jars.CENTRAL,
) -> None:
    """Fetch what a score needs from Maven Central, check its digests and keep it in the user's cache folder.

    SPICE needs Stanford CoreNLP 3.6.0 with its models and, from Java 15 on, Nashorn. What is there stays.
    """
    from suite.sweep.progress import Progress
    from tasks.caption_scoring.scorer import package

    if what not in THINGS:
        raise RequestError(f"there is no {what!r} to fetch; known: {', '.join(THINGS)}")
    progress, folder = Progress(err_console), package()
    for jar in spice_jars.JARS:
        if (file := spice_jars.find_jar(jar, folder)) is None:
            with progress.download(jar.name, jar.size) as advance:
                file = spice_jars.fetch_jar(jar, source, advance)
        say(f"{jar.name} is in {file.parent}")
