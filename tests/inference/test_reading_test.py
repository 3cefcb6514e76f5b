"""The reading test on networks whose answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.inferers import SimpleInferer

from scripts.inference.reading_report import ReadingReport
from scripts.inference.reading_test import ReadingTest
from scripts.words.wordings import wordings

CLASSES = 3


def report(table, dice_of):
    """A report on one case, from a function of a wording that gives its N x N matrix of DSC."""
    asked = wordings(table)
    return ReadingReport(asked, np.stack([dice_of(wording) for wording in asked])[:, None])


def follows_the_words(wording):
    """Each channel finds the class that its words describe, and nothing where they mean nothing."""
    matrix = np.zeros((CLASSES, CLASSES))
    if wording.kind != "meaningless":
        matrix[np.arange(CLASSES), list(wording.meant)] = 0.9
    return matrix


class TestReport:
    def test_model_that_reads(self, table):
        found = report(table, follows_the_words)
        assert found.reads is True
        assert found.verdict().startswith("The words decide what is segmented")
        rows = {row["wording"]: row for row in found.rows()}
        exchanged = rows["right kidney and left kidney exchanged"]
        assert (exchanged["dice_own"], exchanged["dice_words"]) == ("0.3000", "0.9000")
        assert rows["meaningless words"]["missed"] == CLASSES

    def test_model_that_does_not_read(self, table):
        found = report(table, lambda wording: 0.9 * np.eye(CLASSES))
        assert found.reads is False
        assert found.verdict().startswith("The words are not read")

    def test_model_that_is_disturbed_and_no_more(self, table):
        found = report(table, lambda wording: (0.9 if wording.kind == "right" else 0.6) * np.eye(CLASSES))
        assert found.reads is None
        assert found.verdict().startswith("The words take part without deciding")

    def test_class_that_no_case_holds_does_not_count(self, table):
        def dice_of(wording):
            matrix = follows_the_words(wording)
            matrix[:, 2] = np.nan
            return matrix

        assert report(table, dice_of).own[0] == pytest.approx(0.9)

    def test_files_and_text_hold_the_table_and_the_verdict(self, table, tmp_path: Path):
        found = report(table, follows_the_words)
        found.write(tmp_path)
        assert found.verdict() in (tmp_path / "reading.md").read_text()
        assert (tmp_path / "reading.csv").read_text().splitlines()[1] == "right words,right,0.9000,0.9000,0"
        assert found.verdict() in found.text()
        assert "| shape alone | 0.900 |  | 0 |" in (tmp_path / "reading.md").read_text()


class TestRun:
    @pytest.fixture
    def case(self):
        generator = torch.Generator().manual_seed(5)
        image = torch.randn(1, 1, 64, 32, 32, generator=generator)
        return {"image": image, "label": torch.randint(0, CLASSES + 1, image.shape, generator=generator).float()}

    @pytest.mark.parametrize("head", ["words", "channels"])
    def test_scores_are_those_of_each_wording_alone(self, make_network, awaken, table, case, head, tmp_path):
        network = awaken(make_network(head=head))
        test = ReadingTest(network, table, [case], SimpleInferer(), output_dir=tmp_path, at_once=3)
        found = test.run()
        assert not network.training
        for row, wording in enumerate(wordings(table)):
            with torch.no_grad():
                labels = network.with_concepts(wording.table)(case["image"]).argmax(dim=1)
            expected = [_dice(labels == n, case["label"][:, 0] == n) for n in range(1, CLASSES + 1)]
            assert found.own[row] == pytest.approx(np.mean(expected), abs=1e-6)

    def test_regions_are_scored_by_channel(self, make_network, awaken, table, tmp_path, case):
        network = awaken(make_network(head="words", softmax=False)).eval()
        label = torch.cat([case["label"].eq(n) for n in range(1, CLASSES + 1)], dim=1).float()
        test = ReadingTest(
            network, table, [{**case, "label": label}], SimpleInferer(), softmax=False, output_dir=tmp_path
        )
        with torch.no_grad():
            masks = network(case["image"])[0] > 0
        expected = [_dice(mask, reference == 1) for mask, reference in zip(masks, label[0], strict=True)]
        assert test.run().own[0] == pytest.approx(np.mean(expected), abs=1e-6)

    def test_network_without_words_raises(self, table, tmp_path):
        with pytest.raises(ValueError, match="A Conv3d reads no words"):
            ReadingTest(torch.nn.Conv3d(1, 4, 1), table, [], SimpleInferer(), output_dir=tmp_path)

    def test_no_case_raises(self, make_network, table, tmp_path):
        with pytest.raises(ValueError, match="There is no case to test on"):
            ReadingTest(make_network(head="words"), table, [], SimpleInferer(), output_dir=tmp_path).run()


def _dice(prediction, reference):
    return float(2 * (prediction & reference).sum() / (prediction.sum() + reference.sum()))
