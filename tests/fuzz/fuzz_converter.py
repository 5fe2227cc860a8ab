"""Feed the converter damaged and hostile files, and count what becomes of them.

    python tests/fuzz/fuzz_converter.py --inputs 10000

Small files of every container are changed at random: bits flipped, runs cut out, repeated, swapped or
overwritten, numbers replaced by extreme ones, instructions that would run code set into a pickle, and
the file cut short. Each goes through the whole converter but the proof. It must come out right or be
refused with one line; anything else (a traceback, a hang, a part of a result, code of the file that
ran, too much memory) counts as "other" and is named with the seed that makes it again.

Input number N of a seed is always the same file. Exit status: 0 if nothing is "other", else 1.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import random
import resource
import shutil
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from ssl_backbones.conversion import convert
from ssl_backbones.conversion.reading import read_checkpoint
from ssl_backbones.errors import InputError
from ssl_backbones.modeling.architectures import Architecture, detectron2_name

# As narrow as a ResNet can be: structure, not numbers, makes up the files.
NETWORK = Architecture("narrow", 18, stem_channels=1, res2_channels=1)

NAMED = 10  # of what must not happen
SECONDS = 10  # that a file of 40 kB may take; it needs some hundredths
# What torch's safe loader must be told to take in honest files: a Namespace and numpy's scalars.
TRUSTED = [argparse.Namespace, np.float64(0).__reduce__()[0], np.dtype, np.dtypes.Float64DType]

MEMORY = 256 << 20  # that the process may grow by; its results are of 20 kB


def network(seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {
        name: generator.uniform(0.5, 1.5, shape).astype(np.float32)
        for name, shape in NETWORK.shapes.items()
    }


def moco() -> dict:
    """As main_moco.py saves, with what foreign types a training may add."""
    query, key = network(0), network(1)
    state = {f"module.encoder_q.{name}": torch.from_numpy(a) for name, a in query.items()}
    state |= {f"module.encoder_k.{name}": torch.from_numpy(a) for name, a in key.items()}
    state["module.encoder_q.fc.0.weight"] = torch.ones(2, 8)
    state["module.queue"] = torch.ones(2, 4)
    state["module.queue_ptr"] = torch.zeros(1, dtype=torch.long)
    optimizer = {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.03}]}
    return {
        "epoch": 200,
        "arch": "resnet18",
        "state_dict": state,
        "optimizer": optimizer,
        "args": argparse.Namespace(lr=0.03),
        "lr": np.float64(0.03),
    }


def swav() -> dict[str, np.ndarray]:
    heads = {"projection_head.0.weight": (2, 8), "prototypes.weight": (3, 2)}
    arrays = network(0) | {name: np.ones(shape, np.float32) for name, shape in heads.items()}
    return {f"module.{name}": array for name, array in arrays.items()}


def torch_file(content: object, **options: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def safetensors_file(arrays: dict[str, np.ndarray]) -> bytes:
    header, position = {"__metadata__": {"format": "pt"}}, 0
    for name, array in arrays.items():
        place = [position, position := position + array.nbytes]
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": place}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(a.tobytes() for a in arrays.values())


def seeds() -> dict[str, bytes]:
    """A file of every container, each of which converts."""
    return {
        "torch zip": torch_file(moco()),
        "torch legacy": torch_file(moco(), _use_new_zipfile_serialization=False),
        "pickle": pickle.dumps({"state_dict": swav()}, 2),
        "pickle, protocol 4": pickle.dumps(swav(), 4),
        "safetensors": safetensors_file(swav()),
    }


# Mutations: each takes the file and a source of chance, and changes the file in place


def flip_bits(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 1, 1, 2, 8))):
        data[somewhere(data, chance)] ^= 1 << chance.randrange(8)


def set_bytes(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 1, 3))):
        data[somewhere(data, chance)] = chance.randrange(256)


def cut_short(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(len(data)) :]


def cut_out(data: bytearray, chance: random.Random) -> None:
    del data[a_run(data, chance)]


def repeat(data: bytearray, chance: random.Random) -> None:
    run = bytes(data[a_run(data, chance)])
    place = somewhere(data, chance)
    data[place:place] = run * chance.choice((1, 2, 100))


def swap(data: bytearray, chance: random.Random) -> None:
    one, other = sorted(a_run(data, chance).start for _ in range(2))
    length = min(chance.randrange(1, 64), other - one, len(data) - other)
    if length > 0:
        first, second = data[one : one + length], data[other : other + length]
        data[one : one + length], data[other : other + length] = second, first


def overwrite(data: bytearray, chance: random.Random) -> None:
    run = a_run(data, chance)
    length = len(data[run])
    data[run] = chance.choice((bytes(length), b"\xff" * length, chance.randbytes(length)))


def set_number(data: bytearray, chance: random.Random) -> None:
    place = somewhere(data, chance)
    extremes = (0, 1, -1, 1 << 15, 1 << 31, (1 << 31) - 1, 1 << 32, 1 << 40, 1 << 62, (1 << 63) - 1)
    number = chance.choice(extremes) & ((1 << 64) - 1)
    data[place : place + 8] = struct.pack("<Q", number)[: chance.choice((2, 4, 8))]


def set_text(data: bytearray, chance: random.Random) -> None:
    """Text that has a meaning somewhere in the formats, over what stood there."""
    words = (b"state_dict", b"module.encoder_q.", b"storage", b"cos\nsystem\n", b"builtins", b"..")
    more = (
        b"PK\x03\x04",
        b"PK\x01\x02",
        b"PK\x05\x06",
        b"PK\x06\x06",
        b'{"',
        b'"F64"',
        b"[]",
        b"-1",
    )
    word = chance.choice(words + more)
    place = somewhere(data, chance)
    data[place : place + len(word)] = word


def set_instruction(data: bytearray, chance: random.Random) -> None:
    """An instruction of the pickle machine, sensible ones as often as the others."""
    data[somewhere(data, chance)] = chance.choice(
        b"()]}NKMXqhrjctRbsuae0.12\x80\x81\x85\x86\x87\x88"
    )


def set_payload(data: bytearray, chance: random.Random) -> None:
    """What makes Python's unpickler touch the marker, somewhere in the file or at its start."""
    command = b"touch " + os.environb[b"FUZZ_MARKER"]
    text = b"X" + struct.pack("<I", len(command)) + command
    payload = chance.choice(
        (
            b"cos\nsystem\n" + text + b"\x85R",
            b"cposix\nsystem\n" + text + b"\x85R",
            b"c__builtin__\ngetattr\ncos\nX\x06\x00\x00\x00system\x86R" + text + b"\x85R",
            b"\x8c\x02os\x8c\x06system\x93" + text + b"\x85R",
        )
    )
    starts = [place for place in (data.find(b"\x80\x02"), data.find(b"\x80\x04")) if place >= 0]
    place = (
        chance.choice(starts) + 2 if starts and chance.random() < 0.5 else somewhere(data, chance)
    )
    data[place:place] = payload


MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    flip_bits,
    set_bytes,
    cut_short,
    cut_out,
    repeat,
    swap,
    overwrite,
    set_number,
    set_text,
    set_instruction,
    set_payload,
)


def somewhere(data: bytearray, chance: random.Random) -> int:
    """A place in the file; every other time near an end, where headers and directories are."""
    size = max(1, len(data))
    near = min(size, 2048)
    return chance.choice(
        (chance.randrange(size), chance.randrange(size), chance.randrange(near), -1 - chance.randrange(near))
    ) % size  # fmt: skip


def a_run(data: bytearray, chance: random.Random) -> slice:
    start = somewhere(data, chance)
    return slice(start, start + chance.choice((1, 2, 4, 8, 64, 1024)))


def mutated(data: bytes, chance: random.Random) -> tuple[str, bytes]:
    result, names = bytearray(data), []
    for _ in range(chance.choice((1, 1, 2, 4))):
        if not result:
            break
        mutation = chance.choice(MUTATIONS)
        mutation(result, chance)
        names.append(mutation.__name__)
    return "+".join(names), bytes(result)


# What becomes of an input


class Other(Exception):
    """What must not happen."""


def convert_one(src: Path, dst: Path) -> Counter:
    """Whether it was converted or refused, and whether torch reads the same from it."""
    started = time.monotonic()
    try:
        convert(src, dst, verify=False)
    except InputError as error:
        if "\n" in str(error):
            raise Other(f"a refusal of several lines: {error}") from error
        if dst.exists():
            raise Other(f"refused, and yet written: {error}") from error
        return Counter(refused=1)
    finally:
        if time.monotonic() - started > SECONDS:
            raise Other(f"took {time.monotonic() - started:.0f} s")
        if list(src.parent.glob(f".{dst.name}*")):
            raise Other("left a temporary file")
    return Counter({"converted": 1, "as torch": check_result(src, dst)})


def check_result(src: Path, dst: Path) -> bool:
    """A whole, finite network, equal to what torch's own safe loader sees; False if it sees none."""
    model = read_checkpoint(dst).content["model"]
    expected = {detectron2_name(name): shape for name, shape in NETWORK.shapes.items()}
    if {name: array.shape for name, array in model.items()} != expected:
        raise Other("converted to another network")
    if not all(np.isfinite(array).all() for array in model.values()):
        raise Other("converted numbers that are not finite")
    theirs = read_by_torch(src)
    for name in NETWORK.shapes if theirs else ():
        if not np.array_equal(model[detectron2_name(name)], theirs[name].detach().float().numpy()):
            raise Other(f"{name} differs from what torch reads")
    return theirs is not None


def read_by_torch(src: Path) -> dict[str, torch.Tensor] | None:
    """The network by its plain names; None where torch's safe loader refuses the file."""
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(TRUSTED):
            warnings.simplefilter("ignore")  # of pickle protocol 4
            content = torch.load(src, weights_only=True)
    except Exception:
        return None
    state = content.get("state_dict", content)
    wrapper = "module." if all(key.startswith("module.") for key in state) else ""
    branch = "encoder_q." if any("encoder_q." in key for key in state) else ""
    return {name: state[f"{wrapper}{branch}{name}"] for name in NETWORK.shapes}


def run(inputs: int, seed: int) -> tuple[dict[str, Counter], list[str]]:
    """Counts by container, and a line for each thing that must not happen."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz_"))
    marker = folder / "code_was_run"
    os.environ["FUZZ_MARKER"] = str(marker)
    files = seeds()
    counts = {container: Counter() for container in files}
    others = []
    try:
        for number in range(inputs):
            container = tuple(files)[number % len(files)]
            chance = random.Random(f"{seed} {number}")
            # The first of each container is unchanged: a fuzzer whose files never convert tests little.
            name, data = mutated(files[container], chance)
            if number < len(files):
                name, data = "unchanged", files[container]
            # torch knows safetensors by the name only; the converter never looks at it.
            src, dst = folder / f"input.{container.split()[-1]}", folder / "result.pkl"
            src.write_bytes(data)
            try:
                outcome = convert_one(src, dst)
                if marker.exists():
                    raise Other("code of the file was run")
                if name == "unchanged" and not outcome["converted"]:
                    raise Other("the unchanged file was refused")
            except Exception as error:
                outcome = Counter(other=1)
                marker.unlink(missing_ok=True)
                detail = str(error) if isinstance(error, Other) else traceback.format_exc()
                others.append(f"seed {seed}, input {number} ({container}, {name}): {detail}")
            counts[container] += outcome + Counter(tried=1)
            dst.unlink(missing_ok=True)
    finally:
        shutil.rmtree(folder)
    return counts, others


def table(counts: dict[str, Counter]) -> Iterator[str]:
    """Lines to print; "as torch" are those of the converted that torch reads too, and as the same numbers."""
    outcomes = ("tried", "converted", "as torch", "refused", "other")
    rows = counts | {"all": sum(counts.values(), Counter())}
    yield f"{'container':20}" + "".join(f"{outcome:>11}" for outcome in outcomes)
    for name, row in rows.items():
        yield f"{name:20}" + "".join(f"{row[outcome]:>11,}" for outcome in outcomes)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=10_000, help="files to try (10000)")
    parser.add_argument("--seed", type=int, default=0, help="of the changes (0)")
    options = parser.parse_args(argv)
    started = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counts, others = run(options.inputs, options.seed)
    growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    if growth > MEMORY:
        others.append(f"the process grew by {growth >> 20} MiB")
    print("\n".join([*table(counts), *others[:NAMED]]))
    print(f"{time.monotonic() - started:.0f} s; the process grew by {growth >> 20} MiB")
    return 1 if others else 0


if __name__ == "__main__":
    sys.exit(main())
