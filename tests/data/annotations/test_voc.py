"""VOC folders with one thing wrong each: a line that says what and where, before any run."""

import shutil

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_pascal_voc
from detectron2.evaluation.pascal_voc_evaluation import parse_rec

from ssl_backbones.data.annotations.checking import check_annotations
from ssl_backbones.data.annotations.voc import voc_files
from ssl_backbones.errors import InputError


@pytest.fixture()
def voc(miniatures, tmp_path):
    """A copy of VOC2007 in miniature, registered as `broken_trainval` and `broken_test`."""
    folder = tmp_path / "VOC2007"
    shutil.copytree(miniatures / "VOC2007", folder)
    names = ("broken_trainval", "broken_test")
    for name in names:
        register_pascal_voc(name, str(folder), name.split("_")[1], 2007)
    yield folder
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def rewrite(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize("name", ["voc_2007_trainval", "voc_2012_trainval", "voc_2007_test"])
@pytest.mark.parametrize("evaluated", [False, True])
def test_whole_ones_pass(miniatures, name, evaluated):
    assert voc_files(name) is not None
    check_annotations(name, evaluated=evaluated)


def test_only_what_detectron2s_function_registers_counts_as_voc(digits):
    assert voc_files("digits_train") is None and voc_files("nowhere") is None


def lists(voc, name="trainval"):
    return voc / "ImageSets" / "Main" / f"{name}.txt"


def xml(voc, id_="000003"):
    return voc / "Annotations" / f"{id_}.xml"


REFUSED = {
    "an absent year": (shutil.rmtree, "there is no .*VOC2007; put it there"),
    "no list": (lambda voc: lists(voc).unlink(), "its list of images .*trainval.txt is missing"),
    "an empty list": (lambda voc: lists(voc).write_text(""), "trainval.txt is empty"),
    "a list of one": (lambda voc: lists(voc).write_text("000001\n"), "lists only '000001'"),
    "a blank line": (
        lambda voc: lists(voc).write_text("000001\n\n000003\n"),
        "line 2 of .*trainval.txt is ''",
    ),
    "a list of a class": (
        lambda voc: lists(voc).write_text("000001  1\n000003 -1\n"),
        "line 1 of .*trainval.txt is '000001  1'",
    ),
    "an image twice": (
        lambda voc: lists(voc).write_text("000001\n000003\n000001\n"),
        r"lists '000001' twice \(1 such images\)",
    ),
    "no image": (
        lambda voc: (voc / "JPEGImages" / "000003.jpg").unlink(),
        r"the image .*000003.jpg is listed and not there \(1 such\)",
    ),
    "no images": (
        lambda voc: shutil.rmtree(voc / "JPEGImages"),
        "the images' folder .*JPEGImages cannot be read",
    ),
    "no XML": (
        lambda voc: xml(voc).unlink(),
        "the annotation .*000003.xml is listed and not there",
    ),
    "a cut XML": (
        lambda voc: xml(voc).write_text(xml(voc).read_text()[:200]),
        "000003.xml is not a whole XML file",
    ),
    "an unknown class": (
        lambda voc: rewrite(xml(voc), "<name>bicycle", "<name>lamp"),
        "object 1 of .*000003.xml is a 'lamp', which is not among the dataset's 20 classes",
    ),
    "no size": (
        lambda voc: rewrite(xml(voc), "<width>64</width>", ""),
        "000003.xml has size.width=None",
    ),
    "a box in words": (
        lambda voc: rewrite(xml(voc), "<xmin>25", "<xmin>left"),
        "object 1 of .*000003.xml has the box .*'left'.*which is not four numbers",
    ),
    "a box without an end": (
        lambda voc: rewrite(xml(voc), "<xmax>36</xmax>", ""),
        "which is not four numbers",
    ),
    "a box from right to left": (
        lambda voc: rewrite(xml(voc), "<xmin>25", "<xmin>60"),
        r"has a box from \(60.0, 22.0\) to \(36.0, 38.0\)",
    ),
    "a box of nan": (lambda voc: rewrite(xml(voc), "<xmin>25", "<xmin>nan"), r"from \(nan"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_one_line(voc, name):
    spoil, message = REFUSED[name]
    spoil(voc)
    with pytest.raises(InputError, match=message) as refusal:
        check_annotations("broken_trainval")
    assert "'broken_trainval'" in str(refusal.value) and "\n" not in str(refusal.value)


# What Detectron2's evaluator asks of the XML, and its reader does not.
NOT_EVALUATED = {
    "fractions": (("<xmin>", "<xmin>0."), "not four whole numbers"),
    "no pose": (("<pose>Unspecified</pose>", ""), "has no pose"),
    "no difficult": (("<difficult>", "<other>"), "difficult=None"),
    "a word for truncated": (("<truncated>", "<truncated>x"), "truncated='x"),
}


@pytest.mark.parametrize("name", NOT_EVALUATED)
def test_what_the_evaluator_would_fail_on_is_refused_of_a_test_set_alone(voc, name):
    (old, new), message = NOT_EVALUATED[name]
    path = xml(voc, "000002")
    text = path.read_text()
    text = text.replace(old, new, 1)
    path.write_text(text.replace("</difficult>", "</other>", 1) if "<other>" in text else text)
    # It would fail on it at the end of the run.
    with pytest.raises((ValueError, AttributeError)):
        parse_rec(str(path))
    check_annotations("broken_test")
    with pytest.raises(InputError, match=message):
        check_annotations("broken_test", evaluated=True)
