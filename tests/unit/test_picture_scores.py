"""Scores of pictures by networks from local files, held against torchmetrics with random weights of the same shapes."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from suite.errors import RequestError
from suite.stats.sets import frechet_values, kernel_values, moments
from tasks.generation.networks import clip, inception, lpips
from tasks.generation.pairs import png, similarities
from tasks.generation.prompted import METRICS, Generation
from tasks.generation.scorers import Scorers

torchmetrics = pytest.importorskip("torchmetrics", reason="extra 'generation' is not installed")


def pictures(count, side=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)


def random_state(network, seed=0):
    """Weights of the network's names and shapes, and variances above nought."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, value in network.state_dict().items():
        drawn = torch.randn(value.shape, generator=generator) / max(1, value[0].numel() if value.dim() else 1) ** 0.5
        state[name] = drawn.abs() + 0.5 if name.endswith("running_var") else drawn
    return {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Random networks in the files that scores look for."""
    from torchvision.models import alexnet

    folder = tmp_path_factory.mktemp("networks")
    torch.save(random_state(inception.FidInception()), folder / inception.FILES[0])
    torch.save(random_state(alexnet(weights=None)), folder / lpips.FILES[0])
    return folder


class Features(nn.Module):
    """As torchmetrics takes a network: pictures of 256 levels."""

    num_features = inception.WIDTH

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, levels):
        return self.network(levels.to(self.network.fc.weight.dtype) / 255)


@pytest.mark.slow
def test_fid_and_kid_are_torchmetrics_of_the_same_network(folder):
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    network = inception.load_inception(folder).double()
    real, drawn = pictures(12), pictures(12, seed=1) // 2
    features = [network(part.double() / 255).numpy() for part in (drawn, real)]
    fid = FrechetInceptionDistance(Features(network)).set_dtype(torch.float64)
    kid = KernelInceptionDistance(Features(network), subsets=1, subset_size=12)
    for metric in (fid, kid):
        metric.update(real, real=True)
        metric.update(drawn, real=False)
    assert frechet_values(features[0], moments(features[1])).mean() == pytest.approx(fid.compute().item(), rel=1e-3)
    assert kernel_values(*features).mean() == pytest.approx(kid.compute()[0].item(), rel=1e-3)


def test_the_network_pools_as_tensorflows_did_and_not_as_torchvisions(folder):
    x = torch.ones(1, 1, 3, 3)
    assert torch.equal(inception.average(x), x), "padding is not counted"
    network = inception.load_inception(folder)
    assert network.fc.out_features == 1008
    assert network(torch.rand(1, 3, 40, 30)).shape == (1, 2048)


def test_lpips_is_torchmetrics_of_the_same_network(folder, monkeypatch, tmp_path):
    from torchmetrics.functional.image.lpips import _LPIPS

    network = lpips.load_lpips(folder)
    theirs = _LPIPS(pretrained=True, net="alex", pnet_rand=True)
    state = torch.load(folder / lpips.FILES[0])
    for part in theirs.net.children():
        for number, layer in part.named_children():
            if f"features.{number}.weight" in state:
                layer.weight.data = state[f"features.{number}.weight"]
                layer.bias.data = state[f"features.{number}.bias"]
    first, second = (part.float() / 255 for part in (pictures(3, 64), pictures(3, 64, seed=1)))
    expected = theirs(first, second, normalize=True).flatten()
    torch.testing.assert_close(network(first, second), expected, atol=1e-6, rtol=1e-5)
    assert torch.equal(network(first, first), torch.zeros(3))


def test_similarity_on_five_scales_is_of_pictures_that_have_them():
    first, second = (part.double() / 255 for part in (pictures(2, 176), pictures(2, 176, seed=1)))
    assert set(similarities(56)) == {"ssim"}
    measure = similarities(176)["ms_ssim"]
    assert torch.allclose(measure(first, first), torch.ones(2))
    assert (measure(first, second) < 0.5).all()


def test_similarity_in_single_precision_is_that_in_double():
    from torchmetrics.functional.image import structural_similarity_index_measure

    first, second = (part.double() / 255 for part in (pictures(2, 56), pictures(2, 56, seed=1)))
    second = 0.9 * first + 0.1 * second
    expected = structural_similarity_index_measure(first, second, data_range=1.0, reduction="none")
    torch.testing.assert_close(similarities(56)["ssim"](first, second).double(), expected, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

    from tests import pipelines

    torch.manual_seed(0)
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 32, "patch_size": 16, "projection_dim": 8}  # fmt: skip
    config = CLIPConfig(text_config=pipelines.text_config().to_dict(), vision_config=vision, projection_dim=8)
    place = tmp_path_factory.mktemp("with_clip") / clip.FOLDERS[0]
    words = pipelines.tokenizer(tmp_path_factory.mktemp("words"))
    shape = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    CLIPModel(config).save_pretrained(place)
    CLIPProcessor(CLIPImageProcessor(**shape), words).save_pretrained(place)
    return place.parent


def test_clip_scores_are_cosines_of_picture_and_prompt_and_never_below_nought(clip_folder):
    score = clip.load_clip(clip_folder)
    seen, prompts = pictures(4, 40), ["a cab", "a bad bed", "a cab " * 20, "bad"]
    found = score(seen, prompts)
    for picture, prompt, value in zip(seen, prompts, found, strict=True):
        given = score.processor(text=[prompt], images=[picture], return_tensors="pt", truncation=True, max_length=16)
        with torch.no_grad():
            both = score.model(**given)
        cosine = torch.cosine_similarity(both.text_embeds, both.image_embeds).item()
        assert value.item() == pytest.approx(100 * max(cosine, 0), abs=1e-3)


def test_a_network_that_is_not_there_says_what_to_put_where(tmp_path):
    lacking = Scorers(tmp_path, None).lacking()
    assert "--task-option real=PATH" in lacking["fid"]
    assert lacking["clip_score"].startswith("put clip (")
    assert lacking["lpips"].endswith(f"into {tmp_path}")
    real = tmp_path / "real.npz"
    np.savez(real, mu=np.zeros(2048), sigma=np.eye(2048))
    with_real = Scorers(tmp_path, str(real)).lacking()
    assert with_real["fid"].startswith("put pt_inception-2015-12-05-6726825d.pth or ")


def test_image_reward_has_no_value_even_beside_its_weights_and_says_what_lacks(tmp_path):
    torch.save({"mlp.layers.0.weight": torch.zeros(1024, 768)}, tmp_path / "ImageReward.pt")
    task = Generation(limit=2, networks=str(tmp_path))
    assert "image_reward" not in task.scorable()
    rows = [{"id": sample.id, "prediction": "", "picture": png(levels.numpy())}
            for sample, levels in zip(task.samples, pictures(2), strict=True)]  # fmt: skip
    score = task.summary(pd.DataFrame(rows)).scores["image_reward"]
    assert score.value is None
    assert "BLIP with a reward head" in score.reason


def test_a_file_that_is_no_network_or_another_is_named(tmp_path):
    (tmp_path / lpips.FILES[0]).write_bytes(b"no weights")
    with pytest.raises(RequestError, match="cannot be read as tensors alone"):
        lpips.load_lpips(tmp_path)
    torch.save({"weight": torch.zeros(2)}, tmp_path / lpips.FILES[0])
    with pytest.raises(RequestError, match="is of another network"):
        lpips.load_lpips(tmp_path)


def rows_of(task, seed=0):
    levels = pictures(len(task.samples), 48, seed).numpy()
    return pd.DataFrame({"id": [sample.id for sample in task.samples], "picture": [png(one) for one in levels]})


@pytest.mark.slow
def test_scores_are_made_of_stored_pictures_with_their_intervals_or_say_why_not(folder, tmp_path, monkeypatch):
    real = tmp_path / "real"
    real.mkdir()
    for number, levels in enumerate(pictures(4, 30, seed=7).numpy()):
        Image.fromarray(levels.transpose(1, 2, 0)).save(real / f"{number}.png")
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cab\na bad bed\na bed\na dead cab\n")
    few = Generation(str(prompts), networks=str(folder), real=str(real))
    summary = few.summary(rows_of(few).assign(unreduced_picture=rows_of(few, 1)["picture"]))
    assert "at least 1,000 pictures" in summary.scores["fid"].reason
    assert summary.scores["clip_score"].reason.startswith("put clip")
    assert summary.scores["lpips"].low < summary.scores["lpips"].value < summary.scores["lpips"].high
    assert {"lpips", "ssim", "mse"} < set(summary.samples)
    assert few.shown.metrics[0].name == "lpips", "methods are compared by what there is"

    metrics = [replace(metric, needs=()) if metric.name in ("fid", "kid") else metric for metric in METRICS]
    monkeypatch.setattr("tasks.generation.prompted.METRICS", tuple(metrics))
    task = Generation(str(prompts), networks=str(folder), real=str(real))
    summary = task.summary(rows_of(task))
    assert summary.scores["fid"].low < summary.scores["fid"].value
    assert summary.scores["kid"].value is not None
    assert summary.notes == ("FID and KID: 4 pictures against 4 real pictures",)
    assert task.shown.metrics[0].label == "FID (4)"
    assert "unreduced model's pictures are not there" in summary.scores["ssim"].reason


def test_prompts_are_lines_tables_captions_and_classes(tmp_path):
    table = tmp_path / "prompts.csv"
    table.write_text('id,prompt,seed\na,"a cab, red",7\nb,a bed,\n')
    task = Generation(str(table), seeds=2)
    assert [sample.id for sample in task.samples] == ["a/0", "a/1", "b/0", "b/1"]
    assert [task.seed_of(sample) for sample in task.samples[:2]] == [7, 8]
    assert task.texts["a/1"] == "a cab, red"
    captions = tmp_path / "captions_val2014.json"
    images = [{"id": 30, "file_name": "b.jpg"}, {"id": 4, "file_name": "a.jpg"}]
    said = [(30, "second"), (30, "third"), (4, "first")]
    annotations = [{"id": n, "image_id": id, "caption": text} for n, (id, text) in enumerate(said)]
    captions.write_text(json.dumps({"images": images, "annotations": annotations}))
    of_images = Generation(str(captions))
    assert [of_images.texts[sample.id] for sample in of_images.samples] == ["first", "second"]
    classes = Generation(limit=5)
    assert classes.texts[classes.samples[0].id] == "a photo of a brambling" or classes.samples[0].label == 100
    assert len({classes.seed_of(sample) for sample in classes.samples}) == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [("id,prompt\na,\n", "line 2"), ("id,prompt\na,x\na,y\n", "twice"), ("id,prompt,seed\na,x,-1\n", "line 2"),
     ("id,prompt\n", "has no prompt")],
)  # fmt: skip
def test_tables_of_prompts_that_cannot_be_meant_are_refused(text, message, tmp_path):
    (tmp_path / "prompts.csv").write_text(text)
    with pytest.raises(RequestError, match=message):
        Generation(str(tmp_path / "prompts.csv"))


def test_what_is_no_file_of_prompts_or_real_pictures_is_refused(tmp_path):
    for options, message in [
        ({"data": str(tmp_path)}, "is no file of prompts"),
        ({"real": str(tmp_path / "absent")}, "neither a folder of pictures nor an .npz"),
        ({"networks": str(tmp_path / "absent")}, "is no folder"),
        ({"template": "a photo"}, "has not one {}"),
        ({"seeds": 0}, "seeds 0"),
    ]:
        with pytest.raises(RequestError, match=message):
            Generation(**options)
