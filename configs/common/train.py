"""Every `train.*` option of tools/train_net.py, once, with what it means."""

train = dict(
    # Data of your own: a folder of COCO, YOLO, VOC or labelme, a COCO file, or a data.yaml
    # (docs/your_own_data.md). It takes the place of the config's datasets, its number of classes and, without
    # masks, of its mask head.
    data="",
    # Of data that names no split: the share of its images to test on (--val-share); None for 0.2. With a
    # number a single split is divided, too; 0 divides nothing.
    val_share=None,
    # Which of its classes to keep, in this order (--classes a,b); None for all.
    classes=None,
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
    # Seed of every random number: what is drawn depends on it and on the place in the run alone. A negative
    # one is drawn anew for each run; --resume goes on with the run's.
    seed=-1,
    # RPN, heads and FPN draw their initial weights from streams of their own: equal seeds start them alike
    # behind any backbone (tools/compare_backbones.py).
    paired_init=False,
    # "cuda", or "cpu" with --num-processes.
    device="cuda",
    # The batch that optimizer.lr and the schedule are meant for, in images a step. Another
    # dataloader.train.total_batch_size needs a word: scale_lr="linear" scales the learning rate with it and
    # the schedule against it, as Detectron2's auto_scale_workers does; "none" leaves both alone.
    reference_batch_size=16,
    scale_lr=None,
    # Micro-batches to one step of the optimizer: total_batch_size is divided among processes x accumulate.
    accumulate=1,
    # Autocast on GPUs: "fp16" with loss scaling, or "bf16".
    amp=dict(enabled=False, dtype="fp16"),
    # Largest L2 norm of all gradients together, and largest magnitude of one element; None for no limit.
    clip=dict(norm=None, value=None),
    # An exponential moving average of the weights, saved in each checkpoint and evaluated beside them.
    ema=dict(enabled=False, decay=0.9998),
    # Before each evaluation: running statistics of BN anew, from num_iter batches of the training data.
    precise_bn=dict(enabled=False, num_iter=200),
    # Arguments of DistributedDataParallel.
    ddp=dict(broadcast_buffers=False, find_unused_parameters=False, fp16_compression=False),
    # A checkpoint every `period` iterations and before each evaluation, the newest `max_to_keep` kept.
    checkpointer=dict(period=5000, max_to_keep=5),
    # Evaluation every `eval_period` iterations (0: only at the end), and once before the first one.
    eval_period=5000,
    eval_at_start=False,
    # Images of an evaluation during training, evenly spread over the test set; 0 for all. The last one
    # always takes all.
    eval_subset=0,
    # model_best.pth is the checkpoint with the highest of this: bbox/AP, segm/AP50, ema/bbox/AP, ...
    best_metric="bbox/AP",
    # Training ends after this many evaluations in a row without a better best_metric; 0: never.
    patience=0,
    # Test-time augmentation of boxes and masks: every scale (shorter side in pixels), flipped as well.
    tta=dict(
        enabled=False,
        min_sizes=[400, 500, 600, 700, 800, 900, 1000, 1100, 1200],
        max_size=4000,
        flip=True,
    ),
    # Losses and learning rate are logged every `log_period` iterations.
    log_period=20,
    # As many of the first batches are drawn into the run folder, annotated: training_batch_0.jpg and so on.
    draw_batches=3,
    # Let cuDNN time its algorithms: no gain with images of many sizes.
    cudnn_benchmark=False,
)
