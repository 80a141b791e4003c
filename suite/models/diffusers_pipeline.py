"""diffusers' pipelines from local folders: safetensors alone, and nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from suite.errors import RequestError
from suite.models.registry import PIPELINE_INDEX

PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")


def load_pipeline(folder: str | Path) -> Any:
    """The pipeline of a folder that `save_pretrained` or a hub's download made, in float32 on the CPU.

    A safety checker is left out: it would replace pictures by black ones, which no score knows. RequestError for what
    is no such folder, and for one with a pickle in it: reading that may run code.
    """
    place = Path(folder)
    if not (place / PIPELINE_INDEX).is_file():
        raise RequestError(f"'{place}' has no {PIPELINE_INDEX}; give the folder of a diffusers pipeline")
    for file in sorted(place.rglob("*")):
        if file.suffix in PICKLES:
            raise RequestError(
                f"'{file}' is a pickle, which may run code when it is read; take it out, or save the pipeline with "
                "safe_serialization=True"
            )
    try:
        from diffusers import DiffusionPipeline
        from diffusers.utils import is_accelerate_available
    except ImportError as error:
        raise RequestError(f"diffusers cannot be imported ({error}); pip install 'reducerbench[generation]'") from error
    how = {"local_files_only": True, "use_safetensors": True, "low_cpu_mem_usage": is_accelerate_available()}
    try:
        with without_bars():
            pipeline = DiffusionPipeline.from_pretrained(str(place), **how)
    except Exception as error:  # whatever its many parts raise
        raise RequestError(f"'{place}' cannot be loaded: {' '.join(str(error).split())}") from error
    if getattr(pipeline, "safety_checker", None) is not None:
        pipeline.safety_checker = None
    return pipeline


@contextmanager
def without_bars() -> Iterator[None]:
    """Without the progress bars of the libraries that read a pipeline's parts."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    shown = [library for library in (of_diffusers, of_transformers) if library.is_progress_bar_enabled()]
    for library in shown:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in shown:
            library.enable_progress_bar()


def denoiser_of(pipeline: Any) -> nn.Module:
    """What reducers attach to. RequestError for a pipeline without one."""
    for name in ("unet", "transformer"):
        if isinstance(part := getattr(pipeline, name, None), nn.Module):
            return part
    raise RequestError(f"{type(pipeline).__name__} has neither a unet nor a transformer")
