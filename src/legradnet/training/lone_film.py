"""A training batch of one film: where small films leave a batch norm one value a channel, there is no variance."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def let_norms_rest(network: nn.Module) -> Callable[[], None]:
    """From now on let batch norms that get one value a channel use their running statistics, as torch refuses it.

    Returns:
        What ends that. It is called after the backward pass: gradient checkpointing runs the forward pass again there.
    """
    resting: list[nn.Module] = []

    def rest(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        if norm.training and inputs[0].numel() == inputs[0].shape[1]:
            resting.append(norm.eval())

    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    hooks = [norm.register_forward_pre_hook(rest) for norm in norms]

    def wake() -> None:
        for hook in hooks:
            hook.remove()
        for norm in resting:
            norm.train()

    return wake
