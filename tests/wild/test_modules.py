"""The Python API among other people's code: hooks, checkpointing, features kept, wrappers, files, empty batches."""

import copy
import io
import pickle
import subprocess
import sys

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.distributed.fsdp import fully_shard
from transformers.models.git.modeling_git import GitVisionConfig, GitVisionModel

from suite import RequestError, attach, list_reducers
from suite.reducers import reducer_class
from tests.tolerances import TINY32

SHAPE = {"img_size": 32, "patch_size": 4, "embed_dim": 32, "depth": 4, "num_heads": 2, "num_classes": 10}
METHODS = [name for name in list_reducers() if name != "none"]


def make_model(**options):
    torch.manual_seed(0)
    model = VisionTransformer(**{**SHAPE, **options}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def make_git():
    config = GitVisionConfig(
        image_size=32, patch_size=4, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2
    )
    torch.manual_seed(0)
    return GitVisionModel(config).eval()


def make_images(batch=2, seed=1):
    return torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def rate(name):
    forms = {"r": "r=6", "keep": "keep=0.7", "lines": "lines=2", "side": "side=16", "tau": "tau=0"}
    return next(rate for form, rate in forms.items() if form in reducer_class(name).rates)


@pytest.mark.parametrize("name", METHODS)
@torch.no_grad()
def test_hooks_on_blocks_and_attention_are_called_once_a_block_with_what_passes(name):
    model, seen = make_model(), {"block": [], "attn": [], "attn_drop": []}
    for block in model.blocks:
        block.attn.fused_attn = False  # as whoever wants attention maps does
        for module, kind in ((block, "block"), (block.attn, "attn"), (block.attn.attn_drop, "attn_drop")):
            module.register_forward_hook(
                lambda module, args, out, kind=kind: seen[kind].append((module, args[0].shape, out.shape))
            )
    with attach(model, name, rate(name)) as handle:
        logits = model(make_images())
        assert [module for module, *_ in seen["block"]] == list(model.blocks)
        assert [out[1] for _, _, out in seen["block"]] == handle.token_counts
        assert [module for module, *_ in seen["attn"]] == [block.attn for block in model.blocks]
        projected = [trace.projected for trace in handle.trace]
        assert [(entered[1], out[1]) for _, entered, out in seen["attn"]] == [(count, count) for count in projected]
        maps = [(out[2], out[3]) for _, _, out in seen["attn_drop"]]
        assert maps == [(trace.queries, trace.attended) for trace in handle.trace]
        for block in model.blocks:
            for module in (block, block.attn, block.attn.attn_drop):
                module._forward_hooks.clear()
        assert torch.equal(model(make_images()), logits)


@torch.no_grad()
def test_what_a_hook_returns_is_what_leaves_a_block():
    model = make_model()
    with attach(model, "tome", "r=6") as handle:
        plain = model(make_images())
        late = model.blocks[3].register_forward_hook(lambda module, args, out: torch.zeros_like(out))
        zeros = torch.zeros(2, 41, 32)
        torch.testing.assert_close(model(make_images()), model.head(model.norm(zeros)[:, 0]), **TINY32)
        assert handle.token_counts[-1] == 41
        late.remove()
        model.blocks[1].register_forward_pre_hook(lambda module, args: (args[0] * 2,))
        model.blocks[0].register_forward_hook(lambda module, args, out: out / 2)
        torch.testing.assert_close(model(make_images()), plain, **TINY32)


@torch.no_grad()
def test_what_a_hook_returns_is_what_attention_adds():
    model = make_model()
    for block in model.blocks:
        block.attn.register_forward_hook(lambda module, args, out: torch.zeros_like(out))
    with attach(model, "topk", "keep=0.9@3"):
        silent = model(make_images())
        for block in model.blocks:
            block.attn._forward_hooks.clear()
            block.attn.proj.weight.zero_()
            block.attn.proj.bias.zero_()
        torch.testing.assert_close(model(make_images()), silent, **TINY32)


def test_gradients_pass_through_the_backward_hooks_of_a_block():
    model, seen = make_model(), []
    model.blocks[2].register_full_backward_hook(lambda module, entered, left: seen.append((entered, left)))
    with attach(model, "tome", "r=6"):
        model(make_images()).sum().backward()
    ((entered,), (left,)) = seen[0]
    assert (entered.shape[1], left.shape[1]) == (53, 47)
    assert entered.any()


def test_a_hook_that_changes_what_enters_attention_is_refused():
    model = make_model()
    with attach(model, "tome", "r=6"), torch.no_grad():
        model.blocks[1].attn.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
        with pytest.raises(RequestError, match=r"attention of block 1.*norm1"):
            model(make_images())


@pytest.mark.parametrize("place", ["blocks", "vision_model.encoder", "vision_model.encoder.layers.1.self_attn"])
def test_hooks_that_would_not_be_called_are_refused_by_name_before_and_after_attaching(place):
    model = make_model() if place == "blocks" else make_git()
    hook = model.get_submodule(place).register_forward_hook(print)
    with pytest.raises(RequestError, match=r"hook on .*would not be called") as caught:
        attach(model, "tome", "r=6")
    assert "\n" not in str(caught.value)
    hook.remove()
    if "attn" in place:
        with attach(model, "tome", "r=6"):
            model.get_submodule(place).register_forward_hook(print)
            with pytest.raises(RequestError, match="attention of block 1"):
                model(make_images())


@torch.no_grad()
def test_a_git_encoder_calls_the_hooks_of_its_blocks():
    model, counts = make_git(), []
    for layer in model.vision_model.encoder.layers:
        layer.register_forward_hook(lambda module, args, out: counts.append(out.shape[1]))
    with attach(model, "tome", "r=6") as handle:
        model(make_images())
    assert counts == handle.token_counts


@pytest.mark.parametrize("place", ["", "blocks.1", "blocks.1.attn"])
def test_a_forward_that_was_set_on_a_module_is_refused_by_its_name(place):
    model = make_model()
    module = model.get_submodule(place)
    module.forward = module.forward
    with pytest.raises(RequestError, match=f"'{place or 'VisionTransformer'}' has a forward of its own"):
        attach(model, "tome", "r=6")


class Saved:
    """Bytes that the backward pass keeps."""

    def __enter__(self):
        self.storages = {}
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self.keep, lambda tensor: tensor)
        self.hooks.__enter__()
        return self

    def keep(self, tensor):
        self.storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    def __exit__(self, *exception):
        self.hooks.__exit__(*exception)

    @property
    def bytes(self):
        return sum(self.storages.values())


def use_checkpointing(model):
    if isinstance(model, VisionTransformer):
        model.set_grad_checkpointing(True)
    else:
        model.gradient_checkpointing_enable()


@pytest.mark.parametrize("name", ["tome", "dtem", "mctf", "evit", "dynamicvit", "diffrate"])
@pytest.mark.parametrize("make", [make_model, make_git])
@pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning")
def test_gradient_checkpointing_is_honoured_and_changes_no_gradient(make, name):
    kept, gradients = [], []
    for checkpointing in (False, True):
        model = make().train()
        with attach(model, name, rate(name)) as handle:
            if checkpointing:
                use_checkpointing(model)
            torch.manual_seed(3)
            with Saved() as saved:
                out = model(make_images())
                loss = (out if isinstance(out, torch.Tensor) else out.last_hidden_state).square().sum()
            loss.backward()
        kept.append(saved.bytes)
        learning = [*model.parameters(), *handle.reducer.parameters()]
        gradients.append([parameter.grad for parameter in learning if parameter.grad is not None])
    assert kept[1] < kept[0] / 3
    torch.testing.assert_close(gradients[1], gradients[0], **TINY32)


@torch.no_grad()
def test_features_of_an_earlier_batch_go_with_their_own_sizes():
    model = make_model(global_pool="avg")
    with attach(model, "tome", "r=6"):
        expected = model(make_images())
        features = model.forward_features(make_images())
        model.forward_features(make_images(seed=2))
        assert torch.equal(model.forward_head(features), expected)


@torch.no_grad()
def test_features_of_a_compiled_forward_go_with_their_sizes():
    torch._dynamo.reset()
    model = make_model(global_pool="avg")
    with attach(model, "tome", "r=6"):
        features = torch.compile(model.forward_features, backend="eager", fullgraph=True)(make_images())
        torch.testing.assert_close(model.forward_head(features), model(make_images()), **TINY32)


@pytest.mark.parametrize("change", [torch.clone, torch.Tensor.double, lambda features: features[:1]])
@torch.no_grad()
def test_features_whose_sizes_nobody_knows_are_refused_where_the_head_goes_by_them(change):
    with attach(model := make_model(global_pool="avg"), "tome", "r=6"):
        features = change(model.forward_features(make_images()))
        with pytest.raises(RuntimeError, match="very tensor that forward_features returned"):
            model.forward_head(features)
    with attach(model := make_model().double(), "tome", "r=6"):
        features = model.forward_features(make_images().double())
        torch.testing.assert_close(model.forward_head(change(features)), change(model.forward_head(features)))


def test_features_that_are_let_go_of_take_what_is_known_of_them_along():
    model = make_model(global_pool="avg", final_norm=False)  # where the features are the tokens themselves
    with attach(model, "tome", "r=6") as handle, torch.no_grad():
        model.forward_features(make_images())
        handle.forget()
        assert len(handle._given_out) == 0


@pytest.mark.parametrize("name", ["tome", "dtem", "diffrate"])
@torch.no_grad()
def test_an_attached_model_is_copied_pickled_and_saved(name):
    model = make_model()
    with attach(model, name, rate(name)):
        expected = model(make_images())
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        for other in (
            copy.deepcopy(model),
            pickle.loads(pickle.dumps(model)),
            torch.load(file, weights_only=False),
        ):
            assert torch.equal(other(make_images()), expected)
            other._reducerbench.detach()
            assert type(other) is VisionTransformer
            assert not torch.equal(other(make_images()), expected)
        assert torch.equal(model(make_images()), expected)


MINE = """
import torch
from suite.reducers.base import Reducer


class Score(torch.nn.Linear):
    pass


class Mine(Reducer):
    def build(self, layout, stages):
        self.score = Score(layout.width, 1)

    def after_attention(self, tokens, signals, amount):
        order = self.score(signals.normed[:, tokens.num_prefix:])[..., 0].argsort(1)[:, amount:]
        return tokens.keep(tokens.num_prefix + order)
"""


@pytest.mark.slow
@torch.no_grad()
def test_a_method_from_a_file_is_found_by_its_file_where_nobody_has_loaded_it(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    with attach(model := make_model(), f"{tmp_path / 'mine.py'}:Mine", "r=4"):
        expected, kept = model(make_images()), pickle.dumps(model)
        assert torch.equal(copy.deepcopy(model)(make_images()), expected)
    done = (
        "import pickle, sys, torch; model = pickle.load(sys.stdin.buffer); print(model(torch.ones(1, 3, 32, 32)).shape)"
    )
    run = subprocess.run([sys.executable, "-c", done], input=kept, capture_output=True, check=True)
    assert run.stdout.decode().strip() == "torch.Size([1, 10])"


def logits_of(_, model, images, results):
    with torch.no_grad():
        results.append(model(images).tolist())


@pytest.mark.slow
def test_an_attached_model_goes_to_a_process_that_is_spawned():
    with attach(model := make_model().requires_grad_(False), "dtem", "r=6"), torch.multiprocessing.Manager() as manager:
        results = manager.list()
        torch.multiprocessing.spawn(logits_of, (model, make_images(), results), nprocs=1)
        torch.testing.assert_close(torch.tensor(results[0]), model(make_images()), **TINY32)


@pytest.mark.slow
def test_sharded_and_distributed_models_run_reduced(tmp_path):
    model, images = make_model(), make_images()
    with attach(model, "dtem", "r=6"), torch.no_grad():
        expected = model(images)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        mesh = torch.distributed.init_device_mesh("cpu", (1,))
        with attach(model, "dtem", "r=6"), torch.no_grad():
            assert torch.equal(nn.parallel.DistributedDataParallel(model)(images), expected)
        for block in model.blocks:
            fully_shard(block, mesh=mesh)
        with attach(fully_shard(model, mesh=mesh), "dtem", "r=6"), torch.no_grad():
            torch.testing.assert_close(model(images), expected, **TINY32)
    finally:
        torch.distributed.destroy_process_group()


class Lightning(nn.Module):
    """A training library's module around a backbone."""

    def __init__(self, net):
        super().__init__()
        self.net = net


@pytest.mark.parametrize(
    ("wrap", "inner"),
    [
        (nn.DataParallel, "model.module"),
        (torch.compile, "model._orig_mod"),
        (Lightning, "model.net"),
        (lambda model: nn.Sequential(nn.Identity(), model), "model.get_submodule('1')"),
    ],
)
def test_a_wrapper_is_refused_with_the_way_to_the_inner_model_and_calls_it_reduced(wrap, inner):
    model = make_model()
    wrapper = wrap(model)
    with pytest.raises(RequestError, match="pass the inner model: ") as caught:
        attach(wrapper, "tome", "r=6")
    assert str(caught.value).endswith(inner)
    assert eval(inner, {"model": wrapper}) is model
    with attach(model, "tome", "r=6") as handle, torch.no_grad():
        if isinstance(wrapper, (nn.DataParallel, nn.Sequential)):
            wrapper(make_images())
            assert handle.token_counts[-1] == 41


def test_an_adapter_of_peft_itself_is_seen_and_its_model_leads_to_the_inner_one():
    peft = pytest.importorskip("peft", reason="peft is not installed")
    for dora in (False, True):
        model = make_model()
        config = peft.LoraConfig(target_modules=["qkv"], r=4, init_lora_weights=False, use_dora=dora)
        torch.manual_seed(2)
        whole = peft.get_peft_model(model, config).eval()
        with pytest.raises(RequestError, match=r"pass the inner model: model\.base_model\.model"):
            attach(whole, "tome", "r=6")
        for name in METHODS:
            with torch.no_grad(), attach(model.double(), name, rate(name)) as handle:
                beside, owner = whole(make_images().double()), handle.tokens.owner
            merged = copy.deepcopy(whole).merge_and_unload()
            with torch.no_grad(), attach(merged, name, rate(name)) as handle:
                torch.testing.assert_close(merged(make_images().double()), beside, atol=1e-6, rtol=1e-6)
                assert torch.equal(handle.tokens.owner, owner)
