"""Named weights and `train.init_checkpoint`: what each way of writing it gives, and refuses."""

from __future__ import annotations

import base64
import hashlib
import json
import pickle
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from narrow_resnet import RESNET_CONFIG, Narrow, hugging_face_state, trained
from safetensors.torch import save_file
from torchvision.models.resnet import Bottleneck

from ssl_backbones import __version__, hashing
from ssl_backbones.conversion.reading import read_checkpoint
from ssl_backbones.engine.config import load_config
from ssl_backbones.engine.launching.world import World
from ssl_backbones.engine.settling import settle
from ssl_backbones.errors import InputError
from ssl_backbones.weights import resolution
from ssl_backbones.weights.cache import Cache
from ssl_backbones.weights.resolution import (
    NAMED_WEIGHTS,
    NamedWeights,
    PublishedHash,
    SSLWeightsHandler,
    register_handler,
    resolve,
)
from ssl_backbones.weights.wheels import WheelFile

PAGE = "https://example.org/README.md"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Cache:
    monkeypatch.setenv("SSL_BACKBONES_CACHE", str(tmp_path / "cache"))
    return Cache.from_environment()


def serve(site, md5: str | None = None) -> SSLWeightsHandler:
    """A handler whose one name, `test`, is the file of the loopback server."""
    published = PublishedHash("md5", md5, PAGE) if md5 else None
    return SSLWeightsHandler({"test": NamedWeights("test", site.url, "moco", PAGE, published)})


def refusal(act, *arguments, **options) -> str:
    with pytest.raises(InputError) as raised:
        act(*arguments, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# The registry


def test_the_addresses_and_hashes_are_the_published_ones():
    """Typed here from the READMEs, torchvision's list and RECORD in imgsim's wheel, not from the code."""
    assert {(row.name, row.origin, row.method) for row in NAMED_WEIGHTS.values()} == {
        (
            "moco_v1_200ep",
            "https://dl.fbaipublicfiles.com/moco/moco_checkpoints/moco_v1_200ep/"
            "moco_v1_200ep_pretrain.pth.tar",
            "moco",
        ),
        (
            "moco_v2_200ep",
            "https://dl.fbaipublicfiles.com/moco/moco_checkpoints/moco_v2_200ep/"
            "moco_v2_200ep_pretrain.pth.tar",
            "moco",
        ),
        (
            "moco_v2_800ep",
            "https://dl.fbaipublicfiles.com/moco/moco_checkpoints/moco_v2_800ep/"
            "moco_v2_800ep_pretrain.pth.tar",
            "moco",
        ),
        (
            "swav_800ep",
            "https://dl.fbaipublicfiles.com/deepcluster/swav_800ep_pretrain.pth.tar",
            "swav",
        ),
        (
            "supervised_imagenet",
            "https://download.pytorch.org/models/resnet50-0676ba61.pth",
            "torchvision",
        ),
        (
            "convnext_tiny_imagenet",
            "https://dl.fbaipublicfiles.com/convnext/convnext_tiny_1k_224.pth",
            "convnext",
        ),
        (
            "convnextv2_tiny_fcmae",
            "https://dl.fbaipublicfiles.com/convnext/convnextv2/pt_only/"
            "convnextv2_tiny_1k_224_fcmae.pt",
            "fcmae",
        ),
        (
            "mae_vit_base",
            "https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_base.pth",
            "mae",
        ),
        (
            "dino_vit_small",
            "https://dl.fbaipublicfiles.com/dino/dino_deitsmall16_pretrain/"
            "dino_deitsmall16_pretrain.pth",
            "dino",
        ),
        (
            "augnet_imagenet",
            WheelFile("imgsim", "0.1.2", "imgsim/model.pth", "MIT"),
            "augnet",
        ),
    }
    published = {n: r.published and r.published.prefix for n, r in NAMED_WEIGHTS.items()}
    in_record = base64.urlsafe_b64decode("wss8rIJkLFaYchvUxXcCw9L_qwd-6fwnfGDvc1kpOt0=")
    assert published == {
        "moco_v1_200ep": "b251726a",
        "moco_v2_200ep": "59fd9945",
        "moco_v2_800ep": "a04e12f8",
        "swav_800ep": None,
        "supervised_imagenet": "0676ba61",
        "convnext_tiny_imagenet": None,
        "convnextv2_tiny_fcmae": None,
        "mae_vit_base": None,
        "dino_vit_small": None,
        "augnet_imagenet": in_record.hex(),
    }
    assert all(name == row.name for name, row in NAMED_WEIGHTS.items())


def test_the_module_is_cheap_to_import():
    command = (
        "import sys, ssl_backbones.weights\n"
        "print([m for m in ('torch', 'numpy', 'detectron2', 'rich') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    assert run.stdout == "[]\n", run.stderr


# What a handler refuses


def test_an_unknown_name_lists_the_known_ones(cache):
    message = refusal(SSLWeightsHandler()._get_local_path, "ssl://swav_80ep")
    assert "ssl://swav_80ep" in message and "ssl://swav_800ep" in message
    assert not cache.folder.exists()


def test_existence_asks_the_registry_and_not_the_network():
    handler = SSLWeightsHandler()
    assert handler._exists("ssl://swav_800ep") and handler._isfile("ssl://swav_800ep")
    assert not handler._exists("ssl://swav_80ep") and not handler._isfile("ssl://swav_80ep")


@pytest.mark.parametrize("mode", ["w", "wb", "a", "r+b", "x"])
def test_weights_cannot_be_written(site, cache, mode):
    assert mode in refusal(serve(site)._open, "ssl://test", mode)
    assert site.ranges == []


def test_a_missing_page_names_the_address_and_the_way_without_network(site, cache):
    site.statuses = [404]
    message = refusal(serve(site)._get_local_path, "ssl://test")
    assert site.url in message and "HTTP 404" in message
    assert "train.init_checkpoint=/path/to/file" in message


def test_a_file_that_is_not_the_published_one_is_refused_and_removed(site, cache):
    message = refusal(serve(site, "0123abcd")._get_local_path, "ssl://test")
    found = hashlib.md5(site.body).hexdigest()
    assert f"the md5 of what came from {site.url} is {found}" in message
    assert f"{PAGE} publishes 0123abcd" in message
    assert list(cache.downloads().iterdir()) == []
    assert cache.known("test") is None


def test_a_file_that_is_not_the_recorded_one_is_refused_until_the_entry_is_deleted(site, cache):
    cache.record("test", site.url, "1" * 64)
    handler = serve(site)
    message = refusal(handler._get_local_path, "ssl://test")
    found, known = hashlib.sha256(site.body).hexdigest(), cache.known("test")
    assert found in message and f"{'1' * 64} was recorded on {known.recorded}" in message
    assert f'delete "test" from {cache.known_hashes}' in message
    assert list(cache.downloads().iterdir()) == []

    entries = json.loads(cache.known_hashes.read_text())
    del entries["test"]
    cache.known_hashes.write_text(json.dumps(entries))
    message = refusal(handler._get_local_path, "ssl://test")
    # These bytes are no checkpoint, so that it is now the conversion that refuses.
    assert "sha256" not in message and len(site.ranges) == 2


@pytest.mark.parametrize("recorded", [False, True])
def test_what_the_conversion_refuses_is_kept_and_not_recorded(site, cache, recorded):
    if recorded:
        cache.record("test", site.url, hashlib.sha256(site.body).hexdigest())
    before = cache.known("test")
    message = refusal(serve(site)._get_local_path, "ssl://test")
    original = cache.downloads() / "weights.pth.tar"
    assert site.url in message and f"delete {original}" in message
    assert cache.known("test") == before
    assert original.read_bytes() == site.body
    refusal(serve(site)._get_local_path, "ssl://test")
    assert len(site.ranges) == 1  # the download is there: not fetched again


# From an address to a converted file


def test_two_processes_at_once_download_once_and_agree(filled):
    assert filled.printed == [str(filled.cache.converted(filled.sha256))] * 2
    assert filled.requests == 1
    assert filled.cache.known("test").sha256 == filled.sha256


def test_the_converted_file_holds_the_tensors_of_the_source(filled, moco_file):
    content = pickle.loads(filled.cache.converted(filled.sha256).read_bytes())  # our own file
    source = torch.load(moco_file, weights_only=True)["state_dict"]
    pairs = {
        "stem.conv1.weight": "conv1.weight",
        "stem.conv1.norm.running_var": "bn1.running_var",
        "res2.0.shortcut.weight": "layer1.0.downsample.0.weight",
        "res5.2.conv3.norm.bias": "layer4.2.bn3.bias",
    }
    for ours, theirs in pairs.items():
        expected = source[f"module.encoder_q.{theirs}"].numpy()
        assert np.array_equal(content["model"][ours], expected), ours
    assert len(content["model"]) == 265
    assert content["provenance"]["method"] == "moco" and content["provenance"]["proof"]


def test_a_second_call_needs_no_network_and_opens_what_the_path_names(site, filled_cache):
    handler = serve(site)
    path = handler._get_local_path("ssl://test")
    assert path.endswith(".pkl") and Path(path).is_relative_to(filled_cache.folder)
    with handler._open("ssl://test", "rb") as file:
        assert file.read(64) == Path(path).read_bytes()[:64]
    assert site.ranges == []


def test_a_damaged_copy_of_a_damaged_download_is_made_from_a_new_one(site, filled_cache, moco_file):
    """On the way the line is cut once."""
    copy = Path(serve(site)._get_local_path("ssl://test"))
    original = filled_cache.downloads() / moco_file.name
    for file in (copy, original):
        file.write_bytes(file.read_bytes()[:1000])
    site.body = moco_file.read_bytes()
    site.cut_after = [30_000_000]
    with serve(site)._open("ssl://test", "rb") as file:
        assert file.name == str(copy)
        assert len(pickle.load(file)["model"]) == 265  # our own file
    assert site.ranges == [None, "bytes=30000000-"]
    assert original.read_bytes() == site.body


def test_forcing_downloads_again_and_still_compares(site, filled_cache):
    message = refusal(serve(site)._get_local_path, "ssl://test", force=True)
    assert filled_cache.known("test").sha256 in message
    assert len(site.ranges) == 1
    assert serve(site)._get_local_path("ssl://test")  # what was good is still there


# train.init_checkpoint


@pytest.fixture
def path_manager():
    """Detectron2's PathManager, with what a test registers taken back."""
    from detectron2.utils.file_io import PathManager

    before = dict(PathManager._path_handlers)
    yield PathManager
    PathManager._path_handlers.clear()
    PathManager._path_handlers.update(before)


def test_from_scratch_stays_from_scratch():
    assert resolve("") == ""


def test_registering_twice_keeps_the_first(path_manager, site, filled_cache):
    path_manager.register_handler(serve(site))
    register_handler()
    register_handler()
    assert path_manager.get_local_path("ssl://test") == resolve("ssl://test")
    assert path_manager.exists("ssl://test") and not path_manager.exists("ssl://swav_800ep")


def test_an_unknown_name_is_refused_by_the_registered_handler(path_manager, cache):
    assert "ssl://moco_v2_800ep" in refusal(resolve, "ssl://moco")


def test_a_missing_file_says_what_else_could_be_given(cache):
    message = refusal(resolve, "/nowhere/swav.pth.tar")
    assert "/nowhere/swav.pth.tar" in message and "ssl://swav_800ep" in message


def test_a_raw_file_is_converted_once(moco_file, filled_cache, tmp_path):
    """The cache goes by content: a copy elsewhere under another name has the same place in it."""
    other = tmp_path / "mine.bin"
    other.write_bytes(moco_file.read_bytes())
    copies = list((filled_cache.folder / "converted").glob("*.pkl"))
    made = copies[0].stat().st_ino
    assert [resolve(str(moco_file)), resolve(str(other))] == [str(copies[0])] * 2
    assert copies[0].stat().st_ino == made and len(copies) == 1


@pytest.fixture
def hugging_face_folder(tmp_path):
    """A ResNet-50 of an eighth of the channels as transformers' save_pretrained leaves it."""
    torch.manual_seed(0)
    network = trained(Narrow(Bottleneck, [3, 4, 6, 3]))
    save_file(hugging_face_state(network), tmp_path / "model.safetensors")

    def say(in_1x1: bool) -> str:
        config = RESNET_CONFIG | {"downsample_in_bottleneck": in_1x1}
        (tmp_path / "config.json").write_text(json.dumps(config))
        return str(tmp_path / "model.safetensors")

    return say


def stride_in_1x1(copy: str) -> bool:
    return pickle.loads(Path(copy).read_bytes())["provenance"]["input"]["stride_in_1x1"]


def test_a_copy_goes_by_the_text_beside_its_source(hugging_face_folder, cache):
    """The same bytes mean another network when the config.json beside them says so."""
    first = resolve(hugging_face_folder(False))
    made = Path(first).stat().st_ino
    second = resolve(hugging_face_folder(True))
    assert (stride_in_1x1(first), stride_in_1x1(second)) == (False, True)
    assert resolve(hugging_face_folder(False)) == first and Path(first).stat().st_ino == made
    assert len({first, second, *map(str, cache.folder.glob("converted/*.pkl"))}) == 2


def test_a_file_without_text_beside_it_is_read_once_at_a_start(
    filled, filled_cache, moco_file, monkeypatch
):
    reads = []

    def counted(path):
        reads.append(path)
        return read_checkpoint(path)

    monkeypatch.setattr("ssl_backbones.conversion.reading.read_checkpoint", counted)
    assert resolve(str(moco_file)) == str(filled_cache.converted(filled.sha256))
    assert len(reads) == 1


def test_a_copy_of_an_earlier_conversion_is_not_used_again(filled, filled_cache, moco_file):
    """It is left where it is: another version of this package may share the folder."""
    copy = filled_cache.converted(filled.sha256)
    old = copy.with_name(f"{filled.sha256[:16]}-{__version__}.pkl")  # as it was called before
    copy.rename(old)
    before = old.stat()
    assert filled_cache.converted(filled.sha256) is None
    assert resolve(str(moco_file)) == str(copy)
    assert old.stat().st_ino == before.st_ino and old.stat().st_mtime_ns == before.st_mtime_ns


def test_a_file_that_needs_an_option_is_sent_to_the_converter(cache, tmp_path):
    """The trainer has no --prefix."""
    torch.manual_seed(0)
    network = trained(Narrow(Bottleneck, [3, 4, 6, 3]))
    state = {f"trunk.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"net": state}, tmp_path / "own.pth")
    message = refusal(resolve, str(tmp_path / "own.pth"))
    assert "with --prefix 'net/trunk.'; that is an option of tools/convert_checkpoint.py" in message


def test_text_that_changes_during_the_conversion_is_noticed(
    hugging_face_folder, cache, monkeypatch
):
    texts = iter(("1", "2"))
    monkeypatch.setattr(resolution, "_text_beside", lambda source: next(texts))
    assert "changed while it was read" in refusal(resolve, hugging_face_folder(True))
    assert not list(cache.folder.glob("converted/*.pkl"))


def test_a_file_that_is_replaced_between_its_hash_and_its_conversion_is_not_kept(
    moco_file, cache, tmp_path, monkeypatch
):
    """As by a pretraining that still saves: its next file would stand in the cache under this one's hash."""
    path, other = tmp_path / "last.pth", tmp_path / "next.pth"
    path.write_bytes(moco_file.read_bytes())
    torch.save({**torch.load(moco_file, weights_only=True), "epoch": 201}, other)

    def hash_then_replace(path):
        digest = hashing.sha256_of(path)
        other.replace(path)
        return digest

    monkeypatch.setattr(resolution, "sha256_of", hash_then_replace)
    assert "changed while it was read" in refusal(resolve, str(path))
    assert not list(cache.folder.glob("converted/*.pkl"))


def test_a_start_reads_a_raw_file_through_once(moco_file, cache, digits, tmp_path, monkeypatch):
    """To hash it: whether it is there converted already or not, its sha256 is found out once for all."""
    hashed = []
    read = hashing._read
    monkeypatch.setattr(
        hashing, "_read", lambda path, take: hashed.append(str(path)) or read(path, take)
    )
    for start in ("converting", "finding"):
        overrides = [
            "train.device=cpu",
            f"train.output_dir={tmp_path / start}",
            "dataloader.train.dataset.names=digits_train",
            "dataloader.test.dataset.names=digits_test",
            "model.roi_heads.num_classes=10",
            f"train.init_checkpoint={moco_file}",
        ]
        cfg = load_config("moco_1x", overrides)
        hashed.clear()
        started = settle(cfg, World(), Namespace(eval_only=False, resume=False))
        sha256 = hashlib.sha256(moco_file.read_bytes()).hexdigest()
        assert started.provenance["source_sha256"] == sha256
        assert cfg.train.init_checkpoint == str(cache.converted(sha256))
        hashed.pop()  # by the line above
        assert hashed.count(str(moco_file)) == 1
        assert hashed.count(cfg.train.init_checkpoint) == 1


def test_a_download_is_read_through_once(site, moco_file, cache, monkeypatch):
    """For the published MD5, the sha256 to record and the one in the provenance alike."""
    site.body = moco_file.read_bytes()
    hashed = []
    read = hashing._read
    monkeypatch.setattr(
        hashing, "_read", lambda path, take: hashed.append(Path(path).name) or read(path, take)
    )
    handler = serve(site, hashlib.md5(site.body).hexdigest())
    copy = Path(handler._get_local_path("ssl://test"))
    assert hashed == ["weights.pth.tar.part", copy.name]
    sha256 = hashlib.sha256(site.body).hexdigest()
    assert pickle.loads(copy.read_bytes())["provenance"]["source_sha256"] == sha256  # our own file
    assert cache.known("test").sha256 == sha256


def test_a_converted_file_is_returned_as_it_is_under_any_name(filled_cache, tmp_path, monkeypatch):
    copy = next((filled_cache.folder / "converted").glob("*.pkl"))
    (tmp_path / "weights.bin").write_bytes(copy.read_bytes())
    assert resolve(str(tmp_path / "weights.bin")) == str(tmp_path / "weights.bin")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("~/weights.bin") == str(tmp_path / "weights.bin")


@pytest.mark.parametrize("prefix", ["backbone.bottom_up.", "backbone.", ""])
def test_a_file_of_detectron2s_trainer_is_returned_as_it_is(cache, tmp_path, prefix):
    from detectron2.checkpoint import DetectionCheckpointer

    stem = torch.nn.Module()
    stem.register_parameter("weight", torch.nn.Parameter(torch.ones(2)))
    model = torch.nn.Module()
    inner = model
    for name in [*prefix.split(".")[:-1], "stem", "conv1"]:
        inner.add_module(name, stem if name == "conv1" else torch.nn.Module())
        inner = inner.get_submodule(name)
    DetectionCheckpointer(model, str(tmp_path)).save("model_0000001", iteration=1)
    path = str(tmp_path / "model_0000001.pth")
    assert f"{prefix}stem.conv1.weight" in torch.load(path, weights_only=True)["model"]
    assert resolve(path) == path
    assert not cache.folder.exists()


def test_so_is_one_of_a_detector_on_another_backbone_than_a_resnet(cache, tmp_path):
    path = tmp_path / "model_final.pth"
    names = ("backbone.bottom_up.convnext.stem.0.weight", "proposal_generator.rpn_head.conv.weight")
    torch.save({"model": {name: torch.ones(2, 3, 4, 4) for name in names}}, path)
    assert resolve(str(path)) == str(path)
    assert not cache.folder.exists()


def test_a_file_of_detectron2s_model_zoo_is_returned_as_it_is(cache, tmp_path):
    """Of whatever architecture: the zoo's files say `__author__`."""
    path = tmp_path / "RegNetX.pkl"
    content = {"model": {"s1.b1.weight": np.ones(2, np.float32)}, "__author__": "somebody"}
    path.write_bytes(pickle.dumps(content))
    assert resolve(str(path)) == str(path)


@pytest.mark.parametrize("top", [None, "blobs"])
def test_a_caffe2_file_of_the_model_zoo_is_returned_as_it_is(cache, tmp_path, top):
    """As detectron2://ImageNetPretrained/MSRA/R-50.pkl, where the zoo's own configs start."""
    path = tmp_path / "R-50.pkl"
    content = {"conv1_w": np.ones((64, 3, 7, 7), np.float32)}
    path.write_bytes(pickle.dumps({top: content} if top else content))
    assert resolve(str(path)) == str(path)


def test_a_torchvision_model_under_model_is_not_taken_for_detectron2s(cache, tmp_path):
    path = tmp_path / "mine.pth"
    torch.save({"model": {"conv1.weight": torch.ones(64, 3, 7, 7)}}, path)
    assert str(path) in refusal(resolve, str(path))


def test_a_web_page_that_was_saved_as_a_checkpoint_is_refused(cache, tmp_path):
    path = tmp_path / "swav.pth.tar"
    path.write_text("<!DOCTYPE html><html><body>404</body></html>")
    assert str(path) in refusal(resolve, str(path))


def test_another_address_goes_through_the_path_manager(
    site, filled_cache, moco_file, tmp_path, monkeypatch
):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "iopath"))
    site.body = moco_file.read_bytes()
    assert Path(resolve(site.url)) == next((filled_cache.folder / "converted").glob("*.pkl"))
    assert len(site.ranges) == 1


def test_an_address_that_gives_nothing_is_one_line(site, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "iopath"))
    site.statuses = [404] * 9
    message = refusal(resolve, site.url)
    assert site.url in message and "404" in message
    assert "no file at" in refusal(resolve, "s3://bucket/swav.pth.tar")
