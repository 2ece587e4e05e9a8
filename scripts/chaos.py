"""Kill, stop and starve short runs at random moments, resume them, and compare each with a run that nothing disturbed.

    python scripts/chaos.py --kills 100 --parallel 2 --seed 0 DIR

Every process is forked from this one, which has imported torch already, so that a run takes seconds. After every kill
all files with their final name must be whole; at the end weights, metrics.csv, TensorBoard's scalars and results.json
must be those of the undisturbed run, bit for bit. Prints a table; exits with 1 if anything was lost or differs. Runs on
Linux.
"""

import argparse
import contextlib
import csv
import json
import logging
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # bit-identity is promised for CPUs; and CUDA cannot be forked

import numpy as np
import torch
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter  # noqa: F401  # imported here for the forked runs

from segtrain import cli, terminal, visualize  # noqa: F401
from segtrain.tasks import train  # noqa: F401

COMMON = ("model=enet", "train.batch_size=2", "train.epochs=3", "train.examples=1", "dataset.crop=[32,32]",
          "runtime.workers=0", "runtime.threads=1", "runtime.compile=false")
STREETS = ("dataset.height=32", "dataset.width=48", "dataset.num_train=12", "dataset.num_val=2")
VARIANTS = {
    "rmsprop, poly, EMA, accumulation": (*STREETS, "train.accumulate=2", "train.ema_decay=0.9"),
    "adam, cosine, 2 workers": (*STREETS, "optim=adam", "scheduler=cosine", "scheduler.warmup_epochs=1",
                                "runtime.workers=2", "train.save_steps=2"),
    "sgd, step, bf16, clipping": (*STREETS, "optim=sgd", "scheduler=step", "scheduler.every_epochs=1.5",
                                  "runtime.precision=bf16", "train.clip_norm=1", "train.save_steps=1", "train.keep=3"),
    "files, fp16, rarely saved": ("dataset=folder", "dataset.root={data}", "dataset.cache=false", "train.save_every=2",
                                  "runtime.precision=fp16", "optim=adamw", "augmentation=strong"),
}
TIMES = ("train/images_per_second", "train/data_wait")
VARYING = ("seconds", "images_per_second", "checkpoint")  # of results.json


# ---- runs


def start(arguments: list[str], output: Path, max_file_bytes: int | None = None) -> int:
    """Fork a process that runs the command, and return its number."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()  # a group of its own, with its loader processes
        for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
            stream.flush()
            os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        if max_file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))
        sys.argv = ["segtrain", *arguments]
        cli.main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def wait(pid: int, seconds: float = 300) -> int | None:
    """Wait for a process; return its exit code, negative for a signal, None if it is still running."""
    deadline = time.monotonic() + seconds
    while True:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            kill_group(pid)  # loaders that a killed run left behind; while its number cannot be another's
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.01)


def kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def loaders(pid: int) -> list[int]:
    """Return the numbers of a run's child processes."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []


def make_folder(root: Path) -> None:
    """Write a small dataset of files, for dataset=folder."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 2)):
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True)
        for number in range(count):
            image = rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)
            Image.fromarray(image).save(root / split / "images" / f"{number}.png")
            Image.fromarray(image[..., 0] // 128).save(root / split / "masks" / f"{number}.png")
    (root / "classes.csv").write_text("name\nbackground\nthing\n")


# ---- what must hold


def broken_files(run_dir: Path) -> list[str]:
    """Return the files of a run that have their final name and are not whole."""
    broken = []
    for path in run_dir.rglob("*"):
        try:
            if path.suffix == ".pt":
                torch.load(path, map_location="cpu", weights_only=True)
            elif path.suffix == ".json":
                json.loads(path.read_text())
            elif path.name == "config.yaml":
                yaml.safe_load(path.read_text())["train"]
        except Exception as error:
            broken.append(f"{path}: {error}")
    return broken


def contents(run_dir: Path) -> dict[str, Any]:
    """Return what a finished run leaves behind, without times and places."""
    with (run_dir / "metrics.csv").open() as file:
        rows = [{key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(file)]
    accumulator = EventAccumulator(str(run_dir)).Reload()
    events = {tag: [(event.step, event.value) for event in accumulator.Scalars(tag)]
              for tag in accumulator.Tags()["scalars"] if tag not in TIMES}
    results = json.loads((run_dir / "results.json").read_text())
    return {"metrics.csv": rows, "TensorBoard": events,
            "results.json": {key: value for key, value in results.items() if key not in VARYING}}


def differences(run_dir: Path, whole: Path) -> list[str]:
    """Return in what a finished run differs from an undisturbed one."""
    ours, theirs = contents(run_dir), contents(whole)
    found = [name for name in ours if ours[name] != theirs[name]]
    for name, keys in (("last.pt", ("model", "ema", "optimizer", "scheduler", "scaler")), ("best.pt", ("model",))):
        one, other = (torch.load(folder / "checkpoints" / name, map_location="cpu", weights_only=True)
                      for folder in (run_dir, whole))
        found += [f"{name}: {key}" for key in keys if not same(one[key], other[key])]
    return found


def same(one: Any, other: Any) -> bool:
    """Compare nested dicts and lists of tensors and numbers, bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


# ---- disturbances


class Trial:
    """One run that is disturbed until its share of kills is used up, then left to end; `whole` is undisturbed."""

    def __init__(self, whole: Path, arguments: tuple[str, ...], run_dir: Path, rng: random.Random) -> None:
        self.whole, self.arguments, self.run_dir, self.rng = whole, arguments, run_dir, rng
        self.output = run_dir.with_suffix(".txt")
        self.seconds = float(whole.with_suffix(".seconds").read_text())
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []

    def begin(self, max_file_bytes: int | None = None) -> int:
        """Start the run, or resume it if there is anything to resume."""
        if (self.run_dir / "config.yaml").exists():
            self.counts["resumes"] += 1
            return start([f"resume={self.run_dir}"], self.output, max_file_bytes)
        shutil.rmtree(self.run_dir, ignore_errors=True)  # killed before there was anything to resume
        return start([*COMMON, *self.arguments, f"hydra.run.dir={self.run_dir}"], self.output, max_file_bytes)

    def check(self, condition: bool, fault: str) -> None:
        if not condition:
            self.faults.append(fault)

    def kill(self, signum: int) -> None:
        """Start or resume, and send a signal at a random moment."""
        pid = self.begin()
        code = wait(pid, self.rng.uniform(0.02, 0.95) * self.seconds)
        if code is None:
            os.kill(pid, signum)
            code = wait(pid)
            self.counts[signal.Signals(signum).name] += code != 0
            expected = {-signum, 128 + signum, 0}  # a stop that comes before the first step needs no saving
            self.check(code in expected, f"{signal.Signals(signum).name} ended in {code}")
        self.look()

    def look(self) -> None:
        broken = broken_files(self.run_dir)
        self.counts["broken files"] += len(broken)
        self.faults += broken

    def until_scored(self, pid: int) -> bool:
        """Wait until the run has ended an epoch; return whether it is still running then."""
        while not (self.run_dir / "checkpoints" / "best.pt").exists():
            if wait(pid, 0.02) is not None:
                return False
        return True

    def expect(self, pid: int, code: int, message: str) -> None:
        """Wait for the end of a run that must fail with an exit code and a message, without a traceback."""
        found, text = wait(pid), self.output.read_text()
        self.check(found == code and message in text and "Traceback" not in text,
                   f"{found} instead of {code} ({message})")
        self.look()

    def finish(self) -> None:
        """Resume until the run is done, and compare it."""
        if not (self.run_dir / "results.json").exists():
            code = wait(self.begin())
            self.check(code == 0, f"the last resume ended in {code}")
        if (self.run_dir / "results.json").exists():
            found = differences(self.run_dir, self.whole)
            self.counts["identical ends"] += not found
            self.faults += [f"differs in {name}" for name in found]
        self.counts["ends"] += 1

    # -- faults other than kills

    def full_disk(self) -> None:
        """Let no file grow beyond what a checkpoint needs, or what TensorBoard's events need."""
        last = (self.whole / "checkpoints" / "last.pt").stat().st_size
        size = self.rng.choice([last - 1, self.rng.randrange(1_000, last), 300, 5_000])
        pid = self.begin(max_file_bytes=size)
        code = wait(pid)
        text = self.output.read_text()
        self.check(code == 2 and "make room" in text and "Traceback" not in text, f"full at {size} bytes: exit {code}")
        self.look()

    def dead_loader(self) -> None:
        """Kill one of the processes that load images."""
        pid = self.begin()
        if self.until_scored(pid) and loaders(pid):
            os.kill(self.rng.choice(loaders(pid)), signal.SIGKILL)
            self.expect(pid, 2, "lower runtime.workers")
        else:
            self.check(wait(pid) in (0, None), "the run with loaders failed")

    def deleted_image(self) -> None:
        """Take away an image while the run reads it in every epoch; put it back for the resume."""
        root = Path(next(key for key in self.arguments if key.startswith("dataset.root=")).partition("=")[2])
        image = root / "train" / "images" / "3.png"
        pid = self.begin()
        if not self.until_scored(pid):
            self.faults.append("the run ended before its first scores")
            return
        image.rename(root / "away")
        try:
            self.expect(pid, 2, str(image))
        finally:
            (root / "away").rename(image)

    def damaged_checkpoint(self) -> None:
        """Truncate last.pt after a kill."""
        pid = self.begin()
        last = self.run_dir / "checkpoints" / "last.pt"
        while not any(last.parent.glob("step-*.pt")):
            if wait(pid, 0.02) is not None:
                return
        os.kill(pid, signal.SIGKILL)
        wait(pid)
        if not last.exists():  # killed between two renamings
            return
        os.truncate(last, self.rng.randrange(last.stat().st_size))
        code = wait(self.begin())
        self.check(code == 0 and "instead." in self.output.read_text(), f"damaged last.pt: exit {code}")

    def impatient(self) -> None:
        """Press Ctrl-C twice."""
        pid = self.begin()
        if not self.until_scored(pid):
            self.faults.append("the run ended before its first scores")
            return
        os.kill(pid, signal.SIGINT)
        time.sleep(0.002)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)
        code = wait(pid, 5)
        self.check(code in (0, 130, -signal.SIGINT), f"two SIGINT ended in {code}")
        self.look()


FAULTS = {  # a kind, and the variant that it needs
    "full disk": (Trial.full_disk, 0), "damaged last.pt": (Trial.damaged_checkpoint, 2),
    "loader killed": (Trial.dead_loader, 1), "image deleted": (Trial.deleted_image, 3),
    "Ctrl-C twice": (Trial.impatient, 0),
}


# ---- the whole


def reference(folder: Path, number: int) -> Path:
    """Make the undisturbed run of a variant, and write how long it takes beside it."""
    whole = folder / f"whole{number}"
    began = time.monotonic()
    code = wait(start([*COMMON, *variant(folder, number), f"hydra.run.dir={whole}"], whole.with_suffix(".txt")))
    if code != 0:
        sys.exit(f"the undisturbed run ended in {code}: {whole.with_suffix('.txt').read_text()}")
    whole.with_suffix(".seconds").write_text(str(time.monotonic() - began))
    return whole


def variant(folder: Path, number: int) -> tuple[str, ...]:
    settings = list(VARIANTS.values())[number]
    return tuple(override.format(data=folder / "data") for override in settings)


def work(folder: Path, runner: int, args: argparse.Namespace) -> None:
    """Do a runner's share of the trials and write a line of JSON for each."""
    rng = random.Random(f"{args.seed} {runner}")
    jobs: list[tuple[str, int]] = [(name, number) for name, (_, number) in FAULTS.items()] * args.faults
    jobs = jobs[runner::args.parallel]
    left = args.kills // args.parallel + (runner < args.kills % args.parallel)
    numbers = [number for number in range(args.variants) if number % args.parallel == runner] or [0]
    with (folder / f"runner{runner}.jsonl").open("w") as report:
        trial_number = 0
        while left > 0 or jobs:
            trial_number += 1
            kind, number = jobs.pop() if jobs and (left <= 0 or rng.random() < 0.3) else ("kills", rng.choice(numbers))
            run_dir = folder / f"run{runner}-{trial_number}"
            data = folder / f"data-of-{runner}"  # of its own: an image is taken away
            settings = tuple(override.replace(str(folder / "data"), str(data)) for override in variant(folder, number))
            trial = Trial(folder / f"whole{number}", settings, run_dir, rng)
            if kind == "kills":
                for _ in range(rng.randint(3, 8)):
                    if (run_dir / "results.json").exists():
                        break
                    trial.kill(rng.choice([signal.SIGKILL] * 4 + [signal.SIGTERM, signal.SIGINT]))
            else:
                FAULTS[kind][0](trial)
            left -= trial.counts["SIGKILL"]
            trial.finish()
            report.write(json.dumps({"kind": kind, "variant": number, "counts": trial.counts,
                                     "faults": trial.faults}) + "\n")
            report.flush()
            print(f"runner {runner}, trial {trial_number}: {kind}, {list(VARIANTS)[number]}: {dict(trial.counts)} "
                  f"{trial.faults or 'good'}", flush=True)
            if not trial.faults:
                shutil.rmtree(run_dir, ignore_errors=True)


def table(rows: list[dict[str, Any]]) -> str:
    """Lay out the counts of all trials by kind and variant."""
    columns = ("SIGKILL", "SIGTERM", "SIGINT", "resumes", "ends", "identical ends", "broken files")
    groups: dict[str, Counter[str]] = {}
    for row in rows:
        name = list(VARIANTS)[row["variant"]] if row["kind"] == "kills" else row["kind"]
        for key in (name, "all"):
            groups.setdefault(key, Counter()).update(row["counts"])
    groups["all"] = groups.pop("all", Counter())
    return terminal.table([["", *columns], *([name, *(str(counts[column]) for column in columns)]
                                            for name, counts in groups.items())])


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="a new folder for the runs; those that went well are removed")
    parser.add_argument("--kills", type=int, default=100, help="SIGKILLs in all")
    parser.add_argument("--faults", type=int, default=3, help="trials of each other kind of fault")
    parser.add_argument("--variants", type=int, default=len(VARIANTS), help="use the first so many settings only")
    parser.add_argument("--parallel", type=int, default=1, help="runs at once")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it warns of what a resume hides
    folder = args.folder.absolute()
    folder.mkdir(parents=True)
    make_folder(folder / "data")
    for runner in range(args.parallel):
        shutil.copytree(folder / "data", folder / f"data-of-{runner}")
    needed = {*range(args.variants), *((number for _, number in FAULTS.values()) if args.faults else ())}
    for number in sorted(needed):
        reference(folder, number)
    began = time.monotonic()
    runners = []
    for runner in range(args.parallel):
        sys.stdout.flush()
        pid = os.fork()
        if not pid:
            try:
                work(folder, runner, args)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        runners.append(pid)
    failed = sum(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0 for pid in runners)
    rows = [json.loads(line) for path in sorted(folder.glob("runner*.jsonl")) for line in path.read_text().splitlines()]
    faults = [fault for row in rows for fault in row["faults"]]
    print(f"\n{table(rows)}\n\n{len(rows)} trials in {time.monotonic() - began:.0f} s, seed {args.seed}; "
          f"{len(faults)} faults")
    for fault in faults:
        print(f"  {fault}")
    sys.exit(1 if faults or failed or any(row["counts"].get("ends") != row["counts"].get("identical ends")
                                          for row in rows) else 0)


if __name__ == "__main__":
    main()
