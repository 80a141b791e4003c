"""MAE: files of fine-tuned weights load strictly into a model that pools its patches as they were trained to."""

from functools import partial

import pytest
import torch
from timm.data import resolve_model_data_config
from timm.models.vision_transformer import VisionTransformer

from suite import RequestError, attach
from suite.backbones import family_of
from suite.backbones.block import BlockTrace
from suite.backbones.mae import MaeViT
from suite.measure.flops import count_flops
from suite.measure.formula import base_macs
from suite.models.classifier_files import build_classifier
from suite.models.load import load_model
from suite.models.registry import find_entry, list_models
from tests.tolerances import TINY32

NAME = "mae_vit_base_patch16"
tiny = partial(MaeViT, img_size=32, patch_size=4, num_classes=10, embed_dim=32, depth=4, num_heads=2)

# Names of tensors in the authors' files.
BLOCK = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
AUTHORS = {
    "cls_token", "pos_embed",
    *(f"{module}.{key}" for module in ("patch_embed.proj", "fc_norm", "head") for key in ("weight", "bias")),
    *(f"blocks.{i}.{module}.{key}" for i in range(12) for module in BLOCK for key in ("weight", "bias")),
}  # fmt: skip


def strong(model):
    """Weights that differ everywhere, so that nothing can be left out unnoticed."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in sorted(model.state_dict().items()):
            noise = torch.randn(value.shape, generator=generator)
            value.copy_(1 + 0.1 * noise if value.dim() == 1 and "weight" in name else 0.2 * noise)
    return model.eval()


def noise(side=32):
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def state():
    state = strong(load_model(NAME, "none")[0]).state_dict()
    assert state.keys() == AUTHORS
    return state


def test_the_authors_file_loads_strictly(tmp_path, state):
    torch.save({"model": state}, tmp_path / "mae_finetuned_vit_base.pth")
    model, info = load_model(NAME, str(tmp_path / "mae_finetuned_vit_base.pth"))
    assert info.source.endswith("[model]")
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert model.fc_norm.eps == model.blocks[3].norm1.eps == 1e-6


@pytest.mark.slow
def test_files_of_other_models_are_refused_in_one_line(tmp_path, state):
    torch.save({"model": {**state, "norm.weight": torch.ones(768)}}, tmp_path / "norm.pth")
    with pytest.raises(RequestError, match=r"0 keys missing, 1 keys unexpected \(norm\.weight\)"):
        load_model(NAME, str(tmp_path / "norm.pth"))
    pretrained = {key: value for key, value in state.items() if not key.startswith(("head", "fc_norm"))}
    decoder = {"norm.weight": torch.ones(768), "mask_token": torch.zeros(1, 1, 512), "decoder_norm.bias": torch.ones(1)}
    torch.save({"model": pretrained | decoder}, tmp_path / "pretrained.pth")
    with pytest.raises(RequestError, match=r"4 keys missing \(fc_norm\.weight.*decoder_norm") as caught:
        load_model(NAME, str(tmp_path / "pretrained.pth"))
    assert "\n" not in str(caught.value)
    with pytest.raises(RequestError, match=r"github\.com/facebookresearch/mae"):
        load_model(NAME)


@torch.no_grad()
def test_the_head_reads_the_norm_of_the_mean_of_the_patches():
    model = strong(tiny())
    x = model.blocks(model._pos_embed(model.patch_embed(noise())))
    mean = sum(x[:, i] for i in range(1, 65)) / 64
    deviation = (mean - mean.mean(-1, keepdim=True)).square().mean(-1, keepdim=True)
    normed = (mean - mean.mean(-1, keepdim=True)) / (deviation + 1e-6).sqrt()
    normed = normed * model.fc_norm.weight + model.fc_norm.bias
    torch.testing.assert_close(model(noise()), normed @ model.head.weight.T + model.head.bias, **TINY32)
    assert isinstance(model.norm, torch.nn.Identity)


@pytest.mark.parametrize("name", ["tome", "evit"])
@torch.no_grad()
def test_no_reduction_is_the_model_bit_for_bit(name):
    model = strong(tiny())
    whole = model(noise())
    with attach(model, name, "r=0"):
        assert torch.equal(model(noise()), whole)
    assert type(model) is MaeViT


@torch.no_grad()
def test_merged_patches_are_pooled_by_what_they_stand_for():
    model = strong(tiny())
    with attach(model, "tome", "r=4", proportional_attention=False) as handle:
        logits = model(noise())
        whole = handle.tokens.expand()
        assert handle.token_counts == handle.planned_counts == [61, 57, 53, 49]
    expected = model.head(model.fc_norm(whole[:, 1:].mean(1)))
    torch.testing.assert_close(logits, expected, **TINY32)


@torch.no_grad()
def test_pruning_runs_as_planned_and_its_cost_is_undisputed():
    model = strong(tiny())
    with attach(model, "evit", "keep=0.7") as handle:
        assert model(noise()).isfinite().all()
        assert handle.token_counts == handle.planned_counts
        assert not count_flops(model).disputed


def test_the_model_says_that_it_is_best_without_proportional_attention():
    assert load_model(NAME, "none")[0].proportional_attention_off_the_shelf is False
    assert not hasattr(VisionTransformer, "proportional_attention_off_the_shelf")


@pytest.mark.parametrize(
    ("name", "shape", "gmacs"),
    [
        (NAME, (12, 768, 12, 197), 17.58),
        ("mae_vit_large_patch16", (24, 1024, 16, 197), 61.6),
        ("mae_vit_huge_patch14", (32, 1280, 16, 257), 167.4),
    ],
)
def test_the_models_have_the_published_shapes(name, shape, gmacs):
    with torch.device("meta"):
        model = build_classifier(find_entry(name))
    layout = family_of(model).layout(model)
    assert (layout.depth, layout.width, layout.heads, layout.tokens) == shape
    total = base_macs(layout, [BlockTrace.plain(layout.tokens)] * layout.depth).total
    assert total == pytest.approx(gmacs * 1e9, rel=0.002)
    config = resolve_model_data_config(model)
    assert (config["crop_pct"], config["mean"]) == (0.875, (0.485, 0.456, 0.406))


def test_they_are_listed():
    assert [name for name, _ in list_models("mae*")] == [NAME, "mae_vit_large_patch16", "mae_vit_huge_patch14"]
