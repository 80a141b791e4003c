"""The protocols by name."""

from __future__ import annotations

from types import MappingProxyType

from tasks.features.fidelity import Fidelity
from tasks.features.knn import NearestNeighbours

PROTOCOLS = MappingProxyType({protocol.name: protocol for protocol in (NearestNeighbours(), Fidelity())})
LABELLED = ("knn", "fidelity")
UNLABELLED = ("fidelity",)
