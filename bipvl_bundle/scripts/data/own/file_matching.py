"""Pairing of image and label files by their names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from scripts.data.cases import IMAGE_SUFFIXES, LABEL_WORDS
from scripts.messages.phrases import some

IMAGE_WORDS = ("images?", "imgs?", "volumes?", "vol", "scans?", "orig", "raw")
KIND_WORDS = ("ct", "mri?", r"t[12]w?(?!\d)", "flair")
"""Tell a scan from another one of the patient, so that an image and a label which both have one have the same."""
DROPPED = (*LABEL_WORDS, *IMAGE_WORDS, *KIND_WORDS)
_NAMED = 5
_NNUNET_CHANNEL = re.compile(r"_(\d{4})$")


class MatchedCase(NamedTuple):
    """One case: name, image files (one per channel), and label file if there is one."""

    name: str
    images: list[Path]
    label: Path | None


class _Rule(NamedTuple):
    """Rule that reads the shared name of image and label from a file name."""

    said: str
    channels: re.Pattern[str] | None
    dropped: tuple[str, ...] = ()


class _Groups(NamedTuple):
    images: dict[str, list[tuple[str, Path]]]  # the channel ("" for none) and the file, by the case's key
    labels: dict[str, list[Path]]

    @property
    def shared(self) -> set[str]:
        return self.images.keys() & self.labels.keys()


def image_files(folder: Path, what: str) -> list[Path]:
    """Return the images in and below `folder` sorted by name, without hidden files.

    Raises:
        FileNotFoundError: there is no such folder, or none in it; `what` says what was looked for.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder '{folder}' of {what}; expected a folder of images (NIfTI).")
    visible = [p for p in sorted(folder.rglob("*")) if not any(n.startswith(".") for n in p.relative_to(folder).parts)]
    files = [p for p in visible if p.is_file() and p.name.endswith(IMAGE_SUFFIXES)]
    if not files:
        found = ", ".join(sorted({"".join(p.suffixes[-2:]) for p in visible if p.is_file()})[:_NAMED]) or "no files"
        raise FileNotFoundError(
            f"'{folder}' holds no image ({', '.join(IMAGE_SUFFIXES)}) for {what}, found {found}. "
            "Convert the volumes to NIfTI, or correct the path."
        )
    return files


def find_files(images: Path, labels: Path) -> tuple[list[Path], list[Path]]:
    """Return image files and label files of two folders, which may be equal or nested.

    In one folder for both, the labels are the files with a word such as "label", "seg" or "mask" in their names.

    Raises:
        FileNotFoundError: a folder is absent or holds no NIfTI file of its kind.
    """
    of_images, of_labels = image_files(images, "images"), image_files(labels, "labels")
    if images.resolve() == labels.resolve():
        word = _word(LABEL_WORDS)
        of_labels = [path for path in of_labels if word.search(_stem(path, labels).casefold())]
    elif images.resolve() in labels.resolve().parents:
        of_images = [path for path in of_images if labels.resolve() not in path.resolve().parents]
    else:
        of_labels = [path for path in of_labels if images.resolve() not in path.resolve().parents]
    of_images = [path for path in of_images if path not in of_labels]
    for files, what in ((of_images, "images"), (of_labels, "labels")):
        if not files:
            raise FileNotFoundError(
                f"Of the NIfTI files in '{images}' and '{labels}' none are {what}; in one folder for both, labels "
                "need a word such as 'label', 'seg' or 'mask' in their names. Give two folders."
            )
    return of_images, of_labels


def match_files(images: Path, labels: Path, channels: Sequence[str] = ()) -> tuple[list[MatchedCase], str]:
    """Pair every image, or every set of channel files, with its label.

    Tried in this order, until one way leaves no file over: equal names; images that end in a channel's number
    as nnU-Net writes it (`_0000`); names without words such as "image", "ct", "label", "seg"; both. A name is a
    file's path below its folder without the ending, so that one folder a case will do.

    Args:
        images: folder of images.
        labels: folder of labels, which may be the same.
        channels: how the names of a case's channel files end, in the order of the channels: "_t1", "_t2".

    Returns:
        The cases in the order of their names, and in words how they were matched.

    Raises:
        FileNotFoundError: a folder is absent or holds no NIfTI file of its kind.
        ValueError: no way matches every file; those left over by the best of them are named. Or a case lacks a
            channel that others have.
    """
    of_images, of_labels = find_files(images, labels)
    tried = [(rule, _grouped(of_images, images, of_labels, labels, rule)) for rule in _rules(channels)]
    for rule, groups in tried:
        if not _left_over(groups):
            return _cases(groups.images, {key: files[0] for key, files in groups.labels.items()}, channels), rule.said
    _, best = max(tried, key=lambda pair: len(pair[1].shared))
    raise ValueError(
        f"The images in '{images}' and the labels in '{labels}' do not match by name: {_left_over(best)}. "
        "Expected names that are equal, or that differ by words such as 'image' and 'label' or by a channel's "
        "ending (`_0000`; others are given by `channels`). Rename the files, or move those without partner away."
    )


def match_images(images: Path, channels: Sequence[str] = (), *, split_channels: bool = False) -> list[MatchedCase]:
    """Return the cases of a folder without labels; joins channel files if `split_channels`."""
    pattern = _channel_pattern(channels) if split_channels else None
    files = image_files(images, "images")
    return _cases(_by_key(files, images, _Rule("", pattern)), {}, channels)


def _rules(channels: Sequence[str]) -> list[_Rule]:
    ending = _channel_pattern(channels)
    said = f"by the channels' endings {', '.join(channels)}" if channels else "by channel numbers (_0000)"
    rules = [_Rule("by equal names", None), _Rule(said, ending)]
    for dropped, such_as in (((*LABEL_WORDS, *IMAGE_WORDS), "'image' and 'label'"), (DROPPED, "'ct' and 'label'")):
        rules += [_Rule(f"by names without words such as {such_as}", None, dropped)]
        rules += [_Rule(f"{said} and names without words such as {such_as}", ending, dropped)]
    return [rule for rule in rules if rule.channels is ending] if channels else rules


def _channel_pattern(channels: Sequence[str]) -> re.Pattern[str]:
    return re.compile(f"({'|'.join(map(re.escape, channels))})$") if channels else _NNUNET_CHANNEL


def _word(words: Sequence[str]) -> re.Pattern[str]:
    """Return a pattern that finds one of the words between non-letters."""
    return re.compile(rf"(?<![a-z])(?:{'|'.join(words)})(?![a-z])")


def _stem(path: Path, root: Path) -> str:
    name = path.relative_to(root).as_posix()
    return next(name[: -len(suffix)] for suffix in IMAGE_SUFFIXES if name.endswith(suffix))


def _key(stem: str, dropped: Sequence[str]) -> str:
    if not dropped:
        return stem
    without = _word(dropped).sub("", stem.casefold())
    return "_".join(part for part in re.split(r"[^\w]|_", without) if part)


def _by_key(files: Sequence[Path], root: Path, rule: _Rule) -> dict[str, list[tuple[str, Path]]]:
    groups: dict[str, list[tuple[str, Path]]] = {}
    for path in files:
        stem = _stem(path, root)
        found = rule.channels.search(stem) if rule.channels else None
        key = _key(stem[: found.start()] if found else stem, rule.dropped)
        groups.setdefault(key, []).append((found[1] if found else "", path))
    return groups


def _grouped(of_images: Sequence[Path], images: Path, of_labels: Sequence[Path], labels: Path, rule: _Rule) -> _Groups:
    by_label: dict[str, list[Path]] = {}
    for path in of_labels:
        by_label.setdefault(_key(_stem(path, labels), rule.dropped), []).append(path)
    return _Groups(_by_key(of_images, images, rule), by_label)


def _left_over(groups: _Groups) -> str:
    """Return the files that have no partner or a rival, as text; empty if every case is complete."""
    lonely = [path for key, files in groups.images.items() if key not in groups.shared for _, path in files]
    unused = [path for key, files in groups.labels.items() if key not in groups.shared for path in files]
    faults = [f"{len(lonely)} images without a label ({_names(lonely)})"] if lonely else []
    faults += [f"{len(unused)} labels without an image ({_names(unused)})"] if unused else []
    for key in sorted(groups.shared):
        names = [channel for channel, _ in groups.images[key]]
        if len(set(names)) < len(names):
            faults.append(f"several images for one label ({_names([path for _, path in groups.images[key]])})")
        image, label = groups.images[key][0][1], groups.labels[key][0]
        kinds = set().union(*(_kinds(path) for _, path in groups.images[key]))
        if kinds and not _kinds(label) <= kinds:
            faults.append(f"an image and a label of different scans ({_names([image, label])})")
        if len(groups.labels[key]) > 1:
            faults.append(f"several labels for one image ({_names(groups.labels[key])})")
    return "; ".join(faults[:_NAMED])


def _kinds(path: Path) -> set[str]:
    """Return the words of a file's name that tell its kind of scan."""
    found = _word(KIND_WORDS).findall(path.name.casefold())
    return {word.removesuffix("w").replace("mri", "mr") for word in found}


def _cases(
    images: Mapping[str, list[tuple[str, Path]]], labels: Mapping[str, Path], channels: Sequence[str]
) -> list[MatchedCase]:
    order = list(channels) or sorted({channel for files in images.values() for channel, _ in files})
    cases: list[MatchedCase] = []
    taken: dict[str, Path] = {}
    for key, files in sorted(images.items()):
        by_channel = dict(files)
        if sorted(by_channel) != sorted(order) or len(files) > len(order):
            raise ValueError(
                f"Case '{key}' has the files {_names([path for _, path in files])}; expected one that ends in each of "
                f"{', '.join(order)}, as others have. Complete the case, or move it away."
            )
        name = re.sub(r"[^\w.-]+", "_", key) or "case"
        if name in taken:
            pair = [taken[name], files[0][1]]
            raise ValueError(f"The files {_names(pair)} would both be the case '{name}'; rename one of them.")
        taken[name] = files[0][1]
        cases.append(MatchedCase(name, [by_channel[channel] for channel in order], labels.get(key)))
    return cases


def _names(paths: Sequence[Path]) -> str:
    clash = len({path.name for path in paths}) < len(paths)
    return some(f"{path.parent.name}/{path.name}" if clash else path.name for path in paths)
