"""SPICE on a Java of today, with what `fetch spice` brings: pycocoevalcap's own numbers, or one score less."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.caption_scoring import process
from tasks.caption_scoring.process import link_jars
from tasks.caption_scoring.scorer import AGAIN, CaptionScorer, package, try_scorers
from tasks.caption_scoring.spice_jars import java_options

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("spice")]

DIRECT = """
import json, sys
from pycocoevalcap.spice.spice import Spice
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
captions, references = ({image: [{"caption": text} for text in texts] for image, texts in block.items()}
                        for block in json.load(open(sys.argv[1])))
tokenize = PTBTokenizer().tokenize
overall, each = Spice().compute_score(tokenize(references), tokenize(captions))
json.dump([overall, [scores["All"]["f"] for scores in each]], open(sys.argv[2], "w"))
"""
THINGS = ("man", "woman", "dog", "cat", "horse", "bus", "train", "boat", "pizza", "cake", "umbrella", "kite", "vase")
LOOKS = ("young", "old", "small", "large", "red", "blue", "green", "wooden", "happy", "wet", "colorful", "tall")
DOES = ("riding", "holding", "sitting on", "next to", "looking at", "carrying", "lying under")
WHERE = ("on a beach", "in a grassy field", "on a city street", "in the snow", "at night", "beside a fence")
ODD = {
    "empty": "",
    "dots": "...",
    "signs": 'a "stop" sign | & 2 1/2 café 😀',
    "caps": "A MAN ON A HORSE",
    "no graph": "of",
}


def make_caption(draw: random.Random, what: str) -> str:
    look, does, other, where = (draw.choice(words) for words in (LOOKS, DOES, THINGS, WHERE))
    forms = ("A {look} {what} {does} a {other} {where}.", "Two {what}s {does} the {look} {other}",
             "There is a {what} and a {other} {where}", "a {what}, {look} and {does} a {other}")  # fmt: skip
    return draw.choice(forms).format(what=what, look=look, does=does, other=other, where=where)


@pytest.fixture(scope="module")
def sentences() -> tuple[dict[str, str], dict[str, list[str]]]:
    """(captions, references) of 120 images, whose ids are not in the order of their texts."""
    draw = random.Random(3)
    subjects = {str(997 * i % 1009): draw.choice(THINGS) for i in range(115)}
    captions = {image: make_caption(draw, what) for image, what in subjects.items()} | ODD
    references = {image: [make_caption(draw, what) for _ in range(2)] for image, what in subjects.items()}
    return captions, references | {image: ["a man rides a horse", "a stop sign"] for image in ODD}


def score_directly(captions: dict[str, str], references: dict[str, list[str]], folder: Path) -> tuple[float, list]:
    """What pycocoevalcap says in a process of its own, from a copy of its package that has what it needs."""
    shutil.copytree(package(), folder / "pycocoevalcap", ignore=shutil.ignore_patterns("__pycache__"))
    link_jars(package(), folder)
    (folder / "in.json").write_text(json.dumps([{image: [text] for image, text in captions.items()}, references]))
    subprocess.run(
        [sys.executable, "-c", DIRECT, "in.json", "out.json"], cwd=folder, check=True, capture_output=True,
        env={**os.environ, "PYTHONPATH": str(folder), "JDK_JAVA_OPTIONS": java_options(folder / process.MODULES)},
    )  # fmt: skip
    overall, each = json.loads((folder / "out.json").read_text())
    return overall, each


def test_spice_is_pycocoevalcaps_to_the_last_digit_and_a_second_cell_parses_no_reference_again(sentences, tmp_path):
    captions, references = sentences
    overall, each = score_directly(captions, references, tmp_path)
    with CaptionScorer(references, metrics=("rouge_l", "spice"), timeout_s=600) as scorer:
        found = dict(scorer.score({"all": captions, "again": captions}))
    expected = dict(zip(sorted(captions), each, strict=True))
    for scores in found.values():
        assert scores.missing == {}
        assert scores.overall["spice"] == overall
        assert scores.per_image.spice.tolist() == [expected[image] for image in references]
    assert 0.05 < overall < 0.95


def test_two_scorers_at_once_do_not_get_in_each_others_way():
    sentences = {"1": "a woman rides a horse", "2": "two dogs in the snow"}
    with (
        CaptionScorer({image: [text] for image, text in sentences.items()}, metrics=("spice",)) as one,
        CaptionScorer({image: [text] for image, text in sentences.items()}, metrics=("spice",)) as other,
    ):
        one.start()
        other.start()
        for scorer in (one, other):
            ((_, found),) = scorer.score({"cell": sentences})
            assert found.overall == {"spice": 1.0}


@pytest.mark.parametrize(("fault", "reason"), [
    ("kill -9 $$", "SPICE: Java was killed by SIGKILL"), ("exec sleep 600", "SPICE took more than 3 s"),
])  # fmt: skip
def test_a_spice_that_takes_too_long_or_is_killed_costs_no_other_score(fault, reason, monkeypatch, tmp_path):
    references = {"1": ["a woman rides a horse"], "2": ["two dogs in the snow"]}
    captions = {"1": "a woman rides a horse", "2": "two dogs"}
    shim = tmp_path / "java"
    shim.write_text(
        f'#!/bin/sh\ncase "$*" in *spice*) echo >> {tmp_path}/starts; '
        f'[ $(wc -l < {tmp_path}/starts) -gt 1 ] && {fault};; esac\nexec {shutil.which("java")} "$@"\n'
    )
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(CaptionScorer, "_spice_timeout_s", lambda *_: 3)  # its known sentences have the time of a start
    with CaptionScorer(references, metrics=("rouge_l", "cider", "spice")) as scorer:
        found = dict(scorer.score({"first": captions, "second": captions}))
    for scores in found.values():
        assert set(scores.overall) == {"rouge_l", "cider"}
        assert scores.missing == {"spice": f"{reason}; {AGAIN}"}


def test_doctor_scores_sentences_with_it():
    assert try_scorers(("spice",)) == ("ok", "spice 1 of captions that are their references")
