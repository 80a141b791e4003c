"""AdaMerge's statistics: by hand, against every image's own redundancy in both passes, and as a file that is read."""

import pytest
import torch
from small_fit import BATCH, float64_without_draws, make_session
from test_adamerge import Block, X
from torch.testing import assert_close

from suite import RequestError, attach
from suite.api import run
from suite.attachment.reducer_weights import about, write_tensors
from suite.models.load import load_model
from suite.sweep.progress import Progress
from suite.tokens.state import Tokens
from suite.train.recipe import make_recipe
from suite.train.redundancy import WatchedAdaMerge, measure_statistics, read
from suite.train.run import Request, train_method

QUIET = Progress(quiet=True)
FEW = {"rate": "r=14", "least": 8}


def test_what_is_noted_of_two_images_by_hand():
    alike = torch.ones_like(X)  # nothing is salient, so nothing is redundant
    watched = WatchedAdaMerge()
    assert watched.before_block(Tokens.start(torch.cat([X, alike]), 0), Block(), 4).count == 4
    assert_close(watched.noted[0][0], torch.tensor([0.1958, 0.0]).double(), atol=5e-5, rtol=0)
    watched = WatchedAdaMerge()
    watched.prepare({"mean": torch.tensor([0.0979]), "deviation": torch.tensor([0.0979])})
    after = watched.before_block(Tokens.start(torch.cat([X, alike]), 0), Block(), 4)
    # z is 1 and -1, and 4 sigmoid(z) is 2.92 and 1.08
    assert after.valid.sum(1).tolist() == [2, 3]


def redundancy(x):
    """() of the patches (T, C) of one image, as the paper has it."""
    salience = (x @ x.T).softmax(1).sum(0)
    salience = (salience - salience.min()) / (salience.max() - salience.min())
    half = len(x) // 2
    cosine = torch.cosine_similarity(x[:half, None], x[None, half:], dim=2)
    return (salience[:half, None] * cosine).amax(1).mean()


@torch.no_grad()
def redundancies(session, rate=None, **statistics):
    """(L, n) float64, from what enters the blocks, image by image."""
    found, model = [], session.model.eval()

    def note(_, given, left):
        found.append(redundancy(left[0, 1:]))

    before = [session.backbone.norm_pre, *session.backbone.blocks[:-1]]
    hooks = [part.register_forward_hook(note) for part in before]
    with attach(model, "adamerge", rate, **statistics):
        for image in read(session, session.task.samples, 1):
            model(image.double())
    for hook in hooks:
        hook.remove()
    return torch.stack(found).reshape(len(session.task.samples), -1).T


@pytest.mark.parametrize("rate", ["r=20", "r=30@1,3"])
@float64_without_draws()
def test_both_passes_are_mean_and_deviation_of_every_image_by_itself(rate):
    session = make_session("adamerge", "classification", rate=rate)
    session.handle.detach()
    first = redundancies(session)
    assert first.shape == (4, BATCH)
    usual = {"mean": first.mean(1).tolist(), "deviation": first.std(1, correction=0).tolist()}
    second = redundancies(session, rate, **usual)
    assert torch.equal(second[0], first[0])
    assert not torch.isclose(second[3], first[3], rtol=1e-3).all()  # what enters there is what is left
    assert_close(session.found["mean"], second.mean(1))
    assert_close(session.found["deviation"], second.std(1, correction=0))


@pytest.mark.parametrize("kind", ["classification", "captioning", "segmentation"])
@float64_without_draws()
def test_neither_the_order_of_images_nor_their_batches_matter(kind):
    session = make_session("adamerge", kind, rate="r=14")
    assert session.reducer.trained
    assert session.found["mean"].shape == session.found["deviation"].shape == (session.handle.layout.depth,)
    session.handle.detach()
    for samples, size in ((session.task.samples, 1), (session.task.samples[::-1], 3)):
        assert_close(measure_statistics(session, samples, size), dict(session.found))


def trained(out, limit=12, **settings):
    request = Request("adamerge", limit=limit, workers=0, out=str(out))
    return train_method(request, {**FEW, **settings}, QUIET)


def test_the_file_is_what_the_images_and_the_rate_decide(tmp_path):
    made, again = trained(tmp_path / "one"), trained(tmp_path / "two")
    assert made.weights.read_bytes() == again.weights.read_bytes()
    assert made.model is None
    said = about(made.weights)
    assert (said["rate"], said["updates"], said["recipe"]["least"]) == ("r=14", 0, 8)
    written = made.weights.stat().st_mtime_ns
    assert trained(tmp_path / "one").weights.stat().st_mtime_ns == written
    others = trained(tmp_path / "three", seed=1)
    assert others.weights.read_bytes() != made.weights.read_bytes()
    with pytest.raises(RequestError, match=r"recipe\.rate was 'r=14' and is now 'r=20'"):
        trained(tmp_path / "one", rate="r=20")


def test_statistics_of_another_salience_are_refused(tmp_path):
    made = trained(tmp_path, reducer_options={"salience": "cosines"})
    model, _ = load_model("scenes_vit", "embedded")
    attach(model, "adamerge", "r=14", weights=made.weights, salience="cosines").detach()
    with pytest.raises(RequestError, match="its statistics are of salience=cosines, not of products; say so, or"):
        attach(model, "adamerge", "r=14", weights=made.weights)


def test_a_file_decides_how_many_are_left_of_every_image(tmp_path):
    made = trained(tmp_path)
    model, _ = load_model("scenes_vit", "embedded")
    images = torch.randn(3, 3, 112, 112, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), attach(model, "adamerge", "r=14", weights=made.weights) as handle:
        assert handle.reducer.trained
        model(images)
        assert 29 < handle.token_counts[-1] < 197
    statistics = handle.reducer.statistics
    given = {"mean": [mean for mean, _ in statistics], "deviation": [deviation for _, deviation in statistics]}
    with torch.no_grad(), attach(model.half(), "adamerge", "r=14", weights=made.weights) as handle:
        assert handle.reducer.statistics == statistics  # of all digits, whatever the model's
    with pytest.raises(RequestError, match="it was given statistics as options; leave these out, or the file"):
        attach(model, "adamerge", "r=14", weights=made.weights, **given)


@pytest.mark.slow
def test_a_run_tells_the_measured_method_from_the_other(tmp_path):
    made = trained(tmp_path / "training")
    found = run(
        reducers=["adamerge", f"adamerge@{made.weights}"],
        rates=["r=14"],
        limit=4,
        speed=False,
        out=str(tmp_path / "run"),
    ).frame()
    rows = found[found.reducer == "adamerge"].set_index("training")
    assert sorted(rows.index) == ["trained: training", "untrained statistics"]
    assert rows.gmacs["untrained statistics"] < rows.gmacs["trained: training"]


@pytest.mark.parametrize(("state", "said"), [
    ({"mean": torch.ones(12)}, "it holds no deviation"),
    ({"mean": torch.ones(12), "deviation": torch.ones(11)}, "one number a block in each"),
    ({"mean": torch.ones(12), "deviation": torch.zeros(12)}, "deviations above 0"),
    ({"mean": torch.ones(3), "deviation": torch.ones(3)}, "its statistics are of 3 blocks; the model has 12"),
])  # fmt: skip
def test_files_that_cannot_be_meant_are_refused_in_one_line(tmp_path, state, said):
    write_tensors(tmp_path / "file.safetensors", state)
    model, _ = load_model("scenes_vit", "embedded")
    with pytest.raises(RequestError, match=said) as caught:
        attach(model, "adamerge", "r=14", weights=tmp_path / "file.safetensors")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("settings", "said"), [
    ({"rate": "r=0"}, "rate r=0 takes nothing out"),
    ({"rate": "flops=-35%"}, "what 'adamerge' costs, its statistics decide; give r=14"),
    ({"rate": "r=14", "reducer_options": {"mean": [0.1] * 4, "deviation": [1.0] * 4}}, "there is nothing to measure"),
    ({"least": 1, "share": 1e-6}, "redundancy of block 0 is the same in all 1 images of pass 1"),
])  # fmt: skip
def test_what_cannot_be_measured_is_refused_in_one_line(settings, said):
    with pytest.raises(RequestError, match=said) as caught:
        make_session("adamerge", "classification", **settings)
    assert "\n" not in str(caught.value)


def test_numbers_of_updates_are_refused_and_not_listed():
    with pytest.raises(RequestError, match="lr: 'adamerge' is measured, without updates; its numbers are batch_size"):
        make_recipe("adamerge", lr=0.1)
    assert set(make_recipe("adamerge").meant()) == set(make_recipe("adamerge").measured_by)
    assert "lr" in make_recipe("tome").meant()
