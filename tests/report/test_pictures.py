from __future__ import annotations

import numpy as np
import pytest

from scripts.report.pictures import comparison_figure, own_window


@pytest.fixture
def volumes():
    labels = np.zeros((12, 10, 8), dtype=int)
    labels[1:4, 3:7, 5] = 1  # low x: the patient's left
    labels[8:11, 3:7, 5] = 2
    return labels.astype(float), labels, np.zeros_like(labels)


def axial_picture(figure, column):
    return figure.axes[3 + column].images


def test_slice_with_most_classes_is_shown(volumes):
    figure = comparison_figure(*volumes, ["left", "right"])
    shown = axial_picture(figure, 0)[0].get_array()
    np.testing.assert_array_equal(shown, volumes[0][:, :, 5].T[:, ::-1])


def test_patients_right_is_on_the_left_of_the_picture(volumes):
    labels = axial_picture(comparison_figure(*volumes, ["left", "right"]), 1)[1].get_array()
    columns_of_right_structure = np.nonzero((labels == 2).filled(False).any(axis=0))[0]
    assert columns_of_right_structure.max() < 6


def test_background_of_labels_is_transparent(volumes):
    labels = axial_picture(comparison_figure(*volumes, ["left", "right"]), 2)[1].get_array()
    assert labels.mask.all()


def test_pixels_have_the_shape_of_voxels(volumes):
    figure = comparison_figure(*volumes, ["left", "right"], spacing=(2.0, 3.0, 5.0))
    assert figure.axes[0].get_aspect() == 2.5
    assert figure.axes[3].get_aspect() == 1.5


def test_different_grids_raise(volumes):
    image, reference, prediction = volumes
    with pytest.raises(ValueError, match="differ in shape"):
        comparison_figure(image, reference, prediction[:-1], ["left", "right"])


def test_more_classes_than_colours_raise(volumes):
    with pytest.raises(ValueError, match="colours for 15 classes; found 16"):
        comparison_figure(*volumes, [str(i) for i in range(16)])


def test_sides_are_marked(volumes):
    figure = comparison_figure(*volumes, ["left", "right"])
    for axes in figure.axes[:6]:
        places = {text.get_text(): text.get_position()[0] for text in axes.texts}
        assert places["R"] < 0.5 < places["L"]


def test_own_window_leaves_out_air_and_outliers():
    image = np.concatenate([np.zeros(500), np.linspace(100, 200, 1001), [1e6]])
    low, high = own_window(image)
    assert 100 < low < 102
    assert 198 < high < 201
