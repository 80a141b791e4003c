"""Small real photos with reference captions, in every layout that captioning data comes in."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CAPTIONS = {
    391895: ["A man with a red helmet on a small moped.", "Man riding a motor bike on a dirt road.", "A man rides."],
    522418: ["A woman wearing a net on her head cutting a cake. ", "A woman cutting a large white sheet cake."],
    42: ["This wire metal rack holds several pairs of shoes.", 'A dog "asleep" on a show rack', "Un café, très tôt."],
    318219: ["A young boy standing in front of a computer keyboard."],
}


def file_name(id: int) -> str:
    return f"COCO_val2014_{id:012d}.jpg"


def photo(seed: int, size: int = 48) -> bytes:
    soft = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(soft).resize((size, size + 8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def photos(folder: str = "", ids: Any = CAPTIONS) -> dict[str, bytes]:
    """Name -> bytes of the images, in a folder."""
    return {f"{folder}/{file_name(id)}".lstrip("/"): photo(id) for id in ids}


def coco(captions: dict[int, list[str]] = CAPTIONS) -> dict[str, Any]:
    """The content of captions_val2014.json; captions stand in another order than images, as in COCO's own."""
    images = [{"license": 3, "file_name": file_name(id), "height": 56, "width": 48, "id": id} for id in captions]
    pairs = [(id, text) for id, texts in reversed(captions.items()) for text in texts]
    annotations = [{"image_id": id, "id": 100 + i, "caption": text} for i, (id, text) in enumerate(pairs)]
    return {"info": {"year": 2014}, "images": images, "licenses": [], "annotations": annotations}


def instances(captions: dict[int, list[str]] = CAPTIONS) -> dict[str, Any]:
    """The content of an instances_val2014.json of two categories, as the last bits of ids say."""
    images = [{"file_name": file_name(id), "height": 56, "width": 48, "id": id} for id in captions]
    shown = [(id, category) for id in captions for category, bit in ((90, 1), (7, 2)) if id & bit]
    annotations = [{"image_id": id, "id": 5 + i, "category_id": of} for i, (id, of) in enumerate([*shown, *shown[:1]])]
    categories = [{"id": 90, "name": "toothbrush"}, {"id": 7, "name": "train"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def karpathy(captions: dict[int, list[str]] = CAPTIONS, splits: dict[int, str] | None = None) -> dict[str, Any]:
    """The content of dataset_coco.json; images are of split 'test' unless `splits` says otherwise."""
    images = [
        {
            "filepath": "val2014",
            "filename": file_name(id),
            "imgid": number,
            "cocoid": id,
            "split": (splits or {}).get(id, "test"),
            "sentences": [{"tokens": text.lower().split(), "raw": text, "imgid": number} for text in texts],
        }
        for number, (id, texts) in enumerate(captions.items())
    ]
    return {"images": images, "dataset": "coco"}


def write(folder: Path, files: dict[str, Any]) -> Path:
    """Files by name: bytes as they are, anything else as JSON."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        (folder / name).write_bytes(data)
    return folder
