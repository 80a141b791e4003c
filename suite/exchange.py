"""Weights that a model has for a time: a method that was trained with its backbone brings them, and takes them away."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from suite.errors import RequestError


class Exchange:
    """Tensors that change places with those of a model, and back, bit for bit; nothing is copied.

    RequestError for names or shapes that the model does not have.
    """

    def __init__(self, model: nn.Module, tensors: Mapping[str, Tensor] | None = None) -> None:
        own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        self.places: list[Tensor] = []
        self.others: list[Tensor] = []
        for name, tensor in (tensors or {}).items():
            if name not in own or own[name].shape != tensor.shape:
                wanted = f"shape {tuple(own[name].shape)}" if name in own else "no such tensor"
                raise RequestError(
                    f"backbone weights do not fit the model: {name!r} has shape {tuple(tensor.shape)}, the model has "
                    f"{wanted}; were they trained for it?"
                )
            self.places.append(own[name])
            self.others.append(tensor)

    def __bool__(self) -> bool:
        return bool(self.places)

    def swap(self) -> None:
        """What is in the model comes out, what is out goes in, in the model's device and dtype."""
        for number, (place, other) in enumerate(zip(self.places, self.others)):
            inside = place.data
            place.data = other.to(inside.device, inside.dtype)
            self.others[number] = inside
