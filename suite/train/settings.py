"""What the recipes, made for ImageNet and many GPUs, come to on the embedded models: minutes on two cores."""

from __future__ import annotations

from typing import Any

# Colours are what scenes are told apart by, and their objects fill the picture: neither is changed or cropped.
PLAIN = {"crop": False, "randaugment": "", "jitter": 0.0, "erasing": 0.0, "mixup": 0.0, "cutmix": 0.0, "smoothing": 0.0}
SHORT = {**PLAIN, "batch_size": 64, "repeated": 1, "drop_path": 0.0, "warmup_epochs": 0.0}
# Attention, norms and head: what a file of 1 MB holds of the backbone.
LIGHT = r"\.attn\.|norm|^head"

FINE_TUNED = {**SHORT, "steps": 150, "lr": 3e-4, "min_lr": 3e-6, "clip": 1.0, "backbone": LIGHT, "rate": "r=16"}
FROZEN = {**SHORT, "lr": 2e-3, "min_lr": 2e-5}
# Fresh predictors may keep next to nothing, and gradients then are a thousand times larger: one of three seeds never
# recovered without a limit and a slow start. A hundredth of the rate would not move the backbone in so few updates.
PREDICTED = {**FROZEN, "steps": 150, "rate": "keep=0.6", "backbone": "", "clip": 1.0, "warmup_epochs": 0.25}

SETTINGS: dict[str, dict[str, Any]] = {
    "dtem": {**FROZEN, "steps": 150},
    "dtps": PREDICTED,
    "dynamicvit": PREDICTED,
    # The weight makes the gradients of FLOPs and labels alike at first; else Adam would see those of FLOPs alone.
    "diffrate": {
        **SHORT,
        "steps": 320,
        "batch_size": 32,
        "lr": 0.2,
        "min_lr": 0.02,
        "flops_weight": 32.0,
    },
    "adamerge": {},  # measured as anywhere else
    "tome": FINE_TUNED,
    "tofu": FINE_TUNED,
    "mctf": FINE_TUNED,
    "pitome": {**FINE_TUNED, "rate": "r=12"},
    "evit": {**FINE_TUNED, "rate": "keep=0.5"},
    "etps": {**FINE_TUNED, "rate": "keep=0.5"},
    "prune_and_merge": {**FINE_TUNED, "rate": "keep=0.5", "score_batches": 10, "score_batch_size": 64},
}


def recipe_settings(task: str, method: str) -> dict[str, Any]:
    """What the recipe of a method is changed by on an embedded task; nothing on others."""
    return SETTINGS.get(method, SHORT) if task.startswith("scenes") else {}
