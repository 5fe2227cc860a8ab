"""SGD and the 1x schedule: 16 images an iteration, 90,000 iterations, steps at 60,000 and 80,000."""

from detectron2 import model_zoo
from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler

# lr 0.02, momentum 0.9, weight decay 1e-4.
optimizer = model_zoo.get_config("common/optim.py").SGD
# MMDetection decays norm parameters like all others; Detectron2's default is 0.
optimizer.params.weight_decay_norm = 1e-4

max_iter = 90_000

lr_multiplier = L(WarmupParamScheduler)(
    # Milestones are relative to num_updates: with another train.max_iter they move in proportion.
    scheduler=L(MultiStepParamScheduler)(
        values=[1.0, 0.1, 0.01], milestones=[60_000, 80_000], num_updates=max_iter
    ),
    # 500 iterations; tools/train_net.py keeps it at train.warmup_iters whatever train.max_iter is.
    warmup_length=500 / max_iter,
    warmup_factor=0.001,
    warmup_method="linear",
)
