"""segtrain env: versions and hardware, to be pasted into a report of a bug."""

import argparse
import os
import platform
from collections.abc import Sequence
from pathlib import Path

from segtrain.run.results import versions
from segtrain.terminal import table

PACKAGES = ("torchvision", "hydra-core", "omegaconf", "pydantic", "albumentations", "opencv-python-headless", "numpy",
            "pillow", "tensorboard", "wandb", "mlflow", "trackio", "onnx", "onnxruntime", "timm",
            "segmentation-models-pytorch")
CPU_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "bf16")


def main(arguments: Sequence[str]) -> None:
    """Print the table."""
    argparse.ArgumentParser("segtrain env", description="Show versions and hardware.").parse_args(arguments)
    import torch  # slow, as the next: `segtrain --help` must not wait for it

    from segtrain.profiling import machine_name

    rows = [[name, "not installed" if version is None else version] for name, version in versions(*PACKAGES).items()]
    rows += [["system", platform.platform()], ["CPU", f"{machine_name(torch.device('cpu'))}, {os.cpu_count()} cores"],
             ["CPU features", ", ".join(_cpu_features()) or "unknown"],
             ["CPU threads of torch", str(torch.get_num_threads())]]
    rows += [[f"GPU {number}", f"{torch.cuda.get_device_name(number)}, CUDA {torch.version.cuda}"]
             for number in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        rows.append(["GPU", "Apple, by mps"])
    if not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        rows.append(["GPU", "none that this torch can use"])
    print(table(rows, left=(0, 1)))


def _cpu_features() -> list[str]:
    """Return those of CPU_FEATURES that Linux lists, as flags on x86 and as Features on ARM."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    found = {word for line in lines if line.startswith(("flags", "Features")) for word in line.split()}
    return [feature for feature in CPU_FEATURES if feature in found]
