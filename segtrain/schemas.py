"""Check the content of files against schemas of pydantic: others may have made them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from segtrain.errors import UserError
from segtrain.files import read_json

MOST_CLASSES = 255
Text = Annotated[str, StringConstraints(max_length=4096)]
Message = Annotated[str, StringConstraints(max_length=1_000_000)]
FileName = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^/\x00]*$")]
Count = Annotated[int, Field(strict=True, ge=0, le=2**62)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-1e300, le=1e300)]
Seconds = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=1e15)]
Score = Annotated[float, Field(allow_inf_nan=False, ge=0, le=1)]
Byte = Annotated[int, Field(ge=0, le=255)]
Color = Annotated[Sequence[Byte], Field(min_length=3, max_length=3)]  # red, green, blue


class Part(BaseModel):
    """A mapping in a file: its known keys are checked, others are left alone."""

    model_config = ConfigDict(strict=True, extra="allow", arbitrary_types_allowed=True)


def check_content(schema: Any, content: Any, where: object, remedy: str) -> Any:
    """Return what a schema, a model or a type, makes of the content of a file.

    Raises:
        UserError: If it is something else; it names the file, the key, and the remedy.
    """
    try:
        return TypeAdapter(schema).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])[:100]
        if key.endswith("file_format"):
            raise UserError(f"{where} was written by another version of segtrain (file_format={first['input']!s:.20}): "
                            "read it with that version.") from error
        reason = first["msg"].removeprefix("Value error, ")[:300]
        raise UserError(f"{where} is damaged: {key or 'it'} is not what segtrain writes there ({reason}); "
                        f"{remedy}.") from error
    except RecursionError as error:
        raise UserError(f"{where} is damaged: it is nested too deep; {remedy}.") from error


def read_checked(path: Path, schema: Any, remedy: str) -> Any:
    """Return what a schema makes of a JSON file; UserError if it cannot be read, or is something else."""
    return check_content(schema, read_json(path), path, remedy)
