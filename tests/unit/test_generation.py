"""Pictures drawn from noise: the embedded denoiser, what is scored of its pictures, and the sheet of them."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.fft import dctn

from reports.page.exhibits import read_exhibits
from reports.pictures.picture_sheet import NAMES, chosen_ids, draw_sheet
from suite.api import run
from suite.attachment.attach import attach
from suite.backbones.scenes_dit import PATCH, patchify, unpatchify
from suite.errors import CellError, RequestError
from suite.measure.flops import count_flops
from suite.models.drawn_smaller import smaller_noise
from suite.models.load import load_model
from suite.pictures.exhibits import make_exhibits
from suite.rates.rate import parse_rate
from suite.sweep.outcomes import join_unreduced
from suite.sweep.progress import Progress
from suite.sweep.spec import make_spec
from tasks.generation.judged import Drawn, judged_pairs
from tasks.generation.pairs import read_png
from tasks.generation.task import Noise
from tasks.scenes.pictures import ScenesGeneration

NOISE = Noise((3, 56, 56))
METHODS = ("tome_sd", "tofu", "todo", "tome", "random", "uniform")


@pytest.fixture(scope="module")
def model():
    return load_model("scenes_dit")[0]


@pytest.fixture(scope="module")
def task(model):
    task = ScenesGeneration(pictures=3, steps=2)
    task.configure(model)
    return task


def noise_of(task):
    return torch.stack([task.load(sample, NOISE) for sample in task.samples])


def test_patches_go_apart_and_together_row_by_row():
    x = torch.randn(2, 3, 56, 56)
    patches = patchify(x)
    assert torch.equal(unpatchify(patches), x)
    assert torch.equal(patches[0, 15].unflatten(0, (3, PATCH, PATCH)), x[0, :, 4:8, 4:8])


@pytest.mark.parametrize("name", METHODS)
def test_what_a_call_costs_is_the_closed_form(name, model):
    assert count_flops(model).total == 251_873_280
    with attach(model, name, parse_rate("r=0.5")) as handle:
        report = count_flops(model)
        assert not report.disputed
        assert report.total - report.reducer == report.formula < 251_873_280
        assert handle.token_counts == handle.planned_counts
        if name == "tome_sd":
            assert report.reducer == 8 * (196 - 49) * 49 * 96
            assert handle.token_counts == [2 + 98] * 8


def test_samples_are_classes_and_seeds_and_their_noise_is_their_own():
    few, many = ScenesGeneration(), ScenesGeneration(pictures=400)
    assert sorted(sample.label for sample in few.samples) == list(range(48))
    assert [many.samples[number].id for number in (0, 1)] == ["red-disc/0", "red-disc/1"]
    noise = {sample.id: many.load(sample, NOISE) for sample in many.samples[:30]}
    for sample in few.samples[:3]:
        assert torch.equal(few.load(sample, NOISE), noise[sample.id])
    assert len({value.sum().item() for value in noise.values()}) == 30


@pytest.mark.parametrize("name", METHODS)
def test_nothing_taken_out_draws_what_the_model_itself_draws(name, model, task):
    noise = noise_of(task)
    with torch.no_grad():
        plain = task.predict_samples(model, noise, task.samples).pictures
        with attach(model, name, parse_rate("r=0")):
            assert torch.equal(task.predict_samples(model, noise, task.samples).pictures, plain)


@pytest.mark.parametrize("name", ["none", *METHODS])
def test_a_picture_is_the_same_on_another_day_alone_and_in_a_batch(name, model, task):
    noise = noise_of(task)
    rate = None if name == "none" else parse_rate("r=0.5")
    with attach(model, name, rate), torch.no_grad():
        together = task.predict_samples(model, noise, task.samples).pictures
        again = task.predict_samples(model, noise, task.samples).pictures
        alone = task.predict_samples(model, noise[1:2], task.samples[1:2]).pictures
    assert torch.equal(together, again)
    assert ((together[1:2] - alone).abs() <= 1.01 / 127.5).float().mean() >= 0.999


def test_smaller_noise_is_the_coarse_part_of_a_samples_own_and_as_standard_normal(model):
    noise = torch.stack([Noise((3, 56, 56))(seed) for seed in range(40)])
    with attach(model, "resize", parse_rate("side=40")):
        smaller = smaller_noise(model.backbone, noise)
        assert torch.equal(smaller_noise(model.backbone, noise[7:8])[0], smaller[7])
    whole, part = (dctn(of.double().numpy(), axes=(2, 3), norm="ortho") for of in (noise, smaller))
    np.testing.assert_allclose(part, whole[:, :, :40, :40], atol=2e-6)
    assert smaller.mean().item() == pytest.approx(0, abs=4 / smaller.numel() ** 0.5)
    assert smaller.var().item() == pytest.approx(1, abs=6 / smaller.numel() ** 0.5)
    assert smaller_noise(model.backbone, noise) is noise


def test_what_is_drawn_smaller_is_enlarged_and_costs_what_fewer_patches_cost(model, task):
    noise, seen = noise_of(task), []
    watching = model.backbone.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape)))
    with torch.no_grad(), attach(model, "resize", parse_rate("keep=0.5")) as handle:
        drawn = task.predict_samples(model, noise, task.samples)
        assert torch.equal(task.predict_samples(model, noise, task.samples).pictures, drawn.pictures)
        assert handle.token_counts == handle.planned_counts == [2 + 100] * 8
        watching.remove()
        report = count_flops(model)
        with pytest.raises(CellError, match=r"'resize' at keep=0\.5 draws from noise of 40 x 40, not of 56 x 56"):
            model.backbone(noise, noise.new_ones(len(noise)), torch.zeros(len(noise), dtype=torch.int64))
    assert drawn.pictures.shape == (3, 3, 56, 56)
    assert set(seen) == {(6, 3, 40, 40)}
    n, c = 102, 96
    blocks = 8 * (12 * n * c * c + 2 * n * n * c) + 4 * n * 2 * c * c
    assert report.total == report.formula == blocks + 2 * 100 * 48 * c + 8 * c * c
    with torch.no_grad(), attach(model, "resize", parse_rate("keep=1")):
        same = task.predict_samples(model, noise, task.samples)
    with torch.no_grad():
        assert torch.equal(same.pictures, task.predict_samples(model, noise, task.samples).pictures)


def test_rows_hold_the_picture_that_was_judged_and_nan_is_named(model, task):
    with torch.no_grad():
        drawn = task.predict_samples(model, noise_of(task), task.samples)
    rows = task.score(drawn, task.samples)
    assert [row["id"] for row in rows] == [sample.id for sample in task.samples]
    kept = torch.from_numpy(np.stack([read_png(row["picture"]) for row in rows])).float()
    torch.testing.assert_close(kept, (drawn.pictures + 1) / 2, atol=1e-6, rtol=0)
    broken = Drawn(drawn.pictures.clone(), drawn.logits, drawn.features)
    broken.pictures[1, 0, 0, 0] = float("nan")
    with pytest.raises(CellError, match=task.samples[1].id):
        task.score(broken, task.samples)


def test_pairs_know_what_is_equal_and_what_is_not(model, task):
    with torch.no_grad():
        drawn = task.predict_samples(model, noise_of(task), task.samples)
    table = pytest.importorskip("pandas").DataFrame(task.score(drawn, task.samples))
    same = judged_pairs(join_unreduced(table, table, task.beside))
    assert (same.mse == 0).all()
    assert not same.changed.any()
    assert same.feature_distance.max() < 1e-6
    black = table.assign(picture=[png_of(np.zeros((56, 56, 3), np.uint8))] * len(table))
    apart = judged_pairs(join_unreduced(black, table, task.beside))
    assert judged_pairs(table) is None
    assert (apart.mse > 0).all()
    if "ssim" in apart:
        assert (same.ssim > 0.9999).all()
        assert (apart.ssim < 0.9).all()


def png_of(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_odd_requests_are_refused(model):
    for options, message in [
        ({"guidance": 0.5}, "guidance 0.5"),
        ({"steps": 0}, "steps 0"),
        ({"pictures": 0}, "pictures 0"),
    ]:
        with pytest.raises(RequestError, match=message):
            ScenesGeneration(**options)
    with pytest.raises(RequestError, match="branch 'attention' is unknown"):
        ScenesGeneration(branches="attention").configure(model)
    with pytest.raises(RequestError, match="needs a model that draws"):
        ScenesGeneration().check_model(torch.nn.Identity())


def test_pictures_are_drawn_sixteen_at_a_time_unless_somebody_says_otherwise():
    assert make_spec({"task": "scenes-generation"}).completed().batch_size == 16
    assert make_spec({"task": "scenes-generation", "batch_size": 64}).completed().completed().batch_size == 64
    assert make_spec({"task": "scenes"}).completed().batch_size == 64


def test_a_sheet_has_a_row_a_method_and_the_differences_beside():
    black, grey = np.zeros((56, 56, 3), np.uint8), np.full((56, 56, 3), 40, np.uint8)
    sheet = np.asarray(draw_sheet({"none": {"a": black}, "tome r=0.5": {"a": grey}}))
    assert (sheet[30:142, NAMES : NAMES + 112] == 0).all()
    assert (sheet[146:258, NAMES : NAMES + 112] == 40).all()
    right = NAMES + 116 + 16
    assert (sheet[30:142, right : right + 112] == 0).all()
    assert (sheet[146:258, right : right + 112] == 120).all()


def test_large_pictures_are_shown_smaller():
    black, grey = np.zeros((512, 512, 3), np.uint8), np.full((512, 512, 3), 40, np.uint8)
    sheet = np.asarray(draw_sheet({"none": {"a": black}, "tome r=0.5": {"a": grey}}))
    assert sheet.shape[0] == 30 + 2 * 260
    assert (sheet[290:546, NAMES : NAMES + 256] == 40).all()


@pytest.mark.slow
def test_a_run_scores_methods_beside_the_unreduced_model_and_writes_a_sheet(tmp_path):
    options = {"pictures": 4, "steps": 2}
    asked = {"task": "scenes-generation", "task_options": options, "out": str(tmp_path), "speed": False}
    results = run(asked, reducers=["tome_sd", "random"], rates=["r=0.25", "r=0.5"], progress=Progress(quiet=True))
    assert not results.failed
    frame = results.frame().set_index(["reducer", "rate"])
    assert frame.loc[("none", ""), "mse"] == 0 if ("none", "") in frame.index else frame.mse.min() == 0
    assert (frame.picture_gmacs > 0).all()
    assert (tmp_path / "report" / "pictures.png").is_file()
    page = (tmp_path / "report" / "index.html").read_text()
    assert page.count('src="data:image/jpeg;base64,') == 2, "pictures, and beside them their tokens over the steps"
    assert '<a href="#pictures">' in page
    found = read_exhibits(tmp_path)
    assert found.missing == {}
    assert len(found.maps) == 4
    assert found.frames == [(step, block) for step in (1, 2) for block in (1, 3, 5, 8)]
    maps = next(iter(found.maps.values()))
    assert maps.grid == (14, 14)
    assert {id: owners.shape for id, owners in maps.owners.items()} == dict.fromkeys(found.views, (8, 196))
    assert len(found.views) == 2
    assert make_exhibits(tmp_path) == []
    assert set(read_exhibits(tmp_path).maps) == set(found.maps), "kept where nothing has changed"
    assert (tmp_path / "report" / "tokens.png").is_file()


def test_the_sheet_shows_every_shape_and_several_colours():
    ids = sorted((sample.label, sample.id) for sample in ScenesGeneration().samples)
    shown = [name.partition("/")[0].split("-") for name in chosen_ids([name for _, name in ids])]
    assert len({shape for _, shape in shown}) == 8
    assert len({colour for colour, _ in shown}) > 2
    assert chosen_ids(["a", "b"]) == ["a", "b"]
