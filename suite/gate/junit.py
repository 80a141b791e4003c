"""A verdict as JUnit XML, which every CI service shows: one case a row, and one for the contract."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from suite.gate.render import headline, place, reasons
from suite.gate.report import Report
from suite.gate.verdict import CANNOT_TELL, DISPUTED, PASSED, REGRESSED

NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 has no place for, not even escaped, and messages of errors may hold."""
TAGS = {REGRESSED: "failure", CANNOT_TELL: "error", DISPUTED: "error"}


def junit(report: Report) -> str:
    """UTF-8. Failures are what regressed; errors are what cannot be told or is disputed, as the
    run is no success either."""
    cases = [(place(row), row.verdict, f"{row.verdict}: {row.reason}") for row in report.rows]
    if report.contract:
        broken = bool(report.contract.failed)
        cases.insert(0, ("contract", REGRESSED if broken else PASSED, "; ".join(reasons(report)) if broken else ""))
    counts = {f"{tag}s": str(sum(verdict == of for _, verdict, _ in cases)) for of, tag in TAGS.items()}
    about = {"name": "reducerbench check", "tests": str(len(cases)), **counts}
    suite = ElementTree.Element("testsuite", about)
    for name, verdict, reason in cases:
        case = ElementTree.SubElement(suite, "testcase", classname=f"{report.new} against {report.base}", name=name)
        if verdict in TAGS:
            ElementTree.SubElement(case, TAGS[verdict], message=reason, type=verdict)
    ElementTree.SubElement(suite, "system-out").text = headline(report)
    for element in suite.iter():
        element.attrib.update({name: _legal(text) for name, text in element.items()})
        element.text = element.text and _legal(element.text)
    ElementTree.indent(suite)
    written: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return written.decode() + "\n"


def _legal(text: str) -> str:
    return NO_XML.sub("\N{REPLACEMENT CHARACTER}", text)
