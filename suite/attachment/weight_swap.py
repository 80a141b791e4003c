"""Weights that a model has for a time: a method that was trained with its backbone brings them, and takes them away."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from suite.errors import RequestError


class WeightSwap:
    """Tensors that take the place of a model's own for a time, in the device and precision that the model has then.

    The model's own come back bit for bit, unless it was converted meanwhile; then they are, too. RequestError for names
    or shapes that the model does not have.
    """

    def __init__(self, model: nn.Module, tensors: Mapping[str, Tensor] | None = None) -> None:
        self.model, self.tensors = model, dict(tensors or {})
        self._own: dict[str, Tensor] = {}
        places = self._places() if self.tensors else {}
        for name, tensor in self.tensors.items():
            if name not in places or places[name].shape != tensor.shape:
                wanted = f"shape {tuple(places[name].shape)}" if name in places else "no such tensor"
                raise RequestError(
                    f"backbone weights do not fit the model: {name!r} has shape {tuple(tensor.shape)}, the model has "
                    f"{wanted}; were they trained for it?"
                )

    def __bool__(self) -> bool:
        return bool(self.tensors)

    def _places(self) -> dict[str, Tensor]:
        """The model's tensors as they are now: conversions of a model replace its buffers."""
        return {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}

    @property
    def places(self) -> list[Tensor]:
        """Those of the model's tensors that are swapped."""
        places = self._places() if self.tensors else {}
        return [places[name] for name in self.tensors]

    def bring(self) -> None:
        """Put the tensors into the model; all of them, or none if it fails."""
        if not self.tensors:
            return
        converted = [t.to(place.device, place.dtype) for t, place in zip(self.tensors.values(), self.places)]
        for name, place, tensor in zip(self.tensors, self.places, converted):
            self._own[name] = place.data
            place.data = tensor

    def take_out(self) -> None:
        """Put the model's own tensors back."""
        if not self._own:
            return
        for name, place in zip(self.tensors, self.places):
            place.data = self._own.pop(name).to(place.device, place.dtype)
