"""Scores captions with pycocoevalcap's scorers, which run in a child process that is watched.

pycocoevalcap starts Java programs and trusts them: a tokenizer that dies gives fewer lines, a METEOR that dies an empty
reply, and either ends as a wrong number or hangs. Here every step has a time limit, what comes out is counted against
what went in, and sentences with known scores are scored first.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any

import pandas as pd

from suite.errors import CellError, RequestError
from tasks.caption_scoring.canary import SENTENCES, TOKENS, check_canary
from tasks.caption_scoring.process import WorkerProcess
from tasks.caption_scoring.spice_jars import FETCH_SPICE, is_complete
from tasks.caption_scoring.tokens import is_plain, on_one_line, plain_words

METRICS = ("cider", "bleu_4", "meteor", "rouge_l", "spice", "bleu_1", "bleu_2", "bleu_3")
LARGEST = {"cider": 10.0}  # of the others: 1
ROUNDING = 1e-6
METEOR = "meteor-1.5.jar"
NEEDS_JAVA = "apt install default-jre-headless"
SPICE, SPICE_S = "spice", 0.5  # seconds a sentence: ten times what a core needs
ZERO = 1e-12  # BLEU adds 1e-15 to its numerators
MOST_STARTS = 2
AGAIN = "run the same command again"


@dataclass(frozen=True)
class CaptionScores:
    """Scores of one cell's captions, as fractions the way pycocoevalcap gives them (CIDEr up to 10, the others to 1).

    overall: by metric, over all captions. per_image: one row per caption, in the order of the references: `id`, the
    metrics, BLEU's counts, and `meteor_stats`, METEOR's counts as it prints them. missing: why a metric could not be
    computed here. telling_ngrams: how many the references of some images have and those of others do not. notes: what a
    reader of the scores must know.
    """

    overall: dict[str, float]
    per_image: pd.DataFrame
    missing: dict[str, str]
    telling_ngrams: int = 0
    notes: tuple[str, ...] = ()


def availability(captions: Sequence[str] = ()) -> dict[str, str]:
    """By metric, why it cannot be computed on this machine, or "".

    Without Java there is no PTB tokenizer, and n-gram scores are available only if `captions` (references and model's)
    are such that it would change nothing.
    """
    if find_spec("pycocoevalcap") is None:
        return dict.fromkeys(METRICS, "needs pycocoevalcap: pip install 'reducerbench[caption]'")
    reasons = dict.fromkeys(METRICS, "")
    if not java_version():
        if not all(map(is_plain, captions)):
            reasons = dict.fromkeys(METRICS, f"needs Java (PTB tokenizer): {NEEDS_JAVA}")
        return reasons | dict.fromkeys(("meteor", "spice"), f"needs Java: {NEEDS_JAVA}")
    if not (package() / "meteor" / METEOR).is_file():
        reasons["meteor"] = f"{METEOR} is not in {package() / 'meteor'}: pip install --force-reinstall pycocoevalcap"
    if not is_complete(package()):
        reasons["spice"] = f"needs CoreNLP (388 MB): {FETCH_SPICE}"
    return reasons


def scoring_version() -> str:
    """What decides scores beside captions and references: the scorers' release, if any, and this package's own code."""
    own = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(Path(__file__).parent.glob("*.py"))))
    release = version("pycocoevalcap") if find_spec("pycocoevalcap") else "n/a"
    return f"pycocoevalcap {release}; {own.hexdigest()}"


def java_version() -> str:
    """What Java says of its version, e.g. 'openjdk version "17.0.15" 2025-04-15'; "" where none runs."""
    java = shutil.which("java")
    return said_by(java) if java else ""


@cache
def said_by(java: str) -> str:
    try:
        said = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    # Settings in the environment are echoed before it.
    lines = [line for line in said.stderr.splitlines() if "version" in line and not line.startswith("Picked up")]
    return lines[0] if lines and not said.returncode else ""


def package() -> Path:
    """Folder of pycocoevalcap, which is not imported for that."""
    spec = find_spec("pycocoevalcap")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("pycocoevalcap is not installed")
    return Path(spec.submodule_search_locations[0])


class CaptionScorer:
    """Scores captions of any number of cells against one set of references; a context manager.

    The child process is started when it is first needed and serves all cells. One that fails costs the cell that it
    was at; the next cell gets a fresh one.

    Args:
        references: captions by image id, at least one each.
        timeout_s: limit in seconds for each step: start, tokenizer, each metric of a cell.
        metrics: which ones to compute, names of METRICS.

    Raises:
        RequestError: an image without a reference, or a metric that is not known.
    """

    def __init__(
        self, references: Mapping[str, Sequence[str]], *, timeout_s: float = 900, metrics: Sequence[str] = METRICS
    ) -> None:
        if not references:
            raise RequestError("there are no reference captions; nothing can be scored")
        for image, captions in references.items():
            if not captions:
                raise RequestError(f"image '{image}' has no reference caption; give it at least one")
        if not set(metrics) <= set(METRICS):
            raise RequestError(f"unknown metric {min(set(metrics) - set(METRICS))!r}; known: {', '.join(METRICS)}")
        self.references = {image: [on_one_line(text) for text in texts] for image, texts in references.items()}
        self.timeout_s, self.metrics = timeout_s, tuple(metrics)
        self._refused: dict[str, str] = {}  # what the child process found not to run, and why
        self._telling_ngrams = 0  # of the references, counted by the child process
        self._process: WorkerProcess | None = None
        self._starting = False  # it has not said yet how its start went
        self._sent: dict[str, dict[str, str]] | None = None  # the cells whose captions it has

    def __enter__(self) -> CaptionScorer:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends the child process and everything that it started."""
        if self._process is not None:
            self._process.close()
            self._process = None

    def start(self) -> None:
        """Starts the child process, which takes in the references while other things go on. What comes of that is heard
        when a cell is scored; CellError if there is no process."""
        metrics = self._runnable()
        if metrics and self._process is None:
            self._start(metrics)

    def score(self, cells: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[str, CaptionScores | CellError]]:
        """Scores of each cell, in their order, from its captions by image id.

        CIDEr's document frequencies are always those of all references, whichever images a cell covers: the CIDEr of a
        part of the images is the mean of their values. CellError says what failed; run again, that cell may succeed.

        Raises:
            RequestError: a caption of an image that has no references.
        """
        waiting = {name: self._in_order(captions) for name, captions in cells.items()}
        failed: list[str] = []  # why starts failed, since the last that did not
        for name in list(waiting):
            try:
                outcome = self._score(name, waiting, failed) if waiting[name] else CellError("there are no captions")
            except CellError as error:
                self.close()
                outcome = CellError(f"{error}; {AGAIN}")
            del waiting[name]
            yield name, outcome

    def _in_order(self, captions: Mapping[str, str]) -> dict[str, str]:
        """Captions in the order of the references, so that sums do not depend on the order they were given in."""
        unknown = next((image for image in captions if image not in self.references), None)
        if unknown is not None:
            raise RequestError(f"image '{unknown}' has a caption but no references to compare it with; give some")
        return {image: on_one_line(captions[image]) for image in self.references if image in captions}

    def _missing(self, captions: Mapping[str, str]) -> dict[str, str]:
        texts = [*captions.values(), *chain.from_iterable(self.references.values())]
        reasons = availability(texts) | self._refused
        return {metric: reasons[metric] for metric in self.metrics if reasons[metric]}

    def _score(self, name: str, waiting: dict[str, dict[str, str]], failed: list[str]) -> CaptionScores:
        captions = waiting[name]
        unable = len(self._missing(captions)) == len(self.metrics)
        process = None if unable else self._make_ready(waiting, failed)
        missing = self._missing(captions)
        metrics = [metric for metric in self.metrics if metric not in missing]
        if process is None or not metrics:
            said = notes(captions, self.references)
            return CaptionScores({}, pd.DataFrame({"id": list(captions)}), missing, notes=said)
        quick = [metric for metric in metrics if metric != SPICE]
        answer = process.ask({"score": {"cell": name, "metrics": quick}}, self.timeout_s)
        overall, columns = answer["overall"], {"id": list(captions), **answer["columns"]}
        if SPICE in metrics:
            try:
                answer = process.ask({"score": {"cell": name, "metrics": [SPICE]}}, self._spice_timeout_s(captions))
                overall, columns = overall | answer["overall"], columns | answer["columns"]
            except CellError as error:  # what it costs is itself: of this cell, and of those that are scored after it
                self.close()
                self._refused[SPICE] = missing[SPICE] = f"{error}; {AGAIN}"
        overall = {metric: overall[metric] for metric in metrics if metric in overall}
        check(overall, columns, captions, self.references)
        said = notes(captions, self.references)
        return CaptionScores(overall, pd.DataFrame(columns), missing, self._telling_ngrams, said)

    def _spice_timeout_s(self, captions: Mapping[str, str]) -> float:
        """It parses every caption, and every reference the first time."""
        return self.timeout_s + SPICE_S * sum(1 + len(self.references[image]) for image in captions)

    def _make_ready(self, waiting: dict[str, dict[str, str]], failed: list[str]) -> WorkerProcess:
        """A process that knows the references and the captions of all waiting cells, the tokenizer started once."""
        if self._process is not None and self._sent is waiting:
            return self._process
        if len(failed) == MOST_STARTS:
            raise CellError(f"{failed[-1]} (at {MOST_STARTS} starts in a row)")
        try:
            process = self._process or self._start(self._runnable())
            if self._starting:
                self._check_start(process)
            process.ask({"tokenise": {"cells": waiting}}, self.timeout_s)
            self._sent = waiting
            failed.clear()
            return process
        except CellError as error:
            failed.append(str(error))
            raise

    def _runnable(self) -> list[str]:
        missing = self._missing({})
        return [metric for metric in self.metrics if metric not in missing]

    def _start(self, metrics: Sequence[str]) -> WorkerProcess:
        """Starts a process and asks it for the scores of sentences whose scores are known."""
        try:
            self._process = process = WorkerProcess(package())
        except OSError as error:
            raise CellError(f"the scoring process cannot start: {error}") from error
        self._starting = True
        java = bool(java_version())
        # Without the tokenizer the canary is what it would have made.
        canary = {image: [text] for image, text in (SENTENCES if java else TOKENS).items()}
        start = {"references": self.references, "canary": canary, "metrics": metrics, "java": java}
        process.send({"start": start})
        return process

    def _check_start(self, process: WorkerProcess) -> None:
        """Waits for those scores. CellError if they are others."""
        found = process.answer("start", self.timeout_s)
        check_canary({image: text for image, (text,) in found["tokens"].items()}, found["scores"])
        self._refused |= found["missing"]
        self._telling_ngrams, self._starting = found["telling_ngrams"], False


def try_scorers(metrics: Sequence[str]) -> tuple[str, str]:
    """('ok', what captions that are their own references score), or ('failed', why); see `canary`."""
    with CaptionScorer({image: [text] for image, text in SENTENCES.items()}, metrics=metrics) as scorer:
        ((_, found),) = scorer.score({"canary": SENTENCES})
    if isinstance(found, CellError):
        return "failed", str(found).removesuffix(f"; {AGAIN}")
    if found.missing:
        return "failed", "; ".join(found.missing.values())
    said = ", ".join(f"{metric} {value:.4g}" for metric, value in found.overall.items())
    return "ok", f"{said} of captions that are their references"


def check(
    overall: Mapping[str, float],
    columns: Mapping[str, Sequence[Any]],
    captions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
) -> None:
    """CellError unless there is a score for every caption, every one possible, and none 0 that cannot be 0.

    A model may be so bad that no caption shares a word with its references, and all its scores are 0. If one does
    share a word, BLEU-1, METEOR and ROUGE-L of the cell are above 0, or the scorer is broken.
    """
    for name, values in columns.items():
        if len(values) != len(captions):
            raise CellError(f"{name}: {len(captions)} captions went in and {len(values)} scores came out")
    for metric, value in overall.items():
        bad = [v for v in (value, *columns[metric]) if not -ROUNDING <= v <= LARGEST.get(metric, 1.0) + ROUNDING]
        if bad:  # NaN is in no range
            raise CellError(f"{metric}: the scorer gave {bad[0]}, which no caption can have ({len(bad)} such values)")
    shared = shared_word(captions, references)
    for metric in ("bleu_1", "meteor", "rouge_l"):
        if shared and metric in overall and all(value < ZERO for value in columns[metric]):
            raise CellError(f"{metric} is 0 for all captions, though that of {shared} with a reference")


def shared_word(captions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> str:
    """A caption that shares a word with one of its references, e.g. "image '7' shares 'dog'"; "" if none does."""
    for image, caption in captions.items():
        common = plain_words(caption) & set().union(*map(plain_words, references[image]))
        if common:
            return f"image '{image}' shares '{min(common)}'"
    return ""


def notes(captions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """What a reader of the scores must know of the captions."""
    return () if shared_word(captions, references) else ("no caption shares a word with its references",)
