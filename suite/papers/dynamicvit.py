"""DynamicViT: Rao et al., NeurIPS 2021, arXiv 2106.02034."""

from suite.papers.table import PaperTable

TABLES = (PaperTable("dynamicvit-1", "DynamicViT, Table 1", "dynamicvit", ("Table 1",)),)
