"""From a checkpoint to a folder that grades without torch: `graph` writes it, `quantize` shrinks it, `check` measures it."""
