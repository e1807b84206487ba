"""Films: reading, checking, splitting, augmenting, batching."""
