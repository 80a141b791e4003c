"""Annotation files that are wrong: every one is refused in one line with the item and what to do."""

from __future__ import annotations

from typing import Any

import pytest

from suite.cli.app import main
from suite.errors import RequestError
from tasks.coco.task import CocoCaption
from tests.captioned import CAPTIONS, coco, file_name, karpathy, photo, photos, write

OFFICIAL = "annotations/captions_val2014.json"
KARPATHY = "dataset_coco.json"
JPEG = {"a.jpg": photo(1), "b.jpg": photo(2)}


def of_coco(**changes: Any) -> dict[str, Any]:
    return {**photos("val2014"), OFFICIAL: {**coco(), **changes}}


def image(**changes: Any) -> dict[str, Any]:
    """COCO files whose third image, 42, is changed."""
    images = coco()["images"]
    images[2] = {key: value for key, value in {**images[2], **changes}.items() if value != "REMOVED"}
    return of_coco(images=images)


def annotation(**changes: Any) -> dict[str, Any]:
    """COCO files whose second annotation, of image 42, is changed."""
    annotations = coco()["annotations"]
    annotations[1] = {key: value for key, value in {**annotations[1], **changes}.items() if value != "REMOVED"}
    return of_coco(annotations=annotations)


def of_karpathy(**changes: Any) -> dict[str, Any]:
    """Karpathy's files whose third image, 42, is changed."""
    images = karpathy()["images"]
    images[2] = {key: value for key, value in {**images[2], **changes}.items() if value != "REMOVED"}
    return {**photos("val2014"), KARPATHY: {"images": images, "dataset": "coco"}}


def mapping(content: Any) -> dict[str, Any]:
    return {**JPEG, "captions.json": content}


REFUSED = {
    "an image without a caption": (
        of_coco(annotations=[a for a in coco()["annotations"] if a["image_id"] != 42]),
        r"captions_val2014\.json': image id '42' \('COCO_val2014_000000000042\.jpg'\) has no caption; add one",
    ),
    "a caption of an image that is not listed": (annotation(image_id=7), r"annotations\[1\] is of image id '7', which"),
    "an image id twice": (image(id=391895), "image id '391895' is listed twice"),
    "an image id twice, once as text": (image(id="391895"), "image id '391895' is listed twice"),
    "an annotation id twice": (annotation(id=100), "annotation id '100' stands there twice"),
    "two images of one file": (
        image(file_name=file_name(391895)),
        f"'391895' and '42' have the same file 'val2014/{file_name(391895)}'",
    ),
    "an image with empty captions alone": (
        of_coco(annotations=[{**a, "caption": "" if a["image_id"] == 42 else "a"} for a in coco()["annotations"]]),
        r"image id '42' \('COCO_val2014_000000000042\.jpg'\) has no caption with a word; add one, or remove the image",
    ),
    "a caption that is a number": (annotation(caption=5), "a caption of image id '42' is 5 instead of text"),
    "a caption that is null": (annotation(caption=None), "a caption of image id '42' is None instead of text"),
    "a caption of half a character": (
        annotation(caption="\ud800"),
        r"image id '42' is '\\ud800', which is no complete",
    ),
    "boxes instead of captions": (
        annotation(caption="REMOVED"),
        r"annotations\[1\] has no 'caption'; name a file of cap",
    ),
    "an annotation without an image": (annotation(image_id="REMOVED"), r"annotations\[1\] has the image_id None"),
    "an image id that is a truth value": (image(id=True), r"images\[2\] has the id True; it must be a number"),
    "an image id that is a fraction": (image(id=4.5), r"images\[2\] has the id 4\.5"),
    "an image without a file name": (image(file_name="REMOVED"), "file name of image id '42' is None instead of text"),
    "an image that is no object": (of_coco(images=[5]), r"images\[0\] is 5 instead of an object"),
    "images that are no list": (of_coco(images={"a": 1}), r"'images' is \{'a': 1\} instead of a list"),
    "annotations that are no list": (of_coco(annotations=None), "'annotations' is None instead of a list"),
    "no image listed": (of_coco(images=[], annotations=[]), r"it lists no image; add images and their captions"),
    "annotations alone": ({**photos(), "captions.json": {"annotations": []}}, "has 'annotations' and no 'images'"),
    "images alone": (
        {**photos(), "captions.json": {"images": coco()["images"]}},
        "have neither 'annotations' nor 'sentences'; name a file with captions",
    ),
    "Karpathy: an image without sentences": (of_karpathy(sentences=[]), r"image id '42' \('COCO.*'\) has no caption"),
    "Karpathy: no sentences": (
        of_karpathy(sentences="REMOVED"),
        "'sentences' of image id '42' is None instead of a list",
    ),
    "Karpathy: an empty sentence": (of_karpathy(sentences=[{"raw": " "}]), "'42' .* has no caption with a word; add"),
    "Karpathy: a sentence of dashes": (of_karpathy(sentences=[{"raw": "\u2014 -"}]), "'42' .* has no caption with a"),
    "Karpathy: words alone": (of_karpathy(sentences=[{"tokens": ["a"]}]), "a caption of image id '42' is None"),
    "Karpathy: an image twice": (of_karpathy(cocoid=391895), "image id '391895' is listed twice"),
    "Karpathy: twice, in two splits": (of_karpathy(cocoid=391895, split="val"), "image id '391895' is listed twice"),
    "Karpathy: no id": (of_karpathy(cocoid="REMOVED"), r"images\[2\] has the cocoid None"),
    "Karpathy: no split": (of_karpathy(split="REMOVED"), "the split of image id '42' is None instead of text"),
    "Karpathy: no image in the split": (
        {**photos(), KARPATHY: karpathy(splits=dict.fromkeys(CAPTIONS, "restval"))},
        "no image is in split 'test'; choose one of restval with --task-option split=NAME",
    ),
    "Karpathy: no image": ({**photos(), KARPATHY: {"images": []}}, "it lists no image"),
    "a file name twice": (mapping(b'{"a.jpg": ["x"], "b.jpg": ["y"], "a.jpg": ["z"]}'), "'a.jpg' stands there twice"),
    "a file under two names": (
        mapping({"a.jpg": ["x"], "./a.jpg": ["y"]}),
        r"'\./a\.jpg' and another entry are the same",
    ),
    "a list without a caption": (mapping({"a.jpg": ["x"], "b.jpg": []}), r"json': 'b\.jpg' has no caption; add one"),
    "a file with empty captions": (mapping({"a.jpg": ["x"], "b.jpg": ["!", ""]}), r"'b\.jpg' has no caption with a"),
    "a caption outside a list": (mapping({"a.jpg": "x"}), r"captions of 'a\.jpg' are 'x' instead of a list; write \["),
    "a caption in a list too many": (mapping({"a.jpg": [["x"]]}), r"caption of 'a\.jpg' is \['x'\] instead of text"),
    "an entry without a name": (mapping({"": ["x"]}), "file name of an entry is empty"),
    "no entry": (mapping({}), "it lists no image"),
    "a list: no captions": (
        mapping([{"image": "a.jpg", "img_id": 0}]),
        "objects with 'image', 'img_id'; those of BLIP",
    ),
    "a list: pages": (mapping([{"url": "x", "caption": "y"}]), "objects with 'url', 'caption'; those of BLIP's"),
    "a list: a number": (mapping([5]), "entry 0 is 5 instead of an object"),
    "a list: no file": (mapping([{"image": 5, "caption": "x"}]), "the file name of entry 0 is 5 instead of text"),
    "a list: an image twice": (mapping([{"image": "a.jpg", "caption": ["x"]}] * 2), "'a.jpg' is listed twice"),
    "a list: nothing": (mapping([]), "it lists no image"),
    "results": (mapping([{"image_id": 42, "caption": "x"}]), "as results are; `score --captions FILE` scores such a"),
    "JSON Lines of lists": (mapping(b'["a.jpg", "x"]\n["b.jpg", "y"]'), "a JSON value a line"),
    "a text": (mapping("x"), "it holds 'x' instead of an object or a list"),
    "BLIP's file of references": (
        mapping({"images": [{"id": 42}], "annotations": [{"image_id": 42, "caption": "x", "id": 0}]}),
        r"ids and no 'file_name', as the reference files \(\*_gt\.json\) of BLIP .* name the file that lists",
    ),
    "TextCaps' test set": (
        mapping({"dataset_name": "textcaps", "data": [{"image_id": "a", "image_name": "a"}]}),
        r"data\[0\] has no 'caption_str', as in TextCaps' test set",
    ),
    "no JSON": (mapping(b'{"a.jpg": ["x"],}'), "it is not valid JSON"),
    "a file that was cut": (mapping(b'{"a.jpg": ["x", "y'), "it is not valid JSON"),
    "an empty file": (mapping(b""), "it is not valid JSON"),
    "a hundred thousand brackets": (mapping(b"[" * 100_000), "it is not valid JSON"),
    "another encoding": (mapping('{"a.jpg": ["caf\xe9"]}'.encode("latin-1")), "it is not UTF-8 text"),
    "no annotation file": (
        {**JPEG, "notes.json": {}},
        r"holds no captions: there is no captions\*\.json or dataset_coco",
    ),
    "no image": (
        {OFFICIAL: coco()},
        r"none of the 4 images of '.*' is there: looked for 'COCO_val2014_000000391895\.jpg'",
    ),
    "other images": (
        {**JPEG, OFFICIAL: coco()},
        "none of the 4 images of .*name the folder or archive that holds them",
    ),
    "a mapping's images elsewhere": (
        {"images/a.jpg": photo(1), "captions.json": {"a.jpg": ["x"]}},
        r"none of the 1 images .* looked for 'a\.jpg' and the others in '.*data'; name",
    ),
    "two annotation files": (
        {**photos(), "annotations/captions_train2014.json": coco(), OFFICIAL: coco()},
        "several annotation files: annotations/captions_train2014.json, annotations/captions_val2014.json; choose one, "
        "such as --task-option annotations=annotations/captions_val2014.json",
    ),
    "an image at two places": (
        {**photos("val2014"), **photos("images", [42]), OFFICIAL: coco()},
        rf"image id '42': '{file_name(42)}' is there at 2 places: images/{file_name(42)}, val2014/COCO_.*; keep one",
    ),
    "Karpathy: an image at two places": (
        {**photos("val2014"), **photos("x/val2014", [42]), KARPATHY: karpathy()},
        rf"image id '42': 'val2014/{file_name(42)}' is there at 2 places",
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_captions_that_cannot_be_used_are_refused_in_one_line(tmp_path, fault):
    files, reason = REFUSED[fault]
    with pytest.raises(RequestError, match=reason) as caught:
        CocoCaption(str(write(tmp_path / "data", files)))
    assert "\n" not in str(caught.value)
    str(caught.value).encode()


def test_two_images_of_one_file_are_refused_also_where_the_file_is_missing(tmp_path):
    files = image(file_name=file_name(391895))
    del files[f"val2014/{file_name(391895)}"]
    with pytest.raises(RequestError, match="image ids '391895' and '42' have the same file"):
        CocoCaption(str(write(tmp_path, files)))


@pytest.mark.parametrize(
    "fault", ["an image without a caption", "an image id twice", "a file that was cut", "no image"]
)
def test_the_command_line_says_it_in_one_line_and_exits_with_2(tmp_path, capsys, fault):
    files, _ = REFUSED[fault]
    data = write(tmp_path / "data", files)
    with pytest.raises(RequestError) as caught:
        CocoCaption(str(data))
    with pytest.raises(SystemExit) as ended:
        main(["run", "--task", "coco-caption", "--data", str(data), "--out", str(tmp_path / "run")])
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines() == [f"error: {caught.value}"]
    assert not (tmp_path / "run").exists()
