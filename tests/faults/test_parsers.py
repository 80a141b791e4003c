"""Whatever stands in a request, a recipe, an index or a file of a run: it is read, or refused in a line."""

from __future__ import annotations

import io
import json
import string

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from suite.errors import RequestError
from suite.rates.rate import Rate, parse_rate, stored_rate
from suite.store.files import read_json
from suite.store.folder import RUN, RunFolder
from suite.store.log import Logs
from suite.sweep.spec import RunSpec, make_spec, read_yaml
from suite.train.recipe import list_recipes, make_recipe
from tasks.coco.annotations import read_annotations
from tasks.imagenet.tables import read_table
from tasks.reading.images import UnreadableImage
from tasks.reading.masks import mask_size, read_mask, read_palette
from tests.captioned import coco

PREFIXES = ("r", "keep", "tau", "lines", "merge", "side", "plan", "flops", "")
AMOUNTS = st.one_of(
    st.text("0123456789.,:-+%e[]@ infa", max_size=12), st.floats().map(str), st.integers().map(str), st.text(max_size=8)
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from(sorted(RunSpec.model_fields))
many = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(st.sampled_from(PREFIXES), AMOUNTS, st.sampled_from(["", "@3", "@3,6", "@", "@x", "@-1", "@3,3"]))
@many
def test_a_rate_is_read_as_it_is_written_or_refused(prefix, amount, at):
    try:
        rate = parse_rate(f"{prefix}={amount}{at}")
    except RequestError:
        return
    assert isinstance(rate, Rate)
    assert stored_rate(str(rate)) == rate


@given(st.dictionaries(KEYS | st.text(max_size=8), JSON, max_size=5))
@many
def test_a_request_is_a_spec_or_refused(values):
    try:
        spec = make_spec(values)
    except RequestError:
        return
    json.dumps(spec.model_dump(mode="json"))


@given(st.binary(max_size=200) | st.text(string.printable, max_size=200).map(str.encode))
@many
def test_a_file_of_a_request_is_keys_and_values_or_refused(tmp_path, data):
    (tmp_path / "request.yaml").write_bytes(data)
    try:
        values = read_yaml(str(tmp_path / "request.yaml"))
    except RequestError:
        return
    assert isinstance(values, dict)


@given(st.data(), JSON)
@many
def test_a_recipe_takes_a_number_or_refuses_it(data, value):
    method = data.draw(st.sampled_from(list_recipes()))
    field = data.draw(st.sampled_from(sorted(type(make_recipe(method)).model_fields)) | st.text(max_size=8))
    try:
        recipe = make_recipe(method, **{field: value})
    except RequestError:
        return
    assert field in type(recipe).model_fields


@given(st.data())
@many
def test_captions_are_read_or_refused(data):
    whole = coco()
    place = data.draw(
        st.sampled_from(["", *whole, "images.0", "annotations.0", "annotations.0.caption", "images.0.id"])
    )
    value = data.draw(JSON)
    text = json.dumps(replaced(whole, place.split(".") if place else [], value)).encode()
    if data.draw(st.booleans()):
        text = text[: data.draw(st.integers(0, len(text)))]
    try:
        read_annotations("captions.json", text)
    except RequestError:
        return


def replaced(content: object, place: list[str], value: object) -> object:
    """The content with another value at a place, named from the top."""
    if not place:
        return value
    first, *rest = place
    if isinstance(content, list):
        return [replaced(content[int(first)], rest, value), *content[1:]]
    assert isinstance(content, dict)
    return {**content, first: replaced(content[first], rest, value)}


@given(st.sampled_from(["a.csv", "val.txt", "a.json", "a.tsv"]), st.binary(max_size=200) | st.text().map(str.encode))
@many
def test_a_table_of_labels_is_read_or_refused(name, data):
    try:
        read_table(name, data)
    except RequestError:
        return


def mask_file() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(buffer, "PNG")
    return buffer.getvalue()


@given(st.integers(0, len(mask_file()) - 1), st.binary(max_size=12), st.integers(0, 12))
@many
def test_a_mask_is_read_or_refused_whatever_stands_in_its_file(place, other, taken):
    data = mask_file()
    data = data[:place] + other + data[place + taken :]
    for read in (read_mask, read_palette, mask_size):
        try:
            read(data)
        except UnreadableImage:
            continue


@given(JSON | st.dictionaries(st.sampled_from(["schema", "identity", "cells", "slots", "spec", "shown"]), JSON))
@many
def test_a_run_folder_is_read_or_refused(tmp_path, value):
    (tmp_path / RUN).write_text(json.dumps(value))
    try:
        RunFolder(tmp_path).read_run()
    except RequestError:
        return
    raise AssertionError("no such value is a run")


@given(st.binary(max_size=300))
@many
def test_bytes_are_no_log_and_no_json(tmp_path, data):
    (tmp_path / "0.log").write_bytes(data)
    assert Logs(tmp_path).streams([tmp_path / "0.log"]) == []
    (tmp_path / "once.json").write_bytes(data)
    try:
        read_json(tmp_path / "once.json")
    except RequestError:
        return
