"""With the weights that come with the bundle, on a phantom that they have not seen."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from scripts.app.difference import changed_voxels, changes, most_changed, slices
from scripts.app.segmenter import Limits, Segmented, WordSegmenter
from scripts.data.phantom.scan import draw_case

KIDNEYS = ("right kidney", "left kidney")


@pytest.fixture(scope="module")
def segmenter(bundle_root: Path) -> WordSegmenter:
    return WordSegmenter(bundle_root, device="cpu")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("volume") / "body.nii.gz"
    nib.save(draw_case(99, 1, 0).image, path)
    return path


@pytest.fixture(scope="module")
def before(segmenter: WordSegmenter, image: Path) -> Segmented:
    return segmenter.segment(image)


def exchanged(rows: list[list[str]]) -> list[list[str]]:
    words = {row[0]: row[1:] for row in rows}
    words[KIDNEYS[0]], words[KIDNEYS[1]] = words[KIDNEYS[1]], words[KIDNEYS[0]]
    return [[name, *row] for name, row in words.items()]


def test_exchanged_words_exchange_the_masks(segmenter: WordSegmenter, image: Path, before: Segmented) -> None:
    after = segmenter.segment(image, segmenter.table_of(exchanged(segmenter.rows)))
    right, left = (before.classes.index(name) + 1 for name in KIDNEYS)
    assert ((before.labels == right) & (after.labels == left)).sum() > 0.9 * (before.labels == right).sum() > 0
    rows = {row[0]: row for row in changes(before, after)}
    assert rows["right kidney"][1] == rows["left kidney"][2]
    assert int(rows["liver"][3]) < 0.01 * (before.labels == before.classes.index("liver") + 1).sum()
    assert changed_voxels(before, after) > 100


def test_words_of_a_request_stay_with_it(segmenter: WordSegmenter, image: Path, before: Segmented) -> None:
    segmenter.segment(image, segmenter.table_of(exchanged(segmenter.rows)))
    np.testing.assert_array_equal(segmenter.segment(image).labels, before.labels)


def test_other_words_do_not_see_the_image_again(segmenter: WordSegmenter, image: Path, before: Segmented) -> None:
    segmenter.segment(image)
    told: list[str] = []
    segmenter.segment(image, segmenter.table_of(exchanged(segmenter.rows)), lambda share, text: told.append(text))
    assert told == ["back to the grid of the file"]


def test_masks_are_those_of_the_inference(segmenter: WordSegmenter, image: Path, before: Segmented) -> None:
    case = segmenter.preprocess({"image": str(image)})
    with torch.inference_mode():
        logits = segmenter.inferer(case["image"][None], segmenter.network)[0]
    labels = segmenter.to_labels({**case, "pred": logits})["pred"]
    counts = np.bincount(labels.numpy().ravel().astype(int), minlength=9)
    found = np.bincount(before.labels.ravel(), minlength=9)
    np.testing.assert_allclose(found, counts, rtol=1e-3)


def test_removed_class_is_not_asked_for(segmenter: WordSegmenter, image: Path, before: Segmented) -> None:
    after = segmenter.segment(image, segmenter.table_of(segmenter.rows[1:]))
    rows = changes(before, after)
    assert rows[0][0] == before.classes[0]
    assert rows[0][2] == "not asked for"
    assert int(rows[0][3]) > 0
    assert [row[0] for row in rows] == list(before.classes)


def test_progress_counts_the_windows(segmenter: WordSegmenter, image: Path) -> None:
    told: list[tuple[float, str]] = []
    segmenter._last = {}
    segmenter.segment(image, progress=lambda share, text: told.append((share, text)))
    windows = [text.split() for _, text in told[:-1]]
    assert windows[-1][1] == windows[-1][3]
    assert [share for share, _ in told] == sorted(share for share, _ in told)


def test_limit_of_time_stops_a_request(segmenter: WordSegmenter, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segmenter, "limits", Limits(seconds=0))
    monkeypatch.setattr(segmenter, "_last", {})
    with pytest.raises(TimeoutError, match="longer than 0 s"):
        segmenter.segment(image)


def test_large_or_broken_files_are_refused(
    segmenter: WordSegmenter, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmenter, "limits", Limits(voxels=100))
    with pytest.raises(ValueError, match=r"body\.nii\.gz' has the shape"):
        segmenter.segment(image)
    (tmp_path / "x.nii").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"'x\.nii' cannot be read"):
        segmenter.segment(tmp_path / "x.nii")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [[*rows[0][:2], "", *rows[0][3:]], *rows[1:]], "'shape' of 'spleen' is empty"),
        (lambda rows: [["", *rows[0][1:]], *rows[1:]], "has no name for its class"),
        (lambda rows: [rows[0], rows[0]], "class 'spleen' is there twice"),
        (lambda rows: [["other", *rows[0][1:]], *rows], "same words"),
        (lambda rows: [[rows[0][0], "x" * 601, *rows[0][2:]]], "more than 600 letters"),
        (lambda rows: [[f"c{i}", *rows[0][1:]] for i in range(41)], "41 classes; at most 40"),
        (lambda rows: [], "no class to segment"),
        (lambda rows: [[None] * len(rows[0])], "no class to segment"),
    ],
)
def test_words_that_cannot_be_asked_for(segmenter: WordSegmenter, change, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        segmenter.table_of(change(segmenter.rows))


def test_unchanged_rows_are_the_bundles_table(segmenter: WordSegmenter) -> None:
    assert segmenter.table_of(segmenter.rows) is segmenter.table


def test_masks_are_those_of_the_options_of_the_inference(bundle_root: Path, image: Path, before: Segmented) -> None:
    options = {"mirror_axes": [0], "ensemble": [str(bundle_root / "models/model.pt")], "remove_smaller": {"aorta": 1e4}}
    looking = WordSegmenter(bundle_root, device="cpu", **options)
    told: list[str] = []
    found = looking.segment(image, progress=lambda share, text: told.append(text))
    case = looking.preprocess({"image": str(image)})
    with torch.inference_mode():
        pred = looking.inferer(case["image"][None], looking.network)[0]
    expected = looking.clean(looking.to_labels({**case, "pred": pred}))["pred"]
    counts = np.bincount(expected.numpy().ravel().astype(int), minlength=9)
    np.testing.assert_allclose(np.bincount(found.labels.ravel(), minlength=9), counts, rtol=1e-3)
    assert (found.labels != before.labels).any()
    aorta = before.classes.index("aorta") + 1
    assert (before.labels == aorta).any()
    assert not (found.labels == aorta).any()
    windows = [text for text in told if text.startswith("window")]
    assert windows[-1] == f"window {len(windows)} of {len(windows)}"
    assert len(windows) % 4 == 0
    after = looking.segment(image, looking.table_of(exchanged(looking.rows)))
    right, left = (before.classes.index(name) + 1 for name in KIDNEYS)
    assert ((found.labels == right) & (after.labels == left)).sum() > 0.9 * (found.labels == right).sum() > 0


def test_folder_that_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is no bundle"):
        WordSegmenter(tmp_path)


def test_slices_show_before_after_and_changes(before: Segmented) -> None:
    labels = before.labels.copy()
    labels[:, :, 3] = 0
    labels[4:6, 4:6, 3] = 1
    after = Segmented(**{**vars(before), "labels": labels})
    index = most_changed(before, after, "axial")
    assert index == 3
    first, second, changed = slices(before, after, "axial", index)
    assert first.shape == second.shape == changed.shape
    assert max(first.shape) == 400
    assert first.dtype == np.uint8
    coloured = (changed[..., 0] > changed[..., 2]).sum() / changed[..., 0].size
    share = (before.labels[:, :, 3] != labels[:, :, 3]).mean()
    assert coloured == pytest.approx(share, abs=0.02)
