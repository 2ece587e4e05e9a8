"""The schemas of the JSON files in the directory of a sweep."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from segtrain.run.file_schemas import Results
from segtrain.schemas import FileName, Message, Part, Text

MOST_JOBS = 100_000


def _refuse_dots(name: str) -> str:
    if name in (".", ".."):
        raise ValueError("it is not the name of a folder")
    return name


Folder = Annotated[FileName, AfterValidator(_refuse_dots)]


class Row(Results):
    """A job in leaderboard.json; its figures are those of its results.json."""

    job: Folder
    status: Literal["done", "failed"]
    settings: Annotated[dict[Text, Message], Field(max_length=10_000)]
    table: Annotated[int, Field(gt=0, le=MOST_JOBS)] | None = None
    sort: Text | None = None
    overrides: Message
    error: Message | None = None

    @model_validator(mode="before")
    @classmethod
    def _leave_out_nulls(cls, row: Any) -> Any:
        """Leave out figures that are null: those of a failed job are."""
        return {key: value for key, value in row.items() if value is not None} if isinstance(row, dict) else row

    @model_validator(mode="after")
    def _check_table(self) -> "Row":
        if not self.task:
            raise ValueError("it has no task")
        if (self.table is None) == (self.status == "done"):
            raise ValueError("a job has a table if it is done")
        return self


class Ended(Part):
    """How a job ended, noted by the process that ran it for a launcher."""

    job: Text
    error: Message | None
    is_bug: bool


Rows = Annotated[list[Row], Field(max_length=MOST_JOBS)]
Journal = Annotated[list[Ended], Field(max_length=MOST_JOBS)]
