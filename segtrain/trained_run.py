"""Train from Python, and use the run that results; docs/how-to/python.md shows how."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias, cast, overload

from segtrain.api import Input, InputT, Model, load
from segtrain.commands.shortcuts import expand
from segtrain.config.arguments import prepare_arguments, quote
from segtrain.config.compose import compose_job
from segtrain.config.early import refuse_early
from segtrain.errors import Stopped, UserError
from segtrain.files import read_json
from segtrain.prediction import Prediction
from segtrain.run import directory
from segtrain.run.checkpoint import BEST
from segtrain.run.logging import stop_log
from segtrain.run.results import RESULTS, Results, read_results
from segtrain.run.trackers import read_metrics
from segtrain.runner import run_task

Setting: TypeAlias = "str | int | float | bool | Path | Sequence[Setting] | Mapping[str, Setting] | None"
Numbers: TypeAlias = dict[str, float | None]


class Run:
    """A training's run directory.

    Attributes:
        folder: The directory.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()
        self._model: Model | None = None

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @property
    def results(self) -> Results:
        """The scores of the best epoch, from results.json; UserError if the training is not finished."""
        return cast(Results, read_results(self.folder))

    @property
    def best(self) -> Path:
        """The file of the best checkpoint."""
        return self.folder / "checkpoints" / BEST

    @property
    def history(self) -> list[Numbers]:
        """A row of numbers for each epoch, from metrics.csv: pandas.DataFrame(run.history) is a table."""
        return [{name: float(value) if value else None for name, value in row.items()}
                for row in read_metrics(self.folder / "metrics.csv")]

    @overload
    def predict(self, image: Input) -> Prediction: ...

    @overload
    def predict(self, image: list[InputT] | tuple[InputT, ...]) -> list[Prediction]: ...

    def predict(self, image: Input | list[InputT] | tuple[InputT, ...]) -> Prediction | list[Prediction]:
        """Predict with the best checkpoint, see `Model.predict`; `segtrain.load(run.folder, ...)` takes options."""
        if self._model is None:
            self._model = load(self.folder)
        return self._model.predict(image)

    def evaluate(self, *overrides: str, **settings: Setting) -> Results:
        """Score the best checkpoint, by default on val; into a folder of the run, evaluate-val.

        Args:
            overrides: As on the command line: "dataset.split=test", "task.flip=true".
            settings: As those of `train`.

        Raises:
            UserError: As the command's message.
        """
        return cast(Results, read_results(self._use("evaluate", overrides, settings)))

    def export(self, *overrides: str, **settings: Setting) -> Path:
        """Export the best checkpoint, by default as ONNX, and return the file; arguments as those of `evaluate`."""
        return Path(read_json(self._use("export", overrides, settings) / RESULTS)["file"])

    def report(self) -> Path:
        """Write report.html of the run, and return it."""
        from segtrain.report.run_page import write_run  # imports matplotlib

        return write_run(self.folder)[0]

    def _use(self, task: str, overrides: Sequence[str], settings: Mapping[str, Setting]) -> Path:
        return _run([f"task={task}", f"checkpoint={quote(str(self.folder))}", *overrides, *write_overrides(settings)])


def train(*overrides: str, on_epoch: Callable[[Numbers], object] | None = None, **settings: Setting) -> Run:
    """Train as the command line does, and return the run.

    Args:
        overrides: As on the command line: "train.epochs=20", "optim.lr=1e-3", "resume=last".
        on_epoch: Called after each epoch, when it is saved, with a row of `Run.history`; what it raises ends the
            training, which can be resumed.
        settings: The same as keywords: model="linknet", dataset="camvid", name="first", train={"epochs": 20}.

    Raises:
        UserError: As the command's message.
        KeyboardInterrupt: After a signal; the training is saved, and "resume=last" continues it.
    """
    return Run(_run([*overrides, *write_overrides(settings)], on_epoch))


def write_overrides(settings: Mapping[str, Setting], prefix: str = "") -> Iterator[str]:
    """Write settings as overrides of the command line; a mapping sets the keys of a section one by one."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from write_overrides(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}={_write_value(value)}"


def _write_value(value: Setting) -> str:
    """Write a value in Hydra's syntax."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str | Path):
        text = str(value)
        return text if text.replace("_", "").replace("/", "").isalnum() else quote(text)
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}: {_write_value(item)}' for key, item in value.items())}}}"
    if isinstance(value, Sequence):
        return f"[{','.join(map(_write_value, value))}]"
    return repr(value.item() if hasattr(value, "item") else value)  # numpy's numbers have one


def _run(arguments: Sequence[str], on_epoch: Callable[[Numbers], object] | None = None) -> Path:
    """Run a command in this process, if it is not a sweep, and return its directory."""
    cfg, job = compose_job(prepare_arguments(expand(arguments)))
    if on_epoch is not None and cfg.task.name != "train":
        raise UserError(f"on_epoch is for a training, and this is task={cfg.task.name}: leave it out.")
    refuse_early(cfg, job.choices)
    with _prepared(job.run_dir):
        run_task(cfg, job, on_epoch=on_epoch)
    return job.run_dir


@contextmanager
def _prepared(run_dir: Path) -> Iterator[None]:
    """Make and hold a run directory; a run that is refused leaves none behind."""
    made = [folder for folder in (*reversed(run_dir.absolute().parents), run_dir.absolute()) if not folder.exists()]
    run_dir.mkdir(parents=True, exist_ok=True)
    was_empty = directory.is_empty(run_dir)
    try:
        with directory.hold(run_dir):
            try:
                yield
            except Stopped as stopped:
                raise KeyboardInterrupt(f"stopped by signal {stopped.signum}") from None
            except BaseException:
                stop_log()
                if was_empty and not directory.holds_results(run_dir):
                    directory.empty(run_dir)
                raise
            finally:
                stop_log()
    finally:
        directory.remove_empty(made)
