"""Read a whole split once before it is used: find every fault now, and compute the statistics of the dataset."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from segtrain.data.base import Cached, Dataset, Sample
from segtrain.data.checks import READ, SETTINGS, check
from segtrain.data.image_form import check_image
from segtrain.data.survey import Content, Seen, Split, describe, measure
from segtrain.data.threads import map_in_order
from segtrain.distributed import process_group
from segtrain.errors import UserError
from segtrain.labels import IGNORE_INDEX, Label
from segtrain.metrics.instances import count_instances, label_components, mean_instance_sizes


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

    The first of several processes does so and sends the others what it found; they fill their caches then.

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
    if isinstance(dataset, Cached) and not process_group.is_main():
        for _ in map_in_order(dataset.read, len(dataset.names)):
            pass
    return found or shared


@check(READ, "splits in which every pixel is void")
def _read_all(dataset: Dataset, instances: str | None, may_be_void: bool) -> DatasetStatistics:
    check_instances(dataset.labels, instances)
    class_ids = list_instance_classes(dataset.labels)
    objects: list[np.ndarray] = []

    def read(index: int) -> tuple[Sample, Content]:
        sample = dataset.read(index)
        check_image(sample.image, dataset.form, dataset.locate(index))
        return sample, measure(sample, dataset.form)

    split = Split("", dataset.labels)
    for index, (sample, content) in enumerate(map_in_order(read, len(dataset.names))):
        check_content(content, dataset.labels, dataset.locate(index))
        split.seen.append(describe(dataset, index, content))
        if instances is not None:
            found = find_instances(sample.target, sample.instances, dataset.labels, instances, dataset.locate(index))
            objects.append(count_instances(sample.target, sample.target, found, class_ids))
    if not may_be_void and not any(split.class_pixels):
        raise UserError(describe_all_void(len(dataset.names), dataset.locate(0)))
    class_sizes = None
    if instances is not None:
        means = mean_instance_sizes(np.concatenate(objects))
        class_sizes = {dataset.labels[train_id].name: means.get(train_id) for train_id in class_ids}
    if instances == "maps":
        class_sizes = dataset.class_sizes or class_sizes
    return DatasetStatistics(
        [content.size for content in split.contents], split.class_pixels, split.image_pixels, class_sizes,
        [content.checksum for content in split.contents],
        np.array([[label.train_id in content.pixels for label in dataset.labels] for content in split.contents], bool),
        dataset.remarks(), split.seen)


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
