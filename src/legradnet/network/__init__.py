"""The network in plain PyTorch: backbones, gate, ensemble, losses, starting weights."""
