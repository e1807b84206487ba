"""Time exports against torch eager in float32, for the five networks and gate, batch 8, from films to grades.

    python tests/benchmarks/export.py [--backbone all|tiny|lite0] [--json PATH] [--rounds N] [--batch N] [--threads N]

All run in turn in one process, so that other jobs on the machine hit all; the figures are medians. Weights are random,
as they don't matter for time. Aims, on a CPU with AVX512-BF16: OpenVINO f32 1.8 x, bf16 4 x, int8 6 x torch eager f32.
`limit` is about the most that could be had of these cores: the network's products at the rate that torch reaches in
large ones of that precision, measured before and after the rest; in int8, where there is VNNI, twice that of bf16.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import numpy.typing as npt
import torch
from omegaconf import OmegaConf
from torch.utils.flop_counter import FlopCounterMode

from legradnet.cli import config_folder
from legradnet.data.synthetic import synthesize
from legradnet.export.run import export
from legradnet.grading.checkpoint_network import CheckpointNetwork
from legradnet.grading.exported_network import ExportedNetwork
from legradnet.grading.runtimes import RUNTIMES
from legradnet.network.ensemble import KneeEnsemble

AIMS = {"openvino f32": 1.8, "openvino bf16": 4.0, "openvino int8": 6.0}
SIDE = 224
PRODUCT = 2048  # side of the matrices whose product shows what the cores can


def composed(name: str, *overrides: str) -> dict[str, Any]:
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        return OmegaConf.to_container(hydra.compose(name, list(overrides)), resolve=True)  # type: ignore[return-value]


def write_checkpoint(path: Path, backbone: str) -> None:
    """An untrained network with the defaults of training."""
    config = composed("train", f"backbone={backbone}", "model.pretrained=false")
    networks = {key: {**each, "weights": None} for key, each in config["backbone"].items()}
    torch.manual_seed(0)
    ensemble = KneeEnsemble(networks, config["gating"], 5, feature_dim=config["model"]["feature_dim"])
    settings = {
        "backbone": networks,
        "gating": config["gating"],
        "model": config["model"],
        "loss": {"name": "cross_entropy"},
        "class_counts": [1] * 5,
        "films": {"image_size": SIDE, "fit": "pad", "mirror_left": False},
        "run": {"batch_size": 8},
        "seed": 0,
    }
    weights = {f"ensemble.{name}": tensor for name, tensor in ensemble.state_dict().items()}
    torch.save({"hyper_parameters": settings, "state_dict": weights}, path)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def product_rate(kind: torch.dtype) -> float:
    """Operations a second of the fastest of some products, a multiplication and its addition being two."""
    matrix = torch.rand(PRODUCT, PRODUCT).to(kind)
    return 2 * PRODUCT**3 / min(seconds(lambda: matrix @ matrix) for _ in range(8))


def operations(network: CheckpointNetwork, films: npt.NDArray[np.uint8]) -> int:
    """Those of all its products on a batch of films."""
    batch = torch.from_numpy(films)
    with FlopCounterMode(display=False) as counted:
        network.ensemble(batch)
    return int(counted.get_total_flops())


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="all", help="as in legradnet-train")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--rounds", type=int, default=9, help="measurements of each")
    parser.add_argument("--batch", type=int, default=8, help="films a batch")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    films = synthesize(arguments.batch, size=SIDE, seed=1)[0][:, None]

    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "checkpoint.ckpt"
        write_checkpoint(checkpoint, arguments.backbone)
        eager = CheckpointNetwork(checkpoint, device="cpu", precision="f32")
        networks: dict[str, CheckpointNetwork | ExportedNetwork] = {"torch f32": eager}
        work = operations(eager, films)
        kinds = {"f32": torch.float32, "bf16": torch.bfloat16}
        can = {precision: product_rate(kind) for precision, kind in kinds.items()}
        megabytes = {}
        for kind, runtime in RUNTIMES.items():
            for precision in runtime.precisions:
                output = Path(folder) / f"{kind}-{precision}"
                words = [f"checkpoint={checkpoint}", f"output={output}", f"format={kind}", f"precision={precision}"]
                few = ["data=synthetic", "data.count=16", "split=all", "max_qwk_drop=null"]
                export(composed("export", *words, *few))
                networks[f"{kind} {precision}"] = ExportedNetwork(output, threads=arguments.threads)
                megabytes[f"{kind} {precision}"] = sum(file.stat().st_size for file in output.iterdir()) / 1e6
        times: dict[str, list[float]] = {name: [] for name in networks}
        for turn in range(arguments.rounds + 2):
            for name, network in networks.items():
                spent = seconds(lambda network=network: network(films))
                if turn >= 2:  # the first two warm up
                    times[name].append(spent)
        can = {precision: max(can[precision], product_rate(kind)) for precision, kind in kinds.items()}
        can["int8"] = 2 * can["bf16"]
        ran_in = {
            name: network.runs_in if isinstance(network, ExportedNetwork) else "f32"
            for name, network in networks.items()
        }
    rates = {name: arguments.batch / statistics.median(values) for name, values in times.items()}
    ratios = {name: rate / rates["torch f32"] for name, rate in rates.items()}
    limits = {precision: arguments.batch * rate / work / rates["torch f32"] for precision, rate in can.items()}
    load = os.getloadavg()[0]

    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "openvino", "onnxruntime"))
    print(f"backbone={arguments.backbone}, batch {arguments.batch}, {SIDE} px, {arguments.threads} threads")
    print(f"{processor()}, {packages}, load {load:.1f}")
    told = ", ".join(f"{precision} {rate / 1e9:.0f}" for precision, rate in can.items())
    print(f"{work / arguments.batch / 1e9:.1f} GFLOP a film; products at most, GFLOP/s: {told}")
    print(f"{'':18}{'images/s':>10}{'x torch f32':>13}{'aim':>6}{'limit':>7}{'ran in':>8}{'MB':>9}")
    for name, rate in rates.items():
        aim = f"{AIMS[name]:.1f}" if name in AIMS else ""
        size = f"{megabytes[name]:.1f}" if name in megabytes else ""
        print(
            f"{name:18}{rate:>10.1f}{ratios[name]:>13.2f}{aim:>6}{limits[ran_in[name]]:>7.2f}{ran_in[name]:>8}{size:>9}"
        )
    if arguments.json:
        figures = {
            **{name: getattr(arguments, name) for name in ("backbone", "batch", "threads", "rounds")},
            "side": SIDE,
            "processor": processor(),
            "torch": torch.__version__,
            "load": load,
            **{name: version(name) for name in ("openvino", "onnxruntime", "nncf")},
            "images_per_second": rates,
            "times_torch": ratios,
            "operations_a_film": work / arguments.batch,
            "operations_a_second": can,
            "limits": limits,
            "ran_in": ran_in,
            "megabytes": megabytes,
        }
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
