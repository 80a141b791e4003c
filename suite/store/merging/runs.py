"""Runs of one model on the same samples become one run: their cells side by side, a cell of several once.

What is merged stays as it is, and the new folder is there whole or not at all. Outcomes, costs and scores are copied
with their checksums. Exhibits and the report are left out: `report` makes them again.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from suite.errors import RequestError
from suite.store.folder import ENVIRONMENT, MANIFEST, RUN, RunFolder
from suite.store.merging.agreement import Source, check_agreement, join_contents, read_samples
from suite.store.merging.cells import Held, choose, write_cell, write_circumstances
from suite.store.merging.timings import Timed, join_timings, main_device, read_timings, write_timings
from suite.store.schema import CONTENTS, SCHEMA

Further = Callable[[dict[str, Any]], Timed]
"""What is known of the speed of a cell, by its cell.json, from elsewhere than its runs."""


@dataclass
class Merged:
    """What became of the runs. cells: of the new run. joined: those of them whose outcomes are from several runs.
    unscored: of these, the ones that are complete now. device: whose speeds the tables show; apart: the other devices.
    """

    cells: list[str] = field(default_factory=list)
    joined: list[str] = field(default_factory=list)
    unscored: list[str] = field(default_factory=list)
    device: str | None = None
    apart: list[str] = field(default_factory=list)


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder that has the place of `out` once all is in it. RequestError where something is there."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RequestError(f"--out {str(out)!r} is there already and not empty; give a new folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as above:
        made = Path(above) / out.name
        yield made
        made.replace(out)


def merge_runs(
    runs: Sequence[Path],
    made: Path,
    out: Path,
    allowed: Collection[str] = (),
    preferred: Path | None = None,
    further: Sequence[Further] = (),
) -> Merged:
    """Write the run that `runs` come to into the folder `made`, which will be `out`; it says of itself what the first
    run does.

    allowed: what of their identities may differ (`agreement.ALLOWED`). preferred: the run whose cell is taken where two
    are not the same. RequestError for whatever cannot be merged.
    """
    sources = [Source(one, one.read_run()) for one in map(RunFolder, runs)]
    check_agreement(sources, allowed)
    first = next((one for one in sources if one.folder.path == preferred), None)
    folder, run, samples = RunFolder(made), sources[0].run, read_samples(sources)
    ids = samples["id"].to_pylist()
    contents = pa.Table.from_pylist(join_contents(sources), schema=CONTENTS)
    if len(samples):
        folder.files.write_rows(MANIFEST, samples)
    if len(contents):
        folder.files.write_rows(folder.contents.whole, contents)
    folder.write_missing(join_missing(sources))
    merged, slots, timings = Merged(), {}, {}
    for slot, held in holders_of(sources, ids):
        chosen = choose(held, first)
        key = chosen[0].key
        into = folder.cell(key)
        write_cell(chosen, into)
        write_circumstances(into, chosen[0].source, run["identity"], weights_of(sources))
        timings[key] = join_timings(
            [*(read_timings(one.folder) for one in chosen), *(known(into.read("cell") or {}) for known in further)]
        )
        slots[key] = slot
        merged.cells.append(chosen[0].name)
        if not chosen[0].is_whole and sum(one.rows is not None for one in chosen) > 1:
            merged.joined.append(chosen[0].name)
            if is_complete(folder, key, ids):
                merged.unscored.append(chosen[0].name)
    merged.device = main_device(timings.values())
    merged.apart = sorted({name for timed in timings.values() for name in timed} - {merged.device or ""})
    for key, timed in timings.items():
        write_timings(folder.cell(key), timed, merged.device)
    if (environment := sources[0].folder.path / ENVIRONMENT).exists():
        sources[0].folder.read_environment()  # DamagedError where it is not what was written
        shutil.copyfile(environment, folder.path / ENVIRONMENT)
    spec = run["spec"] | {"out": str(out)}
    folder.files.write_json(RUN, run | {"schema": SCHEMA, "spec": spec, "cells": list(slots), "slots": slots})
    return merged


def holders_of(sources: Sequence[Source], ids: Sequence[str]) -> Iterator[tuple[str, list[Held]]]:
    """What is measured, and the cells that do it, in the order of the runs, but those that have not been begun."""
    for slot in dict.fromkeys(slot for source in sources for slot in source.slots):
        keys = [(source, source.slots[slot]) for source in sources if slot in source.slots]
        if held := [Held(source, key, ids) for source, key in keys if source.folder.cell(key).path.is_dir()]:
            yield slot, held


def join_missing(sources: Sequence[Source]) -> list[dict[str, str]]:
    """The samples that could not be read in some run: cells of it have no outcome of them."""
    records: dict[str, dict[str, str]] = {}
    for source in sources:
        for record in source.folder.read_missing():
            records.setdefault(record["id"], record)
    return [records[id] for id in sorted(records)]


def weights_of(sources: Sequence[Source]) -> str | None:
    """What the first run that says it calls the file of its model's weights."""
    for source in sources:
        for key in source.run["cells"]:
            if about := source.folder.cell(key).read("cell"):
                return str(about["weights"])
    return None


def is_complete(folder: RunFolder, key: str, ids: Sequence[str]) -> bool:
    missing = {record["id"] for record in folder.read_missing()}
    return not set(ids) - missing - folder.cell(key).shards.read_ids()
