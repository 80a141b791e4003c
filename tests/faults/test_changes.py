"""A sample is its bytes: what has changed since a run was begun is named, and never stands beside what was."""

from __future__ import annotations

import io
import os
import shutil
import zipfile
from pathlib import Path

import pytest
from rich.console import Console

from suite.api import run
from suite.errors import RequestError
from suite.gate.side import Side, check_comparable
from suite.pictures.exhibits import make_exhibits
from suite.store.folder import RunFolder
from suite.sweep.changes import note_contents, read_contents
from suite.sweep.images import load
from suite.sweep.plan import make_plan
from suite.sweep.progress import Progress
from suite.sweep.spec import make_spec
from tests.segmented import FOLDER, ade20k, encoded, known_mini, labels, name_of, write

QUIET = Progress(quiet=True)


def ran(spec: dict, **changes) -> str:
    """What a run said."""
    said = io.StringIO()
    run({**spec, **changes}, progress=Progress(Console(file=said, width=10_000)), report=False)
    return said.getvalue()


def swap(one: Path, other: Path) -> None:
    """The two files exchange their bytes, and nothing that is seen without reading but for their sizes."""
    first, second, times = (
        one.read_bytes(),
        other.read_bytes(),
        [(p.stat().st_atime_ns, p.stat().st_mtime_ns) for p in (one, other)],
    )
    one.write_bytes(second)
    other.write_bytes(first)
    for path, both in zip((one, other), times, strict=True):
        os.utime(path, ns=both)


def rows_of(out: str) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in Path(out).glob("cells/*/samples.parquet")}


def digests(out: str) -> dict[str, str]:
    return {id: content.digest for id, content in read_contents(RunFolder(out)).items()}


def test_two_pictures_that_swap_their_bytes_are_named_and_run_again_in_all_cells(tiny_run, photos, tmp_path):
    ran(tiny_run)
    before, first = digests(tiny_run["out"]), sorted(photos.rglob("*.JPEG"))[:2]
    swap(*first)
    said = ran(tiny_run, rates=["r=1", "r=2"])  # old cells, and new ones
    assert "2 samples, first 'n01440764/n01440764_0.JPEG'" in said
    assert "have changed" in said
    fresh = {**tiny_run, "rates": ["r=1", "r=2"], "out": str(tmp_path / "fresh")}
    ran(fresh)
    assert rows_of(tiny_run["out"]) == rows_of(fresh["out"])
    after, ids = digests(tiny_run["out"]), [f"n01440764/{path.name}" for path in first]
    assert [after[id] for id in ids] == [before[id] for id in ids[::-1]]
    assert len(list(Path(tiny_run["out"]).glob("cells/*/samples.parquet.changed-1"))) == 3  # kept


def test_other_cells_of_the_run_lose_the_changed_sample_until_they_are_asked_for(tiny_run, photos):
    ran(tiny_run, reducers=["evit"])
    photo = min(photos.rglob("*.JPEG"))
    shutil.copy(max(photos.rglob("*.JPEG")), photo)
    frame = run({**tiny_run, "reducers": ["tome"]}, progress=QUIET, report=False).frame().set_index("reducer")
    assert frame.status.to_dict() == {"none": "done", "tome": "done", "evit": "running"}
    assert frame.samples.to_dict() == {"none": 12, "tome": 12, "evit": 11}


def test_the_same_bytes_with_other_times_are_no_change_and_are_read_once(tiny_run, photos):
    ran(tiny_run)
    rows = {path: path.stat().st_mtime_ns for path in Path(tiny_run["out"]).rglob("samples.parquet")}
    for photo in photos.rglob("*.JPEG"):
        data = photo.read_bytes()
        photo.unlink()
        photo.write_bytes(data)
        os.utime(photo)
    assert "changed" not in ran(tiny_run)
    assert rows == {path: path.stat().st_mtime_ns for path in rows}
    noted = Path(tiny_run["out"], "contents.parquet").stat().st_mtime_ns
    ran(tiny_run)
    assert Path(tiny_run["out"], "contents.parquet").stat().st_mtime_ns == noted


@pytest.mark.slow
def test_a_changed_picture_in_an_archive_is_found(tiny_run, photos, tmp_path):
    def pack(name: str) -> None:
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for photo in sorted(photos.rglob("*.JPEG")):
                archive.write(photo, photo.relative_to(photos))

    for name, again in (
        ("photos.zip", lambda: pack("photos.zip")),
        ("photos.tar", lambda: shutil.make_archive(str(tmp_path / "photos"), "tar", photos)),
    ):
        again()
        spec = {**tiny_run, "data": str(tmp_path / name), "out": str(tmp_path / f"run of {name}")}
        ran(spec)
        again()
        assert "changed" not in ran(spec)
        swap(*sorted(photos.rglob("*.JPEG"))[:2])
        again()
        assert "2 samples" in ran(spec)


def test_a_mask_is_part_of_its_sample(tmp_path, monkeypatch):
    data = write(tmp_path / "data", ade20k())
    spec = {
        "task": "ade20k", "data": str(data), "model": known_mini(monkeypatch), "checkpoint": "none", "batch_size": 4,
        "device": "cpu", "workers": 0, "reducers": ["tome"], "rates": ["r=1"], "speed": False,
        "out": str(tmp_path / "run"),
    }  # fmt: skip
    ran(spec)
    mask = data / FOLDER / "annotations" / "validation" / f"{name_of(2)}.png"
    mask.write_bytes(encoded(labels(9, (40, 60)), "PNG"))
    assert f"sample '{name_of(2)}'" in (said := ran(spec))
    assert "has changed" in said
    assert "changed" not in ran(spec)


def test_a_picture_that_changes_while_the_run_goes_on_stops_it(tiny_run, photos):
    plan = make_plan(make_spec(tiny_run))
    folder, _ = plan.open_folder()
    batches = [plan.task.samples[:5]]
    (_, batch), known = next(iter(load(plan, batches, [0]))), {}
    note_contents(folder.log(), 0, batch.samples, known)
    assert known.keys() == {sample.id for sample in plan.task.samples[:5]}
    swap(*sorted(photos.rglob("*.JPEG"))[:2])
    (_, batch) = next(iter(load(plan, batches, [0])))
    with pytest.raises(RequestError, match=r"2 samples, first .* have changed while the run was going on"):
        note_contents(folder.log(), 0, batch.samples, known)


def test_the_images_are_read_by_workers_with_their_content(tiny_run, photos):
    plan = make_plan(make_spec({**tiny_run, "workers": 1}))
    (_, batch) = next(iter(load(plan, [plan.task.samples[:3]], [0])))
    assert len({sample.content.digest for sample in batch.samples}) == 3


def test_a_repaired_picture_is_no_changed_one(tiny_run, photos):
    photo = min(photos.rglob("*.JPEG"))
    whole = photo.read_bytes()
    photo.write_bytes(whole[:500])
    ran(tiny_run)
    photo.write_bytes(whole)
    assert "changed" not in ran(tiny_run)
    photo.write_bytes(whole[:500])  # now it is one, and is missing in all cells alike
    assert "has changed" in ran(tiny_run)


def test_pictures_of_a_page_are_not_those_of_changed_samples(tiny_run, photos):
    run(tiny_run, progress=QUIET, report=False)
    swap(*sorted(photos.rglob("*.JPEG"))[:2])
    (said,) = make_exhibits(Path(tiny_run["out"]))
    assert "have changed since the run" in said


def test_sides_whose_samples_have_the_same_names_and_other_bytes_are_not_compared():
    identity = {"task": "imagenet", "samples": "2 (abc)"}
    sides = [
        Side(name, identity, {}, None, (), {"a": "1", "b": digest}) for name, digest in (("new", "2"), ("old", "3"))
    ]
    with pytest.raises(RequestError, match="1 samples of the same names have changed from old to new, first b"):
        check_comparable(*sides)
    (remark,) = check_comparable(*sides, allowed=["data"])
    assert "data differs" in remark
    assert not check_comparable(sides[0], Side("unknown", identity, {}, None, ()))


def test_drawn_scenes_have_no_contents(tmp_path):
    spec = {"task": "scenes", "limit": 2, "batch_size": 2, "device": "cpu", "workers": 0, "reducers": ["tome"],
            "rates": ["r=1"], "speed": False, "out": str(tmp_path / "run")}  # fmt: skip
    ran(spec)
    assert not (tmp_path / "run" / "contents.parquet").exists()
