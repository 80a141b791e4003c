"""Models by name: of what each is built, where its weights come from, how it is loaded.

Nothing heavy is imported: what builds and what loads is named as 'module:function', imported when a model is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from suite.contract.plugins import add_once, load_plugins, members, refuse_broken
from suite.errors import RequestError

WEIGHTS = Path(__file__).parents[1] / "weights"
TIMM = "timm:create_model"  # builds every model that has no entry here
MMSEG_PREFIX = "mmseg:"  # what follows is the path of one of mmsegmentation's configs


@dataclass(frozen=True)
class ModelKind:
    """How models of one kind are loaded.

    loader: 'module:function'. It takes an entry, a checkpoint and the seed of random weights, and gives the model and
    its `WeightsInfo`; RequestError, one line, for whatever cannot be had or does not fit. adaptable: it also takes the
    image size and the number of classes, each of which may be None; models of other kinds have those that they have.
    takes: what a checkpoint is, FILE or FOLDER. files: those of a folder of weights that comes with the suite; none
    where the weights are one file. others: pattern of further names that stand for models of this kind.
    """

    loader: str
    takes: str = "FILE"
    adaptable: bool = False
    files: tuple[str, ...] = ()
    others: str = r"(?!)"


CLASSIFIER = ModelKind("suite.models.classifier_files:load_classifier", adaptable=True)
CAPTIONER = ModelKind(
    "suite.models.captioner_files:load_captioner",
    takes="FOLDER",
    files=("config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json"),
    others=r"[\w.-]+/[\w.-]+",  # a model id of the hub
)
SEGMENTER = ModelKind("suite.models.segmenter_files:load_segmenter")
GENERATOR = ModelKind("suite.models.scenes_dit:load_scenes_generator")
PIPELINE = ModelKind("suite.models.pipeline_generator:load_pipeline_generator", takes="FOLDER", adaptable=True)
PIPELINE_INDEX = "model_index.json"  # by which a folder is a pipeline of diffusers
MMSEG = ModelKind("suite.models.mmseg_models:load_mmseg", others=rf"{MMSEG_PREFIX}.*")


@dataclass(frozen=True)
class ModelEntry:
    """One model.

    build: 'module:function' that makes it with random weights; '' where its shape is not known without its files.
    shape: its geometry as published, arguments of `build` by their names. licence: of the weights, by its SPDX name.

    Where weights come from: weights, the file or folder that comes with the suite; hub, the id under which the hub has
    them; home, where its authors give them away, for messages. prefixes: beginnings of their parameters' names that
    differ -> ours. wrapper: where their file has several state dicts, the one that their evaluation uses. crop_pct: of
    that evaluation, on images in ImageNet's mean and deviation; None: what `build` makes says how images are prepared.
    """

    name: str
    kind: ModelKind
    build: str = ""
    shape: Mapping[str, Any] = field(default_factory=dict)
    weights: Path | None = None
    hub: str = ""
    home: str = ""
    licence: str = ""
    prefixes: Mapping[str, str] = field(default_factory=dict)
    wrapper: str = ""
    crop_pct: float | None = None

    def make(self, **options: Any) -> Any:
        """The model with whatever weights it is born with; `options` override its shape.

        RequestError where nothing can build it.
        """
        if not self.build:
            raise RequestError(
                f"the shape of model '{self.name}' is not known without its files; give them as the checkpoint"
            )
        try:
            build = resolve_name(self.build)
        except (ImportError, AttributeError) as error:
            raise RequestError(f"model '{self.name}' cannot be built: {error}") from error
        return build(**{**self.shape, **options})

    def locate(self, checkpoint: str) -> Path:
        """The file or folder that a checkpoint names: by its path, or 'embedded'."""
        return self.weights if checkpoint == "embedded" and self.weights is not None else Path(checkpoint)

    def renamed(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """A state dict by our names, from one by the authors' or by ours."""
        return {self._name(key): value for key, value in state.items()}

    def _name(self, key: str) -> str:
        old = next((prefix for prefix in self.prefixes if key.startswith(prefix)), "")
        return self.prefixes[old] + key.removeprefix(old) if old else key

    @property
    def origin(self) -> str:
        """What need not be given: 'embedded' or 'pretrained' weights; else how to give them, '' if as for any model."""
        if self.weights is not None:
            return "embedded"
        if self.hub:
            return "pretrained"
        return "" if self.home else f"with --checkpoint {self.kind.takes}"

    @property
    def files(self) -> list[Path]:
        """The files of the weights that come with the suite."""
        if self.weights is None:
            return []
        return [self.weights / file for file in self.kind.files] if self.kind.files else [self.weights]


def _lv_vit(name: str, **shape: Any) -> ModelEntry:
    home = "github.com/zihangJiang/TokenLabeling"
    build = "suite.backbones.lv_vit:LVViT"
    return ModelEntry(name, CLASSIFIER, build, shape, home=home, licence="Apache-2.0", crop_pct=0.9)


def _t2t_vit(name: str, **shape: Any) -> ModelEntry:
    return ModelEntry(
        name,
        CLASSIFIER,
        "suite.backbones.t2t_vit:T2TViT",
        shape,
        home="github.com/yitu-opensource/T2T-ViT",
        licence="BSD-3-Clause-Clear",
        prefixes={"tokens_to_token.": "patch_embed."},
        wrapper="state_dict_ema",
        crop_pct=0.9,
    )


def _mae(name: str, **shape: Any) -> ModelEntry:
    home = "github.com/facebookresearch/mae (fine-tuned)"
    build = "suite.backbones.mae:MaeViT"
    return ModelEntry(name, CLASSIFIER, build, shape, home=home, licence="CC-BY-NC-4.0", crop_pct=0.875)


def _git(name: str, hub: str, patch: int, width: int, depth: int, heads: int) -> ModelEntry:
    """The shape is that of its image encoder; the text decoder is GIT's usual one."""
    vision = {
        "image_size": 224,
        "patch_size": patch,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
    }
    return ModelEntry(name, CAPTIONER, "suite.models.captioner_files:build_captioner", vision, hub=hub, licence="MIT")


def _segmenter(name: str, width: int, depth: int, heads: int, image_size: int = 512) -> ModelEntry:
    """An encoder of timm's vit_*_patch16_384, and a decoder of its width. image_size: side of a window in pixels."""
    shape = {
        "width": width,
        "depth": depth,
        "heads": heads,
        "image_size": image_size,
        "patch_size": 16,
        "num_classes": 150,
        "decoder_depth": 2,
    }
    home, build = "github.com/rstrudel/segmenter", "suite.backbones.segmenter:build_segmenter"
    return ModelEntry(name, SEGMENTER, build, shape, home=home, licence="MIT")


_ENTRIES = (
    ModelEntry(
        "scenes_vit",
        CLASSIFIER,
        "suite.models.scenes_vit:build_scenes_vit",
        weights=WEIGHTS / "scenes_vit.safetensors",
        licence="Apache-2.0",
    ),
    ModelEntry(
        "scenes_eva",
        CLASSIFIER,
        "suite.models.scenes_eva:build_scenes_eva",
        weights=WEIGHTS / "scenes_eva.safetensors",
        licence="Apache-2.0",
    ),
    _lv_vit("lvvit_s", embed_dim=384, depth=16, num_heads=6),
    _t2t_vit("t2t_vit_14", embed_dim=384, depth=14, num_heads=6),
    _t2t_vit("t2t_vit_t_14", embed_dim=384, depth=14, num_heads=6, stem="transformer"),
    _mae("mae_vit_base_patch16", patch_size=16, embed_dim=768, depth=12, num_heads=12),
    _mae("mae_vit_large_patch16", patch_size=16, embed_dim=1024, depth=24, num_heads=16),
    _mae("mae_vit_huge_patch14", patch_size=14, embed_dim=1280, depth=32, num_heads=16),
    _git("git_base_coco", "microsoft/git-base-coco", patch=16, width=768, depth=12, heads=12),
    _git("git_large_coco", "microsoft/git-large-coco", patch=14, width=1024, depth=24, heads=16),
    ModelEntry(
        "scenes_git",
        CAPTIONER,
        "suite.models.captioner_files:build_like",
        {"folder": WEIGHTS / "scenes_git"},
        weights=WEIGHTS / "scenes_git",
        licence="Apache-2.0",
    ),
    ModelEntry("git", CAPTIONER),  # whatever a folder that is given as the checkpoint holds
    _segmenter("seg_tiny_mask_16", width=192, depth=12, heads=3),
    _segmenter("seg_small_mask_16", width=384, depth=12, heads=6),
    _segmenter("seg_base_mask_16", width=768, depth=12, heads=12),
    _segmenter("seg_large_mask_16", width=1024, depth=24, heads=16, image_size=640),
    ModelEntry(
        "scenes_segmenter",
        SEGMENTER,
        "suite.models.scenes_segmenter:build_scenes_segmenter",
        weights=WEIGHTS / "scenes_segmenter.safetensors",
        licence="Apache-2.0",
    ),
    ModelEntry(
        "scenes_dit",
        GENERATOR,
        "suite.models.scenes_dit:build_scenes_generator",
        weights=WEIGHTS / "scenes_dit.safetensors",
        licence="Apache-2.0",
    ),
    ModelEntry(f"{MMSEG_PREFIX}CONFIG.py", MMSEG),
    ModelEntry(
        "stable-diffusion-v1-5",
        PIPELINE,
        "suite.backbones.bare_call:build_u_net",
        {"sample_size": 64, "cross_attention_dim": 768},
        licence="LicenseRef-CreativeML-OpenRAIL-M",
    ),
)
MODELS: dict[str, ModelEntry] = {entry.name: entry for entry in _ENTRIES}


@cache
def _load_plugins() -> None:
    load_plugins("model", MODELS, _add_plugin)


def _add_plugin(point: EntryPoint) -> None:
    """Take a ModelEntry, or all of a module. TypeError or ValueError for what is none or has a name that is taken."""
    for entry in members(point.load(), "ModelEntry", lambda value: isinstance(value, ModelEntry)):
        if not isinstance(entry.kind, ModelKind):
            raise TypeError(f"model {entry.name!r} is of kind {entry.kind!r}, which is no ModelKind")
        add_once(MODELS, "model", entry.name, entry)


def list_entries() -> list[ModelEntry]:
    """Of all models that have one, those of installed packages last."""
    _load_plugins()
    return list(MODELS.values())


def find_entry(name: str) -> ModelEntry:
    """What is known of a model, by its own name or the hub's, or the folder of a pipeline. Without an entry it is one
    of the hub, or of timm.

    Whether timm knows the name is not looked at. RequestError for a plug-in that is broken.
    """
    by_hub = {entry.hub: entry for entry in list_entries() if entry.hub}
    entry = MODELS.get(name) or by_hub.get(name)
    if entry is not None:
        return replace(entry, name=name)
    refuse_broken("model", name)
    if (Path(name) / PIPELINE_INDEX).is_file():
        return ModelEntry(name, PIPELINE)
    for kind in (CAPTIONER, MMSEG):
        if re.fullmatch(kind.others, name):
            return ModelEntry(name, kind, hub=name if kind is CAPTIONER else "")
    return ModelEntry(name, CLASSIFIER, TIMM, {"model_name": name})


def default_checkpoint(name: str) -> str:
    """The checkpoint that is meant when the user names none."""
    return "embedded" if find_entry(name).weights is not None else "pretrained"


def list_models(pattern: str = "*") -> list[tuple[str, str]]:
    """Names that match a wildcard, ours and timm's, each with its `origin`."""
    from suite.models.timm_models import list_timm_models

    ours = [(entry.name, entry.origin) for entry in list_entries() if fnmatchcase(entry.name, pattern)]
    timms = [model for model in list_timm_models(pattern) if not model.refused]
    return ours + [(model.name, "pretrained" if model.trained else "") for model in timms]


def list_refused(pattern: str = "*") -> list[tuple[str, str]]:
    """Names of timm's Vision Transformers that match a wildcard and cannot be reduced, each with the reason."""
    from suite.models.timm_models import list_timm_models

    return [(model.name, model.refused) for model in list_timm_models(pattern) if model.refused]
