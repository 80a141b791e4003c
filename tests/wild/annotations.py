"""Masks and captions as other people's files have them, small ones: each function writes a case into a folder."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests import captioned
from tests.captioned import CAPTIONS, coco, file_name, karpathy
from tests.segmented import encoded, photo, write

SIZE = (160, 128)  # (width, height)


def masks_of(folder: Path, *labels: np.ndarray, form: Callable[[np.ndarray], bytes] | None = None) -> Path:
    """Photos with masks (H, W) in ADE20K's layout, as `form` writes them; names as of anybody's own pictures."""
    files = {}
    for number, mask in enumerate(labels):
        files[f"images/validation/v{number}.jpg"] = photo(number, mask.shape[::-1])
        files[f"annotations/validation/v{number}.png"] = (form or (lambda mask: encoded(mask, "PNG")))(mask)
    return write(folder, files)


def patches(labels: list[int], seed: int = 0) -> np.ndarray:
    """A mask (H, W) uint8 in patches of these labels, all of which occur."""
    width, height = SIZE
    places = np.resize(np.array(labels, np.uint8), 20)
    return np.kron(np.random.default_rng(seed).permutation(places).reshape(4, 5), np.ones((32, 32), np.uint8))[
        :height, :width
    ]


def counted_from_0(folder: Path) -> Path:
    """`prepare_ade20k_sem_seg.py` of detectron2, MaskFormer and Mask2Former: 0..149, and 255 for 'other'."""
    return masks_of(folder, patches([0, 17, 149, 255]), patches([3, 80, 148, 255], seed=1))


def counted_from_1(folder: Path) -> Path:
    """ADEChallengeData2016 itself: 1..150, and 0 for 'other'."""
    return masks_of(folder, patches([0, 1, 18, 150]), patches([4, 81, 149, 0], seed=1))


def counted_from_1_with_a_border(folder: Path) -> Path:
    """ADEChallengeData2016 after an annotation tool, which marks pixels that nobody looked at by 255."""
    return masks_of(folder, patches([0, 1, 18, 150]), patches([4, 81, 149, 255], seed=1))


def without_a_telling_label(folder: Path) -> Path:
    """A few masks of either kind: neither 'flag' (150) nor an ignored pixel (255) occurs."""
    return masks_of(folder, patches([0, 17, 149]), patches([3, 80, 148], seed=1))


def without_the_first_class(folder: Path) -> Path:
    """A few masks in which 255 occurs, and 0 and 150 do not: 0 may have been made 255, or no wall be in the picture."""
    return masks_of(folder, patches([1, 17, 255]), patches([3, 80, 148], seed=1))


def cityscapes_train_ids(folder: Path) -> Path:
    """`createTrainIdLabelImgs.py` of cityscapesscripts, put where mmsegmentation's recipes for own data want them."""
    return masks_of(folder, patches([*range(10), 255]), patches([*range(10, 19), 255], seed=1))


def pascal_voc(folder: Path) -> Path:
    """SegmentationClass of VOC2012: 0 background, 1..20, 255 along the edges."""
    return masks_of(folder, patches([*range(11), 255]), patches([0, *range(11, 21), 255], seed=1))


def coco_stuff(folder: Path) -> Path:
    """stuffthingmaps of COCO-Stuff: 0..181, and 255."""
    return masks_of(folder, patches([0, 105, 181, 255]), patches([2, 156, 176, 255], seed=1))


def grey_as_rgb(folder: Path) -> Path:
    """OpenCV's `imwrite` of three equal channels, and exports of tools that know no greyscale."""
    return masks_of(folder, patches([0, 1, 150]), form=lambda mask: encoded(mask, "PNG", "RGB"))


def sixteen_bits(folder: Path) -> Path:
    """Labels that numpy had as uint16 when they were saved; 65535 is none in detectron2's full ADE20K."""
    mask = patches([0, 1, 149]).astype(np.uint16)
    mask[:8] = 65535
    return masks_of(folder, mask)


def full_ade20k_colours(mask: np.ndarray) -> bytes:
    """A `_seg.png` of the full ADE20K: class in red (tens) and green, up to some 3000; instance in blue."""
    index = mask.astype(int) * 17
    colours = np.stack([index // 256 * 10, index % 256, index % 7], axis=2)
    return encoded(colours.astype(np.uint8), "PNG")


def with_palette(mask: np.ndarray, colours: np.ndarray) -> bytes:
    """A PNG of indices whose palette has these colours (n, 3)."""
    image = Image.frombytes("P", mask.shape[::-1], mask.tobytes())
    image.putpalette(colours.astype(np.uint8).tobytes())
    return encoded(image, "PNG")


def renamed(folder: Path, image: str, *masks: str, names: tuple[str, ...] = ("a_1", "b")) -> Path:
    """Photos and masks whose names are those of `names` with an ending; of several masks the first one is good."""
    files = {}
    for number, name in enumerate(names):
        mask = patches([0, 1, 150], seed=number)
        files[f"images/validation/{image.format(name)}"] = photo(number, SIZE)
        files |= {
            f"annotations/validation/{ending.format(name)}": encoded(mask if place == 0 else mask * 0, "PNG")
            for place, ending in enumerate(masks)
        }
    return write(folder, files)


def seg_suffix(folder: Path) -> Path:
    """Masks called after their images with `_seg`, as the full ADE20K and many annotation tools have them."""
    return renamed(folder, "{}.jpg", "{}_seg.png")


def train_ids_suffix(folder: Path) -> Path:
    """`seg_map_suffix="_labelTrainIds.png"`, from mmsegmentation's recipes for own data."""
    return renamed(folder, "{}.png", "{}_labelTrainIds.png")


def cityscapes_names(folder: Path) -> Path:
    """Own data that are named as Cityscapes' are."""
    return renamed(folder, "{}_leftImg8bit.png", "{}_gtFine_labelTrainIds.png")


def several_masks(folder: Path) -> Path:
    """What createTrainIdLabelImgs.py and annotation tools leave beside a mask of classes."""
    return renamed(folder, "{}.png", "{}_labelTrainIds.png", "{}_color.png", "{}_instanceIds.png")


def some_masks(folder: Path) -> Path:
    """A part of the masks, and one whose picture is gone: an archive that was unpacked in part, labels in progress."""
    data = renamed(folder, "{}.jpg", "{}.png", names=("a", "b", "c", "d"))
    (data / "annotations/validation/b.png").unlink()
    (data / "annotations/validation/c.png").unlink()
    (data / "images/validation/d.jpg").unlink()
    return data


def full_ade20k(folder: Path) -> Path:
    """ADE20K_2021_17_01: a mask beside its picture, its parts, and what is known of both."""
    scene = "ADE20K_2021_17_01/images/ADE/validation/urban/street"
    mask = full_ade20k_colours(patches([1, 17, 90]))
    return write(
        folder,
        {
            f"{scene}/ADE_val_00000001.jpg": photo(1, SIZE),
            f"{scene}/ADE_val_00000001_seg.png": mask,
            f"{scene}/ADE_val_00000001_parts_1.png": mask,
            f"{scene}/ADE_val_00000001.json": b"{}",
        },
    )


def masks_from_a_mac(folder: Path) -> Path:
    """Pictures whose names have accents apart from their letters, and masks made elsewhere."""
    data = renamed(folder, "{}.jpg", "{}.png", names=("caf\xe9", "b"))
    (data / "images/validation/caf\xe9.jpg").rename(data / "images/validation" / decomposed("caf\xe9.jpg"))
    return data


def decomposed(name: str) -> str:
    return unicodedata.normalize("NFD", name)


def captioned_photos(names: list[str]) -> dict[str, bytes]:
    """Photos by the names of their files, each another."""
    return {name: captioned.photo(number) for number, name in enumerate(names)}


def named_as_in_2017(folder: str = "train2017") -> dict[str, bytes]:
    return captioned_photos([f"{folder}/{id:012d}.jpg" for id in CAPTIONS])


def coco_2014_on_2017(folder: Path) -> Path:
    """captions_val2014.json beside the pictures of 2017, which are the same ones by other names."""
    return captioned.write(folder, {**named_as_in_2017(), "annotations/captions_val2014.json": coco()})


def karpathy_on_2017(folder: Path) -> Path:
    """dataset_coco.json, whose names are those of 2014, on the pictures of 2017."""
    return captioned.write(folder, {**named_as_in_2017(), "dataset_coco.json": karpathy()})


def coco_2017_on_2014(folder: Path) -> Path:
    """captions_val2017.json on the pictures of 2014."""
    content = coco()
    content["images"] = [{**image, "file_name": f"{image['id']:012d}.jpg"} for image in content["images"]]
    files = captioned_photos([f"val2014/{file_name(id)}" for id in CAPTIONS])
    return captioned.write(folder, {**files, "annotations/captions_val2017.json": content})


def blip_val(folder: Path) -> Path:
    """coco_karpathy_val.json of BLIP and LAVIS: an object an image, with all its captions."""
    names = {id: f"val2014/{file_name(id)}" for id in CAPTIONS}
    content = [{"image": names[id], "caption": texts} for id, texts in CAPTIONS.items()]
    return captioned.write(folder, {**captioned_photos(list(names.values())), "coco_karpathy_val.json": content})


def blip_train(folder: Path) -> Path:
    """coco_karpathy_train.json of BLIP and LAVIS: an object a caption; here the pictures lie in other folders."""
    content = [
        {"caption": text, "image": f"val2014/{file_name(id)}", "image_id": f"coco_{id}"}
        for id, texts in CAPTIONS.items()
        for text in texts
    ]
    files = captioned_photos([f"pictures/{file_name(id)}" for id in CAPTIONS])
    return captioned.write(folder, {**files, "coco_karpathy_train.json": content})


def flickr30k(folder: Path) -> Path:
    """Karpathy's dataset_flickr30k.json: ids of its own ('imgid') and no 'cocoid', no folders."""
    content = karpathy()
    for image in content["images"]:
        del image["cocoid"], image["filepath"]
        image["filename"] = f"{image['imgid']}.jpg"
    files = captioned_photos([f"flickr30k-images/{image['filename']}" for image in content["images"]])
    return captioned.write(folder, {**files, "dataset_flickr30k.json": {**content, "dataset": "flickr30k"}})


def nocaps(folder: Path) -> Path:
    """nocaps_val_4500_captions.json: COCO's form, with names of Open Images."""
    content = coco()
    for number, image in enumerate(content["images"]):
        image["file_name"] = f"{number:016x}.jpg"
    files = captioned_photos([f"val/{image['file_name']}" for image in content["images"]])
    return captioned.write(folder, {**files, "nocaps_val_4500_captions.json": content})


def textcaps(folder: Path) -> Path:
    """TextCaps_0.1_val.json: an object a caption below 'data'."""
    data = [
        {"image_id": f"{id:016x}", "caption_id": 10 * id + number, "caption_str": text, "reference_strs": texts}
        for id, texts in CAPTIONS.items()
        for number, text in enumerate(texts)
    ]
    files = captioned_photos([f"train_images/{id:016x}.jpg" for id in CAPTIONS])
    return captioned.write(folder, {**files, "TextCaps_0.1_val.json": {"dataset_name": "textcaps", "data": data}})


def with_empty_captions(folder: Path) -> Path:
    """captions.json as annotators leave it: a caption that was never written, one of a dot, line breaks, an emoji."""
    names = {"a.jpg": ["A dog\nruns.", "", "A \U0001f415!"], "b.jpg": [" . ", "One reference."]}
    return captioned.write(folder, {**captioned_photos(list(names)), "captions.json": names})


NAMES = ("caf\xe9.jpg", "g\xe2teau \xe0 la cr\xe8me.jpg", "plain.jpg")


def captions_from_a_mac(folder: Path) -> Path:
    """Pictures zipped on macOS, whose names have accents apart from letters, and captions written elsewhere."""
    files = captioned_photos([decomposed(name) for name in NAMES])
    return captioned.write(folder, {**files, "captions.json": {name: ["a word"] for name in NAMES}})


def results_of(captions: dict[int, str], known_as: Callable[[int], str | int]) -> list[dict[str, str | int]]:
    """A results file as COCO's server wants it; known_as: what its writer calls an image."""
    return [{"image_id": known_as(id), "caption": text} for id, text in captions.items()]
