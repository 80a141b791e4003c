"""Speed: interleaved with the unreduced model, honest about its noise, and the model comes out as it went in."""

import json
import time

import pytest
import torch
from timm.layers import set_fused_attn
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel

from suite import attach
from suite.attachment.handle import handle_of
from suite.errors import RequestError
from suite.measure import disturbed
from suite.measure.dispatch import attention_kernels, count_macs_fast
from suite.measure.disturbed import disturbed_rounds
from suite.measure.flops import count_flops, smooth_image
from suite.measure.memory import peak_memory_bytes
from suite.measure.precision import float32_products, in_precision, tf32_setting
from suite.measure.runtimes import make_runtime
from suite.measure.runtimes.base import REGISTERED, Prepared, Runtime, frozen_copy, register
from suite.measure.speed import measure_runtimes, measure_speed
from suite.measure.speed_result import energy_per_image, is_noisy
from suite.measure.timing import Block, Interval, interval_of, percentile_ms, time_block, warm_up
from suite.measure.variant import Variant
from suite.reducers.base import Reducer

QUICK = {"min_block_s": 0.0, "warmup_s": 0.0, "rounds": 2}


@pytest.fixture(autouse=True)
def busy(monkeypatch):
    """Other tests beside these disturb blocks by less than a second."""
    monkeypatch.setattr(disturbed, "LEAST", 1.0)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=4, num_heads=2, num_classes=10).eval()


@pytest.fixture(scope="module")
def images():
    return torch.cat([smooth_image(32, seed) for seed in range(4)])


def test_every_round_has_the_cell_beside_the_unreduced_model(model, images):
    results = measure_speed(model, images, ["tome r=3", "evit keep=0.7"], **QUICK | {"rounds": 5})
    assert list(results) == ["none", "tome r=3", "evit keep=0.7"]
    for result in results.values():
        assert len(result.rounds) == 5
        ratios = sorted(r["im_s"] / r["baseline_im_s"] for r in result.rounds)
        assert result.speedup == pytest.approx(ratios[2])
        assert result.im_s == sorted(r["im_s"] for r in result.rounds)[2]
        assert result.im_s_low <= result.im_s <= result.im_s_high
        assert result.speedup_low <= result.speedup <= result.speedup_high
        assert result.aa_low <= result.aa_high
        assert result.agreement == 1.0
        assert result.batch_size == 4
        assert result.note is None
        assert json.loads(json.dumps(result.as_dict()))["im_s"] == result.im_s
    assert results["none"].speedup == results["none"].speedup_low == results["none"].speedup_high == 1.0


def blocks_of(model, images, seed):
    seen = []
    cells = ["tome r=3", "tome r=2", "tome r=1", "random r=1"]
    options = QUICK | {"rounds": 3, "seed": seed}
    measure_speed(
        model, images, cells, progress=lambda done, blocks, name: seen.append((done, blocks, name)), **options
    )
    assert [done for done, *_ in seen[5:]] == list(range(19))
    assert {blocks for _, blocks, _ in seen} == {18}
    return [name for *_, name in seen[5:-1]]


def test_the_unreduced_model_runs_first_and_last_and_the_cells_in_a_seeded_random_order(model, images):
    order = blocks_of(model, images, seed=1)
    rounds = [order[i : i + 6] for i in (0, 6, 12)]
    assert all(r[0] == r[-1] == "none" for r in rounds)
    assert all(sorted(r) == sorted(rounds[0]) for r in rounds)
    assert len({tuple(r) for r in rounds}) > 1
    assert order == blocks_of(model, images, seed=1)


class Stopped(Reducer):
    """Takes its time while `now`, as a process does that is stopped."""

    now = False

    def after_attention(self, tokens, signals, amount):
        if self.now:
            time.sleep(0.3)
        return tokens


@pytest.mark.parametrize("again", [False, True])
def test_a_round_in_which_something_came_between_is_timed_once_more_and_what_it_said_is_kept(model, images, again):
    stopped, said = Stopped(), []
    handle = attach(model, stopped, "r=1")
    handle.detach()

    def progress(done, blocks, what):
        said.append(what)
        stopped.now = (what == "stopped" and done == 4) or (again and what.endswith("once more"))

    found = measure_speed(model, images, {"stopped": handle}, progress=progress, **QUICK | {"rounds": 3})
    assert sum(what.endswith("once more") for what in said) == 1
    for result in found.values():
        assert len(result.rounds) == 3
        (first,) = result.disturbed
        assert "round 2" in result.note
        assert ("when timed again, too" in result.note) == again
    slow, kept = found["stopped"].disturbed[0]["im_s"], [paces["im_s"] for paces in found["stopped"].rounds]
    assert slow < 4 / 1.2
    assert (kept[1] < 4 / 1.2) == again
    assert min(kept[0], kept[2]) > 4 / 1.2
    assert first.keys() == found["none"].rounds[0].keys()


def test_short_blocks_are_not_disturbed_by_a_little_and_two_rounds_do_not_say_which(monkeypatch):
    monkeypatch.setattr(disturbed, "LEAST", 0.05)
    eager = make_runtime("eager")

    def timed(*seconds):
        return Variant("none", nn.Identity(), None, eager, blocks=[Block(one, [], None, launched=1) for one in seconds])

    assert disturbed_rounds([timed(0.1, 0.1, 0.1, 0.1, 0.1, 0.5)], 3) == {
        2: "a block of round 3 took 5 times its usual time"
    }
    assert disturbed_rounds([timed(0.5, 0.1, 0.5)], 3) == {1: "a block of round 2 took 0.2 times its usual time"}
    assert not disturbed_rounds([timed(0.01, 0.01, 0.05)], 3)
    assert not disturbed_rounds([timed(0.1, 0.14, 0.1)], 3)
    assert not disturbed_rounds([timed(0.1, 0.5)], 2)


def test_the_model_comes_out_as_it_went_in(model, images):
    attached = attach(model, "tome", "r=3")
    model.train()
    model.blocks[1].eval()
    measure_speed(model, images, {"mine": attached}, **QUICK)
    assert handle_of(model) is attached
    assert model.training
    assert not model.blocks[1].training
    attached.detach()
    measure_speed(model, images, ["tome r=3"], **QUICK)
    assert handle_of(model) is None
    assert type(model) is VisionTransformer


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_gives_the_weights_back_to_the_bit(model, images, precision):
    handle = attach(model, "tome", "r=3")
    handle.detach()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    result = measure_speed(model, images, {"tome": handle}, precision=precision, **QUICK)["tome"]
    assert result.precision == precision
    assert result.im_s > 0
    assert handle.tokens is None  # features of timed cells do not stay in memory
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_precision_keeps_modules_shared_weights_and_integer_buffers():
    shared = nn.Linear(2, 2)
    model = nn.Sequential(shared, nn.BatchNorm1d(2), nn.Linear(2, 2))
    model[2].weight = shared.weight
    before, counter = shared.weight.detach().clone(), model[1].num_batches_tracked
    with in_precision([model], "bf16"):
        assert model[2].weight is shared.weight
        assert shared.weight.dtype == model[1].running_mean.dtype == torch.bfloat16
        assert model[1].num_batches_tracked is counter
    assert torch.equal(shared.weight, before)
    assert model[1].running_mean.dtype == torch.float32


@pytest.mark.parametrize(
    ("cells", "options", "message"),
    [
        (["tome r=3", "tome r=3"], {}, "named twice"),
        (["tomme r=3"], {}, "tomme"),
        (["tome r=3"], {"precision": "fp8"}, "fp32, fp16, bf16"),
        (["tome r=3"], {"rounds": 0}, "at least one round"),
        (["tome r=3"], {"runtime": "onnx"}, "unknown runtime 'onnx'; known: aotinductor, compiled, eager, graphs, "),
        (["none"], {}, "always timed"),
    ],
)
def test_bad_requests_are_refused_in_one_line(model, images, cells, options, message):
    with pytest.raises(RequestError, match=message):
        measure_speed(model, images, cells, **options)


def test_tf32_is_as_the_user_has_set_it_but_for_a_precision_that_asks_for_it():
    assert tf32_setting() == "convolutions"  # torch's own
    with float32_products("tf32"):
        assert tf32_setting() == "products and convolutions"
    torch.backends.cudnn.conv.fp32_precision = "ieee"
    try:
        with float32_products("fp32"):
            assert tf32_setting() == "off"
        with float32_products("tf32"):
            assert tf32_setting() == "products and convolutions"
        assert tf32_setting() == "off"
    finally:
        torch.backends.cudnn.conv.fp32_precision = "tf32"
    torch.set_float32_matmul_precision("high")
    try:
        assert tf32_setting() == "products and convolutions"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_precisions_and_runtimes_that_need_a_gpu_are_refused_in_one_line_without_one(model, images):
    with pytest.raises(RequestError, match="runtime 'graphs' does not run on cpu; give another --device, or eager"):
        measure_runtimes(model, images, ["tome r=3"], ["eager", "graphs"], **QUICK)
    with pytest.raises(RequestError, match="precision 'tf32' needs a CUDA device"):
        measure_speed(model, images, ["tome r=3"], precision="tf32", **QUICK)


@pytest.fixture
def slower():
    """A runtime that waits before every forward, known by its name as long as the test lasts."""

    @register("slower")
    class Slower(Runtime):
        compiler = "patience"

        def prepare(self, model, example):
            copied = frozen_copy(model)
            return Prepared(lambda images: time.sleep(0.1) or copied(images), 1.5)

    yield "slower"
    del REGISTERED["slower"]


def test_a_cell_has_its_ratio_to_the_unreduced_model_under_the_same_and_under_its_fastest_runtime(
    model, images, slower
):
    found = measure_runtimes(model, images, ["tome r=3"], ["slower", "eager"], **QUICK | {"rounds": 3})
    assert {name: list(results) for name, results in found.items()} == {
        "none": ["slower", "eager"], "tome r=3": ["slower", "eager"]
    }  # fmt: skip
    for results in found.values():
        for result in results.values():
            assert result.fastest_runtime == "eager"
            ratios = sorted(r["im_s"] / r["fastest_im_s"] for r in result.rounds)
            assert result.speedup_fastest == pytest.approx(ratios[1])
            assert result.speedup_fastest_low <= result.speedup_fastest <= result.speedup_fastest_high
    beside = [[r["baseline_im_s"] for r in found["none"][runtime].rounds] for runtime in ("slower", "eager")]
    for runtime, paces in zip(("slower", "eager"), beside):
        assert [r["baseline_im_s"] for r in found["tome r=3"][runtime].rounds] == paces
        assert [r["fastest_im_s"] for r in found["tome r=3"][runtime].rounds] == beside[1]
    assert found["none"]["slower"].speedup == found["none"]["eager"].speedup_fastest == 1
    assert found["none"]["slower"].speedup_fastest < 1  # as fast as itself, and slower than what one would use
    assert (found["none"]["slower"].compile_s, found["none"]["eager"].compile_s) == (1.5, None)


def test_all_runtimes_are_in_the_same_rounds(model, images, slower):
    seen = []
    measure_runtimes(
        model, images, ["tome r=3", "tome r=2"], ["eager", slower],
        progress=lambda done, blocks, name: seen.append((done, blocks, name)), **QUICK
    )  # fmt: skip
    assert {blocks for _, blocks, _ in seen[6:]} == {16}
    order = [name for *_, name in seen[6:-1]]
    for first in (order[:8], order[8:]):
        assert first[:2] == ["eager none", "slower none"] == first[:-3:-1]
        assert sorted(first[2:6]) == ["eager tome r=2", "eager tome r=3", "slower tome r=2", "slower tome r=3"]


def test_a_percentile_needs_a_forward_beyond_it():
    times = [i / 1000 for i in range(1, 101)]
    assert [percentile_ms(times, p) for p in (50, 90, 99)] == pytest.approx([50.5, 90.1, 99.01])
    assert percentile_ms(times[:99], 99) is None
    assert percentile_ms(times[:10], 90) == pytest.approx(9.1)
    assert percentile_ms(times[:9], 90) is percentile_ms(times[:1], 50) is None


def test_the_first_forward_of_a_whole_is_timed_by_itself_and_pays_for_no_other(model, images):
    calls = []

    def slow_at_first(batch):
        reducer = handle_of(model).reducer.name if handle_of(model) else "none"
        time.sleep(0.5 * (not calls) + 0.1 * ((reducer, 4) not in calls))
        calls.append((reducer, len(batch)))
        return model(batch)

    found = measure_speed(model, images, ["tome r=3"], run=slow_at_first, **QUICK)
    assert calls[:2] == [("none", 1), ("none", 4)]
    for result in found.values():
        assert 0.1 <= result.first_s < 0.5
        assert 4 / result.im_s < 0.1
    assert measure_speed(model, images, ["tome r=3"], **QUICK)["none"].first_s is None


def test_as_many_forwards_as_asked_for_give_latencies(model, images):
    few, many = (
        measure_runtimes(model, images[:1], ["tome r=3"], ["eager"], least_forwards=least, **QUICK)["tome r=3"]["eager"]
        for least in (1, 100)
    )
    assert (few.forwards, few.latency_p99_ms, many.forwards) == (2, None, 100)
    assert few.latency_p50_ms > 0
    assert 0 < many.latency_p50_ms <= many.latency_p90_ms <= many.latency_p99_ms


def test_what_a_gpu_used_is_shared_among_all_forwards_of_its_blocks():
    blocks = [Block(0.1, [], None, joules, 4) for joules in (40.0, 44.0)]
    variant = Variant("none", None, None, None, blocks=blocks)
    assert energy_per_image(variant, 2) == pytest.approx(84 / 8 / 2)
    variant.blocks.append(Block(0.1, [], None, None, 4))
    assert energy_per_image(variant, 2) is None


def test_a_handle_of_another_model_is_refused(model, images):
    other = VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=1, num_heads=2)
    with pytest.raises(RequestError, match="another model"):
        measure_speed(model, images, {"tome": attach(other, "tome", "r=3")}, **QUICK)


def test_out_of_memory_names_the_largest_batch_that_ran_and_gives_no_speed(model, images):
    def refuse(module, args):
        if len(args[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model.patch_embed.register_forward_pre_hook(refuse)
    results = measure_speed(model, images, ["tome r=3"], **QUICK)
    assert results["none"].note == "OOM at batch 4; largest that ran: 2"
    assert results["none"].im_s is results["tome r=3"].im_s is None
    assert results["none"].rounds == []
    assert handle_of(model) is None


class Hungry(Reducer):
    """Runs out of memory from its n-th forward on."""

    name = "hungry"
    after = 0
    calls = 0
    error = torch.OutOfMemoryError("CUDA out of memory")

    def after_attention(self, tokens, signals, amount):
        self.calls += 1
        if self.calls > self.after:
            raise self.error
        return tokens.keep(torch.arange(1, tokens.count - amount).expand(len(tokens.x), -1))


@pytest.mark.parametrize("after", [0, 12])
def test_a_cell_that_runs_out_of_memory_spoils_no_other(model, images, after):
    hungry = Hungry()
    hungry.after = after  # 0: in its first forward; 12: within a timed block
    handles = {"hungry": attach(model, hungry, "r=1@0")}
    handles["hungry"].detach()
    handles["tome"] = attach(model, "tome", "r=3")
    results = measure_speed(model, images, handles, **QUICK | {"rounds": 12})
    assert results["hungry"].note == "OOM at batch 4, and at every smaller one"
    assert results["hungry"].im_s is None
    assert len(results["tome"].rounds) == 12


def test_a_cell_that_breaks_is_named_and_spoils_no_other(model, images):
    broken = Hungry()
    broken.error = IndexError("index 17 is out of range")
    handles = {"broken": attach(model, broken, "r=1")}
    results = measure_speed(model, images, handles, **QUICK)
    assert results["broken"].note == "the forward failed: IndexError: index 17 is out of range"
    assert results["none"].im_s > 0


def test_a_failing_compiler_is_a_note_and_no_speed(model, images, monkeypatch):
    def refuse(*args, **options):
        raise RuntimeError("no C++ compiler found\nlong story")

    monkeypatch.setattr(torch, "compile", refuse)
    results = measure_speed(model, images, ["tome r=3"], runtime="compiled", **QUICK)
    assert results["tome r=3"].note == "torch.compile failed: RuntimeError: no C++ compiler found"
    assert results["none"].im_s is None
    assert handle_of(model) is None


def test_a_copy_to_compile_reduces_by_itself_and_shares_the_weights(model, images):
    handle = attach(model, "tome", "r=3")
    with torch.no_grad():
        expected = model(images)
        copied = frozen_copy(model)
        handle.detach()
        assert torch.equal(copied(images), expected)
    assert handle_of(copied) is not handle
    assert copied.head.weight is model.head.weight


def test_more_than_eight_cells_may_be_compiled():
    with make_runtime("compiled").hold(20):
        config = torch._dynamo.config
        assert getattr(config, "recompile_limit", getattr(config, "cache_size_limit", 0)) >= 20


def test_the_attention_kernel_is_named(model, images):
    assert "x 4" in attention_kernels(model, images)
    assert "explicit" not in attention_kernels(model, images)
    set_fused_attn(False)
    try:
        explicit = VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=2)
    finally:
        set_fused_attn(True)
    assert attention_kernels(explicit, images) == "explicit x 3"
    with sdpa_kernel(SDPBackend.MATH):
        assert attention_kernels(model, images) == "math x 4"
    with attach(model, "evit", "r=2"):  # one class row a block is not an attention map
        assert "explicit" not in attention_kernels(model, images)


def test_an_interval_holds_its_median_and_widens_with_the_spread():
    assert interval_of([2.0]) == Interval(2.0, None, None)
    assert interval_of([3.0, 3.0, 3.0]) == Interval(3.0, pytest.approx(3.0), pytest.approx(3.0))
    five = interval_of([0.99, 1.0, 1.0, 1.0, 1.01])
    assert five.median == 1.0
    assert (five.low, five.high) == (pytest.approx(0.9912, abs=1e-4), pytest.approx(1.0088, abs=1e-4))
    skewed = interval_of([1.0] * 30 + [10.0] * 2)
    assert skewed.low <= skewed.median <= skewed.high


def test_a_result_is_noisy_when_nothing_at_all_looks_like_a_difference():
    assert not is_noisy(Interval(1.0, 0.995, 1.004), 0.01)
    assert is_noisy(Interval(1.0, 0.98, 1.004), 0.01)
    assert is_noisy(Interval(1.0, None, None), 0.01)


def test_a_single_round_has_no_interval(model, images):
    result = measure_speed(model, images, ["tome r=3"], **QUICK | {"rounds": 1})["tome r=3"]
    assert result.im_s > 0
    assert result.im_s_low is result.speedup_high is result.aa_low is None
    assert result.noisy


def test_a_block_runs_as_often_as_asked_and_keeps_the_last_output(images):
    calls = []
    block = time_block(lambda x: calls.append(len(x)) or len(calls), images, 7)
    assert len(calls) == block.output == len(block.forwards) == 7
    assert min(block.forwards) > 0
    assert sum(block.forwards) == pytest.approx(7 * block.seconds, rel=0.5)
    assert block.joules is None


def test_warm_up_runs_at_least_twice(images):
    calls = []
    assert warm_up(lambda x: calls.append(1), images, seconds=0.0) > 0
    assert len(calls) >= 2


def test_peak_memory_is_what_lives_at_once(images):
    x, nothing = torch.ones(1000, 1000), nn.Identity()
    assert peak_memory_bytes(lambda x: (x + 1).view(-1), x, nothing) == 8_000_000
    assert peak_memory_bytes(lambda x: ((x + 1) * 2).sum(), x, nothing) == pytest.approx(12_000_000, abs=8)

    def chain(x):
        for _ in range(10):
            x = x + 1
        return x

    assert peak_memory_bytes(chain, x, nothing) == 12_000_000


class Modes(nn.Module):
    """Notes whether autograd is on, and inference mode, whenever it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.seen = nn.Parameter(torch.ones(1)), set()

    def forward(self, x):
        self.seen.add((torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
        return x * self.weight


def test_peak_memory_on_cuda_is_measured_in_inference_mode(monkeypatch):
    for name in ("synchronize", "reset_peak_memory_stats", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda _: 7)
    with FakeTensorMode(), torch.device("cuda"):
        probe = Modes()
        assert peak_memory_bytes(probe, torch.ones(2), probe) == 7
    assert probe.seen == {(False, True)}


def test_nothing_that_is_measured_keeps_activations_for_a_backward_pass(model, images):
    model.norm = nn.Sequential(model.norm, probe := Modes())
    assert all(parameter.requires_grad for parameter in model.parameters())
    measure_speed(model, images, ["tome r=3"], **QUICK)
    count_flops(model, images=images)
    count_macs_fast(model, images[:1])
    attention_kernels(model, images)
    peak_memory_bytes(model, images, model)
    assert {grad for grad, _ in probe.seen} == {False}


def test_peak_memory_is_the_same_every_time_and_counts_the_weights(model, images):
    peaks = {peak_memory_bytes(model, images, model) for _ in range(3)}
    assert len(peaks) == 1
    assert peaks.pop() > sum(p.numel() * 4 for p in model.parameters()) + images.numel() * 4
