"""What works here, and what to install where something is missing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError

from suite.cli.dependencies import Dependency, list_dependencies


@dataclass(frozen=True)
class Finding:
    """state: 'ok', 'missing', 'out of bounds', 'failed' or 'n/a'. command: what to run, on a line of its own."""

    item: str
    state: str
    detail: str
    command: str = ""


def diagnose() -> Iterator[Finding]:
    """Everything a run may need."""
    yield from packages()
    yield from mmcv_operators()
    yield from devices()
    yield from embedded_weights()
    yield from caption_scorers()
    compiler = shutil.which("g++") or shutil.which("clang++")
    yield Finding("C++ compiler (--compile)", *(("ok", compiler) if compiler else ("missing", "apt install g++")))


def packages() -> Iterator[Finding]:
    """Every package that this one declares, the installed release and the releases that are taken."""
    try:
        yield from map(judge_package, list_dependencies())
    except PackageNotFoundError as error:
        yield Finding(str(error.name), "n/a", "runs from sources; once installed it knows its bounds: pip install -e .")


def judge_package(package: Dependency) -> Finding:
    """What there is to say of one package; a release that is installed has to fit even where the package may lack."""
    item = f"{package.name} ({package.extra})" if package.extra else package.name
    if package.fits:
        return Finding(item, "ok", f"{package.release} ({package.releases})")
    if package.release:
        return Finding(item, "out of bounds", f"{package.release}, not {package.releases}", package.repair)
    if package.extra:
        return Finding(item, "n/a", f"not installed ({package.releases})")
    return Finding(item, "missing", f"needs {package.releases}", package.repair)


def embedded_weights() -> Iterator[Finding]:
    """The files of every model that comes with the suite."""
    item = "embedded weights"
    try:
        from suite.models.registry import list_entries
    except ImportError as error:
        yield Finding(item, "missing", f"cannot be imported: {error}")
        return
    for entry in (entry for entry in list_entries() if entry.weights):
        absent = ", ".join(path.name for path in entry.files if not path.is_file())
        bad = ("missing", f"{entry.name}: no {absent}; reinstall the package")
        yield Finding(item, *(bad if absent else ("ok", entry.name)))


def mmcv_operators() -> Iterator[Finding]:
    """mmsegmentation's models need mmcv with compiled operators; its scores do not."""
    item = "mmcv operators (mmseg:CONFIG)"
    try:
        from suite.models.mmseg_models import INSTALL, missing_operators
    except ImportError as error:
        yield Finding(item, "missing", f"cannot be imported: {error}")
        return
    reason = missing_operators()
    yield Finding(item, *(("n/a", reason, INSTALL) if reason else ("ok", "mmsegmentation's own models run")))


def caption_scorers() -> Iterator[Finding]:
    """Java, and what the captions' scorers give."""
    try:
        from tasks.caption_scoring.scorer import NEEDS_JAVA, availability, java_version, try_scorers
        from tasks.caption_scoring.spice_jars import FETCH_SPICE
    except ImportError as error:
        yield Finding("caption scorers", "missing", f"cannot be imported: {error}")
        return
    # Captions as people write them; some made of plain words alone need no tokenizer.
    reasons, java = availability(["A dog, running."]), java_version()
    yield Finding("Java (PTB tokenizer)", *(("ok", java) if java else ("missing", NEEDS_JAVA)))
    if not java:
        reasons["cider"] += "; captions of plain words in lower case are scored without"
    labels = {("bleu_4", "rouge_l", "cider"): "BLEU, ROUGE-L, CIDEr", ("meteor",): "METEOR", ("spice",): "SPICE"}
    for metrics, label in labels.items():
        reason = reasons[metrics[-1]]
        if reason:
            command = FETCH_SPICE if FETCH_SPICE in reason else ""
            yield Finding(label, "n/a", reason.replace(FETCH_SPICE, "see below"), command)
        else:
            yield Finding(label, *try_scorers(metrics))


def devices() -> Iterator[Finding]:
    """The GPUs, or that there is none."""
    try:
        import torch
    except ImportError as error:
        yield Finding("torch", "missing", f"cannot be imported: {error}")
        return
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            yield Finding(f"cuda:{index}", "ok", torch.cuda.get_device_name(index))
    else:
        yield Finding("GPU", "n/a", f"no CUDA device; runs on the CPU with {torch.get_num_threads()} threads")
