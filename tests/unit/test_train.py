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
from safetensors.torch import load_file

from suite import RequestError, attach
from suite.checkpoint import load_model
from suite.progress import Progress
from suite.reducer_weights import about
from suite.sweep import run
from suite.train.loop import CHECKPOINT, Diverged
from suite.train.recipe import list_recipes, make_recipe
from suite.train.run import MODEL, WEIGHTS, Request, train_method

ROOT = Path(__file__).parents[2]
QUIET = Progress(quiet=True)
SMALL = {"batch_size": 4, "steps": 3}


def trained(method, out, limit=8, **settings):
    request = Request(method, limit=limit, workers=0, every=1, out=str(out))
    return train_method(request, {**SMALL, **settings}, QUIET)


@pytest.mark.parametrize("method", list_recipes())
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
        "30", "--workers", "0", "--every", "1", "--out", str(out), *more,
    ]  # fmt: skip


def test_a_killed_training_goes_on_to_the_same_bits(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command(tmp_path / "killed"), env=environment, stderr=subprocess.DEVNULL)
    checkpoint, started = tmp_path / "killed" / CHECKPOINT, time.monotonic()
    while not checkpoint.exists() and time.monotonic() - started < 120:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / WEIGHTS).exists()
    done = torch.load(checkpoint, weights_only=True)["step"]
    assert 1 <= done < 30
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
    with pytest.raises(RequestError, match=r"another training: recipe .*use another --out"):
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
    assert sorted(rows.training) == ["", "trained: weights.safetensors"]
    assert rows.gmacs.nunique() == 1


def test_parts_of_a_batch_add_up_to_the_whole_batch(tmp_path):
    files = [trained("tome", tmp_path / str(n), accumulate=n, amp=False, steps=1).weights for n in (1, 2)]
    whole, parts = map(load_file, files)
    # Adam's first step is the sign of the gradient, so only rounding about zero may differ
    for key in whole:
        assert torch.isclose(whole[key], parts[key], atol=1e-5).float().mean() > 0.98


def test_the_average_of_weights_is_what_is_saved(tmp_path):
    last, averaged = (load_file(trained("dtem", tmp_path / str(e), ema=e).weights) for e in (None, 0.9))
    assert any(not torch.equal(last[key], averaged[key]) for key in last)
