"""Samples whose files have changed since a run was begun: found before it goes on, so that no table mixes both.

A sample's stamp is looked at first; its bytes are read only where the stamp is another one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress

import pyarrow as pa

from suite.contract.content import Content, content_of, stamp_of
from suite.contract.task import Sample
from suite.errors import RequestError
from suite.store.folder import CONTENTS_NAME, CellFolder, RunFolder
from suite.store.log import LogWriter
from suite.store.repair import set_aside_damaged
from suite.store.schema import CONTENTS, TIMINGS
from suite.sweep.plan import Plan
from suite.sweep.progress import Progress

Contents = dict[str, Content]


def forget_changed(plan: Plan, folder: RunFolder, progress: Progress) -> Contents:
    """What is known of the samples' files, once the outcomes of all samples that have changed are taken out of the run.

    They are named. What was stored without contents, by an earlier version, is taken to be of the files as they are.
    """
    if plan.task.tree is None:
        return {}
    names = list(folder.contents.names())
    stored = read_contents(folder, names)
    now, changed = look_again(plan, stored)
    if changed:
        progress.note(
            f"{name_samples(changed)} changed since the run was begun; outcomes of "
            f"{'it' if len(changed) == 1 else 'them'} in all cells are set aside, and made again"
        )
        cells = folder.read_run()["cells"]
        for line in set_aside_damaged(folder, cells, plan.task.outcomes):  # of cells that are not asked for
            progress.note(line)
        for key in cells:
            forget(folder.cell(key), {sample.id for sample in changed})
        folder.discard_exhibits()
    unknown = find_scored(plan, folder, now.keys() | {sample.id for sample in changed})
    if unknown:
        progress.note(
            f"what the files of {len(unknown)} samples held when they were scored is not stored; they are taken to be "
            "as they were"
        )
        now |= {sample.id: content for sample in unknown if (content := content_now(plan, sample))}
    if now != stored:
        folder.contents.replace(names, rows_of(now), CONTENTS)
    return now


def look_again(plan: Plan, stored: Contents) -> tuple[Contents, list[Sample]]:
    """The contents that hold today, and the samples whose bytes are others than those stored.

    A file that is not there, or cannot be read, has not changed: it is missing.
    """
    now, changed = dict(stored), []
    for sample in plan.task.forwarded:
        known = stored.get(sample.id)
        if known is None or known.stamp == stamp_now(plan, sample):
            continue
        found = content_now(plan, sample)
        if differs(known, found):
            changed.append(sample)
            del now[sample.id]
        elif found:
            now[sample.id] = found
    return now, changed


def differs(one: Content | None, other: Content | None) -> bool:
    """Whether both are known, and are of other bytes."""
    return one is not None and other is not None and one.digest != other.digest


def stamp_now(plan: Plan, sample: Sample) -> str | None:
    if (tree := plan.task.tree) is not None:
        with suppress(OSError, LookupError):
            return stamp_of(tree, plan.task.files(sample))
    return None


def content_now(plan: Plan, sample: Sample) -> Content | None:
    if (tree := plan.task.tree) is not None:
        with suppress(Exception):  # archives fail in ways of their own; whoever decodes the sample says in which
            return content_of(tree, plan.task.files(sample))
    return None


def find_scored(plan: Plan, folder: RunFolder, known: Collection[str]) -> list[Sample]:
    """The samples that some cell has an outcome of, less those that are `known`."""
    rest = {sample.id: sample for sample in plan.task.forwarded if sample.id not in known}
    found: set[str] = set()
    for key in folder.read_run()["cells"] if rest else ():
        shards = folder.cell(key).shards
        found |= rest.keys() & shards.read_ids()
    return [rest[id] for id in rest if id in found]


def forget(cell: CellFolder, ids: Collection[str]) -> None:
    """Take all that was made of some samples out of a cell. Of one whose cost depends on the image nothing is kept."""
    if not cell.shards.forget(ids):
        return
    cell.remove_scores()
    cell.remove("flops")
    about = cell.read("cell")
    if about and about["planned_counts"] is None:
        for name in ("cell", "kernels", "elsewhere", *TIMINGS):
            cell.remove(name)


def note_contents(log: LogWriter, number: int, samples: Sequence[Sample], known: Contents) -> None:
    """Store what the files of a batch held, before any outcome of it; `known` learns it.

    RequestError for a sample that holds something else than it did when other outcomes were made of it.
    """
    read = {sample.id: sample.content for sample in samples if sample.content}
    changed = [sample for sample in samples if differs(known.get(sample.id), sample.content)]
    if changed:
        raise RequestError(
            f"{name_samples(changed)} changed while the run was going on; run the same command again: what was made of "
            f"{'it' if len(changed) == 1 else 'them'} is made anew"
        )
    if read.keys() - known.keys():
        of_batch = {id: known.setdefault(id, content) for id, content in read.items()}
        log.append(CONTENTS_NAME, number, pa.RecordBatch.from_pylist(rows_of(of_batch), schema=CONTENTS))


def read_contents(folder: RunFolder, names: Sequence[str] | None = None) -> Contents:
    """What is stored of the samples' files, by id; names: of the files to read, default: all."""
    found: Contents = {}
    for name in names if names is not None else reversed(list(folder.contents.names())):
        with suppress(FileNotFoundError):
            rows = folder.contents.files.read_rows(name, CONTENTS.names).to_pydict()
            found |= zip(rows["id"], map(Content, rows["stamp"], rows["digest"]), strict=True)
    return found


def rows_of(contents: Contents) -> list[dict[str, str]]:
    return [{"id": id, "stamp": content.stamp, "digest": content.digest} for id, content in contents.items()]


def name_samples(samples: Sequence[Sample]) -> str:
    """'sample x (path) has', '3 samples, first x (path), have'"""
    first = f"{samples[0].id!r} ({samples[0].path})"
    return f"sample {first} has" if len(samples) == 1 else f"{len(samples)} samples, first {first}, have"
