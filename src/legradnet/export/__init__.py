"""From a checkpoint to a folder that grades without torch."""
