"""Models as other libraries leave them: layers of the block that are more than `nn.Linear`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

RANK = 4


class Adapter(nn.Module):
    """peft's `lora.Linear`: the layer beside two thin ones; it shows the layer's own weight as its weight."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.base_layer, self.in_features, self.out_features = layer, layer.in_features, layer.out_features
        self.down = nn.Linear(layer.in_features, RANK, bias=False)
        self.up = nn.Linear(RANK, layer.out_features, bias=False)

    weight = property(lambda self: self.base_layer.weight)
    bias = property(lambda self: self.base_layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) + self.up(self.down(x))


class Wrapper(nn.Module):
    """What users write around a layer: it computes something and shows nothing."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.inner, self.gain = layer, nn.Parameter(torch.randn(layer.out_features))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * self.gain


class Split(nn.Module):
    """Queries, keys and values of a layer each, as checkpoints of other libraries have them."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        third = layer.out_features // 3
        self.parts = nn.ModuleList(nn.Linear(layer.in_features, third) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part(x) for part in self.parts], dim=-1)


class Quantised(nn.Linear):
    """A subclass of `nn.Linear`, as bitsandbytes has them: its weight is of codes, and its forward makes it of them."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None)
        self.bias = layer.bias
        self.step = nn.Parameter(layer.weight.detach().abs().amax(1, keepdim=True) / 7)
        self.weight = nn.Parameter((layer.weight.detach() / self.step).round(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight * self.step, self.bias)


class Doubled(Tensor):
    """A tensor subclass, as torchao's quantised weights are: what a product sees is not what the memory holds."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is nn.functional.linear:
            plain = [arg.as_subclass(Tensor) * 2 if isinstance(arg, cls) else arg for arg in args]
            return func(*plain, **(kwargs or {}))
        return super().__torch_function__(func, types, args, kwargs)


class Gain(nn.Module):
    """A parametrisation: what is seen as the weight is computed from the one that is stored."""

    def forward(self, weight: Tensor) -> Tensor:
        return 1.5 * weight


def with_subclass(layer: nn.Linear) -> nn.Linear:
    """Weights of a tensor subclass in a layer that is `nn.Linear`: torchao's `quantize_` leaves models so."""
    layer.weight = nn.Parameter(layer.weight.detach().as_subclass(Doubled))
    return layer


def with_parametrisation(layer: nn.Linear) -> nn.Module:
    """`torch.nn.utils.parametrize`, which pruning, spectral norms and low-rank tuning are made with."""
    parametrize.register_parametrization(layer, "weight", Gain())
    return layer


def with_weight_norm(layer: nn.Linear) -> nn.Module:
    """`torch.nn.utils.parametrizations.weight_norm`, after a step that changed its magnitudes."""
    normed = parametrizations.weight_norm(layer)
    with torch.no_grad():
        normed.parametrizations.weight.original0.mul_(1.3)
    return normed


def with_old_weight_norm(layer: nn.Linear) -> nn.Module:
    """`torch.nn.utils.weight_norm`: a hook makes the weight anew before every forward; until then it is out of date."""
    normed = nn.utils.weight_norm(layer)
    with torch.no_grad():
        normed.weight_g.mul_(1.3)
    return normed


def with_hook(layer: nn.Linear) -> nn.Linear:
    """A hook that changes what a layer gives, as activations are steered and ablated."""
    layer.register_forward_hook(lambda module, args, out: out + out.roll(1, -1))
    return layer


def with_own_forward(layer: nn.Linear) -> nn.Linear:
    """A forward set on the one module, as accelerate does where weights are kept elsewhere."""
    before = layer.forward
    layer.forward = lambda x: 0.5 * before(x)  # type: ignore[method-assign]
    return layer


LAYERS: dict[str, Callable[[nn.Linear], nn.Module]] = {
    "an adapter": Adapter,
    "a wrapper without out_features": Wrapper,
    "split q, k and v": Split,
    "a quantised layer": Quantised,
    "a tensor subclass": with_subclass,
    "a parametrisation": with_parametrisation,
    "weight norm": with_weight_norm,
    "weight norm of old": with_old_weight_norm,
    "a hook on the output": with_hook,
    "a forward of its own": with_own_forward,
}


def change_layers(model: nn.Module, change: Callable[[nn.Linear], nn.Module], seed: int = 2) -> nn.Module:
    """The model with what makes queries, keys and values exchanged for something else, in place."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for attention, name in places(model):
            setattr(attention, name, change(getattr(attention, name)))
    return model.to(next(model.parameters()).dtype).eval()


@torch.no_grad()
def merge_layers(model: nn.Module) -> nn.Module:
    """The same function with plain layers, in place: what such a layer computes is affine, so it is read off."""
    for attention, name in places(model):
        layer, like = (
            getattr(attention, name),
            model.cls_token if hasattr(model, "cls_token") else next(model.parameters()),
        )
        width = like.shape[-1]
        at_zero = layer(torch.zeros(1, 1, width, dtype=like.dtype))[0, 0]
        rows = layer(torch.eye(width, dtype=like.dtype)[None])[0] - at_zero
        plain = nn.Linear(width, len(at_zero), dtype=like.dtype)
        plain.weight.copy_(rows.T)
        plain.bias.copy_(at_zero)
        setattr(attention, name, plain)
    return model


def places(model: nn.Module) -> list[tuple[nn.Module, str]]:
    """Where a backbone makes queries, keys and values: the attention, and the layer's name in it."""
    if hasattr(model, "encoder"):
        return [(block.self_attn, f"{part}_proj") for block in model.encoder.layers for part in "qv"]
    return [(block.attn, "qkv") for block in model.blocks]
