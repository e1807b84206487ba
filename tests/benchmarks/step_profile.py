"""Where the seconds of a plain training step go, in float32 and in bfloat16: what gains by it, and what does not.

    python tests/benchmarks/step_profile.py [--backbones KEY ...] [--batch N] [--threads N]

The step is `training_step.py`'s plain loop. The first line is what bfloat16 gives at most: that of large products.
"""

import argparse

import torch
from torch.profiler import ProfilerActivity, profile
from training_step import FIVE, batch_of, config_of, plain_step

from export import product_rate
from legradnet.device import processor
from legradnet.memory import keep_freed_memory

OPERATIONS = {
    "products": ("mm", "addmm", "bmm", "baddbmm", "_scaled_dot_product_flash_attention_for_cpu"),
    "convolutions": ("mkldnn_convolution", "_slow_conv2d_forward"),
    "their gradients": ("convolution_backward", "_slow_conv2d_backward"),
    "AdamW": ("_fused_adamw_",),
}


def spent(key, batch, precision):
    """Seconds of a step by what they are spent on."""
    step = plain_step(config_of([key], len(batch.films), precision), batch, precision)
    step()
    with profile(activities=[ProfilerActivity.CPU]) as found:
        step()
    seconds = dict.fromkeys((*OPERATIONS, "all else"), 0.0)
    for event in found.key_averages():
        name = event.key.removeprefix("aten::")
        kind = next((kind for kind, names in OPERATIONS.items() if name in names), "all else")
        seconds[kind] += event.self_cpu_time_total / 1e6
    return seconds | {"all": sum(seconds.values())}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=FIVE, help="keys of conf/backbone/")
    parser.add_argument("--batch", type=int, default=4, help="films a batch")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    batch = batch_of(arguments.batch)
    rates = {kind: product_rate(kind) / 1e9 for kind in (torch.float32, torch.bfloat16)}
    print(f"{processor(torch.device('cpu'))}, batch {arguments.batch}, {arguments.threads} threads, "
          f"torch {torch.__version__}")  # fmt: skip
    print(f"large products, GFLOP/s: f32 {rates[torch.float32]:.0f}, bf16 {rates[torch.bfloat16]:.0f}: "
          f"{rates[torch.bfloat16] / rates[torch.float32]:.2f} x as fast")  # fmt: skip
    print(f"{'':12}" + "".join(f"{kind:>18}" for kind in (*OPERATIONS, "all else", "all")))
    for key in arguments.backbones:
        plain, half = (spent(key, batch, precision) for precision in ("32-true", "bf16-mixed"))
        for name, row in (("f32, s", plain), ("bf16, s", half)):
            print(f"{key:12}" + "".join(f"{seconds:>18.2f}" for seconds in row.values()) + f"  {name}")
        gains = (f"{plain[kind] / half[kind]:>18.2f}" if half[kind] > 0.005 else f"{'':18}" for kind in plain)
        print(f"{key:12}" + "".join(gains) + "  x as fast")


if __name__ == "__main__":
    main()
