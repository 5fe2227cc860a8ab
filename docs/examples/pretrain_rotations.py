"""A self-supervised pretraining in plain PyTorch: a ResNet-18 learns by how much each image has been turned.

As in RotNet (Gidaris et al., ICLR 2018). It is the example of docs/bring_your_own_pretraining.md, made to be
read: what matters to a detector is the last function, and that images are normalised as it says.
"""

import argparse
from pathlib import Path

import torch
import torchvision
from torch import nn
from torchvision.io import ImageReadMode, decode_image

# Of RGB images between 0 and 1, as torchvision's own networks are trained.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class RotationNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = torchvision.models.resnet18()
        self.trunk.fc = nn.Identity()
        self.rotation_head = nn.Linear(512, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.rotation_head(self.trunk(images))


def read(folder: Path) -> torch.Tensor:
    """All images of a folder as (N, 3, 64, 64), normalised."""
    transform = torchvision.transforms.Compose(
        [
            torchvision.transforms.Resize((64, 64)),
            torchvision.transforms.ConvertImageDtype(torch.float32),
            torchvision.transforms.Normalize(MEAN, STD),
        ]
    )
    paths = sorted(path for path in folder.iterdir() if path.suffix in (".jpg", ".png"))
    return torch.stack([transform(decode_image(str(p), mode=ImageReadMode.RGB)) for p in paths])


def pretrain(images: torch.Tensor, steps: int, batch: int) -> RotationNet:
    network = RotationNet()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    for step in range(steps):
        chosen = images[torch.randint(len(images), (batch,))]
        turns = torch.randint(4, (batch,))
        turned = torch.stack(
            [torch.rot90(image, int(turn), dims=(1, 2)) for image, turn in zip(chosen, turns, strict=True)]
        )  # fmt: skip
        loss = nn.functional.cross_entropy(network(turned), turns)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step + 1} of {steps}: loss {loss.item():.3f} (chance: 1.386)")
    return network


def save(network: RotationNet, path: Path) -> None:
    """Tensors and plain values, with the running statistics of batch norm, which state_dict() holds."""
    torch.save({"network": network.state_dict(), "arch": "resnet18"}, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path, help="a folder of JPEG or PNG files")
    parser.add_argument("--out", type=Path, default=Path("rotations.pth"))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=32)
    args = parser.parse_args()
    torch.manual_seed(0)
    save(pretrain(read(args.images), args.steps, args.batch), args.out)
    print(f"saved: {args.out}")


if __name__ == "__main__":
    main()
