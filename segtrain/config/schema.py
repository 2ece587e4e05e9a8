"""The schema of the config: every fixed key with its type, its range and what it means. The values are in conf/.

`Config` is what a command says, `Settled` the same without any `auto`. Both are frozen and generic in the section of
their task: a task takes `Config[EvaluateTask]`. The groups model, optim, scheduler, loss and augmentation are plain
mappings; what they hold is checked against the signatures of their targets when those are called.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Generic, Literal, TypeVar

from omegaconf import DictConfig, OmegaConf
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PrivateAttr,
    SerializeAsAny,
    ValidationInfo,
    field_validator,
    model_validator,
)

from segtrain.errors import UserError, show_value

LEAST_SIDE = 32  # pixels; every network takes images from this size on


def _as_text(value: Any) -> Any:
    """Return a name of digits as text: checkpoint=2024 is a number to YAML."""
    return str(value) if type(value) in (int, float) else value


def _as_size(value: Any) -> tuple[int, int]:
    """Return [height, width] as a tuple."""
    if not isinstance(value, list | tuple) or len(value) != 2 or any(
            type(side) is not int or not LEAST_SIDE <= side < 2**31 for side in value):
        raise ValueError(f"must be [height, width], each at least {LEAST_SIDE} pixels")
    return value[0], value[1]


def _as_ranges(value: Any, info: ValidationInfo) -> Any:
    """Return one pair for each channel of what may be a pair for all."""
    if value in (None, "auto"):
        return value
    pairs = [value] * (info.data.get("channels") or 1) if isinstance(value, list) and not any(
        isinstance(item, list) for item in value) else value
    if not isinstance(pairs, list) or not all(
            isinstance(pair, list) and len(pair) == 2 and all(type(number) in (int, float) for number in pair)
            and pair[0] < pair[1] for pair in pairs):
        raise ValueError("must be auto, null, [low, high], or a list of such pairs, low below high")
    return [[float(number) for number in pair] for pair in pairs]


def _as_nodata(value: Any) -> Any:
    """Return NaN as text: no other value of a configuration is not finite."""
    return "nan" if isinstance(value, float) and math.isnan(value) else value


Text = Annotated[str, BeforeValidator(_as_text)]
Size = Annotated[tuple[int, int], BeforeValidator(_as_size), PlainSerializer(list)]
Count = Annotated[int, Field(ge=1, lt=2**31)]
CountOrZero = Annotated[int, Field(ge=0, lt=2**31)]
Positive = Annotated[float, Field(gt=0)]
Overlap = Annotated[float, Field(ge=0, lt=1)]
Scales = Annotated[list[Annotated[float, Field(gt=0, le=8)]], Field(min_length=1, max_length=16)]
BoundaryBand = Annotated[float, Field(gt=0, le=0.5)]
Workers = Annotated[int, Field(ge=0, lt=1025)]
AutoOrBool = bool | Literal["auto"]
Dtype = Literal["uint8", "uint16", "int16", "uint32", "int32", "float32", "float64"]
Ranges = Annotated[list[list[float]] | Literal["auto"] | None, BeforeValidator(_as_ranges)]
Nodata = Annotated[float | Literal["auto", "nan"] | None, BeforeValidator(_as_nodata)]
Score = Literal["miou", "macc", "pacc", "fwiou", "iiou", "loss"]


class RefusedValueError(UserError):
    """A value of the right type is out of range, or contradicts another one."""


def key(meaning: str) -> Any:
    """Describe a key; every value is in conf/, so there is no default."""
    return Field(description=meaning)


class Section(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    def plain(self) -> dict[str, Any]:
        """Return the values as plain dicts, lists and numbers, for config.yaml and checkpoints."""
        return self.model_dump(by_alias=True)


class SamplingSection(Section):
    by: Literal["images", "class_uniform"] = key(
        "images: each once an epoch; class_uniform: a share of them drawn for a class, with a crop that contains it")
    share: Annotated[float, Field(gt=0, le=1)] = key("class_uniform: the share of images that are drawn for a class")
    classes: dict[Text, Positive] | None = key(
        "class_uniform: {class: weight}, the classes that are drawn, in proportion to the weights; null: all, equally")


class TrainSection(Section):
    epochs: Count = key("passes over the training images")
    max_steps: Count | None = key("stop after this many optimizer steps")
    max_minutes: Positive | None = key("stop after this many minutes of training, at the end of an epoch")
    batch_size: Count = key("images at once, in each process under torchrun; evaluation uses the same")
    accumulate: Count = key("batches per optimizer step")
    clip_norm: Positive | None = key("largest norm of the whole gradient")
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = key(
        "decay of an EMA of the weights, as 0.999; the EMA is scored and kept as the best checkpoint")
    on_nonfinite: Literal["stop", "skip"] = key(
        "a loss or gradient that is not finite: stop (saved as it was before that step) or skip the step")
    save_every: Count = key("epochs between checkpoints to resume from; the last epoch and a stopped run always save")
    save_steps: Count | None = key("save after every so many optimizer steps too")
    save_minutes: Positive | None = key("save so many minutes after the last checkpoint too")
    keep: Count = key("newest checkpoints to keep: last.pt, and those before it as step-*.pt; best.pt is always kept")
    val_every: Count = key("epochs between validations; the last epoch is always validated")
    monitor: Score = key("the score that makes a checkpoint the best")
    patience: Count | None = key("stop after this many validations without a new best")
    accept_changed_data: bool = key("continue a run though images or masks have changed since its checkpoint")
    new_head: bool = key("start from a checkpoint of other classes: leave out its head")
    aux_weights: dict[Text, Annotated[float, Field(ge=0)]] | None = key(
        "{head: weight}: the weights of the losses of the network's auxiliary heads; null, and for a head that is not "
        "named: the paper's")
    teacher: Text | None = key(
        "a .pt file or a run directory (its best.pt) of the same classes, whose logits are learnt as well")
    teacher_loss: Literal["pixel", "channel"] = key(
        "KL divergence from the teacher: of the classes at each pixel, or of the places of each class (channel-wise)")
    teacher_weight: Positive = key("weight of that divergence; the loss of the labels has 1")
    teacher_temperature: Positive = key("what the logits of both are divided by before the divergence")
    freeze_encoder: bool = key(
        "keep the encoder's weights and BatchNorm statistics as they were loaded, train the rest")
    encoder_lr: Positive | None = key("learning rate of the encoder, under the same schedule; null: optim.lr")
    weight_decay_on: Literal["all", "kernels"] = key(
        "which weights optim.weight_decay is for: all, or kernels of convolutions and linear layers only")
    sampling: SamplingSection
    num_images: Count | None = key("train on the first images only")
    examples: CountOrZero = key("validation images shown in TensorBoard and the report, which also has as many of the "
                                "worst and of the best")
    report: bool = key("write report.html at the end")


    log_every: Count | None = key(
        "write loss, learning rate, norm of the gradient and memory after every so many optimizer steps, to steps.csv "
        "and the loggers")


class TensorboardLogger(Section):
    pass


class WandbLogger(Section):
    project: Text = key("the project, which is made if it is not there")
    entity: Text | None = key("the user or team; null: your own")
    mode: Literal["online", "offline"] = key("offline: keep it in the folder wandb/, for wandb sync")
    checkpoint: bool = key("keep the best checkpoint there, too")


class MlflowLogger(Section):
    tracking_uri: Text | None = key("the server or database; null: MLFLOW_TRACKING_URI, or MLflow's own default")
    experiment: Text = key("the experiment, which is made if it is not there")
    checkpoint: bool = key("keep the best checkpoint there, too")


class TrackioLogger(Section):
    project: Text = key("the project, which is made if it is not there")


class LoggerSection(Section):
    """The loggers that are used, by their names: those of the files that logger= chooses, and only those."""

    tensorboard: TensorboardLogger | None = None
    wandb: WandbLogger | None = None
    mlflow: MlflowLogger | None = None
    trackio: TrackioLogger | None = None

    def chosen(self) -> dict[str, dict[str, Any]]:
        """Return the options of each logger that is used."""
        return {name: getattr(self, name).plain() for name in self.model_fields_set if getattr(self, name) is not None}


class RuntimeSection(Section):
    device: Text = key("auto (cuda, else mps, else cpu), cpu, cuda, cuda:1 or mps")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = key(
        "auto: bf16 on cuda, on a cpu what a short trial finds faster, with a checkpoint what it was scored in")
    channels_last: AutoOrBool = key(
        "memory layout; auto: true, unless that trial finds it slower; with a checkpoint what it was scored with")
    compile: AutoOrBool = key(
        "torch.compile the training step; auto: long runs on cuda, and of over an hour on a cpu if the trial gains")
    sync_batchnorm: AutoOrBool = key("under torchrun, BatchNorm over the images of all processes; auto: on cuda")
    workers: Workers | Literal["auto"] = key(
        "processes that load images, for each process under torchrun; at most 4 a core, or 16")
    threads: Annotated[int, Field(ge=1, lt=1025)] | None = key(
        "CPU threads of torch; null: all cores, or as many as torchrun gives each process")
    trusted: list[str] = key("your own packages that a checkpoint's config may name, as [mypkg]")


class FoldsSection(Section):
    k: Annotated[int, Field(ge=2, lt=2**31)] = key("how many folds")
    by: Literal["random", "sequence", "stratified"] | None = key(
        "random: single images, or groups; sequence: stretches in the order of the names, as of videos; stratified: "
        "classes spread evenly over the folds; null: sequence for videos (camvid, cityscapes, a2d2, rugd), else random")
    group: Text | None = key('"(.+)_[0-9]+": images for whose names it gives the same text are in one fold')
    of: Annotated[list[str], Field(min_length=1)] = key("the splits whose images are shared out")
    seed: CountOrZero = key("of the folds; apart from the training's seed, so that scores stay comparable")
    lists: Text | None = key(
        '"folds/{fold}_{split}.txt": lists of names below dataset.root that say what is in train and val; without '
        "{split} they list val, and train is the rest")


class DatasetSection(Section):
    """What the files of conf/dataset hold: the same keys for every dataset, and the arguments of its class."""

    model_config = ConfigDict(extra="allow")

    target: Text = Field(alias="_target_", description="the class of the dataset")
    num_classes: Count | None = key("number of classes; null: as many as the class file lists")
    class_map: dict[Text, Text] | None = key(
        "{old: new}: a checkpoint's classes that have other names in this dataset; null: none")
    split: Text = key("the split that evaluate reads")
    fold: CountOrZero | None = key(
        "cross-validation: which fold of dataset.folds is val, from 0, train being the others; null: the dataset's own")
    folds: FoldsSection
    instances: Literal["maps", "components"] | None = key(
        "iIoU from instance maps, or from connected regions as components; null: no iIoU")
    cache: AutoOrBool = key("keep decoded images in memory; auto: when they fit")
    crop: Size = key("height and width of training crops, pixels")
    channels: Annotated[int, Field(ge=1, le=64)] | None = key(
        "channels of the images, whose values are then taken as they are; null: red, green and blue of 8 bits, which "
        "grey, palette and 16-bit images are turned into")
    bands: list[Count] | None = key("with channels: the bands of a file that become them, from 1; null: all")
    dtype: Dtype | None = key("with channels: the type of the files' values; null: that of the training images")
    range: Ranges = key(
        "with channels: the values that become 0 and 255, [low, high] or one such pair for each channel; null: 8 bits "
        "as they are; auto: null for 8 bits, else the 0.1 and 99.9 percentiles of the training images")
    nodata: Nodata = key(
        "with channels: the value of pixels without data, which become void, a number or nan; auto: what a file states")
    rgb: Annotated[list[Count], Field(min_length=1, max_length=3)] | None = key(
        "with channels: those that are drawn as red, green and blue, from 1; one: grey; null: the first")
    mean: list[float] | Literal["auto"] = key(
        "for each channel, subtracted from x/255; auto: ImageNet's, or what a pretrained encoder expects; with "
        "channels: that of the training images")
    std: list[float] | Literal["auto"] = key(
        "for each channel, divisor; auto: 1, or what a pretrained encoder expects; with channels: that of the training "
        "images")

    @field_validator("rgb", mode="after")
    @classmethod
    def _check_rgb(cls, value: list[int] | None, info: ValidationInfo) -> list[int] | None:
        channels = info.data.get("channels") or 3
        if value is not None and (len(value) == 2 or max(value) > channels):
            raise ValueError(f"must be one channel or three, each from 1 to {channels}")
        return value

    @field_validator("bands", mode="after")
    @classmethod
    def _check_bands(cls, value: list[int] | None, info: ValidationInfo) -> list[int] | None:
        channels = info.data.get("channels")
        if value is not None and channels != len(value):
            raise ValueError(f"are {len(value)} bands: set dataset.channels={len(value)}, it is {show_value(channels)}")
        return value

    @field_validator("dtype", "range", "nodata", "rgb", mode="after")
    @classmethod
    def _check_needs_channels(cls, value: Any, info: ValidationInfo) -> Any:
        if info.data.get("channels") is None and value not in (None, "auto"):
            raise ValueError("is for images of dataset.channels: set that to their number of channels")
        return value

    @field_validator("range", mode="after")
    @classmethod
    def _check_range(cls, value: Any, info: ValidationInfo) -> Any:
        channels = info.data.get("channels")
        if isinstance(value, list) and len(value) != channels:
            raise ValueError(f"has {len(value)} pairs, but dataset.channels={channels}")
        return value

    @field_validator("mean", mode="after")
    @classmethod
    def _check_mean(cls, value: Any, info: ValidationInfo) -> Any:
        channels = info.data.get("channels")
        if value != "auto" and len(value) != (channels or 3):
            raise ValueError(f"must be {channels or 3} numbers, one for each channel (dataset.channels="
                             f"{show_value(channels)}), or auto")
        return value

    @field_validator("std", mode="before")
    @classmethod
    def _check_std(cls, value: Any, info: ValidationInfo) -> Any:
        channels = info.data.get("channels") or 3
        if value != "auto" and (not isinstance(value, list) or len(value) != channels or not all(
                type(number) in (int, float) and number > 0 for number in value)):
            raise ValueError(f"must be auto or a list of {channels} numbers above 0, one for each channel")
        return value

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of the dataset's own class."""
        return dict(self.model_extra or {})

    def name_fold(self, split: str) -> int | str | None:
        """Return what tells train and val from those of other folds: a number, or the frames that camvid holds out."""
        if split not in ("train", "val"):
            return None
        held = self.arguments.get("holdout")
        return self.fold if self.fold is not None or held is None else show_value(held)


class TaskSection(Section):
    name: str = key("what to do")


class TrainTask(TaskSection):
    """Train a network and keep its best checkpoint (the default)."""

    name: Literal["train"]


class EvaluateTask(TaskSection):
    """Score a checkpoint on a split."""

    name: Literal["evaluate"]
    window: Size | None = key(
        "height and width, pixels: cut images into overlapping windows, train.batch_size of them at once")
    overlap: Overlap | None = key(
        "with window: least share of a window that the next one shows too, from 0 to below 1; null: 0.25")
    flip: bool = key("flip TTA: average the logits with those of the horizontally flipped image")
    scales: Scales = key("average the logits of the image, or of each window, resized by each of these factors")
    boundary_band: BoundaryBand = key("boundary IoU: the width of the band, as a share of the image's diagonal")
    worst: CountOrZero = key("images of the lowest mIoU that are drawn, with their errors, in worst/")
    save_predictions: bool = key(
        "write predictions/: a PNG of class ids for each image, as its dataset's benchmark wants it")


class PredictTask(TaskSection):
    """Segment images and videos with a checkpoint."""

    name: Literal["predict"]
    input: Text | None = key(
        "an image, a video, a folder, a pattern, a list of paths in a .txt or .csv file, the URL of a stream, or the "
        "number of a camera")
    output: Text | None = key("the folder that predictions/ and the like go to; null: the run directory")
    overlays: bool = key("write overlays/: each image under the colours of its prediction, with a legend, as JPEG")
    probabilities: bool = key("write probabilities/: for each image a float16 array (class, height, width), as .npy")
    window: Size | None = key(
        "height and width, pixels: cut images into overlapping windows; null: only those that are too large for the "
        "memory")
    overlap: Overlap = key("least share of a window that the next one shows too, from 0 to below 1")
    flip: bool = key("flip TTA: average the logits with those of the horizontally flipped image")
    scales: Scales = key("average the logits of the image, or of each window, resized by each of these factors")
    shard: Text | None = key("i/n: only the i-th of n parts of the input, as 1/4")


class BenchmarkTask(TaskSection):
    """Measure parameters, MACs, speed and memory of a network."""

    name: Literal["benchmark"]
    size: Size = key("height and width of the images, pixels")
    batch_size: Count = key("images at once, for throughput and training")
    train: bool = key("measure training too: forward, backward and optimizer step")
    repeats: Count = key("most timed runs of each figure; the median counts, and for latency the 95th percentile")
    seconds: Positive = key("no run is started after so many seconds of a figure's runs, once there are 3")
    layers: bool = key("list every layer: output shape, parameters, multiply-adds")
    sort: Text = key("the column by which a sweep's table is sorted")


class ConvertTask(TaskSection):
    """Turn the published weights of a network into a checkpoint."""

    name: Literal["convert"]
    weights: Text | None = key("a .npz file, an array under each weight's name in the original, Keras's or PyTorch's")


class DoctorTask(TaskSection):
    """Check a dataset, and recommend settings."""

    name: Literal["doctor"]
    splits: list[str] | None = key("splits that must be there; null: train and val, and test where there is one")
    near_distance: Annotated[int, Field(ge=0, lt=65)] | None = key(
        "images of two splits are near-duplicates if so few of the 64 bits of their hashes differ; "
                    "null: off")
    examples: CountOrZero = key("images of each split in examples.png")


class ExportTask(TaskSection):
    """Write a checkpoint as ONNX or for torch.export.load."""

    name: Literal["export"]
    format: Literal["onnx", "pt2"] = key("onnx: model.onnx; pt2: model.pt2, for torch.export.load")
    labels: bool = key(
        "false: float32 (N, 3, H, W) -> logits; true: uint8 (N, H, W, 3) -> the class of each pixel, uint8")
    size: Size | None = key("height and width, pixels: for images of this size alone, one at a time; null: any")
    opencv: bool = key("run model.onnx in OpenCV too; onnxruntime runs it anyway")


class RasterizeTask(TaskSection):
    """Write the masks of any dataset as PNG files."""

    name: Literal["rasterize"]
    output: Text | None = key("the folder for <split>/<name>.png, masks of train ids, and classes.csv")
    splits: list[str] | None = key("the splits; null: train and val, and test where there is one")


class ReportTask(TaskSection):
    """Write the HTML report of a run or a sweep."""

    name: Literal["report"]
    run: Text | None = key("the directory of a run, of a sweep, or of several runs")
    output: Text | None = key("the file to write; null: report.html in that directory")
    evaluation: Text | None = key(
        "of one run: the directory of an evaluation of it, whose scores and worst images are shown too")
    jobs: bool = key("of a sweep: write the report of every job too, which the sweep's links to")


class ScoreTask(TaskSection):
    """Score a folder of predicted label files."""

    name: Literal["score"]
    predictions: Text | None = key("the folder of PNG files with one 8-bit class number a pixel, at the targets' size")
    class_sizes: Any = key(
        "mean pixels of an object, for iIoU: a results.json, or {Car: 1234.5}; null: those that the dataset fixes, "
        "else the means of dataset.split itself")


TASKS: dict[str, type[TaskSection]] = {
    "train": TrainTask, "evaluate": EvaluateTask, "predict": PredictTask, "score": ScoreTask,
    "benchmark": BenchmarkTask, "convert": ConvertTask, "doctor": DoctorTask, "export": ExportTask,
    "rasterize": RasterizeTask, "report": ReportTask}
TaskT = TypeVar("TaskT", bound=TaskSection, covariant=True)


class Config(Section, Generic[TaskT]):
    """What a command says, checked."""

    task: SerializeAsAny[TaskT]
    train: TrainSection
    runtime: RuntimeSection
    logger: Annotated[LoggerSection, PlainSerializer(LoggerSection.chosen)] = LoggerSection()
    dataset: DatasetSection
    model: dict[str, Any] = key("the network")
    optim: dict[str, Any] = key("the optimizer")
    scheduler: dict[str, Any] = key("the learning-rate schedule")
    loss: dict[str, Any] = key("the loss")
    augmentation: dict[str, Any] = key("transforms of the training images, by name, in their order")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = key("of the weights, the order of the images and their augmentation")
    checkpoint: Text | None = key(
        "a .pt file or a run directory (its best.pt): weights to evaluate, predict with or train on")
    resume: Text | None = key("a run directory to continue exactly; nothing else is needed")
    rerun: Text | None = key("a run directory, or its config.yaml, whose configuration is run again in a new directory")

    _tree: DictConfig = PrivateAttr()  # as composed, its interpolations in place: they follow what is settled later
    _overrides: tuple[str, ...] = PrivateAttr(default=())

    @property
    def overrides(self) -> Sequence[str]:
        """The overrides of the command lines that made it."""
        return self._overrides

    def tree(self) -> dict[str, Any]:
        """Return the config as it was composed, its interpolations in place."""
        tree: Any = OmegaConf.to_container(self._tree)
        return tree

    @model_validator(mode="after")
    def _check_training(self) -> "Config[TaskT]":
        """Check what contradicts in a training; another task may take the values at fault from a checkpoint."""
        train = self.train
        if self.task.name != "train":
            return self
        if train.monitor == "iiou" and self.dataset.instances is None:
            raise RefusedValueError(
                "train.monitor=iiou needs instances: set dataset.instances=components, or monitor miou.")
        if train.new_head and self.checkpoint is None:
            raise RefusedValueError("train.new_head=true needs checkpoint=, the weights to start from.")
        if train.freeze_encoder and train.encoder_lr is not None:
            raise RefusedValueError(f"train.freeze_encoder=true and train.encoder_lr={show_value(train.encoder_lr)} "
                            "contradict: a frozen encoder does not learn; leave one of them out.")
        return self


class SettledRuntime(RuntimeSection):
    precision: Literal["fp32", "bf16", "fp16"]
    channels_last: bool
    compile: bool
    sync_batchnorm: bool
    workers: Workers


class SettledDataset(DatasetSection):
    num_classes: Count
    mean: list[float]
    std: list[float]


class Settled(Config[TaskT], Generic[TaskT]):
    """A config of which nothing is left open: every `auto` is replaced by what it means for this run and machine."""

    runtime: SettledRuntime
    dataset: SettledDataset
