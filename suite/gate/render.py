"""A comparison as people read it: rows of text for a terminal and for Markdown."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from reports.text.markup import markdown_row, markdown_rule
from reports.text.wording import NO_DATA, gflops, percent, rate_label, ratio
from suite.contract.metric import Metric
from suite.gate.report import Report
from suite.gate.side import Entry
from suite.gate.speed_ratio import SpeedRatio
from suite.gate.verdict import CANNOT_TELL, EXIT, PASSED, REGRESSED, Row

NOISY, CHEAPER, DISPUTED = "§", "¶", "†"
COMPARED = ["Cells", "Metric", "A and B", "A − B", "p", "adjusted", "Seen from", "GFLOPs", "FLOPs", "Speed", "Memory"]
UNMEASURED = ("Speed", "Memory")  # have no column where they were not
SPARE = ("Memory", "FLOPs", "At least", "Seen from", "Speed", "GFLOPs", "adjusted")
"""What a narrow terminal goes without, in order."""


def title(report: Report) -> str:
    return f"{report.new} against {report.base}"


def headline(report: Report) -> str:
    """One sentence: what the verdict is and what it rests on."""
    if report.contract and report.contract.failed:
        return (
            f"{REGRESSED}: {report.new} breaks {len(report.contract.failed)} of the promises that every reducer makes"
        )
    if report.verdict == PASSED:
        cost = "the same or less cost" if any(row.match.cheaper for row in report.rows) else "the same cost"
        return f"{PASSED}: {report.new} is as good as {report.base} within the margin, at {cost}"
    worst = [row for row in report.rows if row.verdict == report.verdict]
    said = f"{report.verdict}: {place(worst[0])}: {worst[0].reason}"
    return said + (f" (and {len(worst) - 1} more)" if len(worst) > 1 else "") + remedy(report)


def remedy(report: Report) -> str:
    if report.verdict != CANNOT_TELL:
        return ""
    if report.needed is None:
        return "; more samples alone would not tell"
    return f"; about {report.needed} samples are needed, these are {max(report.samples, default=0)}"


def place(row: Row) -> str:
    """Which comparison: the cell of NEW, and of BASE where it is another rate."""
    new, base = row.match.new, row.match.base
    if new is None or base is None:
        return next((entry.label for entry in (new, base) if entry), "")
    if new.label == base.label:
        return new.label
    if new.rate == base.rate:
        return f"{new.method} against {base.method} at {new.rate or 'no reduction'}"
    return f"{new.label} against {base.label}"


def table(report: Report) -> list[list[str]]:
    """Headers and lines: a check's with verdicts, a comparison's with what could have been seen; as measured."""
    headers = check_headers(report) if report.verdict else COMPARED
    lines = check_lines(report) if report.verdict else compare_lines(report)
    empty = {
        i for i, header in enumerate(headers) if header in UNMEASURED and not any(known(line[i]) for line in lines)
    }
    return [[cell for i, cell in enumerate(line) if i not in empty] for line in (headers, *lines)]


def known(cell: str) -> bool:
    return cell not in ("", NO_DATA)


def check_headers(report: Report) -> list[str]:
    label = report.shown.metrics[0].label
    return ["NEW", "BASE", "GFLOPs", "FLOPs", label, "Difference", "At least", "p", "Speed", "Memory", "Verdict"]


def check_lines(report: Report) -> list[list[str]]:
    return [
        [*names, *_costs(row), *_scores(row), _bound(row), _p(row.adjusted),
         _pace(row.pace), _memory(row), row.verdict]
        for row, names in zip(report.rows, cell_names(report.rows), strict=True)
    ]  # fmt: skip


def compare_lines(report: Report) -> list[list[str]]:
    lines, before = [], None
    for row in report.rows:
        found, again = row.contrast, row.match is before
        costs = ["", "", "", ""] if again else [*_costs(row), _pace(row.pace), _memory(row)]
        scores = [found.metric.label if found else row.reason, *_scores(row), _p(found.p if found else None)]
        lines.append(["" if again else place(row), *scores, _p(row.adjusted), _seen(row, report), *costs])
        before = row.match
    return lines


def reasons(report: Report) -> list[str]:
    """One line for every row of a check, and every promise that is broken."""
    said = [f"{row.verdict}: {place(row)}: {row.reason}{_needed(row)}" for row in report.rows]
    failed = report.contract.failed if report.contract else {}
    return [f"contract: it does not hold that {promise} ({count} cases)" for promise, count in failed.items()] + said


def notes(report: Report) -> Iterator[str]:
    """How to read the table rightly."""
    yield from report.remarks
    if report.skipped:
        yield report.skipped
    if report.contract and not report.contract.failed:
        yield f"contract: all {report.contract.tests} tests hold"
    if report.rows:
        n = ", ".join(map(str, report.samples)) or NO_DATA
        sides = "NEW − BASE" if report.verdict else "A − B"
        yield f"{sides} on the same samples (n = {n}), with its 95 % interval for the population they were drawn from."
        yield "FLOPs, speed and memory: of the first, relative to the second."
    if report.verdict and report.rows:
        yield _rule(report)
    if not report.verdict:
        yield (
            "p: of no difference on these samples, by exact McNemar for top-1 and top-5, else by outcomes swapped at "
            "random; adjusted: over all rows (Holm). Seen from: the smallest difference that 4 of 5 such comparisons "
            f"find, at {report.alpha:g} divided by the rows; exact for top-1 and top-5, else by the normal "
            "distribution."
        )
    if any(row.pace.noisy for row in report.rows):
        yield f"{NOISY} noisy: the unreduced model against itself differs as much; decide nothing by these speeds."
    if any(row.match.cheaper for row in report.rows):
        yield f"{CHEAPER} NEW costs less here; it may pass, but not regress."
    if any(row.match.disputed for row in report.rows):
        yield f"{DISPUTED} FLOPs disputed, the counters differ by more than 0.5 %: the larger count is compared."
    for reason in dict.fromkeys(row.pace.note for row in report.rows if row.pace.note):
        yield f"speed {NO_DATA}: {reason}"


def _rule(report: Report) -> str:
    margin = f"{report.margin:g} points" if report.margin is not None else _default_margin(report)
    return (
        f"Margin {margin}, alpha {report.alpha:g}. Pass: in every row NEW − BASE is above −margin (one-sided bound). "
        "Regressed: significantly worse (p adjusted over the rows) by more than the margin. Speed does not decide."
    )


def _default_margin(report: Report) -> str:
    return "0.5 points" if report.shown.metrics[0].binary else "1 % of BASE's score"


def cell_names(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """NEW and BASE of every row, in as few words as tell all rows apart: what the rate came to, or the rate as asked
    too, or the method with it; the latter where there are several methods.
    """
    sides = [(row.match.new, row.match.base) for row in rows]
    several = any(len({entry.method for entry in side if entry}) > 1 for side in zip(*sides))
    for say in (_method_and_rate,) if several else (_came_to, _rate, _method_and_rate):
        names = [(say(new) if new else "–", say(base) if base else "–") for new, base in sides]
        if len(set(names)) == len(names):
            break
    return names


def _came_to(entry: Entry) -> str:
    return _rate(entry).rpartition("→ ")[2]


def _rate(entry: Entry) -> str:
    return rate_label(entry.rate, entry.resolved_rate)


def _method_and_rate(entry: Entry) -> str:
    return entry.method if not entry.rate else f"{entry.method} {_rate(entry)}"


def _costs(row: Row) -> list[str]:
    """Cost of both, and by how much that of the first is larger."""
    first, second = (entry.cost if entry else None for entry in (row.match.new, row.match.base))
    mark = (CHEAPER if row.match.cheaper else "") + (DISPUTED if row.match.disputed else "")
    if first is None or second is None:
        return [f"{gflops(first)} / {gflops(second)}", NO_DATA]
    both = gflops(first) if first == second else f"{gflops(first)} / {gflops(second)}"
    return [both, f"{percent(first / second - 1, signed=True)} %{mark}"]


def _scores(row: Row) -> list[str]:
    found = row.contrast
    if found is None:
        return [NO_DATA, NO_DATA]
    metric = found.metric
    new, base, difference, low, high = (
        _number(value, metric, signed)
        for value, signed in ((found.new, False), (found.base, False), (found.difference, True), (found.low, True),
                              (found.high, True))
    )  # fmt: skip
    return [f"{new} / {base}", f"{difference} [{low}, {high}]"]


def _number(value: float, metric: Metric, signed: bool) -> str:
    decimals = metric.decimals + signed
    text = f"{metric.scale * value:{'+' if signed else ''}.{decimals}f}"
    zero = f"{0:.{decimals}f}"
    return zero if text.lstrip("+-") == zero else text.replace("-", "−")


def _bound(row: Row) -> str:
    return NO_DATA if row.contrast is None else _number(row.contrast.bound, row.contrast.metric, True)


def _seen(row: Row, report: Report) -> str:
    """The smallest difference that would have been found, at the strictest level of Holm's, where none was."""
    found = row.contrast
    if found is None or row.adjusted is None or row.adjusted <= report.alpha:
        return "–"
    least = found.detectable(report.alpha / sum(other.contrast is not None for other in report.rows))
    return NO_DATA if least is None else f"±{math.ceil(100 * found.metric.scale * least) / 100:.2f}"


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return "<0.0001" if value < 0.0001 else f"{value:.4f}" if value < 0.01 else f"{value:.2f}"


def _pace(found: SpeedRatio) -> str:
    if found.ratio is None:
        return NO_DATA
    return ratio(found.ratio, found.low, found.high) + (NOISY if found.noisy else "")


def _memory(row: Row) -> str:
    return NO_DATA if row.memory is None else f"{percent(row.memory, signed=True)} %"


def _needed(row: Row) -> str:
    """Not rounded, for the power is that of this number."""
    if row.verdict != CANNOT_TELL or row.contrast is None or not row.needed:
        return ""
    power = "about 80 %, by the normal distribution" if row.power is None else f"{percent(row.power)} %"
    return f" (n = {row.contrast.samples}, needed: about {row.needed}, which tell with probability {power})"


def markdown(report: Report) -> str:
    """For a pull request; what stands in names and in messages of errors is shown as it is."""
    parts = [f"### {literal(title(report))}", ""]
    if report.verdict:
        parts += [f"**{literal(headline(report))}** (exit code {EXIT[report.verdict]})", ""]
        parts += [f"- {literal(reason)}" for reason in reasons(report) if not reason.startswith(PASSED)]
    if report.rows:
        headers, *lines = table(report)
        parts += ["", markdown_row(headers), markdown_rule([False] * 2 + [True] * (len(headers) - 2))]
        parts += [markdown_row(list(map(literal, cells))) for cells in lines]
    return "\n".join([*parts, "", *(f"- {literal(note)}" for note in notes(report)), ""])


def literal(text: str) -> str:
    """One line that Markdown shows as it is written: no emphasis, code, link or HTML."""
    return re.sub(r"[\\`*<&~]|(?<![^\W_])_|_(?![^\W_])|\](?=\()", r"\\\g<0>", " ".join(text.split()))
