"""ToMe: Bolya et al., ICLR 2023, arXiv 2210.09461."""

from suite.papers.table import PaperTable

_SD = (
    "Published: ImageNet's classes, 512 pixels, 50 PLMS steps, fp16. Prompts and how many pictures are not in what was "
    "read. FID falls with their number: only a run of as many says something of it."
)
_ABLATIONS = ("Table 1", *(f"Table 1({part})" for part in "abcdef"))
_LEADERBOARDS = tuple(f"Efficient ViTs on ImageNet-1K (with {model})" for model in ("DeiT-S", "DeiT-T"))

TABLES = (
    PaperTable("tome-1", "ToMe, Table 1: design choices", "tome", _ABLATIONS, sources=("ToMe (arXiv 2210.09461)",)),
    PaperTable("tome-2", "ToMe, Table 2: matching", "tome", ("matching-algorithm ablation (Table 2)",)),
    PaperTable("tome-3", "ToMe, Table 3: large models", "tome", ("Table 3",)),
    PaperTable(
        "tome-4", "ToMe, Table 4: DeiT-S", "tome", ("Table 4",), rates={("DeiT-S", "DynamicViT", "2.9"): "keep=0.7"}
    ),
    PaperTable("tome-5", "ToMe, Table 5: video", "tome", ("Table 5",)),
    PaperTable("tome-audio", "ToMe: audio", "tome", ("audio table",)),
    PaperTable(
        "tome-readme", "ToMe, README", "tome",
        ("timm AugReg", "DeiT trained with ToMe", "SWAG", "MAE trained with ToMe", "MAE off-the-shelf"),
    ),
    PaperTable("tome-sweep", "ToMe: rates, as leaderboards have them", "tome", _LEADERBOARDS),
    PaperTable(
        "tome-sd", "ToMe for Stable Diffusion", "tome", ("project table",), task="generation", notes=(_SD,)
    ),
)  # fmt: skip
