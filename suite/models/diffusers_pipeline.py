"""diffusers' pipelines from local folders: safetensors alone, and nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from suite.errors import RequestError

INDEX = "model_index.json"
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")


def load_pipeline(folder: str | Path) -> Any:
    """The pipeline of a folder that `save_pretrained` or a hub's download made, in float32 on the CPU.

    A safety checker is left out: it would replace pictures by black ones, which no score knows. RequestError for what
    is no such folder, and for one with a pickle in it: reading that may run code.
    """
    place = Path(folder)
    if not (place / INDEX).is_file():
        raise RequestError(f"'{place}' has no {INDEX}; give the folder of a diffusers pipeline")
    for file in sorted(place.rglob("*")):
        if file.suffix in PICKLES:
            raise RequestError(
                f"'{file}' is a pickle, which may run code when it is read; take it out, or save the pipeline with "
                "safe_serialization=True"
            )
    try:
        from diffusers import DiffusionPipeline
    except ImportError as error:
        raise RequestError(f"diffusers cannot be imported ({error}); pip install 'reducerbench[generation]'") from error
    try:
        pipeline = DiffusionPipeline.from_pretrained(str(place), local_files_only=True, use_safetensors=True)
    except Exception as error:  # whatever its many parts raise
        raise RequestError(f"'{place}' cannot be loaded: {' '.join(str(error).split())}") from error
    if getattr(pipeline, "safety_checker", None) is not None:
        pipeline.safety_checker = None
    return pipeline


def denoiser_of(pipeline: Any) -> nn.Module:
    """What reducers attach to. RequestError for a pipeline without one."""
    for name in ("unet", "transformer"):
        if isinstance(part := getattr(pipeline, name, None), nn.Module):
            return part
    raise RequestError(f"{type(pipeline).__name__} has neither a unet nor a transformer")
