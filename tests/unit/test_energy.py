"""Joules are counted where a counter can be read, and nowhere else."""

import pytest
import torch

from suite.measure import energy
from suite.measure.energy import joules_between, joules_so_far, processor_joules
from suite.measure.timing import time_block


@pytest.fixture
def counter(tmp_path):
    """Two packages as Linux shows them, with a part of one, which counts for nothing."""
    for name, kind, used in (("0", "package-0", 3_000_000), ("1", "package-1", 500_000), ("0:0", "core", 999)):
        domain = tmp_path / f"intel-rapl:{name}"
        domain.mkdir()
        (domain / "name").write_text(f"{kind}\n")
        (domain / "energy_uj").write_text(f"{used}\n")
    return tmp_path


def test_a_processor_has_used_what_its_packages_have(counter):
    assert processor_joules(counter) == 3.5


def test_where_nothing_can_be_read_nothing_is_known(counter, tmp_path):
    (counter / "intel-rapl:1" / "energy_uj").unlink()
    assert processor_joules(counter) is None
    assert processor_joules(tmp_path / "nowhere") is None
    assert joules_so_far(torch.device("meta")) is None


def test_a_counter_that_has_begun_anew_tells_nothing():
    assert joules_between(3.5, 5.0) == 1.5
    assert joules_between(5.0, 3.5) is joules_between(None, 1.0) is joules_between(1.0, None) is None


def test_a_block_on_a_cpu_knows_what_its_forwards_used(counter, monkeypatch):
    monkeypatch.setattr(energy, "POWERCAP", counter)

    def forward(images):
        (counter / "intel-rapl:0" / "energy_uj").write_text(str(processor_microjoules() + 2_000_000))
        return images

    def processor_microjoules():
        return int((counter / "intel-rapl:0" / "energy_uj").read_text())

    block = time_block(forward, torch.zeros(1), iterations=4)
    assert (block.joules, block.launched) == (8.0, 4)
