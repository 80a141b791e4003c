"""Pictures of masks and token groups: what is drawn where, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from reports.pictures.mask_sheet import BORDER, DROPPED, blend, draw_groups
from suite.cli.app import main
from suite.errors import RequestError
from suite.pictures.mask_pictures import miou, write_mask_pictures

SPEC = {"task": "scenes-seg", "checkpoint": "none", "limit": 3}


def test_a_group_has_the_mean_colour_of_its_pixels_and_a_border_where_another_begins():
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, :2] = 40
    image[:, 2:4] = 80
    image[:, 4:] = 200
    picture = draw_groups(image, np.array([[0, 0, 1, 1], [0, 0, 1, 1]]))
    assert (picture[:, :4] == 60).all()
    assert (picture[:, 4] == BORDER).all()
    assert (picture[:, 5:] == 200).all()


def test_groups_that_lie_apart_are_one_colour_and_what_was_dropped_is_grey():
    image = np.zeros((2, 6, 3), np.uint8)
    image[:, :2], image[:, 4:] = 100, 50
    picture = draw_groups(image, np.array([[0, -1, 0]]))
    assert (picture[:, :2] == 75).all()
    assert (picture[:, 5:] == 75).all()
    assert (picture[:, 3] == DROPPED).all()


def test_unlabelled_pixels_show_the_darkened_image():
    image = np.full((1, 2, 3), 100, np.uint8)
    mixed = blend(image, np.array([[255, 0]]), [(200, 0, 0)])
    assert mixed[0].tolist() == [[35, 35, 35], [165, 35, 35]]


def test_the_score_of_one_image_is_its_own_miou():
    truth = np.array([[0, 0, 1, 255]])
    assert miou(np.array([[0, 1, 1, 0]]), truth, 3) == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert miou(np.array([[0]]), np.array([[255]]), 3) is None


@pytest.mark.slow
@pytest.mark.parametrize(("restore", "precision"), [("before_decoder", "fp32"), ("per_block", "bf16")])
def test_every_sample_is_drawn_under_every_method_and_rate(tmp_path, restore, precision):
    file = tmp_path / "new" / "masks.png"
    asked = {**SPEC, "reducers": "tome,topk", "rates": ["merge=0.5", "r=4"], "task_options": {"restore": restore}}
    asked["precision"] = precision
    write_mask_pictures(asked, (), file)
    with Image.open(file) as picture:
        one, width = picture.height, picture.width
    write_mask_pictures({**asked, "rates": ["merge=0.5"], "reducers": "tome"}, (), file)
    with Image.open(file) as picture:
        assert picture.width == width
        assert picture.height < one / 2  # two rows in place of eight


@pytest.mark.parametrize(
    ("changes", "samples", "file", "match"),
    [
        ({}, ("test/99999",), "a.png", r"sample of task 'scenes-seg':.*test/99999"),
        ({}, (), "a.jpg", r"a.jpg.*\.png, \.svg, \.pdf"),
        ({"task": "scenes"}, (), "a.png", "task 'scenes' has no masks"),
        ({"reducers": "none"}, (), "a.png", "no method is left to draw"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(tmp_path, changes, samples, file, match):
    with pytest.raises(RequestError, match=match):
        write_mask_pictures({**SPEC, **changes}, samples, tmp_path / file)
    assert not (tmp_path / file).exists()


def test_the_command_says_where_the_picture_is(tmp_path, capsys):
    file = tmp_path / "masks.svg"
    flags = ["--task", "scenes-seg", "--checkpoint", "none", "--limit", "2", "--out", str(file)]
    with pytest.raises(SystemExit) as ended:
        main(["view", "masks", *flags, "--reducers", "tome", "--rates", "merge=0.5"])
    assert ended.value.code == 0
    assert str(file) in capsys.readouterr().out
    assert file.read_text().startswith("<?xml")
