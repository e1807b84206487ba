"""The table of what runs an export, by `format`."""

from legradnet.grading.runtimes.onnx import ONNX
from legradnet.grading.runtimes.openvino import OPENVINO

RUNTIMES = {"openvino": OPENVINO, "onnx": ONNX}
