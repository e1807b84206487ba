"""Random weights that use up nobody's random numbers, and weights that are not drawn at all."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_DRAWS: frozenset[Callable[..., Any]] = frozenset(
    {
        *(torch.bernoulli, torch.multinomial, torch.normal, torch.rand, torch.randint, torch.randn, torch.randperm),
        *(Tensor.bernoulli, Tensor.bernoulli_, Tensor.cauchy_, Tensor.exponential_, Tensor.geometric_),
        *(Tensor.log_normal_, Tensor.multinomial, Tensor.normal_, Tensor.random_, Tensor.uniform_),
    }
)


class DrawnApart(TorchFunctionMode):
    """What is drawn inside, on the CPU and in this thread, comes from a generator of its own.

    torch's generator belongs to the whole process: saved and put back around it, numbers that other threads draw in the
    meantime would be drawn again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator()

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        """Called by torch in place of each of its functions."""
        kwargs = kwargs or {}
        asked = func in _DRAWS or "generator" in kwargs  # as in those of torch.nn.init, which come here whole
        if asked and kwargs.get("generator") is None:
            kwargs = {**kwargs, "generator": self.generator}
        return func(*args, **kwargs)


# what timm draws weights with, step by step; torch's own `nn.init` comes whole
_STEPS = {
    *(Tensor.normal_, Tensor.uniform_, Tensor.erfinv_, Tensor.add_, Tensor.mul_, Tensor.clamp_),
    *(Tensor.fill_, Tensor.zero_),
}


class NotDrawn(TorchFunctionMode):
    """Inside, `torch.device("meta")` makes networks in a third of the time: no weight is drawn, as none is kept.

    torch would go through each step in Python to find out the shape that a tensor changed in place keeps.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        """Called by torch in place of each of its functions."""
        kwargs = kwargs or {}
        if func in _STEPS or getattr(func, "__module__", None) == "torch.nn.init":
            drawn = args[0] if args else kwargs.get("tensor")
            if isinstance(drawn, Tensor) and drawn.is_meta:
                return drawn
        return func(*args, **kwargs)
