"""Exported files say what the model says, whoever runs them; what cannot be exported is told in one line."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from suite import attach
from suite.cli.app import main
from suite.deploy.agreement import compare_logits
from suite.errors import RequestError
from suite.formats import check_format, make_format
from suite.formats.base import in_turns
from suite.formats.onnx_file import open_onnx, to_onnx
from suite.formats.openvino_ir import open_openvino
from suite.formats.packages import require
from suite.formats.program import export_dynamic, export_program
from suite.formats.quantised import quantise
from suite.measure.flops import smooth_image
from suite.reducers import list_reducers, reducer_class
from suite.reducers.gtp import neighbours_in_space
from tests.tolerances import TINY32

IMAGES = torch.cat([smooth_image(32, seed) for seed in range(5)])
VARYING = [name for name in list_reducers() if reducer_class(name).input_dependent]
FIXED = [name for name in list_reducers() if name not in VARYING and name != "none"]
OTHERWISE_IN_OPENVINO = {"random", "tome_random", "resize"}
"""Draws are numbers of 64 bits, which it computes in 32; images it resamples by a rule of its own."""
WEAKER = {"cubist_merge", "dct", "mctf", "pomt", "zero_tprune"}
"""Two blocks are too few for these to save 35 %: they act in one of them alone, or at its end."""


@pytest.fixture
def model():
    torch.manual_seed(0)
    return VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=10).eval()


def test_a_program_of_torch_export_is_the_model_and_leaves_it_as_it_was(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad(), attach(model, "tome", "r=3"):
        expected = model(IMAGES)
        program = export_program(model, IMAGES)
        assert torch.equal(program.module()(IMAGES), expected)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_one_file_serves_batches_of_any_size_in_onnx_runtime_and_openvino(model):
    with torch.no_grad(), attach(model, "mctf", "r=3"):
        expected = model(IMAGES).numpy()
        content = to_onnx(export_dynamic(model, IMAGES)).SerializeToString()
    for opened in (open_onnx, open_openvino):
        session = opened(content, 1)
        for count in (1, 5):
            np.testing.assert_allclose(session(IMAGES[:count].numpy()), expected[:count], **TINY32)


class Neighbours(nn.Module):
    def forward(self, images):
        return images.sum((1, 2, 3))[:, None, None] * neighbours_in_space(10, 10, images.device)


def test_large_tables_that_no_image_changes_are_computed_before_a_runtime_sees_them():
    content = to_onnx(export_program(Neighbours(), IMAGES))
    assert {node.op_type for node in content.graph.node} <= {"ReduceSum", "Unsqueeze", "Mul", "Cast", "Reshape"}
    expected = Neighbours()(IMAGES).numpy()
    np.testing.assert_allclose(open_openvino(content.SerializeToString(), 1)(IMAGES.numpy()), expected, **TINY32)


@pytest.mark.slow
@pytest.mark.parametrize("name", FIXED)
def test_every_method_of_a_fixed_schedule_is_exported(name, model):
    with torch.no_grad(), attach(model, name, "flops=-10%" if name in WEAKER else "flops=-35%"):
        expected = model(IMAGES).numpy()
        content = to_onnx(export_program(model, IMAGES)).SerializeToString()
    np.testing.assert_allclose(open_onnx(content, 1)(IMAGES.numpy()), expected, **TINY32)
    if name not in OTHERWISE_IN_OPENVINO:
        np.testing.assert_allclose(open_openvino(content, 1)(IMAGES.numpy()), expected, **TINY32)


@pytest.mark.parametrize("name", VARYING)
def test_a_method_whose_counts_depend_on_the_image_says_why_it_is_not_exported(name, model):
    rate = "keep=0.7" if "keep" in reducer_class(name).rates else "flops=-20%"
    with attach(model, name, rate), pytest.raises(RequestError, match="depends on the image") as refused:
        export_program(model, IMAGES)
    assert "\n" not in str(refused.value)


class Sorted(nn.Module):
    def forward(self, images):
        return images.flatten(1)[:, :8].argsort(dim=1, descending=True, stable=True).float()


def test_of_equal_values_the_lower_place_comes_first_in_every_runtime():
    tied = torch.tensor([[1.0, 3, 3, 0, 3, 1, 0, 1]]).expand(2, -1).reshape(2, 1, 1, 8).contiguous()
    content = to_onnx(export_program(Sorted(), tied)).SerializeToString()
    for opened in (open_onnx, open_openvino):
        assert opened(content, 1)(tied.numpy()).tolist() == [[1, 2, 4, 0, 5, 7, 3, 6]] * 2


TWO_CLOSED = """
import signal, sys
from suite.formats.openvino_ir import open_openvino

sessions = [open_openvino(sys.argv[1], 1) for _ in range(2)]
while sessions:
    del sessions[0]
signal.signal(signal.SIGINT, lambda *_: print("heard", flush=True))
signal.raise_signal(signal.SIGINT)
"""


def test_a_process_hears_signals_when_models_of_openvino_were_closed_in_the_order_they_were_opened(tmp_path):
    tied = torch.zeros(2, 1, 1, 8)
    (tmp_path / "model.onnx").write_bytes(to_onnx(export_program(Sorted(), tied)).SerializeToString())
    ended = subprocess.run(
        [sys.executable, "-c", TWO_CLOSED, str(tmp_path / "model.onnx")], stdout=subprocess.PIPE, text=True
    )
    assert (ended.returncode, ended.stdout) == (0, "heard\n")


class Placed(nn.Module):
    def forward(self, images):
        ordered = images.flatten(1)[:, :4]
        both = [torch.searchsorted(ordered, images.flatten(1)[:, 4:], right=right) for right in (False, True)]
        return torch.cat(both, dim=1).float()


def test_places_in_an_order_are_found_as_pytorch_finds_them():
    images = torch.tensor([[0.0, 1, 1, 3, 1, 4, -1, 2]]).expand(2, -1).reshape(2, 1, 1, 8).contiguous()
    content = to_onnx(export_program(Placed(), images)).SerializeToString()
    for opened in (open_onnx, open_openvino):
        assert opened(content, 1)(images.numpy()).tolist() == [[1, 4, 0, 3, 3, 4, 0, 3]] * 2


def test_what_is_quantised_has_products_of_8_bits_and_logits_nearby(model):
    with torch.no_grad(), attach(model, "tome", "r=3"):
        expected = model(IMAGES).numpy()
        whole = to_onnx(export_program(model, IMAGES))
    small = quantise(whole, IMAGES)
    kinds = [node.op_type for node in small.graph.node]
    assert kinds.count("QuantizeLinear") > 0
    weights = {item.name: item.data_type for item in small.graph.initializer}
    assert sum(kind == 3 for kind in weights.values()) >= 8  # INT8: four products with weights in each of two blocks
    found = open_onnx(small.SerializeToString(), 1)(IMAGES.numpy())
    assert compare_logits(found, expected, "int8", trained=False).passed
    assert not np.array_equal(found, expected)


def test_a_fixed_batch_is_filled_up_and_what_was_filled_in_is_left_out():
    seen = []

    def session(images):
        seen.append(len(images))
        return images[:, 0, 0, :2]

    images = np.arange(5 * 3 * 4, dtype=np.float32).reshape(5, 3, 1, 4)
    assert np.array_equal(in_turns(session, images, 2), images[:, 0, 0, :2])
    assert seen == [2, 2, 2]


def test_agreement_is_bounded_by_the_precision_and_classes_count_where_weights_are_trained():
    expected = np.array([[4.0, 1.0], [1.0, 2.0]])
    near = expected + np.array([[0.01, 0], [0, 0]])
    assert compare_logits(near, expected, "fp32", trained=True).passed
    other = np.array([[4.0, 1.0], [2.0, 1.0]])
    told = compare_logits(other, expected, "int8", trained=True)
    assert (told.top1, told.relative, told.passed) == (0.5, 0.5, False)
    assert compare_logits(other, expected, "int8", trained=False).passed
    many, once = np.tile(expected, (20, 1)), np.tile(expected, (20, 1))
    once[0, 0] = 3.0  # as where one of two merges that are equally good is made
    assert compare_logits(once, many, "fp32", trained=True).passed
    once[:3, 0] = 3.0
    assert not compare_logits(once, many, "fp32", trained=True).passed
    once = many.copy()
    once[0, 0] = np.nan
    assert not compare_logits(once, many, "int8", trained=False).passed


def test_what_a_format_cannot_do_and_what_is_not_installed_is_told_in_one_line(monkeypatch):
    with pytest.raises(RequestError, match=r"torch-export.*has no int8"):
        check_format(make_format("torch-export"), "int8")
    with pytest.raises(RequestError, match="unknown format 'onx'; did you mean 'onnx'"):
        make_format("onx")
    with pytest.raises(RequestError, match=r"no_such_runtime is not installed; pip install 'reducerbench\[deploy\]'"):
        require("torch", "no_such_runtime")


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(["export", *map(str, arguments)])
    return ended.value.code


def test_a_failed_check_keeps_the_file_under_a_name_that_says_so_and_exits_with_1(tmp_path, capsys):
    asked = ("--reducer", "evit", "--rate", "keep=0.7", "--format", "torch-export", "--samples", 4, "--out", tmp_path)
    assert run(*asked, "--bound", 0.01) == 0
    (card,) = tmp_path.glob("*.json")
    told = json.loads(card.read_text())
    assert (told["method"], told["rate"], told["weights"]["kind"]) == ("evit", "keep=0.7", "trained")
    assert told["files"].keys() == {"scenes_vit-evit-keep=0.7-b1-fp32.pt2"}
    assert told["check"]["passed"]
    assert told["check"]["top1"] == 1
    assert len(told["classes"]["names"]) == told["classes"]["count"] == 48
    assert told["expected_accuracy"]["samples"] == 4
    assert run(*asked, "--bound", -1) == 1  # nothing is as near as that
    assert "failed" in capsys.readouterr().err
    assert {file.name for file in tmp_path.iterdir()} == {
        f"scenes_vit-evit-keep=0.7-b1-fp32.failed-check.{end}" for end in ("pt2", "json")
    }


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--batch", "some"), "--batch 'some' cannot be read"),
        (("--reducer", "ats", "--rate", "keep=0.7"), "'ats' cannot be exported"),
        (("--model", "scenes_git", "--task", "scenes-caption"), "no classifier"),
        (("--reducer", "tome"), "no rate"),
    ],
)
def test_what_cannot_be_exported_is_refused_before_anything_is_written(arguments, told, tmp_path, capsys):
    assert run(*arguments, "--out", tmp_path / "new") == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
