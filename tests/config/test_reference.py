"""The pages and the help that show the schema's keys are current."""

import pytest

from segtrain.config import reference


@pytest.mark.parametrize("path", reference.updated(), ids=lambda path: path.name)
def test_what_shows_keys_is_current(path):
    assert path.read_text() == reference.updated()[path], "run python -m segtrain.config.reference"
