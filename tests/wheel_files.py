"""imgsim's wheel, in which AugNet's weights are published, as it is on PyPI but for what its model holds."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

# It is never to run. What it would leave behind lies beside the cache.
MARKER = "import os, pathlib; pathlib.Path(os.environ['RAN_CODE_OF_THE_PACKAGE']).touch()\n"


def write_wheel(folder: Path, model: bytes | None, version: str = "0.1.2") -> Path:
    """The wheel, in `folder`; without the model for None."""
    info = f"imgsim-{version}.dist-info"
    members = {
        "imgsim/__init__.py": MARKER.encode(),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: imgsim\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if model is not None:
        members["imgsim/model.pth"] = model
    members[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in members).encode()
    path = folder / f"imgsim-{version}-py3-none-any.whl"
    kind = zipfile.ZIP_STORED if model and len(model) > 1 << 20 else zipfile.ZIP_DEFLATED  # quick
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def augnet_bytes() -> bytes:
    """A ResNet-18 in AugNet's layout, with statistics that a wrong conversion would show."""
    import torch
    import torchvision

    generator = torch.Generator().manual_seed(0)
    network = torchvision.models.resnet18(num_classes=4)
    state = {}
    for name, tensor in network.state_dict().items():
        if name.endswith(("running_mean", "bias")):
            tensor = 0.1 * torch.randn(tensor.shape, generator=generator)
        elif name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
            tensor = 0.5 + torch.rand(tensor.shape, generator=generator)
        state[f"module.pre.{name}"] = tensor
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()
