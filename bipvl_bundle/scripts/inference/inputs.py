"""Inputs of inference: reads a file, a folder of files or a datalist into MONAI's list of dictionaries."""

from __future__ import annotations

from pathlib import Path

from scripts.data.cases import Item, images_of
from scripts.data.datalist import NIFTI_SUFFIXES, PathLike, absolute, case_name, load_datalist, require_unique


def inference_items(path: PathLike, section: str = "test") -> list[Item]:
    """Return the cases to segment: of one NIfTI file, a folder of NIfTI files, or a datalist.

    Args:
        path: a `.nii` or `.nii.gz` file; a folder, whose NIfTI files are taken in the order of their names
            (hidden files and subfolders are not); or a datalist `.json`, the way to give several files a
            case.
        section: which list of a datalist.

    Returns:
        `{"image": path or list of paths, "case": name}`, paths absolute.

    Raises:
        FileNotFoundError: nothing at `path`, or a folder without NIfTI files.
        ValueError: a file of another type, a malformed datalist, or two files of one case.
    """
    source = absolute(path)
    if not source.exists():
        raise FileNotFoundError(
            f"There is nothing at '{source}'; expected a NIfTI file ({', '.join(NIFTI_SUFFIXES)}), a folder "
            "of them, or a datalist (.json)."
        )
    if source.is_dir():
        return _folder_items(source)
    if source.suffix == ".json":
        return _require_distinct_outputs(load_datalist(source, section, labelled=False), source)
    if not source.name.endswith(NIFTI_SUFFIXES):
        raise ValueError(
            f"'{source}' is no input that can be read: expected a NIfTI file ({', '.join(NIFTI_SUFFIXES)}), "
            "a folder of them, or a datalist (.json). Convert it to NIfTI first."
        )
    return [{"image": str(source), "case": case_name(source.name)}]


def _require_distinct_outputs(items: list[Item], datalist: Path) -> list[Item]:
    """Raise an error if two images have one name, since label maps are named after their images."""
    seen: dict[str, str] = {}
    for item in items:
        image = images_of(item)[0]
        name = case_name(image)
        if name in seen:
            raise ValueError(
                f"'{datalist}' lists two images named '{name}', {seen[name]} and {image}; their label maps would "
                "overwrite each other. Rename one, or segment them into two folders."
            )
        seen[name] = image
    return items


def _folder_items(folder: Path) -> list[Item]:
    visible = [p for p in sorted(folder.iterdir()) if p.is_file() and not p.name.startswith(".")]
    files = [p for p in visible if p.name.endswith(NIFTI_SUFFIXES)]
    if not files:
        has_datalist = (folder / "dataset.json").is_file()
        advice = "Give its dataset.json, or its folder of images." if has_datalist else "Subfolders are not read."
        raise FileNotFoundError(
            f"'{folder}' holds no NIfTI file ({', '.join(NIFTI_SUFFIXES)}) among its {len(visible)} files. {advice}"
        )
    return require_unique([{"image": str(p), "case": case_name(p.name)} for p in files], f"folder '{folder}'")
