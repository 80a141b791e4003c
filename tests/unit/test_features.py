"""Features are judged as the libraries of the field judge them, by training images that were reduced as the images."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

import suite
from reports.frame import load_frame
from suite.attachment.attach import attach
from suite.errors import RequestError
from suite.models.load import load_model
from suite.rates.rate import parse_rate
from suite.stats.aggregates import MeanOfInfluence
from suite.store.folder import RunFolder
from suite.sweep.plan import make_plan, make_task
from suite.sweep.spec import RunSpec, make_spec
from tasks.features.fidelity import cka_influence
from tasks.features.knn import TEMPERATURE, nearest_images, vote
from tasks.features.pooled import pooled_features
from tasks.features.probe import fit_logistic
from tasks.features.protocol import Found, Labelled
from tasks.features.retrieval import Retrieval
from tests.photos import write_photos_of_training

ROUNDING = 1e-12
SMALL = {"task": "scenes_features", "device": "cpu", "workers": 0, "batch_size": 8, "speed": False}
FEW = {"scenes": 12, "bank": 20}


@pytest.fixture(scope="module")
def features() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A bank of 60 features of 4 classes, and 25 others."""
    draw = np.random.default_rng(3)
    classes = draw.integers(0, 4, 60)
    centres = draw.normal(size=(4, 8))
    return centres[classes] + 1.5 * draw.normal(size=(60, 8)), classes, draw.normal(size=(25, 8))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunFolder:
    """A run of few scenes and fewer methods."""
    out = tmp_path_factory.mktemp("features") / "run"
    suite.run({**SMALL, "task_options": FEW, "reducers": ["tome"], "rates": ["r=8"], "out": str(out)})
    return RunFolder(out)


def linear_cka(x: np.ndarray, y: np.ndarray) -> float:
    """As Kornblith et al. write it."""
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    return float(((y.T @ x) ** 2).sum() / np.linalg.norm(x.T @ x) / np.linalg.norm(y.T @ y))


def test_neighbours_vote_as_they_do_in_scikit_learn(features):
    neighbors = pytest.importorskip("sklearn.neighbors")
    bank, classes, images = features
    for k in (1, 10, 20):
        theirs = neighbors.KNeighborsClassifier(k, metric="cosine", weights=lambda d: np.exp((1 - d) / TEMPERATURE))
        nearest, cosines = nearest_images(images, bank, k)
        assert vote(classes[nearest], cosines).tolist() == theirs.fit(bank, classes).predict(images).tolist()


def test_neighbours_vote_as_written_out_image_by_image(features):
    bank, classes, images = features
    nearest, cosines = nearest_images(images, bank, 10)
    for place, image in enumerate(images):
        cosine = [float(image @ one / np.linalg.norm(image) / np.linalg.norm(one)) for one in bank]
        order = sorted(range(60), key=lambda i: -cosine[i])[:10]
        assert nearest[place].tolist() == order
        votes = [sum(np.exp(cosine[i] / TEMPERATURE) for i in order if classes[i] == kind) for kind in range(4)]
        assert vote(classes[nearest], cosines)[place] == int(np.argmax(votes))


def test_of_equal_neighbours_the_first_counts_and_of_equal_votes_the_lowest_class():
    bank = np.ones((5, 2))
    nearest, cosines = nearest_images(np.ones((1, 2)), bank, 3)
    assert nearest.tolist() == [[0, 1, 2]]
    assert vote(np.array([[3, 1, 1]]), cosines).tolist() == [1]
    assert vote(np.array([[3, 1]]), np.array([[0.5, 0.5]])).tolist() == [1]


def test_there_are_no_more_neighbours_than_training_images():
    nearest, cosines = nearest_images(np.eye(3), np.eye(3)[:2], 20)
    assert nearest.shape == cosines.shape == (3, 2)


def test_cka_is_that_of_gram_matrices_and_1_of_features_that_are_turned_scaled_and_moved():
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(40, 6)), draw.normal(size=(40, 9))
    centre = np.eye(40) - 1 / 40
    k, m = centre @ x @ x.T @ centre, centre @ y @ y.T @ centre
    of_grams = (k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum())
    assert cka_influence(x, y).mean() == pytest.approx(of_grams, abs=ROUNDING)
    turn, _ = np.linalg.qr(draw.normal(size=(6, 6)))
    assert cka_influence(x, 3 * x @ turn + 7).mean() == pytest.approx(1, abs=ROUNDING)


def test_what_a_sample_adds_to_cka_is_what_leaving_it_out_takes_away():
    draw = np.random.default_rng(1)
    x = draw.normal(size=(400, 5))
    y = x @ draw.normal(size=(5, 7)) + draw.normal(size=(400, 7))
    influence, score = cka_influence(x, y), linear_cka(x, y)
    assert influence.mean() == pytest.approx(score, abs=ROUNDING)
    without = [linear_cka(np.delete(x, i, axis=0), np.delete(y, i, axis=0)) for i in range(400)]
    pseudo = 400 * score - 399 * np.array(without)
    assert np.corrcoef(influence, pseudo)[0, 1] > 0.999
    assert influence.std() == pytest.approx(pseudo.std(), rel=0.02)  # first order: their difference falls as 1/n


def test_the_linear_probe_is_the_minimum_that_scikit_learn_finds(features):
    linear = pytest.importorskip("sklearn.linear_model")
    bank, classes, images = features
    theirs = linear.LogisticRegression(C=0.316, max_iter=10_000, tol=1e-10).fit(bank, classes)
    ours = fit_logistic(bank, classes)
    assert ours.converged
    np.testing.assert_allclose(ours.weight, theirs.coef_, atol=1e-4)  # both stop near the minimum
    assert ours.predict(images).tolist() == theirs.predict(images).tolist()


def test_at_the_linear_probe_nothing_pulls_any_more(features):
    bank, classes, _ = features
    fitted = fit_logistic(bank, classes + 5, c=2.0)
    assert fitted.classes.tolist() == [5, 6, 7, 8]
    logits = bank @ fitted.weight.T + fitted.bias
    share = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    error = share - np.eye(4)[classes]
    np.testing.assert_allclose(error.T @ bank + fitted.weight / 2.0, 0, atol=1e-3)  # 60 times the gradient's own bound
    np.testing.assert_allclose(error.sum(axis=0), 0, atol=1e-3)


def test_recall_asks_for_a_right_class_among_the_first_k():
    bank = Labelled(np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]), np.array([[1], [2], [3]]))
    asked = Labelled(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), np.array([[1, 1], [2, 7], [1, 2]]))
    found = Retrieval().columns(Found(asked, bank, None))
    assert found["recall1"].tolist() == [True, False, False]
    assert found["recall5"].tolist() == [True, True, True]


@pytest.mark.slow
def test_the_interval_of_cka_holds_what_is_true_about_as_often_as_it_says():
    draw = np.random.default_rng(2)
    mix = draw.normal(size=(4, 4))

    def sides(n: int) -> tuple[np.ndarray, np.ndarray]:
        x = draw.normal(size=(n, 4))
        return x, x @ mix + draw.normal(size=(n, 4))

    truth = linear_cka(*sides(400_000))
    metric, held = MeanOfInfluence("cka_influence"), 0
    for _ in range(300):
        interval = metric.interval(cka_influence(*sides(300))[:, None])
        held += interval is not None and interval[0] <= truth <= interval[1]
    assert 0.90 < held / 300 < 0.99


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_a_reduced_models_feature_is_what_its_classifier_is_given(pool):
    torch.manual_seed(0)
    model = VisionTransformer(32, 8, num_classes=5, embed_dim=16, depth=2, num_heads=2, global_pool=pool).eval()
    images = torch.randn(3, 3, 32, 32)
    with attach(model, "tome", parse_rate("r=2")), torch.inference_mode():
        assert torch.equal(model.get_classifier()(pooled_features(model, images)), model(images))


def test_a_feature_is_what_the_classifier_is_given():
    model, _ = load_model("scenes_vit")
    assert isinstance(model, VisionTransformer)
    images = torch.randn(3, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(model.head(pooled_features(model, images)), model(images))


def test_training_images_go_through_the_reducer_and_are_kept_apart_from_what_is_scored(run):
    frame = load_frame(run.path)
    assert frame.status.tolist() == ["done", "done"]
    assert run.read_ids() == [f"test/{i:05d}" for i in range(12)]
    spec = make_spec({**SMALL, "task_options": FEW, "reducers": ["tome"], "rates": ["r=8"], "out": str(run.path)})
    plan = make_plan(spec)
    for key, method in plan.methods.items():
        shards = run.cell(key).shards
        assert shards.files.read_rows(shards.whole)["id"].to_pylist() == run.read_ids()
        support = shards.files.read_rows(shards.support).to_pandas()
        assert support["id"].tolist() == [f"train/{i:05d}" for i in range(20)]
        sample = plan.task.support[3]
        image = plan.task.load(sample, plan.task.preprocessing(plan.model))[None]
        with plan.handle(method, method.rate), torch.inference_mode():
            direct = pooled_features(plan.model, image)[0].numpy()
        np.testing.assert_allclose(support["feature"][3], direct, rtol=0, atol=1e-5)  # a batch of 8, and of 1


def test_scores_follow_from_the_stored_features(run):
    frame = load_frame(run.path)
    reduced, plain = (frame.index[frame.reducer == name][0] for name in ("tome", "none"))
    rows, beside = (run.cell(key).shards.outcomes() for key in (reduced, plain))
    own, theirs = (np.stack(side["feature"].to_list()).astype(float) for side in (rows, beside))
    stored = run.cell(reduced).scores()["scores"]
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(own[:12], theirs[:12], strict=True)]
    assert stored["cosine"]["value"] == pytest.approx(np.mean(cosines), abs=ROUNDING)
    assert stored["cka"]["value"] == pytest.approx(linear_cka(own[:12], theirs[:12]), abs=ROUNDING)
    labels = np.array([of[0] for of in rows["labels"]])
    nearest, cosine = nearest_images(own[:12], own[12:], 10)
    right = vote(labels[12:][nearest], cosine) == labels[:12]
    assert stored["knn10"]["value"] == pytest.approx(right.mean(), abs=ROUNDING)
    assert run.cell(plain).scores()["scores"]["cosine"]["value"] == 1


def test_a_bank_may_be_made_by_the_unreduced_model(run, tmp_path):
    options = {**FEW, "bank_by": "unreduced"}
    suite.run({**SMALL, "task_options": options, "reducers": ["tome"], "rates": ["r=8"], "out": str(tmp_path)})
    frame = load_frame(tmp_path)
    folder, [key], [plain] = (
        RunFolder(tmp_path),
        frame.index[frame.reducer == "tome"],
        frame.index[frame.reducer == "none"],
    )
    own, theirs = (folder.cell(one).shards.outcomes() for one in (key, plain))
    both = pd.concat([own[:12], theirs[12:]])
    features, labels = np.stack(both["feature"].to_list()).astype(float), np.array([of[0] for of in both["labels"]])
    nearest, cosine = nearest_images(features[:12], features[12:], 20)
    right = vote(labels[12:][nearest], cosine) == labels[:12]
    assert folder.cell(key).scores()["scores"]["knn20"]["value"] == pytest.approx(right.mean(), abs=ROUNDING)


def test_a_run_that_lost_rows_of_its_bank_makes_them_again_and_scores_the_same(run, tmp_path):
    values = {**SMALL, "task_options": FEW, "reducers": ["tome"], "rates": ["r=8"], "out": str(tmp_path)}
    suite.run(values)
    before, folder = load_frame(tmp_path).knn10.to_dict(), RunFolder(tmp_path)
    for key in before:
        (folder.cell(key).path / "support.parquet").unlink()
    suite.run(values)
    assert load_frame(tmp_path).knn10.to_dict() == before
    assert all((folder.cell(key).path / "support.parquet").exists() for key in before)


def test_what_cannot_be_asked_for_is_refused(tmp_path):
    with pytest.raises(RequestError, match="protocol 'zero_shot' is unknown"):
        make_task(RunSpec(task="scenes_features", task_options={"protocols": "knn,zero_shot"}))
    with pytest.raises(RequestError, match="bank_by 'other' is unknown"):
        make_task(RunSpec(task="scenes_features", task_options={"bank_by": "other"}))
    root = write_photos_of_training(tmp_path)
    with pytest.raises(RequestError, match="has no folder train"):
        make_task(RunSpec(task="imagenet_features", data=str(root / "val")))
    with pytest.raises(RequestError, match="needs a model with pooled features"):
        make_plan(make_spec({**SMALL, "model": "scenes_git", "task_options": FEW}))


def test_images_without_labels_are_judged_by_the_unreduced_model_alone(tmp_path):
    root = write_photos_of_training(tmp_path / "data")
    suite.run(
        {
            **SMALL, "task": "image_features", "data": str(root), "model": "scenes_vit", "reducers": ["tome"],
            "rates": ["r=8"], "out": str(tmp_path / "run"),
        }
    )  # fmt: skip
    frame = load_frame(tmp_path / "run")
    assert frame.status.tolist() == ["done", "done"]
    cosines = frame.set_index("reducer").cosine
    assert cosines["none"] == 1
    assert 0.5 < cosines["tome"] < 1
    assert len(RunFolder(tmp_path / "run").read_ids()) == 24
