"""Which classes the images of a COCO data set show, from `instances_val2014.json` or one of its form."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass

from suite.errors import RequestError
from tasks.coco.annotations import COCO, Annotations, CaptionedImage
from tasks.coco.fields import Invalid, parse, read_id, read_list, read_name, read_text
from tasks.coco.index import find_annotations, locate
from tasks.reading.trees.tree import FileTree

INSTANCES = re.compile(r"instances.*\.json", re.IGNORECASE)
NONE = "instances: there is no instances*.json"


@dataclass(frozen=True)
class Instances:
    """classes: names by class index, in the order of their ids in the file. labels: by image id, ascending class
    indices. files: by image id, names in the tree."""

    classes: tuple[str, ...]
    labels: dict[str, tuple[int, ...]]
    files: dict[str, str]
    notes: list[str]


def read_instances(tree: FileTree, annotations: str | None) -> Instances:
    """Raises RequestError when there is no file of instances, or it is wrong, or none of its images is in the tree.

    annotations: name of the file in the tree, or its path elsewhere; None: the only one that is there. An image without
    any instance shows none of the classes; a crowd is an instance.
    """
    file = find_annotations(tree, annotations, lambda name: bool(INSTANCES.fullmatch(name)), NONE)
    try:
        classes, listed, labels = _read(parse(file.data))
    except Invalid as error:
        raise RequestError(f"annotation file '{file.address}': {error}") from None
    found = locate(tree, file.folder, Annotations(file.address, COCO, listed))
    if not found:
        first = next(iter(listed.values())).file
        raise RequestError(
            f"none of the {len(listed)} images of '{file.address}' is there: looked for {first!r} and the others "
            f"anywhere in '{tree.location}'; name the folder or archive that holds them with --data"
        )
    missing = [image.file for id, image in listed.items() if id not in found]
    notes = [f"{len(missing)} of {len(listed)} listed images do not exist, first {missing[0]}"] if missing else []
    folder = posixpath.dirname(next(iter(found.values())))
    files = {id: found.get(id, posixpath.join(folder, image.file)) for id, image in listed.items()}
    return Instances(classes, labels, files, notes)


def _read(content: object) -> tuple[tuple[str, ...], dict[str, CaptionedImage], dict[str, tuple[int, ...]]]:
    if not isinstance(content, dict) or not {"images", "annotations", "categories"} <= content.keys():
        raise Invalid("it has not all of 'images', 'annotations' and 'categories'; name a file of COCO's instances")
    names: dict[int, str] = {}
    for number, category in enumerate(read_list(content, "categories")):
        id = int(read_id(category, "id", f"categories[{number}]"))
        if id in names:
            raise Invalid(f"category id {id} is listed twice; list every category once")
        names[id] = read_text(category.get("name"), f"the name of category id {id}")
    places = {id: place for place, id in enumerate(sorted(names))}
    listed: dict[str, CaptionedImage] = {}
    for number, image in enumerate(read_list(content, "images")):
        key = read_id(image, "id", f"images[{number}]")
        if key in listed:
            raise Invalid(f"image id {key!r} is listed twice; list every image once")
        listed[key] = CaptionedImage(read_name(image.get("file_name"), f"image id {key!r}"), ())
    if not listed or not names:
        raise Invalid("it lists no image or no category; name a file that lists both")
    shown: dict[str, set[int]] = {key: set() for key in listed}
    for number, annotation in enumerate(read_list(content, "annotations")):
        where = f"annotations[{number}]"
        key, category_id = read_id(annotation, "image_id", where), int(read_id(annotation, "category_id", where))
        if key not in shown or category_id not in places:
            raise Invalid(f"{where} is of image id {key!r} and category {category_id}, which are not both listed")
        shown[key].add(places[category_id])
    labels = {key: tuple(sorted(classes)) for key, classes in shown.items()}
    return tuple(names[id] for id in sorted(names)), listed, labels
