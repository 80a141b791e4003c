"""Strict decoding of image files, and timm's own preprocessing as a value that cells can share.

Decoding follows timm and torchvision: `convert("RGB")`, so greyscale is repeated, CMYK converted,
transparency and EXIF orientation ignored. It departs from them in one thing: what cannot be decoded
completely and faithfully is an error. That includes greyscale of 16 or 32 bits a pixel, which
`convert("RGB")` would clip to white.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cache, lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image, ImageFile, UnidentifiedImageError, features
from timm.data import create_transform, resolve_model_data_config
from torch import Tensor, nn
from torchvision.transforms import CenterCrop, Compose, ToTensor

from suite.errors import RequestError, what_ran_out

# Formats that Pillow decodes itself. Others are not tried: decoding EPS, for one, would run a program.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "PPM", "TIFF", "GIF", "JPEG2000", "AVIF")
SUFFIXES = (
    ".jpeg", ".jpg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".gif", ".jp2",
    ".avif", ".heic", ".heif",
)  # fmt: skip
UNDECODED = (".heic", ".heif")  # images all the same: they count as ones that cannot be read
CONVERT = "convert it to JPEG or PNG"
FAITHFUL_MODES = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB"})
FLOOR = "center-floor"  # crop mode: see `_FloorCrop`
BORDER = "border"  # timm's
MAX_PIXELS = 89_478_485  # above this Pillow warns of a decompression bomb
MORE_PIXELS = "REDUCERBENCH_MAX_PIXELS"  # variable of the environment that allows more, or fewer


class UnreadableImage(Exception):
    """The bytes are not one complete image that 8-bit RGB can show faithfully. The text is the reason."""


def is_image(name: str) -> bool:
    """Whether a file's name ends as those of images do."""
    return name.lower().endswith(SUFFIXES)


def undecoded(names: Iterable[str]) -> list[str]:
    """A sentence on the images whose format is not decoded here, by their suffix."""
    kinds = UNDECODED if features.check("avif") else (*UNDECODED, ".avif")
    found = [name for name in names if name.lower().endswith(kinds)]
    if not found:
        return []
    suffixes = ", ".join(sorted({name[name.rindex(".") :].lower() for name in found}))
    return [
        f"{len(found)} images are {suffixes}, which is not decoded here, so that they count as unreadable, first "
        f"{found[0]}; convert them to JPEG or PNG"
    ]


def decode(data: bytes) -> Image.Image:
    """The RGB image in `data`, fully decoded. Raises UnreadableImage for anything less."""
    image = decode_unconverted(data, _formats(), _check_faithful)
    with _said_in_one_line(data):
        return image.convert("RGB")


def decode_unconverted(
    data: bytes, formats: tuple[str, ...], check: Callable[[Image.Image], None] = lambda header: None
) -> Image.Image:
    """The image in `data` as it is stored, fully decoded. Raises UnreadableImage for anything less.

    formats: Pillow's names of those that are allowed. check: of the header alone, before pixels are decoded.
    """
    if not data:
        raise UnreadableImage("the file is empty (0 bytes)")
    # The flag is global: a library that turns it on would make truncated images grey instead of errors.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    Image.MAX_IMAGE_PIXELS = most_pixels()
    with _said_in_one_line(data):
        with Image.open(io.BytesIO(data), formats=formats) as image:
            image.verify()  # checksums where the format has them; leaves the image unusable
        with Image.open(io.BytesIO(data), formats=formats) as image:
            _check_size(image)
            check(image)
            if image.format in ("JPEG", "MPO") and not _jpeg_has_end(data):
                raise UnreadableImage("image file is truncated (its end marker is missing)")
            image.load()
            return image


@contextmanager
def _said_in_one_line(data: bytes) -> Iterator[None]:
    """Whatever Pillow raises on `data` becomes UnreadableImage."""
    try:
        with warnings.catch_warnings():
            # Remarks on metadata (several ImageNet files have odd EXIF) say nothing about the pixels.
            warnings.simplefilter("ignore")
            yield
    except UnreadableImage:
        raise
    except UnidentifiedImageError:
        if data[4:8] == b"ftyp":  # the container of HEIC and AVIF
            kind = data[8:12].decode("ascii", "replace").upper()
            raise UnreadableImage(f"an image of kind {kind}, which is not decoded here; {CONVERT}") from None
        raise UnreadableImage(f"not an image ({len(data)} bytes that start with {data[:12]!r})") from None
    # On bad bytes Pillow raises OSError, SyntaxError, ValueError, struct.error, IndexError, zlib.error, ...
    except Exception as error:
        if what_ran_out(error):
            raise
        raise UnreadableImage(_one_line(error)) from error


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)  # Pillow can be built without some


def _jpeg_has_end(data: bytes) -> bool:
    """Whether an end-of-image marker follows the start of the scan.

    Pillow notices most files that were cut, but not all whose end was overwritten: zeros decode to grey pixels.
    """
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1] != 0xDA:  # walk the segments: a thumbnail has an end, too
        at += 1 if data[at + 1] == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data.find(b"\xff\xd9", at) >= 0


@cache
def most_pixels() -> int:
    """Of an image that is decoded, and of what it is resized to. RequestError for a limit that is none."""
    limit = os.environ.get(MORE_PIXELS, str(MAX_PIXELS))
    if not (limit.isascii() and limit.isdigit() and int(limit)):
        raise RequestError(f"{MORE_PIXELS}={limit!r} is not a number of pixels; give one, such as {MAX_PIXELS}")
    return int(limit)


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    if width * height > most_pixels():
        raise UnreadableImage(
            f"{width}x{height} pixels exceed the limit of {most_pixels()}; {MORE_PIXELS} in the environment raises it"
        )


def _check_faithful(image: Image.Image) -> None:
    if image.mode not in FAITHFUL_MODES:
        raise UnreadableImage(
            f"pixels of mode '{image.mode}' would be clipped in 8-bit RGB; save the image with 8 bits"
        )


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if text else type(error).__name__


class Pictured(Protocol):
    """A preprocessing that shows what it made."""

    def picture(self, view: Tensor) -> np.ndarray:
        """A view (3, H, W) as people see it: (H, W, 3) uint8."""


@dataclass(frozen=True)
class TimmPreprocessing:
    """timm's evaluation preprocessing of one model. Equal values give equal tensors: cells can share them."""

    input_size: tuple[int, int, int]
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_pct: float
    crop_mode: str

    @classmethod
    def of(cls, model: nn.Module, image_size: int | None = None) -> TimmPreprocessing:
        """What timm resolves for `model`; `image_size` (pixels) overrides the size and nothing else.

        Without it the size is the one that the model was built for, which timm's own resolution does not see
        when `img_size` was given at creation. Raises RequestError for a model that does not take 3 channels.
        """
        config = resolve_model_data_config(model)
        size = (image_size, image_size) if image_size else _built_size(model) or config["input_size"][1:]
        channels = config["input_size"][0]
        if channels != 3:
            raise RequestError(f"the model takes {channels} channels; only models of 3-channel images are supported")
        return cls(
            input_size=(channels, *size),
            interpolation=config["interpolation"],
            mean=tuple(config["mean"]),
            std=tuple(config["std"]),
            crop_pct=config["crop_pct"],
            crop_mode=config["crop_mode"],
        )

    def __call__(self, image: Image.Image) -> Tensor:
        """(3, H, W) float32 from an RGB image. Raises UnreadableImage for an absurd aspect ratio."""
        return self.normalise(self.cut(image))

    def cut(self, image: Image.Image) -> Image.Image:
        """What the model sees of an RGB image, of its size. Raises UnreadableImage for an absurd aspect ratio."""
        _check_aspect(image, self)
        cut: Image.Image = _steps(self)[0](image)
        return cut

    def normalise(self, picture: Image.Image) -> Tensor:
        """(3, H, W) float32 from what `cut` returns."""
        normalised: Tensor = _steps(self)[1](picture)
        return normalised

    @property
    def geometry(self) -> str:
        """What decides `cut`: mean and deviation do not, but for borders, which have the mean's colour."""
        said = self._asked()
        del said["std"]
        if self.crop_mode != BORDER:
            del said["mean"]
        return repr(said)

    def _asked(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(TimmPreprocessing)}

    def picture(self, view: Tensor) -> np.ndarray:
        """What the model sees, (3, H, W), as people see it: (H, W, 3) uint8."""
        return as_picture(view, self.mean, self.std)


def as_picture(view: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """The picture (H, W, 3) uint8 whose RGB in [0, 1], less `mean`, over `std`, is `view` (3, H, W)."""
    shift, scale = (torch.tensor(values)[:, None, None] for values in (mean, std))
    return view.mul(scale).add(shift).mul(255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()


def _built_size(model: nn.Module) -> tuple[int, int] | None:
    stem = getattr(model, "patch_embed", None) or getattr(model, "embeds", None)  # as NaFlexVit calls it
    size = getattr(stem, "img_size", getattr(stem, "default_img_size", None))
    return (int(size[0]), int(size[1])) if isinstance(size, tuple | list) else None


def _check_aspect(image: Image.Image, preprocessing: TimmPreprocessing) -> None:
    # timm resizes the shorter side, so a sliver of a picture becomes enormous before its centre is cropped.
    if preprocessing.crop_mode not in ("center", FLOOR):
        return
    short, long = sorted(image.size)
    target = max(preprocessing.input_size[1:]) / preprocessing.crop_pct
    if target * target * long / short > most_pixels():
        raise UnreadableImage(f"aspect ratio {long}:{short} cannot be resized to a shorter side of {target:.0f} pixels")


@lru_cache(maxsize=32)
def _steps(preprocessing: TimmPreprocessing) -> tuple[Compose, Compose]:
    """What cuts a picture out of an image, and what makes the model's input of it."""
    asked, floor = preprocessing._asked(), preprocessing.crop_mode == FLOOR
    steps = create_transform(**asked | ({"crop_mode": "center"} if floor else {}), is_training=False).transforms
    if floor:
        (place,) = (i for i, step in enumerate(steps) if isinstance(step, CenterCrop))
        steps[place] = _FloorCrop(preprocessing.input_size[1:])
    (place,) = (i for i, step in enumerate(steps) if isinstance(step, ToTensor))
    return Compose(steps[:place]), Compose(steps[place:])


@dataclass(frozen=True)
class _FloorCrop:
    """The centre of an image as transformers' image processors cut it; torchvision rounds half a pixel to even."""

    size: tuple[int, int]

    def __call__(self, image: Image.Image) -> Image.Image:
        height, width = self.size
        left, top = (image.width - width) // 2, (image.height - height) // 2
        return image.crop((left, top, left + width, top + height))
