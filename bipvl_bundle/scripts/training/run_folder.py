"""Check that a training replaces no other run's models."""

from __future__ import annotations

from pathlib import Path

BEST, LAST = "model.pt", "last.pt"


def require_own_folder(
    folder: str | Path, *, resume: bool = False, start_from: str | Path | None = None, overwrite: bool = False
) -> None:
    """Raise an error if a new run would replace the models of another one.

    Args:
        folder: where the run saves its models.
        resume: the run continues that of `last.pt` in the folder.
        start_from: the model that it starts from; one in the folder stays beside the new one (`StartingModel`).
        overwrite: replace what is there.

    Raises:
        FileExistsError: the folder holds a model or a state, and none of the three allows to write there.
    """
    folder = Path(folder)
    there = [name for name in (BEST, LAST) if (folder / name).is_file()]
    continues = resume and LAST in there
    starts_here = start_from is not None and Path(start_from).resolve().parent == folder.resolve()
    if there and not (continues or starts_here or overwrite):
        raise FileExistsError(
            f"'{folder}' holds {' and '.join(there)} of another run, which this one would replace. Continue that run "
            "(--resume True, which needs last.pt), start from its model (--start_from), give this run a folder of its "
            "own (--output_dir FOLDER), or replace it (--overwrite True)."
        )
