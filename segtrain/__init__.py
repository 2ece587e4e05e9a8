"""Train and evaluate semantic-segmentation networks from one config-driven command.

In a program or a notebook: train, Run, load, Model, Prediction, build_model, score. docs/how-to/python.md shows them.
"""

import importlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segtrain.api import Model, build_model, load, score
    from segtrain.prediction import Prediction
    from segtrain.trained_run import Run, train

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else importing it asks the network for a newer version
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else onnxruntime reports to its makers, from version 1.29 on

__all__ = ["Model", "Prediction", "Run", "build_model", "load", "score", "train"]


def __getattr__(name: str) -> object:
    """Import what is offered when it is first used: torch takes seconds, and the command line must not wait for it."""
    if name in __all__:
        module = "segtrain.trained_run" if name in ("Run", "train") else "segtrain.api"
        return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'segtrain' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
