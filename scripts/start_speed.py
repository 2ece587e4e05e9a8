"""Time the check of the data that precedes a training, the first time and again with what is kept on the disk.

The data are made up: small images, of which decoding takes little, so that what remains is seen.

    python scripts/start_speed.py                          # 5,000 images with masks, 5,000 with annotations of COCO
    python scripts/start_speed.py --images 100000 --annotations-only    # memory of many annotations
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
from PIL import Image

SIZE = (64, 48)  # width, height


def make_data(root: Path, num_images: int) -> None:
    """Write images, masks, a class file, and an annotation file with three polygons an image."""
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / "train" / kind).mkdir(parents=True)
    annotations: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    for number in range(num_images):
        name = f"{number:012}.png"
        Image.fromarray(rng.integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)).save(root / "train" / "images" / name)
        mask = np.zeros((SIZE[1], SIZE[0]), np.uint8)
        mask[number % 40:, :] = 1
        Image.fromarray(mask).save(root / "train" / "masks" / name)
        images.append({"id": number, "file_name": name, "width": SIZE[0], "height": SIZE[1]})
        for part in range(3):
            left, top = rng.uniform(0, 40, 2).round(2).tolist()
            ring = [left, top, left + 20, top, left + 20, top + 8, left, top + 8 + part]
            annotations.append({"id": len(annotations), "image_id": number, "category_id": 1, "iscrowd": 0,
                                "segmentation": [ring]})
    (root / "classes.csv").write_text("name\na\nb\n")
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_train.json").write_text(json.dumps(
        {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}))


def time_start(*overrides: str) -> tuple[float, float]:
    """Return the seconds until a split is open, and until it is checked."""
    from segtrain.config import build
    from segtrain.config.compose import compose_config
    from segtrain.data.statistics import compute_statistics

    cfg = compose_config(list(overrides))
    started = time.perf_counter()
    data = build.dataset(cfg, "train")
    opened = time.perf_counter() - started
    compute_statistics(data, cfg.dataset.instances)
    return opened, time.perf_counter() - started


def main() -> None:
    """Print the times and the memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--annotations-only", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        os.environ["XDG_CACHE_HOME"] = f"{name}/cache"
        root = Path(name) / "data"
        make_data(root, arguments.images)
        time.sleep(3)  # files that were just written are not trusted
        kinds = ["coco"] if arguments.annotations_only else ["folder", "coco"]
        for kind in kinds:
            where = [f"dataset={kind}", f"dataset.root={root}"]
            where += ["dataset.images=train/images"] if kind == "coco" else []
            for which in ("first", "second"):
                opened, total = time_start(*where)
                memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                print(f"{kind}, {arguments.images} images, {which} time: open {opened:.2f} s, checked {total:.2f} s; "
                      f"memory {memory:.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
