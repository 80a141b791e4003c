"""The Inception network whose features FID and KID are of, and how pictures come to it.

It is TensorFlow's of 2015, not torchvision's: pooling branches do not count the padding, the last block pools by the
maximum, and there are 1008 classes. Source: Szegedy et al., CVPR 2016; Heusel et al., NeurIPS 2017, whose distances are
of what leaves the last pool, from pictures of 299 pixels in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import inception

from tasks.generation.networks.files import fill, lacking, read_weights

FILES = ("pt_inception-2015-12-05-6726825d.pth", "weights-inception-2015-12-05-6726825d.pth")
SIDE, WIDTH = 299, 2048

Pool = Callable[[Tensor], Tensor]


def average(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def maximum(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=1, padding=1)


def pooling(block: nn.Module, pool: Pool) -> nn.Module:
    """torchvision's block with another pool in the branch that it gives last."""
    branches = block._forward
    block._forward = lambda x: [*branches(x)[:-1], block.branch_pool(pool(x))]  # type: ignore[assignment,operator]
    return block


def layers() -> Iterator[tuple[str, nn.Module]]:
    """In the order in which they run, by the names of the file; the last is in it, and is not used."""
    conv = inception.BasicConv2d
    yield "Conv2d_1a_3x3", conv(3, 32, kernel_size=3, stride=2)
    yield "Conv2d_2a_3x3", conv(32, 32, kernel_size=3)
    yield "Conv2d_2b_3x3", conv(32, 64, kernel_size=3, padding=1)
    yield "Conv2d_3b_1x1", conv(64, 80, kernel_size=1)
    yield "Conv2d_4a_3x3", conv(80, 192, kernel_size=3)
    for name, width, pooled in (("5b", 192, 32), ("5c", 256, 64), ("5d", 288, 64)):
        yield f"Mixed_{name}", pooling(inception.InceptionA(width, pooled), average)
    yield "Mixed_6a", inception.InceptionB(288)
    for name, inner in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        yield f"Mixed_{name}", pooling(inception.InceptionC(768, inner), average)
    yield "Mixed_7a", inception.InceptionD(768)
    yield "Mixed_7b", pooling(inception.InceptionE(1280), average)
    yield "Mixed_7c", pooling(inception.InceptionE(2048), maximum)
    yield "fc", nn.Linear(WIDTH, 1008)


class FidInception(nn.Module):
    """Pictures (B, 3, H, W) in [0, 1] -> features (B, 2048)."""

    def __init__(self) -> None:
        super().__init__()
        for name, layer in layers():
            self.add_module(name, layer)

    def forward(self, pictures: Tensor) -> Tensor:
        x = F.interpolate(pictures, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        x = 2 * x - 1
        for name, module in self.named_children():
            if name in ("Conv2d_3b_1x1", "Mixed_5b"):
                x = F.max_pool2d(x, kernel_size=3, stride=2)
            if name != "fc":
                x = module(x)
        return x.mean((2, 3))


def inception_lacking(folder: Path) -> str:
    return lacking(folder, FILES, "pytorch-fid's or torch-fidelity's Inception")


def load_inception(folder: Path) -> FidInception:
    """RequestError for a file that cannot be read or is of another network."""
    with torch.random.fork_rng(devices=[]):
        network = FidInception()
    fill(network, read_weights(folder, FILES), FILES[0])
    return network
