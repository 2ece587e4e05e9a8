"""The Python API, importable from `segtrain`; docs/how-to/python.md shows how to use it."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast, overload

import numpy as np
import PIL.Image
import torch
from torch import nn

from segtrain.config.check import check_config
from segtrain.config.instantiate import call, check_trust
from segtrain.config.packaged import list_files, read_file
from segtrain.data.image_form import RGB, ImageForm, Pixels, read_pixels, to_pixels
from segtrain.data.images import turn_upright
from segtrain.data.label_files import FileForm
from segtrain.errors import UserError, did_you_mean
from segtrain.files import check_plain
from segtrain.inference.forward import InferenceSettings
from segtrain.inference.predictor import Predictor
from segtrain.labels import IGNORE_INDEX, Label
from segtrain.metrics.confusion import confusion_matrix
from segtrain.metrics.scores import compute_scores
from segtrain.prediction import Prediction
from segtrain.run import checkpoint
from segtrain.run.results import Results
from segtrain.run.trained import load_trained

Input: TypeAlias = str | Path | np.ndarray | PIL.Image.Image | torch.Tensor
InputT = TypeVar("InputT", bound=Input)


class Model:
    """A trained network that predicts images of any size. `load` makes one.

    Attributes:
        labels: The classes in the order of their train ids: name, color, label_id, ...
        network: The PyTorch module, in evaluation mode.
        config: The configuration that it was trained with, as plain values.
    """

    def __init__(self, network: nn.Module, labels: Sequence[Label], config: dict[str, Any],
                 predictor: Predictor, file_form: FileForm, form: ImageForm = RGB) -> None:
        self.network, self.labels = network, tuple(labels)
        self.config: Mapping[str, object] = config
        self._predictor, self._file_form, self._form = predictor, file_form, form

    @overload
    def predict(self, image: Input) -> Prediction: ...

    @overload
    def predict(self, image: list[InputT] | tuple[InputT, ...]) -> list[Prediction]: ...

    def predict(self, image: Input | list[InputT] | tuple[InputT, ...]) -> Prediction | list[Prediction]:
        """Predict the class of every pixel.

        Args:
            image: The path of an image; an image of Pillow; a uint8 array (H, W, 3) in RGB; a tensor (3, H, W), uint8
                or float from 0 to 1; of a network trained with dataset.channels a path, or an array (H, W, bands) of
                the values that files hold; or a list of those, of any sizes.

        Returns:
            A prediction, 255 where the image has no data; of a list, a list.

        Raises:
            UserError: If a file cannot be read.
            ValueError: If it is none of these.
        """
        if isinstance(image, list | tuple):
            return [self.predict(item) for item in image]
        pixels = self._read(image)
        classes = self._predictor(pixels.image[None])[0]
        if pixels.nodata is not None:
            classes[pixels.nodata] = IGNORE_INDEX
        return Prediction(classes, self.labels, self._form.draw(pixels.image),
                          partial(self._probabilities, pixels.image), self._file_form)

    def _probabilities(self, image: np.ndarray) -> np.ndarray:
        parts: list[np.ndarray] = []
        self._predictor(image[None], lambda top, values: parts.append(values[0]))
        return np.concatenate(parts, axis=1)

    def _read(self, image: Input) -> Pixels:
        if self._form.channels is None:
            image = _to_array(image)
        if isinstance(image, str | Path):
            return read_pixels(Path(image).expanduser(), self._form)
        if self._form.channels is not None and isinstance(image, np.ndarray) and image.ndim == 3:
            return to_pixels(image, self._form, "the image", self._form.nodata)
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            given = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            raise ValueError("an image must be a path, an image of Pillow, a uint8 array (H, W, 3) in RGB or a tensor "
                             f"(3, H, W), uint8 or from 0 to 1, not {given}")
        return Pixels(np.ascontiguousarray(image), None, 1)


def _to_array(image: Input) -> str | Path | np.ndarray:
    """Turn an image of Pillow, or a tensor (C, H, W), into an array (H, W, C); leave what else there is."""
    if isinstance(image, PIL.Image.Image):
        return np.asarray(turn_upright(image).convert("RGB"))
    if isinstance(image, torch.Tensor):
        if image.ndim != 3 or not (image.dtype == torch.uint8 or image.is_floating_point()):
            raise ValueError(f"a tensor must be (3, H, W), uint8 or float, not {image.dtype} {tuple(image.shape)}; "
                             "give a batch as a list")
        values = image.detach().cpu()
        if values.is_floating_point():
            if not 0 <= values.min() <= values.max() <= 1:
                raise ValueError(f"a float tensor must hold values from 0 to 1, not {values.min():.3g} to "
                                 f"{values.max():.3g}: give it before it is normalised")
            values = (255 * values.float()).round().to(torch.uint8)
        return values.permute(1, 2, 0).numpy()
    return image


def load(path: str | Path, *, device: str = "auto", window: tuple[int, int] | None = None, overlap: float = 0.25,
         flip: bool = False, scales: Sequence[float] = (1.0,), batch_size: int = 1, trusted: Sequence[str] = (),
         ) -> Model:
    """Load a trained network from a checkpoint; the data that it was trained on is not needed.

    Args:
        path: A .pt file, or a run directory, meaning its best checkpoint.
        device: "auto" (cuda, else mps, else cpu), "cpu", "cuda", "cuda:1" or "mps".
        window: (height, width): cut images into overlapping windows; None: only those too large for the memory.
        overlap: The minimum share of a window that the next one covers too.
        flip: Flip TTA: average the logits with those of the horizontally flipped image.
        scales: Average the logits of the image, or of each window, resized by each of these factors.
        batch_size: Maximum number of windows at once.
        trusted: Your own packages that the checkpoint's config may name.

    Raises:
        UserError: If the file is missing, is not a checkpoint, or names classes that are not trusted.
        ValueError: If an option is out of range.
    """
    if (window is not None and min(window) < 32) or not 0 <= overlap < 1 or batch_size < 1 or not (
            scales and all(0 < scale <= 8 for scale in scales)):
        raise ValueError(f"window={window} must be at least 32 pixels high and wide, overlap={overlap} at least 0 and "
                         f"below 1, batch_size={batch_size} at least 1, scales={scales} above 0, at most 8")
    found = checkpoint.find(str(Path(path).expanduser()))
    saved = checkpoint.load(found, mapped=True)
    config = saved["config"]
    check_plain(config, str(found))
    check_trust(config, (), trusted)
    cfg = check_config({**config, "checkpoint": str(found),
                        "runtime": {**config.get("runtime", {}), "device": device, "threads": None,
                                    "precision": "auto", "channels_last": "auto"}})
    trained = load_trained(cfg, saved=saved)
    predictor = Predictor(trained.network, trained.normalize, InferenceSettings(window, overlap, flip, tuple(scales)),
                          device=trained.device, precision=trained.cfg.runtime.precision, batch_size=batch_size,
                          num_classes=len(trained.labels), in_channels=trained.in_channels)
    return Model(trained.network, trained.labels, config, predictor, trained.file_form, trained.form)


def build_model(name: str, num_classes: int, **arguments: object) -> nn.Module:
    """Build an untrained network as the command line does.

    Args:
        name: A file of conf/model: "linknet", "enet", "torchvision/deeplabv3_resnet50", ...
        num_classes: K.
        arguments: What else the file holds, and any argument of its class: pretrained="IMAGENET1K_V1".

    Returns:
        A module in training mode: float32 (N, 3, H, W), normalised -> logits (N, K, H, W).

    Raises:
        UserError: If there is no such file, or an argument is wrong.
    """
    arguments_of_file = read_file("model", name)
    if arguments_of_file is None:
        names = list_files("model")
        raise UserError(f"there is no model {name}: use one of {', '.join(names)}, or torchvision/NAME."
                        f"{did_you_mean(name, names)}")
    built: nn.Module = call({**arguments_of_file, "num_classes": num_classes, "in_channels": 3, **arguments}, "model")
    return built


def score(preds: np.ndarray | Prediction | Sequence[np.ndarray | Prediction],
          targets: np.ndarray | Sequence[np.ndarray], labels: Sequence[Label] | Sequence[str]) -> Results:
    """Score predictions against targets: one confusion matrix over all pixels, as docs/reference/metrics.md defines.

    Args:
        preds: A prediction, or (H, W) train ids 0..K-1; or several such.
        targets: (H, W) train ids 0..K-1, 255 is void; as many, of the same sizes.
        labels: The K classes, or their names.

    Returns:
        miou, macc, pacc, fwiou, iou_per_class, acc_per_class, confusion_matrix, ...: fractions, None where undefined.

    Raises:
        ValueError: If numbers, sizes or values do not fit.
    """
    names = [label.name if isinstance(label, Label) else str(label) for label in labels]
    pairs = list(zip(_as_maps(preds), _as_maps(targets), strict=True))
    confusion = torch.zeros(len(names) + 1, len(names) + 1, dtype=torch.int64)
    for pred, target in pairs:
        if pred.shape != target.shape:
            raise ValueError(f"a prediction has the shape {pred.shape}, its target {target.shape}")
        for array, what, allowed in ((pred, "predictions", ()), (target, "targets", (IGNORE_INDEX,))):
            values = np.unique(array)
            strange = [int(value) for value in values if not 0 <= value < len(names) and value not in allowed]
            if strange:
                raise ValueError(f"{what} hold {strange[0]}, which is not a train id of {len(names)} classes")
        confusion += confusion_matrix(torch.from_numpy(pred.astype(np.int64)),
                                      torch.from_numpy(target.astype(np.int64)), len(names))
    return cast(Results, compute_scores(confusion, names))


def _as_maps(given: np.ndarray | Prediction | Sequence[np.ndarray | Prediction]) -> list[np.ndarray]:
    is_one = isinstance(given, Prediction) or (isinstance(given, np.ndarray) and given.ndim == 2)
    several = [cast("np.ndarray | Prediction", given)] if is_one else list(cast("Sequence[np.ndarray]", given))
    return [np.asarray(each) for each in several]
