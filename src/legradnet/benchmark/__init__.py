"""`legradnet-benchmark`: what this machine does, and the settings of `legradnet-train` that follow from it."""
