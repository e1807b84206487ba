"""Python runs this at its start where this folder is in PYTHONPATH: torch then finds a CPU with bfloat16, or without.

`LEGRADNET_TEST_PRECISION` is `f32` or `bf16`; conftest.py puts the folder there for itself and all commands of tests.
"""

import os
import sys
from importlib.machinery import PathFinder

NATIVE = os.environ.get("LEGRADNET_TEST_PRECISION") == "bf16"


def pretend(cpu):
    cpu._is_avx512_bf16_supported = cpu._is_amx_tile_supported = lambda: NATIVE


class WhenImported:
    """Change `torch.cpu` once it is imported: importing torch here would cost each start of Python a second."""

    def find_spec(self, name, path=None, target=None):
        if name != "torch.cpu":
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module
        spec.loader.exec_module = lambda module: (execute(module), pretend(module))
        return spec


if "torch.cpu" in sys.modules:
    pretend(sys.modules["torch.cpu"])
else:
    sys.meta_path.insert(0, WhenImported())
