"""Finds the annotation file of a captioning data set, and the image files that it lists, in a tree of files."""

from __future__ import annotations

import posixpath
import re
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from suite.errors import RequestError
from tasks.coco.annotations import KARPATHY, LIST, MAPPING, Annotations, read_annotations
from tasks.reading.images import SUFFIXES
from tasks.reading.trees.tree import FileTree, composed, say_forms

ANNOTATIONS = re.compile(
    r"captions.*\.json|dataset_(coco|flickr8k|flickr30k)\.json|nocaps_val.*\.json|TextCaps_[\d.]+_(train|val)\.json"
    r"|(coco_karpathy|flickr30k)_(train|val|test)\.json|captions\.(txt|csv)|(results_20130124\.token|Flickr8k\.token\.txt)"
    r"|metadata\.jsonl",
    re.IGNORECASE,
)
RESULTS = re.compile(r".*_results?\.json", re.IGNORECASE)  # a model's captions, as COCO's server wants them named
ELSEWHERE = re.compile(
    r"/|\.\./|[A-Za-z]:/"
)  # how paths begin that lead to folders of the machine they were written on
OTHER_FOLDERS = (KARPATHY, LIST)  # forms that name folders, which people lay out anew
NO_CAPTIONS = "captions: there is no captions*.json or dataset_coco.json"
COCO_NAME = re.compile(r"(?:COCO_\w+_)?(\d{12})\.jpg")  # of 2014, and of 2017


@dataclass
class Index:
    """The captioned images by id. captions: their references. files: their names in the tree, or, of those that are
    not there, the names they would have beside the others."""

    captions: dict[str, tuple[str, ...]]
    files: dict[str, str]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class AnnotationFile:
    """folder: where in the tree it lies; '' also for one outside, whose names are relative to the tree's top."""

    address: str
    data: bytes
    folder: str = ""


def build_index(tree: FileTree, annotations: str | None = None, split: str | None = None) -> Index:
    """Raises RequestError when there is no annotation file, or it is wrong, or none of its images is in the tree.

    annotations: name of the file in the tree, or its path elsewhere; None: the only one that is there. split: of a
    Karpathy file.
    """
    for option, value in (("annotations", annotations), ("split", split)):
        if value is not None and not (isinstance(value, str) and value):
            raise RequestError(f"{option} {value!r} is no name; write --task-option {option}=NAME")
    file = find_annotations(tree, annotations)
    listed = read_annotations(file.address, file.data, split)
    found = locate(tree, file.folder, listed)
    if not found:
        first = next(iter(listed.images.values())).file
        where = f"in '{tree.where(file.folder)}'" if listed.form == MAPPING else f"anywhere in '{tree.location}'"
        raise RequestError(
            f"none of the {len(listed.images)} images of '{file.address}' is there: looked for {first!r} and the "
            f"others {where}; name the folder or archive that holds them with --data"
        )
    folder = _folder(listed, found)
    files = {id: found.get(id, posixpath.join(folder, image.file)) for id, image in listed.images.items()}
    _check_own_files(files, listed)
    captions = {id: image.captions for id, image in listed.images.items()}
    return Index(captions, files, _notes(tree, listed, found))


def is_annotations(name: str) -> bool:
    """Whether a file's name is one of those that files of reference captions have."""
    return bool(ANNOTATIONS.fullmatch(name)) and not RESULTS.fullmatch(name)


def find_annotations(
    tree: FileTree, named: str | None, is_wanted: Callable[[str], bool] = is_annotations, none: str = NO_CAPTIONS
) -> AnnotationFile:
    """The file that is named, or else the only one that `is_wanted` by its name in the tree or, if it has none, beside
    it. none: what is said to be lacking where there is none."""
    if named is not None:
        return _named(tree, named)
    inside = [name for name in tree.files if is_wanted(posixpath.basename(name))]
    beside = [] if inside else _beside(tree, is_wanted)
    if len(inside) + len(beside) > 1:
        names = [*inside, *map(str, beside)]
        best = next((name for name in names if "val" in posixpath.basename(name)), names[0])
        raise RequestError(
            f"several annotation files: {', '.join(names)}; choose one, such as --task-option annotations={best}"
        )
    if inside:
        return _inside(tree, inside[0])
    if beside:
        return read_outside(beside[0])
    raise RequestError(
        f"data '{tree.location}' holds no {none} in it or beside it, nor another file by its usual name; add one, or "
        "name it with --task-option annotations=FILE"
    )


def _named(tree: FileTree, named: str) -> AnnotationFile:
    path = Path(named)
    names = [posixpath.normpath(named.replace("\\", "/"))]
    if path.resolve().is_relative_to(tree.location.resolve()):  # a path to a file within the data
        names.append(path.resolve().relative_to(tree.location.resolve()).as_posix())
    for name in names:
        if name in tree:
            return _inside(tree, name)
    if not path.is_file():
        raise RequestError(
            f"annotation file '{named}' is neither in data '{tree.location}' nor a file elsewhere; name one that exists"
        )
    return read_outside(path)


def _beside(tree: FileTree, is_wanted: Callable[[str], bool]) -> list[Path]:
    """Annotation files in the folder that holds the data, and in the `annotations` folder there."""
    above = tree.location.absolute().parent
    folders = [folder for folder in (above, above / "annotations") if folder.is_dir()]
    paths = sorted(path for folder in folders for path in folder.iterdir())
    return [path for path in paths if is_wanted(path.name) and path.is_file()]


def _inside(tree: FileTree, name: str) -> AnnotationFile:
    try:
        return AnnotationFile(tree.where(name), tree.read(name), posixpath.dirname(name))
    except (OSError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise _unreadable(tree.where(name), error) from error


def read_outside(path: Path) -> AnnotationFile:
    """A file outside the tree. RequestError where it cannot be read."""
    try:
        return AnnotationFile(str(path), path.read_bytes())
    except OSError as error:
        raise _unreadable(str(path), error) from error


def _unreadable(address: str, error: Exception) -> RequestError:
    return RequestError(f"annotation file '{address}' cannot be read ({error}); repair it, or name another")


def locate(tree: FileTree, folder: str, listed: Annotations) -> dict[str, str]:
    """Id -> name in the tree, of every listed image that is there. RequestError for one that is there twice.

    Names in a mapping are relative to its folder. Others do not say where the images lie: they are looked for in every
    folder, and COCO's of 2014 also by their names of 2017, or the other way round.
    """
    if listed.form == MAPPING:
        names = {id: tree.find(posixpath.join(folder, image.file)) for id, image in listed.images.items()}
        return {id: name for id, name in names.items() if name is not None}
    namesakes = defaultdict(list)
    for name in tree.files:
        namesakes[_known_as(name)].append(name)
    found = {}
    for id, image in listed.images.items():
        same = namesakes.get(_known_as(image.file), [])
        places = _alike(same, image.file)
        if not places and (listed.form in OTHER_FOLDERS or ELSEWHERE.match(image.file) or "/" not in image.file):
            places = same  # its folders, such as train2014 and val2014, need not be the ones here
        if len(places) > 1:
            raise RequestError(
                f"image id {id!r}: {image.file!r} is there at {len(places)} places: {', '.join(places[:3])}; keep one, "
                "or name with --data the folder that holds the right one"
            )
        if places:
            found[id] = places[0]
    return found


def _known_as(name: str) -> str:
    """What files that are one picture have in common: a number of COCO's, or the name in one Unicode form."""
    base = posixpath.basename(name)
    return coco_number(base) or composed(base)


def coco_number(base: str) -> str:
    """The digits in the name of one of COCO's files, of 2014 or 2017; "" for another name."""
    number = COCO_NAME.fullmatch(base)
    return number[1] if number else ""


def _alike(names: Sequence[str], file: str) -> list[str]:
    """Those of `names` that end in `file`, outright if there are any, else in another Unicode form."""
    outright = [name for name in names if _above(name, file) is not None]
    return outright or [name for name in names if _above(composed(name), composed(file)) is not None]


def _above(name: str, file: str) -> str | None:
    """The folder that `file` is relative to where it is `name` in the tree, with its slash; None where it is not."""
    return name.removesuffix(file) if f"/{name}".endswith(f"/{file}") else None


def _folder(listed: Annotations, found: dict[str, str]) -> str:
    """The folder that the names listed are relative to, for all that is there; '' where it is not a single one."""
    folders = {_above(name, listed.images[id].file) or "" for id, name in found.items()}
    return folders.pop() if len(folders) == 1 else ""


def _check_own_files(files: dict[str, str], listed: Annotations) -> None:
    """RequestError if two images have one file: one picture would be scored twice."""
    owners: dict[str, str] = {}
    for id, name in files.items():
        other = owners.setdefault(name, id)
        if other != id:
            raise RequestError(
                f"annotation file '{listed.address}': image ids {other!r} and {id!r} have the same file {name!r}; give "
                "every image its own"
            )


def _notes(tree: FileTree, listed: Annotations, found: dict[str, str]) -> list[str]:
    missing = [image.file for id, image in listed.images.items() if id not in found]
    notes = [*listed.notes]
    if missing:
        notes.append(f"{len(missing)} of {len(listed.images)} listed images do not exist, first {missing[0]}")
    names = [(listed.images[id].file, name) for id, name in found.items()]
    notes += [*_by_number(names), *say_forms(names)]
    above = {name: _above(name, listed.images[id].file) for id, name in found.items()}
    folders = Counter((posixpath.dirname(name) if folder is None else folder) or "." for name, folder in above.items())
    if len(folders) > 1 and listed.form not in OTHER_FOLDERS:
        most = ", ".join(f"{folder} ({count})" for folder, count in folders.most_common(3))
        notes.append(f"the images lie in {len(folders)} folders: {most}")
    if listed.form not in OTHER_FOLDERS:  # which list images of other splits beside these
        notes += _left_out(tree, set(found.values()))
    return notes


def _by_number(names: Sequence[tuple[str, str]]) -> list[str]:
    """A line on files that have a number of COCO's in common with a name that is listed: (listed, in the tree)."""
    bases = [(posixpath.basename(file), posixpath.basename(name)) for file, name in names]
    renamed = [(listed, name) for listed, name in bases if composed(listed) != composed(name)]
    if not renamed:
        return []
    return [f"{len(renamed)} images are matched by their COCO number, first {renamed[0][1]!a} for {renamed[0][0]!a}"]


def _left_out(tree: FileTree, used: set[str]) -> list[str]:
    folders = {posixpath.dirname(name) for name in used}
    others = [
        name
        for name in tree.files
        if name.lower().endswith(SUFFIXES) and name not in used and posixpath.dirname(name) in folders
    ]
    if not others:
        return []
    what = "image of the folder has" if len(others) == 1 else "images of the folder have"
    return [f"{len(others)} {what} no caption and {'is' if len(others) == 1 else 'are'} left out, first {others[0]}"]
