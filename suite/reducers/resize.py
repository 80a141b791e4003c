"""A smaller image: the floor that a method has to beat to have a reason to exist."""

import torch.nn.functional as F

from suite.reducers.base import Reducer, register
from suite.tokens.grouping import full_precision


@register("resize")
class Resize(Reducer):
    """Shrink the image, so that the unmodified model sees fewer patches. A sanity floor.

    When: a floor is wanted: no method is worth its trouble that a smaller image beats.

    Images are shrunk as they come to the model, prepared and normalised, to whole patches of the same shape: bicubic
    with antialiasing, in float32 at least, nothing clamped. Position embeddings are resampled as the model's library
    does it. This is mode `tensor`; in mode `decode` the file is resampled once, in the same field of view:
    other images, so a run of its own, of the unreduced model (`--floor-sides`).
    """

    rates = ("side", "keep")
    reads_sizes = False

    def before_embedding(self, images, size):
        if not len(images):  # torch refuses to interpolate nothing
            return images.new_empty(0, images.shape[1], *size)
        wide = full_precision(images)
        return F.interpolate(wide, size, mode="bicubic", align_corners=False, antialias=True).to(images.dtype)
