"""What the rows of the ViT's recipe cite stands there: in ViTDet-B's config and those that it is made of."""

from pathlib import Path

import pytest
import yaml
from fidelity_files import config, read
from published_fields import Facts

from ssl_backbones.engine.recipe import recipe
from ssl_backbones.fidelity.rows import normal

FILE = Path("projects/vit/fidelity.yaml")
RECIPE = "vit_base_mae_100ep"
CONTENT = yaml.safe_load(Path(__file__).with_name("vitdet.yaml").read_text())
FACTS = {
    key: (f"{name}:{line}", value)
    for name, content in CONTENT.items()
    for line, key, value in content["facts"]
}
ROWS = [r for r in read(FILE).rows_of(RECIPE) if r.source.partition(":")[0] in CONTENT]

BACKBONE, NET = "model.backbone", "model.backbone.net"
MAPPER = "dataloader.train.mapper"
TRANSFORMS = "detectron2.data.transforms.augmentation_impl"
LAYER_NORMS = {"LN": "ChannelNorm"}


def augmentation(key, *arguments):
    def augmentation(facts):
        name = facts(f"{key}._target_")
        found = {argument: facts(f"{key}.{argument}") for argument in arguments}
        return {"_target_": f"{TRANSFORMS}.{name}", **found}

    return augmentation


def windows(facts):
    inside = facts(f"{NET}.window_block_indexes")
    *some, last = [n + 1 for n in range(facts(f"{NET}.depth")) if n not in inside]
    size = facts(f"{NET}.window_size")
    return f"of {size} x {size} patches, but for blocks {', '.join(map(str, some))} and {last}"


def positions(facts):
    side = facts(f"{BACKBONE}.square_pad") // facts(f"{NET}.patch_size")
    return f"{side} x {side}, of the padded square"


def norms(facts):
    blocks = {f"block{n}": "LayerNorm" for n in range(1, facts(f"{NET}.depth") + 1)}
    of_heads = LAYER_NORMS[same(facts, *HEAD_NORMS)]
    pyramid = LAYER_NORMS[facts(f"{BACKBONE}.norm")]
    return {**blocks, "backbone (without the ViT)": pyramid, "roi_heads": of_heads}


def same(facts, *keys):
    (value,) = {facts(key) for key in keys}
    return value


def rate(iteration):
    def rate(facts):
        first = facts("lr_multiplier.warmup_factor")
        share = min(1, iteration / facts("lr_multiplier.warmup_iters"))
        return round(facts("optimizer.lr") * (first + (1 - first) * share), 12)

    return rate


def fact(key):
    return lambda facts: facts(key)


HEAD_NORMS = [f"model.roi_heads.{head}.conv_norm" for head in ("box_head", "mask_head")]
FIELDS = {
    "weights": lambda f: {"mae_pretrain_vit_base.pth": "ssl://mae_vit_base"}[
        f("train.init_checkpoint").rpartition("/")[2].partition("?")[0]
    ],
    "backbone": lambda f: f"ssl_backbones.modeling.vit.{f(f'{BACKBONE}._target_')}",
    "network below it": lambda f: {"ViT": "ssl_backbones.modeling.vit.build_vit"}[
        f(f"{NET}._target_")
    ],
    "what only a ResNet and its FPN have": lambda f: {"SimpleFeaturePyramid": "(absent)"}[
        f(f"{BACKBONE}._target_")
    ],
    "p6 is p5 pooled": lambda f: (
        f"detectron2.modeling.backbone.fpn.{f(f'{BACKBONE}.top_block._target_')}"
    ),
    "output of the network": lambda f: [f(f"{NET}.out_feature").removesuffix("_feat")],
    "channels of the pyramid": fact(f"{BACKBONE}.out_channels"),
    "width": fact(f"{NET}.embed_dim"),
    "blocks": fact(f"{NET}.depth"),
    "heads of the attention": fact(f"{NET}.num_heads"),
    "width of the MLPs": lambda f: f(f"{NET}.mlp_ratio") * f(f"{NET}.embed_dim"),
    "patches, in pixels": fact(f"{NET}.patch_size"),
    "biases of queries, keys and values": fact(f"{NET}.qkv_bias"),
    "eps of the network's norms": fact(f"{NET}.norm_layer.eps"),
    "stochastic depth of the last block": fact(f"{NET}.drop_path_rate"),
    "size that the positions are interpolated to": positions,
    "padding of the images": lambda f: f"to squares of {f(f'{BACKBONE}.square_pad')}",
    "relative positions": lambda f: {True: "in every block, beginning at 0"}[
        f(f"{NET}.use_rel_pos")
    ],
    "windows": windows,
    "norm layers as built": norms,
    "channel order": lambda f: same(f, "model.input_format", f"{MAPPER}.image_format"),
    "mean of the pixels": lambda f: {"imagenet_rgb256_mean": [123.675, 116.28, 103.53]}[
        f("model.pixel_mean")
    ],
    "standard deviation of the pixels": lambda f: {"imagenet_rgb256_std": [58.395, 57.12, 57.375]}[
        f("model.pixel_std")
    ],
    "flip in training": augmentation(f"{MAPPER}.augmentations.0", "horizontal"),
    "size in training": augmentation(
        f"{MAPPER}.augmentations.1", "min_scale", "max_scale", "target_height", "target_width"
    ),
    "crop": augmentation(f"{MAPPER}.augmentations.2", "crop_size", "pad"),
    "boxes of cropped objects are those of their masks": fact(f"{MAPPER}.recompute_boxes"),
    "size in testing": augmentation(
        "dataloader.test.mapper.augmentations.0", "short_edge_length", "max_size"
    ),
    "batch": fact("dataloader.train.total_batch_size"),
    "optimizer": lambda f: f"torch.optim.adamw.{f('optimizer._target_')}",
    "learning rate": fact("optimizer.lr"),
    "betas": fact("optimizer.betas"),
    "weight decay": fact("optimizer.weight_decay"),
    "groups of parameters": lambda f: {
        "get_vit_lr_decay_rate": "ssl_backbones.modeling.layer_decay.layer_decayed_params"
    }[f("optimizer.params.lr_factor_func")],
    # It leaves out norms, so that biases are with all others.
    "biases decay": lambda f: f("optimizer.params.weight_decay_norm") == 0,
    "learning rate of a layer beside that of the next": fact(
        "optimizer.params.lr_factor_func.lr_decay_rate"
    ),
    # Besides the position embedding, which has none in the backbone's own list.
    "more names without weight decay": lambda f: {0: []}[
        f("optimizer.params.overrides.pos_embed.weight_decay")
    ],
    "mixed precision": lambda f: {"enabled": f("train.amp.enabled"), "dtype": "fp16"},
    "distribution over processes": lambda f: {
        **dict.fromkeys(("broadcast_buffers", "find_unused_parameters"), False),
        "fp16_compression": f("train.ddp.fp16_compression"),
    },
    "warm-up, iterations": fact("lr_multiplier.warmup_iters"),
    **{f"learning rate in iteration {n}, as built": rate(n) for n in (0, 125, 250)},
    "iterations": fact("train.max_iter"),
    "steps": fact("lr_multiplier.scheduler.milestones"),
    "RPN, convolutions": fact("model.proposal_generator.head.conv_dims"),
    "box head, convolutions": fact("model.roi_heads.box_head.conv_dims"),
    "box head, fully connected layers": fact("model.roi_heads.box_head.fc_dims"),
    "norm of the heads": lambda f: {"LN": "ssl_backbones.modeling.convnext.channel_norm"}[
        same(f, *HEAD_NORMS)
    ],
}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.field)
def test_what_a_row_cites_stands_there(row):
    facts = Facts(FACTS)
    assert normal(FIELDS[row.field](facts)) == normal(row.published)
    assert row.source in facts.places


def test_every_fact_is_in_a_row_or_inherited_as_it_is():
    facts = Facts(FACTS)
    for row in ROWS:
        FIELDS[row.field](facts)
    fields = recipe(config(FILE, RECIPE))
    same_here = ("lr_multiplier.scheduler.values",)
    for key in same_here:
        values = [v for k, v in fields.items() if k.startswith(f"{key}.")]
        assert normal(values) == normal(FACTS[key][1])
    # What the pyramid is made of anyhow, and what 0 and [] leave out.
    known = {
        *(f"{BACKBONE}.scale_factors", f"{NET}.img_size", f"{NET}.residual_block_indexes"),
        *("optimizer.params._target_", "optimizer.params.lr_factor_func.num_layers"),
    }
    assert set(FACTS) - facts.asked - set(same_here) == known


def test_the_files_are_those_of_the_sources():
    for name, content in CONTENT.items():
        assert content["file"] in read(FILE).sources[name]
        assert content["commit"] in read(FILE).sources[name]
    assert len(ROWS) > 45
