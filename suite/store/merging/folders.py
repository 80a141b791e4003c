"""What is given to `merge`: runs that are one, or studies, whose runs of one name are."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from suite.errors import RequestError
from suite.store.merging.runs import Further, Merged, merge_runs, new_folder
from suite.store.study import StudyFolder, failures_in, members_of, runs_in


def merge_folders(
    parts: Sequence[Path],
    out: Path,
    allowed: Collection[str] = (),
    preferred: Path | None = None,
    further: Sequence[Further] = (),
) -> dict[Path, Merged]:
    """Write the run, or the study, that `parts` come to into `out`, which is new or empty; what became of every run, by
    its folder.

    For the rest see `merge_runs`; nothing is written where anything cannot be merged.
    """
    if preferred is not None and preferred not in parts:
        raise RequestError(f"--prefer {str(preferred)!r} is none of them; give {' or '.join(map(str, parts))}")
    studies = [part for part in parts if members_of(part)]
    with new_folder(out) as made:
        if not studies:
            return {out: merge_runs(parts, made, out, allowed, preferred, further)}
        for part in parts:
            if part not in studies:
                runs = ", ".join(map(str, runs_in(studies[0])))
                raise RequestError(f"{part} is one run and {studies[0]} holds several; name one of them: {runs}")
        names = list(dict.fromkeys(run.name for study in studies for run in members_of(study)))
        merged = {}
        for name in names:
            if runs_of_name := [run for study in studies for run in runs_in(study) if run.name == name]:
                own = preferred and preferred / name
                merged[out / name] = merge_runs(runs_of_name, made / name, out / name, allowed, own, further)
        failed = {name: why for study in studies for name, why in failures_in(study).items()}
        StudyFolder(made).add(names, {name: why for name, why in failed.items() if out / name not in merged})
    return merged
