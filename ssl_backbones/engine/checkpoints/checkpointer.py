"""Detectron2's checkpointer, made safe (no code from a file runs), strict (nothing is left out silently) and
atomic (a crash leaves the old checkpoint or the new one)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts

from ...conversion.families import FAMILIES
from ...conversion.reading import read_checkpoint
from ...errors import InputError
from ...files import write_atomically
from ...hashing import HashingFile, checksum_beside, write_checksum
from ...modeling.freezing import find_backbone, find_res5, is_pretrained
from .checkpoint_folder import remove

# Counts batches for a running average that nobody reads; stripped by converters, absent in FrozenBatchNorm2d.
_COUNTER = "num_batches_tracked"

# Built from the config, not learned: v0.6 and main differ in which of them a checkpoint holds.
_FROM_CONFIG = ("pixel_mean", "pixel_std")


class StrictCheckpointer(DetectionCheckpointer):
    """A `DetectionCheckpointer` that reads by an allow-list, demands every tensor, and writes whole files.

    `load_backbone` demands every tensor of the model's ResNet, whose last stage the heads of a C4 model hold;
    `load` demands every tensor of the model. Names and shapes are compared with the file's own keys before
    `load_state_dict`, which alone is not enough: `FrozenBatchNorm2d` fills missing statistics with 0 and 1
    without a word.

    Args:
        strict: False turns a refusal into a warning in the log.
    """

    def __init__(self, model, save_dir="", *, strict: bool = True, **checkpointables):
        super().__init__(model, save_dir, **checkpointables)
        self.strict = strict
        self.new_keys: list[str] = []
        self._only_backbone = False

    def load_backbone(self, path: str) -> dict[str, Any]:
        """Start from `path`: every backbone tensor must come from it; what it lacks is listed in `new_keys`.

        Raises:
            InputError: a backbone tensor is missing or has another shape.
        """
        self._only_backbone = True
        try:
            return self.load(path, checkpointables=[])
        finally:
            self._only_backbone = False

    def save(self, name: str, tag: bool = True, **kwargs: Any) -> None:
        """Write `name`.pth, then its checksum, then the pointer to it: each whole or not at all.

        Args:
            tag: whether a resumed run goes on from this one.

        Raises:
            InputError: the file cannot be written; the checkpoints there are stay as they are.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        data = {"model": self.model.state_dict()}
        data.update({key: value.state_dict() for key, value in self.checkpointables.items()})
        data.update(kwargs)
        path = os.path.join(self.save_dir, f"{name}.pth")
        self.logger.info(f"Saving checkpoint to {path}")
        digest = ""

        def write(file) -> None:
            nonlocal digest
            hashing = HashingFile(file)
            try:
                torch.save(data, hashing)
            except RuntimeError as error:
                # torch closes its archive whatever happened, and complains about that instead.
                raise error.__context__ or error from None
            digest = hashing.hexdigest()
            # Only now is the old file done with; its checksum beside new content would look like damage.
            remove(checksum_beside(path))

        write_atomically(path, write)
        write_checksum(path, digest)
        if tag:
            self.tag_last_checkpoint(f"{name}.pth")

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Point `last_checkpoint` at the newest file; read by Detectron2's own tools too."""
        path = os.path.join(self.save_dir, "last_checkpoint")
        write_atomically(path, lambda file: file.write(last_filename_basename.encode()))

    def _load_file(self, filename: str) -> dict[str, Any]:
        content = _to_torch(read_checkpoint(filename).content)
        if not isinstance(content, dict):
            raise InputError(f"{filename} holds a {type(content).__name__}, not a checkpoint")
        if "model" in content:
            return {**content, "matching_heuristics": self._asks_for_heuristics()}
        if isinstance(content.get("blobs"), dict):
            content = content["blobs"]
        if any(isinstance(v, torch.Tensor) and k.endswith("_w") for k, v in content.items()):
            weights = {k: v for k, v in content.items() if not k.endswith("_momentum")}
            return {"model": weights, "__author__": "Caffe2", "matching_heuristics": True}
        return {"model": content, "matching_heuristics": self._asks_for_heuristics()}

    def _asks_for_heuristics(self) -> bool:
        """Whether the path ends in ?matching_heuristics=True, which Detectron2 main understands."""
        asked = getattr(self, "_parsed_url_during_load", None)
        return asked is not None and "matching_heuristics=True" in asked.query

    def _load_model(self, checkpoint: dict[str, Any]):
        tensors = {k: v for k, v in checkpoint["model"].items() if isinstance(v, torch.Tensor)}
        state = self.model.state_dict()
        if checkpoint.get("__author__") == "Caffe2":
            tensors = align_and_update_state_dicts(state, tensors, c2_conversion=True)
        elif checkpoint["matching_heuristics"]:
            tensors = align_and_update_state_dicts(state, tensors, c2_conversion=False)
        else:
            tensors = self._in_model_names(tensors)
        self._compare(tensors, state)
        checkpoint["model"] = tensors
        checkpoint["matching_heuristics"] = False
        incompatible = super()._load_model(checkpoint)
        # Already compared above, by our own rule; fvcore would warn of every counter and every new head.
        incompatible.missing_keys.clear()
        return incompatible

    def _in_model_names(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The file's tensors under the model's names: a plain backbone file gets the backbone's prefix."""
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
        found = find_backbone(self.model)
        if found is None or not any(family.stem in tensors for family in FAMILIES.values()):
            return tensors
        prefix = f"{found[0]}." if found[0] else ""
        res5 = find_res5(self.model)

        def in_model(key: str) -> str:
            if res5 is not None and key.startswith("res5."):
                return f"{res5[0]}.{key.removeprefix('res5.')}"
            return f"{prefix}{key}"

        return {in_model(key): value for key, value in tensors.items()}

    def _compare(
        self, tensors: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]
    ) -> None:
        """Refuse if a demanded tensor is missing or has another shape; note the others as new."""
        lacking = {}
        for key, value in state.items():
            if key.endswith(_COUNTER) or key in _FROM_CONFIG:
                continue
            if key not in tensors:
                lacking[key] = "missing"
            elif tensors[key].shape != value.shape:
                lacking[key] = f"shape {tuple(tensors[key].shape)}, not {tuple(value.shape)}"
        demanded = {key: why for key, why in lacking.items() if self._is_demanded(key)}
        self.new_keys = [key for key in lacking if key not in demanded]
        if not demanded:
            return
        total = sum(
            self._is_demanded(k)
            for k in state
            if not k.endswith(_COUNTER) and k not in _FROM_CONFIG
        )
        shown = "; ".join(f"{key} ({why})" for key, why in list(demanded.items())[:5])
        more = f"; and {len(demanded) - 5} more" if len(demanded) > 5 else ""
        message = (
            f"{len(demanded)} of {total} {'backbone' if self._only_backbone else 'model'} tensors do not "
            f"come from the checkpoint: {shown}{more}. {self._mend(demanded, tensors)}"
        )
        if self.strict:
            raise InputError(message)
        self.logger.warning(message)

    def _is_demanded(self, key: str) -> bool:
        if not self._only_backbone:
            return True
        found, res5 = find_backbone(self.model), find_res5(self.model)
        # The name is empty where the model is itself the ResNet: then all of it is demanded.
        if found is None or is_pretrained(found, key):
            return True
        # Its blocks are numbered; a norm after them is the detector's own.
        return res5 is not None and re.match(rf"{re.escape(res5[0])}\.\d+\.", key) is not None

    def _mend(self, demanded: Mapping[str, str], tensors: Mapping[str, torch.Tensor]) -> str:
        if self._only_backbone:
            return (
                "Convert the file with tools/convert_checkpoint.py and use a config of the same "
                "architecture; train.strict_init=false trains on regardless"
            )
        found = find_backbone(self.model)
        if found and not any(is_pretrained(found, key) for key in demanded):
            return "This is a backbone alone: give a trained detector (a .pth of a run folder)"
        return "Give the checkpoint of a run of this very config"


def _to_torch(value: Any) -> Any:
    """Copy every array in a nested object into a writable tensor."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.array(value))
    if isinstance(value, Mapping):
        return {key: _to_torch(item) for key, item in value.items()}
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value)(_to_torch(item) for item in value)
    return value
