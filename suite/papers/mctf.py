"""MCTF: Lee, Choi and Kim, CVPR 2024, arXiv 2403.10030. Rows of other methods have the rates of their own papers."""

from suite.papers.table import PaperTable, Rates

_MCTF, _README = "MCTF (arXiv 2403.10030)", "MCTF official README"
_KEEP: Rates = {
    ("DeiT-S", method, cost): "keep=0.7" for method, cost in (("DynamicViT", "2.9"), ("EViT", "3.0"), ("ATS", "2.9"))
}
_RATES: Rates = _KEEP | {("DeiT-T", "ToMe", "0.7"): "r=13", ("DeiT-S", "ToMe", "2.7"): "r=13"}

TABLES = (
    PaperTable("mctf-1", "MCTF, Table 1: DeiT-T and DeiT-S", "mctf", ("Table 1",), rates=_RATES),
    PaperTable("mctf-zoo", "MCTF, README: model zoo", "mctf", ("Model Zoo",)),
    PaperTable("mctf-off-the-shelf", "MCTF without training", "mctf", ("comparison without training",)),
    PaperTable(
        "mctf-ablation", "MCTF: design choices", "mctf", ("ablation of criteria", "Table 4 (design choices)")
    ),
    PaperTable(
        "mctf-sweep", "MCTF: rates, as leaderboards have them", "mctf",
        tuple(f"Efficient ViTs on ImageNet-1K (with {model})" for model in ("DeiT-T", "DeiT-S", "LV-ViT-S")),
    ),
)  # fmt: skip
