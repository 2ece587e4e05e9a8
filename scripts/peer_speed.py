"""Compare segtrain's default command with what users would write or pick instead: training and evaluation on CamVid.

    python scripts/peer_speed.py --data /data/CamVid --peers peers/bin/python --rounds 3

The peers need an environment of their own:

    python -m venv peers
    peers/bin/pip install torch torchvision segmentation-models-pytorch torchmetrics albumentations ultralytics

Every contender is a process of its own; they take turns, a round each, and only the second of two epochs counts,
loading included. All train on the same first images of the split, at the same batch size and crop:
  segtrain      `segtrain dataset=camvid`, all else by default
  smp           LinkNet as the CamVid example of segmentation_models_pytorch trains it: its augmentation, Dice loss,
                Adam, and its counts of every step; float32
  torchvision   the same network in a loop as torchvision's segmentation reference describes it: PIL images, resizing,
                flip and crop, SGD with polynomial decay, cross-entropy, the loss read in every step
  ultralytics   its semantic trainer, whose smallest network is another one: no like for like
and evaluate LinkNet on the whole val split at its own size:
  segtrain evaluate   `segtrain task=evaluate`, all else by default
  torchmetrics        a plain loop of float32 batches with torchmetrics' IoU of the same network
and time the latency of one image of 480x360, LinkNet, label map included:
  segtrain load       segtrain.load(...).predict(image)
  naive call          network(image).argmax(1) in evaluation mode
A call adds its rounds to the JSON file, so that they may be run apart; the table shows medians over all rounds.
"""

# mypy: ignore-errors
import argparse
import csv
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

CLASSES, VOID = 11, 11
EPOCHS = 2  # the second counts
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="CamVid's folder: train/ trainannot/ val/ valannot/")
    parser.add_argument("--peers", type=Path, default=Path(sys.executable), help="the interpreter of the peers")
    parser.add_argument("--output", type=Path, default=Path("peer_speed.json"), help="results, rounds are added")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=48, help="of an epoch; evaluation takes the whole val split")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, nargs=2, default=(320, 480), help="height and width")
    parser.add_argument("--only", nargs="+", choices=[*CONTENDERS], default=[*CONTENDERS])
    parser.add_argument("--run", choices=[*PEERS], help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.data = options.data.resolve()
    if options.run:
        print(json.dumps({"figure": PEERS[options.run](options), "torch": __import__("torch").__version__}))
        return
    rows = json.loads(options.output.read_text()) if options.output.exists() else []
    for _ in range(options.rounds):
        for name in options.only:
            figure = CONTENDERS[name](options)
            rows.append({"contender": name, "figure": figure, "batch": options.batch, "crop": list(options.crop),
                         "images": options.images, "machine": machine(), "cores": os.cpu_count(), "at": time.time()})
            options.output.write_text(json.dumps(rows, indent=1) + "\n")
            print(f"{name:<18}{figure:8.3f}", flush=True)
    print(markdown(rows))


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return the table of medians; each group's ratio is that of its first contender to the row's."""
    lines = ["| contender | rounds | median | lowest | highest | segtrain is faster by |", "|---|---|---|---|---|---|"]
    for unit, names in GROUPS.items():
        figures = {name: [row["figure"] for row in rows if row["contender"] == name] for name in names}
        for name, values in figures.items():
            if values:
                median, own = statistics.median(values), figures[names[0]]
                ratio = statistics.median(own) / median if own else float("nan")
                ratio = 1 / ratio if unit == "ms" else ratio
                cells = f"{median:.2f} | {min(values):.2f} | {max(values):.2f} | {ratio:.2f}"
                lines.append(f"| {name}, {unit} | {len(values)} | {cells} |")
    return "\n".join(lines)


def machine() -> str:
    """Return the name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and "model name" in (text := cpuinfo.read_text()):
        return text.split("model name")[1].partition(":")[2].splitlines()[0].strip()
    return platform.processor() or platform.machine()


# ---- segtrain: its command, as users run it


def train_segtrain(options: argparse.Namespace) -> float:
    """Start a long training, let it choose its settings, and stop it after the epochs that count."""
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        process = subprocess.Popen(
            [sys.executable, "-m", "segtrain", "dataset=camvid", f"dataset.root={options.data}",
             f"train.batch_size={options.batch}", f"dataset.crop=[{options.crop[0]},{options.crop[1]}]",
             f"train.num_images={options.images}", "train.epochs=800", "train.val_every=800",
             f"hydra.run.dir={run_dir}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        rows: list[dict[str, str]] = []
        while len(rows) < EPOCHS and process.poll() is None:
            time.sleep(0.2)
            path = run_dir / "metrics.csv"
            rows = list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []
        process.send_signal(signal.SIGTERM)
        said = process.communicate()[0]
        if len(rows) < EPOCHS:
            sys.exit(f"segtrain ended early:\n{said}")
        for line in said.splitlines():
            if line.startswith("trial"):
                print(f"  {line}")
        return float(rows[EPOCHS - 1]["train/images_per_second"])


def make_checkpoint(folder: Path) -> Path:
    """Train LinkNet for one step on street scenes, which have CamVid's classes; return the run directory."""
    run_dir = folder / "trained"
    subprocess.run([sys.executable, "-m", "segtrain", "dataset.num_train=2", "dataset.num_val=1", "dataset.height=64",
                    "dataset.width=64", "dataset.crop=[64,64]", "train.batch_size=2", "train.max_steps=1",
                    "train.report=false", "train.examples=0", f"hydra.run.dir={run_dir}"], check=True,
                   capture_output=True)
    return run_dir


def evaluate_segtrain(options: argparse.Namespace) -> float:
    """Return images per second of task=evaluate, from its own results: without start-up, all scores included."""
    with tempfile.TemporaryDirectory() as folder:
        trained, scored = make_checkpoint(Path(folder)), Path(folder) / "scored"
        subprocess.run([sys.executable, "-m", "segtrain", "task=evaluate", f"checkpoint={trained}", "dataset=camvid",
                        f"dataset.root={options.data}", "dataset.instances=null", "task.worst=0",
                        f"train.batch_size={options.batch}", f"hydra.run.dir={scored}"], check=True,
                       capture_output=True)
        return json.loads((scored / "results.json").read_text())["images_per_second"]


def call_segtrain(options: argparse.Namespace) -> float:
    """Return the milliseconds of a prediction through the Python interface."""
    code = """
import json, sys, time, numpy as np, segtrain
model = segtrain.load(sys.argv[1])
image = np.random.default_rng(0).integers(0, 256, (360, 480, 3), dtype=np.uint8)
seconds = []
for _ in range(12):
    started = time.perf_counter()
    model.predict(image)
    seconds.append(time.perf_counter() - started)
print(1000 * sorted(seconds[2:])[5])
"""
    with tempfile.TemporaryDirectory() as folder:
        trained = make_checkpoint(Path(folder))
        done = subprocess.run([sys.executable, "-c", code, str(trained)], check=True, capture_output=True, text=True)
        return float(done.stdout.split()[-1])


# ---- peers, each in a process of the peers' environment


def in_peers_environment(name: str) -> Callable[[argparse.Namespace], float]:
    """Return a function that runs a peer in its own process, and returns its figure."""

    def run(options: argparse.Namespace) -> float:
        done = subprocess.run(
            [str(options.peers), __file__, "--run", name, "--data", str(options.data), "--images", str(options.images),
             "--batch", str(options.batch), "--crop", *map(str, options.crop)], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{name} fails:\n{done.stderr[-2000:]}")
        return json.loads(done.stdout.splitlines()[-1])["figure"]

    return run


def list_pairs(data: Path, split: str) -> list[tuple[Path, Path]]:
    """Return the paths of images and masks."""
    return [(path, data / f"{split}annot" / path.name) for path in sorted((data / split).glob("*.png"))]


def time_last_epoch(epoch: Callable[[], Iterator[int]]) -> float:
    """Run the epochs, which yield the images of each step, and return images per second of the last."""
    for _ in range(EPOCHS):
        started = time.perf_counter()
        images = sum(epoch())
        speed = images / (time.perf_counter() - started)
    return speed


def train_smp(options: argparse.Namespace) -> float:
    """Train LinkNet as the library's CamVid example does, on this split and crop."""
    import albumentations as A
    import numpy as np
    import segmentation_models_pytorch as smp
    import torch
    from PIL import Image

    height, width = options.crop
    augment = A.Compose([
        A.HorizontalFlip(p=0.5), A.ShiftScaleRotate(scale_limit=0.5, rotate_limit=0, shift_limit=0.1, p=1),
        A.PadIfNeeded(min_height=height, min_width=width), A.RandomCrop(height, width), A.GaussNoise(p=0.2),
        A.Perspective(p=0.5), A.OneOf([A.CLAHE(p=1), A.RandomBrightnessContrast(p=1), A.RandomGamma(p=1)], p=0.9),
        A.OneOf([A.Sharpen(p=1), A.Blur(blur_limit=3, p=1), A.MotionBlur(blur_limit=3, p=1)], p=0.9),
        A.OneOf([A.RandomBrightnessContrast(p=1), A.HueSaturationValue(p=1)], p=0.9)])

    class CamVid(torch.utils.data.Dataset):
        pairs = list_pairs(options.data, "train")[:options.images]

        def __len__(self) -> int:
            return len(self.pairs)

        def __getitem__(self, index: int) -> tuple[Any, Any]:
            image, mask = (np.array(Image.open(path)) for path in self.pairs[index])
            mask[mask == VOID] = 255
            done = augment(image=image[..., :3], mask=mask)
            scaled = (done["image"] / 255.0 - MEAN) / STD
            return scaled.transpose(2, 0, 1).astype("float32"), done["mask"].astype("int64")

    loader = torch.utils.data.DataLoader(CamVid(), batch_size=options.batch, shuffle=True, drop_last=True,
                                         num_workers=min(4, os.cpu_count() or 1), persistent_workers=True)
    model = smp.Linknet("resnet18", encoder_weights=None, classes=CLASSES)
    loss_fn = smp.losses.DiceLoss("multiclass", from_logits=True, ignore_index=255)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-4)
    model.train()

    def epoch() -> Iterator[int]:
        for images, masks in loader:
            optimizer.zero_grad()
            logits = model(images)
            loss = loss_fn(logits, masks)
            loss.backward()
            optimizer.step()
            preds = logits.softmax(1).argmax(1)
            smp.metrics.get_stats(preds, masks.clamp(max=CLASSES - 1), mode="multiclass", num_classes=CLASSES)
            loss.item()
            yield len(images)

    return time_last_epoch(epoch)


def train_torchvision(options: argparse.Namespace) -> float:
    """Train the same network in a loop as that of torchvision's segmentation reference."""
    import random

    import numpy as np
    import segmentation_models_pytorch as smp
    import torch
    from PIL import Image
    from torchvision.transforms import functional as T

    height, width = options.crop

    class CamVid(torch.utils.data.Dataset):
        pairs = list_pairs(options.data, "train")[:options.images]

        def __len__(self) -> int:
            return len(self.pairs)

        def __getitem__(self, index: int) -> tuple[Any, Any]:
            image, mask = (Image.open(path) for path in self.pairs[index])
            image, size = image.convert("RGB"), random.randint(height, 2 * height)
            image, mask = T.resize(image, size), T.resize(mask, size, T.InterpolationMode.NEAREST)
            if random.random() < 0.5:
                image, mask = T.hflip(image), T.hflip(mask)
            padding = [0, 0, max(0, width - image.width), max(0, height - image.height)]
            image, mask = T.pad(image, padding), T.pad(mask, padding, VOID)
            top, left = random.randint(0, image.height - height), random.randint(0, image.width - width)
            image, mask = T.crop(image, top, left, height, width), T.crop(mask, top, left, height, width)
            target = torch.from_numpy(np.array(mask)).long()
            target[target == VOID] = 255
            return T.normalize(T.to_tensor(image), MEAN, STD), target

    loader = torch.utils.data.DataLoader(CamVid(), batch_size=options.batch, shuffle=True, drop_last=True,
                                         num_workers=os.cpu_count() or 1, persistent_workers=True)
    model = smp.Linknet("resnet18", encoder_weights=None, classes=CLASSES)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=1000, power=0.9)
    model.train()

    def epoch() -> Iterator[int]:
        for images, targets in loader:
            loss = torch.nn.functional.cross_entropy(model(images), targets, ignore_index=255)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            loss.item()
            yield len(images)

    return time_last_epoch(epoch)


def train_ultralytics(options: argparse.Namespace) -> float:
    """Train the smallest semantic network of Ultralytics, with its own augmentation."""
    import numpy as np
    import torch
    from PIL import Image
    from ultralytics import YOLO

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for kind in ("images", "masks"):
            (root / kind / "train").mkdir(parents=True)
        for image, mask in list_pairs(options.data, "train")[:options.images]:
            (root / "images" / "train" / image.name).symlink_to(image)
            values = np.array(Image.open(mask))
            values = np.where(values == VOID, 255, values).astype("uint8")
            Image.fromarray(values).save(root / "masks" / "train" / mask.name)
        names = "\n".join(f"  {number}: class{number}" for number in range(CLASSES))
        (root / "data.yaml").write_text(f"path: {root}\ntrain: images/train\nval: images/train\nmasks_dir: masks\n"
                                        f"names:\n{names}\n")
        times: list[float] = []
        model = YOLO("yolo26n-sem.yaml")
        model.add_callback("on_train_epoch_start", lambda trainer: times.append(time.perf_counter()))
        model.add_callback("on_train_epoch_end", lambda trainer: times.append(time.perf_counter()))
        torch.set_num_threads(os.cpu_count() or 1)
        model.train(data=str(root / "data.yaml"), epochs=EPOCHS, imgsz=max(options.crop), batch=options.batch,
                    device="cpu", workers=os.cpu_count() or 1, val=False, plots=False, project=folder, verbose=False)
        return options.images / (times[-1] - times[-2])


def evaluate_torchmetrics(options: argparse.Namespace) -> float:
    """Evaluate LinkNet on the whole val split in a plain loop."""
    import numpy as np
    import segmentation_models_pytorch as smp
    import torch
    from PIL import Image
    from torchmetrics.classification import MulticlassJaccardIndex

    class CamVid(torch.utils.data.Dataset):
        pairs = list_pairs(options.data, "val")

        def __len__(self) -> int:
            return len(self.pairs)

        def __getitem__(self, index: int) -> tuple[Any, Any]:
            image, mask = (np.array(Image.open(path)) for path in self.pairs[index])
            scaled = ((image[..., :3] / 255.0 - MEAN) / STD).transpose(2, 0, 1).astype("float32")
            return scaled, mask.astype("int64")

    loader = torch.utils.data.DataLoader(CamVid(), batch_size=options.batch, num_workers=os.cpu_count() or 1)
    model = smp.Linknet("resnet18", encoder_weights=None, classes=CLASSES).eval()
    metric = MulticlassJaccardIndex(CLASSES, average=None, ignore_index=VOID)
    loss_fn = torch.nn.CrossEntropyLoss(ignore_index=VOID)
    started = time.perf_counter()
    with torch.no_grad():
        for images, masks in loader:
            height, width = images.shape[-2:]
            padded = torch.nn.functional.pad(images, (0, -width % 32, 0, -height % 32))
            logits = model(padded)[..., :height, :width]
            loss_fn(logits, masks).item()
            metric.update(logits.argmax(1), masks)
    metric.compute()
    return len(loader.dataset) / (time.perf_counter() - started)


def call_naively(options: argparse.Namespace) -> float:
    """Return the milliseconds of a plain forward pass and its label map."""
    import numpy as np
    import segmentation_models_pytorch as smp
    import torch

    model = smp.Linknet("resnet18", encoder_weights=None, classes=CLASSES).eval()
    image = np.random.default_rng(0).integers(0, 256, (360, 480, 3), dtype=np.uint8)
    seconds = []
    for _ in range(12):
        started = time.perf_counter()
        scaled = ((image / 255.0 - MEAN) / STD).transpose(2, 0, 1).astype("float32")
        padded = torch.nn.functional.pad(torch.from_numpy(scaled)[None], (0, 0, 0, -360 % 32))
        model(padded)[0, :, :360].argmax(0).numpy()
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds[2:])


PEERS: dict[str, Callable[[argparse.Namespace], float]] = {
    "smp": train_smp, "torchvision": train_torchvision, "ultralytics": train_ultralytics,
    "torchmetrics": evaluate_torchmetrics, "naive call": call_naively}
CONTENDERS: dict[str, Callable[[argparse.Namespace], float]] = {
    "segtrain": train_segtrain, "segtrain evaluate": evaluate_segtrain, "segtrain load": call_segtrain,
    **{name: in_peers_environment(name) for name in PEERS}}
GROUPS = {"training images/s": ("segtrain", "smp", "torchvision", "ultralytics"),
          "evaluation images/s": ("segtrain evaluate", "torchmetrics"), "ms": ("segtrain load", "naive call")}


if __name__ == "__main__":
    main()
