"""Every method on layers that are more than `nn.Linear`: what they compute is not passed by."""

import pytest
import torch
from tiny_models import MODELS, REDUCERS, make_images, make_model, rates, reducer_id, works_on

from suite import attach
from suite.backbones.fused import FusedProjections
from suite.measure.flops import count_flops
from tests.tiers import mostly_slow
from tests.wild.modules import LAYERS, change_layers, merge_layers

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated:FutureWarning")
FAMILIES = ["class token", "q/k norm", "explicit attention", "LV-ViT", "T2T-ViT", "GIT", "average pool"]
READING_ROWS = ["dtem", "mctf", "heuristic"]  # rows of the weights, or keys without values


@torch.no_grad()
def outcome(model, name):
    """Logits and owners of a method's tokens; in double precision, where two ways to compute one thing agree."""
    with attach(model, name, rates(name)[0]) as handle:
        logits = model(make_images(model).double())
        return logits, handle.tokens.owner, handle.token_counts


def check(name, kind, change):
    model, plain = (change_layers(make_model(kind).double(), change) for _ in range(2))
    merge_layers(plain)
    (logits, owner, counts), (expected, its_owner, its_counts) = outcome(model, name), outcome(plain, name)
    torch.testing.assert_close(logits, expected, atol=1e-8, rtol=1e-8)
    assert torch.equal(owner, its_owner)
    assert counts == its_counts
    untouched = outcome(make_model(kind).double(), name)[0]
    assert (logits - untouched).abs().max() > 1e-3


@pytest.mark.parametrize("name", REDUCERS, ids=reducer_id)
def test_a_method_sees_the_adapter_of_a_layer(name):
    check(name, "class token", LAYERS["an adapter"])


@pytest.mark.parametrize("change", LAYERS)
@pytest.mark.parametrize("name", [name for name in READING_ROWS if name in REDUCERS])
def test_a_method_that_reads_rows_of_weights_goes_through_any_layer_that_is_more(name, change):
    check(name, "class token", LAYERS[change])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        mostly_slow(4, (a, b), (name, kind), f"{name}-{kind}")
        for a, name in enumerate(name for name in READING_ROWS if name in REDUCERS)
        for b, kind in enumerate(kind for kind in FAMILIES if kind in MODELS and works_on(name, kind))
    ],
)
def test_so_does_every_family(name, kind):
    check(name, kind, LAYERS["an adapter"])


@pytest.mark.skipif("dtem" not in REDUCERS, reason="another method is checked")
@pytest.mark.parametrize(("change", "fused"), [(None, 4), *((change, 0) for change in LAYERS)])
def test_rows_are_fused_where_the_layer_is_plain_and_nowhere_else(change, fused):
    model = make_model()
    if change is not None:
        change_layers(model, LAYERS[change])
    with attach(model, "dtem", "r=4") as handle, torch.no_grad():
        assert len(FusedProjections().of(handle.family.blocks(model), handle.reducer)) == fused


COUNTED = ["an adapter", "a wrapper without out_features", "split q, k and v", "a hook on the output"]


WHERE = [("mctf", "class token"), ("tome", "class token"), ("mctf", "GIT")]


@pytest.mark.parametrize(
    ("name", "kind", "change"),
    [(*where, change) for where in WHERE for change in COUNTED if (where[1], change[:5]) != ("GIT", "split")],
)
def test_what_such_layers_cost_is_not_disputed(name, kind, change):
    if name not in REDUCERS or not works_on(name, kind):
        pytest.skip("another method is checked")
    model = change_layers(make_model(kind), LAYERS[change])
    with attach(model, name, rates(name)[0]):
        report = count_flops(model, images=make_images(model)[:1])
    assert not report.disputed, report.why
    plain = make_model(kind)
    with attach(plain, name, rates(name)[0]):
        assert count_flops(plain, images=make_images(plain)[:1]).total <= report.total
