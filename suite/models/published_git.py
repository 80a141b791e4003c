"""GIT captioners known by name: the shapes of published ones with the home of their weights, and those of the suite."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ANY_GIT = "git"  # whatever a folder that is given as the checkpoint holds


@dataclass(frozen=True)
class PublishedGit:
    """hub: where its authors' weights are. vision: shape of its image encoder; the text decoder is GIT's usual one."""

    hub: str
    vision: Mapping[str, int]


def _vision(patch: int, width: int, depth: int, heads: int) -> dict[str, int]:
    return {
        "image_size": 224,
        "patch_size": patch,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
    }


PUBLISHED_GIT: dict[str, PublishedGit] = {
    "git_base_coco": PublishedGit("microsoft/git-base-coco", _vision(16, 768, 12, 12)),
    "git_large_coco": PublishedGit("microsoft/git-large-coco", _vision(14, 1024, 24, 16)),
}
# Name -> folder in transformers' format.
EMBEDDED_GIT: dict[str, Path] = {"scenes_git": Path(__file__).parents[1] / "weights" / "scenes_git"}


def published_git(name: str) -> PublishedGit | None:
    """By the name that it has here or on the hub."""
    by_hub = {git.hub: git for git in PUBLISHED_GIT.values()}
    return PUBLISHED_GIT.get(name) or by_hub.get(name)


def is_git(name: str) -> bool:
    """Whether a model's name stands for a GIT captioner: those above, any model id of the hub, or plain 'git'."""
    return name in {ANY_GIT, *PUBLISHED_GIT, *EMBEDDED_GIT} or bool(re.fullmatch(r"[\w.-]+/[\w.-]+", name))
