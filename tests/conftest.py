"""Small real data that several parts of the suite share, made once per session."""

import json
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
# For running.py, which the processes that it starts import by name as well.
sys.path.insert(0, str(Path(__file__).parent))

# Detectron2 looks below this folder for datasets as soon as its catalogs are imported, which is when pytest
# collects the tests. The user's own folder is never written to, nor is the user's cache.
TEMPORARY = Path(tempfile.mkdtemp(prefix="ssl_backbones_tests_"))
os.environ["DETECTRON2_DATASETS"] = str(TEMPORARY / "datasets")
os.environ["SSL_BACKBONES_CACHE"] = str(TEMPORARY / "cache")


def pytest_addoption(parser):
    parser.addoption(
        "--every-fault",
        action="store_true",
        help="all of tests/faults, which `make faults` runs, and the table of what happened",
    )


def pytest_configure(config):
    # What a shell starts in the background ignores Ctrl-C, and so would every command that is tested.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "many: a fault like others, left to `make faults`")


def pytest_unconfigure():
    shutil.rmtree(TEMPORARY, ignore_errors=True)


@pytest.fixture(scope="module")
def module_folder(request, tmp_path_factory):
    """A folder for a module's tests, which is gone after them unless one failed: detectors are large."""
    folder = tmp_path_factory.mktemp(request.module.__name__.rpartition(".")[2])
    before = request.session.testsfailed
    yield folder
    if request.session.testsfailed == before:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def digits() -> Path:
    """The embedded digits dataset in miniature: 12 scenes to train on, 6 to test on, of 64 x 64 pixels."""
    from ssl_backbones.data.digits.digits_dataset import write_digits

    root = TEMPORARY / "datasets" / "digits"
    write_digits(root, num_train=12, num_test=6, size=64, seed=0)
    return root


@pytest.fixture(scope="session")
def miniatures() -> Path:
    """$DETECTRON2_DATASETS with VOC and COCO in miniature, where Detectron2's own registrations look.

    Of VOC2007, VOC2012 and COCO 12 pictures to train on; of VOC2007 and COCO 6 to test on; 64 pixels long.
    """
    from ssl_backbones.data.digits.miniatures import write_miniatures

    root = TEMPORARY / "datasets"
    write_miniatures(root, num_train=12, num_test=6, size=64, seed=0)
    return root


@pytest.fixture(scope="session")
def run_tool():
    """Run a command line of the project as a user would: `run_tool("tools/train_net.py", "--help")`."""

    def run(*words: str, cwd: Path = CHECKOUT, **options) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, *words],
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=600,
            **options,
        )

    return run


@pytest.fixture
def wheels(tmp_path, monkeypatch) -> Path:
    """The one folder in which pip looks, and a cache beside it that the environment names."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("RAN_CODE_OF_THE_PACKAGE", str(tmp_path / "ran"))
    monkeypatch.setenv("SSL_BACKBONES_CACHE", str(tmp_path / "cache"))
    yield folder
    assert not (tmp_path / "ran").exists()


@pytest.fixture(scope="session")
def moco_file(tmp_path_factory) -> Path:
    """A file as MoCo's main_moco.py writes it, its encoders torchvision's ResNet-50 with an MLP head."""
    import torch
    import torchvision

    torch.manual_seed(0)
    state = {}
    for name in ("encoder_q", "encoder_k"):
        encoder = torchvision.models.resnet50(num_classes=128)
        encoder.fc = torch.nn.Sequential(torch.nn.Linear(2048, 2048), torch.nn.ReLU(), encoder.fc)
        for norm in (m for m in encoder.modules() if isinstance(m, torch.nn.BatchNorm2d)):
            # As after training: initial statistics would hide whether they were carried over.
            for tensor in (norm.weight.data, norm.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (norm.bias.data, norm.running_mean):
                tensor.normal_(std=0.1)
        state |= {f"module.{name}.{key}": value for key, value in encoder.state_dict().items()}
    state["module.queue"] = torch.nn.functional.normalize(torch.randn(128, 64), dim=0)
    state["module.queue_ptr"] = torch.zeros(1, dtype=torch.long)
    path = tmp_path_factory.mktemp("moco") / "checkpoint_0199.pth.tar"
    torch.save({"epoch": 200, "arch": "resnet50", "state_dict": state, "optimizer": {}}, path)
    return path


@pytest.fixture(scope="session")
def converted(moco_file, run_tool) -> Path:
    """The same, converted by the command."""
    path = moco_file.with_name("moco.pkl")
    result = run_tool("tools/convert_checkpoint.py", str(moco_file), str(path))
    assert result.returncode == 0, result.stderr
    return path


@pytest.fixture(scope="session")
def small() -> tuple[str, ...]:
    """Overrides that make a recipe small enough for a CPU: digits, two scenes of 64 pixels an iteration."""
    return (
        "train.device=cpu",
        "train.seed=1",
        "train.log_period=1",
        "dataloader.train.dataset.names=digits_train",
        "dataloader.test.dataset.names=digits_test",
        "dataloader.train.mapper.augmentations.0.short_edge_length=64",
        "dataloader.train.mapper.augmentations.0.sample_style=choice",
        "dataloader.test.mapper.augmentations.0.short_edge_length=64",
        "dataloader.train.total_batch_size=2",
        "train.scale_lr=none",
        "dataloader.train.num_workers=0",
        "dataloader.test.num_workers=0",
        "model.roi_heads.num_classes=10",
        "model.roi_heads.batch_size_per_image=16",
        "model.proposal_generator.post_nms_topk=[50,20]",
    )


@pytest.fixture(scope="session")
def runs(digits):
    from running import Runs

    return Runs()


@pytest.fixture(scope="session")
def whole(runs, tmp_path_factory):
    """Uninterrupted runs, by number of processes."""
    from running import output

    done = {}

    def run(processes: int):
        if processes not in done:
            folder = tmp_path_factory.mktemp("whole") / "run"
            assert runs.run(folder, processes=processes) == [0] * processes, output(folder)
            done[processes] = folder
        return done[processes]

    return run


@pytest.fixture(autouse=True)
def warnings_are_heard(monkeypatch):
    """Detectron2's setup_logger, once called in this process, keeps them from `caplog`."""
    monkeypatch.setattr(logging.getLogger("ssl_backbones"), "propagate", True)


@pytest.fixture(scope="session")
def annotation_file(digits) -> Path:
    from detectron2.data import MetadataCatalog

    import ssl_backbones.data  # noqa: F401 (registers digits_test)

    return Path(MetadataCatalog.get("digits_test").json_file)


@pytest.fixture(scope="session")
def oracle(annotation_file):
    """Makes an `Oracle` for the digits."""
    from oracle import Oracle

    content = json.loads(annotation_file.read_text())
    ids = sorted(category["id"] for category in content["categories"])
    by_image = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        found = {**annotation, "class": ids.index(annotation["category_id"])}
        by_image[annotation["image_id"]].append(found)
    return lambda **options: Oracle(by_image, **options)


@pytest.fixture
def forked(tmp_path):
    """Run `body(rank)` in processes of one gloo group; returns their results, None of one that was killed.

    They are forked, since importing Detectron2 anew takes each of them ten seconds.
    """

    def run(count, body):
        context = multiprocessing.get_context("fork")
        store = tmp_path / f"store_{len(list(tmp_path.iterdir()))}"
        pipes = [context.Pipe(duplex=False) for _ in range(count)]
        processes = [
            context.Process(target=_member, args=(rank, count, store, send, body))
            for rank, (_, send) in enumerate(pipes)
        ]
        for process in processes:
            process.start()
        for _, send in pipes:
            send.close()
        results = []
        for receive, _ in pipes:
            try:
                results.append(receive.recv() if receive.poll(120) else "no answer")
            except EOFError:
                results.append(None)
        for process in processes:
            process.join(10)
            process.kill()
        return results

    return run


def _member(rank, count, store, send, body):
    import torch

    # The parent's pool of threads does not survive the fork.
    torch.set_num_threads(1)
    if count > 1:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{store}", rank=rank, world_size=count
        )
    send.send(body(rank))
    if count > 1:
        torch.distributed.destroy_process_group()
