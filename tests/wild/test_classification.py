"""Data of classification as they come: every image gets its own class, or it is said what is in the way."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import unicodedata
from pathlib import Path

import pandas as pd
import pytest
import timm
import torch
from PIL import Image, features

from reports.tables.results import write_tables
from suite import load, run
from suite.cli.app import main
from suite.contract.task import ReadError, Sample
from suite.errors import RequestError
from suite.models.load import load_model
from suite.sweep.progress import Progress
from tasks.classification import score_logits
from tasks.imagenet.corrupted import ALEXNET, MCE
from tasks.imagenet.task import ImageNet
from tests.wild import classification as wild
from tests.wild.classification import FEW, SYNSETS

QUIET = Progress(quiet=True)
OF_FEW = tuple(sorted(SYNSETS.index(synset) for synset in FEW))


def labels(data: Path, **options: object) -> dict[str, object]:
    return {sample.id: sample.label for sample in ImageNet(str(data), **options).samples}


def test_folders_without_a_known_order_are_numbered_in_sorted_order_and_that_is_said(tmp_path):
    task = ImageNet(str(wild.numbered_from_one(tmp_path)))
    assert [s.label for s in task.samples] == list(range(1000))
    [said] = task.said
    assert "sorted order" in said
    assert "'0001' is class 0, '0002' is class 1, '0003' is class 2" in said
    assert said in task.notes


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("class_to_idx.json", json.dumps({"dog": 0, "cat": 1, "sea_lion": 2})),
        ("classes.txt", "dog\ncat\nsea lion\n"),
        ("imagenet_class_index.json", json.dumps({"0": ["n1", "dog"], "1": ["n2", "cat"], "2": ["n3", "sea_lion"]})),
        ("names.json", json.dumps(["dog", "cat", "sea_lion"])),
        ("synset_words.txt", "dog, domestic dog\ncat, domestic cat\nsea_lion an animal\n".replace(",", "")),
        ("labels.csv", "folder,class\ncat,1\ndog,0\nsea_lion,2\n"),
    ],
)
def test_a_file_that_numbers_the_classes_decides_the_order_of_folders(tmp_path, name, content):
    data = wild.write(wild.in_folders(tmp_path / "data", ("cat", "dog", "sea_lion")), {name: content})
    task = ImageNet(str(data))
    assert {s.id.split("/")[0]: s.label for s in task.samples} == {"cat": 1, "dog": 0, "sea_lion": 2}
    assert task.num_classes == 3
    assert name in task.said[0]


def test_files_that_number_the_classes_differently_are_refused(tmp_path):
    data = wild.write(
        wild.in_folders(tmp_path, "ab"), {"classes.txt": "b\na\n", "class_to_idx.json": '{"a": 0, "b": 1}'}
    )
    with pytest.raises(RequestError, match=r"differently.*labels=FILE"):
        ImageNet(str(data))
    assert labels(data, labels=str(data / "classes.txt")) == {"b/0.JPEG": 0, "a/0.JPEG": 1}


def test_folders_that_are_numbers_are_class_indices_in_numeric_order(tmp_path):
    task = ImageNet(str(wild.imagenet_v2(tmp_path)))
    assert [(s.id, s.label) for s in task.samples] == [(f"{i}/0.JPEG", i) for i in range(12)]
    task.check_model(timm.create_model("test_vit", num_classes=1000))
    assert task.num_classes == 1000
    some = ImageNet(str(wild.in_folders(tmp_path / "some", ("2", "10", "999"))))
    assert [s.label for s in some.samples] == [2, 10, 999]
    with pytest.raises(RequestError, match="1000 classes, but the model outputs 7"):
        some.check_model(timm.create_model("test_vit", num_classes=7))


@pytest.mark.parametrize("data", [wild.imagenette, wild.imagenet_r, wild.imagenet_100, wild.tiny_imagenet])
def test_of_sets_with_fewer_classes_only_these_compete(tmp_path, data):
    folder = str(data(tmp_path))
    task = ImageNet(folder)
    assert sorted({SYNSETS[s.label] for s in task.samples}) == sorted(FEW)
    assert task.competing == OF_FEW
    assert "Only the 8 classes" in task.notes[-1]
    assert task.protocol() == {"classes": list(OF_FEW)}
    everything = ImageNet(folder, classes="all")
    assert everything.competing is None
    assert everything.protocol() == {}


def test_a_class_that_does_not_compete_is_never_predicted_and_confidence_is_over_those_that_do():
    logits = torch.zeros(1, 1000)
    logits[0, 3], logits[0, 569], logits[0, 0] = 9.0, 2.0, 1.0
    sample = [Sample("a", 569)]
    [row] = score_logits(logits, sample, 1000, OF_FEW)
    assert (row["prediction"], row["correct"], row["top5"][:2]) == (569, True, [569, 0])
    assert row["confidence"] == pytest.approx(logits[0, list(OF_FEW)].softmax(0).max().item())
    assert score_logits(logits, sample, 1000)[0]["prediction"] == 3


def test_labels_of_every_usual_list_are_read_beside_the_images(tmp_path):
    lists = {
        wild.caffe_list: [65, 970, 230, 809],
        wild.kaggle: [SYNSETS.index(synset) for synset in FEW[1:5]],
        wild.slim_synsets: [SYNSETS.index(FEW[i]) for i in (3, 1, 2, 0)],
        wild.hugging_face_flat: [SYNSETS.index(synset) for synset in FEW[:4]],
    }
    for data, expected in lists.items():
        folder = data(tmp_path / data.__name__)
        assert list(labels(folder).values()) == expected, data.__name__
    deep = tmp_path / "kaggle" / "ILSVRC/Data/CLS-LOC/val"
    assert list(labels(deep).values()) == lists[wild.kaggle]


def test_lists_that_agree_are_one_and_lists_that_do_not_are_refused(tmp_path):
    data = wild.hugging_face_flat(tmp_path)
    index = "".join(f"{wild.val_name(i)} {SYNSETS.index(s)}\n" for i, s in enumerate(FEW[:4], 1))
    wild.write(data, {"val.txt": index, "real.json": json.dumps([[0, 7]] * 4)})
    task = ImageNet(str(data))
    assert [s.label for s in task.samples] == [SYNSETS.index(synset) for synset in FEW[:4]]
    assert any("real.json is not used" in note for note in task.notes)
    wild.write(data, {"val.txt": index.replace(" 0\n", " 5\n")})
    with pytest.raises(RequestError, match=r"val\.txt.*of class 5.*of 0; choose one"):
        ImageNet(str(data))


def test_a_list_that_says_the_labels_of_all_images_goes_before_a_guess_about_folders(tmp_path):
    data = wild.write(tmp_path, {f"{i:04d}/{wild.val_name(i)}": wild.jpeg(i) for i in range(1, 4)})
    wild.write(data, {"LOC_val_solution.csv": "".join(f"ILSVRC2012_val_{i:08d},{FEW[i]} 1 2 3 4\n" for i in (1, 2, 3))})
    assert list(labels(data).values()) == [SYNSETS.index(synset) for synset in FEW[1:4]]


def test_of_several_right_labels_any_is_right(tmp_path):
    task = ImageNet(str(wild.reassessed(tmp_path)))
    assert [s.label for s in task.samples] == [(970, 795), (230, 231), (809,)]
    assert any("no right class" in note for note in task.notes)
    logits = torch.zeros(3, 1000)
    logits[0, 795] = logits[1, 5] = logits[2, 809] = 1
    rows = task.score(logits, task.samples)
    assert [row["correct"] for row in rows] == [True, False, True]


def test_a_mapping_of_folders_to_several_classes_leaves_the_other_folders_out(tmp_path):
    data = wild.objectnet(tmp_path)
    with pytest.raises(RequestError, match=r"4 classes, but the model outputs 1000.*labels=FILE"):
        ImageNet(str(data)).check_model(timm.create_model("test_vit", num_classes=1000))
    task = ImageNet(str(data), labels=str(data / "mapping.csv"))
    assert labels(data, labels=str(data / "mapping.csv")) == {
        "alarm_clock/0.JPEG": (409, 530),
        "backpack/0.JPEG": (414,),
        "bath_towel/0.JPEG": (434,),
    }
    assert any("without a class" in note and "coffee_table" in note for note in task.notes)
    task.check_model(timm.create_model("test_vit", num_classes=1000))


def test_a_folder_above_the_class_folders_is_refused_and_these_are_named(tmp_path):
    data = wild.imagenet_c(tmp_path)
    for root in (data, data / "fog"):
        with pytest.raises(RequestError, match=r"synsets, lie in '(fog/)?1'.*corruptions=all") as caught:
            ImageNet(str(root))
        assert "head" not in str(caught.value)
    for split in ("train", "test"):
        wild.in_folders(tmp_path / "own" / split, ("cat", "dog"))
    with pytest.raises(RequestError, match=r"'test', 'train'.* splits, no classes"):
        ImageNet(str(tmp_path / "own"))


def table_of(spec: dict, favourite: int, data: Path, **options: object) -> str:
    """table.md of a run whose weights are from a file, and say class `favourite` of every image."""
    out = Path(spec["out"])
    model = timm.create_model("test_vit")
    torch.nn.init.zeros_(model.head.weight)
    with torch.no_grad():
        model.head.bias.copy_(torch.arange(1000) == favourite)
    torch.save(model.state_dict(), out.parent / "weights.pth")
    asked = {**spec, "data": str(data), "checkpoint": str(out.parent / "weights.pth"), "limit": 20, "reducers": "tome"}
    run({**asked, "task_options": options}, progress=QUIET, report=False)
    write_tables(load(out).frame(), out)
    return (out / "table.md").read_text()


def test_a_score_at_chance_is_marked_in_the_table_with_how_the_labels_were_assigned(tiny_run, tmp_path):
    table = table_of(tiny_run, 7, wild.numbered_from_one(tmp_path / "data"))
    assert "¶ at chance: are labels in the model's order? (none, tome r=1)" in table
    assert "]¶" in table
    assert "Labels: folders are numbered in sorted order" in table


def test_a_score_above_chance_is_not_marked(tiny_run, tmp_path):
    data = wild.flat(tmp_path / "data", count=6)
    wild.write(data, {"val.txt": "".join(f"{wild.val_name(i)} 7\n" for i in range(1, 7))})
    table = table_of(tiny_run, 7, data)
    assert "100.0" in table
    assert "¶" not in table


def test_the_table_says_that_few_classes_compete(tiny_run, tmp_path):
    data = wild.imagenet_r(tmp_path / "data")
    table = table_of(tiny_run, 3, data)  # goldfish and others are in it, no shark
    assert "Only the 8 classes of the data compete for a score" in table
    assert "12.5" in table  # of equal logits the first class, of one image in eight
    unlike = {**tiny_run, "out": str(tmp_path / "all")}
    assert "]¶" in table_of(unlike, 3, data, classes="all")


def test_plan_says_once_how_labels_were_assigned(tmp_path, capsys):
    data = wild.in_folders(tmp_path / "data", ("0", "1", "10"))
    flags = ["--task", "imagenet", "--data", str(data), "--model", "test_vit", "--checkpoint", "none"]
    with pytest.raises(SystemExit) as left:
        main(["plan", *flags, "--image-size", "64", "--device", "cpu", "--reducers", "tome", "--rates", "r=1",
              "--classes", "present", "--out", str(tmp_path / "run")])  # fmt: skip
    assert left.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("numbers of folders are class indices: '0' is class 0, '1' is class 1, '10' is class 10") == 1
    assert "Only the 3 classes of the data compete for a score" in said


def test_a_tar_of_tars_is_read_in_place_as_class_folders(tmp_path):
    archive = wild.archive_of_archives(tmp_path / "train.tar")
    task = ImageNet(str(archive))
    assert {s.id: s.label for s in task.samples} == {
        f"{synset}/{synset}_{i}.JPEG": SYNSETS.index(synset) for synset in FEW[:3] for i in range(2)
    }
    for seed, synset in enumerate(FEW[:3]):
        assert task.tree.read(f"{synset}/{synset}_1.JPEG") == wild.jpeg(10 * seed + 1)
    packed = tmp_path / "train.tar.gz"
    packed.write_bytes(gzip.compress(archive.read_bytes()))
    assert labels(packed) == labels(archive)


def test_a_folder_of_class_tars_is_labelled_by_the_names_of_its_images(tmp_path):
    with tarfile.open(wild.archive_of_archives(tmp_path / "train.tar")) as archive:
        archive.extractall(tmp_path / "train", filter="data")
    assert sorted(set(labels(tmp_path / "train").values())) == sorted(map(SYNSETS.index, FEW[:3]))


def test_a_cut_tar_within_a_tar_is_named(tmp_path):
    whole = io.BytesIO()
    with tarfile.open(wild.archive_of_archives(tmp_path / "a.tar")) as outer:
        inner = outer.extractfile(f"{FEW[0]}.tar").read()[:2000]
    with tarfile.open(fileobj=whole, mode="w") as outer:
        info = tarfile.TarInfo(f"{FEW[0]}.tar")
        info.size = len(inner)
        outer.addfile(info, io.BytesIO(inner))
    (tmp_path / "cut.tar").write_bytes(whole.getvalue())
    with pytest.raises(RequestError, match=rf"cut\.tar:{FEW[0]}\.tar"):
        ImageNet(str(tmp_path / "cut.tar"))


def test_what_file_managers_and_servers_leave_is_no_image_and_no_class(tmp_path):
    data = wild.littered(tmp_path)
    task = ImageNet(str(data))
    assert [s.id for s in task.samples] == [f"{synset}/{i}.JPEG" for synset in FEW[:2] for i in range(2)]
    assert task.notes[0] == "3 files in '@eaDir', which other programs have put there, are left out"
    assert all(
        task.load(sample, task.preprocessing(timm.create_model("test_vit"))).ndim == 3 for sample in task.samples
    )


def test_links_are_followed_and_circles_of_them_are_not(tmp_path):
    wild.in_folders(tmp_path / "store", FEW[:2])
    data = tmp_path / "data"
    data.mkdir()
    for synset in FEW[:2]:
        (data / synset).symlink_to(tmp_path / "store" / synset)
    (tmp_path / "store" / FEW[0] / "back").symlink_to(data)
    assert list(labels(data)) == [f"{synset}/0.JPEG" for synset in FEW[:2]]


def test_photographs_named_jfif_and_avif_are_read_and_heic_is_named_before_a_run(tmp_path):
    data = wild.write(
        tmp_path, {f"{FEW[0]}/a.jfif": wild.jpeg(0), f"{FEW[0]}/b.HEIC": b"\0\0\0\x18ftypheic" + bytes(40)}
    )
    if features.check("avif"):
        Image.new("RGB", (40, 40), "red").save(data / FEW[0] / "c.avif")
    task = ImageNet(str(data))
    preprocessing = task.preprocessing(timm.create_model("test_vit"))
    for sample in task.samples:
        if sample.id.endswith("HEIC"):
            with pytest.raises(ReadError, match="kind HEIC, which is not decoded here; convert it"):
                task.load(sample, preprocessing)
        else:
            assert task.load(sample, preprocessing).shape[0] == 3
    assert "1 images are .heic, which is not decoded here" in task.notes[0]
    only = wild.write(tmp_path / "only", {f"{FEW[0]}/notes.svg": "<svg/>"})
    with pytest.raises(RequestError, match=r"no image, but 1 files \.svg"):
        ImageNet(str(only))
    bare = wild.write(tmp_path / "bare", {"n1": "x"})
    with pytest.raises(RequestError, match="no image, but 1 files without a suffix"):
        ImageNet(str(bare))


def test_mce_is_the_mean_of_errors_relative_to_alexnets(tiny_run, tmp_path):
    data = wild.imagenet_c(tmp_path / "data")
    wild.in_folders(data / "saturate" / "1", FEW[:2])  # not one of mCE's
    table = table_of(tiny_run, 0, data, corruptions="all")
    frame = load(tiny_run["out"]).frame()
    expected = (0.5 / 0.819324 + 0.5 / 0.886428) / 2  # of two classes, one is always said
    assert frame.mce.tolist() == pytest.approx([expected] * 2)
    assert f"{100 * expected:.1f}" in table
    assert (
        "mCE is over 2 of 15 corruptions at severities 1, 2, 3, 4, 5, so that it is not the published measure" in table
    )
    assert set(load(tiny_run["out"]).samples(frame.index[0]).corruption) == {"fog", "gaussian_noise"}


def test_a_corruption_is_chosen_by_name_and_may_be_the_folder_itself(tmp_path):
    data = wild.imagenet_c(tmp_path)
    fog = ImageNet(str(data), corruptions="fog")
    assert {s.id.split("/")[0] for s in fog.samples} == {"fog"}
    assert "gaussian_noise" in fog.notes[0]
    alone = ImageNet(str(data / "fog"), corruptions="all")
    assert [s.label for s in alone.samples] == [s.label for s in fog.samples]
    assert len(fog.samples) == 10
    with pytest.raises(RequestError, match="did you mean 'fog'"):
        ImageNet(str(data), corruptions="fogg")
    with pytest.raises(RequestError, match="corruptions stand beside num_classes=2"):
        ImageNet(str(data), corruptions="all", num_classes=2)
    with pytest.raises(RequestError, match="no folders CORRUPTION/SEVERITY/SYNSET"):
        ImageNet(str(wild.imagenet_r(tmp_path / "r")), corruptions="all")


def test_the_reference_of_mce_is_all_of_its_corruptions():
    """AlexNet's own mCE is 100 %."""
    assert len(ALEXNET) == 15
    kinds = pd.DataFrame({"corruption": list(ALEXNET), "correct": [1 - error for error in ALEXNET.values()]})
    assert MCE.made_of.score(next(MCE.made_of.addends(kinds))) == pytest.approx(1)


@pytest.mark.parametrize("key", ["class_to_idx", "classes", "meta"])
def test_the_names_of_classes_in_a_checkpoint_go_before_the_rank_of_folders(tmp_path, key):
    names = ["dog", "sea lion", "cat"]
    said = {"class_to_idx": dict(zip(names, range(3))), "classes": names, "meta": {"CLASSES": tuple(names)}}
    model = timm.create_model("test_vit", num_classes=3)
    torch.save({"state_dict": model.state_dict(), key: said[key]}, tmp_path / "weights.pth")
    task = ImageNet(str(wild.in_folders(tmp_path / "data", ("cat", "dog", "sea_lion"), each=2)))
    assert [s.label for s in task.samples] == [0, 0, 1, 1, 2, 2]
    task.check_model(load_model("test_vit", str(tmp_path / "weights.pth"))[0])
    assert [s.label for s in task.samples] == [2, 2, 0, 0, 1, 1]
    assert "those of the model's own names: 'cat' is class 2" in task.said[0]
    assert task.said == task.notes


def test_a_model_of_just_the_synsets_is_scored_in_its_own_order(tmp_path):
    names = FEW[::-1]
    model = timm.create_model("test_vit", num_classes=8)
    torch.save({"state_dict": model.state_dict(), "label_names": names}, tmp_path / "weights.pth")
    task = ImageNet(str(wild.imagenet_r(tmp_path / "data")))
    task.check_model(load_model("test_vit", str(tmp_path / "weights.pth"))[0])
    assert [names[s.label] for s in task.samples] == [s.id.split("/")[0] for s in task.samples]
    assert (task.num_classes, task.competing) == (8, None)


def test_a_list_names_images_with_spaces_and_accents_in_either_form(tmp_path):
    composed, decomposed = "\u00e9t\u00e9 1.jpg", "e\u0301te\u0301 2.jpg"
    data = wild.write(tmp_path / "mes photos", {composed: wild.jpeg(1), decomposed: wild.jpeg(2)})
    listed = f"{unicodedata.normalize('NFD', composed)} 3\n{unicodedata.normalize('NFC', decomposed)} 4\n"
    wild.write(data, {"val.txt": listed})
    assert labels(data) == {composed: 3, decomposed: 4}
    assert any(note.startswith("2 files are named in another Unicode form") for note in ImageNet(str(data)).notes)


def test_the_official_downloads_are_read_as_they_are(tmp_path):
    data = wild.official(tmp_path)
    for place in (data, data / "ILSVRC2012_img_val.tar"):
        assert list(labels(place).values()) == [999, 998, 0]


def test_a_table_that_is_no_text_is_no_hindrance_beside_class_folders(tmp_path):
    data = wild.write(wild.in_folders(tmp_path, FEW[:2]), {"photographers.csv": "Zoë,1".encode("utf-16")})
    task = ImageNet(str(data))
    assert len(task.samples) == 2
    assert "photographers.csv" in task.notes[0]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.jsonl", "".join(json.dumps({"file_name": wild.val_name(i), "label": 7 * i}) + "\n" for i in (1, 2))),
        ("labels.json", json.dumps([{"file_name": wild.val_name(i), "label": 7 * i} for i in (1, 2)])),
        ("dataset.json", json.dumps({"labels": [[wild.val_name(i), 7 * i] for i in (1, 2)]})),
        ("by_name.json", json.dumps({wild.val_name(i): 7 * i for i in (1, 2)})),
        ("labels.tsv", "".join(f"{wild.val_name(i)}\t{7 * i}\n" for i in (1, 2))),
        ("val_labels.txt", "7\n14\n0\n"),
    ],
)
def test_lists_in_json_and_other_tables_are_read(tmp_path, name, content):
    data = wild.write(wild.flat(tmp_path, count=2), {name: content})
    assert list(labels(data).values())[:2] == [7, 14]
