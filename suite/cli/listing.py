"""The verb `list`: what there is."""

from __future__ import annotations

import inspect
from contextlib import suppress
from typing import Annotated, Any

import typer

from reports.tables.console import fields_of
from suite.cli.console import print_lines, print_table
from suite.cli.ending import ExitCode
from suite.cli.help import Verb
from suite.contract.baseline import BASELINE
from suite.contract.declarations import DeclarationError, declared
from suite.contract.plugins import installed

listing = typer.Typer(help="What there is: reducers, models, tasks, recipes.", invoke_without_command=True)


@listing.callback()
def list_command(
    context: typer.Context,
    check: Annotated[str | None, typer.Option(help="NAME or path.py:Name: run the contract tests on it.")] = None,
) -> None:
    """What there is: reducers, models, tasks. --check proves a reducer of your own against the contract of all."""
    if check is not None:
        from suite.gate.contract_tests import check_reducer

        raise typer.Exit(ExitCode.FAILED if check_reducer(check) else ExitCode.DONE)
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@listing.command("reducers", cls=Verb)
def list_reducers_command() -> None:
    """Registered reducers: what they need, the rates they take and their options."""
    lines = []
    for name, cls in declared_reducers().items():
        rates = ", ".join((*cls.rates, "flops")) if cls.rates else "–"
        training = f"needs training: {cls.learned}" if cls.learned else "training-free"
        options = {key: parameter.default for key, parameter in inspect.signature(cls).parameters.items()}
        written = ", ".join(f"{key}={value!r}" for key, value in options.items())
        about = (cls.__doc__ or "").split("\n\n")[0].replace("\n", " ")
        lines.append([name, training, rates, written or "–", " ".join(about.split())])
    print_table(fields_of(("Reducer", "Training", "Rates", "Options", "What it does"), lines))


def declared_reducers() -> dict[str, Any]:
    """Registered reducers in the order of `list_all_reducers`: as their files declare them.

    Where a plug-in is installed, or a file can only be run, the classes themselves.
    """
    if not installed("reducer"):
        with suppress(DeclarationError):
            found = declared("suite.reducers", "suite.reducers.base:Reducer")
            return {name: found[name] for name in sorted(found, key=lambda name: (name != BASELINE, name))}
    from suite.reducers import list_all_reducers, reducer_class

    return {name: reducer_class(name) for name in list_all_reducers()}


@listing.command("models", cls=Verb)
def list_models_command(pattern: Annotated[str, typer.Argument(help="Wildcard.")] = "*") -> None:
    """Models, one a line, marked where they come with weights. A GIT model's id on the hub is a name, too.

    Last, Vision Transformers of timm that cannot be reduced, and why.
    """
    from suite.models.registry import list_models, list_refused

    rows = [(name, origin, "") for name, origin in list_models(pattern)]
    rows += [(name, "", reason) for name, reason in list_refused(pattern)]
    print_lines(
        ("model", "weights", "refused"), rows,
        lambda name, origin, reason: f"{name}  ({origin or f'not supported: {reason}'})" if origin or reason else name,
    )  # fmt: skip


@listing.command("tasks", cls=Verb)
def list_tasks_command() -> None:
    """Tasks."""
    from tasks import list_tasks, outlines

    about = {name: (outlines()[name].__doc__ or "").strip().split("\n")[0] for name in list_tasks()}
    print_lines(("task", "about"), [*about.items()], lambda name, line: f"{name}: {line}")


@listing.command("recipes", cls=Verb)
def list_recipes_command(
    method: Annotated[str | None, typer.Argument(help="Show the numbers of this recipe.")] = None,
) -> None:
    """Methods that can be trained, and the numbers of their recipes."""
    from suite.train.recipe import REGISTERED, list_recipes, make_recipe

    headers: tuple[str, ...]
    lines: list[list[str]] = []
    if method is None:
        headers = ("Method", "Trains", "On", "Numbers are from")
        for name in list_recipes():
            recipe = make_recipe(name)
            trains = "the whole model" if recipe.backbone else "the method alone"
            lines.append([name, trains, ", ".join(recipe.kinds), recipe.source])
    else:
        recipe = make_recipe(method)
        about = {name: field.description or "" for name, field in REGISTERED[method].model_fields.items()}
        headers = ("Flag", "Default", "What it is")
        for name, value in recipe.meant().items():
            lines.append([f"--{name.replace('_', '-')}", "none" if value is None else str(value), about[name]])
    print_table(fields_of(headers, lines))
