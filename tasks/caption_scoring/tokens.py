"""What of a caption the PTB tokenizer leaves as it is, and which characters part its lines."""

from __future__ import annotations

import re

# pycocoevalcap gives the tokenizer one caption a line and replaces "\n" alone. Any other character at which Java ends
# a line would shift all captions behind it to the next image.
LINE_ENDS = re.compile("\r\n|[\n\r\v\f\x85\u2028\u2029]")

PLAIN = re.compile(r"[a-z]+( [a-z]+)*")
# All words of letters a-z alone that the tokenizer changes: found by tokenising the half million different ones of
# METEOR's paraphrases and of WordNet, every one of up to four letters, and its grammar's own list of contractions.
SPLIT = frozenset({"cannot", "gimme", "gonna", "gotta", "lemme", "wanna"})
WORD = re.compile(r"(?<!\S)[a-z]+(?!\S)")


def on_one_line(caption: str) -> str:
    """The caption with a space for each character that ends a line."""
    return LINE_ENDS.sub(" ", caption)


def is_plain(caption: str) -> bool:
    """Whether tokenising is known to change nothing: words of a-z in lower case, single spaces, or nothing at all."""
    return not caption or (bool(PLAIN.fullmatch(caption)) and SPLIT.isdisjoint(caption.split()))


def plain_words(caption: str) -> set[str]:
    """Words of a caption that every tokenizer keeps, in lower case."""
    return set(WORD.findall(caption.lower())) - SPLIT
