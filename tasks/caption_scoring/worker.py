"""Scores captions with pycocoevalcap in a process of its own, which `scorer` starts and watches.

It reads one JSON object a line and answers each with one: {"start": ...} references, {"tokenise": ...} captions by
cell, {"score": cell}. Before whatever can take long it says {"phase": name}; {"failed": reason} is its last word. When
its input closes, it ends with every process that it started.

Run by its path: imported as a part of the package it would wait for torch, which it does not need.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, TextIO

FOLDER = "CAPTION_SCORER_FOLDER"  # environment: the supervisor's temporary folder
OVERRIDES = "_JAVA_OPTIONS"  # environment: what Java takes over even from its command line
_ENGLISH = {"language": "en", "country": "US", "script": "", "variant": "", "extensions": ""}
LOCALE = (
    *(f"-Duser.{part}{use}={value}" for part, value in _ENGLISH.items() for use in ("", ".display", ".format")),
    *("-Duser.region=US", "-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8"),
)
SPICE_JAR, SPICE_HEAP = "spice-1.0.jar", ("-Xmx8G", "-Xmx4G")  # pycocoevalcap's, and ours: half of it was enough
SPICE_OPTIONS = "CAPTION_SCORER_SPICE"  # environment: what SPICE's Java needs to be told
NEWER = "JDK_JAVA_OPTIONS"  # environment: what Java takes over from 9 on
METEOR_NUMBERS = 23  # in METEOR's answer to SCORE
# A line of its own after a blank one. The tokenizer looks ahead: whether "letter B." ends in a full stop depends on the
# next line. After these two, every block is tokenised as if its file ended there; and lines that were lost or added
# show, because the mark is not where it was put.
MARK = "endofcaptions"

Captions = dict[str, list[str]]  # by image; one for each when they are a model's
Overall = dict[str, float]  # by metric
Columns = dict[str, list[Any]]  # a number, or METEOR's line of them, per caption
Message = dict[str, Any]

GROUPS = {
    **{f"bleu_{n}": "BLEU" for n in range(1, 5)},
    "rouge_l": "ROUGE-L",
    "cider": "CIDEr",
    "meteor": "METEOR",
    "spice": "SPICE",
}


class Failed(Exception):
    """Nothing more can be expected of this process; the text says what ended it."""


class Launched(subprocess.Popen[bytes]):
    """A Java that a scorer starts, in English and UTF-8 wherever it runs: others print numbers with a comma.

    It is remembered and its stderr kept: pycocoevalcap looks at neither end nor words.
    """

    all: ClassVar[list[Launched]] = []

    def __init__(self, args: list[str], **options: Any) -> None:
        self.command = args
        java, *rest = args
        own = {OVERRIDES: " ".join((os.environ[OVERRIDES], *LOCALE))} if OVERRIDES in os.environ else {}
        if SPICE_JAR in args:
            own[NEWER] = " ".join((os.environ.get(NEWER, ""), os.environ.get(SPICE_OPTIONS, "")))
            rest[rest.index(SPICE_HEAP[0])] = SPICE_HEAP[1]
        self.words = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        super().__init__([java, *LOCALE, *rest], **{**options, "stderr": self.words, "env": {**os.environ, **own}})
        Launched.all.append(self)

    def end(self) -> str:
        """How it ended and the last line that it said, e.g. "Java was killed by SIGKILL"."""
        code = self.returncode
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        self.words.seek(0)
        said = [line.strip() for line in self.words.read().decode(errors="replace").splitlines() if line.strip()]
        # Of a Java stack trace, the line with the exception says what was wrong.
        thrown = [line for line in said if "Exception" in line or "Error" in line]
        causes = [line for line in said if line.startswith("Caused by: ")]
        last = (causes[-1:] or thrown[:1] or said[-1:] or [""])[0]
        return f"Java {how}" + (f": {last[:200]}" if last else "")


def ended() -> str:
    """How a launched process ended that should not have: one with an exit code, or METEOR, which never ends."""
    for process in reversed(Launched.all):
        try:
            code = process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            continue
        if code or "-stdio" in process.command:
            return process.end()
    return ""


class Scorers:
    """pycocoevalcap's scorers over one set of tokenised references; METEOR's process is shared."""

    def __init__(self, references: Captions, meteor: Any, say: Callable[[Message], None]) -> None:
        from pycocoevalcap.cider.cider_scorer import CiderScorer, cook_refs

        self.references, self.meteor_process, self.say = references, meteor, say
        self.cooked = {image: cook_refs(captions) for image, captions in references.items()}
        counting = CiderScorer()
        counting.crefs = list(self.cooked.values())
        counting.compute_doc_freq()
        self.document_frequency = counting.document_frequency

    @property
    def telling_ngrams(self) -> int:
        """Those that not all images have in their references; CIDEr weighs others by nothing."""
        return sum(images < len(self.references) for images in self.document_frequency.values())

    def score(self, captions: Captions, metrics: list[str]) -> tuple[Overall, Columns]:
        """(overall, columns): the corpus's value by metric; a number per caption by column, in the captions' order.

        BLEU and METEOR add columns of statistics, whose sums make the corpus's value.
        """
        scorers = {"BLEU": bleu, "ROUGE-L": rouge, "CIDEr": self.cider, "METEOR": self.meteor, "SPICE": spice}
        references = {image: self.references[image] for image in captions}
        overall: Overall = {}
        columns: Columns = {}
        for group in dict.fromkeys(GROUPS[metric] for metric in metrics):
            self.say({"phase": group})
            with named(group):
                values, further = scorers[group](references, captions)
            overall |= values
            columns |= further
        return overall, columns

    def cider(self, references: Captions, captions: Captions) -> tuple[Overall, Columns]:
        """With the document frequencies of all references, also for captions of some of the images.

        The scorer counts documents in `crefs` and scores as many of them as `ctest` has: those come first.
        """
        import numpy as np
        from pycocoevalcap.cider.cider_scorer import CiderScorer, cook_test

        scorer = CiderScorer()
        scorer.document_frequency = self.document_frequency
        scorer.crefs = [self.cooked[image] for image in captions]
        scorer.crefs += [cooked for image, cooked in self.cooked.items() if image not in captions]
        scorer.ctest = [cook_test(caption) for (caption,) in captions.values()]
        each = scorer.compute_cider()
        return {"cider": float(np.mean(np.array(each)))}, {"cider": [float(value) for value in each]}

    def meteor(self, references: Captions, captions: Captions) -> tuple[Overall, Columns]:
        overall, each = self.meteor_process.compute_score(references, captions)
        stats = [self.meteor_process._stat(caption, references[image]) for image, (caption,) in captions.items()]
        return {"meteor": overall}, {"meteor": each, "meteor_stats": stats}


def bleu(references: Captions, captions: Captions) -> tuple[Overall, Columns]:
    """What Bleu(4) does, and the counts that it sums."""
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer

    scorer = BleuScorer(n=4)
    for image, (caption,) in captions.items():
        scorer += (caption, references[image])
    overall, each = scorer.compute_score(option="closest", verbose=0)
    counted = scorer.ctest
    columns = {f"bleu_{n + 1}": each[n] for n in range(4)}
    columns["testlen"] = [counts["testlen"] for counts in counted]
    columns["reflen"] = [scorer._single_reflen(counts["reflen"], "closest", counts["testlen"]) for counts in counted]
    for kind in ("guess", "correct"):
        columns |= {f"{kind}_{n + 1}": [counts[kind][n] for counts in counted] for n in range(4)}
    return {f"bleu_{n + 1}": overall[n] for n in range(4)}, columns


def rouge(references: Captions, captions: Captions) -> tuple[Overall, Columns]:
    from pycocoevalcap.rouge.rouge import Rouge

    overall, each = Rouge().compute_score(references, captions)
    return {"rouge_l": float(overall)}, {"rouge_l": each.tolist()}


def spice(references: Captions, captions: Captions) -> tuple[Overall, Columns]:
    """SPICE's scores come in the order of the sorted image ids, whatever the order of the captions."""
    from pycocoevalcap.spice.spice import Spice

    overall, each = Spice().compute_score(references, captions)
    by_image = dict(zip(sorted(captions), each, strict=True))
    return {"spice": float(overall)}, {"spice": [by_image[image]["All"]["f"] for image in captions]}


def start_meteor() -> Any:
    """METEOR's process, which loads for some seconds while other things go on.

    What it answers for a caption and its references depends on nothing else, so it is asked once for all cells.
    """
    from pycocoevalcap.meteor.meteor import Meteor

    meteor = Meteor()
    known: dict[tuple[str, ...], str] = {}
    ask = meteor._stat

    def remembered(caption: str, references: list[str]) -> str:
        key = (caption, *references)
        if key not in known:
            answer: str = ask(caption, references)
            if len(answer.split()) != METEOR_NUMBERS:
                raise ValueError(f"METEOR answered {answer!r} to {caption!r}")
            known[key] = answer
        return known[key]

    meteor._stat = remembered
    return meteor


def tokenise(blocks: list[Captions]) -> list[Captions]:
    """Every block as PTBTokenizer returns it on its own, from one launch for all."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    lines: dict[int | tuple[int, str], list[dict[str, str]]] = {}  # a mark by its block, texts by block and image
    for index, block in enumerate(blocks):
        lines |= {(index, image): [{"caption": text} for text in texts] for image, texts in block.items()}
        lines[index] = [{"caption": ""}, {"caption": MARK}]
    found = PTBTokenizer().tokenize(lines)
    if Launched.all[-1].returncode:
        raise ValueError(Launched.all[-1].end())
    expected, got = (sum(map(len, texts.values())) for texts in (lines, found))
    if expected != got or any(found[index] != ["", MARK] for index in range(len(blocks))):
        raise ValueError(f"{expected} lines went in and {got} came out, or they came out in other places")
    return [{image: found[index, image] for image in block} for index, block in enumerate(blocks)]


class Worker:
    """Answers the supervisor's requests, a method each."""

    def __init__(self, say: Callable[[Message], None]) -> None:
        self.say = say
        self.cells: dict[str, Captions] = {}

    def start(self, references: Captions, canary: Captions, metrics: list[str], java: bool) -> dict[str, Any]:
        """Takes the references, and scores the canary, sentences that are captions and references at once.

        Returns its tokens and scores by metric, why metrics are missing that were expected to work, and how many
        n-grams tell the references of one image from those of another.
        """
        self.java, meteor = java, start_meteor() if "meteor" in metrics else None
        tokens, references = self.tokens([canary, references])
        scorers, scores, missing = Scorers(tokens, meteor, self.say), {}, {}
        for metric in metrics:
            try:
                scores[metric] = scorers.score(tokens, [metric])[0][metric]
            except Failed as error:
                if not is_unable(metric, error.__cause__):
                    raise Failed(f"canary: {error}") from error
                missing[metric] = f"does not run here: {error}"
        self.scorers = Scorers(references, meteor, self.say)
        telling = self.scorers.telling_ngrams
        return {"tokens": tokens, "scores": scores, "missing": missing, "telling_ngrams": telling}

    def tokenise(self, cells: dict[str, dict[str, str]]) -> None:
        """Takes the captions of all cells that are to be scored."""
        blocks = [{image: [caption] for image, caption in cell.items()} for cell in cells.values()]
        self.cells = dict(zip(cells, self.tokens(blocks), strict=True))

    def score(self, cell: str, metrics: list[str]) -> dict[str, Any]:
        """Scores of one cell, in the order of its captions."""
        return dict(zip(("overall", "columns"), self.scorers.score(self.cells[cell], metrics), strict=True))

    def tokens(self, blocks: list[Captions]) -> list[Captions]:
        """Blocks as the PTB tokenizer makes them; without Java they must be what it leaves as it is."""
        if not self.java:
            return blocks
        self.say({"phase": "PTB tokenizer"})
        with named("PTB tokenizer"):
            return tokenise(blocks)


def is_unable(metric: str, error: BaseException | None) -> bool:
    """Whether a metric cannot work here: SPICE needs more memory and opened packages, and fails when it starts."""
    return metric == "spice" and isinstance(error, subprocess.CalledProcessError)


@contextmanager
def named(what: str) -> Iterator[None]:
    """Says in every failure what failed, and how its Java ended if it did."""
    try:
        yield
    except Exception as error:
        raise Failed(f"{what}: {ended() or f'{type(error).__name__}: {error}'}") from error


def listen(requests: TextIO, waiting: queue.Queue[Message]) -> None:
    """Passes requests on; at their end, which is also the supervisor's, ends this process and all it started."""
    for line in requests:
        waiting.put(json.loads(line))
    shutil.rmtree(os.environ.get(FOLDER, ""), ignore_errors=True)
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def main() -> None:
    """Serves requests until one fails or no more can come."""
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    # What the scorers and their processes read and print must not reach the supervisor's pipes.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    vars(subprocess)["Popen"] = Launched
    waiting: queue.Queue[Message] = queue.Queue()
    threading.Thread(target=listen, args=(requests, waiting), daemon=True).start()

    def say(message: Message) -> None:
        answers.write(json.dumps(message) + "\n")

    worker = Worker(say)
    try:
        while True:
            ((name, arguments),) = waiting.get().items()
            say({"answer": getattr(worker, name)(**arguments)})
    except Exception as error:
        say({"failed": str(error) if isinstance(error, Failed) else f"{type(error).__name__}: {error}"})
    finally:
        # Meteor's destructor waits for a lock that it does not free when its process dies.
        os._exit(1)


if __name__ == "__main__":
    main()
