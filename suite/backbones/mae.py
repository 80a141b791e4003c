"""MAE: Vision Transformers that were pre-trained as masked autoencoders and fine-tuned to classify.

Source: He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022, arXiv 2111.06377.
"""

from __future__ import annotations

from typing import Any

from timm.models.vision_transformer import VisionTransformer


class MaeViT(VisionTransformer):
    """A plain Vision Transformer that classifies the mean of its patch tokens, the class token left out.

    The norm comes after the mean (`fc_norm`), and there is none before it: the keys of the authors' fine-tuned weights.
    """

    proportional_attention_off_the_shelf = False
    """Models that were not trained with merged tokens are best without proportional attention here, unlike all others
    (Bolya et al., ICLR 2023, arXiv 2210.09461). A reducer whose user leaves it open should follow the model."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"global_pool": "avg", **options})
