"""`backbone=tiny`: the five families at widths that two CPU cores train in minutes.

They are built, sized and checkpointed like timm's own, but not put into timm's registry, which is the whole process's.
Native side 96 px (Xception, the slowest: 72), mean and std 0.5; nobody has pretrained weights for them.
"""

from copy import deepcopy
from dataclasses import asdict
from typing import Any

from timm.models import PretrainedCfg, build_model_with_cfg
from timm.models.convnext import ConvNeXt
from timm.models.densenet import DenseNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from timm.models.xception_aligned import XceptionAligned
from torch import nn

_SIDE = 96

_XCEPTION_BLOCKS = [
    {"in_chs": 64, "out_chs": 64, "stride": 2},
    {"in_chs": 64, "out_chs": 96, "stride": 2},
    {"in_chs": 96, "out_chs": 128, "stride": 2},
    {"in_chs": 128, "out_chs": (128, 192, 192), "stride": 1, "no_skip": True, "start_with_relu": False},
]

# name: the family, its shape, its classifier, and what else timm has to know
_NETWORKS: dict[str, tuple[type[nn.Module], dict[str, Any], str, dict[str, Any]]] = {
    # Huang et al. 2017, with four short dense blocks of growth 12
    "tiny_densenet": (DenseNet, {"growth_rate": 12, "block_config": (2, 2, 4, 2)}, "classifier", {}),
    # Liu et al. 2021, with windows of 6 x 6 and width 24
    "tiny_swin": (
        SwinTransformer,
        {"img_size": _SIDE, "window_size": 6, "embed_dim": 24, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8)},
        "head.fc",
        {"fixed_input_size": True},
    ),
    # Liu et al. 2022, of width 24
    "tiny_convnext": (ConvNeXt, {"depths": (1, 1, 2, 1), "dims": (24, 48, 96, 192)}, "head.fc", {}),
    # Dosovitskiy et al. 2021, of width 96 with patches of 12 x 12
    "tiny_vit": (
        VisionTransformer,
        {"img_size": _SIDE, "patch_size": 12, "embed_dim": 96, "depth": 4, "num_heads": 3},
        "head",
        {"fixed_input_size": True},
    ),
    # Chollet 2017, in timm's aligned form: one entry block per scale and one exit block
    "tiny_xception": (XceptionAligned, {"block_cfg": _XCEPTION_BLOCKS}, "head.fc", {"input_size": (3, 72, 72)}),
}

SETTINGS = {
    name: PretrainedCfg(
        **({"input_size": (3, _SIDE, _SIDE), "mean": (0.5,) * 3, "std": (0.5,) * 3} | others),
        architecture=name,
        classifier=classifier,
    )
    for name, (_, _, classifier, others) in _NETWORKS.items()
}


def create_network(name: str, **settings: Any) -> nn.Module:
    """One of them, at random weights; `settings` as timm's `create_model` takes them."""
    family, shape, _, _ = _NETWORKS[name]
    shape = deepcopy(shape)  # timm writes into it
    return build_model_with_cfg(family, name, False, pretrained_cfg=asdict(SETTINGS[name]), **(shape | settings))
