"""The fixed sections of the config: their keys, types and ranges. The values are in conf/."""

# ruff: noqa: RUF009  # value makes a dataclass field

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

AUTO_OR_BOOL = ("auto", True, False)


def value(**limits: Any) -> Any:
    """Declare a value that conf/ must give, with its limits: at_least, above, below, one_of.

    or_auto admits "auto"; image_size wants [height, width], at least as large as every network takes.
    """
    return field(default=MISSING, metadata=limits)


@dataclass
class TrainSection:
    epochs: int = value(at_least=1)
    max_steps: int | None = value(at_least=1)
    max_minutes: float | None = value(above=0)
    batch_size: int = value(at_least=1)
    accumulate: int = value(at_least=1)
    clip_norm: float | None = value(above=0)
    ema_decay: float | None = value(above=0, below=1)
    on_nonfinite: str = value(one_of=("stop", "skip"))
    save_every: int = value(at_least=1)
    save_steps: int | None = value(at_least=1)
    save_minutes: float | None = value(above=0)
    keep: int = value(at_least=1)
    val_every: int = value(at_least=1)
    monitor: str = value(one_of=("miou", "macc", "pacc", "fwiou", "iiou", "loss"))
    patience: int | None = value(at_least=1)
    new_head: bool = value()
    freeze_encoder: bool = value()
    encoder_lr: float | None = value(above=0)
    weight_decay_on: str = value(one_of=("all", "kernels"))
    num_images: int | None = value(at_least=1)
    examples: int = value(at_least=0)
    report: bool = value()


@dataclass
class RuntimeSection:
    device: str = value()
    precision: str = value(one_of=("auto", "fp32", "bf16", "fp16"))
    channels_last: bool = value()
    compile: Any = value(one_of=AUTO_OR_BOOL)
    sync_batchnorm: Any = value(one_of=AUTO_OR_BOOL)
    workers: Any = value(at_least=0, below=1025, or_auto=True)
    threads: int | None = value(at_least=1, below=1025)
    trusted: list[str] = value()


@dataclass
class TaskSection:
    name: str = value(one_of=("train", "evaluate", "predict", "score", "benchmark", "convert", "doctor", "export",
                             "report"))


@dataclass
class EvaluateSection(TaskSection):
    window: list[int] | None = value(image_size=True)
    overlap: float = value(at_least=0, below=1)
    flip: bool = value()
    worst: int = value(at_least=0)
    save_predictions: bool = value()


@dataclass
class PredictSection(TaskSection):
    input: str | None = value()
    output: str | None = value()
    overlays: bool = value()
    probabilities: bool = value()
    window: list[int] | None = value(image_size=True)
    overlap: float = value(at_least=0, below=1)
    flip: bool = value()
    shard: str | None = value()


@dataclass
class BenchmarkSection(TaskSection):
    size: list[int] = value(image_size=True)
    batch_size: int = value(at_least=1)
    train: bool = value()
    repeats: int = value(at_least=1)
    seconds: float = value(above=0)
    layers: bool = value()
    sort: str = value()


@dataclass
class ConvertSection(TaskSection):
    weights: str | None = value()


@dataclass
class DoctorSection(TaskSection):
    splits: list[str] | None = value()
    near_distance: int | None = value(at_least=0, below=65)
    examples: int = value(at_least=0)


@dataclass
class ExportSection(TaskSection):
    format: str = value(one_of=("onnx", "pt2"))
    labels: bool = value()
    size: list[int] | None = value(image_size=True)
    opencv: bool = value()


@dataclass
class ReportSection(TaskSection):
    run: str | None = value()
    output: str | None = value()
    evaluation: str | None = value()
    jobs: bool = value()


@dataclass
class ScoreSection(TaskSection):
    predictions: str | None = value()
    class_sizes: Any = value()


# the tasks that have keys of their own
TASKS = {"evaluate": EvaluateSection, "predict": PredictSection, "score": ScoreSection, "benchmark": BenchmarkSection,
         "convert": ConvertSection, "doctor": DoctorSection, "export": ExportSection, "report": ReportSection}


@dataclass
class DatasetSettings:
    """What conf/dataset/*.yaml hold beside the arguments of their class: the same for every dataset."""

    num_classes: int | None = value(at_least=1)
    split: str = value()
    instances: str | None = value(one_of=("maps", "components"))
    cache: Any = value(one_of=AUTO_OR_BOOL)
    crop: list[int] = value(image_size=True)
    mean: list[float] = value()
    std: Any = value(or_auto=True)


@dataclass
class Config:
    task: dict[str, Any] = field(default_factory=dict)  # one of TASKS, or a TaskSection
    train: TrainSection = field(default_factory=TrainSection)
    runtime: RuntimeSection = field(default_factory=RuntimeSection)
    model: dict[str, Any] = field(default_factory=dict)
    optim: dict[str, Any] = field(default_factory=dict)
    scheduler: dict[str, Any] = field(default_factory=dict)
    loss: dict[str, Any] = field(default_factory=dict)
    dataset: dict[str, Any] = field(default_factory=dict)
    augmentation: dict[str, Any] = field(default_factory=dict)
    seed: int = value(at_least=0, below=2**63)
    checkpoint: str | None = value()
    resume: str | None = value()
