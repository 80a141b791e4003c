"""LPIPS: how unlike two pictures look, by AlexNet's features (Zhang et al., CVPR 2018), version 0.1.

The sum over five layers of the mean over places of what learned weights make of (a - b)², a and b normalised over
channels. The weights come with torchmetrics; AlexNet's are torchvision's, a file that the user puts in place.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import alexnet

from tasks.generation.networks.files import fill, lacking, read_weights

FILES = ("alexnet-owt-7be5be79.pth",)
NO_HEADS = "torchmetrics is not installed: pip install 'reducerbench[generation]'"
LAYERS = (1, 4, 7, 9, 11)  # ReLUs whose outputs are compared
SMALLEST = 31  # pixels of a side
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
EPSILON = 1e-8


class Lpips(nn.Module):
    """Pictures (B, 3, H, W) in [0, 1], two of each -> (B,), 0 where they are equal."""

    def __init__(self, features: nn.Sequential, heads: list[Tensor]) -> None:
        """heads: (1, C, 1, 1) weights of each layer's channels."""
        super().__init__()
        self.features = features
        for number, head in enumerate(heads):
            self.register_buffer(f"head{number}", head.flatten())
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None])
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None])

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        apart = [(a - b) ** 2 for a, b in zip(self._layers(first), self._layers(second), strict=True)]
        heads = (self.get_buffer(f"head{number}") for number in range(len(apart)))
        return torch.stack([(head[:, None, None] * x).sum(1).mean((1, 2)) for head, x in zip(heads, apart)]).sum(0)

    def _layers(self, pictures: Tensor) -> list[Tensor]:
        x = (2 * pictures.float() - 1 - self.get_buffer("shift")) / self.get_buffer("scale")
        found = []
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in LAYERS:
                found.append(x / (x.square().sum(1, keepdim=True) + EPSILON).sqrt())
        return found


def lpips_lacking(folder: Path) -> str:
    return NO_HEADS if _heads_file() is None else lacking(folder, FILES, "torchvision's AlexNet")


def load_lpips(folder: Path) -> Lpips:
    """RequestError for a file that cannot be read or is of another network."""
    with torch.random.fork_rng(devices=[]):
        network = alexnet(weights=None)
    fill(network, read_weights(folder, FILES), FILES[0])
    heads = torch.load(_heads_file() or "", map_location="cpu", weights_only=True)
    return Lpips(
        network.features[: LAYERS[-1] + 1], [heads[f"lin{number}.model.1.weight"] for number in range(len(LAYERS))]
    ).eval()


def _heads_file() -> Path | None:
    """torchmetrics' file of the weights; None without torchmetrics."""
    spec = find_spec("torchmetrics")
    file = Path(spec.origin).parent / "functional/image/lpips_models/alex.pth" if spec and spec.origin else None
    return file if file and file.is_file() else None
