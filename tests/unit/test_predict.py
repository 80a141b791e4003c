"""Speeds on GPUs that are not here: rooflines by hand, the fit on published speeds, and the verb."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import asdict, astuple
from pathlib import Path

import pytest
import torch

from suite.analyse.prediction.fit import LEAST, MOST, fit, rows_of, trace_cases
from suite.analyse.prediction.fit_sheet import fit_sheet, median_error
from suite.analyse.prediction.published import ALIKE, CIRCUMSTANCES, is_held_out, published_speeds
from suite.analyse.sheet import picture
from suite.backbones import family_of
from suite.cli.app import main
from suite.errors import CellError, RequestError
from suite.measure.kernels import ATTENTION, BATCHED, BIASED, PRODUCT, Kernel
from suite.measure.prediction.cost import Reach, predict_forward
from suite.measure.prediction.fitted import FITTED, HELD_OUT, MERGER, Band, band_of, errors, load_fit
from suite.measure.prediction.gpus import GPUS, find_gpu
from suite.measure.prediction.shapes import Implementation, TracedModel
from suite.measure.roofline import Roofline
from suite.measure.trace import Trace
from suite.papers import paper_tables
from suite.rates.rate import parse_rate, parse_target
from suite.reducers import make_reducer

PAGE = Path(__file__).parents[2] / "docs" / "gpus.md"
DEIT = "deit_tiny_patch16_224"
TOY = Roofline(
    "toy", launch_s=2e-6, host_s=3e-6, bandwidth=1e12, cache_bandwidth=2e12, cache_bytes=1e6,
    rates={PRODUCT: 1e14, BATCHED: 5e13, ATTENTION: 5e13, BIASED: 4e13},
)  # fmt: skip
FIT = load_fit()


@pytest.fixture(scope="module")
def deit():
    return TracedModel(DEIT)


# the roofline, by hand


def test_a_kernel_takes_what_binds_it_and_shares_say_which():
    copy = Kernel("copy", 1, 10_000_000)  # 10 MB at 1 TB/s: 10 us
    small = Kernel("add", 1, 100_000)  # 0.1 MB from the cache: 0.05 us, but a launch takes 2
    product = Kernel("mm", 1, 1_000_000, 28 * 10**8, PRODUCT)  # 2.8e9 at 1e14/s: 28 us
    forward = predict_forward(Trace((copy, small, product), 0), TOY)
    assert forward.gpu_s == pytest.approx(40e-6)
    assert forward.host_s == pytest.approx(9e-6)
    assert forward.seconds == forward.gpu_s
    assert forward.shares == pytest.approx({"bandwidth": 0.25, "launches": 0.05, "arithmetic": 0.7})
    assert forward.binds == "arithmetic"


@pytest.mark.parametrize(
    ("kernel", "bound"),
    [
        (Kernel("sort", 4, 1000), "launches"),
        (Kernel("copy", 1, 4_000_000), "bandwidth"),
        (Kernel("bmm", 1, 4_000_000, 10**10, BATCHED), "arithmetic"),
    ],
)
def test_a_forward_of_one_kernel_is_bound_by_what_binds_that(kernel, bound):
    forward = predict_forward(Trace((kernel,), 0), TOY)
    assert forward.shares[bound] == 1
    # sort: 4 launches, 8 us and 12 of the host; copy: 4 us and 3; bmm: 200 us and 3
    assert forward.binds == ("host" if bound == "launches" else bound)


def test_where_launching_takes_longer_than_the_work_the_host_binds_and_decides_the_time():
    forward = predict_forward(Trace((Kernel("add", 1, 1000),) * 5, 0), TOY)
    assert (forward.gpu_s, forward.host_s, forward.seconds) == pytest.approx((10e-6, 15e-6, 15e-6))
    assert forward.binds == "host"


# data sheets


def test_a_roofline_is_a_data_sheet_times_what_is_reached_of_it():
    reach = Reach(launch_us=2, host_us=10, bandwidth=0.5, tensor=0.4, fp32=0.8)
    a100 = reach.roofline(GPUS["a100"], "fp16")
    assert (a100.launch_s, a100.host_s) == pytest.approx((2e-6, 10e-6))
    assert a100.bandwidth == pytest.approx(1.0195e12)
    assert a100.rates[PRODUCT] == pytest.approx(0.4 * 156e12)  # 312 TFLOP/s, two a multiply-accumulate
    assert reach.roofline(GPUS["a100"], "fp32").rates[PRODUCT] == pytest.approx(0.8 * 9.75e12)
    assert reach.roofline(GPUS["a100"], "fp32", tf32=True).rates[PRODUCT] == pytest.approx(0.4 * 78e12)
    assert reach.roofline(GPUS["v100"], "fp32", tf32=True).rates[PRODUCT] == pytest.approx(0.8 * 7.85e12)  # has none


def test_a_card_that_halves_its_tensor_cores_reaches_more_of_the_half_and_no_more_than_all():
    assert GPUS["rtx4090"].product_rate("bf16", 0.4, 1) == pytest.approx(0.8 * 82.6e12)
    assert GPUS["rtx4090"].product_rate("bf16", 0.7, 1) == pytest.approx(82.6e12)


def test_every_gpu_has_a_source_and_figures_of_one_order():
    for name, gpu in GPUS.items():
        assert gpu.source.startswith("NVIDIA "), name
        assert 0.1 < gpu.bandwidth < 10, name
        assert 1 < gpu.cache < 200, name
        assert gpu.fp32 * 10**12 < 10**14, name
        assert all(gpu.tensor["fp16"] >= rate >= gpu.fp32 for rate in gpu.tensor.values()), name


def test_a_precision_or_gpu_that_is_not_there_is_refused_in_one_line():
    with pytest.raises(RequestError, match="V100 SXM2 has no bf16; give --precision fp32 or fp16"):
        GPUS["v100"].units("bf16")
    with pytest.raises(RequestError, match="did you mean 'h100'"):
        find_gpu("h10")


# traces of a model known by name


def test_attention_that_is_written_out_is_eight_kernels_a_block_and_the_model_stays_fused(deit):
    fused, written = (deit.trace(None, None, 4, Implementation("fp16", fused=kind)) for kind in (True, False))
    # scaling, a copy of queries, keys, map and values each, two products and the softmax in place of one kernel
    assert written.launches - fused.launches == 12 * 7
    assert written.macs == fused.macs
    assert all(block.attn.fused_attn for block in deit.model.blocks)


def test_autocast_moves_more_than_half_precision_and_less_than_float32_and_ends(deit):
    half, mixed, whole = (
        deit.trace(None, None, 64, how)
        for how in (Implementation("fp16"), Implementation("fp16", autocast=True), Implementation("fp32"))
    )
    assert half.moved < mixed.moved < whole.moved
    assert half.launches == whole.launches < mixed.launches
    assert not torch.is_autocast_enabled("cuda")


def test_a_target_is_solved_from_shapes_as_it_is_with_weights(deit):
    import suite

    solved = suite.solve_rate(deit_with_weights(), "evit", flops=-0.35)
    assert deit.solve(make_reducer("evit"), parse_target("-35%")) == solved.rate


def deit_with_weights():
    import timm

    return timm.create_model(DEIT).eval()


def test_what_depends_on_the_image_is_not_predicted(deit):
    for attempt in (
        lambda ats: deit.trace(ats, parse_rate("keep=0.7"), 2, Implementation("bf16")),
        lambda ats: deit.solve(ats, parse_target("-35%")),
    ):
        with pytest.raises(CellError, match="what ats launches depends on the image"):
            attempt(make_reducer("ats"))


# published speeds and the fit


def test_circumstances_are_those_that_the_tables_print():
    for name, how in CIRCUMSTANCES.items():
        devices = {row.device for row in paper_tables()[name].rows() if row.throughput_im_s == row.throughput_im_s}
        for device in devices:
            said = device.lower().replace(" ", "")
            assert how.gpu in said if how.gpu else said == "", (name, device)
            assert f"batch{how.batch}" in said or "batch" not in said, (name, device)
            printed = {precision for precision in ("fp16", "bf16", "fp32") if precision in said}
            assert printed <= {how.how.precision}, (name, device)


def test_no_shape_on_a_gpu_is_fitted_and_held_out_and_every_part_has_speeds():
    by_shape: dict[tuple, set[str]] = {}
    rows = [row for row in FIT.rows if row["part"] != MERGER]
    named = {(row["model"], row["image_size"]) for row in rows}
    models = {key: TracedModel(*key).model for key in named}
    layouts = {key: family_of(model).layout(model) for key, model in models.items()}
    for row in rows:
        layout = layouts[row["model"], row["image_size"]]
        assert (row["part"] == HELD_OUT) == is_held_out(row["gpu"], layout)
        by_shape.setdefault((row["gpu"], layout.depth, layout.width, layout.tokens), set()).add(row["part"])
    assert all(len(parts) == 1 for parts in by_shape.values())
    assert {row["part"] for row in FIT.rows} == {FITTED, HELD_OUT, MERGER}


def test_the_stored_fit_is_of_the_published_speeds_as_they_are_now():
    speeds, _ = published_speeds()
    now = [(speed.table, speed.line, speed.im_s) for speed in speeds if speed.circumstances.gpu]
    assert [(row["table"], row["line"], row["published"]) for row in FIT.rows] == now
    assert len({speed.what for speed in speeds}) == len(speeds)


def test_only_what_launches_alike_whoever_wrote_it_is_fitted():
    for row in FIT.rows:
        assert (row["part"] == MERGER) == (row["reducer"] not in ALIKE)


def test_stored_predictions_are_what_the_code_predicts():
    """Of unreduced small models, one a GPU: reducers' kernels may change without a new fit."""
    speeds, _ = published_speeds()
    small = ("deit_tiny_patch16_224", "deit_small_patch16_224")
    chosen = {
        speed.circumstances.gpu: speed for speed in speeds if speed.way.model in small and speed.way.reducer == "none"
    }
    stored = {(row["table"], row["line"]): row["predicted"] for row in FIT.rows}
    cases = [case for case in trace_cases(list(chosen.values())) if case.speed.circumstances.gpu]
    assert len(cases) >= 5
    for case in cases:
        predicted = case.im_s(FIT.reach)
        assert predicted == pytest.approx(stored[case.speed.table, case.speed.line], rel=2e-3), case.speed


@pytest.mark.slow
def test_the_stored_parameters_are_what_a_fit_gives():
    speeds, _ = published_speeds()
    cases = trace_cases([speed for speed in speeds if speed.circumstances.gpu and speed.alike])
    # a twentieth: pruners' kernels may have become fewer since
    assert astuple(fit(cases)) == pytest.approx(astuple(FIT.reach), rel=0.05)
    assert all(low < value < high for low, value, high in zip(*map(astuple, (LEAST, FIT.reach, MOST))))


def test_a_fit_finds_the_parameters_that_made_the_speeds():
    true = Reach(launch_us=2.2, host_us=15, bandwidth=0.6, tensor=0.3, fp32=0.5)
    speeds = [speed for speed in published_speeds()[0] if speed.way.model == DEIT and speed.way.reducer == "none"]
    cases = trace_cases(speeds)
    made = [
        type(case)(
            type(case.speed)(**{**vars(case.speed), "im_s": case.im_s(true)}), case.trace, case.unreduced, FITTED
        )
        for case in cases
    ]
    found = fit(made)
    assert all(abs(case.error(found)) < 0.02 for case in made)
    rows = rows_of(made, found)
    assert [row["published"] for row in rows] == [pytest.approx(case.speed.im_s) for case in made]


def test_a_band_holds_four_of_five_errors_with_every_gpu_weighing_alike():
    of_one = [("a", error / 100) for error in range(1, 11)]
    assert band_of(of_one, "", True) == Band(pytest.approx(math.exp(0.08)), 10, "", True)
    # GPU b's one speed weighs as much as the ten of a: without it only half is held, and with it more than is asked
    assert band_of([*of_one, ("b", -0.5)], "", True).factor == pytest.approx(math.exp(0.5))
    with pytest.raises(ValueError, match="no errors"):
        band_of([], "", True)


def test_a_gpu_without_a_published_speed_is_marked_and_no_surer_than_others():
    for gpu, units, checked in (
        ("l40s", "bf16", False),
        ("h100", "bf16", False),
        ("h100", "", True),
        ("v100", "", True),
    ):
        for band in (FIT.speed_band(gpu, units), FIT.speedup_band(gpu, units)):
            assert band.checked == checked
            assert band.factor > 1
    assert (
        FIT.speed_band("l40s", "bf16").factor
        >= FIT.speed_band("rtx3080", "").factor
        > FIT.speed_band("v100", "").factor
    )


def test_the_page_on_gpus_states_the_errors_of_the_stored_fit():
    parts = [[row for row in FIT.rows if row["part"] == part] for part in (FITTED, HELD_OUT, MERGER)]
    alike = [*parts[0], *parts[1]]
    speeds = [median_error(errors(rows, "published", "predicted")) for rows in parts]
    speeds.append(median_error(errors(alike, "published", "unseen")))
    ratios = [median_error(errors(rows, "published_speedup", "predicted_speedup")) for rows in parts]
    page = PAGE.read_text(encoding="utf-8")
    assert f"| im/s | {' | '.join(speeds)} |" in page
    assert f"| speed-up | {' | '.join(ratios)} | |" in page


def test_the_fit_is_a_table_and_a_plot():
    sheet = fit_sheet(FIT, [], {"its rate is not printed": 3})
    assert [line[0] for line in sheet.lines][-1] == "all"
    assert "| V100 SXM2 |" in sheet.markdown
    assert picture(sheet.draw).startswith(b"\x89PNG")
    assert json.loads(json.dumps(asdict(FIT.reach))) == asdict(FIT.reach)


# the verb


def exit_code(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["predict", "--model", DEIT, *map(str, arguments)])
    return ended.value.code


def test_predictions_are_a_table_and_records_and_no_measured_figure_stands_among_them(tmp_path, capsys):
    asked = ("--gpu", "a100,l40s", "--reducers", "tome,topk", "--flops=-35%", "--batch", "1,256", "--out", tmp_path)
    assert exit_code(*asked) == 0
    printed = capsys.readouterr().out
    assert "Predicted, nothing is measured" in printed
    assert "l40s: L40S, not checked: no published row names this GPU" in " ".join(printed.split())
    with (tmp_path / "predict.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["gpu"], row["batch_size"], row["reducer"]) for row in rows] == [
        (gpu, batch, reducer) for gpu in ("a100", "l40s") for batch in ("1", "256") for reducer in
        ("none", "tome", "topk")
    ]  # fmt: skip
    for row in rows:
        assert float(row["predicted_im_s"]) == pytest.approx(1e3 * int(row["batch_size"]) / float(row["predicted_ms"]))
        assert sum(float(row[f"share_{bound}"]) for bound in ("launches", "bandwidth", "arithmetic")) == pytest.approx(
            1
        )
        if row["binds"] == "host":  # of which no published speed tells
            assert row["im_s_low"] == row["speedup_low"] == "n/a"
        elif row["reducer"] == "none":
            assert (row["predicted_speedup"], row["speedup_low"]) == ("1.0", "n/a")
        else:
            assert float(row["speedup_low"]) < float(row["predicted_speedup"]) < float(row["speedup_high"])
    assert {row["binds"] for row in rows if row["batch_size"] == "1"} == {"host"}
    assert (tmp_path / "predict.png").is_file()


def test_what_does_not_fit_into_a_gpu_has_no_speed(tmp_path, capsys):
    asked = ("--gpu", "rtx3080,h100", "--reducers", "topk", "--rates", "keep=0.7", "--batch", "16384")
    assert exit_code(*asked, "--out", tmp_path) == 0
    assert "GB of 10" in capsys.readouterr().out
    with (tmp_path / "predict.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["predicted_im_s"] == "n/a" for row in rows if row["gpu"] == "rtx3080"} == {True}
    assert {row["predicted_im_s"] == "n/a" for row in rows if row["gpu"] == "h100"} == {False}


def test_what_a_gpu_or_a_method_cannot_do_is_named_and_the_others_are_predicted(capsys):
    asked = ("--gpu", "v100,a100", "--reducers", "ats,topk", "--rates", "keep=0.7", "--batch", "256")
    assert exit_code(*asked) == 1
    said = capsys.readouterr()
    assert "failed: V100 SXM2 has no bf16; give --precision fp32 or fp16" in said.err
    assert "ats keep=0.7: what ats launches depends on the image" in said.err
    assert "a100" in said.out
    assert "n/a" in said.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--gpu", "h101"), "unknown GPU 'h101'"),
        (("--gpu", ","), "--gpu ',' names nothing"),
        (("--model", "deit_smal_patch16_224"), "did you mean deit_small_patch16_224"),
        (("--reducers", "tomee"), "'tomee'"),
        (("--rates", "r=x"), "r=x"),
        (("--reducers", "tome", "--rates", "keep=0.7"), "'tome' is not defined for rate keep=0.7"),
        (("--reducers", "tome", "--rates", "r=9999"), "r=9999"),
        (("--batch", "0"), "--batch '0'"),
        (("--precision", "fp8"), "precision='fp8'"),
    ],
)
def test_a_bad_request_is_one_line(arguments, said, capsys):
    assert exit_code(*arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("tracing")]
    assert len(lines) == 1
    assert said in lines[0]
