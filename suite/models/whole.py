"""Models of more than a backbone that are known by name, kind by kind: their names, their loader, what is shipped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from suite.backbones.timm_vit import list_models as list_timm_models
from suite.models.published import PUBLISHED
from suite.models.published_git import ANY_GIT, EMBEDDED_GIT, PUBLISHED_GIT, is_git
from suite.models.published_segmenter import EMBEDDED_SEGMENTER, PUBLISHED_SEGMENTER

GIT_FILES = ("config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json")
MMSEG = "mmseg:"  # what follows is the path of one of mmsegmentation's configs


@dataclass(frozen=True)
class Kind:
    """One kind of them.

    includes: whether a name stands for one. names: those to list, each with where its weights come from ('pretrained'
    and 'embedded' need no file; '' for nowhere but the user). embedded: the files of those that come with the suite.
    loader: 'module:function', imported when a model is asked for, which may take seconds. It takes a name, a checkpoint
    and the seed of random weights, and gives the model, and kind, source and SHA-256 of its weights.
    """

    includes: Callable[[str], bool]
    names: Callable[[], dict[str, str]]
    embedded: Callable[[], dict[str, list[Path]]]
    loader: str


KINDS = (
    Kind(
        includes=is_git,
        names=lambda: {
            **dict.fromkeys(PUBLISHED_GIT, "pretrained"),
            **dict.fromkeys(EMBEDDED_GIT, "embedded"),
            ANY_GIT: "with --checkpoint FOLDER",
        },
        embedded=lambda: {name: [folder / file for file in GIT_FILES] for name, folder in EMBEDDED_GIT.items()},
        loader="suite.models.captioner_files:load_captioner",
    ),
    Kind(
        includes=lambda name: name in PUBLISHED_SEGMENTER or name in EMBEDDED_SEGMENTER,
        names=lambda: {**dict.fromkeys(PUBLISHED_SEGMENTER, ""), **dict.fromkeys(EMBEDDED_SEGMENTER, "embedded")},
        embedded=lambda: {name: [weights] for name, (_, weights) in EMBEDDED_SEGMENTER.items()},
        loader="suite.models.segmenter_files:load_segmenter",
    ),
    Kind(
        includes=lambda name: name.startswith(MMSEG),
        names=lambda: {f"{MMSEG}CONFIG.py": "with --checkpoint FILE"},
        embedded=dict,
        loader="suite.models.mmseg_models:load_mmseg",
    ),
)


def kind_of(name: str) -> Kind | None:
    """The kind of whole model that a name stands for; None for a backbone's name."""
    return next((kind for kind in KINDS if kind.includes(name)), None)


def whole_models() -> dict[str, str]:
    """The names of all kinds, each with where its weights come from."""
    return {name: weights for kind in KINDS for name, weights in kind.names().items()}


def embedded_files() -> dict[str, list[Path]]:
    """The files of all whole models that come with the suite."""
    return {name: files for kind in KINDS for name, files in kind.embedded().items()}


def list_models(pattern: str = "*") -> list[tuple[str, bool]]:
    """Names that match a wildcard, of our own models and timm's, and whether weights of them can be downloaded."""
    own = {**dict.fromkeys(PUBLISHED, ""), **whole_models()}
    own = [(name, weights == "pretrained") for name, weights in own.items() if fnmatchcase(name, pattern)]
    return own + list_timm_models(pattern)
