"""Papers of which a README, an abstract, or a table that others quote could be read."""

from suite.papers.table import PaperTable, Rates

_GTP: Rates = {
    ("DeiT-B", method, cost): rate
    for method, rates in {
        "ToMe": ("r=4", "r=8", "r=11", "r=14", "r=16"),
        "EViT": ("keep=0.9", "keep=0.8", "keep=0.7", "keep=0.6", "keep=0.5"),
        "DynamicViT": ("keep=0.9", "keep=0.8", "keep=0.7", "keep=0.6", "keep=0.5"),
    }.items()
    for cost, rate in zip(("15.3", "13.1", "11.6", "9.8", "8.8"), rates, strict=True)
}
_KEPT: Rates = {
    (model, "Representation Shift", cost): "keep=0.7"
    for model, cost in (("DeiT-T", "0.8"), ("DeiT-S", "3.0"), ("DeiT-B", "11.5"))
}
_VIT_B = {"ViT-B/16": "vit_base_patch16_224.augreg2_in21k_ft_in1k"}
_UNNAMED = ("Its ViT-B/16 is not named; costs are those of any.",)
_AT_384 = {f"ViT-{letter}/16 @384": f"vit_{size}_patch16_384" for letter, size in
           zip("TSBL", ("tiny", "small", "base", "large"), strict=True)}  # fmt: skip

TABLES = (
    PaperTable(
        "gtp-deit-b", "GTP-ViT (arXiv 2311.03035): DeiT-B without fine-tuning, as quoted", "gtp",
        ("DeiT-B without fine-tuning (table number not seen)",), rates=_GTP,
    ),
    PaperTable("gtp-readme", "GTP-ViT, README and abstract", "gtp", ("README, optimal hyper-parameters", "abstract")),
    PaperTable("ppt", "PPT (arXiv 2310.01812), README, abstract and leaderboard", "ppt",
               ("README, evaluation", "Papers with Code entries", "abstract")),
    PaperTable(
        "representation-shift", "Representation Shift (arXiv 2508.00367), as quoted", "representation_shift",
        ("image classification (number not seen)", "Table 1", "Table 5"), rates=_KEPT,
    ),
    PaperTable("prune-and-merge", "Prune-and-Merge (arXiv 2503.23455), README and abstract", "prune_and_merge",
               ("Model zoo", "abstract")),
    PaperTable("prune-and-merge-segmenter", "Prune-and-Merge on Segmenter, README", "prune_and_merge",
               ("Model zoo ADE20K",), task="ade20k"),
    PaperTable("g2tm", "G2TM, results on ImageNet at 384 pixels", "g2tm", ("ImageNet 384x384",), models=_AT_384,
               notes=("Its unreduced models are not AugReg's; costs are those of any.",)),
    PaperTable("adamerge-1", "AdaMerge (arXiv 2605.27465), Table 1", "adamerge", ("Table 1",), models=_VIT_B,
               notes=_UNNAMED),
    PaperTable("adamerge-3", "AdaMerge, Table 3: ablation", "adamerge", ("Table 3 (ablation)",), models=_VIT_B,
               notes=_UNNAMED),
    PaperTable("nsr-1", "Null-space residuals (arXiv 2609.37272), part of Table 1, as quoted", "nsr",
               ("Table 1 (part)",), task="ade20k"),
    PaperTable("token-transforming", "Token Transforming (arXiv 2506.05709), abstract", "token_transforming",
               ("abstract",)),
    PaperTable("atm", "ATM (arXiv 2505.15160), abstract", "atm", ("abstract",)),
    PaperTable("zero-tprune", "Zero-TPrune (arXiv 2305.17328), abstract", "zerotprune", ("abstract",)),
    PaperTable("catis", "CATIS (arXiv 2604.16745), abstract", "claims_2025_2026", ("abstract",)),
)  # fmt: skip
