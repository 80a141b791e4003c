"""Training: one loop, recipes of the methods, exact resume, files that are read again, and plain refusals."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from interrupting import Interrupting, Stop
from safetensors.torch import load_file
from small_fit import BATCH, CASES, UPDATED, distance, terms, update

from suite import RequestError, attach
from suite.api import run
from suite.attachment.reducer_weights import about
from suite.attachment.weight_swap import WeightSwap
from suite.measure.runtimes.base import frozen_copy
from suite.models.load import load_model
from suite.sweep.progress import Progress
from suite.train.loop import CHECKPOINT, Diverged
from suite.train.recipe import make_recipe
from suite.train.run import MODEL, WEIGHTS, Request, train_method
from tests.tiers import one_in
from tests.tolerances import GRADIENT64

ROOT = Path(__file__).parents[2]
QUIET = Progress(quiet=True)
SMALL = {"batch_size": 4, "steps": 3}


def trained(method, out, limit=8, **settings):
    request = Request(method, limit=limit, workers=0, every=1, out=str(out))
    return train_method(request, {**SMALL, **settings}, QUIET)


@pytest.mark.slow
@pytest.mark.parametrize("method", UPDATED)
def test_every_recipe_trains_on_the_embedded_scenes_and_its_file_is_read(method, tmp_path):
    made = trained(method, tmp_path)
    model, _ = load_model("scenes_vit", "embedded")
    images = torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(1))
    rate = "plan=1" if method == "diffrate" else about(made.weights)["rate"]
    plain = model(images)
    with torch.no_grad(), attach(model, method, rate, weights=made.weights) as handle:
        assert handle.reducer.trained
        assert torch.isfinite(model(images)).all()
        assert handle.token_counts[-1] < 197
    assert torch.equal(model(images), plain)  # what the method brought went with it
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [3]
    assert float(rows[-1]["loss"]) > 0


def test_modular_dtem_changes_the_embeddings_alone(tmp_path):
    made = trained("dtem", tmp_path, weight_decay=0.0)
    state = load_file(made.weights)
    assert made.model is None
    assert all(key.startswith("embeddings.") for key in state)
    model, _ = load_model("scenes_vit", "embedded")
    with attach(model, "dtem", "r=16") as handle:
        before = dict(handle.reducer.state_dict())
    changed = {key for key in state if not torch.equal(state[key], before[key])}
    # the last block merges after the class token has been read for the last time
    assert changed == {key for key in state if not key.startswith("embeddings.11.")}


def test_end_to_end_dtem_trains_the_backbone_with_hard_merges_and_the_embedding_with_soft_ones(tmp_path):
    made = trained("dtem", tmp_path, end_to_end=True, soft_every=2, steps=1)
    model, _ = load_model("scenes_vit", "embedded")
    with attach(model, "dtem", "r=16") as handle:
        before = dict(handle.reducer.state_dict())
    state = load_file(made.weights)
    # the first update is a hard one
    assert all(torch.equal(state[key], value) for key, value in before.items())
    own = model.state_dict()
    assert any(not torch.equal(v, own[k.removeprefix("backbone.")]) for k, v in state.items() if k not in before)


def test_a_whole_model_that_was_trained_is_a_checkpoint(tmp_path):
    made = trained("tome", tmp_path, backbone=".*")
    assert made.model == tmp_path / MODEL
    model, info = load_model("scenes_vit", str(made.model))
    assert info.kind == "trained"
    brought = {k.removeprefix("backbone."): v for k, v in load_file(made.weights).items()}
    own = model.state_dict()
    assert set(brought) == set(own)
    assert all(torch.equal(own[key], value) for key, value in brought.items())


def test_a_method_with_its_backbone_is_the_whole_model_with_the_method(tmp_path):
    made = trained("mctf", tmp_path, backbone=".*")
    images = torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(1))
    embedded, whole = load_model("scenes_vit", "embedded")[0], load_model("scenes_vit", str(made.model))[0]
    with torch.no_grad():
        with attach(whole, "mctf", "r=16"):
            wanted = whole(images)
        with attach(embedded, "mctf", "r=16", weights=made.weights):
            assert torch.equal(embedded(images), wanted)


def command(out, *more):
    return [
        sys.executable, str(ROOT / "run_bench.py"), "train", "dtem", "--limit", "8", "--batch-size", "4", "--steps",
        "12", "--workers", "0", "--every", "1", "--out", str(out), *more,
    ]  # fmt: skip


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_bits(tmp_path):
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    process = subprocess.Popen(command(tmp_path / "killed"), env=environment, stderr=subprocess.DEVNULL)
    checkpoint, started = tmp_path / "killed" / CHECKPOINT, time.monotonic()
    while process.poll() is None and not checkpoint.exists() and time.monotonic() - started < 120:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / WEIGHTS).exists()
    done = torch.load(checkpoint, weights_only=True)["step"]
    assert 1 <= done < 12
    for folder in ("killed", "whole"):
        subprocess.run(command(tmp_path / folder), env=environment, check=True, capture_output=True)
    assert (tmp_path / "killed" / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()


def test_a_loss_that_is_no_number_stops_with_update_and_samples_and_keeps_the_checkpoint(tmp_path):
    with pytest.raises(Diverged, match=r"update 2, on samples train/0") as caught:
        trained("dtem", tmp_path, steps=10, lr=1e37, min_lr=1e37, clip=None)  # the first update breaks the embedding
    assert "\n" not in str(caught.value)
    assert torch.load(tmp_path / CHECKPOINT, weights_only=True)["step"] == 1
    assert not (tmp_path / WEIGHTS).exists()


def test_a_folder_of_another_training_is_refused(tmp_path):
    trained("dtem", tmp_path)
    with pytest.raises(RequestError, match=r"another training: recipe.lr was .* is now 0.5; use another --out"):
        trained("dtem", tmp_path, lr=0.5)


def test_weights_of_another_method_are_refused_by_name(tmp_path):
    made = trained("dtem", tmp_path)
    model, _ = load_model("scenes_vit", "embedded")
    with pytest.raises(RequestError, match="are of reducer 'dtem', not of 'mctf'"):
        attach(model, "mctf", "r=4", weights=made.weights)


def test_backbone_weights_of_another_width_are_refused_by_name(tmp_path):
    made = trained("tome", tmp_path)
    model, _ = load_model("vit_tiny_patch16_224", "none")
    with pytest.raises(RequestError, match=r"backbone weights do not fit the model: '.*' has shape"):
        attach(model, "tome", "r=4", weights=made.weights)


@pytest.mark.parametrize(("settings", "said"), [
    ({"lrr": 1}, "lrr"),
    ({"lr": "much"}, "lr='much' is not valid"),
    ({"backbone": "nothing_like_it"}, "matches none"),
    ({"backbone": "("}, "no regular expression"),
    ({"backbone": ""}, "nothing would be trained"),
    ({"seed": -1}, "seed=-1 is not valid"),
])  # fmt: skip
def test_settings_that_mean_nothing_are_refused_in_one_line(settings, said, tmp_path):
    with pytest.raises(RequestError, match=said) as caught:
        trained("tome", tmp_path, **settings)
    assert "\n" not in str(caught.value)


def test_a_method_without_a_recipe_is_refused_with_what_there_is():
    with pytest.raises(RequestError, match=r"training recipe for 'random'.*dtem"):
        make_recipe("random")


def test_a_row_of_trained_weights_names_them_and_stands_beside_the_untrained_one(tmp_path):
    made = trained("mctf", tmp_path / "training")
    results = run(
        reducers=["mctf", f"mctf@{made.weights}"], rates=["r=8"], limit=8, speed=False, out=str(tmp_path / "run")
    )
    frame = results.frame()
    rows = frame[frame.reducer == "mctf"]
    assert sorted(rows.training) == ["", "trained: training"]
    assert rows.gmacs.nunique() == 1


@pytest.mark.parametrize(("method", "kind"), one_in(3, CASES))
def test_parts_of_a_batch_add_up_to_the_whole_batch(method, kind):
    whole = update(method, kind)
    for accumulate in (3, BATCH):  # parts of 2, 1, 1; of one sample each
        parts = update(method, kind, accumulate=accumulate)
        assert parts.noted == pytest.approx(whole.noted, rel=GRADIENT64, abs=1e-14)  # a divergence of 0 is one eps
        assert distance(whole.gradients, parts.gradients) < GRADIENT64


@pytest.mark.parametrize(("method", "kind"), [
    ("tome", "captioning"), ("tome", "segmentation"), ("mctf", "classification")
])  # fmt: skip
def test_a_mean_over_each_part_would_not_add_up(method, kind):
    assert len(set(terms(method, kind))) > 1


def test_the_average_of_weights_is_what_is_saved(tmp_path):
    last, averaged = (load_file(trained("dtem", tmp_path / str(e), ema=e).weights) for e in (None, 0.9))
    assert any(not torch.equal(last[key], averaged[key]) for key in last)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dtps", "diffrate"])
def test_an_interrupted_training_with_drawn_masks_mixed_images_and_an_average_goes_on_to_the_same_bits(
    method, tmp_path
):
    settings = {"mixup": 0.8, "cutmix": 1.0, "ema": 0.9, "steps": 4}
    whole = trained(method, tmp_path / "whole", **settings)

    request = Request(method, limit=8, workers=1, every=2, out=str(tmp_path / "parts"))
    with pytest.raises(Stop):
        train_method(request, {**SMALL, **settings}, Interrupting(tmp_path / "parts"))
    parts = train_method(request, {**SMALL, **settings}, QUIET)
    assert parts.weights.read_bytes() == whole.weights.read_bytes()


def test_buffers_that_a_method_brings_survive_a_conversion_of_the_model():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    brought = {"1.running_mean": torch.full((4,), 5.0), "0.bias": torch.full((4,), 3.0)}
    swap, own = WeightSwap(model, brought), model[0].bias.detach().clone()
    model.to(torch.bfloat16)
    swap.bring()
    assert model[1].running_mean.tolist() == [5.0] * 4
    assert model[0].bias.tolist() == [3.0] * 4
    swap.take_out()
    assert model[1].running_mean.tolist() == [0.0] * 4
    model.float()
    swap.bring()
    assert model[0].bias.tolist() == [3.0] * 4
    swap.take_out()
    assert torch.equal(model[0].bias, own.bfloat16().float())


@pytest.mark.slow
def test_a_compiled_copy_keeps_what_the_method_brought_once_it_is_detached(tmp_path):
    made = trained("mctf", tmp_path, backbone=".*")
    model, _ = load_model("scenes_vit", "embedded")
    images = torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), attach(model, "mctf", "r=16", weights=made.weights):
        wanted = model(images)
        copied = frozen_copy(model)
    with torch.no_grad():
        assert torch.equal(copied(images), wanted)


def test_trained_parts_of_a_backbone_are_refused_on_one_with_other_weights(tmp_path):
    made = trained("mctf", tmp_path)
    with pytest.raises(
        RequestError, match=r"bring parts of the backbone, trained from embedded:scenes_vit; here it has"
    ):
        run(reducers=[f"mctf@{made.weights}"], rates=["r=8"], limit=4, checkpoint="none", out=str(tmp_path / "run"))


def test_a_refused_training_leaves_the_folder_as_it_was(tmp_path):
    trained("dtem", tmp_path)
    (tmp_path / WEIGHTS).unlink()
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    with pytest.raises(RequestError, match=r"recipe.steps was 3 and is now 5; use another --out"):
        trained("dtem", tmp_path, steps=5)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()} == before


@pytest.mark.parametrize(("method", "settings", "said"), [
    ("dtem", {"end_to_end": "on", "backbone": ""}, "end to end, the backbone learns"),
    ("diffrate", {"targets": "-35%,-35%"}, "different changes of flops"),
    ("diffrate", {"targets": "0%"}, "different changes of flops"),
    ("diffrate", {"targets": ""}, "different changes of flops"),
])  # fmt: skip
def test_settings_of_one_recipe_that_mean_nothing_are_refused_in_one_line(method, settings, said):
    with pytest.raises(RequestError, match=said) as caught:
        make_recipe(method, **settings)
    assert "\n" not in str(caught.value)


def test_every_word_for_true_trains_from_scratch_with_its_own_numbers():
    assert {make_recipe("evit", from_scratch=word).epochs for word in (True, "true", "on", "1", "yes")} == {300}
    assert make_recipe("evit").epochs == 30
