"""The ImageNet task: every layout gives the same samples, labels and tensors, and timm's own preprocessing."""

from __future__ import annotations

import io
import pickle
import random
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.io
import timm
import torch
from PIL import Image
from timm.data import ImageNetInfo, create_transform, resolve_model_data_config
from torch.utils.data import DataLoader

from suite.contract.choice import evenly_spaced
from suite.contract.task import Reader, Sample, Score, collate
from suite.errors import CellError, RequestError
from tasks.classification import score_logits
from tasks.imagenet.task import ImageNet
from tasks.reading.images import TimmPreprocessing

SYNSETS = list(ImageNetInfo().label_names())
CLASSES = [SYNSETS[i] for i in (7, 3, 998)]  # not in sorted order, not the first ones
SAMPLE = Path(__file__).parents[3] / "shared" / "data" / "imagenet-sample"
needs_photographs = pytest.mark.skipif(not SAMPLE.is_dir(), reason="the ImageNet sample photographs are not here")
PLAIN = TimmPreprocessing((3, 32, 32), "bilinear", (0.5,) * 3, (0.5,) * 3, 1.0, "center")


def jpeg(seed: int, size: tuple[int, int] = (48, 40)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize(size).save(buffer, "JPEG")
    return buffer.getvalue()


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def class_files() -> dict[str, bytes]:
    return {f"val/{synset}/{i}.JPEG": jpeg(10 * c + i) for c, synset in enumerate(CLASSES) for i in range(3)}


def flat_files(count: int = 5) -> dict[str, bytes]:
    return {f"ILSVRC2012_val_{i:08d}.JPEG": jpeg(i) for i in range(1, count + 1)}


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        archive.writestr("__MACOSX/val/._0.JPEG", b"resource fork")
    return path


def tarred(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def outcome(task: ImageNet) -> list[tuple[str, int, bytes]]:
    return [(s.id, s.label, task.load(s, PLAIN).numpy().tobytes()) for s in task.samples]


def meta_mat(order: list[str]) -> bytes:
    """A meta.mat of the devkit's form: `order[i]` has ILSVRC2012_ID i + 1; two inner nodes follow the leaves."""
    names = [*order, "n00001740", "n00001930"]
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    rows = [(float(i), name, "w", "g", float(2 * (i > len(order)))) for i, name in enumerate(names, 1)]
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"synsets": np.array(rows, dtype=kind).reshape(-1, 1)})
    return buffer.getvalue()


def test_a_folder_a_zip_and_every_kind_of_tar_give_the_same_ids_labels_and_tensors(tmp_path):
    files = class_files()
    folder = write(tmp_path / "data", files)
    expected = outcome(ImageNet(str(folder)))
    assert [(id, label) for id, label, _ in expected] == [
        (f"{SYNSETS[label]}/{i}.JPEG", label) for label in (3, 7, 998) for i in range(3)
    ]
    for archive in (
        zipped(tmp_path / "a.zip", files),
        zipped(tmp_path / "wrapped.zip", {f"imagenet/{name}": data for name, data in files.items()}),
        zipped(tmp_path / "bare.zip", {name.removeprefix("val/"): data for name, data in files.items()}),
        tarred(tmp_path / "a.tar", files),
        tarred(tmp_path / "a.tar.gz", files, "w:gz"),
        tarred(tmp_path / "a.tar.xz", files, "w:xz"),
    ):
        assert outcome(ImageNet(str(archive))) == expected, archive.name
    assert outcome(ImageNet(str(folder / "val"))) == expected


def test_a_flat_folder_with_a_csv_gives_the_same_samples_in_every_form(tmp_path):
    files = flat_files()
    table = "name,label\n" + "".join(f"{name},{label}\n" for name, label in zip(sorted(files), (5, 5, 0, 999, 17)))
    expected = outcome(ImageNet(str(write(tmp_path / "flat", {**files, "labels.csv": table.encode()}))))
    assert [label for _, label, _ in expected] == [5, 5, 0, 999, 17]
    assert [id for id, _, _ in expected] == sorted(files)
    inside = {f"images/{name}": data for name, data in files.items()}
    rows = table.split("\n", 1)[1]
    forms = {
        "header left out": write(tmp_path / "b", {**files, "l.csv": rows.encode()}),
        "byte order mark": write(tmp_path / "c", {**files, "l.csv": b"\xef\xbb\xbf" + table.encode()}),
        "zip": zipped(tmp_path / "flat.zip", {**files, "l.csv": table.encode()}),
        "images in a folder": write(tmp_path / "d", {**inside, "l.csv": table.encode()}),
        "paths in the table": write(tmp_path / "e", {**inside, "l.csv": rows.replace("ILS", "images/ILS").encode()}),
        "no suffixes": write(tmp_path / "f", {**files, "l.csv": rows.replace(".JPEG", "").encode()}),
    }
    zipped(tmp_path / "beside.zip", files)
    wrapped = zipped(tmp_path / "wrapped.zip", inside)
    assert outcome(ImageNet(str(wrapped), labels=str(tmp_path / "c" / "l.csv"))) == expected
    write(tmp_path, {"beside.csv": table.encode()})
    for what, path in {**forms, "table beside the archive": tmp_path / "beside.zip"}.items():
        assert outcome(ImageNet(str(path))) == expected, what


def test_a_csv_may_name_synsets(tmp_path):
    table = f"ImageId,PredictionString\nILSVRC2012_val_00000001,{SYNSETS[42]} 1 2 3 4\nILSVRC2012_val_00000002.JPEG,7\n"
    task = ImageNet(str(write(tmp_path, {**flat_files(2), "LOC_val_solution.csv": table.encode()})))
    assert [s.label for s in task.samples] == [42, 7]


def test_devkit_ids_are_translated_by_meta_mat_and_not_by_sorted_order(tmp_path):
    order = list(SYNSETS)
    random.Random(0).shuffle(order)
    truth = "ILSVRC2012_validation_ground_truth.txt"
    files = {**flat_files(3), truth: b"1\n2\n1000\n"}
    expected = [SYNSETS.index(order[i]) for i in (0, 1, 999)]
    for beside in ("meta.mat", "data/meta.mat", "ILSVRC2012_devkit_t12/data/meta.mat"):
        folder = write(tmp_path / beside.replace("/", "-"), {**files, beside: meta_mat(order)})
        assert [s.label for s in ImageNet(str(folder)).samples] == expected, beside
    devkit = {
        f"ILSVRC2012_devkit_t12/data/{name}": data
        for name, data in ((truth, files[truth]), ("meta.mat", meta_mat(order)))
    }
    official = write(tmp_path / "official", devkit)
    tarred(official / "ILSVRC2012_img_val.tar", flat_files(3))
    assert [s.label for s in ImageNet(str(official / "ILSVRC2012_img_val.tar")).samples] == expected


def test_devkit_ids_without_meta_mat_are_refused_unless_their_meaning_is_said(tmp_path):
    folder = write(tmp_path, {**flat_files(3), "ILSVRC2012_validation_ground_truth.txt": b"1\n2\n1000\n"})
    with pytest.raises(RequestError, match=r"meta\.mat.*ground_truth_ids=sorted"):
        ImageNet(str(folder))
    task = ImageNet(str(folder), ground_truth_ids="sorted")
    assert [s.label for s in task.samples] == [0, 1, 999]
    assert "ground_truth_ids=sorted" in task.notes[0]


def test_a_missing_validation_image_keeps_its_own_line_and_is_listed(tmp_path):
    files = flat_files(4)
    del files["ILSVRC2012_val_00000002.JPEG"]
    write(tmp_path, {**files, "ILSVRC2012_validation_ground_truth.txt": b"10\n20\n30\n40\n"})
    task = ImageNet(str(tmp_path), ground_truth_ids="sorted")
    assert [(s.id[-6:-5], s.label) for s in task.samples] == [("1", 9), ("2", 19), ("3", 29), ("4", 39)]


def test_other_folders_are_ranked_by_name_and_must_be_as_many_as_the_model_has_classes(tmp_path):
    write(tmp_path, {f"{name}/1.png": jpeg(1) for name in ("cat", "ant", "bee")})
    task = ImageNet(str(tmp_path))
    assert {s.id: s.label for s in task.samples} == {"ant/1.png": 0, "bee/1.png": 1, "cat/1.png": 2}
    task.check_model(timm.create_model("deit_tiny_patch16_224", num_classes=3))
    with pytest.raises(RequestError, match=r"3 classes.*1000"):
        task.check_model(timm.create_model("deit_tiny_patch16_224"))


def test_synset_folders_can_be_ranked_for_a_model_of_just_these_classes(tmp_path):
    task = ImageNet(str(write(tmp_path, class_files())), num_classes=3)
    assert sorted({s.label for s in task.samples}) == [0, 1, 2]
    assert task.num_classes == 3


def test_a_limit_takes_evenly_spaced_samples_of_the_sorted_list(tmp_path):
    task = ImageNet(str(write(tmp_path, class_files())), limit=3)
    assert [s.label for s in task.samples] == [3, 7, 998]
    samples = [Sample(str(i), 0) for i in range(10)]
    assert [s.id for s in evenly_spaced(samples, 4)] == ["1", "3", "6", "8"]
    assert evenly_spaced(samples, 99) == samples
    with pytest.raises(RequestError, match="limit 0"):
        evenly_spaced(samples, 0)


@needs_photographs
@pytest.mark.parametrize("name", ["deit_small_patch16_224", "vit_tiny_patch16_224", "deit3_small_patch16_384"])
def test_preprocessing_of_photographs_equals_timms_exactly(name):
    model = timm.create_model(name)
    task = ImageNet(str(SAMPLE), limit=12)
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    preprocessing = task.preprocessing(model)
    for sample in task.samples:
        with Image.open(sample.path) as image:
            expected = transform(image.convert("RGB"))
        assert torch.equal(task.load(sample, preprocessing), expected)


@needs_photographs
def test_the_photographs_of_a_thousand_classes_have_the_labels_of_their_sorted_rank():
    task = ImageNet(str(SAMPLE))
    assert [s.label for s in task.samples] == list(range(1000))


def test_preprocessing_is_shared_by_models_that_timm_preprocesses_alike_and_by_no_others():
    small, tiny = (timm.create_model(f"deit_{size}_patch16_224") for size in ("small", "tiny"))
    assert TimmPreprocessing.of(small) == TimmPreprocessing.of(tiny)
    assert hash(TimmPreprocessing.of(small)) == hash(pickle.loads(pickle.dumps(TimmPreprocessing.of(tiny))))
    assert TimmPreprocessing.of(small, 384) != TimmPreprocessing.of(small)
    assert TimmPreprocessing.of(timm.create_model("deit_tiny_patch16_224", img_size=96)).input_size == (3, 96, 96)
    assert TimmPreprocessing.of(timm.create_model("vit_tiny_patch16_224")) != TimmPreprocessing.of(tiny)


def test_loader_workers_read_an_archive_like_the_main_process(tmp_path):
    for archive in (zipped(tmp_path / "a.zip", class_files()), tarred(tmp_path / "a.tgz", class_files(), "w:gz")):
        task = ImageNet(str(archive))
        task.load(task.samples[0], PLAIN)  # the parent holds an open handle when it forks
        reader = Reader(task, task.samples, PLAIN)
        alone = torch.cat([batch.images for batch in DataLoader(reader, 2, collate_fn=collate)])
        loader = DataLoader(reader, 2, num_workers=2, collate_fn=collate, multiprocessing_context="fork")
        assert torch.equal(torch.cat([batch.images for batch in loader]), alone)
        spawned = pickle.loads(pickle.dumps(reader))  # what a spawned worker gets: no handle survives
        assert torch.equal(torch.cat([batch.images for batch in DataLoader(spawned, 2, collate_fn=collate)]), alone)


def test_equal_logits_are_ordered_by_class_index():
    rows = score_logits(torch.zeros(2, 12), [Sample("a", 0), Sample("b", 5)], 12)
    assert [row["top5"] for row in rows] == [[0, 1, 2, 3, 4]] * 2
    assert [(row["correct"], row["correct5"]) for row in rows] == [(True, True), (False, False)]
    assert rows[0]["confidence"] == pytest.approx(1 / 12)


def test_scores_agree_with_torch_in_every_dtype():
    logits = torch.randn(16, 100, generator=torch.Generator().manual_seed(0))
    samples = [Sample(str(i), i) for i in range(16)]
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        rows = score_logits(logits.to(dtype), samples, 100)
        expected = logits.to(dtype).double().softmax(1)
        assert [row["prediction"] for row in rows] == logits.to(dtype).argmax(1).tolist()
        assert [row["confidence"] for row in rows] == pytest.approx(expected.amax(1).tolist())


def test_top5_of_five_classes_has_no_value(tmp_path):
    task = ImageNet(str(write(tmp_path, {f"{c}/1.png": jpeg(1) for c in "abcde"})))
    frame = pd.DataFrame(task.score(torch.eye(5), task.samples))
    summaries = dict(task.summaries({"all": frame, "none": frame[:0]}))
    assert summaries["all"].scores["top1"].value == 1
    assert summaries["all"].scores["top5"] == Score(None, reason="Top-5 needs at least 6 classes")
    assert summaries["none"].scores["top1"] == Score(None, reason="Top-1 needs at least 1 sample")


@pytest.mark.parametrize(
    ("logits", "words"),
    [
        (torch.zeros(2, 9), r"shape \(2, 9\).*\(2, 10\).*'a'"),
        (torch.zeros(3, 10), r"shape \(3, 10\).*'a'"),
        (torch.tensor([[0.0] * 10, [float("nan")] * 10]), "'b' hold NaN"),
        (torch.tensor([[0.0] * 10, [float("inf")] + [0.0] * 9]), "'b' hold Inf"),
        (torch.zeros(2, 10, dtype=torch.int64), r"int64.*'a'"),
        ((torch.zeros(2, 10),), "tuple.*'a'"),
    ],
)
def test_outputs_without_meaning_name_the_first_sample_and_give_no_row(logits, words):
    with pytest.raises(CellError, match=words):
        score_logits(logits, [Sample("a", 0), Sample("b", 1)], 10)


def test_a_label_out_of_range_names_its_sample():
    with pytest.raises(CellError, match=r"'b' has label 10"):
        score_logits(torch.zeros(2, 10), [Sample("a", 0), Sample("b", 10)], 10)
