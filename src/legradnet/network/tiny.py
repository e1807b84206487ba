"""`backbone=tiny`: the five families at widths that two CPU cores train in minutes.

They are registered with timm, so that they are built, sized and checkpointed like any other network. Native side
96 px (Xception, the slowest: 72), mean and std 0.5; nobody has pretrained weights for them.
"""

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.convnext import ConvNeXt
from timm.models.densenet import DenseNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from timm.models.xception_aligned import XceptionAligned
from torch import nn

NAMES = ("tiny_densenet", "tiny_swin", "tiny_convnext", "tiny_vit", "tiny_xception")
_SIDE = 96


def _settings(classifier: str, fixed: bool = False, side: int = _SIDE) -> dict[str, Any]:
    settings = {"input_size": (3, side, side), "mean": (0.5,) * 3, "std": (0.5,) * 3, "classifier": classifier}
    return settings | {"num_classes": 1000, "fixed_input_size": fixed}


default_cfgs = generate_default_cfgs(
    {
        "tiny_densenet.untrained": _settings("classifier"),
        "tiny_swin.untrained": _settings("head.fc", fixed=True),
        "tiny_convnext.untrained": _settings("head.fc"),
        "tiny_vit.untrained": _settings("head", fixed=True),
        "tiny_xception.untrained": _settings("head.fc", side=72),
    }
)


@register_model
def tiny_densenet(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """DenseNet (Huang et al. 2017) with four short dense blocks of growth 12."""
    shape: dict[str, Any] = {"growth_rate": 12, "block_config": (2, 2, 4, 2)}
    return build_model_with_cfg(DenseNet, "tiny_densenet", pretrained, **(shape | kwargs))


@register_model
def tiny_swin(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Swin (Liu et al. 2021) with windows of 6 x 6 and width 24."""
    shape: dict[str, Any] = {
        "img_size": _SIDE,
        "window_size": 6,
        "embed_dim": 24,
        "depths": (1, 1, 2, 1),
        "num_heads": (1, 2, 4, 8),
    }
    return build_model_with_cfg(SwinTransformer, "tiny_swin", pretrained, **(shape | kwargs))


@register_model
def tiny_convnext(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ConvNeXt (Liu et al. 2022) of width 24."""
    shape: dict[str, Any] = {"depths": (1, 1, 2, 1), "dims": (24, 48, 96, 192)}
    return build_model_with_cfg(ConvNeXt, "tiny_convnext", pretrained, **(shape | kwargs))


@register_model
def tiny_vit(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ViT (Dosovitskiy et al. 2021) of width 96 with patches of 12 x 12."""
    shape: dict[str, Any] = {"img_size": _SIDE, "patch_size": 12, "embed_dim": 96, "depth": 4, "num_heads": 3}
    return build_model_with_cfg(VisionTransformer, "tiny_vit", pretrained, **(shape | kwargs))


@register_model
def tiny_xception(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Xception (Chollet 2017) in timm's aligned form: one entry block per scale and one exit block."""
    blocks = [
        {"in_chs": 64, "out_chs": 64, "stride": 2},
        {"in_chs": 64, "out_chs": 96, "stride": 2},
        {"in_chs": 96, "out_chs": 128, "stride": 2},
        {"in_chs": 128, "out_chs": (128, 192, 192), "stride": 1, "no_skip": True, "start_with_relu": False},
    ]
    return build_model_with_cfg(XceptionAligned, "tiny_xception", pretrained, **({"block_cfg": blocks} | kwargs))
