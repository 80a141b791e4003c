"""The reducer that docs/add_your_own.md shows, at every form of rate, and what is said without its declaration."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_vit import images, make_model

from suite import RequestError, attach
from suite.errors import CellError
from suite.gate.contract import prove
from suite.models.load import load_model
from suite.reducers.base import REGISTERED
from suite.sweep.evaluate import check_counts

PAGE = Path(__file__).parents[2] / "docs" / "add_your_own.md"
RATES = (
    *("r=1", "r=8", "r=16", "r=25", "r=98", "r=16:-1", "r=10:1", "r=[16,16,8]", "r=98@3,6,9", "r=0.35@3,6,9", "r=0.9"),
    *("merge=0.3", "merge=0.9", "flops=-35%"),
)


@pytest.fixture(scope="module")
def source() -> str:
    section = PAGE.read_text().partition("## A reducer is one file")[2]
    return re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]


@pytest.fixture
def example(source, tmp_path) -> Iterator[str]:
    file = tmp_path / "my.py"
    file.write_text(source.replace('"my_method"', f'"{tmp_path.name}"'))
    yield f"{file}:MyMethod"
    REGISTERED.pop(tmp_path.name, None)


@pytest.mark.parametrize("name", ["scenes_vit", "deit_tiny_patch16_224"])
@torch.inference_mode()
def test_the_example_passes_on_what_every_rate_plans_and_changes_nothing_at_zero(name, example):
    model, _ = load_model(name, "none")
    side = model.patch_embed.img_size[0]
    batch = images(1, side)
    whole = model(batch)
    for rate in RATES:
        with attach(model, example, rate) as handle:
            model(batch)
            assert not handle.unplanned, handle.unplanned
            assert handle.token_counts[-1] < 197
    for rate in (None, "r=0", "merge=0", "flops=0%"):
        with attach(model, example, rate):
            assert torch.equal(model(batch), whole)
    for rate, said in (("r=99", "use r<=98"), ("keep=0.7", r"it takes r=\.\.\. or flops")):
        with pytest.raises(RequestError, match=said):
            attach(model, example, rate)


@pytest.mark.slow
def test_the_example_keeps_the_promises_that_counts_rest_on(example):
    proved = prove(
        example, only="passes_on_as_many_tokens and (MAE or distilled) or shared_prefix or not_depend_on_its"
    )
    assert proved.tests >= 4
    assert not proved.failed


@pytest.mark.slow
def test_the_example_keeps_every_promise(example):
    assert not prove(example).failed


@torch.inference_mode()
def test_a_method_that_takes_out_too_few_tokens_is_told_to_declare_its_capacity(source, tmp_path):
    lines = source.replace('"my_method"', '"greedy"').splitlines()
    file = tmp_path / "greedy.py"
    file.write_text("\n".join(line for line in lines if "capacity" not in line and "return (count" not in line))
    model = make_model()
    with attach(model, f"{file}:MyMethod", "r=20") as handle:
        model(images())
        with pytest.raises(CellError) as caught:
            check_counts(handle)
    assert str(caught.value) == (
        "block 2 passed on 13 tokens, but the rate plans 5; if it cannot take more than 12 of 25 tokens out, "
        "it has to declare so: def capacity(self, count, num_prefix)"
    )
