"""ImageNet-C: images corrupted in several ways, each at five severities, in folders CORRUPTION/SEVERITY/SYNSET.

Source: D. Hendrycks and T. Dietterich, "Benchmarking neural network robustness to common corruptions and
perturbations", ICLR 2019; AlexNet's errors from their repository, github.com/hendrycks/robustness.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from suite.contract.metric import Metric, Need
from suite.errors import RequestError, unknown
from suite.stats.aggregates import CorruptionError
from tasks.imagenet.labels import synset_index

ALL = "all"
SEVERITIES = ("1", "2", "3", "4", "5")
ALEXNET: Mapping[str, float] = MappingProxyType(
    {
        "gaussian_noise": 0.886428, "shot_noise": 0.894468, "impulse_noise": 0.922640, "defocus_blur": 0.819880,
        "glass_blur": 0.826268, "motion_blur": 0.785948, "zoom_blur": 0.798360, "snow": 0.866816, "frost": 0.826572,
        "fog": 0.819324, "brightness": 0.564592, "contrast": 0.853204, "elastic_transform": 0.646056,
        "pixelate": 0.717840, "jpeg_compression": 0.606500,
    }
)  # fmt: skip
"""Top-1 error by corruption, the mean of all severities."""
MCE = Metric(
    "mce", "mCE (%)", CorruptionError("correct", "corruption", dict(ALEXNET)), lower_is_better=True, largest=None,
    needs=(Need("corruptions", 1, "1 of ImageNet-C's 15 corruptions"),),
)  # fmt: skip


def corruption_in(name: str, above: str) -> tuple[str, str, str] | None:
    """Corruption, severity and synset of an image by the folders that it lies in; None where they say none.

    above: name of the folder that holds the whole tree, which may be the corruption.
    """
    folders = [above, *name.split("/")[:-1]]
    for place in range(2, len(folders)):
        corruption, severity, synset = folders[place - 2 : place + 1]
        if severity in SEVERITIES and synset in synset_index():
            return corruption, severity, synset
    return None


def is_corrupted(images: Iterable[str], above: str) -> bool:
    """Whether images lie as those of ImageNet-C."""
    return any(corruption_in(name, above) for name in images)


def choose_corruptions(found: Sequence[str], asked: str | Sequence[str], location: str) -> tuple[list[str], list[str]]:
    """The corruptions that are read, and a sentence on those that are not.

    asked: names, or 'all': those of mCE. RequestError for a name that is not there, or if there is none.
    """
    if not found:
        raise RequestError(
            f"data '{location}' has no folders CORRUPTION/SEVERITY/SYNSET; name the root of ImageNet-C, or leave "
            "corruptions out"
        )
    if asked == ALL:
        chosen = [name for name in found if name in ALEXNET] or list(found)
    else:
        chosen = [name.strip() for name in asked.split(",")] if isinstance(asked, str) else list(asked)
        for name in chosen:
            if name not in found:
                raise unknown("corruption", name, found)
    left = [name for name in found if name not in chosen]
    return chosen, [f"corruptions that are not read: {', '.join(left)}; corruptions=NAME,NAME chooses"] if left else []


def say_what_mce_is_over(read: Mapping[str, Sequence[str]]) -> str:
    """read: corruption -> its severities."""
    of = {name: severities for name, severities in read.items() if name in ALEXNET}
    severities = sorted({severity for those in of.values() for severity in those})
    whole = len(of) == len(ALEXNET) and all(len(those) == len(SEVERITIES) for those in of.values())
    apart = "" if whole else ", so that it is not the published measure"
    return (
        f"mCE is over {len(of)} of {len(ALEXNET)} corruptions at severities {', '.join(severities)}{apart}: errors as "
        "shares of AlexNet's"
    )
