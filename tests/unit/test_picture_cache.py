"""Pictures that are kept on disk: the same bits as without, made again where they are damaged, and bounded."""

from __future__ import annotations

import io
import multiprocessing
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from diskcache import Cache
from PIL import Image

from suite.api import run
from suite.errors import RequestError
from suite.sweep.plan import make_plan
from suite.sweep.progress import Progress
from suite.sweep.spec import make_spec
from tasks.reading import image_files, picture_cache
from tasks.reading.images import FLOOR, TimmPreprocessing, UnreadableImage, decode
from tasks.reading.picture_cache import CachedPreprocessing

QUIET = Progress(quiet=True)
PLAIN = TimmPreprocessing((3, 128, 128), "bilinear", (0.5,) * 3, (0.5,) * 3, 0.9, "center")
OF_TIMM = {
    "centre": PLAIN,
    "other numbers": replace(PLAIN, interpolation="bicubic", mean=(0.48, 0.45, 0.41), std=(0.22, 0.23, 0.24)),
    "squashed": replace(PLAIN, crop_mode="squash", crop_pct=1.0),
    "bordered": replace(PLAIN, crop_mode="border"),
    "oblong": replace(PLAIN, input_size=(3, 128, 160)),
    "as transformers": replace(PLAIN, input_size=(3, 127, 127), crop_mode=FLOOR),
}


def kept_in(folder: Path, preprocessing: TimmPreprocessing = PLAIN, most: int = 10**9) -> CachedPreprocessing:
    return CachedPreprocessing(**vars(preprocessing), folder=str(folder), most=most)


def photo(seed: int) -> bytes:
    draw, buffer = torch.Generator().manual_seed(seed), io.BytesIO()
    pixels = torch.randint(0, 256, (90, 120, 3), dtype=torch.uint8, generator=draw).numpy()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def decoded(monkeypatch) -> list[bytes]:
    """What had to be decoded, as it was not found."""
    seen: list[bytes] = []
    for module in (picture_cache, image_files):
        monkeypatch.setattr(module, "decode", lambda data: seen.append(data) or decode(data))
    return seen


def entries(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.val"))


@pytest.mark.parametrize("form", OF_TIMM)
def test_what_is_found_is_what_is_decoded_bit_for_bit(tmp_path, form, decoded):
    plain, data = OF_TIMM[form], photo(0)
    expected = plain(decode(data))
    for _ in range(3):
        found = kept_in(tmp_path, plain).of_file(data)
        assert torch.equal(found, expected)
        assert found.stride() == expected.stride()
    assert len(decoded) == 1


def test_what_differs_in_mean_and_deviation_alone_shares_pictures_and_nothing_else_does(tmp_path, decoded):
    data = photo(0)
    kept_in(tmp_path).of_file(data)
    other = replace(PLAIN, mean=(0.4,) * 3, std=(0.2,) * 3)
    assert torch.equal(kept_in(tmp_path, other).of_file(data), other(decode(data)))
    assert len(decoded) == 1
    others = [OF_TIMM[name] for name in ("squashed", "bordered", "oblong", "as transformers")]
    others += [replace(PLAIN, interpolation="bicubic"), replace(OF_TIMM["bordered"], mean=(0.1,) * 3)]
    for number, plain in enumerate(others, 2):
        assert torch.equal(kept_in(tmp_path, plain).of_file(data), plain(decode(data)))
        assert len(decoded) == number
    kept_in(tmp_path).of_file(photo(1))
    assert len(decoded) == len(others) + 2


def test_what_another_release_has_made_is_not_found(tmp_path, decoded, monkeypatch):
    kept_in(tmp_path).of_file(photo(0))
    monkeypatch.setattr(picture_cache, "_made_by", lambda: "another Pillow")
    kept_in(tmp_path).of_file(photo(0))
    assert len(decoded) == 2


def flip(path: Path, other: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def swap(path: Path, other: Path) -> None:
    one, two = path.read_bytes(), other.read_bytes()
    path.write_bytes(two)
    other.write_bytes(one)


DAMAGE: dict[str, Callable[[Path, Path], object]] = {
    "a bit": flip,
    "cut": lambda path, other: path.write_bytes(path.read_bytes()[:-1]),
    "empty": lambda path, other: path.write_bytes(b""),
    "gone": lambda path, other: path.unlink(),
    "another picture": swap,
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_picture_is_made_again_and_never_believed(tmp_path, kind, decoded):
    datas, cached = [photo(0), photo(1)], kept_in(tmp_path)
    expected = [cached.of_file(data) for data in datas]
    DAMAGE[kind](*entries(tmp_path))
    for _ in range(3):
        assert all(torch.equal(cached.of_file(data), image) for data, image in zip(datas, expected, strict=True))
    assert len(decoded) == 2 + (2 if kind == "another picture" else 1)
    assert len(entries(tmp_path)) == 2


class Written:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("padding", [0, 2**16])  # in the index, in a file of its own
def test_an_entry_that_is_a_pickle_is_not_run(tmp_path, decoded, padding):
    cached, data, victim = kept_in(tmp_path), photo(0), tmp_path / "victim"
    expected = cached.of_file(data)
    with Cache(str(tmp_path)) as opened:
        (key,) = list(opened)
        opened[key] = [Written(victim), bytes(padding)]
    assert torch.equal(cached.of_file(data), expected)
    assert len(decoded) == 2
    assert not victim.exists()
    with Cache(str(tmp_path)) as opened:
        assert isinstance(opened[key], bytes)  # made again


def test_a_folder_whose_index_is_damaged_is_refused_before_a_run_and_survived_in_it(tmp_path, decoded):
    cached, data = kept_in(tmp_path), photo(0)
    expected = cached.of_file(data)
    picture_cache._close_all()  # as in another process
    for file in tmp_path.glob("cache.db*"):
        file.write_bytes(b"\x00damaged\xff" * 1000)
    assert torch.equal(cached.of_file(data), expected)
    assert len(decoded) == 2
    with pytest.raises(RequestError, match=r"cannot be used: .*; name another folder, or remove it"):
        cached.check()
    (tmp_path / "a file").write_text("")
    with pytest.raises(RequestError, match="cannot be used"):
        kept_in(tmp_path / "a file").check()


def test_a_full_folder_keeps_what_came_first_and_says_so(tmp_path, decoded):
    datas = [photo(seed) for seed in range(6)]
    cached = kept_in(tmp_path, most=250_000)
    assert cached.check() == []
    for _ in range(2):
        for data in datas:
            assert torch.equal(cached.of_file(data), PLAIN(decode(data)))
    kept = len(entries(tmp_path))
    assert 1 <= kept < 6
    assert sum(file.stat().st_size for file in tmp_path.rglob("*.val")) <= 250_000
    assert decoded == datas + datas[kept:]
    assert kept_in(tmp_path, most=100_000).check() == [
        f"cache '{tmp_path}' is full: more is not kept; remove it, or raise --cache-size"
    ]


def read_all(folder: str, seeds: list[int]) -> list[bytes]:
    return [kept_in(Path(folder)).of_file(photo(seed)).numpy().tobytes() for seed in seeds]


def test_several_processes_write_and_read_one_folder_at_once(tmp_path):
    seeds = list(range(8))
    expected = [PLAIN(decode(photo(seed))).numpy().tobytes() for seed in seeds]
    read_all(str(tmp_path), seeds[:1])  # opened here before the others are forked
    with multiprocessing.get_context("fork").Pool(4) as pool:
        for found in pool.starmap(read_all, [(str(tmp_path), seeds)] * 8):
            assert found == expected
    assert len(entries(tmp_path)) == 8


def test_an_image_that_cannot_be_decoded_is_an_error_every_time(tmp_path):
    for _ in range(2):
        with pytest.raises(UnreadableImage, match="truncated"):
            kept_in(tmp_path).of_file(photo(0)[:-1])
    assert entries(tmp_path) == []


def outcomes(spec: dict) -> dict[str, pd.DataFrame]:
    results = run(spec, progress=QUIET, report=False)
    return {key: results.samples(key) for key in results.cells}


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_with_a_cache_is_the_same_run_and_a_second_model_decodes_nothing(tiny_run, tmp_path, decoded, workers):
    folder = tmp_path / "cache"
    spec = {**tiny_run, "reducers": ["tome"], "workers": workers}
    cached = {**spec, "cache": str(folder)}
    plain = outcomes(spec)
    assert list(outcomes(cached)) == list(plain)
    assert number_kept(folder) == 0  # all is stored: a cache is no part of what is asked
    again = outcomes({**cached, "out": str(tmp_path / "again")})
    assert all(again[key].equals(plain[key]) for key in plain)
    assert number_kept(folder) == 12
    before = len(decoded)
    other = outcomes({**cached, "model": "test_vit2", "out": str(tmp_path / "other")})
    assert number_kept(folder) == 12
    assert len(decoded) == before
    assert not other.keys() & plain.keys()


def number_kept(folder: Path) -> int:
    with Cache(str(folder)) as opened:
        return len(opened)


def test_where_no_pictures_can_be_kept_that_is_said(tmp_path):
    values = {"task": "scenes", "limit": 1, "reducers": "tome", "rates": "r=1", "cache": str(tmp_path / "cache")}
    assert (
        f"cache '{tmp_path / 'cache'}' is not used: task 'scenes' draws its images"
        in make_plan(make_spec(values)).notes
    )
    assert not (tmp_path / "cache").exists()
