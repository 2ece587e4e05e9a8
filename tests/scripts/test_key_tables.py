"""scripts/key_tables.py: the page and the help that show the schema's keys are current."""

import importlib

from helpers import ROOT


def test_what_shows_keys_is_current(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    for path, text in importlib.import_module("key_tables").updated().items():
        assert path.read_text() == text, "run python scripts/key_tables.py"
