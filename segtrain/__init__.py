"""Train and evaluate semantic-segmentation networks from one config-driven command.

In a program or a notebook: load, build_model, score, Model. docs/how-to/python.md shows them.
"""

import importlib
import os
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else importing it asks the network for a newer version
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else onnxruntime reports to its makers, from version 1.29 on

__all__ = ["Model", "build_model", "load", "score"]


def __getattr__(name: str) -> Any:
    """Import what is offered when it is first used: torch takes seconds, and the command line must not wait for it."""
    if name in __all__:
        return getattr(importlib.import_module("segtrain.api"), name)
    raise AttributeError(f"module 'segtrain' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
