"""Writes the embedded data set, a synthetic abdominal CT, as NIfTI in the Decathlon's layout.

Nothing in it is a patient. It is there so that every step of a real CT pipeline (orientation, spacing, HU
window, patches) has something to do on a machine without data; see `phantom_anatomy` for what it shows.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import nibabel as nib
from tqdm import tqdm

from scripts.data.phantom.anatomy import CLASS_NAMES
from scripts.data.phantom.scan import draw_case
from scripts.whole_file import whole_file

RECIPE_VERSION = 1
"""Raise it with every change of what a seed draws, so that old folders are not taken for new ones."""

_INCOMPLETE = "dataset.json.incomplete"


def ensure_phantom(
    dataset_dir: str | os.PathLike[str],
    *,
    num_training: int = 30,
    num_test: int = 6,
    seed: int = 0,
    progress: bool = True,
) -> str:
    """Return the phantom's folder; makes the data set if it is absent and completes a half-made one.

    Of several processes the first makes it, while the others wait.

    Args:
        dataset_dir: the data set's folder.
        num_training: labelled cases to train and validate on.
        num_test: further labelled cases, in section "test".
        seed: what the cases are drawn from.
        progress: show a progress bar while making.

    Raises:
        FileExistsError: the folder holds something else; it is left as it is.
        OSError: the folder cannot be written.
    """
    recipe = _recipe(num_training, num_test, seed)
    root = Path(dataset_dir).expanduser().absolute()
    with idist.one_rank_first():
        if _stored_recipe(root / "dataset.json") != recipe:
            make_phantom(root, num_training=num_training, num_test=num_test, seed=seed, progress=progress)
    return str(root)


def make_phantom(
    output_dir: str | os.PathLike[str],
    *,
    num_training: int = 30,
    num_test: int = 6,
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Write the phantom data set into a folder that is absent, empty, or half made by the same recipe.

    Every file appears under its name only when it is whole, and `dataset.json` last of all, so that an
    interrupted run leaves no folder that passes for a data set; the next run goes on where it stopped. A case
    depends on the seed, its section and its number alone, not on how many are made.

    Args:
        output_dir: the data set's folder.
        num_training: cases for `imagesTr` and `labelsTr`.
        num_test: cases for `imagesTs` and `labelsTs`.
        seed: what the cases are drawn from.
        progress: show a progress bar.

    Raises:
        ValueError: a number of cases that is no data set, or a negative seed.
        FileExistsError: the folder holds something else; it is left as it is.
        OSError: the folder cannot be written.
    """
    recipe = _recipe(num_training, num_test, seed)
    root = Path(output_dir).expanduser().absolute()
    _check_free(root, recipe)
    description = _describe(recipe)
    try:
        for folder in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        (root / _INCOMPLETE).write_text(json.dumps(description, indent=4) + "\n", encoding="utf-8")
        _write_cases(root, description, seed, progress)
        os.replace(root / _INCOMPLETE, root / "dataset.json")
    except OSError as error:
        if _stored_recipe(root / "dataset.json") == recipe:
            return root  # another process made the same data set meanwhile
        raise OSError(
            f"The phantom data set cannot be written to '{root}': {error}. Expected a folder that can be "
            "made and written, with about 0.5 MB free for each case; set `dataset_dir` to another folder or "
            "free some space."
        ) from error
    return root


def _recipe(num_training: int, num_test: int, seed: int) -> dict[str, int]:
    if num_training < 1 or num_test < 0 or seed < 0:
        raise ValueError(
            "The phantom needs num_training >= 1, num_test >= 0 and seed >= 0, "
            f"got num_training={num_training}, num_test={num_test}, seed={seed}."
        )
    return {"version": RECIPE_VERSION, "seed": seed, "num_training": num_training, "num_test": num_test}


def _stored_recipe(path: Path) -> Any:
    """Return the recipe in a phantom's `dataset.json`, or None for any other file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content.get("phantom_recipe") if isinstance(content, dict) else None


def _check_free(root: Path, recipe: dict[str, int]) -> None:
    """Raise an error if a folder holds anything but this recipe's half-made data set."""
    if not root.is_dir() or not any(root.iterdir()):
        return
    complete, half_made = _stored_recipe(root / "dataset.json"), _stored_recipe(root / _INCOMPLETE)
    if half_made == recipe and not (root / "dataset.json").exists():
        return
    found = complete or half_made
    what = f"a phantom data set of another recipe, {found}" if found else "something that is not a phantom data set"
    raise FileExistsError(
        f"'{root}' holds {what}; expected an absent or empty folder, or the phantom {recipe}. Nothing was "
        "changed. Set `dataset_dir` to another folder, or delete this one to have the phantom made again; "
        "for data of your own, add the overlay of your data set to --config_file."
    )


def _describe(recipe: dict[str, int]) -> dict[str, Any]:
    """Return the content of `dataset.json`."""
    sections = {"training": ("Tr", "train", "num_training"), "test": ("Ts", "test", "num_test")}
    entries = {
        section: [
            {
                "image": f"./images{suffix}/phantom_{word}_{index + 1:03d}.nii.gz",
                "label": f"./labels{suffix}/phantom_{word}_{index + 1:03d}.nii.gz",
            }
            for index in range(recipe[number])
        ]
        for section, (suffix, word, number) in sections.items()
    }
    return {
        "name": "Phantom",
        "description": "Procedural abdominal CT phantom: eight structures in HU, drawn at random",
        "licence": "Apache-2.0",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {"0": "background", **{str(i): name for i, name in enumerate(CLASS_NAMES, start=1)}},
        "numTraining": recipe["num_training"],
        "numTest": recipe["num_test"],
        "phantom_recipe": recipe,
        **entries,
    }


def _write_cases(root: Path, description: dict[str, Any], seed: int, progress: bool) -> None:
    jobs = [
        (number, index, root / entry["image"], root / entry["label"])
        for number, section in enumerate(("training", "test"))
        for index, entry in enumerate(description[section])
    ]
    for number, index, image_path, label_path in tqdm(
        jobs, desc="Making the phantom data set", unit="case", disable=not progress
    ):
        if image_path.exists() and label_path.exists():
            continue
        case = draw_case(seed, number, index)
        _save(case.image, image_path)
        _save(case.label, label_path)


def _save(image: nib.Nifti1Image, path: Path) -> None:
    with whole_file(path) as partial:
        nib.save(image, partial)
