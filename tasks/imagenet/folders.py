"""Which class a class folder is: by ImageNet's synsets, by a file that says it, by its number, else by its rank."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from timm.data import ImageNetInfo

from suite.errors import RequestError
from tasks.imagenet.labels import (
    IMAGENET_CLASSES,
    Label,
    class_index,
    say_labels,
    synset_index,
)
from tasks.imagenet.tables import Table
from tasks.reading.trees.tree import composed

NO_ORDER = ("wnids.txt", "words.txt", "readme", "license")  # Tiny ImageNet's lists are in no model's order; texts
BEGINNING = re.compile(r"n\d{8}(?!\w)|n\d{8}(?=_)", re.IGNORECASE)
MOST = 100_000  # classes that a file may number
FILES = "class_to_idx.json or classes.txt"


@dataclass(frozen=True)
class Order:
    """The classes of folders. classes: folder -> class, or all that are right; a folder that is not there has none.

    said: how they were found, with the first three; "" where that is beyond doubt. at_least: num_classes is what
    the folders say, and the model may have more. unused: files that speak of a part of the folders. by_synsets: the
    folders themselves say that they are ImageNet's.
    """

    classes: Mapping[str, Label]
    num_classes: int
    said: str = ""
    at_least: bool = False
    unused: tuple[str, ...] = ()
    by_synsets: bool = False


def order_folders(
    folders: Sequence[str], num_classes: int | None, tables: Sequence[Table], named: bool, location: str
) -> Order:
    """The order of class folders; each of the rules stands only where those before it do not.

    tables: files beside the folders that may say the classes; named: the only one is what the user names, and decides.
    RequestError where the folders leave it open which class is meant.
    """
    known = synset_index()
    named_so = _by_beginning(folders) if num_classes in (None, IMAGENET_CLASSES) else None
    if named:
        return _by_table(folders, num_classes, tables[0]) or _refuse(folders, tables[0])
    strangers = [name for name in folders if name not in known]
    if num_classes in (None, IMAGENET_CLASSES) and not strangers:
        return Order({name: known[name] for name in folders}, IMAGENET_CLASSES, by_synsets=True)
    found = [(table, order) for table in tables if (order := _by_table(folders, num_classes, table))]
    said = [
        order
        for table, order in found
        if len(order.classes) == len(folders) and not table.name.lower().startswith(NO_ORDER)
    ]
    if said:
        differing = [order for order in said if order.classes != said[0].classes]
        if differing:
            raise RequestError(
                f"files beside the class folders number them differently ({said[0].said}; {differing[0].said}); name "
                "the right one with --task-option labels=FILE"
            )
        return said[0]
    if named_so:
        return named_so
    unused = tuple(table.address for table, order in found if len(order.classes) < len(folders))
    if num_classes is None and len(strangers) < len(folders):
        raise RequestError(
            f"folder '{strangers[0]}' in '{location}' is no ImageNet-1k synset, but "
            f"{len(folders) - len(strangers)} others are; remove it, or label all folders by the rank of their names "
            f"with --task-option num_classes={len(folders)}"
        )
    numbers = {name: int(name) for name in folders if name.isascii() and name.isdigit()}
    if len(numbers) == len(folders) and all(str(number) == name for name, number in numbers.items()):
        return _by_number(numbers, num_classes, unused)
    if num_classes is not None and num_classes != len(folders):
        raise RequestError(
            f"num_classes is {num_classes}, but '{location}' has {len(folders)} class folders; make them equal"
        )
    ranks = {name: rank for rank, name in enumerate(sorted(folders))}
    how = f"folders are numbered in sorted order, for neither their names nor a file such as {FILES} say the classes"
    return Order(ranks, len(folders), say_labels(how, ranks), unused=unused)


def _by_beginning(folders: Sequence[str]) -> Order | None:
    """The order of folders called after their synset and more, such as 'n01440764_tench'; None where one is not, or two
    share one."""
    found = {name: match[0].lower() for name in folders if (match := BEGINNING.match(name))}
    classes: dict[str, Label] = {
        name: synset_index()[synset] for name, synset in found.items() if synset in synset_index()
    }
    if len(classes) < len(folders) or len(set(classes.values())) < len(folders):
        return None
    said = say_labels("names of folders begin with their synsets", classes)
    return Order(classes, IMAGENET_CLASSES, said, by_synsets=True)


def order_by_names(folders: Sequence[str], names: Sequence[str]) -> Order | None:
    """The order of class folders by the model's own names of its classes; None where these are not all among them."""
    listed = Table("the model's own names", (), lines=tuple(names))
    order = _by_table(folders, len(names), listed)
    return order if order and len(order.classes) == len(folders) else None


def _by_number(numbers: Mapping[str, int], num_classes: int | None, unused: tuple[str, ...]) -> Order:
    """Numbers without leading zeros are class indices; those that count from 1 to their number are ranks."""
    ordered = dict(sorted(numbers.items(), key=lambda item: item[1]))
    count, most = len(ordered), max(ordered.values())
    if min(ordered.values()) == 1 and most == count and num_classes in (None, count):
        ranks = {name: number - 1 for name, number in ordered.items()}
        return Order(
            ranks, count, say_labels("folders are numbered from 1, in the order of their numbers", ranks), unused=unused
        )
    if num_classes is not None and most >= num_classes:
        raise RequestError(
            f"num_classes is {num_classes}, but class folder '{most}' is a number beyond 0..{num_classes - 1}; give "
            "the number of classes that the model has"
        )
    said = say_labels("numbers of folders are class indices", ordered)
    return Order(ordered, num_classes or most + 1, said, num_classes is None, unused)


def _by_table(folders: Sequence[str], num_classes: int | None, table: Table) -> Order | None:
    """The order that a file says, of those folders that it speaks of; None where it speaks of none."""
    for classes, size in _readings(table):
        found = {name: classes[_key(name)] for name in sorted(folders) if _key(name) in classes}
        if not found:
            continue
        most = max(max(of) if isinstance(of, tuple) else of for of in found.values())
        if num_classes is not None and most >= num_classes:
            raise RequestError(f"'{table.address}' says class {most}, beyond 0..{num_classes - 1} of num_classes")
        said = say_labels(f"classes of folders are those of {table.name}", found)
        return Order(found, num_classes or size or most + 1, said, at_least=not (num_classes or size))
    return None


def _readings(table: Table) -> Iterator[tuple[dict[str, Label], int]]:
    """Ways to read a file as folder -> class, each with the number of classes, 0 where it does not say that."""
    rows = [row for row in table.rows if row.name]
    indices = _all_right({row.name: [class_index(text, MOST) for text in row.said] for row in rows})
    complete = sorted(label for label in indices.values() if isinstance(label, int)) == list(range(len(indices)))
    yield indices, len(indices) if complete else 0
    yield _all_right({row.name: [synset_index().get(text) for text in row.said] for row in rows}), IMAGENET_CLASSES
    yield _all_right({row.name: _by_words(row.said) for row in rows if table.is_json}), IMAGENET_CLASSES
    if rows and all(row.name.isdigit() for row in rows):  # number -> names, as Keras' imagenet_class_index.json has it
        yield {_key(name): int(row.name) for row in rows for name in row.said}, len(rows)
    listed = [line for line in table.lines if line] or ["".join(row.said[:1]) for row in table.rows if not row.name]
    yield {_key(line): place for place, line in enumerate(listed)}, len(listed)
    firsts = [_key(line.split()[0]) for line in listed if line.split()]
    if len(set(firsts)) == len(listed):  # what follows is the class in words
        yield {first: place for place, first in enumerate(firsts)}, len(listed)


@cache
def description_index() -> dict[str, int]:
    """What an ImageNet-1k class is called, in small letters -> its index: all its names, and each that no other has."""
    whole = [ImageNetInfo().index_to_description(index).lower() for index in range(IMAGENET_CLASSES)]
    names = [(name.strip(), index) for index, text in enumerate(whole) for name in {text, *text.split(",")}]
    counts = Counter(name for name, _ in names)
    return {name: index for name, index in names if counts[name] == 1}


def _by_words(said: Sequence[str]) -> list[int | None]:
    """ImageNet's classes by their names, as ObjectNet says them: all of a class or one; of several classes, 'a; b'."""
    return [description_index().get(part.strip().lower()) for text in said for part in text.split(";")]


def _all_right(said: Mapping[str, Sequence[int | None]]) -> dict[str, Label]:
    """Name -> class, or classes where any name has several; those without are left out."""
    classes = {_key(name): tuple(label for label in of if label is not None) for name, of in said.items()}
    several = any(len(of) > 1 for of in classes.values())
    return {name: of if several else of[0] for name, of in classes.items() if of}


def _key(name: str) -> str:
    """A name as it is compared: lists of classes have spaces where folders have '_', and any form of Unicode."""
    return composed(name).replace("_", " ").casefold()


def _refuse(folders: Sequence[str], table: Table) -> Order:
    raise RequestError(
        f"label file '{table.address}' speaks of no class folder, such as '{folders[0]}', and of no image; write lines "
        "'folder,class' or 'image,class'"
    )
