"""Captions a line each, as Flickr's and Hugging Face's files and exports have them; paths of other machines."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from suite.errors import RequestError
from tasks.ade20k.task import Ade20k
from tasks.coco.task import CocoCaption
from tests.captioned import coco, file_name, photos
from tests.segmented import write
from tests.wild.annotations import masks_of, patches

SAID = {
    42: ["This wire rack, holds several pairs.", 'A dog "asleep" on a rack'],
    391895: ["A man rides."],
}
EACH = [(file_name(id), number, text) for id, texts in SAID.items() for number, text in enumerate(texts)]


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


TABLES: dict[str, tuple[str, Callable[[], str]]] = {
    "Flickr30k's": ("results_20130124.token", lambda: "".join(f"{f}#{n}\t{t}\n" for f, n, t in EACH)),
    "Kaggle's of Flickr8k": (
        "captions.txt",
        lambda: "image,caption\n" + "".join(f"{f},{quoted(t)}\n" for f, _, t in EACH),
    ),
    "Kaggle's of Flickr30k": (
        "captions.csv",
        lambda: "image_name| comment_number| comment\n" + "".join(f"{f}| {n}| {t}\n" for f, n, t in EACH),
    ),
    "Hugging Face's": (
        "metadata.jsonl",
        lambda: "".join(json.dumps({"file_name": f, "text": t}) + "\n" for f, _, t in EACH),
    ),
    "a list by other names": (
        "captions.json",
        lambda: json.dumps([{"img": file_name(id), "captions": texts} for id, texts in SAID.items()]),
    ),
}


@pytest.mark.parametrize("kind", TABLES)
def test_captions_a_line_each_are_read(tmp_path, kind):
    name, content = TABLES[kind]
    data = write(tmp_path, {**photos("images", SAID), name: content().encode()})
    task = CocoCaption(str(data))
    assert {sample.id: list(sample.label) for sample in task.samples} == {
        file_name(id): said for id, said in SAID.items()
    }


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("captions.txt", "image,caption\na.jpg,a dog, and a cat\n", "row 2 has 3 columns instead of 2"),
        ("captions.txt", "some words\n", "not valid JSON"),
        ("Flickr8k.token.txt", "a.jpg#0\ta dog\na.jpg a cat\n", "line 2 is no 'NAME#NUMBER'"),
        ("metadata.jsonl", '{"file_name": "a.jpg", "text": "a"}\n{"file_name": }\n', "line 2: it is not valid JSON"),
        ("metadata.jsonl", '{"file_name": "a.jpg", "label": 1}\n' * 2, "list of objects with 'file_name', 'label'"),
    ],
)
def test_tables_that_are_none_of_captions_are_refused_in_one_line(tmp_path, name, content, said):
    data = write(tmp_path, {**photos("images", SAID), name: content.encode()})
    with pytest.raises(RequestError) as caught:
        CocoCaption(str(data))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("folder", ["/home/me/coco/val2014/", "..\\val2014\\", "C:\\coco\\"])
def test_paths_of_another_machine_are_found_by_the_names_of_their_files(tmp_path, folder):
    content = coco(SAID)
    for image in content["images"]:
        image["file_name"] = folder + image["file_name"]
    files = {**photos("val2017", SAID), "captions.json": json.dumps(content).encode()}
    assert len(CocoCaption(str(write(tmp_path, files))).samples) == 2


def test_masks_of_a_foreground_are_asked_for(tmp_path):
    with pytest.raises(RequestError, match=r"labels 0\.\.0 and 255 in 2 masks, which may count classes from 1 or"):
        Ade20k(str(masks_of(tmp_path, patches([0, 255]), patches([255, 0], seed=1))))
