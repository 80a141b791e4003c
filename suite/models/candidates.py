"""Which of a file's tensors are a model's weights: under containers and prefixes of any names, in any nesting.

A model is recognised by its own parameters' names, wherever they begin: 'state_dict.module.blocks.0.norm1.weight' has
the prefix 'state_dict.module.'. Of several models in a file, those are candidates that have most of the names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from suite.errors import RequestError
from suite.models.contents import Contents
from suite.models.foreign_names import State, translate
from suite.models.several import AVERAGED, AVERAGES, FIRST, rank

# The last layer's other names; it may stand beside the backbone, outside its prefix.
HEAD = re.compile(r"(?:fc|classifier|linear|cls_head|heads?\.(?:head|fc|linear))\.(weight|bias)")
TOP = "."
# What wraps a module, or a part of one: torch.compile, activation checkpointing, fully sharded training.
WRAPPED = re.compile(r"(?<![^.])(_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module)\.")


@dataclass(frozen=True)
class Candidate:
    """state: tensors by names without the prefix. place: what leads to it, without a dot at the end; container: its
    part that leads to a mapping; prefix: its part that all keys there begin with. outside: keys of the same mapping
    that belong to no model. library: whose names it had; wrapped: what was taken out of them."""

    state: State
    place: str
    container: str
    prefix: str
    outside: tuple[str, ...]
    library: str = ""
    wrapped: str = ""

    @property
    def name(self) -> str:
        """How the user chooses it."""
        return self.place or TOP


def find_candidates(contents: Contents, own: Mapping[str, Tensor]) -> list[Candidate]:
    """Those of a file for a model with the parameters `own`, in the file's order; at least one."""
    plain, wrapped = _unwrapped(contents.tensors)
    tensors, library = translate(plain)
    counts = Counter(name[:start] for name in tensors for start in _starts(name) if name[start:] in own)
    found = [place for place, count in counts.items() if 2 * count >= len(own)]
    if not found:
        return [largest_mapping(contents)]
    return [replace(_candidate(contents, tensors, place, found), library=library, wrapped=wrapped) for place in found]


def largest_mapping(contents: Contents) -> Candidate:
    """As it is: it shows best that a file is of no such model, and may have names that only timm's conversions know."""
    innermost = sorted(contents.containers, key=len, reverse=True)
    held = Counter(next(one for one in innermost if name.startswith(one)) for name in contents.tensors)
    place = held.most_common(1)[0][0]
    return _candidate(contents, contents.tensors, place, [place])


def _unwrapped(tensors: State) -> tuple[State, str]:
    """Tensors by names without what wraps parts of a model, and the first such; as they are where two would be one."""
    names = {name: WRAPPED.sub("", name) for name in tensors}
    found = next((match[1] for name in tensors if (match := WRAPPED.search(name))), "")
    if not found or len(set(names.values())) < len(names):
        return tensors, ""
    return {names[name]: value for name, value in tensors.items()}, found


def _starts(name: str) -> Iterator[int]:
    yield 0
    yield from (match.end() for match in re.finditer(r"\.", name))


def _candidate(contents: Contents, tensors: State, place: str, all_places: list[str]) -> Candidate:
    containers = [WRAPPED.sub("", one) for one in contents.containers]
    container = max((one for one in containers if place.startswith(one)), key=len, default="")
    others = [other for other in all_places if other.startswith(place) and other != place]
    state = {
        _with_our_head(name.removeprefix(place)): value
        for name, value in tensors.items()
        if name.startswith(place) and not name.startswith(tuple(others))
    }
    outside = []
    for name in tensors:
        if name.startswith(container) and not name.startswith(tuple(all_places)):
            key = next((key for key in _heads_beside(name, place, container) if key not in state), "")
            if key:
                state[key] = tensors[name]
            else:
                outside.append(name.removeprefix(container))
    return Candidate(state, place[:-1], container[:-1], place.removeprefix(container), tuple(outside))


def _with_our_head(key: str) -> str:
    return HEAD.sub(r"head.\1", key) if HEAD.fullmatch(key) else key


def _heads_beside(name: str, place: str, container: str) -> Iterator[str]:
    """What a name outside a prefix is called, if it is of the layer that follows the model with that prefix."""
    for start in _starts(place):
        if start >= len(container) and name.startswith(place[:start]):
            key = _with_our_head(name[start:])
            if re.fullmatch(r"head(?:_dist)?\.(?:weight|bias)", key):
                yield key


def choose(candidates: list[Candidate], choice: str, contents: Contents) -> list[Candidate]:
    """Those that a user's word names: a part of the way to them. RequestError where there is none."""
    if not choice:
        return candidates
    exact = [one for one in candidates if choice == one.name]
    named = exact or [one for one in candidates if f".{choice}." in f".{one.place}."]
    if not named:
        known = ", ".join(one.name for one in candidates)
        raise RequestError(f"checkpoint '{contents.path}' has no such model under '{choice}'; it has: {known}")
    return named


def prefer(candidates: list[Candidate], wrapper: str) -> tuple[Candidate, str]:
    """The one that stands for a model of whose weights a file has several, and why: `wrapper`, then averages of weights
    over training, then the first."""
    ranks = [-1 if wrapper and one.container == wrapper else rank(one.place) for one in candidates]
    best = min(ranks)
    reason = {-1: "as its authors do", len(AVERAGED): FIRST}.get(best, AVERAGES)
    return candidates[ranks.index(best)], reason
