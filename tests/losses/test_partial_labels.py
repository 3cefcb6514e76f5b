"""What losses read of cases that label some of the classes only."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from scripts.losses.partial_labels import labelled_classes, labelled_part
from scripts.losses.segmentation import SegmentationLoss
from scripts.losses.total import BiPVLLoss
from scripts.networks.outputs import AskedClasses


def partly(output, labelled, classes=(0, 1, 2, 3, 4)):
    return replace(output, question=AskedClasses(classes, 5, False, labelled))


class TestExclusiveClasses:
    def test_background_takes_in_the_probability_of_what_is_not_labelled(self):
        logits = torch.tensor([0.2, 1.0, -0.5, 2.0]).reshape(1, 4, 1, 1, 1)
        merged, _ = labelled_part(logits, torch.zeros(1, 1, 1, 1, 1), [True, False, False])
        whole, part = logits.softmax(dim=1).flatten(), merged.softmax(dim=1).flatten()
        assert part.tolist() == pytest.approx([(whole[0] + whole[2] + whole[3]).item(), whole[1].item()])

    def test_labels_are_numbered_anew(self):
        target = torch.tensor([0, 2, 3, 2]).reshape(1, 1, 4, 1, 1)
        _, found = labelled_part(torch.zeros(1, 4, 4, 1, 1), target, [False, True, True])
        assert found.flatten().tolist() == [0, 1, 2, 1]

    def test_an_unlabelled_class_costs_nothing_where_the_target_has_background(self):
        target = torch.zeros(1, 1, 2, 2, 2)
        certain = torch.full((1, 3, 2, 2, 2), -20.0)
        certain[:, 2] = 20.0  # all of it is the second class, which is not labelled
        loss = SegmentationLoss()(*labelled_part(certain, target, [True, False]))
        plain = SegmentationLoss()(certain, target)
        background = torch.tensor([20.0, -20.0]).reshape(1, 2, 1, 1, 1).expand(1, 2, 2, 2, 2)
        assert loss.item() == pytest.approx(SegmentationLoss()(background, target).item(), abs=1e-5)
        assert plain - loss > 10

    def test_an_unlabelled_class_gives_way_to_a_labelled_one(self):
        logits = torch.zeros(1, 3, 1, 1, 1, requires_grad=True)
        SegmentationLoss()(*labelled_part(logits, torch.ones(1, 1, 1, 1, 1), [True, False])).backward()
        assert logits.grad[0, 2] > 0


def test_of_regions_the_unlabelled_ones_are_left_out(make_output, make_target):
    output = make_output(batch=1, softmax=False)
    target = make_target(output, False)
    logits, found = labelled_part(output.logits, target, [True, False, True, False, False], softmax=False)
    assert torch.equal(logits, output.logits[:, [0, 2]])
    assert torch.equal(found, target[:, [0, 2]])


def test_nothing_labelled_raises():
    with pytest.raises(ValueError, match="none is labelled"):
        labelled_part(torch.zeros(1, 3, 1, 1, 1), torch.zeros(1, 1, 1, 1, 1), [False, False])


@pytest.mark.parametrize("softmax", [True, False])
class TestTotal:
    def target(self, output, make_target, softmax):
        """A target in which the classes 2 and 4 are not labelled."""
        target = make_target(output, softmax)
        if softmax:
            return torch.where((target == 3) | (target == 5), 0, target)
        return target * torch.tensor([1, 1, 0, 1, 0]).reshape(1, 5, 1, 1, 1)

    def test_unlabelled_classes_have_no_part_in_segmentation_and_alignment(self, make_output, make_target, softmax):
        output = make_output(softmax=softmax)
        labelled = ((True, True, False, True, False),) * 2
        loss = BiPVLLoss(softmax, use_class_embedding=False).eval()
        loss(partly(output, labelled), self.target(output, make_target, softmax)).backward()
        assert not output.vision_embeddings.grad[:, [2, 4]].any()
        assert output.vision_embeddings.grad[:, [0, 1, 3]].flatten(2).any(dim=2).all()
        if not softmax:
            assert not output.logits.grad[:, [2, 4]].any()

    def test_all_labelled_is_the_ordinary_loss(self, make_output, make_target, softmax):
        output = make_output(softmax=softmax)
        target = make_target(output, softmax)
        loss = BiPVLLoss(softmax).eval()
        assert loss(partly(output, ((True,) * 5,) * 2), target).item() == pytest.approx(loss(output, target).item())

    def test_batch_of_two_data_sets_is_the_mean_of_its_samples(self, make_output, make_target, softmax):
        output = make_output(softmax=softmax)
        target = self.target(output, make_target, softmax)
        labelled = ((True, True, False, True, False), (False, True, False, True, False))
        target[1] = torch.where(target[1] == 1, 0, target[1]) if softmax else target[1]
        loss = BiPVLLoss(softmax, use_class_embedding=False, use_alignment=False)
        singly = [
            loss(
                replace(
                    partly(output, labelled[i : i + 1]),
                    logits=output.logits[i : i + 1],
                    class_map=output.class_map[i : i + 1],
                    vision_embeddings=output.vision_embeddings[i : i + 1],
                    concept_embeddings=output.concept_embeddings[i : i + 1],
                ),
                target[i : i + 1],
            ).item()
            for i in range(2)
        ]
        assert loss(partly(output, labelled), target).item() == pytest.approx(sum(singly) / 2, rel=1e-5)


def test_mask_of_labelled_classes(make_output):
    output = make_output(classes=2)
    assert labelled_classes(output).all()
    partial = replace(output, question=AskedClasses((1, 0), 2, False, ((True, False), (True, True))))
    assert labelled_classes(partial).tolist() == [[True, False], [True, True]]
