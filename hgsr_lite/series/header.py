"""What a notebook runs on, in a few lines: enough to tell two readers' figures apart."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

import torch

from hgsr_lite.arguments import available_cores
from hgsr_lite.data import find_device


def banner(device: str | torch.device | None = None) -> str:
    """The versions, the device and the number of CPU cores, one a line; nothing that names the machine.

    `device` is read as in `load_data`: None means a GPU if there is one. Raises `ValueError` for a device
    that does not work here. On Colab without a GPU, a line says how to take one.

    >>> print(banner("cpu"))
    Python       ...
    PyTorch      ...
    torchvision  ...
    hgsr_lite    ...
    device       CPU, ...
    CPU cores    ...
    """
    rows = {
        "Python": platform.python_version(),
        "PyTorch": torch.__version__,
        "torchvision": _version("torchvision"),
        "hgsr_lite": _version("hgsr-lite"),
        "device": _device_name(find_device(device)),
        "CPU cores": str(available_cores()),
    }
    if "google.colab" in sys.modules and not torch.cuda.is_available():
        rows["no GPU"] = "take one by Runtime > Change runtime type > T4 GPU, then run all cells again"
    return "\n".join(f"{name:<13}{value}" for name, value in rows.items())


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed as a package"


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"GPU, {torch.cuda.get_device_name(device)}"
    return f"CPU, {platform.machine()}" if device.type == "cpu" else str(device)
