"""torchvision's ResNets with an eighth of the channels, and their names in Hugging Face's files."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models.resnet import ResNet


class Narrow(ResNet):
    """torchvision's, with an eighth of the channels."""

    def __init__(self, block: type, blocks: list[int], channels: int = 3):
        super().__init__(block, blocks)
        self.inplanes, self.fc = 8, nn.Identity()
        self.conv1 = nn.Conv2d(channels, 8, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        for stage, count in enumerate(blocks):
            layer = self._make_layer(block, 8 << stage, count, stride=min(1 + stage, 2))
            setattr(self, f"layer{stage + 1}", layer)


def trained(network: nn.Module) -> nn.Module:
    """With the batch norm statistics of random images, in few of which a channel dies."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            module.momentum = None
    with torch.no_grad():
        network(torch.randn(2, network.conv1.in_channels, 64, 64))
    return network.eval()


def hugging_face_state(network: nn.Module, prefix: str = "") -> dict[str, torch.Tensor]:
    """As modeling_resnet.py names its modules."""
    parts = {"conv": "convolution", "bn": "normalization"}
    state = {}
    for name, value in network.state_dict().items():
        module, tensor = name.rsplit(".", 1)
        if "." not in module:
            place = f"embedder.embedder.{parts[module[:-1]]}"
        else:
            stage, block, layer = module.split(".", 2)
            place = f"encoder.stages.{int(stage[-1]) - 1}.layers.{block}"
            if layer.startswith("downsample"):
                place += ".shortcut." + ("convolution", "normalization")[int(layer[-1])]
            else:
                place += f".layer.{int(layer[-1]) - 1}.{parts[layer[:-1]]}"
        state[f"{prefix}{place}.{tensor}"] = value
    return state


RESNET_CONFIG = {
    "architectures": ["ResNetModel"],
    "depths": [3, 4, 6, 3],
    "downsample_in_bottleneck": False,
    "downsample_in_first_stage": False,
    "embedding_size": 8,
    "hidden_act": "relu",
    "hidden_sizes": [32, 64, 128, 256],
    "layer_type": "bottleneck",
    "model_type": "resnet",
    "num_channels": 3,
}
