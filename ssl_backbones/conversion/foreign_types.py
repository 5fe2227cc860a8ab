"""Types that honest self-supervised checkpoints hold beside their tensors, and who writes them.

The reader puts an inert placeholder in the place of each: none is imported, called or looked into.
A name belongs here only if a project's own save code writes it; whatever else a file names refuses
the file. Protocol 2, which torch writes, calls the module `builtins` by its old name `__builtin__`.
"""

from __future__ import annotations

BUILTINS = ("builtins", "__builtin__")

_LIGHTNING = "pytorch_lightning: checkpoint_connector.py, `dump_checkpoint`"
_OMEGACONF = (
    "omegaconf containers, which pytorch_lightning keeps in `hyper_parameters` (solo-learn)"
)
_MMENGINE = "mmengine: logging/history_buffer.py, in the message hub that its runner saves"

FOREIGN_TYPES = {
    "argparse.Namespace": "DINO, PixPro, SoCo, PyContrast, timm: the command line's arguments",
    "__main__.exclude_bias_and_norm": "Barlow Twins, VICReg: a filter among LARS's options",
    "mmengine.logging.history_buffer.HistoryBuffer": _MMENGINE,
    "omegaconf.dictconfig.DictConfig": _OMEGACONF,
    "omegaconf.listconfig.ListConfig": _OMEGACONF,
    "omegaconf.base.ContainerMetadata": _OMEGACONF,
    "omegaconf.base.Metadata": _OMEGACONF,
    "omegaconf.nodes.AnyNode": _OMEGACONF,
    "pathlib.PosixPath": "options of type Path, in a Namespace or in `hyper_parameters`",
    "pathlib.WindowsPath": "options of type Path, in a Namespace or in `hyper_parameters`",
    "pytorch_lightning.utilities.parsing.AttributeDict": _LIGHTNING,
    "lightning_fabric.utilities.data.AttributeDict": _LIGHTNING,
    "lightning.fabric.utilities.data.AttributeDict": _LIGHTNING,
    # Before version 1.6 the callbacks' states stood under the callbacks' classes.
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint": _LIGHTNING,
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping": _LIGHTNING,
    "pytorch_lightning.callbacks.lr_monitor.LearningRateMonitor": _LIGHTNING,
}

# How protocol 2 writes a method such as `HistoryBuffer.mean`, which early mmengine kept in every
# buffer. It is taken for a foreign type too, and only with a foreign type as its first argument.
ATTRIBUTE_LOOKUPS = {f"{module}.getattr": _MMENGINE for module in BUILTINS}
FOREIGN_TYPES |= ATTRIBUTE_LOOKUPS

# Packages that only the pickles of JAX's time name: BYOL's, DetCon's and other haiku checkpoints.
JAX_PACKAGES = {"byol", "detcon", "dill", "flax", "haiku", "jax", "jaxlib", "jaxline", "optax"}
