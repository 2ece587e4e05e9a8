"""Compare the CPU time that annotations of COCO take to become cached label maps with that of pycocotools.

The polygons are made up.

    python scripts/format_speed.py                      # needs pip install pycocotools
    python scripts/format_speed.py --images 5000 --alone    # memory and second start, as large as COCO's val2017
"""

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, HEIGHT, PER_IMAGE = 640, 480, 7.2  # COCO's val2017 has 36,000 annotations in 5,000 images


def make_annotations(folder: Path, num_images: int) -> Path:
    """Write images (empty files) and their annotations: blobs of the sizes and the number of points of COCO's."""
    rng = np.random.default_rng(0)
    (folder / "val").mkdir(parents=True)
    (folder / "annotations").mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(num_images):
        (folder / "val" / f"{number:012}.jpg").touch()
        images.append({"id": number, "file_name": f"{number:012}.jpg", "width": WIDTH, "height": HEIGHT})
        for _ in range(rng.poisson(PER_IMAGE)):
            angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(10, 90)))
            radii = rng.lognormal(3.5, 0.9) * (1 + 0.15 * np.sin(3 * angles) + 0.05 * rng.standard_normal(len(angles)))
            around = radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
            ring = np.round(np.clip(rng.uniform(0, 1, 2) * (WIDTH, HEIGHT) + around, 0, (WIDTH, HEIGHT)), 2)
            annotations.append({"id": len(annotations), "image_id": number, "category_id": int(rng.integers(1, 81)),
                                "segmentation": [ring.ravel().tolist()], "iscrowd": 0})
    path = folder / "annotations" / "instances_val.json"
    categories = [{"id": number, "name": f"class {number}"} for number in range(1, 81)]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def time_pycocotools(path: Path) -> float:
    """Return the CPU seconds of reading the file and of annToMask alone, without putting masks together."""
    from pycocotools.coco import COCO

    started = time.process_time()
    coco = COCO(str(path))
    for annotation in coco.anns.values():
        coco.annToMask(annotation)
    return time.process_time() - started


def time_segtrain(folder: Path) -> tuple[float, float]:
    """Return the CPU seconds until the data set is open, and of all its label maps."""
    from segtrain.data.formats.coco import Coco

    started = time.process_time()
    data = Coco("val", root=str(folder), with_instances=False)
    opened = time.process_time() - started
    for index in range(len(data.names)):
        data.read_target(index)
    return opened, time.process_time() - started


def main() -> None:
    """Print the times, their ratio, and the memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--alone", action="store_true", help="leave pycocotools out")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        os.environ["XDG_CACHE_HOME"] = f"{name}/cache"
        path = make_annotations(Path(name) / "data", arguments.images)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        opened, first = time_segtrain(path.parents[1])
        reopened, second = time_segtrain(path.parents[1])
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{arguments.images} images, {path.stat().st_size / 1e6:.1f} MB of annotations")
        print(f"segtrain: open {opened:.2f} s, drawn and cached {first:.2f} s; again: open {reopened:.2f} s, all "
              f"{second:.2f} s; memory {memory:.0f} MiB, {before:.0f} before")
        if not arguments.alone:
            other = time_pycocotools(path)
            print(f"pycocotools: {other:.2f} s; ratio {first / other:.2f}")


if __name__ == "__main__":
    main()
