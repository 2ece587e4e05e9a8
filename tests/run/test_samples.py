"""The samples of a split are compared with those of a checkpoint."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from segtrain.labels import Label
from segtrain.run.checkpoint_schema import State
from segtrain.run.samples import digest_split, find_changed_samples, record_names

SAVED = {"names": {"val": ["a", "b", "c"]}, "samples": {"val": [1, 2, 3]}}


def split(*names, **of_class):
    return SimpleNamespace(labels=(Label("leaf", 0, 0, (0, 0, 0), **of_class),), names=list(names),
                           locate=lambda index: str(Path("masks", f"{names[index]}.png")))


@pytest.mark.parametrize(("names", "digests", "said"), [
    ("abc", [1, 2, 3], ""), ("cab", [3, 1, 2], ""), ("abc", [1, 9, 3], "1 changed (masks/b.png)"),
    ("ab", [1, 2], "1 missing (c)"), ("abcde", [1, 2, 3, 4, 5], "2 new (masks/d.png, masks/e.png)"),
    (["a", "b", "\udcff"], [1, 2, 3], "1 missing (c), 1 new (masks/\udcff.png)"),
    ("xb", [1, 5], "1 changed (masks/b.png), 2 missing (a, c), 1 new (masks/x.png)"), ("acb", None, "")])
def test_what_differs_is_counted_and_named(names, digests, said):
    found = find_changed_samples(SAVED, "val", split(*names), digests)
    assert (str(found), bool(found)) == (said, said != "")


def test_a_split_that_was_not_recorded_has_no_changes():
    assert not find_changed_samples(SAVED, "test", split("a"), [1])
    assert not find_changed_samples({}, "val", split("a"), [1])


def test_names_of_any_bytes_can_be_recorded():
    assert record_names(split("größe", "a\udcff")) == ["größe", "a\\xff"]


def test_one_digest_tells_names_and_content():
    given = [(split("a", "b"), [1, 2]), (split("b", "a"), [1, 2]), (split("a", "b"), [2, 1]), (split("a"), [1]),
             (split("a", "b", has_instances=True), [1, 2])]
    assert len({digest_split(*one) for one in given}) == len(given)


def test_names_without_samples_are_damage():
    with pytest.raises(ValidationError, match="not of the same samples"):
        State.model_validate({
            **dict.fromkeys(("optimizer", "scheduler", "scaler", "ema", "rng", "progress", "class_sizes",
                             "class_pixels", "image_pixels")), "model": {}, "epoch": 0, "step": 0, "config": {},
            "format": "", "file_form": {"label_ids": False, "palette": None},
            "labels": [{"name": "a", "label_id": 0, "train_id": 0, "color": [0, 0, 0]}], **SAVED,
            "names": {"val": ["a"]}})
