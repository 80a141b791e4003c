"""What all captioning tasks share: how captions are generated, what one is worth, what captions add up to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from importlib.metadata import version
from typing import Any, Protocol, cast

import pandas as pd
import pyarrow as pa
from torch import Tensor, nn

from suite.contract.metric import Cost, Metric, Need, TaskReport
from suite.contract.task import Sample, Score, Summary, Task
from suite.errors import CellError, RequestError
from suite.stats.aggregates import Bleu, Mean, MeanLength, Meteor
from tasks.caption_scoring.scorer import CaptionScorer, CaptionScores, availability, scoring_version
from tasks.reading.images import TimmPreprocessing
from tasks.reading.options import whole_number

CAPTION = Need("captions", 1, "1 caption")
# CIDEr weighs an n-gram by the logarithm of the share of images that have it: 0 of one that all have.
TELLING = (
    Need("images", 2, "2 images"),
    Need("telling_ngrams", 1, "1 n-gram that not all images' references have"),
)
OUTCOMES = pa.schema([("id", pa.string()), ("prediction", pa.string()), ("tokens", pa.list_(pa.int32()))])


def _bleu(n: int, hidden: bool = True) -> Metric:
    """A precision of n-grams, which shorter captions do not have."""
    words = "1 caption" if n == 1 else f"1 caption of {n} words"
    return Metric(f"bleu_{n}", f"B@{n}", Bleu(n), hidden=hidden, needs=(Need(f"captions_of_{n}", 1, words),))


class Caption(Protocol):
    """What a captioning model says of an image. tokens: the ids that were generated, the end token included."""

    text: str
    tokens: Sequence[int]


class Captioner(Protocol):
    """What a captioning model has."""

    def generate(self, images: Tensor, *, num_beams: int, max_new_tokens: int) -> list[Caption]:
        """A caption of each of the images (B, 3, H, W)."""

    def check_length(self, max_new_tokens: int) -> None:
        """RequestError for more tokens than the model has positions for."""

    def decoding_macs(self, images: Tensor, num_beams: int) -> dict[str, float]:
        """Multiply-accumulates of the decoder per image, by the names of the task's costs."""


def _captioner(model: nn.Module) -> Captioner:
    return cast(Captioner, model)  # `check_model` has seen to that


class CaptioningTask(Task):
    """A task whose labels are tuples of reference captions, for models that generate text.

    Task options: `num_beams`: width of the beam, 1 for greedy search. `max_new_tokens`: most tokens of a caption, the
    end token included.
    """

    shown = TaskReport(
        metrics=(
            Metric("cider", "CIDEr", Mean("cider"), bound_to_data=True, largest=10.0, needs=(CAPTION, *TELLING)),
            _bleu(4, hidden=False),
            Metric("meteor", "METEOR", Meteor(), needs=(CAPTION,)),
            Metric("rouge_l", "ROUGE-L", Mean("rouge_l"), needs=(CAPTION,)),
            Metric("spice", "SPICE", Mean("spice"), needs=(CAPTION,)),
            _bleu(1),
            _bleu(2),
            _bleu(3),
            Metric(
                "length",
                "Tokens per caption",
                MeanLength("tokens"),
                largest=None,
                scale=1.0,
                hidden=True,
                needs=(CAPTION,),
            ),
        ),
        costs=(
            Cost("prefill", "Prefill GFLOPs"),
            Cost("per_token", "GFLOPs per token"),
        ),
        throughput="captions/s",
        remark="from image to text, so they depend on what is generated, too; costs after the encoder are of all beams",
    )
    outcomes = OUTCOMES

    def __init__(
        self, data: str | None = None, limit: int | None = None, *, num_beams: int = 1, max_new_tokens: int = 20
    ) -> None:
        super().__init__(data, limit)
        self.num_beams = whole_number("num_beams", num_beams)
        self.max_new_tokens = whole_number("max_new_tokens", max_new_tokens)
        self._prepared: CaptionScorer | None = None

    def protocol(self) -> dict[str, Any]:
        """How captions are searched for, the defaults that are never changed included, and by which releases."""
        return {
            "num_beams": self.num_beams,
            "max_new_tokens": self.max_new_tokens,
            "early_stopping": False,
            "length_penalty": 1.0,
            **{name: version(name) for name in ("transformers", "tokenizers")},
        }

    def preprocessing(self, model: nn.Module, image_size: int | None = None) -> TimmPreprocessing:
        """What the model's configuration says, as timm resolves it."""
        return TimmPreprocessing.of(model, image_size)

    def check_model(self, model: nn.Module) -> None:
        """RequestError unless the model generates captions, and ones as long as is asked."""
        if not all(callable(getattr(model, name, None)) for name in ("generate", "check_length", "decoding_macs")):
            raise RequestError(
                f"task {self.name!r} needs a captioning model such as {self.default_model}, and {type(model).__name__} "
                "generates no text; choose one with --model"
            )
        _captioner(model).check_length(self.max_new_tokens)

    def predict(self, model: nn.Module, images: Tensor) -> list[Caption]:
        """A caption of each of the preprocessed images (B, 3, H, W)."""
        return _captioner(model).generate(images, num_beams=self.num_beams, max_new_tokens=self.max_new_tokens)

    def score(self, outputs: Sequence[Caption], samples: Sequence[Sample]) -> list[dict[str, Any]]:
        """Rows of id, prediction (the caption) and tokens; see `caption_columns`."""
        rows: list[dict[str, Any]] = caption_columns(outputs, samples).to_pylist()
        return rows

    def columns(self, measured: Sequence[Caption], samples: Sequence[Sample]) -> pa.RecordBatch:
        """See `caption_columns`."""
        return caption_columns(measured, samples)

    @contextmanager
    def prepare_scoring(self) -> Iterator[None]:
        """The scorers' process takes in the references meanwhile."""
        with self._scorer() as scorer:
            with suppress(CellError):  # a cell that is scored says so
                scorer.start()
            self._prepared = scorer
            try:
                yield
            finally:
                self._prepared = None

    def _scorer(self) -> CaptionScorer:
        return CaptionScorer({sample.id: sample.label for sample in self.samples})

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_prepared": None}  # the scorers stay with this process

    def summaries(self, cells: Mapping[str, pd.DataFrame]) -> Iterator[tuple[str, Summary | CellError]]:
        """pycocoevalcap's scores of every cell against the references of all samples, as fractions.

        One process scores all cells; a cell that it cannot score is a CellError with the reason, and so is one of
        empty captions alone: a model does that which has lost its images, or its words.
        """
        if not cells:
            return
        captions = {key: captions_of(cells[key]) for key in cells}  # no more than one cell's rows are held
        for key, said in list(captions.items()):
            if len(said) > 1 and not any(text.strip() for text in said.values()):
                yield key, CellError(f"all {len(said)} captions from sample {next(iter(said))!r} on are empty")
                del captions[key]
        with nullcontext(self._prepared) if self._prepared else self._scorer() as scorer:
            for key, result in scorer.score(captions):
                yield key, result if isinstance(result, CellError) else self.summary(result, cells[key])

    def summary(self, result: CaptionScores, rows: pd.DataFrame) -> Summary:
        """A cell's scores, each with its 95 % interval over images, or with the reason why there is none."""
        counts = self.counts(result)
        lengths = self.score_metrics(rows, counts)
        missing = {name: Score(None, reason=reason) for name, reason in result.missing.items()}
        found = lengths | self.score_metrics(result.per_image, counts, result.overall) | missing
        # captions that no model made here have no tokens
        scores = {metric.name: found[metric.name] for metric in self.shown.metrics if metric.name in found}
        per_image = result.per_image.drop(columns=self.undefined(counts), errors="ignore")
        return Summary(scores, per_image, (*result.notes, *notes(captions_of(rows))))

    def counts(self, result: CaptionScores) -> dict[str, int]:
        """What the metrics need: of n-grams, captions that have one; of images, all that have references."""
        table, none = result.per_image, pd.Series(dtype=int)  # where a metric is missing, so is what it counts
        found = {"captions": len(table), "images": len(self.samples), "telling_ngrams": result.telling_ngrams}
        return found | {f"captions_of_{n}": int((table.get(f"guess_{n}", none) > 0).sum()) for n in range(1, 5)}

    def scoring_version(self) -> str:
        """The scorers' release."""
        return scoring_version()

    def scorable(self) -> list[str]:
        """What can be scored here: with Java installed later, scores that were unknown are made."""
        reasons = availability([caption for sample in self.samples for caption in sample.label])
        return [name for name, reason in reasons.items() if not reason]

    def further_costs(
        self, model: nn.Module, images: Tensor, backbone: int, count: Callable[..., int]
    ) -> dict[str, float]:
        """Multiply-accumulates of the decoder per image: for the prompt and the image, and for each token after."""
        return _captioner(model).decoding_macs(images, self.num_beams)


def caption_columns(captions: Sequence[Caption], samples: Sequence[Sample]) -> pa.RecordBatch:
    """Columns of id, prediction (the caption) and tokens.

    CellError for captions that are too few, too many or no text. An empty one is an outcome.
    """
    first = samples[0].id if samples else "none"
    if len(captions) != len(samples):
        raise CellError(f"{len(captions)} captions for {len(samples)} images from sample {first!r} on")
    for caption, sample in zip(captions, samples, strict=True):
        if not isinstance(caption.text, str):
            raise CellError(f"the caption of sample {sample.id!r} is of type {type(caption.text).__name__}")
    columns = (
        [sample.id for sample in samples],
        [caption.text for caption in captions],
        [caption.tokens for caption in captions],
    )
    arrays = [pa.array(values, field.type) for values, field in zip(columns, OUTCOMES, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=OUTCOMES)


def captions_of(rows: pd.DataFrame) -> dict[str, str]:
    """What a cell says of its images, by their ids."""
    return dict(zip(rows["id"], rows["prediction"], strict=True))


def notes(captions: Mapping[str, str]) -> tuple[str, ...]:
    """How many captions are empty, if any; `captions` by the ids of their images."""
    empty = [id for id, text in captions.items() if not text.strip()]
    return (f"{len(empty)} of {len(captions)} captions empty, first that of {empty[0]!r}",) if empty else ()
