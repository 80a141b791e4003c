"""Batches of loader workers where shared memory is as small as in a container: they come all the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from suite.contract.task import Reader, Sample, collate
from suite.train.examples import Order, read
from suite.train.numbers import Numbers
from suite.train.objective import Objective
from tasks.imagenet.task import ImageNet
from tasks.reading.images import TimmPreprocessing
from tests.photos import write_photos

PLAIN = TimmPreprocessing((3, 256, 256), "bilinear", (0.5,) * 3, (0.5,) * 3, 1.0, "center")
ROOT = Path(__file__).parents[2]
ALONE = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")  # a view of the file system of its own
SMALL = "mount -t tmpfs -o size={size} tmpfs /dev/shm && exec {python} -c {code}"
CODE = "from tests.faults.test_shared_memory import main; main({data!r})"


def batches(data: str, workers: int) -> list[torch.Tensor]:
    task = ImageNet(data)
    loader = DataLoader(Reader(task, task.samples, PLAIN), 4, num_workers=workers, collate_fn=collate)
    return [batch.images for batch in loader]


class Unchanged(Objective):
    """Teaches images as they are evaluated."""

    task_class, kind = ImageNet, "classification"

    def example(self, sample: Sample) -> tuple[torch.Tensor, int]:
        return self.task.load(sample, PLAIN), sample.label

    def predict(self, model: object, batch: object) -> torch.Tensor:
        raise AssertionError("nothing is trained here")

    criterion = predict


def examples(data: str, workers: int) -> list[torch.Tensor]:
    objective = Unchanged(ImageNet(data), torch.nn.Identity(), Numbers(batch_size=4, steps=3))
    return [batch.images for batch in read(objective, Order(12, objective.recipe), 0, workers)]


def main(data: str) -> None:
    """In a process of its own: what came through shared memory, and that all came as it was read."""
    for read_all in (batches, examples):
        found, expected = read_all(data, 2), read_all(data, 0)
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
        print([images.is_shared() for images in found], list(Path("/dev/shm").iterdir()))


def with_shared_memory(size: str, data: Path) -> str:
    command = SMALL.format(size=size, python=sys.executable, code=f'"{CODE.format(data=str(data))}"')
    return subprocess.run([*ALONE, command], cwd=ROOT, capture_output=True, text=True, timeout=300, check=True).stdout


@pytest.fixture(scope="module")
def own_mounts() -> None:
    done = subprocess.run([*ALONE, "mount -t tmpfs tmpfs /dev/shm"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")


@pytest.mark.usefixtures("own_mounts")
@pytest.mark.parametrize(("size", "shared"), [("1m", "[False, False, False]"), ("1g", "[True, True, True]")])
def test_batches_that_do_not_fit_shared_memory_come_by_value(tmp_path, size, shared):
    photos = write_photos(tmp_path / "photos")  # 12, in batches of 3 MB
    assert with_shared_memory(size, photos).splitlines() == [f"{shared} []"] * 2  # of evaluation, of training
