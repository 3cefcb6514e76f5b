from __future__ import annotations

import numpy as np
import pytest

from scripts.geometry.grid import corner_distance, ras_grid


def test_axes_are_put_along_right_anterior_superior() -> None:
    affine = np.zeros((4, 4))
    affine[2, 0], affine[0, 1], affine[1, 2], affine[3, 3] = 3.0, -1.0, 2.0, 1.0  # stored as S, L, A
    grid = ras_grid(affine, (10, 20, 30))
    assert grid == ((20, 30, 10), (1.0, 2.0, 3.0), "SLA")
    assert grid.resampled((2.0, 2.0, 2.0)) == (10, 30, 14)  # 19 / 2 + 1, 29 + 1, 27 / 2 + 1


@pytest.mark.parametrize(
    ("affine", "shape", "message"),
    [
        (np.diag([1.0, 0.0, 1.0, 1.0]), (2, 2, 2), "three directions"),
        (np.diag([1.0, np.nan, 1.0, 1.0]), (2, 2, 2), "three directions"),
        (np.eye(4), (2, 2), "3 spatial dimensions, found 2"),
    ],
)
def test_no_grid(affine: np.ndarray, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ras_grid(affine, shape)


def test_corner_distance_is_that_of_the_farthest_corner() -> None:
    assert corner_distance(np.eye(4), np.diag([1.0, 1.5, 1.0, 1.0]), (5, 3, 9)) == pytest.approx(1.0)
    shifted = np.eye(4)
    shifted[:3, 3] = 3.0, 4.0, 0.0
    assert corner_distance(np.eye(4), shifted, (5, 3, 9)) == pytest.approx(5.0)
    both = shifted @ np.diag([2.0, 1.0, 1.0, 1.0])
    assert corner_distance(np.eye(4), both, (5, 3, 9)) == pytest.approx(np.hypot(4 + 3, 4))
