"""Packaging of ssl-backbones.

Detectron2 is not among the requirements, since it is on no package index under its own name:
tools/install_detectron2.py installs it, once torch is there.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

# CI runs at the upper end of every range. torch 2.10 is the first whose weights_only loading has no known
# hole; each torchvision fits one torch.
REQUIREMENTS = [
    "torch>=2.10,<2.15",
    "torchvision>=0.25,<0.30",
    "filelock>=3.16,<5",
    "fvcore>=0.1.5.post20221221,<0.1.6",
    "hydra-core>=1.3.2,<1.4",
    "iopath>=0.1.9,<0.2",
    "numpy>=2.1,<2.5",
    "omegaconf>=2.3,<2.4",
    "pillow>=11,<14",
    "pycocotools>=2.0.8,<2.1",
    "pyyaml>=6,<7",
    "rich>=14.3,<16",
    "safetensors>=0.4.5,<1",
    "tabulate>=0.9,<0.11",
    "tensorboard>=2.18,<2.22",
]
DIGITS = [
    "lightly>=1.5.20,<1.7",
    "matplotlib>=3.9,<3.12",
    "opencv-python-headless>=4.10,<5.1",
    "scikit-learn>=1.5.2,<1.10",
    "scipy>=1.14,<1.19",
]
# What makes the fast parts fast. Without them the same results come more slowly, and the log says so.
FAST = [
    "hotcoco>=1.2.1,<2",
    "msgspec>=0.19,<0.23",
    "numba>=0.63,<0.69",
    "simplejpeg>=1.8.2,<2",
]
# The page, the pictures and the figures of runs.
REPORT = [
    "jinja2>=3.1,<4",
    "matplotlib>=3.9,<3.12",
]
SLURM = ["submitit>=1.5.2,<1.6"]
# The networks that Detectron2 has not.
VIT = ["timm>=1.0.20,<1.1"]
# A detector as a file that runs without Detectron2.
EXPORT = ["onnx>=1.17,<2", "onnxruntime>=1.20,<2"]
TEST = [
    "hypothesis>=6.100,<7",
    "packaging>=24",
    "pytest>=8.3,<10",
    "pytest-xdist>=3.6,<4",
    # Formatting differs between minor releases.
    "ruff>=0.17,<0.18",
    # Drives a real browser over the report.
    "selenium>=4.20,<5",
    # What Detectron2 cuts polygons with.
    "shapely>=2,<3",
    # A test builds the wheel of this package with the setuptools that is installed.
    "setuptools>=77",
]


def version() -> str:
    init = (ROOT / "ssl_backbones" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.+)"$', init, re.MULTILINE)[1]


def packages_of(folder: str) -> list[str]:
    """Packages for a folder of scripts that lives beside the package and is shipped inside it."""
    parents = {file.parent.relative_to(ROOT) for file in (ROOT / folder).rglob("*.py")}
    return sorted(".".join(["ssl_backbones", *parent.parts]) for parent in parents)


setup(
    name="ssl-backbones",
    version=version(),
    description="Self-supervised ResNets in Detectron2, proved to be really at work",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    classifiers=[
        "Programming Language :: Python :: 3",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in (10, 11, 12, 13)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    python_requires=">=3.10",
    # An installed package carries the configs and the commands that a checkout has beside it, and of the
    # projects what protocols they are.
    packages=[
        *find_packages(include=["ssl_backbones", "ssl_backbones.*"]),
        *packages_of("configs"),
        *packages_of("tools"),
        "ssl_backbones.projects",
    ],
    package_dir={f"ssl_backbones.{name}": name for name in ("configs", "tools", "projects")},
    package_data={
        "ssl_backbones.configs": ["*.yaml"],
        "ssl_backbones.configs.common": ["*.yaml"],
        "ssl_backbones.projects": ["*/protocol.yaml"],
        "ssl_backbones.report.page": ["templates/*"],
    },
    install_requires=REQUIREMENTS,
    extras_require={
        "digits": DIGITS,
        "fast": FAST,
        "report": REPORT,
        "slurm": SLURM,
        "vit": VIT,
        "export": EXPORT,
        "test": [*DIGITS, *FAST, *REPORT, *SLURM, *VIT, *EXPORT, *TEST],
    },
    entry_points={
        "console_scripts": [
            "ssl-browse = ssl_backbones.tools.browse_data:main",
            "ssl-check-data = ssl_backbones.tools.check_data:main",
            "ssl-compare-backbones = ssl_backbones.tools.compare_backbones:main",
            "ssl-compare-init = ssl_backbones.tools.compare_init:main",
            "ssl-convert = ssl_backbones.tools.convert_checkpoint:main",
            "ssl-evaluate = ssl_backbones.tools.evaluate_backbone:main",
            "ssl-export = ssl_backbones.tools.export:main",
            "ssl-predict = ssl_backbones.tools.predict:main",
            "ssl-report = ssl_backbones.tools.report:main",
            "ssl-train = ssl_backbones.tools.train_net:main",
        ]
    },
)
