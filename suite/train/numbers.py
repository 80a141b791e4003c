"""The numbers of a training, which anybody may override."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from suite.rates.rate import TokensPerBlock
from suite.sweep.spec import AskedRate

FROZEN, WHOLE = "", ".*"
# What a number may be; a recipe that changes a default names the type again, and its bounds with it.
Count = Annotated[int, Field(ge=1, le=2**20)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]


class Numbers(BaseModel):
    """Defaults are the authors' where they published them. Fields are flags: `--lr 1e-4`, `--batch-size 64`.

    A recipe is a subclass: it changes defaults and adds fields.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    method: ClassVar[str]
    """The reducer that is trained."""
    source: ClassVar[str] = ""
    """Where the numbers are from."""
    kinds: ClassVar[tuple[str, ...]] = ("classification",)
    """Kinds of tasks whose loss the method can be trained with."""
    measured_by: ClassVar[frozenset[str]] = frozenset()
    """Of a method that is measured on samples, without updates: the names of those numbers that it goes by."""

    rate: AskedRate = TokensPerBlock(13)
    reducer_options: dict[str, Any] = Field(default_factory=dict)
    epochs: Count = 30
    steps: Count | None = None
    """Updates in all; overrides epochs."""
    batch_size: Count = 128
    """Samples of an update and process, accumulated ones included. Most authors train on eight processes."""
    accumulate: Count = 1
    """Parts that a batch is cut into, so that it fits into memory. Their gradients add up to the batch's; what layers
    draw (dropout, stochastic depth, Gumbel masks) or normalise over a batch (LV-ViT's stem), they do for each part."""
    lr: Positive = 1e-4
    min_lr: NotNegative = 1e-6
    warmup_epochs: NotNegative = 0.0
    weight_decay: NotNegative = 0.05
    clip: Positive | None = None
    """Largest norm of the gradient."""
    amp: bool = True
    """bfloat16 autocast; what needs float32 takes it anyway."""
    ema: float | None = Field(None, gt=0, lt=1)
    """Decay of the running average of weights that is saved instead of the last ones."""
    backbone: str = WHOLE
    """Regular expression of the backbone's parameters that are trained; empty: it is frozen."""
    backbone_lr: Positive = 1.0
    """The backbone's learning rate, as a multiple of `lr`."""
    drop_path: Share = 0.0
    mixup: NotNegative = 0.0
    cutmix: NotNegative = 0.0
    smoothing: Share = 0.1
    randaugment: str = "rand-m9-mstd0.5-inc1"
    """timm's string of an automatic augmentation; empty: none."""
    jitter: NotNegative = 0.4
    erasing: float = Field(0.25, ge=0, le=1)
    repeated: Count = 1
    """Times that a sample is repeated within a pass (repeated augmentation, Hoffer et al., CVPR 2020)."""
    crop: bool = True
    """Random crops; without, images are prepared as in evaluation and mirrored at most."""
    seed: int = Field(0, ge=0)

    def meant(self, mode: str = "python") -> dict[str, Any]:
        """The numbers that the training goes by. mode: as pydantic's `model_dump` has it."""
        return self.model_dump(mode=mode, include=set(self.measured_by) or None)

    @property
    def needs_teacher(self) -> bool:
        """An unreduced copy of the model teaches beside the labels."""
        return False


def truth(value: Any) -> bool:
    """What pydantic takes for true; a value that it takes for neither is refused where it belongs."""
    try:
        return TypeAdapter(bool).validate_python(value)
    except ValidationError:
        return False
