"""What tasks measure of a batch on a GPU is what they measure on the CPU, repeatable, and the host reads nothing."""

from contextlib import contextmanager

import pytest
import torch

from suite.contract.task import Sample
from tasks.classification import logit_columns, measure_logits
from tasks.scenes.masks import ScenesSeg
from tasks.segmentation import WindowScores
from tests.gpu.on_gpu import host_reads

ROUNDING = 1e-6  # of a softmax over 1000 classes in float32


@contextmanager
def only_repeatable():
    """Context in which an operator whose sums have no fixed order is an error."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def measured_there(measure, outputs):
    """By the second call: the first loads libraries."""
    with torch.inference_mode(), only_repeatable():
        measure(outputs)
        with host_reads("error"):
            found = measure(outputs)
    return found.cpu()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_logits_have_the_same_best_classes_however_many_are_equal(dtype):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(64, 1000, generator=generator, dtype=torch.float64)
    logits[16:32] = (logits[16:32] * 2).round()
    logits[32:48] = torch.where(torch.rand(16, 1000, generator=generator) < 0.5, 0.0, -0.0)
    logits, samples = logits.to(dtype), [Sample(str(i), i) for i in range(64)]
    found = measured_there(lambda there: measure_logits(there, samples, 1000), logits.cuda())
    expected, columns = (
        logit_columns(measured, samples, 1000).to_pydict()
        for measured in (measure_logits(logits, samples, 1000), found)
    )
    assert columns.pop("confidence") == pytest.approx(expected.pop("confidence"), rel=ROUNDING)
    assert columns == expected


def test_masks_have_the_same_digests_and_areas():
    task = ScenesSeg(scenes=4)
    truths = torch.stack([torch.from_numpy(task.truth(sample)) for sample in task.samples])
    scores = torch.nn.functional.one_hot(truths, task.num_classes).permute(0, 3, 1, 2).float().roll(5, dims=3)

    def measure(outputs):
        return task.measure(outputs, task.samples)

    found = measured_there(measure, WindowScores(scores.cuda(), 112))
    assert torch.equal(found, measure(WindowScores(scores, 112)))
