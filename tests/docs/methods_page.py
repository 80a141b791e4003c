"""docs/methods.md: every method by what its docstring says, and by what the tests know of its cost.

    python -m tests.docs.methods_page      (writes it again; test_methods_page holds it to what the sources say)

A docstring begins with what the method does, has a sentence after "Source:", and a paragraph after "When:". What
follows are details and options, which `list reducers` and the file itself tell.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from pathlib import Path

from suite.contract.baseline import BASELINE
from suite.reducers import list_all_reducers, make_reducer
from suite.reducers.base import Reducer, acts_in_blocks
from tests.contract.kernel_bounds import BOUNDS

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"
HEAD = """# Methods

What each does, where it was published, which rates it takes, what it costs and when to use it. This page is made from
the docstrings of `suite/reducers/` by `python -m tests.docs.methods_page`; `python run_bench.py list reducers` prints
the options, and [sources and differences](method_sources.md) says what authors' code there is and where a method here
differs from it.

*Rates*: every method takes `flops=-35%` besides, which is solved from its true cost;
[what the forms mean](your_model.md#what-each-flag-takes). *Cost*: kernel launches of a block in which it acts, beyond
the 10 of an unreduced one, and bytes moved over what its arithmetic lets expect, of DeiT-S in bf16 at batch 256 (upper
bounds, which a test keeps). Few images in a batch feel the launches, many feel the bytes.

"""
SITES = {
    "before_embedding": "on the image",
    "before_block": "before a block",
    "inside_attention": "inside attention",
    "after_attention": "between attention and MLP",
    "after_block": "after a block",
}


@dataclass(frozen=True)
class Entry:
    """What there is to say of a method."""

    name: str
    idea: str
    source: str
    when: str
    rates: str
    needs: str
    cost: str

    def __str__(self) -> str:
        lines = [
            ("Source", self.source), ("Rates", self.rates), ("Needs", self.needs), ("Cost", self.cost),
            ("Use it when", self.when),
        ]  # fmt: skip
        told = "\n".join(f"- *{label}*: {text}" for label, text in lines if text)
        return f"### `{self.name}`\n\n{self.idea}\n\n{told}\n"


def entry_of(name: str) -> Entry:
    reducer = make_reducer(name)
    paragraphs = [" ".join(part.split()) for part in (inspect.getdoc(type(reducer)) or "").split("\n\n")]
    idea, _, source = paragraphs[0].partition(" Source: ")
    told = source or next((part.removeprefix("Source: ") for part in paragraphs if part.startswith("Source: ")), "")
    when = next((part.removeprefix("When: ") for part in paragraphs if part.startswith("When: ")), "")
    return Entry(
        name, idea, first_sentence(told), when, ", ".join(f"`{rate}`" for rate in reducer.rates), needs_of(reducer),
        cost_of(reducer),
    )  # fmt: skip


def first_sentence(text: str) -> str:
    """Up to the first full stop behind which a sentence begins; names such as 'et al.' go on with a comma."""
    return re.split(r"\.\s+(?=[A-Z])", text.replace("**", ""), maxsplit=1)[0].rstrip(".")


def needs_of(reducer: Reducer) -> str:
    needs = {
        f"training: {reducer.learned}": reducer.learned,
        "a class token": reducer.needs_class_token,
        "a block before the first in which it acts": reducer.first_block,
        "a denoiser": not acts_in_blocks(type(reducer)),
    }
    return ", ".join(need for need, given in needs.items() if given)


def cost_of(reducer: Reducer) -> str:
    told = [f"acts {SITES[reducer.site]}"] if reducer.site else []
    for (name, rate), bound in BOUNDS.items():
        if name == reducer.name:
            told.append(f"`{rate}`: {bound.launches:.0f} launches, {bound.moved:.2f} × the bytes")
    remarks = {
        "computes the attention map, so that attention is not fused": reducer.reads_map,
        "how many tokens stay depends on the image: batches are padded, and their length is read from the GPU": (
            reducer.input_dependent
        ),
        "gives all tokens back after every block": reducer.restores_per_block,
    }
    return "; ".join([*told, *(remark for remark, holds in remarks.items() if holds)])


def methods() -> list[str]:
    """Ours alone: a process may have registered others."""
    names = [name for name in list_all_reducers() if name != BASELINE]
    return [name for name in names if type(make_reducer(name)).__module__.startswith("suite.reducers.")]


def make_page() -> str:
    entries = [entry_of(name) for name in methods()]
    rows = [f"| [`{one.name}`](#{one.name}) | {one.idea} | {one.needs or '–'} |" for one in entries]
    table = "\n".join(["| Method | What it does | Needs |", "|:---|:---|:---|", *rows])
    return HEAD + table + "\n\n" + "\n".join(map(str, entries))


if __name__ == "__main__":
    PAGE.write_text(make_page(), encoding="utf-8")
