"""What a method has learned: read from the command line, named on the row, part of what a cell is."""

from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from test_cli import exit_code, one_error_line

from reports.frame import load_frame
from suite import RequestError, attach
from suite.api import run
from suite.attachment.reducer_weights import write_tensors


def learned_embedding(folder, seed=0):
    """A file of DTEM embeddings for the model of `tiny_run`."""
    model = timm.create_model("test_vit", img_size=64).eval()
    with attach(model, "dtem", "r=1") as handle, torch.no_grad():
        for parameter in handle.reducer.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))
        write_tensors(
            folder / f"dtem-{seed}.safetensors", handle.reducer.state_dict(), reducer=handle.reducer.name, epochs=1
        )
    return folder / f"dtem-{seed}.safetensors"


@pytest.mark.slow
def test_a_row_says_untrained_until_weights_are_given_and_then_names_them(tiny_run, tmp_path):
    spec = {**tiny_run, "reducers": ["dtem", "tome"]}
    frame = run(spec).frame().set_index("reducer")
    assert frame.training["dtem"] == "untrained embedding"
    assert frame.training["tome"] == ""
    assert "untrained" in (tmp_path / "run" / "report" / "table.md").read_text()
    file = learned_embedding(tmp_path)
    frame = run({**spec, "reducer_weights": {"dtem": str(file)}, "out": str(tmp_path / "second")}).frame()
    assert "dtem-0.safetensors" in frame.set_index("reducer").training["dtem"]


@pytest.mark.slow
def test_other_weights_are_another_cell_of_the_same_run(tiny_run, tmp_path):
    spec = {**tiny_run, "reducers": ["dtem"]}
    run({**spec, "reducer_weights": {"": str(learned_embedding(tmp_path, 0))}})
    run({**spec, "reducer_weights": {"": str(learned_embedding(tmp_path, 1))}})
    frame = load_frame(tiny_run["out"])
    assert sorted(frame.training[frame.reducer == "dtem"]) == [
        "trained: dtem-0.safetensors",
        "trained: dtem-1.safetensors",
    ]


def test_the_flag_finds_the_only_method_that_learns(tiny_run, tmp_path, photos, capsys):
    flags = ["run", "--task", "imagenet", "--model", "test_vit", "--checkpoint", "none", "--data", photos]
    flags += ["--image-size", 64, "--no-speed", "--rates", "r=1", "--workers", 0, "--out", tmp_path / "flag"]
    file = learned_embedding(tmp_path)
    assert exit_code(*flags, "--reducers", "dtem,tome", "--reducer-weights", file) == 0
    capsys.readouterr()
    said = one_error_line(capsys, *flags, "--reducers", "tome", "--reducer-weights", file)
    assert "none of the reducers learns" in said
    said = one_error_line(capsys, *flags, "--reducers", "dtem,dtps", "--reducer-weights", file)
    assert "write NAME=" in said
    said = one_error_line(capsys, *flags, "--reducers", "dtem", "--reducer-weights", "dtem=nowhere.safetensors")
    assert "do not exist" in said
    said = one_error_line(capsys, *flags, "--reducers", "dtem", "--reducer-weights", f"dtme={file}")
    assert "did you mean 'dtem'" in said


def test_a_plan_of_its_own_needs_no_rate(tiny_run, tmp_path):
    plan = {"prune_kept": [17, *[12] * 11], "merge_kept": [17, *[10] * 11]}
    asked = {"reducers": ["diffrate"], "rates": (), "reducer_options": {"diffrate": plan}}
    frame = run({**tiny_run, "model": "deit_tiny_patch16_224", **asked}).frame()  # its twelve blocks
    row = frame[frame.reducer == "diffrate"].iloc[0]
    assert (row.rate, row.status, row.training) == ("", "done", "")
    assert row.tokens_left == 10


def test_a_plan_and_a_rate_together_are_refused():
    model = timm.create_model("deit_tiny_patch16_224", img_size=64).eval()
    plan = {"prune_kept": [17, *[12] * 11], "merge_kept": [17, *[10] * 11]}
    for rate in ("r=1", "flops=-20%"):
        with pytest.raises(RequestError, match="leave"):
            attach(model, "diffrate", rate, **plan)


def test_a_reducer_file_is_measured_beside_the_named_ones(tiny_run, photos, tmp_path, capsys):
    toy = tmp_path / "toy.py"
    toy.write_text(
        "from suite.tokens.grouping import rank\n"
        "from suite.reducers.base import Reducer\n\n\n"
        "class Loud(Reducer):\n"
        "    def after_attention(self, tokens, signals, amount):\n"
        "        order = rank(tokens.x.norm(dim=2), tokens.num_prefix)\n"
        "        return tokens.keep(order[:, : tokens.num_patches - amount])\n"
    )
    flags = ["run", "--task", "imagenet", "--model", "test_vit", "--checkpoint", "none", "--data", photos]
    flags += ["--image-size", 64, "--no-speed", "--rates", "r=1", "--workers", 0, "--out", tmp_path / "toy"]
    assert exit_code(*flags, "--reducers", "tome", "--reducer-file", f"{toy}:Loud") == 0
    assert {"none", "tome", f"{toy}:Loud"} == set(load_frame(tmp_path / "toy").reducer)
    capsys.readouterr()
    assert "does not exist" in one_error_line(capsys, "list", "--check", f"{tmp_path}/no.py:Loud")


def test_learned_numbers_that_are_none_are_refused_by_the_tensors_name(tiny_run, tmp_path):
    file = learned_embedding(tmp_path)
    good = load_file(file)
    name = next(name for name, value in good.items() if value.numel() > 1)
    for wrong, said in (
        (torch.full_like(good[name], float("nan")), f"'{name}' is not finite"),
        (good[name] / 0.0, f"'{name}' is not finite"),
        (good[name].to(torch.int32), f"'{name}' holds torch.int32"),
        (good[name][..., :1].clone(), f"'{name}' has shape"),
    ):
        save_file({**good, name: wrong}, file)
        with pytest.raises(RequestError, match=said):
            run({**tiny_run, "reducers": ["dtem"], "reducer_weights": {"": str(file)}})


@pytest.mark.parametrize("about", ["[]", "null", "7", "{", '{"recipe": [1]}', '{"recipe": null}', "[" * 100_000])
def test_weights_that_say_of_themselves_what_training_does_not_write_are_refused(about, tmp_path):
    file = learned_embedding(tmp_path)
    save_file(load_file(file), file, metadata={"about": about})
    with pytest.raises(RequestError, match="which training does not write"):
        attach(timm.create_model("test_vit", img_size=64), "dtem", "r=1", weights=file)
