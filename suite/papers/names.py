"""Methods as papers print them, and what they are called here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from suite.contract.baseline import BASELINE


@dataclass(frozen=True)
class Method:
    """rate: the one that the name stands for, where it stands for one."""

    reducer: str
    options: Mapping[str, Any] = field(default_factory=dict)
    rate: str = ""


_SIMILARITY = "an ablation of ToMe that is no option of `tome` here"
_TOME_ABLATED = (
    "feature X_pre, feature X, feature Q, feature V, distance euclidean, distance dot, distance softmax, "
    "head aggregation concat, combine keep one, combine max pool, combine avg pool, partition sequential, "
    "partition random, attention pruning, k-means (2 iters), k-means (5 iters), greedy matching"
)
_TOME_DEFAULT = (
    "feature K, distance cosine, head aggregation mean, combine weighted avg, partition alternating, bipartite matching"
)

METHODS: dict[str, Method | str] = {
    BASELINE: Method(BASELINE),
    **dict.fromkeys(("ToMe", "ToMe (as published)"), Method("tome")),
    **dict.fromkeys((f"ToMe: {name}" for name in _TOME_ABLATED.split(", ")), _SIMILARITY),
    **dict.fromkeys((f"ToMe: {name}" for name in _TOME_DEFAULT.split(", ")), Method("tome")),
    "ToMe: MAE, no proportional attention": Method("tome", {"proportional_attention": False}),
    "ToMe: MAE, proportional attention": Method("tome", {"proportional_attention": True}),
    "ToMe: AugReg, no proportional attention": Method("tome", {"proportional_attention": False}),
    "ToMe: AugReg, proportional attention": Method("tome", {"proportional_attention": True}),
    "ToMe: random pruning": Method("random"),
    "DTEM": Method("dtem"),
    "MCTF": Method("mctf"),
    "MCTF-Fast": Method("mctf", rate="r=0.35@3,6,9"),
    "MCTF sim only": Method("mctf", {"tau_info": 0.0, "tau_size": 0.0}),
    "MCTF info only": Method("mctf", {"tau_sim": 0.0, "tau_size": 0.0}),
    "MCTF sim+info": Method("mctf", {"tau_size": 0.0}),
    "MCTF sim+info+size": Method("mctf"),
    "MCTF bidirectional matching": Method("mctf"),
    "MCTF one-way matching": Method("mctf", {"bidirectional": False}),
    **dict.fromkeys(("ToMe for SD", "ToMe (ToMeSD)"), Method("tome_sd")),
    "ToFu": Method("tofu"),
    "ToFu AVG": Method("tofu", {"merge": "average"}),
    "ToFu MLERP": Method("tofu", {"merge": "mlerp"}),
    "PRUNE then AVG (d=6)": Method("tofu", {"merge": "average", "d": 6}),
    "AVG then PRUNE": "`tofu` prunes before it merges; the other order is no option of it",
    **dict.fromkeys(("EViT", "EViT with inattentive token fusion", "EViT top-k"), Method("evit")),
    "EViT (oracle ViT)": Method("evit"),
    "EViT without inattentive token fusion": Method("evit", {"fuse": False}),
    "remove inattentive tokens at blocks 4/7/10": Method("evit", {"fuse": False}),
    **dict.fromkeys(("EViT random", "EViT min-k"), "an ablation of EViT that is no option of `evit` here"),
    "dTPS": Method("dtps"),
    "eTPS": Method("etps"),
    "TPS": "the abstract does not say which of dTPS and eTPS it is",
    "DynamicViT": Method("dynamicvit"),
    "ATS": Method("ats"),
    "PiToMe": Method("pitome"),
    "K-Medoids": Method("kmedoids"),
    "DPC-KNN": Method("dpcknn"),
    "SiT": Method("sit"),
    "Sinkhorn": Method("sinkhorn"),
    "PatchMerger": Method("patchmerger"),
    "AdaMerge": Method("adamerge"),
    "AdaMerge variant": "an ablation of AdaMerge",
    "G2TM": Method("g2tm"),
    "GTP": Method("gtp"),
    "HyNAP": Method("hynap"),
    "MAT": Method("mat"),
    "NAP": Method("nap"),
    "PPT": Method("ppt"),
    "Prune-and-Merge": Method("prune_and_merge"),
    "Representation Shift": Method("representation_shift"),
    "Zero-TPrune": Method("zero_tprune"),
    **dict.fromkeys(("DiffRate", "DiffRate prune then merge"), Method("diffrate")),
    **dict.fromkeys(
        ("DiffRate merge then prune", "DiffRate merge only", "DiffRate prune only"),
        "an ablation of DiffRate that is no option of `diffrate` here",
    ),
}
