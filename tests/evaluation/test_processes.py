"""Any number of processes gives the same numbers and the same files."""

import json
from types import SimpleNamespace

import pytest
import torch
from detectron2.config import instantiate
from detectron2.utils.events import EventStorage
from running import TINY

from ssl_backbones.engine.checkpoints.checkpointer import StrictCheckpointer
from ssl_backbones.engine.config import load_config
from ssl_backbones.engine.hooks.evaluations import EvaluationsHook
from ssl_backbones.engine.hooks.precise_bn import PreciseBN
from ssl_backbones.evaluation.coco import evaluate

FILES = ("coco_instances_results.json", "metrics.json", "per_class.csv")


@pytest.fixture
def whole(cfg, oracle, tmp_path):
    evaluate(cfg.dataloader, oracle(), str(tmp_path / "whole"))
    return tmp_path / "whole"


def same_files(folder, whole):
    return {name: (folder / name).read_bytes() == (whole / name).read_bytes() for name in FILES}


@pytest.mark.parametrize("count", [2, 8])
def test_files_are_those_of_one_process(cfg, oracle, tmp_path, forked, whole, count):
    # Eight processes have six images: two of them have none.
    def body(rank):
        model = oracle()
        results = evaluate(cfg.dataloader, model, str(tmp_path / "several"))
        return len(model.seen), sorted(results)

    answers = forked(count, body)
    assert [seen for seen, _ in answers] == ([3, 3] if count == 2 else [1] * 6 + [0] * 2)
    assert [tasks for _, tasks in answers] == [["bbox", "segm"]] + [[]] * (count - 1)
    assert same_files(tmp_path / "several", whole) == dict.fromkeys(FILES, True)


def test_statistics_that_differ_between_processes_are_those_of_the_first(
    cfg, oracle, tmp_path, forked, whole
):
    def body(rank):
        model = oracle(shift=2.0 + rank)
        evaluate(cfg.dataloader, model, str(tmp_path / "several"))
        return model.shift.item()

    assert forked(2, body) == [2.0, 2.0]
    assert same_files(tmp_path / "several", whole) == dict.fromkeys(FILES, True)


def test_a_model_wrapped_for_processes_is_evaluated_by_itself(cfg, oracle, tmp_path, forked):
    def body(rank):
        model = oracle()
        model.weight = torch.nn.Parameter(torch.zeros(1))
        wrapped = torch.nn.parallel.DistributedDataParallel(model, broadcast_buffers=True)
        # Five images: what one process does alone must wait for nobody.
        evaluate(cfg.dataloader, wrapped, str(tmp_path), subset=5)
        return len(model.seen), wrapped.training and model.training

    assert forked(2, body) == [(3, True), (2, True)]
    assert json.loads((tmp_path / "metrics.json").read_text())["images"] == 5
    # What the second found follows what the first found, as if there were one process.
    found = json.loads((tmp_path / FILES[0]).read_text())
    assert [one["image_id"] for one in found] == sorted(one["image_id"] for one in found)


def test_every_process_is_asked_to_stop_and_has_the_metrics(cfg, oracle, tmp_path, forked):
    cfg.train.update(max_iter=20, eval_period=2, patience=2)

    def body(rank):
        model = oracle()
        model.weight = torch.nn.Parameter(torch.zeros(1))
        checkpointer = StrictCheckpointer(model, str(tmp_path), save_to_disk=rank == 0)
        hook = EvaluationsHook(cfg, model, checkpointer)
        hook.trainer = SimpleNamespace(iter=-1, max_iter=20, stop=None)
        with EventStorage() as hook.trainer.storage:
            while not hook.trainer.stop:
                hook.trainer.iter += 1
                hook.after_step()
        latest = hook.trainer.storage.latest()["bbox/AP"][0]
        return hook.trainer.iter, hook.trainer.stop, hook.state_dict(), latest

    first, second = forked(2, body)
    assert first == second
    assert first[0] == 5 and first[2]["since"] == 2 and first[2]["best"] == first[3] > 0


@pytest.mark.parametrize("norm", ["BN", "naiveSyncBN"])
def test_precise_statistics_are_those_of_all_processes(digits, forked, norm):
    overrides = (
        "dataloader.train.mapper.augmentations.0.short_edge_length=[64]",
        "dataloader.train.total_batch_size=4",
        f"model.backbone.bottom_up.norm={norm}",
    )

    def statistics(processes, accumulate):
        batches = [f"train.accumulate={accumulate}", f"train.precise_bn.num_iter={2 * accumulate}"]
        cfg = load_config(TINY, [*overrides, *batches])

        def body(rank):
            torch.manual_seed(0)
            model = instantiate(cfg.model).train()
            hook = PreciseBN(cfg, model)
            hook.trainer = SimpleNamespace(iter=3, max_iter=9, seed=5)
            hook.update()
            stem = model.backbone.bottom_up.stem.conv1.norm
            return [stem.running_mean.tolist(), stem.running_var.tolist()]

        return forked(processes, body)

    first, second = statistics(processes=2, accumulate=1)
    assert first == second
    # The same images, in one process: two micro-batches take the place of two processes.
    (alone,) = statistics(processes=1, accumulate=2)
    # naiveSyncBN keeps the biased variance of 2 x 32 x 32 pixels.
    torch.testing.assert_close(
        torch.tensor(first), torch.tensor(alone), rtol=1e-5 if norm == "BN" else 1e-3, atol=1e-5
    )


def test_a_real_detector_finds_the_same(digits, tmp_path, forked):
    tiny = load_config(TINY)

    def body(processes):
        def evaluate_tiny(rank):
            torch.manual_seed(0)
            model = instantiate(tiny.model)
            return evaluate(tiny.dataloader, model, str(tmp_path / f"{processes}"))

        return evaluate_tiny

    (alone,), several = forked(1, body(1)), forked(2, body(2))
    assert str(several) == str([alone, {}])
    assert same_files(tmp_path / "2", tmp_path / "1") == dict.fromkeys(FILES, True)
    assert len(json.loads((tmp_path / "1" / FILES[0]).read_text())) > 10
