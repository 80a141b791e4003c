"""Lists of labels in the forms that other tools write, beside those of test_classification."""

import io
import json
import tarfile
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm

from suite.errors import RequestError
from tasks.imagenet.task import ImageNet
from tests.wild import classification as wild
from tests.wild.classification import FEW, SYNSETS


def labels(folder, **options):
    return {sample.id: sample.label for sample in ImageNet(str(folder), **options).samples}


NAMES = [wild.val_name(i) for i in (1, 2, 3)]
LISTS = {
    "columns in another order": ("a.csv", "label,filename\n" + "".join(f"{7 * i},{n}\n" for i, n in enumerate(NAMES))),
    "a column of numbers before": (
        "a.csv",
        ",ImageId,width,Label\n" + "".join(f"{i},{n},500,{7 * i}\n" for i, n in enumerate(NAMES)),
    ),
    "semicolons": ("a.csv", "image;label\n" + "".join(f"{n};{7 * i}\n" for i, n in enumerate(NAMES))),
    "semicolons in a text": ("a.txt", "".join(f"{n};{7 * i}\n" for i, n in enumerate(NAMES))),
    "objects by name": ("a.json", json.dumps({n: {"width": 5, "label": 7 * i} for i, n in enumerate(NAMES)})),
    "FiftyOne": (
        "labels.json",
        json.dumps({"classes": SYNSETS, "labels": {n.removesuffix(".JPEG"): 7 * i for i, n in enumerate(NAMES)}}),
    ),
}


@pytest.mark.parametrize("kind", LISTS)
def test_the_columns_and_fields_of_lists_are_told_by_their_names(tmp_path, kind):
    name, content = LISTS[kind]
    data = wild.write(wild.flat(tmp_path, count=3), {name: content})
    assert list(labels(data).values()) == [0, 7, 14]


def test_labels_from_one_on_are_asked_for_where_they_run_without_a_gap_and_said_elsewhere(tmp_path):
    few = wild.write(wild.flat(tmp_path / "few"), {"val.txt": "".join(f"{wild.val_name(i)} {i}\n" for i in (1, 2, 4))})
    assert list(labels(few).values()) == [1, 2, 4]
    assert any("if they count from 1, say --task-option ground_truth_ids=sorted" in n for n in ImageNet(str(few)).notes)
    listed = "".join(f"{wild.val_name(i)} {i}\n" for i in range(1, 13))
    many = wild.write(wild.flat(tmp_path / "many", count=12), {"val.txt": listed})
    with pytest.raises(RequestError, match=r"1\.\.12 without 0; say .*=sorted if .* or .*=index if") as caught:
        ImageNet(str(many))
    assert "\n" not in str(caught.value)
    assert list(labels(many, ground_truth_ids="sorted").values()) == list(range(12))
    assert list(labels(many, ground_truth_ids="index").values()) == list(range(1, 13))
    by_place = wild.write(wild.flat(tmp_path / "place", count=3), {"val_labels.txt": "5\n6\n7\n"})
    assert list(labels(by_place, ground_truth_ids="index").values()) == [5, 6, 7]


@pytest.mark.parametrize("form", ["{}_tench", "{}-tench", "{} tench", "N{}"])
def test_folders_whose_names_begin_with_their_synsets_are_of_these_classes(tmp_path, form):
    names = [form.format(synset) if form[0] != "N" else synset.upper() for synset in FEW[:3]]
    task = ImageNet(str(wild.in_folders(tmp_path, names)))
    assert [sample.label for sample in task.samples] == [SYNSETS.index(synset) for synset in FEW[:3]]
    assert "names of folders begin with their synsets" in task.said[0]
    assert task.competing == tuple(sorted(SYNSETS.index(synset) for synset in FEW[:3]))
    task.check_model(timm.create_model("test_vit", num_classes=1000))


def test_folders_that_share_a_synset_or_have_more_digits_are_not_known_by_it(tmp_path):
    for place, names in (("a", (f"{FEW[0]}_x", f"{FEW[0]}_y")), ("b", (f"{FEW[0]}1", f"{FEW[1]}2"))):
        assert ImageNet(str(wild.in_folders(tmp_path / place, names))).num_classes == 2


def test_objectnets_own_files_say_the_classes_of_its_folders(tmp_path):
    data = wild.objectnet(tmp_path)
    wild.in_folders(data / "objectnet-1.0/images", ("still_camera", "banana"))
    says = {
        "Alarm clock": "analog clock; digital clock",
        "Backpack": "backpack, back pack, knapsack, packsack, rucksack, haversack",
        "Bath towel": "bath towel",
        "Camera": "Polaroid camera, Polaroid Land camera",
    }
    others = {"coffee_table": "Coffee table", "still_camera": "Camera", "banana": "Banana"}
    folders = {"alarm_clock": "Alarm clock", "backpack": "Backpack", "bath_towel": "Bath towel", **others}
    wild.write(data, {"m/objectnet_to_imagenet_1k.json": json.dumps(says)})
    wild.write(data, {"m/folder_to_objectnet_label.json": json.dumps(folders)})
    assert labels(data, labels=str(data / "m/objectnet_to_imagenet_1k.json")) == {
        "alarm_clock/0.JPEG": (409, 530),
        "backpack/0.JPEG": (414,),
        "bath_towel/0.JPEG": (434,),
        "still_camera/0.JPEG": (732,),
    }


def test_a_tar_whose_last_file_is_a_zip_is_a_tar(tmp_path):
    """Beside the images, a zip of something else: what is at the end of the file is the end of a zip."""
    extra = io.BytesIO()
    with zipfile.ZipFile(extra, "w") as archive:
        archive.writestr("docs/n01440764/x.JPEG", wild.jpeg(9))
    files = {f"{synset}/{synset}_1.JPEG": wild.jpeg(i) for i, synset in enumerate(FEW[:2])}
    with tarfile.open(tmp_path / "data.tar", "w") as tar:
        for name, content in {**files, "docs.zip": extra.getvalue()}.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    assert labels(tmp_path / "data.tar") == {name: SYNSETS.index(name[:9]) for name in files}


def test_archives_in_an_archive_are_named_with_what_to_do(tmp_path):
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("n01440764.zip", b"PK")
    with pytest.raises(RequestError, match=r"1 files \.zip \(first 'n01440764\.zip'\), which are to be unpacked"):
        ImageNet(str(tmp_path / "data.zip"))


def parquet(folder, labels, names=()):
    """As Hugging Face's `datasets` writes it, with names of classes in the schema's metadata."""
    folder.mkdir()
    images = [{"bytes": wild.jpeg(i), "path": f"{i}.jpg"} for i in range(len(labels))]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(images, kind), "label": pa.array(labels, pa.int64())})
    about = {"info": {"features": {"label": {"names": list(names), "_type": "ClassLabel"}}}}
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(about)}), folder / "validation.parquet")
    return folder


def test_classes_that_parquet_files_name_are_said_and_files_without_a_row_are_refused(tmp_path):
    task = ImageNet(str(parquet(tmp_path / "named", [0, 2], ["cat", "dog", "bird"])))
    assert task.said == ["Labels: those of the data's own list of classes: 'cat' is class 0, 'dog' is class 1, "
                         "'bird' is class 2"]  # fmt: skip
    assert not task.class_names
    assert not ImageNet(str(parquet(tmp_path / "plain", [0, 2]))).said
    with pytest.raises(RequestError, match="holds no row"):
        ImageNet(str(parquet(tmp_path / "empty", [])))
