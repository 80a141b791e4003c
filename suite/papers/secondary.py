"""Tables of other papers and leaderboards that measure or quote methods which are here."""

from suite.papers.diffrate import EVIT_AND_TOME
from suite.papers.table import TWO_PER_MAC, PaperTable, Rates
from suite.papers.tps import RATES as TPS_RATES

_KEEP: Rates = {
    (model, method, cost): "keep=0.7"
    for model, costs in {
        "DeiT-T": {"DynamicViT": "0.8", "EViT": "0.8"},
        "DeiT-S": {"DynamicViT": "2.9", "EViT": "3.0", "ATS": "2.9"},
        "DeiT-B": {"DynamicViT": "11.5", "EViT": "11.6"},
        "ViT-S": {"EViT": "3.0"},
        "ViT-S-21K": {"EViT": "3.0"},
        "LV-ViT-S": {"EViT": "4.7"},
    }.items()
    for method, cost in costs.items()
}
_TOME: Rates = {
    (model, "ToMe", cost): rate
    for model, cost, rate in (
        ("DeiT-T", "0.8", "r=12"),
        ("DeiT-S", "2.9", "r=12"),
        ("DeiT-B", "11.5", "r=11"),
        ("ViT-S", "3.0", "r=11"),
        ("ViT-S-21K", "3.0", "r=11"),
        ("ViT-B-MAE", "12.1", "r=10"),
        ("ViT-L-MAE", "42.3", "r=5"),
        ("ViT-B-DINO", "12.1", "r=10"),
    )
}
_DORA: Rates = {
    ("DeiT-B", "ToMe", "24.1"): "r=10",
    ("DeiT-B", "MCTF", "21.9"): "r=14",
    ("ViT-B AugReg", "ToMe", "25.2"): "r=9",
    ("ViT-B AugReg", "MCTF", "23.7"): "r=12",
    ("ViT-L AugReg", "ToMe", "84.8"): "r=5",
    ("DINOv2-B/14", "ToMe", "36.2"): "r=9",
    ("DINOv2-B/14", "MCTF", "33.8"): "r=13",
}
_TOAST: Rates = {
    (model, "ToMe", cost): rate
    for model, cost, rate in (("DeiT-T", "0.7", "r=13"), ("DeiT-S", "2.7", "r=13"), ("DeiT-B", "11.5", "r=11"))
}
_LEADERBOARDS = tuple(f"Efficient ViTs on ImageNet-1K (with {model})" for model in ("LV-ViT-S", "DeiT-T"))

TABLES = (
    PaperTable(
        "frequency-aware-1", "Frequency-Aware Token Reduction (arXiv 2511.21477), Table 1", "secondary_freq_aware",
        ("Table 1",), rates=_KEEP | _TOME | {("DeiT-S", "DTEM", "3.0"): "r=11"},
    ),
    PaperTable(
        "frequency-aware-dtem", "DTEM as arXiv 2511.21477 quotes it", "dtem", ("Table 1",),
        sources=("Frequency-Aware TR (arXiv 2511.21477)",), rates={("DeiT-S", "DTEM", "3.0"): "r=11"},
    ),
    PaperTable(
        "cropr-1", "Token Cropr (arXiv 2412.00965), Table 1", "secondary_cropr", ("Table 1",),
        models={"MAE-pretrained ViT (size not in the caption; baseline 85.8)": "!the size of its ViT is not printed"},
    ),
    PaperTable("mame", "MaMe, README", "secondary_mame", ("Training-free results",), rates=EVIT_AND_TOME),
    PaperTable(
        "dora-1", "DORA, Table 1, ImageNet half", "secondary_dora", ("Table 1 (ImageNet-1K half)",), rates=_DORA,
        convention=TWO_PER_MAC,
    ),
    PaperTable("toast", "ToaST (arXiv 2602.15720), README", "secondary_toast", ("Results",), rates=_TOAST),
    PaperTable(
        "nap-mat", "NAP, HyNAP and MAT (arXiv 2512.22760), README", "nap_mat", ("NAP table", "HyNAP table", "MAT table")
    ),
    PaperTable("leaderboards", "Leaderboards: DeiT-T, LV-ViT-S", "secondary_pwc", _LEADERBOARDS, rates=TPS_RATES),
    PaperTable("opentome", "OpenToMe: unreduced timm models", "opentome", ("official_results_in1k",)),
    PaperTable("segmenter", "Segmenter, README", "dtem", ("ADE20K",), task="ade20k"),
)  # fmt: skip
