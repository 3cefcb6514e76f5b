"""Folders in which cases have several files, or a folder each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from scripts.data.cases import IMAGE_SUFFIXES, LABEL_WORDS, Item
from scripts.data.datalist import case_name
from scripts.messages.phrases import some

CHANNEL = re.compile(r"(.+)_(\d{4})")
LABEL = re.compile(rf"(?<![a-z])(?:{'|'.join(LABEL_WORDS)})(?![a-z])")


def items_of(files: Sequence[Path], channels: int = 1) -> list[Item]:
    """Return the cases of image files: one a file, or, named as by nnU-Net (`case_0000`), one for its channels' files.

    They are taken for channels where every case has the numbers from 0000 to that of the network's last channel.
    """
    found = [CHANNEL.fullmatch(case_name(path.name)) for path in files]
    groups: dict[str, dict[int, Path]] = {}
    for path, match in zip(files, found, strict=True):
        if match:
            groups.setdefault(match[1], {})[int(match[2])] = path
    if not all(found) or any(sorted(group) != list(range(channels)) for group in groups.values()):
        return [{"image": str(path), "case": case_name(path.name)} for path in files]
    return [_item(name, [group[number] for number in range(channels)]) for name, group in groups.items()]


def folder_a_case(folder: Path, channels: int = 1) -> list[Item]:
    """Return the cases of a folder with a folder for each, named after it; labels in these are left aside.

    Raises:
        ValueError: the images of a folder are not one, or one a channel numbered from 0000 on.
    """
    items = []
    for path in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        files = [file for file in sorted(path.iterdir()) if file.is_file() and file.name.endswith(IMAGE_SUFFIXES)]
        images = [file for file in files if not file.name.startswith(".") and not LABEL.search(file.name.casefold())]
        if not images:
            continue
        cases = items_of(images, channels)
        if len(cases) != 1:
            raise ValueError(
                f"'{path}' holds {len(images)} images ({some(file.name for file in images)}); expected one in the "
                f"folder of a case, or {channels} that end in _0000 and so on. List the files in a datalist."
            )
        items.append({**cases[0], "case": path.name})
    return items


def _item(name: str, files: Sequence[Path]) -> Item:
    images = [str(path) for path in files]
    return {"image": images if len(images) > 1 else images[0], "case": name}
