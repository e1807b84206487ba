"""`legradnet-benchmark`: what this machine does, and the settings of `legradnet-train` that follow from it."""

from legradnet.benchmark.run import benchmark as benchmark
