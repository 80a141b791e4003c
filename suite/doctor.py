"""What works here, and what to install where something is missing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files

PACKAGES = (
    *("torch", "torchvision", "timm", "transformers", "fvcore", "pandas", "pyarrow", "matplotlib"),
    *("pycocoevalcap", "mmsegmentation", "mmcv-lite", "scipy", "safetensors"),
)


def diagnose() -> Iterator[tuple[str, str, str]]:
    """(item, 'ok' | 'missing' | 'n/a', detail) for everything a run may need."""
    for name in PACKAGES:
        try:
            yield name, "ok", version(name)
        except PackageNotFoundError:
            yield name, "missing", f"pip install {name}"
    yield from devices()
    weights = files("suite") / "weights" / "scenes_vit.safetensors"
    yield "embedded weights", *(("ok", "scenes_vit") if weights.is_file() else ("missing", "reinstall the package"))
    yield from caption_scorers()
    compiler = shutil.which("g++") or shutil.which("clang++")
    yield "C++ compiler (--compile)", *(("ok", compiler) if compiler else ("missing", "apt install g++"))


def caption_scorers() -> Iterator[tuple[str, str, str]]:
    """Java, and what of the captions' scores works with it."""
    try:
        from tasks.caption_scoring.scorer import NEEDS_JAVA, availability, java_version
    except ImportError as error:
        yield "caption scorers", "missing", f"cannot be imported: {error}"
        return
    # Captions as people write them; some made of plain words alone need no tokenizer.
    reasons, java = availability(["A dog, running."]), java_version()
    yield "Java (PTB tokenizer)", *(("ok", java) if java else ("missing", NEEDS_JAVA))
    if not java:
        reasons["cider"] += "; captions of plain words in lower case are scored without"
    for metric, label in (("cider", "BLEU, ROUGE-L, CIDEr"), ("meteor", "METEOR"), ("spice", "SPICE")):
        yield label, "n/a" if reasons[metric] else "ok", reasons[metric] or "pycocoevalcap"


def devices() -> Iterator[tuple[str, str, str]]:
    """The GPUs, or that there is none."""
    try:
        import torch
    except ImportError as error:
        yield "torch", "missing", f"cannot be imported: {error}"
        return
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            yield f"cuda:{index}", "ok", torch.cuda.get_device_name(index)
    else:
        yield "GPU", "n/a", f"no CUDA device; runs on the CPU with {torch.get_num_threads()} threads"
