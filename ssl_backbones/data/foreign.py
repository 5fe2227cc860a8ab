"""Training data whose order is somebody else's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import InputError


class ForeignLoader:
    """The loader of a config that decides on its order itself, used as it is; on resume it starts anew.

    The interface is `TrainLoader`'s; positions and indices are None.
    """

    batch_size = None
    skipped = 0

    def __init__(self, loader: Any):
        self._loader = loader

    def __iter__(self) -> Iterator[Any]:
        for batch in self._loader:
            for image in batch if isinstance(batch, list) else ():
                if isinstance(image, dict):
                    image.setdefault("position", None)
                    image.setdefault("index", None)
            yield batch

    def fetch(self, samples: Sequence[Sequence[int]]) -> Any:
        """Refuse: nobody knows which images these were.

        Raises:
            InputError: always.
        """
        raise InputError(
            "the images of this run cannot be loaded again: dataloader.train is not Detectron2's "
            "build_detection_train_loader, so their order is not known"
        )

    def state_dict(self) -> dict[str, Any]:
        """Nothing is known of where the loader stands."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Do nothing: the order starts anew, as was said when the loader was made."""
