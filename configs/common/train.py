"""Every `train.*` option of tools/train_net.py, once, with what it means."""

train = dict(
    # Run folder: config.yaml, log.txt, metrics.json, checkpoints, inference/.
    output_dir="./output",
    # A converted .pkl, a raw MoCo or SwAV file (converted on the way), ssl://NAME, or a Detectron2
    # checkpoint. "" trains from scratch and then needs model.backbone.bottom_up.freeze_at=0.
    init_checkpoint="",
    # Refuse weights that do not cover every backbone tensor (and, for --resume and --eval-only, every
    # tensor). False only lists what did not match.
    strict_init=True,
    max_iter=90_000,
    # Linear warm-up in iterations, whatever max_iter is; None leaves lr_multiplier.warmup_length alone.
    warmup_iters=500,
    # Seed of every random number generator; negative draws a new one each time.
    seed=-1,
    # "cuda", or "cpu" with --num-processes.
    device="cuda",
    # fp16 autocast with loss scaling, on GPUs.
    amp=dict(enabled=False),
    # Arguments of DistributedDataParallel.
    ddp=dict(broadcast_buffers=False, find_unused_parameters=False, fp16_compression=False),
    # A checkpoint every `period` iterations, the newest `max_to_keep` of them kept.
    checkpointer=dict(period=5000, max_to_keep=5),
    # Evaluation every `eval_period` iterations (0: only at the end), and once before the first one.
    eval_period=5000,
    eval_at_start=False,
    # Losses and learning rate are logged every `log_period` iterations.
    log_period=20,
    # Let cuDNN time its algorithms: no gain with images of many sizes.
    cudnn_benchmark=False,
)
