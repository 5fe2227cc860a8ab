import pytest
import torch
from detectron2.layers import get_norm
from omegaconf import OmegaConf

from ssl_backbones import get_config
from ssl_backbones.modeling.norm import apply_norm, choose_norm


@pytest.mark.parametrize(
    ("world_size", "device", "name"),
    [(1, "cpu", "BN"), (1, "cuda", "BN"), (2, "cpu", "naiveSyncBN"), (8, "cuda", "SyncBN")],
)
def test_the_rule(world_size, device, name):
    choice = choose_norm(world_size, device)
    assert choice.name == name
    assert choice.reason


@pytest.mark.parametrize(("world_size", "device"), [(1, "cpu"), (2, "cpu"), (8, "cuda")])
def test_micro_batches_are_not_called_the_whole_batch(world_size, device):
    plain, split = choose_norm(world_size, device), choose_norm(world_size, device, accumulate=16)
    assert split.name == plain.name
    assert split.reason.endswith("each of 16 micro-batches is normalised by itself")
    assert "whole batch" not in split.reason and "micro" not in plain.reason


def test_only_sync_bn_is_replaced():
    cfg = get_config("moco_1x").model
    cfg.backbone.norm = "GN"
    asked = apply_norm(cfg, choose_norm(1, "cpu"))
    assert asked == ["backbone.bottom_up.stem.norm", "backbone.bottom_up.stages.norm"]
    assert cfg.backbone.bottom_up.stem.norm == cfg.backbone.bottom_up.stages.norm == "BN"
    assert cfg.backbone.norm == "GN"


def test_lists_and_absent_values_are_walked():
    cfg = OmegaConf.create({"a": [{"norm": "SyncBN"}, {"norm": None}], "b": "${a}", "c": ""})
    assert apply_norm(cfg, choose_norm(2, "cpu")) == ["a.0.norm"]
    assert cfg.a[0].norm == "naiveSyncBN"


def normalised(name, images):
    """Features, input gradients and running statistics of one norm over `images` (n, 4, h, w)."""
    norm = get_norm(name, 4).train()
    images = images.clone().requires_grad_()
    features = norm(images)
    # Any loss that weights the elements unequally.
    weights = torch.linspace(-1, 1, 4)[:, None, None] * images.detach()
    (features * weights).sum().backward()
    return features.detach(), images.grad, norm.running_mean, norm.running_var


@pytest.fixture
def batch():
    return torch.randn(4, 4, 6, 5, generator=torch.Generator().manual_seed(0)) * 3 + 1


def test_naive_sync_bn_of_equal_shapes_is_bn_on_the_whole_batch(forked, batch):
    features, gradients, mean, variance = normalised("BN", batch)
    halves = forked(2, lambda rank: normalised("naiveSyncBN", batch[2 * rank : 2 * rank + 2]))
    assert torch.allclose(torch.cat([h[0] for h in halves]), features, atol=1e-6)
    assert torch.allclose(torch.cat([h[1] for h in halves]), gradients, atol=1e-4)
    # A running variance starts at 1 and takes a tenth of the new one: BN's of n - 1, this one's of n.
    n = batch[:, 0].numel()
    biased = 0.9 + (variance - 0.9) * (n - 1) / n
    for _, _, running_mean, running_var in halves:
        assert torch.allclose(running_mean, mean, atol=1e-6)
        assert torch.allclose(running_var, biased, atol=1e-6)
        assert not torch.allclose(running_var, variance, atol=1e-6)


def test_naive_sync_bn_of_unequal_shapes_is_not_and_the_log_says_so(forked, batch):
    features = normalised("BN", batch)[0]
    parts = forked(2, lambda rank: normalised("naiveSyncBN", batch[:1] if rank == 0 else batch[1:]))
    assert (torch.cat([part[0] for part in parts]) - features).abs().max() > 1e-3
    assert "unequal image sizes give other statistics" in choose_norm(2, "cpu").reason


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="nn.SyncBatchNorm needs GPUs")
def test_sync_bn_of_unequal_shapes_is_bn_on_the_whole_batch(batch, tmp_path):
    features, gradients, mean, variance = normalised("BN", batch)
    torch.multiprocessing.spawn(_sync_bn, (batch, f"file://{tmp_path}/store", tmp_path), nprocs=2)
    parts = [torch.load(tmp_path / f"{rank}.pth", weights_only=True) for rank in range(2)]
    assert torch.allclose(torch.cat([part[0] for part in parts]), features, atol=1e-5)
    assert torch.allclose(torch.cat([part[1] for part in parts]), gradients, atol=1e-4)
    for _, _, running_mean, running_var in parts:
        assert torch.allclose(running_mean, mean, atol=1e-6)
        assert torch.allclose(running_var, variance, atol=1e-5)


def _sync_bn(rank, batch, store, folder):
    torch.cuda.set_device(rank)
    torch.set_default_device("cuda")
    torch.distributed.init_process_group("nccl", init_method=store, rank=rank, world_size=2)
    part = (batch[:1] if rank == 0 else batch[1:]).cuda()
    torch.save([tensor.cpu() for tensor in normalised("SyncBN", part)], folder / f"{rank}.pth")
