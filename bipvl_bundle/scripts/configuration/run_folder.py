"""Name of the folder of a training run."""

from __future__ import annotations

from collections.abc import Sequence


def folder_name(dataset_name: str, variant: Sequence[str] = (), fold: int = 0, seed: int = 0) -> str:
    """Return a name that runs of another data set, other overlays, another fold or another seed do not have.

    Args:
        dataset_name: of the data set.
        variant: one word or more for each overlay that changes the training, in their order.
        fold: held out; 0 is not told.
        seed: of the run; 0 is not told.
    """
    numbers = {"fold": fold, "seed": seed}
    return "_".join([dataset_name, *variant, *(f"{key}{value}" for key, value in numbers.items() if value)])
