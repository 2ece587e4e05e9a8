"""The schema of results.json where it holds scores of classes: others may have made the file."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MOST_CLASSES = 255
Text = Annotated[str, Field(max_length=4096)]
Count = Annotated[int, Field(ge=0, le=2**62)]
Number = Annotated[float, Field(allow_inf_nan=False, ge=-1e300, le=1e300)]
Seconds = Annotated[float, Field(allow_inf_nan=False, ge=0, le=1e15)]
Score = Annotated[float, Field(allow_inf_nan=False, ge=0, le=1)]
Scores = dict[Text, Score | None]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class Policy(_Part):
    """What belongs to the definition of the scores."""

    num_classes: Count
    ignore_index: Count
    resolution: Text
    accumulated_over: Text
    absent_class: Text
    class_sizes: dict[Text, Number | None] | None


class Inference(_Part):
    """How images were predicted."""

    window: Annotated[list[Count], Field(min_length=2, max_length=2)] | None = None
    overlap: Number | None = None
    flip: bool = False
    scales: Annotated[list[Number], Field(min_length=1, max_length=16)] | None = None


class ScoredResults(_Part):
    """The results of a training, an evaluation, or a scored folder of predictions."""

    task: Text
    dataset: Text
    split: Text
    epoch: Count | None = None
    step: Count | None = None
    checkpoint: Text | None = None
    num_images: Count
    loss: Number | None
    miou: Score | None
    macc: Score | None
    pacc: Score | None
    fwiou: Score | None
    iiou: Score | None
    iou_per_class: Annotated[Scores, Field(min_length=1, max_length=MOST_CLASSES)]
    acc_per_class: Scores
    iiou_per_class: Scores | None
    mprecision: Score | None = None
    mdice: Score | None = None
    precision_per_class: Scores | None = None
    dice_per_class: Scores | None = None
    boundary_miou: Score | None = None
    boundary_iou_per_class: Scores | None = None
    boundary_band: Score | None = None
    ece: Score | None = None
    miou_interval: Annotated[list[Score], Field(min_length=2, max_length=2)] | None = None
    confusion_matrix: list[list[Count]]
    predicted_void: list[Count]
    iiou_source: Literal["instances", "components"] | None
    iou_per_category: Scores | None = None
    iiou_per_category: Scores | None = None
    category_miou: Score | None = None
    category_iiou: Score | None = None
    policy: Policy
    inference: Inference | None = None
    seconds: Seconds | None
    images_per_second: Number | None
    params: Count | None
    macs: Count | None

    @model_validator(mode="after")
    def _check_sizes(self) -> "ScoredResults":
        names = self.iou_per_class.keys()
        if self.acc_per_class.keys() != names or (self.iiou_per_class or self.iou_per_class).keys() != names:
            raise ValueError("the tables of classes name different classes")
        num_columns = {len(names), *map(len, self.confusion_matrix), len(self.predicted_void)}
        if len(self.confusion_matrix) != len(names) or len(num_columns) > 1:
            raise ValueError(f"the confusion matrix is not of {len(names)} classes")
        return self
