"""Pictures of the embedded scenes' classes, drawn by a model from noise, with nothing to download."""

from __future__ import annotations

from suite.contract.choice import evenly_spaced
from suite.contract.task import Sample
from suite.errors import RequestError
from tasks.generation.judged import JudgedGeneration
from tasks.reading.options import whole_number
from tasks.scenes.generator import CLASS_NAMES, NUM_CLASSES

FAR_FROM_PERFECT = (
    "unreduced, the judge takes two of five of scenes_dit's pictures for what they were to be: class accuracy tells "
    "methods apart less well than what is compared picture by picture"
)


class ScenesGeneration(JudgedGeneration):
    """Pictures of the main objects of embedded scenes, drawn from noise: nothing to download, nothing to read.

    `limit`: so many pictures, evenly spaced. Task options: `pictures`: how many there are (48), the 48 classes in turn
    with seed 0, then with seed 1 and so on. `steps`, `guidance`, `branches`, `max_downsample`: see `GenerationTask`.
    """

    name = "scenes-generation"
    drawn = "pictures"
    default_model = "scenes_dit"
    num_classes = NUM_CLASSES
    class_names = CLASS_NAMES

    def __init__(
        self,
        data: str | None = None,
        limit: int | None = None,
        *,
        pictures: int = 48,
        steps: int = 20,
        guidance: float = 2.0,
        branches: str = "self",
        max_downsample: int = 1,
    ) -> None:
        options = {"steps": steps, "guidance": guidance, "branches": branches, "max_downsample": max_downsample}
        super().__init__(data, limit, **options)  # type: ignore[arg-type]
        if data is not None:
            raise RequestError(f"data '{data}': task '{self.name}' draws its own pictures; leave data out")
        self.notes = [FAR_FROM_PERFECT]
        numbers = sorted(range(whole_number("pictures", pictures)), key=lambda i: (i % NUM_CLASSES, i))
        self.samples = [
            Sample(f"{CLASS_NAMES[i % NUM_CLASSES].replace(' ', '-')}/{i // NUM_CLASSES}", i % NUM_CLASSES)
            for i in evenly_spaced(numbers, limit)
        ]
