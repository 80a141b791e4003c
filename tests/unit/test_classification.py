"""What logits are worth is what a plain sort says, in every float dtype, however many of them are equal."""

from __future__ import annotations

import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from suite.contract.task import Sample
from suite.errors import CellError
from tasks.classification import best_classes, logit_columns, measure_logits, score_logits, sorted_classes

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn)
FEW = (0.0, -0.0, 1.0, 1.5, -2.0, 240.0, -240.0)  # so that many are equal; all dtypes hold them
ROUNDING = 1e-6  # of a softmax over up to 1000 classes in float32


@st.composite
def batches(draw: st.DrawFn) -> Tensor:
    """(B, C) logits: of few values, or of any in between."""
    rows, classes = draw(st.integers(0, 4)), draw(st.sampled_from([1, 2, 4, 5, 6, 7, 30, 1000]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    few = torch.tensor(draw(st.lists(st.sampled_from(FEW), min_size=1)), dtype=torch.float64)
    drawn = few[torch.randint(len(few), (rows, classes), generator=generator)]
    apart = torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    share = draw(st.sampled_from([0.0, 0.01, 0.5, 1.0]))
    mixed = torch.where(torch.rand(rows, classes, generator=generator) < share, apart, drawn)
    return mixed.to(draw(st.sampled_from(DTYPES)))


def samples_of(logits: Tensor) -> list[Sample]:
    return [Sample(f"{row}é", 7 * row % logits.shape[1]) for row in range(len(logits))]


def expected(row: list[float], sample: Sample) -> dict:
    """By the definition, from the exact values of a row."""
    best = sorted(range(len(row)), key=lambda index: (-row[index], index))[:5]
    return {
        "id": sample.id,
        "label": sample.label,
        "prediction": best[0],
        "correct": best[0] == sample.label,
        "correct5": sample.label in best if len(row) > 5 else None,
        "top5": best,
        "confidence": pytest.approx(1 / sum(math.exp(value - row[best[0]]) for value in row), rel=ROUNDING),
    }


@settings(max_examples=200, deadline=None)
@given(batches())
def test_rows_are_those_of_the_definition(logits):
    samples = samples_of(logits)
    rows = score_logits(logits, samples, logits.shape[1])
    assert rows == [expected(row, sample) for row, sample in zip(logits.double().tolist(), samples, strict=True)]


@settings(max_examples=200, deadline=None)
@given(batches())
def test_a_gpu_that_sorts_all_classes_finds_the_same_best_ones(logits):
    logits = logits.to(torch.float64 if logits.dtype == torch.float64 else torch.float32)
    count = min(5, logits.shape[1])
    assert torch.equal(sorted_classes(logits)[:, :count], best_classes(logits, count))


@settings(max_examples=100, deadline=None)
@given(batches(), st.data())
def test_the_first_row_that_holds_no_numbers_is_named_with_how_many_there_are(logits, data):
    logits = logits.float()
    rows, classes = logits.shape
    at = (
        data.draw(st.lists(st.tuples(st.integers(0, rows - 1), st.integers(0, classes - 1)), min_size=1))
        if rows
        else []
    )
    for row, index in at:
        logits[row, index] = data.draw(st.sampled_from([math.nan, math.inf, -math.inf]))
    samples = samples_of(logits)
    measured = measure_logits(logits, samples, classes)
    if not at:
        assert len(logit_columns(measured, samples, classes)) == 0
        return
    first = min(row for row, _ in at)
    kind = "NaN" if logits[first].isnan().any() else "Inf"
    said = f"logits of sample '{first}é' hold {kind} ({len({row for row, _ in at})} such samples in this batch)"
    with pytest.raises(CellError, match=f"^{re.escape(said)}$"):
        logit_columns(measured, samples, classes)


def test_the_values_of_a_long_dtype_are_compared_as_they_are():
    logits = torch.tensor([[1.0, 1.0 + 2**-40, 1.0 - 2**-40, 0.0, -1.0, 1.0]], dtype=torch.float64)
    [row] = score_logits(logits, [Sample("a", 0)], 6)
    assert row["top5"] == [1, 0, 5, 2, 3]


def test_a_row_does_not_depend_on_its_neighbours():
    logits = torch.randn(16, 1000, generator=torch.Generator().manual_seed(0)).bfloat16()
    samples = samples_of(logits)
    alone = [row for i in range(16) for row in score_logits(logits[i : i + 1], samples[i : i + 1], 1000)]
    assert score_logits(logits, samples, 1000) == alone
