from __future__ import annotations

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from scripts.report.case_figure import boxes, case_figure, focus


def test_planes_go_through_the_densest_error(labels: np.ndarray) -> None:
    wrong = labels.copy()
    wrong[7:10, 3:6, 3:7] = 0
    x, y, z = focus(labels, [wrong])
    assert labels[x, y, z] == 2


def test_planes_go_through_the_labels_where_nothing_is_wrong(labels: np.ndarray) -> None:
    one = np.where(labels == 2, 2, 0)
    x, y, z = focus(one, [one])
    assert one[x, y, z] == 2


def test_empty_volume_is_seen_in_its_middle() -> None:
    assert focus(np.zeros((6, 4, 8), dtype=int), []) == (3, 2, 4)


def test_boxes_hold_the_wrong_pixels_with_a_margin() -> None:
    wrong = np.zeros((10, 20), dtype=bool)
    wrong[4:6, 12:15] = True
    assert list(boxes(wrong)) == [(10.5, 2.5, 5, 4)]


def test_no_box_where_nothing_is_wrong(labels: np.ndarray) -> None:
    figure = case_figure(labels * 1.0, labels, {"good": labels, "bad": np.roll(labels, 2, 0)}, ["a", "b"])
    drawn = [sum(isinstance(patch, Rectangle) for patch in axes.patches) for axes in figure.axes]
    columns = np.array(drawn).reshape(3, 4).sum(axis=0)
    assert columns[:3].tolist() == [0, 0, 0]
    assert columns[3] > 0


def test_one_column_for_each_model_beside_image_and_reference(labels: np.ndarray) -> None:
    figure = case_figure(labels * 1.0, labels, {"ours": labels, "theirs": labels}, ["a", "b"], spacing=(1, 2, 4))
    assert [axes.get_title() for axes in figure.axes[:4]] == ["image", "reference", "ours", "theirs"]
    assert [figure.axes[4 * row].get_aspect() for row in range(3)] == [2.0, 4.0, 2.0]


def test_background_is_transparent(labels: np.ndarray) -> None:
    figure = case_figure(labels * 1.0, labels, {}, ["a", "b"])
    shown = figure.axes[1].images[1].get_array()
    assert (shown.mask == (shown.data == 0)).all()


def test_other_grid_raises(labels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        case_figure(labels * 1.0, labels, {"other": labels[:-1]}, ["a", "b"])
