"""Classification data as other people's tools leave them: every function writes a small one and says where to look."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image
from timm.data import ImageNetInfo

SYNSETS = list(ImageNetInfo().label_names())
FEW = [SYNSETS[i] for i in (0, 1, 207, 340, 482, 569, 571, 701)]


def jpeg(seed: int, size: int = 40) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((size, size)).save(buffer, "JPEG")
    return buffer.getvalue()


def write(folder: Path, files: dict[str, bytes | str]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    return folder


def in_folders(folder: Path, names: Iterable[str], each: int = 1) -> Path:
    """`each` photos in every folder of these names."""
    return write(folder, {f"{name}/{i}.JPEG": jpeg(seed + i) for seed, name in enumerate(names) for i in range(each)})


def val_name(number: int, synset: str = "") -> str:
    return f"ILSVRC2012_val_{number:08d}{synset and '_'}{synset}.JPEG"


def flat(folder: Path, count: int = 4) -> Path:
    """ILSVRC2012_img_val.tar, unpacked: no folders."""
    return write(folder, {val_name(i): jpeg(i) for i in range(1, count + 1)})


def numbered_from_one(folder: Path) -> Path:
    """Copies of ImageNet in which `prepare_data` scripts named the folders 0001 … 1000."""
    one = jpeg(0)
    return write(folder, {f"val/{i:04d}/a.JPEG": one for i in range(1, 1001)})


def imagenet_v2(folder: Path, classes: int = 12) -> Path:
    """imagenetv2-matched-frequency.tar.gz of github.com/modestyachts/ImageNetV2: folders 0 … 999, class indices."""
    return in_folders(folder / "imagenetv2-matched-frequency-format-val", map(str, range(classes)))


def imagenette(folder: Path) -> Path:
    """imagenette2.tgz of github.com/fastai/imagenette: ten synsets, train and val, and a CSV of noisy labels."""
    for split in ("train", "val"):
        in_folders(folder / "imagenette2" / split, FEW)
    return write(folder, {"imagenette2/noisy_imagenette.csv": "path,noisy_labels_0\ntrain/a.JPEG,n02979186\n"})


def imagenet_r(folder: Path) -> Path:
    """imagenet-r.tar of github.com/hendrycks/imagenet-r: 200 synsets and a README; ImageNet-A is the same."""
    return write(in_folders(folder / "imagenet-r", FEW), {"README.txt": "ImageNet-R(endition)\n"})


def imagenet_100(folder: Path) -> Path:
    """kaggle.com/datasets/ambityga/imagenet100: train.X1 … train.X4 and val.X, with names of the synsets in a JSON."""
    for part in ("train.X1", "train.X2"):
        in_folders(folder / part, FEW[:4])
    in_folders(folder / "val.X", FEW)
    return write(folder, {"Labels.json": json.dumps(dict.fromkeys(FEW, "a name, another"))})


def imagenet_c(folder: Path, corruptions: Iterable[str] = ("fog", "gaussian_noise"), severities: int = 5) -> Path:
    """github.com/hendrycks/robustness, its tars unpacked into one folder: corruption/severity/synset."""
    for corruption in corruptions:
        for severity in range(1, severities + 1):
            in_folders(folder / corruption / str(severity), FEW[:2])
    return folder


def tiny_imagenet(folder: Path) -> Path:
    """tiny-imagenet-200.zip of cs231n.stanford.edu: val/images with val_annotations.txt, and wnids.txt, unsorted."""
    root = folder / "tiny-imagenet-200"
    listed = [(f"val_{i}.JPEG", FEW[(i * 5) % len(FEW)]) for i in range(len(FEW))]
    boxes = "".join(f"{name}\t{synset}\t0\t32\t44\t62\n" for name, synset in listed)
    files: dict[str, bytes | str] = {f"val/images/{name}": jpeg(i) for i, (name, _) in enumerate(listed)}
    files |= {"val/val_annotations.txt": boxes, "wnids.txt": "\n".join(FEW[::-1]), "words.txt": "n00001740\tentity\n"}
    files |= {f"train/{s}/images/{s}_0.JPEG": jpeg(9) for s in FEW}
    files |= {f"train/{s}/{s}_boxes.txt": f"{s}_0.JPEG\t0\t10\t63\t58\n" for s in FEW}
    return write(root, files | {"test/images/test_0.JPEG": jpeg(8)})


def official(folder: Path) -> Path:
    """image-net.org's own downloads: ILSVRC2012_img_val.tar and the devkit, neither of them unpacked."""
    order = SYNSETS[::-1]
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("num_children", "O")]
    rows = [(float(i), synset, 0.0) for i, synset in enumerate(order, 1)]
    meta = io.BytesIO()
    scipy.io.savemat(meta, {"synsets": np.array(rows, dtype=kind).reshape(-1, 1)})
    inside = "ILSVRC2012_devkit_t12/data"
    truth = {f"{inside}/ILSVRC2012_validation_ground_truth.txt": b"1\n2\n1000\n", f"{inside}/meta.mat": meta.getvalue()}
    photos = {val_name(i): jpeg(i) for i in range(1, 4)}
    for path, files in (("ILSVRC2012_img_val.tar", photos), ("ILSVRC2012_devkit_t12.tar.gz", truth)):
        with tarfile.open(folder / path, "w:gz" if path.endswith("gz") else "w") as archive:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return folder


def caffe_list(folder: Path) -> Path:
    """val.txt of caffe_ilsvrc12.tar.gz, as also mmpretrain and many loaders have it: name, space, class index."""
    labels = (65, 970, 230, 809)
    return write(flat(folder), {"val.txt": "".join(f"{val_name(i)} {label}\n" for i, label in enumerate(labels, 1))})


def kaggle(folder: Path) -> Path:
    """kaggle competitions download imagenet-object-localization-challenge: images deep below the CSV of solutions."""
    solution = "ImageId,PredictionString\n"
    solution += "".join(f"ILSVRC2012_val_{i:08d},{FEW[i]} 85 1 499 272 {FEW[i]} 0 0 9 9\n" for i in range(1, 5))
    flat(folder / "ILSVRC/Data/CLS-LOC/val")
    in_folders(folder / "ILSVRC/Data/CLS-LOC/train", FEW)
    listed = "".join(f"ILSVRC2012_val_{i:08d} {i}\n" for i in range(1, 5))
    return write(
        folder,
        {
            "LOC_val_solution.csv": solution,
            "LOC_synset_mapping.txt": "".join(f"{synset} a name\n" for synset in SYNSETS),
            "ILSVRC/ImageSets/CLS-LOC/val.txt": listed,  # numbers of lines, no labels
            "ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml": "<annotation/>",
        },
    )


def slim_synsets(folder: Path) -> Path:
    """imagenet_2012_validation_synset_labels.txt of tensorflow/models' slim: the synset of every image, by number."""
    return write(flat(folder), {"imagenet_2012_validation_synset_labels.txt": "\n".join(FEW[i] for i in (3, 1, 2, 0))})


def reassessed(folder: Path) -> Path:
    """real.json of github.com/google-research/reassessed-imagenet: all right classes of every image, none for some."""
    return write(flat(folder), {"real.json": json.dumps([[], [970, 795], [230, 231], [809]])})


def hugging_face_flat(folder: Path) -> Path:
    """val_images.tar.gz of huggingface.co/datasets/ILSVRC/imagenet-1k: flat, the synset at the end of every name."""
    return write(folder, {val_name(i + 1, synset): jpeg(i) for i, synset in enumerate(FEW[:4])})


def objectnet(folder: Path) -> Path:
    """objectnet-1.0: folders by everyday names, some of which are one or several of ImageNet's classes."""
    in_folders(folder / "objectnet-1.0/images", ("alarm_clock", "backpack", "bath_towel", "coffee_table"))
    return write(folder, {"mapping.csv": "folder,classes\nalarm_clock,409; 530\nbackpack,414\nbath_towel,434\n"})


def archive_of_archives(path: Path) -> Path:
    """ILSVRC2012_img_train.tar: a tar a class, each of flat images."""
    with tarfile.open(path, "w") as outer:
        for seed, synset in enumerate(FEW[:3]):
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as archive:
                for i in range(2):
                    data = jpeg(10 * seed + i)
                    info = tarfile.TarInfo(f"{synset}_{i}.JPEG")
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
            info = tarfile.TarInfo(f"{synset}.tar")
            info.size = inner.tell()
            inner.seek(0)
            outer.addfile(info, inner)
    return path


def littered(folder: Path) -> Path:
    """What Finder, Explorer and a Synology leave beside pictures: the thumbnails are JPEGs of their own."""
    root = in_folders(folder / "Meine Bilder – été", FEW[:2], each=2)
    for place in ("", f"{FEW[0]}/"):
        write(root, {f"{place}.DS_Store": b"\0\0\0\1Bud1", f"{place}Thumbs.db": b"\xd0\xcf\x11\xe0"})
    write(root, {f"{FEW[0]}/._0.JPEG": b"\0\5\x16\7", f"{FEW[0]}/desktop.ini": "[.ShellClassInfo]\n"})
    thumbnails = {f"{FEW[0]}/@eaDir/0.JPEG/SYNOPHOTO_THUMB_{size}.jpg": jpeg(1, 16) for size in "SM"}
    return write(root, {**thumbnails, "@eaDir/SYNO@.fileindexdb": b"x"})
