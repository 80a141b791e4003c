"""What works here, and what to install where something is missing."""

from __future__ import annotations

import shutil
import subprocess
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
    yield "Java (METEOR, PTB tokenizer)", *java()
    compiler = shutil.which("g++") or shutil.which("clang++")
    yield "C++ compiler (--compile)", *(("ok", compiler) if compiler else ("missing", "apt install g++"))


def java() -> tuple[str, str]:
    """State and version of the Java runtime."""
    if not shutil.which("java"):
        return "missing", "apt install default-jre-headless; captions are then scored without METEOR"
    said = subprocess.run(["java", "-version"], capture_output=True, text=True, timeout=60)
    if said.returncode:
        return "missing", (said.stderr or said.stdout).strip().splitlines()[0]
    return "ok", said.stderr.splitlines()[0]


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
