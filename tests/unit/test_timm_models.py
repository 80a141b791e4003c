"""Which of timm's models can be reduced, by name, and whether that is true of the models."""

import pytest
import timm
import torch

from suite import RequestError
from suite.backbones import family_of
from suite.models import timm_models
from suite.models.timm_models import find_timm_models, list_timm_models

PATTERNS = ("vit_*", "deit*", "eva*", "beit*", "vitamin*", "flexivit*", "naflexvit*")
NAMES = sorted({name for pattern in PATTERNS for name in timm.list_models(pattern)})


def test_every_vision_transformer_is_listed_with_a_reason_where_it_is_not_supported():
    listed = {model.name: model for model in find_timm_models()}
    assert not set(NAMES) - listed.keys()
    of_four = [listed[name] for name in NAMES if name.startswith(("vit_", "deit", "eva", "beit"))]
    refused = [model for model in of_four if model.refused]
    assert len(of_four) - len(refused) >= 0.95 * len(of_four)
    assert all(len(model.refused) > 20 for model in refused)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(12))
def test_what_is_listed_is_what_a_family_takes(part):
    listed = {model.name: model for model in find_timm_models()}
    for name in NAMES[part::12]:
        with torch.device("meta"):
            model = timm.create_model(name)
        try:
            family_of(model).check(model)
            supported = True
        except RequestError:
            supported = False
        assert supported == (not listed[name].refused), name


def test_names_are_remembered_until_timm_or_what_is_read_of_it_changes(monkeypatch, tmp_path):
    monkeypatch.setenv("REDUCERBENCH_CACHE", str(tmp_path))
    found = [tuple(model) for model in find_timm_models()]
    assert [tuple(model) for model in list_timm_models()] == found
    monkeypatch.setattr(timm_models, "MODULES", ("deit",))
    assert [tuple(model) for model in list_timm_models()] == found
    (file,) = (tmp_path / "timm").iterdir()
    file.write_text("[[1")  # damaged: found anew
    assert {model.name.split("_")[0] for model in list_timm_models()} == {"deit", "deit3"}
    reader = tmp_path / "reader.py"
    reader.touch()
    monkeypatch.setattr(timm_models, "__file__", str(reader))
    monkeypatch.setattr(timm_models, "MODULES", ("beit",))
    assert {model.name.split("_")[0] for model in list_timm_models("beit*")} == {"beit", "beitv2"}
