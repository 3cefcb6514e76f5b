from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from scripts.data.image_kind import describe_images, require_similar_images


def case(path: Path, shape: tuple[int, ...] = (10, 12, 8), step: float = 3.0, low: float = -1000) -> dict[str, Any]:
    nib.save(nib.Nifti1Image(np.full(shape, low, dtype=np.float32), np.diag([step, step, step, 1])), path)
    return {"image": str(path), "case": path.name.split(".")[0]}


@pytest.fixture
def described(tmp_path: Path) -> dict[str, Any]:
    return describe_images([case(tmp_path / "a.nii"), case(tmp_path / "b.nii", (20, 4, 4), 2.0)])


def test_largest_edges_and_air_are_described(described: dict[str, Any]) -> None:
    assert (described["largest_mm"], described["has_air"]) == ([40.0, 30.0, 24.0], True)


def test_like_image_in_another_orientation_passes(described: dict[str, Any], tmp_path: Path) -> None:
    require_similar_images([case(tmp_path / "c.nii", (8, 10, 12))], described)
    require_similar_images([case(tmp_path / "c.nii", (400, 10, 12))], {})  # a model that does not say


def test_far_larger_image_is_asked_about(described: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'c' measures 122 x 30 x 30 mm; .* measured 40 x 30 x 24 mm.*--other_images"):
        require_similar_images([case(tmp_path / "d.nii"), case(tmp_path / "c.nii", (61, 15, 15), 2.0)], described)


@pytest.mark.parametrize(("low", "message"), [(0, "no values below -200"), (-1000, "has values below -200")])
def test_image_of_another_kind_is_asked_about(tmp_path: Path, low: float, message: str) -> None:
    other = describe_images([case(tmp_path / "a.nii", low=-1000 - low)])
    with pytest.raises(ValueError, match=f"'c' {'' if low else 'has '}{message}.*other kind"):
        require_similar_images([case(tmp_path / "c.nii", low=low)], other)
