"""Methods whose authors let the images of a batch decide together give what their code gives, faithful and alone."""

import numpy as np
import pytest
import recipe
import torch
from recent import INPUTS, folder_of, official, on_cases, stored

from suite import attach
from suite.measure.flops import count_macs_fast
from suite.reducers.saint import arrangement, redundancy

DTYPES = pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
SINGLE = folder_of("unit_saint_drop")


def asked(params):
    """Method and rate of a case."""
    if "R" in params:
        return "pomt", f"r={params['R']}@{params['layer']}", {}
    thresholds = params["sim_threshold"]
    blocks = ",".join(map(str, range(len(thresholds))))
    return "saint", f"tau={thresholds}@{blocks}", {"k": params["K"], "gamma": params["gamma"]}


@on_cases("pomt_mini_R20", "pomt_t_R56", "saint_mini_05", "saint_t_07", "saint_t_list")
@pytest.mark.parametrize("image", INPUTS)
@DTYPES
@torch.no_grad()
def test_what_a_batch_decides_together_is_the_authors_and_what_an_image_decides_that_of_the_image_alone(
    name, image, dtype, bound
):
    outputs, entry = stored(name)
    model, images = official(entry["model"], dtype), torch.from_numpy(INPUTS[image](entry["model"])).to(dtype)
    method, rate, options = asked(entry["params"])
    with attach(model, method, rate, per_batch=True, **options) as handle:
        logits, tokens = model(images), handle.tokens
        counts = entry["token_counts"]
        assert handle.token_counts == counts.get(image, counts)["block_out"]
    assert np.abs(logits.numpy() - outputs[f"{image}_logits64"]).max() <= bound
    if dtype == torch.float32:
        assert np.abs(logits.numpy() - outputs[f"{image}_logits"]).max() <= bound
    if method == "pomt":  # the other does not say who went
        assert (tokens.owner.numpy() == outputs[f"{image}_map"]).all()
    with attach(model, method, rate, **options) as handle:
        own = model(images)
        if method == "saint":
            assert handle.tokens.counts.tolist() == [alone[-1] for alone in counts[f"{image}_alone"]]
    assert np.abs(own.numpy() - outputs[f"{image}_logits64_alone"]).max() <= bound


@on_cases("pomt_mini_R20", "pomt_t_R56", "saint_mini_05", "saint_t_07", "saint_t_list")
def test_the_cost_is_what_was_counted_on_the_authors_code(name):
    _, entry = stored(name)
    method, rate, options = asked(entry["params"])
    model = official(entry["model"])
    with attach(model, method, rate, **options):
        macs = count_macs_fast(model, torch.from_numpy(recipe.smooth(entry["model"])[:1]))
    assert macs / 1e9 == pytest.approx(entry["gflops"], abs=1e-6)


@pytest.mark.skipif(SINGLE is None, reason="the larger set of reference outputs is not here")
@pytest.mark.parametrize("case", range(5))
def test_one_drop_equals_the_authors(case):
    outputs, (_, cases) = np.load(SINGLE / "unit_saint_drop.npz"), stored("unit_saint_drop")
    params = cases["params"][case]
    prefix = params["class_token"] + params["distill_token"]
    metric = torch.from_numpy(outputs["metric"])[:, prefix:]
    votes, score = redundancy(metric, params["tau"], params["K"], params["gamma"])
    votes = (votes.sum() // len(votes)).expand_as(votes)
    assert (votes == params["r"]).all()
    order, staying = arrangement(score, votes, metric.shape[1])
    for sample, kept in enumerate(outputs[f"kept_{case}"]):
        assert (prefix + order[sample][staying[sample]]).tolist() == kept[prefix:].tolist()
