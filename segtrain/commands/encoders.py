"""segtrain models encoders: which encoders there are by name, and what they cost."""

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

from segtrain.errors import UserError
from segtrain.terminal import table

HEAD = ["encoder", "parameters", "strides", "channels", "weights", "license of the weights"]


def main(arguments: Sequence[str]) -> None:
    """Print the table; UserError if no name holds the text."""
    parser = argparse.ArgumentParser(
        "segtrain models encoders", description="List encoders for model=linknet, unet and lraspp, as model.encoder=.")
    parser.add_argument("text", nargs="?", help="what names hold, such as mobilenet or timm/regnety; default: a few")
    text = parser.parse_args(arguments).text
    from segtrain.models.named_encoders import EXAMPLES  # needs torch, for which --help must not wait
    from segtrain.models.pretrained import TIMM, list_classifiers

    known = list_classifiers()
    has_timm = any(name.startswith(TIMM) for name in known)
    names = [name for name in (EXAMPLES if text is None else known) if name in known and (text or "") in name]
    if not names:
        raise UserError(f"no encoder has {text} in its name{'' if has_timm else INSTALL}: try less of it.")
    rows = list(describe_encoders(names))
    print(table([HEAD, [], *rows], left=(0, 2, 3, 4, 5)))
    if len(rows) < len(names):
        print(f"{len(names) - len(rows)} others have no feature maps that the decoders can use.")
    if text is None:
        print(f"{len(known)} names are known{'' if has_timm else INSTALL}: segtrain models encoders TEXT lists those "
              "that hold a text.")


INSTALL = " (those of timm need pip install '.[timm]')"


def describe_encoders(names: Sequence[str]) -> Iterator[list[str]]:
    """Yield the row of each encoder that fits; each takes up to some seconds to build."""
    import torch

    from segtrain.models.named_encoders import NamedEncoder
    from segtrain.models.pretrained import list_weights

    for name in names:
        try:
            encoder = _build(NamedEncoder, torch, name)
        except ValueError:
            continue
        known = list_weights(name)
        default, others = known.get("DEFAULT"), {*known} - {"DEFAULT"}
        parameters = sum(parameter.numel() for parameter in encoder.parameters())
        yield [name, f"{parameters / 1e6:.1f} M", " ".join(map(str, encoder.strides)),
               " ".join(map(str, encoder.channels)),
               "none" if default is None else default.name + (f" +{len(others) - 1}" if len(others) > 1 else ""),
               "" if default is None else default.license or "not recorded"]


def _build(encoder: Any, torch: Any, name: str) -> Any:
    """Build an encoder without weights, or with them where its class reads values while it builds."""
    try:
        with torch.device("meta"):
            return encoder(name)
    except NotImplementedError:
        return encoder(name)
