"""Inputs of inference: reads a file, a folder of files or a datalist into MONAI's list of dictionaries."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from scripts.data.case_checks import require_unique
from scripts.data.cases import IMAGE_SUFFIXES, LABEL_WORDS, Item
from scripts.data.datalist import PathLike, absolute, case_name, load_datalist
from scripts.inference.layouts import folder_a_case, items_of
from scripts.inference.outputs import is_mask
from scripts.messages.phrases import some

logger = logging.getLogger(__name__)

MASK = re.compile(rf"(.+)[_\-. ](?:{'|'.join(LABEL_WORDS)})", re.IGNORECASE)


def inference_items(path: PathLike, section: str = "test", channels: int = 1) -> list[Item]:
    """Return the cases to segment: of one image file, a folder of them, or a datalist.

    Args:
        path: a file of `IMAGE_SUFFIXES`; a folder, whose images are taken in the order of their names
            (hidden files and masks are not); or a datalist `.json`, the way to give several files a
            case.
        section: which list of a datalist.
        channels: of the network; a folder may have a file for each (`case_0000`), or a folder for each case.

    Returns:
        `{"image": path or list of paths, "case": name}`, paths absolute.

    Raises:
        FileNotFoundError: nothing at `path`, or a folder without images.
        ValueError: a file of another type, a malformed datalist, or two files of one case.
    """
    source = absolute(path)
    if not source.exists():
        raise FileNotFoundError(
            f"There is nothing at '{source}'; expected an image ({', '.join(IMAGE_SUFFIXES)}), a folder "
            "of them, or a datalist (.json)."
        )
    if source.is_dir():
        return _folder_items(source, channels)
    if source.suffix == ".json":
        return load_datalist(source, section, labelled=False)
    if not source.name.endswith(IMAGE_SUFFIXES):
        raise ValueError(
            f"'{source}' is no input that can be read: expected an image ({', '.join(IMAGE_SUFFIXES)}), "
            "a folder of them, or a datalist (.json). Convert it to NIfTI first."
        )
    return [{"image": str(source), "case": case_name(source.name)}]


def _without_masks(files: Sequence[Path]) -> list[Path]:
    """Leave out the masks among the files, those that this program wrote and those that lie beside their image."""
    names = {case_name(path.name) for path in files}
    masks = [path for path in files if is_mask(path) or _image_of(path) in names]
    if masks:
        logger.warning(
            "%d files are taken for masks and not segmented: %s. If they are images, list them in a datalist.",
            len(masks),
            some(path.name for path in masks),
        )
    return [path for path in files if path not in masks]


def _image_of(path: Path) -> str | None:
    """Return the name of the image beside which a file would be a mask, such as `a` for `a_seg`."""
    found = MASK.fullmatch(case_name(path.name))
    return found[1] if found else None


def _folder_items(folder: Path, channels: int) -> list[Item]:
    # A link that leads nowhere is a case too, which fails by its name.
    files_and_links = (p for p in sorted(folder.iterdir()) if p.is_file() or (p.is_symlink() and not p.exists()))
    visible = [p for p in files_and_links if not p.name.startswith(".")]
    files = _without_masks([p for p in visible if p.name.endswith(IMAGE_SUFFIXES)])
    has_datalist = (folder / "dataset.json").is_file()
    items = items_of(files, channels) if files or has_datalist else folder_a_case(folder, channels)
    if not items:
        advice = "Give its dataset.json, or its folder of images." if has_datalist else "Nor do its subfolders."
        raise FileNotFoundError(
            f"'{folder}' holds no image ({', '.join(IMAGE_SUFFIXES)}) among its {len(visible)} files. {advice}"
        )
    return require_unique(items, f"folder '{folder}'")
