"""One set of images in the formats that people have it in: class folders become shards of tars and of Parquet."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from timm.data import ImageNetInfo

SYNSETS = list(ImageNetInfo().label_names())
Photo = tuple[str, bytes, int]


def photos_in(root: Path) -> list[Photo]:
    """Name, bytes and ImageNet class of every file `<synset>/NAME` below a folder."""
    return [(path.name, path.read_bytes(), SYNSETS.index(path.parent.name)) for path in sorted(root.glob("*/*"))]


def dealt(photos: Sequence[Photo], shards: int) -> list[Sequence[Photo]]:
    """In as many parts, whose order is another than that of the whole."""
    return [photos[::-1][i::shards] for i in range(shards)]


def write_tar(path: Path, files: Iterable[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def class_folders_tar(path: Path, photos: Sequence[Photo]) -> Path:
    return write_tar(path, ((f"val/{SYNSETS[label]}/{name}", data) for name, data, label in photos))


def webdataset(folder: Path, photos: Sequence[Photo], shards: int = 3, beside: str = "cls") -> Path:
    """Tars `val-000000.tar`, ...; beside: what says the label, 'cls' or 'json'."""

    def label_file(label: int) -> bytes:
        return str(label).encode() if beside == "cls" else json.dumps({"label": label, "width": 9}).encode()

    for number, part in enumerate(dealt(photos, shards)):
        files = [(f"{name.partition('.')[0]}.{beside}", label_file(label)) for name, _, label in part]
        write_tar(folder / f"val-{number:06d}.tar", [*files, *((name, data) for name, data, _ in part)])
    return folder


def parquet_table(photos: Sequence[Photo], names: Sequence[str] | None = SYNSETS) -> pa.Table:
    """As Hugging Face's `datasets` writes images and their labels; names: of the classes in the schema's metadata."""
    images = [{"bytes": data, "path": name} for name, data, _ in photos]
    table = pa.table(
        {
            "image": pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            "label": pa.array([label for *_, label in photos], pa.int64()),
        }
    )
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    return table.replace_schema_metadata(about if names else None)


def parquet(folder: Path, photos: Sequence[Photo], shards: int = 3, rows: int = 2, split: str = "validation") -> Path:
    """`data/validation-00000-of-00003.parquet`, ... in row groups of `rows`."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(dealt(photos, shards)):
        path = folder / "data" / f"{split}-{number:05d}-of-{shards:05d}.parquet"
        pq.write_table(parquet_table(part), path, row_group_size=rows)
    return folder
