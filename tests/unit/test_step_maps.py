"""Token groups of pictures while they are drawn: what a branch computed as one, at which step, in which block."""

import numpy as np
import pytest
import torch

from reports.pictures.step_sheet import axes_of, few, step_columns
from suite.attachment.attach import attach
from suite.backbones.branched import BranchScope
from suite.cli.app import main
from suite.errors import RequestError
from suite.models.load import load_model
from suite.pictures.step_maps import blocks_in_scope, enlarged, spaced, step_maps
from suite.pictures.token_maps import token_maps
from suite.pictures.token_pictures import write_token_pictures
from suite.rates.rate import parse_rate
from tasks.generation.prompted import Generation
from tasks.scenes.pictures import ScenesGeneration
from tests import pipelines

HALF = parse_rate("r=0.5")


@pytest.fixture(scope="module")
def model():
    return load_model("scenes_dit")[0]


def drawn(task, model, handle, blocks):
    """The pictures of all samples, and the maps."""
    found = []
    noise = torch.stack([task.load(sample, task.preprocessing(model)) for sample in task.samples])

    def draw():
        found.append(task.drawn_levels(model, noise, task.samples))

    maps = step_maps(handle, draw, len(task.samples), wanted_first=model.wanted_first, blocks=blocks)
    return found[0], maps


def configured(model, **options):
    task = ScenesGeneration(**{"pictures": 2, "steps": 2, **options})
    task.configure(model)
    return task


def test_what_a_branch_ran_on_is_the_mean_of_every_group(model):
    task, block = configured(model, steps=1), model.backbone.blocks[2]
    normed, ran_on = [], []
    with attach(model, "tome_sd", HALF) as handle:
        hooks = [
            block.norm1.register_forward_hook(lambda _, __, output: normed.append(output)),
            block.attn.register_forward_pre_hook(lambda _, given: ran_on.append(given[0])),
        ]
        _, maps = drawn(task, model, handle, [1, 3])
        for hook in hooks:
            hook.remove()
    assert maps.frames == [(1, 1), (1, 3)]
    assert maps.tokens.tolist() == [[100, 100]]
    for picture in range(2):
        owners = torch.from_numpy(maps.owners[0, 1, picture]).long()
        assert owners.unique().tolist() == list(range(98))
        for group in (0, 40, 97):
            mean = normed[0][2 + picture, 2:][owners == group].mean(0)  # the second half is of the class
            torch.testing.assert_close(ran_on[0][2 + picture, 2 + group], mean)


@pytest.mark.parametrize(("name", "dropped"), [("tome_sd", 0), ("tofu", 0), ("todo", 96), ("random", 98)])
def test_what_is_dropped_has_no_group_and_watching_changes_no_picture(name, dropped, model):
    task = configured(model)
    with attach(model, name, HALF) as handle:
        pictures, maps = drawn(task, model, handle, [1, 8])
        noise = torch.stack([task.load(sample, task.preprocessing(model)) for sample in task.samples])
        with torch.no_grad():
            assert torch.equal(task.drawn_levels(model, noise, task.samples), pictures)
    assert maps.steps == [1, 2]
    assert ((maps.owners < 0).sum(-1) == dropped).all()
    assert not np.array_equal(maps.owners[0], maps.owners[1]) or name == "todo"


def test_groups_are_those_of_the_half_of_the_class_and_not_of_the_half_without_one(model):
    with attach(model, "tome_sd", HALF) as handle:
        _, alone = drawn(configured(model, guidance=1), model, handle, [8])
        _, guided = drawn(configured(model, guidance=4), model, handle, [8])
    assert np.array_equal(alone.owners[0], guided.owners[0]), "noise and class are the same at the first step"
    assert not np.array_equal(alone.owners[1], guided.owners[1])


def test_the_class_comes_first_in_the_pipeline_of_a_diffusion_transformer(tmp_path):
    dit = load_model(str(pipelines.write_dit(tmp_path)))[0]
    with torch.no_grad():  # else modulation starts at nothing, and no class makes a difference
        for parameter in dit.backbone.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    found = []
    for guidance in (1, 4):
        task = Generation(limit=2, steps=2, guidance=guidance, max_downsample=2)
        task.configure(dit)
        with attach(dit, "tome_sd", HALF) as handle:
            found.append(drawn(task, dit, handle, [2])[1].owners[0])
    assert np.array_equal(*found)


def test_a_block_in_which_the_rate_does_nothing_has_every_patch_by_itself(model):
    with attach(model, "tome_sd", parse_rate("r=0.5@0,1,2,3")) as handle:
        _, maps = drawn(configured(model), model, handle, [2, 6])
    assert maps.tokens.tolist() == [[100, 198]] * 2
    assert (maps.owners[:, 1] == np.arange(196)).all()
    with (
        attach(model, "tome_sd", parse_rate("r=0")) as handle,
        pytest.raises(RequestError, match="takes no tokens out"),
    ):
        drawn(configured(model), model, handle, [2])


def test_a_patch_of_a_coarser_block_stands_for_several(tmp_path):
    assert enlarged(np.array([[0, 1, 2, 3]]), (2, 2), (4, 4)).reshape(4, 4).tolist() == [
        [0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3],
    ]  # fmt: skip
    unet = load_model(str(pipelines.write_stable_diffusion(tmp_path)))[0]
    assert blocks_in_scope(unet) == [1, 3, 4]
    unet.backbone.branch_scope = BranchScope(max_downsample=2)
    assert blocks_in_scope(unet) == [1, 2, 3, 4]
    task = Generation(str(pipelines.write_prompts(tmp_path)), steps=2, max_downsample=2)
    task.configure(unet)
    with attach(unet, "tome_sd", HALF) as handle:
        _, maps = drawn(task, unet, handle, [1, 2])
    assert maps.grid == (16, 16)
    assert maps.tokens.tolist() == [[128, 32]] * 2
    coarse = maps.owners[0, 1, 0].reshape(8, 2, 8, 2)
    assert (coarse == coarse[:, :1, :, :1]).all()


def test_steps_and_blocks_are_evenly_spaced_with_the_first_and_the_last():
    assert spaced(range(20), 4) == [0, 6, 12, 19]
    assert spaced([1, 2], 4) == [1, 2]
    assert few(4) == [0, 3]
    assert few(1) == [0]
    assert axes_of([(1, 2), (1, 8), (9, 2), (9, 8)]) == ([1, 9], [2, 8])
    assert step_columns([1, 9], 20) == [("step 1 of 20",), ("step 9 of 20",)]


def test_one_command_draws_the_groups_of_a_picture_over_the_steps(tmp_path, capsys):
    file = tmp_path / "tokens.svg"
    asked = ["--task", "scenes-generation", "--task-option", "steps=2", "--reducers", "tome_sd,random"]
    with pytest.raises(SystemExit) as ended:
        main(["view", "tokens", *asked, "--samples", "red-disc/0", "--blocks", "1,8", "--out", str(file)])
    assert ended.value.code == 0
    assert str(file) in capsys.readouterr().out
    assert file.read_text().count("<!-- red-disc/0") == 2


def test_what_cannot_be_drawn_step_by_step_is_refused_in_one_line(tmp_path, model):
    scenes = {"task": "scenes-generation", "reducers": "tome_sd", "device": "cpu"}
    for values, how, match in (
        (scenes, {"images": [tmp_path / "a.png"]}, "draws its own pictures"),
        (scenes, {"samples": ["red-disc/400"]}, "red-disc/400"),
        (scenes, {"blocks": "9"}, "write 1 to 8"),
        ({**scenes, "reducers": "none"}, {}, "no method is left"),
        ({"model": "scenes_dit", "reducers": "tome_sd"}, {"images": [tmp_path / "a.png"]}, "--task scenes-generation"),
    ):
        with pytest.raises(RequestError, match=match):
            write_token_pictures(values, tmp_path / "tokens.png", **how)
    assert not (tmp_path / "tokens.png").exists()
    with attach(model, "tome_sd", HALF) as handle, pytest.raises(RequestError, match="gives its tokens back"):
        token_maps(handle, torch.zeros(1, 3, 56, 56))
