"""Files and folders that are no checkpoint by themselves, or another program's: what each is, and the mend.

Tables of a predicate and a clause that follows the path's name. The first row that fits speaks.
"""

from __future__ import annotations

import codecs
import mmap
import re
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from ...errors import format_name

_FRAMEWORK = "is not read: give a checkpoint that PyTorch wrote"
_DCP = (
    "is torch.distributed.checkpoint's, which saves in parts: in their folder `python -m "
    "torch.distributed.checkpoint.format_utils dcp_to_torch . whole.pth` makes one file of them; give that"
)
_DEEPSPEED = (
    "is DeepSpeed's, which saves in parts: `python zero_to_fp32.py . out.pt`, in the folder of that "
    "script, makes one file of them (out.pt/pytorch_model.bin in recent versions); give that, or, where "
    "there is no such script, mp_rank_00_model_states.pt, which then is whole"
)
_FULL_STATE_DICT = (
    "of which it has one process's part: where it was made, save what torch.distributed.checkpoint."
    "state_dict.get_model_state_dict(model, options=StateDictOptions(full_state_dict=True)) gives"
)
_TENSORFLOW = f"is TensorFlow's, which {_FRAMEWORK}"
_ONNX = f"is ONNX, which {_FRAMEWORK}"
_FLAX = f"is JAX's (Flax's msgpack), which {_FRAMEWORK}"
_ORBAX = f"is JAX's (orbax), which {_FRAMEWORK}"

# Checkpoints in several files. Hugging Face's libraries number them from 1 on.
_SHARD = re.compile(r"([\w.-]+)-(\d{5})-of-(\d{5})\.(safetensors|bin|pt|pth)")
_SHARD_INDEX = re.compile(r"([\w.-]+)\.(safetensors|bin)\.index(\.[\w-]+)?\.json")
_WHOLE = {
    "safetensors": "from safetensors.torch import load_file as load, save_file as save; "
    "save({{k: v for f in glob('{files}') for k, v in load(f).items()}}, 'whole.safetensors')",
    "bin": "import torch; torch.save({{k: v for f in glob('{files}') for k, v in "
    "torch.load(f, map_location='cpu', weights_only=True).items()}}, 'whole.pth')",
}


def _of_shards(stem: str, count: str, kind: str) -> str:
    command = _WHOLE.get(kind, _WHOLE["bin"]).format(files=f"{stem}-*-of-{count}.{kind}")
    return (
        "is a checkpoint in several files, or one of them: in their folder `python -c "
        f'"from glob import glob; {command}"` makes one file; give that'
    )


def _shard(name: str) -> str | None:
    if match := _SHARD.fullmatch(name):
        return _of_shards(match[1], match[3], match[4]) if match[3] != "00001" else None
    if match := _SHARD_INDEX.fullmatch(name):
        return _of_shards(f"{match[1]}{match[3] or ''}", "*", match[2])
    return None


# By their names: what is in such a file looks like a whole checkpoint, or like nothing at all.
_PARTS = (
    (r"\.metadata|.*\.distcp", _DCP),
    (r".*_optim_states\.pt|zero_pp_rank_\d+_mp_rank_\d+_model_states\.pt", _DEEPSPEED),
    (r"zero_to_fp32\.py", _DEEPSPEED),
    (r".*\.data-\d{5}-of-\d{5}|(.*ckpt(-\d+)?|variables)\.(index|meta)", _TENSORFLOW),
    (r"saved_model\.pb", _TENSORFLOW),
)
_OTHERS = ((r".*\.onnx([._]data)?", _ONNX), (r".*\.msgpack", _FLAX))


def by_name(path: Path) -> str | None:
    """Why a file of this name is no checkpoint by itself, whatever is in it; None of another name."""
    name = path.name
    beside = _names_in(path.parent) if name == "latest" or name.startswith("mp_rank_") else []
    if name == "latest" and "zero_to_fp32.py" in beside:
        return _DEEPSPEED
    # Weights in half precision, and whole: read where nothing better lies beside them.
    if name != "latest" and any(other.endswith("_optim_states.pt") for other in beside):
        return _DEEPSPEED
    return _shard(name) or _first(name, _PARTS + _OTHERS)


def folder(path: Path) -> str:
    """What a folder is that was given in place of a file."""
    names = _names_in(path)
    for name in names:
        if reason := _shard(name) or _first(name, _PARTS):
            return reason
    if "latest" in names and any(name.startswith("global_step") for name in names):
        return _DEEPSPEED
    if {"_METADATA", "_CHECKPOINT_METADATA", "manifest.ocdbt"} & set(names):
        return _ORBAX
    return "is a folder: give the file itself"


def _first(name: str, rows: Iterable[tuple[str, str]]) -> str | None:
    return next((reason for pattern, reason in rows if re.fullmatch(pattern, name)), None)


def _names_in(path: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in path.iterdir())
    except OSError:
        return []


# By the first bytes, of files in no container that is read


def _starts(signature: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.lstrip().lower().startswith(signature)


def _matches(pattern: bytes) -> Callable[[bytes], bool]:
    return lambda head: re.match(pattern, head, re.DOTALL) is not None


def _indexes(suffix: bytes) -> Callable[[bytes], bool]:
    """Whether it is an index (JSON) that says in which file of this kind each tensor lies."""
    return lambda head: b'"weight_map"' in head and suffix in head


def _is_text(head: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # its end may be cut off
    except UnicodeDecodeError:
        return False
    return all(c.isprintable() or c in "\t\r\n" for c in text)


_BYTES: tuple[tuple[Callable[[bytes], bool], str], ...] = (
    (
        _starts(b"<"),
        "is a web page (HTML or XML), not a checkpoint: the address gave an error or a log-in",
    ),
    (
        _starts(b"version https://git-lfs"),
        "is a Git LFS pointer, not the file: run `git lfs pull`",
    ),
    (_starts(b"\x1f\x8b"), "is compressed by gzip: unpack it first and give the file inside"),
    (_starts(b"bzh"), "is compressed by bzip2: unpack it first and give the file inside"),
    (_starts(b"\xfd7zxz"), "is compressed by xz: unpack it first and give the file inside"),
    (_starts(b"pk\x05\x06"), "is an empty zip archive: get it again"),
    (_starts(b"\x89hdf"), f"is an HDF5 file, such as Keras's .h5, which {_FRAMEWORK}"),
    (
        _starts(b"\x93numpy"),
        "is a .npy file, as BYOL's and DetCon's of JAX's time, which holds a pickle that only its "
        "own code can build: save its arrays as a PyTorch state_dict(), or give a PyTorch file",
    ),
    (
        lambda head: head[257:262] == b"ustar",
        "is a tar archive: unpack it, or, if torch before 0.1.10 wrote it, load it with an old "
        "torch and save its state_dict() again",
    ),
    # ModelProto of onnx.proto: ir_version, then the producer's name or the graph.
    (
        _matches(rb"\x08[\x01-\x1f](\x12[\x01-\x3f][\w.+ -]+[\x1a:]|:)"),
        _ONNX,
    ),
    # A map whose first key is text.
    (_matches(rb"[\x81-\x8f][\xa1-\xbf][\w./-]+"), _FLAX),
    (_matches(rb"\x0c\xdb:\*"), _ORBAX),
    (_indexes(b".safetensors"), _of_shards("*", "*", "safetensors")),
    (_indexes(b".bin"), _of_shards("*", "*", "bin")),
    (_is_text, "is a text file, not a checkpoint: give the file of the weights, or get it again"),
)


def looks_like(head: bytes) -> str:
    """What a file that is no checkpoint seems to be by its first bytes, and the mend."""
    head = head.removeprefix(codecs.BOM_UTF8)
    kinds = (reason for is_such, reason in _BYTES if is_such(head))
    other = "is not a PyTorch checkpoint nor a pickle of arrays: it is damaged or of another kind"
    return next(kinds, other)


# Zip archives


def archive(names: Collection[str]) -> str:
    """What a zip archive of these entries is, which has no single pickle of torch.save."""
    ends = {name.rsplit("/", 1)[-1] for name in names}
    if {"config.json", "model.weights.h5"} <= ends:
        return f"is a .keras file of Keras, which {_FRAMEWORK}"
    if ends & {"archive_format", "serialized_exported_program.json"}:
        return (
            "is a program of torch.export, not a checkpoint: "
            "`torch.save(torch.export.load(FILE).state_dict, 'weights.pth')` takes its weights out"
        )
    if ends and all(name.endswith(".npy") for name in ends):
        return f"is a .npz file of numpy arrays, which {_FRAMEWORK}"
    some = ", ".join(format_name(name) for name in list(names)[:3])
    more = ", ..." if len(names) > 3 else ""
    return (
        f"is a zip archive ({some}{more}) but not a PyTorch checkpoint: unpack it and give the file of "
        "the weights in it"
    )


def torchscript(data: mmap.mmap, pickled: slice | None) -> str:
    """What a TorchScript archive is, by where the pickle of its module lies, if in plain bytes."""
    # CLIP's ResNets, which OpenAI published in this form.
    if pickled and data.find(b"attnpool", pickled.start, pickled.stop) >= 0:
        return (
            "is a TorchScript program of CLIP's ResNet, whose stem of three convolutions is not "
            "Detectron2's: give a file that was pretrained with a plain ResNet or ResNeXt"
        )
    return (
        "is a TorchScript program, not a checkpoint: "
        "`torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth')` takes its weights out, if you "
        "trust its authors"
    )


# Pickles, by the first name that is not on the allow-list

_PACKAGES = {
    "torch.distributed.checkpoint.": _DCP,
    "torch.distributed.tensor.": f"holds sharded tensors (FSDP2's DTensor), {_FULL_STATE_DICT}",
    "torch.distributed._tensor.": f"holds sharded tensors (FSDP2's DTensor), {_FULL_STATE_DICT}",
    "torch.distributed._shard.": f"holds sharded tensors (FSDP1's ShardedTensor), {_FULL_STATE_DICT}",
    "deepspeed.": _DEEPSPEED,
    "torch._utils._rebuild_meta_tensor": "holds tensors on the meta device, without numbers: "
    "give the file that its weights were saved to",
    "torch._utils._rebuild_sparse_tensor": "holds sparse tensors: save each one's .to_dense()",
    "torch.float8_": "holds numbers of 8 bits (float8), which are not read: save each tensor's .float()",
    "torch._utils._rebuild_qtensor": "holds quantized tensors: give the weights that were trained",
}


def pickle_of(name: str) -> str | None:
    """What a pickle is that asks for this dotted name; None where the name does not tell."""
    return next((reason for start, reason in _PACKAGES.items() if name.startswith(start)), None)


# Contents


def content(held: dict) -> str | None:
    """Why what was read holds no whole network; None where it does not tell."""
    module = held.get("module")
    if not held.keys() & {"ds_version", "ds_config"} or type(module) is not dict:
        return None
    # ZeRO's third stage leaves empty tensors here and keeps their numbers in other files.
    is_empty = any(getattr(tensor, "size", 1) == 0 for tensor in module.values())
    return _DEEPSPEED if is_empty else None
