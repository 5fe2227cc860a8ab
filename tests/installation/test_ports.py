"""The ported source is the pinned one but for the ports, and asks nothing of libraries that is gone."""

import ast
import io
import tarfile
import zipfile

import numpy
import PIL.Image
import pytest

from ssl_backbones.errors import InputError, InstallationError
from ssl_backbones.installation.ports import port

TOP = "pb1-detectron2-0.6/"
# Where the wheel has what the source has elsewhere, as upstream's setup.py (PROJECTS) says.
MOVED = {
    "projects/PointRend/": "detectron2/projects/",
    "projects/DeepLab/": "detectron2/projects/",
    "projects/Panoptic-DeepLab/": "detectron2/projects/",
}
# Every line that differs, as one reads it in the two versions.
CHANGED_LINES = {
    "detectron2/data/build.py": [
        (
            "histogram = np.zeros((num_classes,), dtype=np.int)",
            "histogram = np.zeros((num_classes,), dtype=int)",
        ),
        (
            '[x["category_id"] for x in annos if not x.get("iscrowd", 0)], dtype=np.int',
            '[x["category_id"] for x in annos if not x.get("iscrowd", 0)], dtype=int',
        ),
    ],
    "detectron2/data/datasets/pascal_voc.py": [
        ("fileids = np.loadtxt(f, dtype=np.str)", "fileids = np.loadtxt(f, dtype=str)"),
    ],
    "detectron2/data/transforms/transform.py": [
        (
            "def __init__(self, src_rect, output_size, interp=Image.LINEAR, fill=0):",
            "def __init__(self, src_rect, output_size, interp=Image.BILINEAR, fill=0):",
        ),
    ],
    "detectron2/evaluation/pascal_voc_evaluation.py": [
        (
            'difficult = np.array([x["difficult"] for x in R]).astype(np.bool)',
            'difficult = np.array([x["difficult"] for x in R]).astype(bool)',
        ),
        (
            "# difficult = np.array([False for x in R]).astype(np.bool)"
            ' # treat all "difficult" as GT',
            '# difficult = np.array([False for x in R]).astype(bool) # treat all "difficult" as GT',
        ),
    ],
    "detectron2/evaluation/sem_seg_evaluation.py": [
        ("pred = np.array(output, dtype=np.int)", "pred = np.array(output, dtype=int)"),
        ("gt = np.array(Image.open(f), dtype=np.int)", "gt = np.array(Image.open(f), dtype=int)"),
        (
            "acc = np.full(self._num_classes, np.nan, dtype=np.float)",
            "acc = np.full(self._num_classes, np.nan, dtype=float)",
        ),
        (
            "iou = np.full(self._num_classes, np.nan, dtype=np.float)",
            "iou = np.full(self._num_classes, np.nan, dtype=float)",
        ),
        (
            "tp = self._conf_matrix.diagonal()[:-1].astype(np.float)",
            "tp = self._conf_matrix.diagonal()[:-1].astype(float)",
        ),
        (
            "pos_gt = np.sum(self._conf_matrix[:-1, :-1], axis=0).astype(np.float)",
            "pos_gt = np.sum(self._conf_matrix[:-1, :-1], axis=0).astype(float)",
        ),
        (
            "pos_pred = np.sum(self._conf_matrix[:-1, :-1], axis=1).astype(np.float)",
            "pos_pred = np.sum(self._conf_matrix[:-1, :-1], axis=1).astype(float)",
        ),
    ],
    "detectron2/model_zoo/model_zoo.py": [
        ("import pkg_resources", "from importlib import resources"),
        (
            "cfg_file = pkg_resources.resource_filename( "
            '"detectron2.model_zoo", os.path.join("configs", config_path) )',
            "cfg_file = str("
            'resources.files("detectron2.model_zoo").joinpath("configs", config_path))',
        ),
    ],
    "detectron2/structures/masks.py": [
        (
            "return np.zeros((height, width)).astype(np.bool)",
            "return np.zeros((height, width)).astype(bool)",
        ),
        (
            "return mask_util.decode(rle).astype(np.bool)",
            "return mask_util.decode(rle).astype(bool)",
        ),
        (
            "return torch.from_numpy(np.asarray(keep, dtype=np.bool))",
            "return torch.from_numpy(np.asarray(keep, dtype=bool))",
        ),
    ],
    "detectron2/utils/video_visualizer.py": [
        (
            "is_crowd = np.zeros((len(instances),), dtype=np.bool)",
            "is_crowd = np.zeros((len(instances),), dtype=bool)",
        ),
    ],
    "detectron2/utils/visualizer.py": [
        (
            "return (self._seg != empty_ids[0]).numpy().astype(np.bool)",
            "return (self._seg != empty_ids[0]).numpy().astype(bool)",
        ),
        (
            "yield (self._seg == sid).numpy().astype(np.bool), sinfo",
            "yield (self._seg == sid).numpy().astype(bool), sinfo",
        ),
        (
            "mask = (self._seg == sid).numpy().astype(np.bool)",
            "mask = (self._seg == sid).numpy().astype(bool)",
        ),
    ],
}


@pytest.fixture(scope="module")
def source(sdist) -> dict[str, bytes]:
    """The Python and config files of the pinned archive, where the wheel should have them."""
    files = {}
    with tarfile.open(sdist) as archive:
        for member in archive.getmembers():
            path = member.name.removeprefix(TOP)
            for old, new in MOVED.items():
                path = path.replace(old, new)
            if path.startswith("detectron2/") and path.endswith((".py", ".yaml")):
                files[path] = archive.extractfile(member).read()
    return files


@pytest.fixture(scope="module")
def packaged(wheel) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {n: archive.read(n) for n in archive.namelist() if ".dist-info/" not in n}


def test_every_file_of_the_source_and_the_stand_in_are_packaged(source, packaged):
    # 174 modules with the tests and the projects' folders that upstream does not install left out.
    assert packaged.keys() == source.keys() | {"detectron2/_C.py"}
    assert len(packaged) == 291


def test_bytes_are_equal_but_for_the_ports(source, packaged):
    assert {p for p in source if source[p] != packaged[p]} == CHANGED_LINES.keys()


@pytest.mark.parametrize("path", CHANGED_LINES)
def test_ported_lines(source, packaged, path):
    expected = one_line(source[path])
    for old, new in CHANGED_LINES[path]:
        assert expected.count(old) == 1
        expected = expected.replace(old, new)
    # Equal but for white space, and for the notice that the licence asks for at the end of the file.
    assert one_line(packaged[path]).startswith(expected)
    notice = packaged[path].decode().splitlines()[-1]
    assert notice.startswith("# Changed by ssl-backbones")
    assert one_line(packaged[path]) == f"{expected} {notice}"


def one_line(content: bytes) -> str:
    return " ".join(content.decode().split())


def test_source_asks_for_names_that_numpy_and_pillow_removed(source):
    """The counterpart of the next test: it can fail."""
    # NumPy 2 has an np.bool again, so that one is not among them.
    assert missing_names(source) == {
        ("detectron2/data/build.py", "np.int"),
        ("detectron2/data/datasets/pascal_voc.py", "np.str"),
        ("detectron2/data/transforms/transform.py", "Image.LINEAR"),
        ("detectron2/evaluation/sem_seg_evaluation.py", "np.float"),
        ("detectron2/evaluation/sem_seg_evaluation.py", "np.int"),
    }


def test_wheel_asks_for_no_name_that_numpy_or_pillow_removed(packaged):
    assert missing_names(packaged) == set()


def missing_names(files: dict[str, bytes]) -> set[tuple[str, str]]:
    """Attributes of `np` and `Image` in the code that the installed libraries do not have."""
    modules = {"np": numpy, "Image": PIL.Image}
    missing = set()
    for path, content in files.items():
        for node in ast.walk(ast.parse(content)) if path.endswith(".py") else ():
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                module = modules.get(node.value.id)
                if module is not None and not hasattr(module, node.attr):
                    missing.add((path, f"{node.value.id}.{node.attr}"))
    return missing


@pytest.mark.parametrize("path", CHANGED_LINES)
def test_a_port_whose_text_is_not_found_stops_the_build(source, path):
    # The file as it would be had upstream changed the line, and the file gone.
    old, new = CHANGED_LINES[path][0]
    text = source[path].decode()
    changed = text.replace(old, new) if old in text else text.replace("pkg_resources.r", "other.r")
    assert changed != text
    with pytest.raises(InstallationError, match=path):
        port({**source, path: changed.encode()}, pinned=True)
    with pytest.raises(InstallationError, match=path):
        port({p: c for p, c in source.items() if p != path}, pinned=True)


def test_a_text_to_port_where_none_was_stops_the_build(source):
    more = {**source, "detectron2/solver/build.py": b"import numpy as np\nx = np.float(1)\n"}
    with pytest.raises(InstallationError, match=r"solver/build\.py .* 1 times .* has 0"):
        port(more, pinned=True)


def test_other_sources_are_ported_where_they_need_it(source):
    already = {**source, "detectron2/structures/masks.py": b"mask.astype(bool)\n"}
    ported, changed = port(already, pinned=False)
    assert ported["detectron2/structures/masks.py"] == b"mask.astype(bool)\n"
    assert changed["detectron2/utils/visualizer.py"] == 3
    assert "detectron2/structures/masks.py" not in changed


def test_an_unknown_use_of_pkg_resources_is_refused():
    files = {"detectron2/x.py": b"import pkg_resources\npkg_resources.require('y')\n"}
    with pytest.raises(InputError, match=r"detectron2/x\.py .*pkg_resources"):
        port(files, pinned=False)


def test_only_an_unguarded_import_gets_a_stand_in():
    # v0.6 imports the extension at the top; main tries to, and falls back when it is absent.
    unguarded = {"detectron2/layers/nms.py": b"import torch\nfrom detectron2 import _C\n"}
    guarded = {
        "detectron2/layers/nms.py": b"try:\n    from detectron2 import _C\nexcept ImportError:\n"
    }
    assert "detectron2/_C.py" in port(unguarded, pinned=False)[0]
    assert "detectron2/_C.py" not in port(guarded, pinned=False)[0]


def test_packaged_modules_compile(packaged):
    for path, content in packaged.items():
        if path.endswith(".py"):
            compile(io.BytesIO(content).read(), path, "exec")
