"""The schemas of the JSON files in a run directory."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from segtrain.schemas import MOST_CLASSES, Color, Count, Number, Part, Score, Seconds, Text

Scores = Annotated[dict[Text, Score | None], Field(max_length=MOST_CLASSES)]
Counts = Annotated[list[Count], Field(max_length=MOST_CLASSES)]
Encoded = Annotated[str, StringConstraints(max_length=10_000_000)]
Sizes = Annotated[dict[Text, Number | None], Field(max_length=MOST_CLASSES)]
# The keys of results with scores of classes; those of other tasks have some of them.
OF_SCORES = ("task", "dataset", "split", "num_images", "loss", "miou", "macc", "pacc", "fwiou", "iiou", "iou_per_class",
             "acc_per_class", "iiou_per_class", "confusion_matrix", "predicted_void", "iiou_source", "policy",
             "seconds", "images_per_second", "params", "macs")


class Policy(Part):
    """What belongs to the definition of the scores."""

    num_classes: Count = 0
    ignore_index: Count = 255
    resolution: Text = ""
    accumulated_over: Text = ""
    absent_class: Text = ""
    class_sizes: Sizes | None = None


class Inference(Part):
    """How images were predicted."""

    window: Annotated[list[Count], Field(min_length=2, max_length=2)] | None = None
    overlap: Number | None = None
    flip: bool = False
    scales: Annotated[list[Number], Field(min_length=1, max_length=16)] | None = None

    @model_validator(mode="after")
    def _check_window(self) -> "Inference":
        if self.window is not None and self.overlap is None and "overlap" in self.model_fields_set:
            raise ValueError("a window without an overlap")
        return self


class Results(Part):
    """results.json. The keys that are there are of these types, whichever task wrote them."""

    file_format: Literal[1] = 1
    task: Text = ""
    dataset: Text = ""
    split: Text = ""
    fold: Count | Text | None = None
    epoch: Count | None = None
    step: Count | None = None
    checkpoint: Text | None = None
    num_images: Count = 0
    loss: Number | None = None
    miou: Score | None = None
    macc: Score | None = None
    pacc: Score | None = None
    fwiou: Score | None = None
    iiou: Score | None = None
    iou_per_class: Scores = Field({}, min_length=1)
    acc_per_class: Scores = Field({})
    iiou_per_class: Scores | None = None
    mprecision: Score | None = None
    mdice: Score | None = None
    precision_per_class: Scores | None = None
    dice_per_class: Scores | None = None
    boundary_miou: Score | None = None
    boundary_iou_per_class: Scores | None = None
    boundary_band: Score | None = None
    ece: Score | None = None
    miou_interval: Annotated[list[Score], Field(min_length=2, max_length=2)] | None = None
    confusion_matrix: list[Counts] = Field([], max_length=MOST_CLASSES)
    predicted_void: Counts = Field([])
    iiou_source: Literal["instances", "components"] | None = None
    iou_per_category: Scores | None = None
    iiou_per_category: Scores | None = None
    category_miou: Score | None = None
    category_iiou: Score | None = None
    policy: Policy | None = None
    inference: Inference | None = None
    inputs: dict[Text, Text] = Field({}, max_length=MOST_CLASSES)
    seconds: Seconds | None = None
    images_per_second: Number | None = None
    skipped_steps: Count = 0
    drawn_shares: Scores = Field({})
    params: Count | None = None
    macs: Number | None = None
    flops: Number | None = None
    latency_ms: Number | None = None
    latency_p95_ms: Number | None = None
    memory_bytes: Count | None = None
    train_images_per_second: Number | None = None
    train_memory_bytes: Count | None = None
    errors: Count = 0
    warnings: Count | list[Text] = 0


class ScoredResults(Results):
    """The results of a training, an evaluation, or a scored folder of predictions: complete."""

    @model_validator(mode="after")
    def _check_completeness(self) -> "ScoredResults":
        missing = [key for key in OF_SCORES if key not in self.model_fields_set]
        if missing or self.policy is None:
            raise ValueError(f"it has no {(missing or ['policy'])[0]}")
        names = self.iou_per_class.keys()
        if self.acc_per_class.keys() != names or (self.iiou_per_class or self.iou_per_class).keys() != names:
            raise ValueError("the tables of classes name different classes")
        lengths = {len(names), *map(len, self.confusion_matrix), len(self.predicted_void)}
        if len(self.confusion_matrix) != len(names) or len(lengths) > 1:
            raise ValueError(f"the confusion matrix is not of {len(names)} classes")
        return self


class ShownClass(Part):
    """A class of the label maps in images.json."""

    name: Text
    color: Color


class ShownImage(Part):
    """An image of images.json: JPEG and PNG files in base64."""

    kind: Literal["worst", "best", "example"]
    name: Text
    miou: Score | None
    image: Encoded
    target: Encoded
    prediction: Encoded


class ShownImages(Part):
    """images.json: the images that a report shows, and the classes by train id."""

    file_format: Literal[1] = 1
    classes: Annotated[list[ShownClass], Field(max_length=MOST_CLASSES)]
    images: Annotated[list[ShownImage], Field(max_length=1000)]


class Holder(Part):
    """.lock.json: the process that holds a directory."""

    pid: Annotated[int, Field(gt=0, lt=2**31)]
    host: Text
    started: Text


class LoggerRuns(Part):
    """loggers.json: under which names other programs keep the run."""

    file_format: Literal[1] = 1
    wandb: Text | None = None
    mlflow: Text | None = None
    trackio: Text | None = None
