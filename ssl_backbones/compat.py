"""Where Detectron2 v0.6 and its main branch differ: told apart by feature, since both say 0.6."""

from __future__ import annotations

import torch.distributed as dist
from detectron2.utils import comm


def create_local_process_group(processes_per_machine: int) -> None:
    """Create Detectron2's group of the processes on this machine; every process must call it.

    main has a function for it; v0.6 does it inside its own `launch`, which demands CUDA.
    """
    if hasattr(comm, "create_local_process_group"):
        comm.create_local_process_group(processes_per_machine)
        return
    own_machine = comm.get_rank() // processes_per_machine
    for machine in range(comm.get_world_size() // processes_per_machine):
        first = machine * processes_per_machine
        # Every process takes part in making every group: new_group is a collective call.
        group = dist.new_group(list(range(first, first + processes_per_machine)))
        if machine == own_machine:
            comm._LOCAL_PROCESS_GROUP = group


def has_compiled_coco_evaluation() -> bool:
    """Whether Detectron2's compiled COCOeval is there; v0.6's evaluator does not fall back by itself."""
    try:
        from detectron2 import _C

        return callable(_C.COCOevalEvaluateImages)
    except (ImportError, AttributeError):
        return False
