"""Folds and lists that share samples out over train and val, whatever the dataset."""

import numpy as np
from helpers import TINY, composed, refused

from segtrain.config import build
from segtrain.data import folds

FRAMES = [f"{video}_{number}" for video, length in (("a", 6), ("b", 10), ("c", 24)) for number in range(length)]
VIDEO = "(.+)_[0-9]+"


def sizes(found):
    return np.bincount(found).tolist()


def test_random_folds_are_decided_by_names_and_seed():
    found = dict(zip(FRAMES, folds.assign_folds(FRAMES, 5, by="random", group=None, seed=0), strict=True))
    assert sizes(list(found.values())) == [8] * 5
    turned = FRAMES[::-1]
    assert dict(zip(turned, folds.assign_folds(turned, 5, by="random", group=None, seed=0), strict=True)) == found
    assert folds.assign_folds(FRAMES, 5, by="random", group=None, seed=1) != list(found.values())


def test_a_group_is_in_one_fold_and_no_fold_is_empty():
    for by in ("random", "sequence", "stratified"):
        counts = np.ones((40, 2), np.int64) if by == "stratified" else None
        found = folds.assign_folds(FRAMES, 3, by=by, group=VIDEO, seed=0, counts=counts)
        assert sorted(sizes(found)) == [6, 10, 24]
        assert len({(name[0], fold) for name, fold in zip(FRAMES, found, strict=True)}) == 3
    with refused("dataset.folds.k=4 needs 4 groups of images at least, but all 40 are in 3", "dataset.folds.group"):
        folds.assign_folds(FRAMES, 4, by="random", group=VIDEO, seed=0)
    with refused("dataset.folds.group=(x) is not found in the name a_0"):
        folds.assign_folds(FRAMES, 2, by="random", group="(x)", seed=0)


def test_a_sequence_is_cut_into_stretches_in_the_order_of_the_numbers():
    names = [f"f{number}" for number in (10, 9, 1, 2, 11, 3)]
    assert folds.assign_folds(names, 3, by="sequence", group=None, seed=0) == [2, 1, 0, 0, 2, 1]


def test_stratified_folds_spread_each_class_evenly():
    rng = np.random.default_rng(0)
    names = [str(number) for number in range(60)]
    counts = rng.integers(500, 1000, (60, 3))
    counts[:, 2] = 0
    counts[:5, 2], counts[5:10, 2] = 100, 10  # by chance alone, a fold would be without
    found = np.array(folds.assign_folds(names, 5, by="stratified", group=None, seed=0, counts=counts))
    shares = np.stack([counts[found == fold].sum(0) for fold in range(5)]) / counts.sum(0)
    assert shares[:, 2].tolist() == [0.2] * 5
    assert np.abs(shares - 0.2).max() < 0.03
    assert sizes(found) == [12] * 5


def test_folds_of_a_dataset_are_disjoint_and_leave_its_own_val_alone():
    given = (*TINY, "dataset.num_train=8", "dataset.folds.k=3", "dataset.folds.by=stratified")
    whole = build.dataset(composed(*given), "train")
    seen = []
    for fold in range(3):
        cfg = composed(*given, f"dataset.fold={fold}")
        train, val = build.dataset(cfg, "train"), build.dataset(cfg, "val")
        assert not {*train.names} & {*val.names}
        assert {*train.names, *val.names} == {*whole.names}
        place = whole.names.index(val.names[0])
        assert np.array_equal(val.read(0).image, whole.read(place).image)
        assert any("without dataset.folds.group" in remark for remark in val.remarks())
        seen += val.names
    assert sorted(seen) == sorted(whole.names)
    with refused("dataset.fold=3: with dataset.folds.k=3 the folds are 0..2", "dataset.fold"):
        build.dataset(composed(*given, "dataset.fold=3"), "val")
    with refused("dataset.folds.k=9 needs 9 groups", "dataset.folds.k"):
        build.dataset(composed(*given, "dataset.folds.k=9", "dataset.fold=3"), "val")


def test_lists_say_what_is_in_train_and_val(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = (*TINY, "dataset.num_train=3", "dataset.num_val=2", "dataset.folds.of=[train,val]")
    train, val = (build.dataset(composed(*TINY, "dataset.num_train=3", "dataset.num_val=2"), split).names
                  for split in ("train", "val"))
    (tmp_path / "1_train.txt").write_text(f"{val[1]}\n{train[0]}\n")
    (tmp_path / "1_val.txt").write_text(f"{train[2]}\n")
    lists = (*given, "dataset.folds.lists='{fold}_{split}.txt'")
    assert build.dataset(composed(*lists, "dataset.fold=1"), "train").names == [train[0], val[1]]
    assert build.dataset(composed(*lists, "dataset.fold=1"), "val").names == [train[2]]
    only_val = composed(*given, "dataset.folds.lists=1_val.txt")
    assert build.dataset(only_val, "val").names == [train[2]]
    assert build.dataset(only_val, "train").names == [*train[:2], *val]
    for more, said in ((("dataset.fold=0",), "0_train.txt"), ((), "write {fold}"),
                       (("dataset.fold=1", "dataset.folds.of=[train]"), "check dataset.folds.of")):
        with refused(said, "dataset.folds"):
            build.dataset(composed(*lists, *more), "train")
    (tmp_path / "all.txt").write_text("\n".join([*train, *val]))
    with refused("all.txt lists every image", "dataset.folds.lists"):
        build.dataset(composed(*given, "dataset.folds.lists=all.txt"), "train")


def test_keys_reach_the_folds():
    given = (*TINY, "dataset.num_train=12")

    def val_names(*more):
        return build.dataset(composed(*given, "dataset.fold=0", *more), "val").names

    assert val_names("dataset.folds.seed=1") != val_names()
    assert len(val_names("dataset.folds.group='([0-9])[0-9]$'", "dataset.folds.k=2")) in (2, 10)
