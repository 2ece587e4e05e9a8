"""Read a whole split once before it is used: find every fault now, and compute the statistics of the dataset."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from tqdm import tqdm

from segtrain.data.base import Cached, Dataset, Sample
from segtrain.data.checks import READ, SETTINGS, check
from segtrain.data.image_form import check_image
from segtrain.data.survey import Content, Seen, Split, describe, measure
from segtrain.data.survey_cache import Entry, SurveyCache, make_entry
from segtrain.data.threads import map_in_order
from segtrain.distributed import process_group
from segtrain.errors import UserError
from segtrain.labels import IGNORE_INDEX, Label
from segtrain.metrics.instances import count_instances, label_components


@dataclass(frozen=True)
class DatasetStatistics:
    """The statistics of a split."""

    sizes: list[tuple[int, int]]  # (height, width) of every image
    class_pixels: list[int]  # the pixels of each class
    image_pixels: list[int]  # for each class, the labelled pixels of the images that show it
    # Mean pixels of an object by class name, for the classes that have instances, None for one that never occurs; None
    # where instances are not counted. A dataset with instance maps may fix them.
    class_sizes: dict[str, float | None] | None
    digests: list[int]  # of the decoded content of each sample, by which a changed one is noticed
    shown: np.ndarray  # whether each sample shows each class, bool (N, K)
    remarks: list[str] = field(default_factory=list)  # what the dataset has to tell the user
    seen: list[Seen] = field(default_factory=list)  # what is to be checked; in the first process only


def compute_statistics(dataset: Dataset, instances: str | None, *, may_be_void: bool = False) -> DatasetStatistics:
    """Read every sample of a split, on all cores, and check it.

    What has not changed since it was read is not read again, but taken from a cache on the disk. The first of several
    processes does so and sends the others what it found.

    Args:
        dataset: The split.
        instances: Where objects come from: "maps", "components" or None.
        may_be_void: Whether a split is accepted in which no pixel has a class.

    Raises:
        UserError: In the first process. It names the first file at fault, or says that no pixel has a class.
    """
    found = _read_all(dataset, instances, may_be_void) if process_group.is_main() else None
    shared = process_group.broadcast(replace(found, seen=[]) if found else None)
    assert shared is not None, "the first process gives it"
    return found or shared


def fill_memory(dataset: Dataset) -> None:
    """Read what a dataset keeps in memory and has not read, for workers that are forked later to share it."""
    if isinstance(dataset, Cached):
        for _ in map_in_order(dataset.read, len(dataset.names)):
            pass


@check(READ, "splits in which every pixel is void")
def _read_all(dataset: Dataset, instances: str | None, may_be_void: bool) -> DatasetStatistics:
    check_instances(dataset.labels, instances)
    class_ids = list_instance_classes(dataset.labels)
    kept = SurveyCache(dataset, instances)
    entries, remarks = kept.find(), kept.remarks
    if len(entries) < len(dataset.names) and remarks != dataset.remarks():
        entries = {}  # remarks come of reading, and are of all samples
    missing = [index for index in range(len(dataset.names)) if index not in entries]

    def read(place: int) -> tuple[Sample, Content]:
        index = missing[place]
        sample = dataset.read(index)
        check_image(sample.image, dataset.form, dataset.locate(index))
        return sample, measure(sample, dataset.form)

    fresh: dict[int, Entry] = {}
    images = tqdm(map_in_order(read, len(missing)), desc="reading", total=len(missing), unit="image", leave=False,
                  disable=None)
    for index, (sample, content) in zip(missing, images, strict=True):
        check_content(content, dataset.labels, dataset.locate(index))
        objects: list[tuple[int, int, int]] = []
        if instances is not None:
            found = find_instances(sample.target, sample.instances, dataset.labels, instances, dataset.locate(index))
            counts = count_instances(sample.target, sample.target, found, class_ids)
            objects = [(class_id, int(own.sum()), len(own)) for class_id in class_ids
                       if len(own := counts[counts[:, 0] == class_id, 1])]
        fresh[index] = make_entry(kept.list_files(index), dataset.orientation(index), content, objects)
    if missing or remarks is None:
        remarks = dataset.remarks()
    kept.save(fresh, remarks)
    entries |= fresh
    split = Split("", dataset.labels)
    for index in range(len(dataset.names)):
        split.seen.append(describe(dataset, index, entries[index].content, entries[index].orientation))
    if not may_be_void and not any(split.class_pixels):
        raise UserError(describe_all_void(len(dataset.names), dataset.locate(0)))
    class_sizes = None
    if instances is not None:
        class_sizes = {dataset.labels[train_id].name: _mean_size(entries.values(), train_id) for train_id in class_ids}
    if instances == "maps":
        class_sizes = dataset.class_sizes or class_sizes
    return DatasetStatistics(
        [content.size for content in split.contents], split.class_pixels, split.image_pixels, class_sizes,
        [content.checksum for content in split.contents],
        np.array([[label.train_id in content.pixels for label in dataset.labels] for content in split.contents], bool),
        remarks, split.seen)


def _mean_size(entries: Iterable[Entry], train_id: int) -> float | None:
    """Return the mean pixels of an object of a class; None where there is none."""
    found = [(pixels, number) for entry in entries for own, pixels, number in entry.objects if own == train_id]
    return sum(pixels for pixels, _ in found) / sum(number for _, number in found) if found else None


@check(READ, "images below 32x32 pixels")
def check_content(content: Content, labels: tuple[Label, ...], file: str) -> None:
    """Check the size and the train ids of a sample."""
    height, width = content.size
    if min(height, width) < 32:
        raise UserError(f"{file} is {width}x{height}: images need at least 32x32 pixels, enlarge or remove it.")
    check_counts(content.pixels, labels, file)


@check(READ, "train ids beyond the classes")
def check_counts(pixels: Mapping[int, int], labels: tuple[Label, ...], file: str) -> None:
    """Raise UserError if a target, given the pixels of each value, holds one that is not a train id."""
    for train_id, count in pixels.items():
        if len(labels) <= train_id < IGNORE_INDEX:
            raise UserError(f"the target of {file} holds the train id {train_id} ({count} pixels): "
                            f"a dataset gives 0..{len(labels) - 1} or 255.")


@check(SETTINGS, "dataset.instances where no class has instances")
def check_instances(labels: tuple[Label, ...], instances: str | None) -> None:
    """Raise UserError if instances are asked for and no class has any."""
    if instances is not None and not list_instance_classes(labels):
        raise UserError(f"dataset.instances={instances}: no class of this dataset has_instances; mark those that have "
                        "in the class file, or set dataset.instances=null.")


def describe_all_void(num_images: int, first: str) -> str:
    """Say that a split has nothing to learn from."""
    return (f"no pixel of the {num_images} images has a class, the first is {first}: "
            "every target is void, there is nothing to learn or to score.")


def describe_one_class(name: str, first: str) -> str:
    """Say that the training split has nothing to tell apart."""
    return (f"every labelled pixel of train is {name}, the first mask is {first}: there is nothing to tell apart; look "
            "how the masks are saved, and what is void.")


def list_instance_classes(labels: tuple[Label, ...]) -> list[int]:
    """Return the train ids of the classes whose objects can be counted."""
    return [label.train_id for label in labels if label.has_instances]


@check(READ, "missing instance maps with dataset.instances=maps")
def find_instances(target: np.ndarray, own: np.ndarray | None, labels: tuple[Label, ...], instances: str,
                   file: str) -> np.ndarray:
    """Return a target's instance map, int32 (H, W), from where dataset.instances says; `own` is the dataset's."""
    if instances == "components":
        return label_components(target, list_instance_classes(labels))
    if own is None:
        raise UserError(f"dataset.instances=maps, but {file} has no instance map: "
                        "use dataset.instances=components or null.")
    return own
