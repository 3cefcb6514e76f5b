from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from scripts.losses.segmentation import SegmentationLoss
from scripts.losses.supervised import MarginalSigmoidLoss, SupervisedLoss, contrast_loss
from scripts.networks.outputs import Contrast, SupervisedOutput


@pytest.fixture
def logits():
    return torch.randn(2, 3, 4, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def target():
    return torch.randint(0, 3, (2, 1, 4, 4, 4), generator=torch.Generator().manual_seed(1)).float()


def embeddings(seed, count=3):
    return F.normalize(torch.randn(2, count, 5, generator=torch.Generator().manual_seed(seed)), dim=-1)


class TestSupervisedLoss:
    def test_of_plain_logits_is_the_segmentation_loss(self, logits, target):
        loss = SupervisedLoss()
        assert loss(logits, target) == pytest.approx(SegmentationLoss()(logits, target).item())
        assert set(loss.terms) == {"loss", "segmentation"}

    def test_of_several_heads_is_their_weighted_sum(self, logits, target):
        low = F.avg_pool3d(logits, 2)
        output = SupervisedOutput(logits, (low,), (0.75, 0.25))
        small = F.interpolate(target, size=(2, 2, 2), mode="nearest-exact")
        expected = 0.75 * SegmentationLoss()(logits, target) + 0.25 * SegmentationLoss()(low, small)
        assert SupervisedLoss()(output, target) == pytest.approx(expected.item())

    def test_adds_the_contrasts(self, logits, target):
        contrast = Contrast(embeddings(2), embeddings(3), torch.tensor(0.5), torch.eye(3, dtype=torch.bool))
        loss = SupervisedLoss()
        total = loss(SupervisedOutput(logits, contrasts={"text": contrast}), target)
        assert total == pytest.approx((loss.terms["segmentation"] + contrast_loss(contrast)).item())
        assert loss.terms["text"] == pytest.approx(contrast_loss(contrast).item())

    def test_of_regions(self, logits):
        target = (logits > 0).float()
        expected = SegmentationLoss(softmax=False)(logits, target)
        assert SupervisedLoss(softmax=False)(logits, target) == pytest.approx(expected.item())

    def test_target_that_does_not_fit_raises(self, logits, target):
        with pytest.raises(ValueError, match="values"):
            SupervisedLoss()(logits, target + 1)


class TestContrastLoss:
    def test_by_hand(self):
        first, second = embeddings(0), embeddings(1)
        positives = torch.tensor([[1, 0, 0], [0, 1, 1], [0, 1, 1]], dtype=torch.bool)
        total = 0.0
        for b in range(2):
            for i in range(3):
                scores = [(first[b, i] @ second[b, j]).item() / 0.2 for j in range(3)]
                log_sum = torch.tensor(scores).logsumexp(0).item()
                own = [j for j in range(3) if positives[i, j]]
                total -= sum((scores[j] - log_sum) / len(own) for j in own)
        assert contrast_loss(Contrast(first, second, torch.tensor(0.2), positives)) == pytest.approx(total / 6)

    def test_symmetric_averages_both_directions(self):
        first, second, own = embeddings(0), embeddings(1), torch.eye(3, dtype=torch.bool)
        there, back = (
            contrast_loss(Contrast(a, b, torch.tensor(0.2), own)) for a, b in ((first, second), (second, first))
        )
        both = contrast_loss(Contrast(first, second, torch.tensor(0.2), own, symmetric=True))
        assert both == pytest.approx(((there + back) / 2).item())

    def test_smoothing_is_that_of_pytorch(self):
        first, second = embeddings(0), embeddings(1)
        scores = (first @ second.transpose(1, 2) / 0.2).flatten(0, 1)
        expected = F.cross_entropy(scores, torch.arange(3).repeat(2), label_smoothing=0.1)
        contrast = Contrast(first, second, torch.tensor(0.2), torch.eye(3, dtype=torch.bool), smoothing=0.1)
        assert contrast_loss(contrast) == pytest.approx(expected.item())


class TestMarginalSigmoidLoss:
    def test_perfect_prediction_costs_nothing(self, target):
        logits = 50 * (F.one_hot(target[:, 0].long(), 3).movedim(-1, 1).float() - 0.5)
        assert MarginalSigmoidLoss()(logits, target) == pytest.approx(0, abs=1e-5)

    def test_organ_on_few_slices_can_be_perfect(self):
        target = torch.zeros(1, 1, 16, 4, 4)
        target[:, :, 2:5] = 1
        logits = 50 * (torch.cat([1 - target, target], dim=1) - 0.5)
        assert MarginalSigmoidLoss()(logits, target) == pytest.approx(0, abs=1e-5)

    def test_by_hand(self, logits, target):
        wanted = F.one_hot(target[:, 0].long(), 3).movedim(-1, 1).float()
        found = logits.sigmoid()
        dice = 1 - 2 * (found * wanted).sum((2, 3, 4)) / (found.sum((2, 3, 4)) + wanted.sum((2, 3, 4)))
        bce = -(wanted * found.log() + (1 - wanted) * (1 - found).log())
        assert MarginalSigmoidLoss()(logits, target) == pytest.approx((dice.mean() + bce.mean()).item(), abs=1e-4)

    def test_unlabelled_classes_get_no_gradient(self, logits, target):
        logits.requires_grad_()
        MarginalSigmoidLoss(labelled=[0, 2])(logits, target).backward()
        assert not logits.grad[:, 1].any()
        assert logits.grad[:, [0, 2]].any()

    def test_regions_are_their_own_channels(self, logits):
        assert MarginalSigmoidLoss(softmax=False)(logits, (logits > 0).float()) > 0

    def test_no_labelled_class_raises(self):
        with pytest.raises(ValueError, match=r"at least one, or is null; found \[\]"):
            MarginalSigmoidLoss(labelled=[])
