"""Scores are pycocoevalcap's own to the last digit, with Java and, where nothing else is possible, without."""

from __future__ import annotations

import math
import random
import re
import shutil
import zipfile
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from suite.errors import CellError, RequestError
from suite.stats import bootstrap_sums
from suite.stats.captions import BLEU_COUNTS, corpus_bleu, corpus_meteor, meteor_counts
from tasks.caption_scoring.canary import KNOWN, TOKENS, check_canary
from tasks.caption_scoring.scorer import METRICS, CaptionScorer, availability, check, notes, package
from tasks.caption_scoring.tokens import SPLIT, is_plain
from tasks.captioning import CaptioningTask

NO_SPICE = tuple(metric for metric in METRICS if metric != "spice")
BLEUS = ("bleu_1", "bleu_2", "bleu_3", "bleu_4")
needs_java = pytest.mark.skipif(not shutil.which("java"), reason="needs Java: the PTB tokenizer and METEOR are Java's")

REFERENCES = {
    "7": ["A man riding a wave on top of a surfboard.", "The surfer's on a large wave!", "a big wave; one man"],
    "3": ["Two dogs are playing in the grass.", "A couple of dogs run outside.", "Dogs cannot stop playing"],
    "image 12": ['A "stop" sign at 5 p.m.', "A red stop sign on the street corner", "the sign says 'STOP'"],
    "é": ["A café table with 2 1/2 pizzas", "naïve art: a pizza | a table", "pizza — on a table…"],
    "4": ["A picture of the letter B.", "letter B. In black", "B."],
    "9": ["A woman in the U.S.", "A woman holds an umbrella", "woman, umbrella & rain"],
}
CELLS = {
    "usual": {
        "7": "a man riding a wave on a surfboard",
        "3": "two dogs playing in the grass",
        "image 12": "a red stop sign on a street",
        "é": "a pizza on a table",
        "4": "a large picture of a letter",
        "9": "a woman with an umbrella",
    },
    "odd": {
        "7": 'A man\'s riding ||| a "wave"\non a surf-board',
        "3": " ".join(["two dogs"] * 300),
        "image 12": "signs |||",
        "é": "café 披萨 😀 naïve \u2028 table\r\nx\x85y\x0bz\x0c",
        "4": "letter B.",
        "9": "A woman in the U.S.",
    },
    "partly empty": {"7": "", "3": "dogs", "image 12": "   ", "é": "...", "4": "", "9": "umbrella"},
    "all empty": dict.fromkeys(REFERENCES, ""),
    "some images": {"3": "some dogs are outside", "4": "the letter B", "9": "A big woman."},
}
PLAIN_REFERENCES = {
    str(i): [f"a {a} {b}", f"the {b} is {a}"] for i, (a, b) in enumerate([("red", "dog"), ("big", "cat")])
}
PLAIN_CAPTIONS = {"1": "a big red cat is a cat", "0": "a dog"}


def tokens(captions, references):
    """(references, captions) as COCOEvalCap.evaluate has them tokenised."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    def one_line(text):  # pycocoevalcap replaces "\n" alone, and then mixes up the images
        return re.sub("\r\n|[\r\v\f\x85\u2028\u2029]", " ", text)

    gts = {image: [{"caption": one_line(text)} for text in texts] for image, texts in references.items()}
    res = {image: [{"caption": one_line(captions[image])}] for image in references if image in captions}
    gts, res = PTBTokenizer().tokenize(gts), PTBTokenizer().tokenize(res)
    return {image: gts[image] for image in res}, res


def scores(gts, res, meteor=None):
    """COCOEvalCap.evaluate without its printing: (overall, per image) of pycocoevalcap itself."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    found = dict(zip(BLEUS, zip(*Bleu(4).compute_score(gts, res, verbose=0))))
    found["rouge_l"] = Rouge().compute_score(gts, res)
    found["cider"] = Cider().compute_score(gts, res)
    if meteor is not None:
        found["meteor"] = meteor.compute_score(gts, res)
    return {m: float(o) for m, (o, _) in found.items()}, {m: [float(v) for v in e] for m, (_, e) in found.items()}


def direct(captions, references, meteor=None):
    return scores(*tokens(captions, references), meteor)


@pytest.fixture(scope="module")
def scored():
    """All cells, from one scorer, and pycocoevalcap's METEOR: its two processes load side by side."""
    from pycocoevalcap.meteor.meteor import Meteor

    meteor = Meteor()
    with CaptionScorer(REFERENCES, timeout_s=120) as scorer:
        cells = {**CELLS, "shuffled": dict(sorted(CELLS["odd"].items()))}
        yield SimpleNamespace(cells=dict(scorer.score(cells)), meteor=meteor, scorer=scorer)


@needs_java
@pytest.mark.parametrize("cell", [name for name in CELLS if name != "some images"])
def test_every_score_is_pycocoevalcaps_to_the_last_digit(scored, cell):
    result = scored.cells[cell]
    overall, per_image = direct(CELLS[cell], REFERENCES, scored.meteor)
    assert {metric: result.overall[metric] for metric in NO_SPICE} == overall
    assert result.per_image["id"].tolist() == list(REFERENCES)
    assert {metric: result.per_image[metric].tolist() for metric in NO_SPICE} == per_image


@needs_java
@pytest.mark.parametrize(
    "settings",
    [
        {"JAVA_TOOL_OPTIONS": "-Duser.language=de -Duser.country=DE", "LC_ALL": "C", "PYTHONUTF8": "0"},
        {"_JAVA_OPTIONS": "-Duser.language=tr -Duser.language.format=de -Dfile.encoding=ISO-8859-9"},
    ],
)
def test_scores_are_the_same_in_every_locale(scored, settings, monkeypatch):
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with CaptionScorer(REFERENCES, timeout_s=120) as scorer:
        ((_, found),) = scorer.score({"odd": CELLS["odd"]})
    assert found.overall == scored.cells["odd"].overall
    pd.testing.assert_frame_equal(found.per_image, scored.cells["odd"].per_image, check_exact=True)


@needs_java
def test_the_order_in_which_captions_are_given_changes_nothing(scored):
    assert scored.cells["shuffled"].overall == scored.cells["odd"].overall
    pd.testing.assert_frame_equal(scored.cells["shuffled"].per_image, scored.cells["odd"].per_image, check_exact=True)


@needs_java
def test_cider_of_some_images_counts_the_documents_of_all(scored):
    some, captions = scored.cells["some images"], CELLS["some images"]
    whole = direct({**CELLS["usual"], **captions}, REFERENCES)[1]["cider"]
    assert some.per_image["cider"].tolist() == [whole[list(REFERENCES).index(image)] for image in captions]
    assert some.overall["cider"] == some.per_image["cider"].mean()
    overall, _ = direct(captions, REFERENCES, scored.meteor)
    assert some.overall["cider"] != overall["cider"]
    assert {m: some.overall[m] for m in NO_SPICE if m != "cider"} == {m: overall[m] for m in NO_SPICE if m != "cider"}


@needs_java
def test_cells_that_come_later_are_scored_by_the_same_process_with_the_same_result(scored):
    process = scored.scorer._process.process.pid
    ((name, again),) = scored.scorer.score({"again": CELLS["odd"]})
    assert (name, again.overall) == ("again", scored.cells["odd"].overall)
    assert scored.scorer._process.process.pid == process


@needs_java
def test_captions_without_a_word_in_common_score_zero_and_are_noted(scored):
    result = scored.cells["all empty"]
    assert all(abs(value) < 1e-12 for value in result.overall.values())
    assert result.notes == ("no caption shares a word with its references",)
    assert scored.cells["usual"].notes == ()


@needs_java
def test_what_is_missing_has_a_reason_and_the_rest_is_scored(scored):
    reason = availability()["spice"]
    assert reason == "needs CoreNLP (388 MB): python run_bench.py fetch spice"
    assert scored.cells["usual"].missing == {"spice": reason}


@needs_java
@pytest.mark.parametrize("cell", CELLS)
def test_stored_counts_give_the_corpus_scores(scored, cell):
    result = scored.cells[cell]
    bleu = corpus_bleu(result.per_image[list(BLEU_COUNTS)].to_numpy().sum(axis=0))
    assert bleu == pytest.approx([result.overall[metric] for metric in BLEUS], rel=1e-15, abs=0)
    counts = meteor_counts(result.per_image["meteor_stats"])
    assert corpus_meteor(counts.sum(axis=0)) == pytest.approx(result.overall["meteor"], rel=1e-14, abs=0)
    assert corpus_meteor(counts) == pytest.approx(result.per_image["meteor"].to_numpy(), rel=1e-14, abs=0)


@needs_java
def test_a_resamples_scores_are_those_that_its_captions_get(scored):
    frame = scored.cells["odd"].per_image
    gts, res = tokens(CELLS["odd"], REFERENCES)
    counts = bootstrap_sums(frame[list(BLEU_COUNTS)], seed=5, resamples=4)
    stats = bootstrap_sums(meteor_counts(frame["meteor_stats"]), seed=5, resamples=4)
    draw = np.random.default_rng(5)
    for row in range(4):
        drawn = [frame["id"][index] for index in draw.integers(0, len(frame), len(frame))]
        resample = ({n: tokenised[image] for n, image in enumerate(drawn)} for tokenised in (gts, res))
        expected, _ = scores(*resample, scored.meteor)
        assert corpus_bleu(counts[row]) == pytest.approx([expected[metric] for metric in BLEUS], rel=1e-12)
        assert corpus_meteor(stats[row]) == pytest.approx(expected["meteor"], rel=1e-12)


@needs_java
def test_intervals_lie_around_the_scores_of_the_corpus(scored):
    result = scored.cells["usual"]
    metrics = [metric for metric in CaptioningTask.shown.metrics if metric.name in result.overall]
    assert {metric.name for metric in metrics} == set(result.overall)
    for metric in metrics:
        [addends] = metric.aggregate.addends(result.per_image)
        low, high = metric.aggregate.interval(addends)
        assert low < result.overall[metric.name] < high
        assert (low, high) == metric.aggregate.interval(addends)
        assert metric.aggregate.score(addends) == pytest.approx(result.overall[metric.name], rel=1e-12)


@needs_java
def test_no_plain_word_is_changed_by_the_tokenizer():
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    with zipfile.ZipFile(package() / "meteor" / "meteor-1.5.jar") as jar:
        wordnet = sorted(set(re.findall("[a-z]+", jar.read("synonym/english.synsets").decode("latin-1"))))
    assert len(wordnet) > 50_000
    draw = random.Random(0)
    plain = [text for text in wordnet if is_plain(text)]
    plain += [" ".join(draw.choices(wordnet, k=draw.randint(1, 20))) for _ in range(2000)]
    plain = [text for text in plain if is_plain(text)]
    tokenised = PTBTokenizer().tokenize({text: [{"caption": text}] for text in [*plain, *SPLIT]})
    assert [text for text in plain if tokenised[text] != [text]] == []
    assert all(tokenised[text] != [text] for text in SPLIT)


@pytest.mark.parametrize("text", ["A dog", "a  dog", " a", "a dog.", "it's", "she cannot", "3 dogs", "café", "a\ndog"])
def test_what_a_tokenizer_may_change_is_not_plain(text):
    assert not is_plain(text)


@needs_java
def test_without_java_plain_captions_get_the_very_scores_that_java_gives(monkeypatch):
    with CaptionScorer(PLAIN_REFERENCES, metrics=("cider", "rouge_l", *BLEUS)) as scorer:
        with_java = dict(scorer.score({"plain": PLAIN_CAPTIONS}))["plain"]
    expected, _ = direct(PLAIN_CAPTIONS, PLAIN_REFERENCES)
    monkeypatch.setenv("PATH", "/nonexistent")
    with CaptionScorer(PLAIN_REFERENCES) as scorer:
        found = dict(scorer.score({"plain": PLAIN_CAPTIONS, "not plain": {"0": "A dog."}, "empty": {"0": ""}}))
    assert found["plain"].overall == with_java.overall == expected
    needed = "needs Java: apt install default-jre-headless"
    assert found["plain"].missing == {"meteor": needed, "spice": needed}
    assert found["not plain"].overall == {}
    assert found["not plain"].missing["cider"] == "needs Java (PTB tokenizer): apt install default-jre-headless"
    assert set(found["not plain"].missing) == set(METRICS)
    assert found["empty"].overall["cider"] == 0


def test_without_java_references_that_are_not_plain_leave_nothing_to_score(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with CaptionScorer(REFERENCES) as scorer:
        ((_, found),) = scorer.score({"plain": {"3": "two dogs"}})
    assert found.overall == {}
    assert set(found.missing) == set(METRICS)
    assert scorer._process is None


@pytest.mark.parametrize(
    ("references", "options", "text"),
    [
        ({}, {}, "no reference captions"),
        ({"5": []}, {}, "image '5' has no reference"),
        ({"5": ["a"]}, {"metrics": ("cidr",)}, "unknown metric 'cidr'"),
    ],
)
def test_references_that_cannot_be_used_are_refused(references, options, text):
    with pytest.raises(RequestError, match=text):
        CaptionScorer(references, **options)


def test_a_caption_of_an_image_without_references_is_refused():
    with CaptionScorer({"5": ["a"]}) as scorer, pytest.raises(RequestError, match="image '6' has a caption but no"):
        next(scorer.score({"cell": {"5": "a", "6": "b"}}))


def test_a_cell_without_captions_fails_and_says_so():
    with CaptionScorer({"5": ["a"]}) as scorer:
        ((_, error),) = scorer.score({"cell": {}})
    assert isinstance(error, CellError)
    assert "no captions" in str(error)


@pytest.mark.parametrize(
    ("overall", "column", "text"),
    [
        (0.5, [0.5], "2 captions went in and 1 scores came out"),
        (0.5, [0.5, math.nan], "gave nan"),
        (math.inf, [0.5, 0.5], "gave inf"),
        (0.5, [0.5, -0.1], "gave -0.1"),
        (0.5, [0.5, 1.1], "gave 1.1"),
        (0.0, [0.0, 0.0], "is 0 for all captions, though that of image 'a' shares 'dog' with a reference"),
    ],
)
def test_impossible_scores_are_named(overall, column, text):
    captions, references = {"a": "a Dog", "b": "x"}, {"a": ["the dog runs"], "b": ["y"]}
    with pytest.raises(CellError, match=text):
        check({"meteor": overall}, {"meteor": column}, captions, references)


def test_zero_is_a_score_where_captions_share_no_word_with_references():
    captions, references = {"a": "x", "b": ""}, {"a": ["the dog runs"], "b": ["y"]}
    check({"meteor": 0.0}, {"meteor": [0.0, 0.0]}, captions, references)
    assert notes(captions, references)


def test_a_canary_with_another_value_is_named():
    check_canary(TOKENS, KNOWN)
    with pytest.raises(CellError, match=r"canary: meteor gave 0\.12 instead of 1"):
        check_canary(TOKENS, {**KNOWN, "meteor": 0.12})
    with pytest.raises(CellError, match="canary: cider gave nan instead of 10"):
        check_canary(TOKENS, {**KNOWN, "cider": math.nan})
    with pytest.raises(CellError, match="canary: the PTB tokenizer gave"):
        check_canary({}, KNOWN)
