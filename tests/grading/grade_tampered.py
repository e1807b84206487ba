"""Grade a film with tampered copies of a checkpoint, in a process that can't take much memory; prints what came of it.

Arguments: the checkpoint, the film, a folder, how many copies.
"""

import json
import resource
import sys
import traceback
from pathlib import Path

import torch

from legradnet.checkpoint import read_checkpoint
from legradnet.errors import UserError
from legradnet.grading.grader import Grader
from tampering import nested, tampered

ROOM = 2**30  # bytes more than grading with the good checkpoint took


def hollow(content, **model):
    """A checkpoint of a few kB whose tensors claim to be of any size."""
    content["hyper_parameters"]["model"] |= model
    weights = {name: torch.zeros(1).expand(tensor.shape) for name, tensor in content["state_dict"].items()}
    return {**content, "state_dict": weights}


def copies(checkpoint, count):
    plain = {name: checkpoint[name] for name in ("hyper_parameters", "legradnet")}
    for what, changed in tampered(
        plain, count, seed=12, more=[nested(60), torch.zeros(3), {1, 2}, b"bytes", {1: 2}, 2.5j]
    ):
        yield what, {**checkpoint, **changed}
    for key in ("hyper_parameters", "state_dict", "legradnet"):
        for value in (7, "x", [1], {1: 2}, torch.zeros(2)):
            yield f"{key}={value}", {**checkpoint, key: value}
    state = checkpoint["state_dict"]
    name = next(iter(state))
    for value in (
        None,
        "x",
        torch.zeros(1),
        torch.zeros(2, 2).to_sparse(),
        torch.empty(state[name].shape, device="meta"),
    ):
        yield f"{name} is {value}", {**checkpoint, "state_dict": {**state, name: value}}
    yield "no weights", {**checkpoint, "state_dict": {name: state[name]}}
    yield "odd names of weights", {**checkpoint, "state_dict": {**state, 3: state[name]}}
    changed = json.loads(json.dumps(plain))
    for width in (2_000_000, 2**62):
        changed["hyper_parameters"]["model"]["feature_dim"] = width
        yield f"feature_dim={width}", {**checkpoint, **json.loads(json.dumps(changed))}
    yield "hollow", hollow({**checkpoint, **json.loads(json.dumps(plain))})


def main():
    checkpoint, film, folder, count = sys.argv[1:]
    torch.set_num_threads(1)
    good = Grader.from_checkpoint(checkpoint, precision="f32").grade(film, "R")
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + ROOM, taken + ROOM))
    path = Path(folder) / "tampered.ckpt"
    for what, content in copies(read_checkpoint(checkpoint), int(count)):
        torch.save(content, path)
        try:
            grading = Grader.from_checkpoint(path, precision="f32").grade(film, "R")
            outcome = {"same": grading.grade == good.grade and (grading.raw == good.raw).all().item()}
        except UserError as error:
            outcome = {"told": str(error)}
        except BaseException:
            outcome = {"crash": traceback.format_exc()}
        print(json.dumps({"what": what, **outcome}), flush=True)


if __name__ == "__main__":
    main()
