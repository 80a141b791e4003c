"""Tiny real Vision Transformers of every kind that timm builds and GIT's, and reducers with the rates they are proved
at."""

from __future__ import annotations

import atexit
import inspect
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from timm.layers import Attention, SwiGLUPacked
from timm.models.beit import Beit
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.naflexvit import NaFlexVit
from timm.models.vision_transformer import ParallelScalingBlock, ResPostBlock, VisionTransformer
from timm.models.vision_transformer_relpos import VisionTransformerRelPos
from torch import Tensor, nn
from transformers.models.git.modeling_git import GitVisionConfig, GitVisionTransformer

from suite.backbones import FAMILIES, family_of
from suite.backbones.git import GitViT, ReducedGit, use_fused_attention
from suite.backbones.lv_vit import LVViT
from suite.backbones.mae import MaeViT
from suite.backbones.t2t_vit import T2TViT
from suite.backbones.timm_sizes import stem_of
from suite.reducers import list_reducers, make_reducer, reducer_class
from suite.reducers.base import Reducer
from tests.tiers import mostly_slow

SHAPE = {"img_size": 32, "patch_size": 4, "embed_dim": 32, "depth": 4, "num_heads": 2, "num_classes": 10}
ATTENTION_OPTIONS = inspect.signature(Attention).parameters
HAS_SCALE_NORM = "scale_attn_norm" in inspect.signature(VisionTransformer).parameters


def unfused(**options: Any) -> nn.Module:
    model = VisionTransformer(**options)
    for block in model.blocks:
        block.attn.fused_attn = False
    return model


def with_attention(attention: dict[str, Any], **options: Any) -> nn.Module:
    model = VisionTransformer(**options)
    for block in model.blocks:
        block.attn = Attention(options["embed_dim"], num_heads=options["num_heads"], qkv_bias=True, **attention)
    return model


class Readout:
    """The class token in place of transformers' output, and timm's names for what the proofs look at."""

    num_prefix_tokens = 1
    blocks = property(lambda self: self.encoder.layers)

    @property
    def patch_embed(self) -> SimpleNamespace:
        side = self.embeddings.image_size
        return SimpleNamespace(img_size=(side, side), proj=self.embeddings.patch_embedding)

    def forward_features(self, x: Tensor) -> Tensor:
        return super().forward(x).last_hidden_state

    def forward_head(self, x: Tensor) -> Tensor:
        return x[:, 0]

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


class TinyGit(Readout, GitVisionTransformer):
    """GIT's image encoder."""


class ReducedTinyGit(Readout, ReducedGit):
    pass


class TinyGitFamily(GitViT):
    mixin = ReducedTinyGit

    def check(self, model: nn.Module) -> None:
        """Its forward is its own."""


FAMILIES[__name__] = f"{__name__}:TinyGitFamily"


def git(
    img_size: int, patch_size: int, embed_dim: int, depth: int, num_heads: int, fused: bool = True, num_classes: int = 0
) -> nn.Module:
    config = GitVisionConfig(
        image_size=img_size,
        patch_size=patch_size,
        hidden_size=embed_dim,
        intermediate_size=4 * embed_dim,
        num_hidden_layers=depth,
        num_attention_heads=num_heads,
        attn_implementation="eager",
    )
    model = TinyGit(config)
    if fused:
        use_fused_attention(model)
    return model


VIT = VisionTransformer
ROTARY = {"use_rot_pos_emb": True, "init_values": 0.5}
DINOV3 = {
    "rope_type": "dinov3",
    "rope_temperature": 100.0,
    "rope_rotate_half": True,
    "use_abs_pos_emb": False,
    "num_reg_tokens": 4,
    "qkv_bias": False,
}
NAFLEX = {"pos_embed_grid_size": None, "init_values": 0.5}
MODELS: dict[str, Callable[..., nn.Module]] = {
    "class token": VIT,
    "even number of tokens": partial(VIT, img_size=28, patch_size=4),
    "distilled": VisionTransformerDistilled,
    "LayerScale, positions without class token": partial(VIT, init_values=0.5, no_embed_class=True),
    "average pool": partial(VIT, global_pool="avg"),
    "average pool with prefix": partial(VIT, global_pool="avg", pool_include_prefix=True),
    "average pool, no class token": partial(VIT, global_pool="avg", class_token=False),
    "average pool, no class token, norm before": partial(VIT, global_pool="avg", class_token=False, fc_norm=False),
    "average and maximum pool": partial(VIT, global_pool="avgmax"),
    "maximum pool": partial(VIT, global_pool="max"),
    "attention pool": partial(VIT, global_pool="map", class_token=False),
    "registers": partial(VIT, reg_tokens=4, no_embed_class=True, init_values=0.5),
    "three registers, average pool": partial(VIT, reg_tokens=3, global_pool="avg"),
    "registers, no class token": partial(VIT, reg_tokens=4, global_pool="avg", class_token=False),
    "q/k norm": partial(VIT, qk_norm=True),
    "pre-norm, no final norm": partial(VIT, pre_norm=True, final_norm=False),
    "post-norm": partial(VIT, block_fn=ResPostBlock, init_values=0.5),
    "no qkv bias, no projection bias": partial(VIT, qkv_bias=False, proj_bias=False),
    "SwiGLU": partial(VIT, mlp_layer=SwiGLUPacked, mlp_ratio=2.0),
    "dynamic image size": partial(VIT, dynamic_img_size=True),
    "image that is not square": partial(VIT, img_size=(32, 24)),
    "explicit attention": unfused,
    "no position embedding, no head": partial(VIT, pos_embed="none", num_classes=0),
    "MAE": MaeViT,
    "LV-ViT": LVViT,
    "T2T-ViT": partial(T2TViT, img_size=128, patch_size=16),
    "EVA": partial(Eva, global_pool="avg"),
    "EVA-02": partial(Eva, **ROTARY, global_pool="avg", swiglu_mlp=True, scale_mlp=True, qkv_fused=False),
    "DINOv3": partial(Eva, **ROTARY, **DINOV3, global_pool="token"),
    "rotary by head and block, no class token": partial(
        Eva, **ROTARY, rope_type="mixed", attn_type="rope", class_token=False, qk_norm=True
    ),
    "bias of every pair of places": partial(
        VisionTransformerRelPos, rel_pos_type="bias", class_token=True, init_values=0.5
    ),
    "Beit": partial(Beit, use_shared_rel_pos_bias=True, init_values=0.5),
    "NaFlex": partial(NaFlexVit, **NAFLEX, class_token=True, reg_tokens=2, global_pool="token"),
    "NaFlex, attention pool, no class token": partial(NaFlexVit, **NAFLEX, reg_tokens=1, pos_embed="factorized"),
    "NaFlex, rotary, no class token": partial(NaFlexVit, **NAFLEX, rope_type="mixed", global_pool="avg"),
    "parallel blocks": partial(VIT, block_fn=ParallelScalingBlock, qk_norm=True),
    "GIT": git,
    "GIT, explicit attention": partial(git, fused=False),
}
if "attn_head_dim" in ATTENTION_OPTIONS:  # the newer the installed timm, the more there is to prove
    MODELS["wide heads"] = partial(with_attention, {"attn_head_dim": 24})
if "gated" in ATTENTION_OPTIONS:
    MODELS["gated attention"] = partial(with_attention, {"gated": True})
if HAS_SCALE_NORM:
    MODELS["norms inside attention and MLP"] = partial(VIT, scale_attn_norm=True, scale_mlp_norm=True)

ONE_SIZE = ["bias of every pair of places", "Beit"]
NO_CLASS_TOKEN = [name for name in MODELS if "no class token" in name or name == "attention pool"]


def make_model(kind: str = "class token", seed: int = 0, **options: Any) -> nn.Module:
    """A model of a kind, in eval mode, with weights strong enough that its tokens differ."""
    torch.manual_seed(seed)
    make = MODELS[kind]
    given = make.keywords if isinstance(make, partial) else {}
    model = make(**{**SHAPE, **given, **options}).eval()
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn_like(parameter)
            gain = parameter.dim() == 1 and not name.endswith("bias")
            spread = 0.02 if "kqv" in name else 0.2  # a performer's features vanish for long keys
            parameter.copy_(1 + 0.1 * noise if gain and "ls" not in name else spread * noise)
    return model


def inner_weights(model: nn.Module) -> list[Tensor]:
    """The patch embedding's kernel, and what every block makes queries, keys and values with."""
    embed: Any = stem_of(model)
    stem = embed.proj if embed.proj is not None else embed.project
    if isinstance(model, TinyGit):
        inner = [getattr(block.self_attn, f"{name}_proj") for block in model.blocks for name in "qkv"]
    else:
        inner = [layer for parts in family_of(model).blocks(model) for layer in parts.qkv_layers]
    return [stem.weight, *(linear.weight for linear in inner)]


def make_images(model: nn.Module, batch: int = 2, seed: int = 1) -> Tensor:
    """(B, 3, H, W) noise over a gradient, another one for every sample."""
    stem: Any = stem_of(model)
    height, width = stem.default_img_size if isinstance(model, NaFlexVit) else stem.img_size
    generator = torch.Generator().manual_seed(seed)
    slope = torch.linspace(-1, 1, width) * torch.randn(batch, 3, height, 1, generator=generator)
    return slope + 0.5 * torch.randn(batch, 3, height, width, generator=generator)


TOYS = """
import torch
from suite.reducers.base import Reducer
from suite.tokens.grouping import Matching


class DropLast(Reducer):
    def after_attention(self, tokens, signals, amount):
        places = torch.arange(tokens.num_prefix, tokens.count - amount, device=tokens.x.device)
        index = places.expand(len(tokens.x), -1)
        return tokens.keep(index)


class MergeLast(Reducer):
    proportional_attention = weighted_pooling = True

    def before_block(self, tokens, signals, amount):
        position = torch.arange(tokens.count, device=tokens.x.device).expand(len(tokens.x), -1)
        kept, source = position[:, :-amount], position[:, -amount:]
        return tokens.merge(Matching(kept, source, torch.full_like(source, kept.shape[1] - 1)))
"""


@cache
def toy_file() -> Path:
    """A file of two methods outside the project."""
    folder = Path(tempfile.mkdtemp(prefix="toy-reducers-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    file = folder / "toys.py"
    file.write_text(TOYS)
    return file


TOY = [f"{toy_file()}:DropLast", f"{toy_file()}:MergeLast"]
TOY_MODELS = ["class token", "distilled", "registers", "average pool, no class token", "attention pool"]
CHECKED = os.environ.get("REDUCERBENCH_CHECK")  # `list --check path.py:Name` proves one method
REDUCERS = [CHECKED] if CHECKED else [*list_reducers(), *TOY]


def reducer_id(name: str) -> str:
    return name.rsplit(":", 1)[-1]


def shrinks_images(name: str) -> bool:
    """Whether a method acts before there are tokens, and no block takes any out."""
    return reducer_class(name).before_embedding is not Reducer.before_embedding


def rates(name: str) -> list[str | None]:
    """Rates that a method is proved at, the first of them first: constant, changing, listed, beyond what is left."""
    begin, changing = reducer_class(name).first_block, "r=8:-1"
    if "r" in reducer_class(name).rates and 0 not in make_reducer(name).active_blocks("r", SHAPE["depth"]):
        changing = "r=8:1"  # of a method that acts in a late block
    every = {
        "r": ["r=6", changing, "r=[5, 0, 3]" if not begin else "r=[0, 5, 0, 3]", "r=4@1,3", "r=20", "r=0.2"],
        "keep": ["keep=0.7", "keep=0.3"] if shrinks_images(name) else ["keep=0.7", f"keep=0.5@{begin},2", "keep=0.9"],
        "side": ["side=16"],  # whole patches of every kind of model
        "lines": ["lines=2", "lines=[1,2]@0,2"],
        "tau": ["tau=0", "tau=0.1@0,2"],  # near enough in models of random weights
    }
    return [rate for form in reducer_class(name).rates for rate in every[form]] or [None]


def zero_rates(name: str) -> list[str | None]:
    every = {
        "r": ["r=0", "r=[0]", "r=0:-1", "r=0@2"],
        "keep": ["keep=1", "keep=1@0,3"],
        "side": [],
        "lines": ["lines=0"],
        "tau": ["tau=1", "tau=1@0,2"],
    }
    return [None, *(rate for form in reducer_class(name).rates for rate in every[form])]


def works_on(name: str, kind: str) -> bool:
    """Whether a method can reduce a kind of model: selection by class attention needs a class token.

    And one that shrinks images needs a model that takes others than those of its own size.
    """
    return not (lacks_class_token(name, kind) or (kind in ONE_SIZE and shrinks_images(name)))


def lacks_class_token(name: str, kind: str) -> bool:
    return kind in NO_CLASS_TOKEN and reducer_class(name).needs_class_token


EVERY_PAIR = [(name, kind) for name in REDUCERS for kind in (TOY_MODELS if name in TOY else MODELS)]
PAIRS = [pair for pair in EVERY_PAIR if works_on(*pair) and pair[0] != "none"]
IMPOSSIBLE = [(name, kind) for name, kind in EVERY_PAIR if lacks_class_token(name, kind)]


def on_pairs(pairs: Iterable[tuple[str, str]], quick: int, part: int = 0, what: str = "kind") -> Callable:
    """The test runs for all pairs of a method and a kind (of model, ...); all but one in `quick` of them are slow.

    Among the quick ones every method has every `quick`-th kind, beginning with another one than the method before it,
    and every kind every `quick`-th method; another `part` takes others of them. what: the name of the test's argument.
    """
    pairs = list(pairs)
    names, kinds = list(dict.fromkeys(n for n, _ in pairs)), list(dict.fromkeys(k for _, k in pairs))
    cases = [
        mostly_slow(quick, (names.index(name), kinds.index(kind), -part), (name, kind), f"{reducer_id(name)}-{kind}")
        for name, kind in pairs
    ]
    return pytest.mark.parametrize(("name", what), cases)


def on_every_pair(part: int) -> Callable[[Callable], Callable]:
    """The test runs for every method on every kind of model."""
    return on_pairs(PAIRS, 4, part)


def on_a_share(every: int, part: int) -> Callable[[Callable], Callable]:
    """The test runs on the pairs `part`, part + every, ...: every method and many kinds, each pair by some law.

    Thousands of tests of laws that kind and method rarely break together would take minutes; `list --check` proves a
    method on all of them.
    """
    return on_pairs(PAIRS if CHECKED else PAIRS[part::every], 2)


def on_a_third(part: int) -> Callable[[Callable], Callable]:
    return on_a_share(3, part)
