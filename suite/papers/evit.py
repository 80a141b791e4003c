"""EViT: Liang et al., ICLR 2022, arXiv 2202.07800."""

from suite.papers.table import PaperTable

TABLES = (
    PaperTable("evit-2", "EViT, Table 2: keep rates on DeiT-S", "evit", ("Table 2",)),
    PaperTable("evit-off-the-shelf", "EViT without training", "evit", ("removal without training",)),
    PaperTable("evit-training", "EViT: length of training", "evit", ("training-length / DynamicViT comparison",)),
    PaperTable("evit-selection", "EViT: which tokens stay", "evit", ("token-selection ablation",)),
)
