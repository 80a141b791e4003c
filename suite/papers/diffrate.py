"""DiffRate: Chen et al., ICCV 2023, arXiv 2305.17997.

EViT's rows cost what it does without its fused token, at a quarter, half and three quarters of the depth, in MAE-H at
blocks 9, 18 and 27; on LV-ViT-S, with it.
"""

from suite.papers.table import PaperTable, Rates

_NO_FUSE = {"fuse": False}


def _evit(model: str, costs: dict[str, str]) -> Rates:
    return {(model, "EViT", cost): (rate, _NO_FUSE) for cost, rate in costs.items()}


def _tome(model: str, costs: dict[str, str]) -> Rates:
    return {(model, "ToMe", cost): rate for cost, rate in costs.items()}


EVIT_AND_TOME: Rates = {
    **_evit("ViT-S (DeiT)", {"2.3": "keep=0.5", "3.0": "keep=0.7"}),
    **_tome("ViT-S (DeiT)", {"2.3": "r=16", "2.9": "r=12"}),
    **_evit("ViT-B (DeiT)", {"8.7": "keep=0.5", "11.5": "keep=0.7"}),
    **_tome("ViT-B (DeiT)", {"8.8": "r=16", "11.5": "r=11"}),
    **_evit("ViT-B (MAE)", {"8.7": "keep=0.5", "11.5": "keep=0.7"}),
    **_tome("ViT-B (MAE)", {"8.8": "r=16", "11.5": "r=11"}),
    **_evit("ViT-L (MAE)", {"29.7": "keep=0.5", "39.6": "keep=0.7"}),
    **_tome("ViT-L (MAE)", {"31.0": "r=8", "42.3": "r=5"}),
    **_evit("ViT-H (MAE)", {"99.1": "keep=0.6@9,18,27", "112.9": "keep=0.7@9,18,27"}),
    **_tome("ViT-H (MAE)", {"92.9": "r=7", "103.4": "r=6"}),
    ("LV-ViT-S", "EViT", "3.9"): "keep=0.5",
}

TABLES = (
    PaperTable("diffrate-1", "DiffRate, Table 1", "diffrate", ("Table 1",), rates=EVIT_AND_TOME),
    PaperTable("diffrate-readme", "DiffRate, README: evaluation", "diffrate", ("Evaluation",)),
    PaperTable("diffrate-trained", "DiffRate beside trained methods", "diffrate", ("comparison with trained methods",)),
    PaperTable("diffrate-order", "DiffRate: order of pruning and merging", "diffrate", ("ablation (order)",)),
)
