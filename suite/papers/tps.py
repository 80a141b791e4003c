"""TPS (dTPS, eTPS): Wei et al., CVPR 2023, arXiv 2304.10716. Its keep rate is 0.7 on DeiT and 0.5 on LV-ViT-S."""

from suite.papers.table import PaperTable, Rates

_METHODS = ("DynamicViT", "EViT", "ATS", "eTPS", "dTPS")
_COSTS = {"DeiT-S": ("2.9", "3.0"), "DeiT-T": ("0.8",), "LV-ViT-S": ("3.8", "3.9")}
_KEEP = {"DeiT-S": "keep=0.7", "DeiT-T": "keep=0.7", "LV-ViT-S": "keep=0.5"}
RATES: Rates = {
    (model, method, cost): _KEEP[model] for model, costs in _COSTS.items() for cost in costs for method in _METHODS
}

TABLES = (
    PaperTable("tps-main", "TPS: vanilla ViTs", "dtps", ("comparison on vanilla ViTs",), rates=RATES),
    PaperTable("tps-headline", "TPS: abstract", "dtps", ("headline",)),
    PaperTable(
        "tps-leaderboard", "TPS: as leaderboards have it", "dtps",
        tuple(f"Efficient ViTs on ImageNet-1K (with {model})" for model in ("DeiT-T", "DeiT-S", "LV-ViT-S")),
        rates=RATES,
    ),
)  # fmt: skip
