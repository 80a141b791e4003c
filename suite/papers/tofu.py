"""ToFu: Kim et al., WACV 2024, arXiv 2312.01026."""

from suite.papers.table import PaperTable

_SD = (
    "Version, prompts, number of pictures, sampler and steps are not stated. What is run here is version 1.5; a FID of "
    "another protocol, such as that of tome-sd, is no figure to compare with."
)
_UNNAMED = "The caption names no checkpoint; 83.74 at 17.58 G fits the fine-tuned MAE ViT-B, which is what is run here."

TABLES = (
    PaperTable(
        "tofu-1", "ToFu, Table 1: ViT-B", "tofu", ("Table 1",), models={"ViT-B": "mae_vit_base_patch16"},
        notes=(_UNNAMED,),
    ),
    PaperTable(
        "tofu-4", "ToFu, Table 4: ViT-S", "tofu", ("Table 4",), rates={("DeiT-S", "DynamicViT", "2.9"): "keep=0.7"}
    ),
    PaperTable(
        "tofu-order", "ToFu: order of pruning and merging", "tofu", ("ablation (order of merging)",),
        models={"ViT-B": "mae_vit_base_patch16"}, notes=(_UNNAMED,),
    ),
    PaperTable(
        "tofu-sd", "ToFu: Stable Diffusion", "tofu", ("image generation table",), task="generation", notes=(_SD,)
    ),
)  # fmt: skip
