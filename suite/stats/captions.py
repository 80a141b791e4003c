"""Caption scores of any part of a corpus, from what is stored for each caption."""

from __future__ import annotations

import numpy as np
import pandas as pd

KINDS = ("guess", "correct")
BLEU_COUNTS = ("testlen", "reflen", *(f"{kind}_{n}" for kind in KINDS for n in range(1, 5)))

# METEOR 1.5 for English: what a match by word, stem, synonym or paraphrase weighs, and the parameters of its formula.
MATCH_WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75


def corpus_bleu(counts: np.ndarray) -> np.ndarray:
    """BLEU-1 to BLEU-4 (..., 4) of corpora from the sums (..., 10) of their captions' BLEU_COUNTS.

    The formula of pycocoevalcap's BleuScorer with its two epsilons.
    """
    counts = np.asarray(counts, dtype=np.float64)
    testlen, reflen, guess, correct = counts[..., 0], counts[..., 1], counts[..., 2:6], counts[..., 6:10]
    small, tiny = 1e-9, 1e-15
    products = np.cumprod((correct + tiny) / (guess + small), axis=-1)
    ratio = (testlen + tiny) / (reflen + small)
    brevity = np.exp(np.minimum(0.0, 1 - 1 / ratio))
    return products ** (1 / np.arange(1, 5)) * brevity[..., None]


def meteor_counts(stats: pd.Series) -> np.ndarray:
    """(n, 23) numbers to sum, from METEOR's lines; a caption that is its reference counts as having no chunk."""
    counts = np.array([line.split() for line in stats], dtype=np.float64)
    same = (counts[:, 0:2] == counts[:, 21:23]).all(axis=1) & (counts[:, 20] == 1)
    counts[same, 20] = 0
    return counts


def corpus_meteor(counts: np.ndarray) -> np.ndarray:
    """METEOR 1.5 (...,) of corpora from the sums (..., 23) of their captions' `meteor_counts`.

    Counts are lengths and function words of caption and reference; for each of four kinds of match, matched content
    words of caption and reference, then function words; chunks; matched words of caption and reference. Source:
    M. Denkowski and A. Lavie, "Meteor Universal: language specific translation evaluation for any target language",
    2014; the parameters are those of METEOR's task "rank" in English, which pycocoevalcap runs.
    """
    counts = np.asarray(counts, dtype=np.float64)
    lengths, functions = counts[..., 0:2], counts[..., 2:4]
    matches = counts[..., 4:20].reshape(*counts.shape[:-1], 4, 2, 2)  # kind of match, content or function, side
    weighted = np.einsum("k,...kcs,c->...s", MATCH_WEIGHTS, matches, [DELTA, 1 - DELTA])
    possible = DELTA * (lengths - functions) + (1 - DELTA) * functions
    chunks, words = counts[..., 20], counts[..., 21:23]
    with np.errstate(divide="ignore", invalid="ignore"):
        precision, recall = np.moveaxis(weighted / possible, -1, 0)
        mean = 1 / ((1 - ALPHA) / precision + ALPHA / recall)
        score = mean * (1 - GAMMA * (chunks / words.mean(axis=-1)) ** BETA)
    return np.where(weighted.all(axis=-1), score, 0.0)
