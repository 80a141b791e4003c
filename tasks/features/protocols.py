"""The protocols by name."""

from __future__ import annotations

from types import MappingProxyType

from tasks.features.fidelity import Fidelity
from tasks.features.knn import NearestNeighbours
from tasks.features.probe import LinearProbe
from tasks.features.retrieval import Retrieval

PROTOCOLS = MappingProxyType(
    {protocol.name: protocol for protocol in (NearestNeighbours(), Retrieval(), LinearProbe(), Fidelity())}
)
LABELLED = ("knn", "retrieval", "probe", "fidelity")
UNLABELLED = ("fidelity",)
