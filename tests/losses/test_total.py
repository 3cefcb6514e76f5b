from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from monai.bundle import ConfigParser
from torch import nn

from scripts.losses.alignment import AlignmentLoss
from scripts.losses.class_embedding import ClassEmbeddingLoss
from scripts.losses.segmentation import SegmentationLoss
from scripts.losses.total import TERMS, BiPVLLoss

INDICATORS = {"top1_vision_to_text", "top1_text_to_vision", "cosine_vision", "cosine_text"}


class Constant(nn.Module):
    """A loss of a fixed value."""

    def __init__(self, value):
        super().__init__()
        self.value = torch.tensor(value)

    def forward(self, *_):
        return self.value


class ConstantAlignment(AlignmentLoss):
    def __init__(self, value):
        super().__init__()
        self.value = torch.tensor(value)

    def forward(self, output, present=None):
        return self.value, {}


def constant_total(segmentation=2.0, class_embedding=0.5, alignment=3.0):
    return BiPVLLoss(
        segmentation=Constant(segmentation),
        class_embedding=Constant(class_embedding),
        alignment=ConstantAlignment(alignment),
    )


def test_hand_computed_weighting(make_output):
    loss = constant_total()
    loss.log_variance.data = torch.tensor([0.0, math.log(2), math.log(4)])
    # 1/2 * 2 + 0;  1/2 * 1/2 * 1/2 + 1/2 log 2;  1/2 * 1/4 * 3 + 1/2 log 4
    expected = 1 + 0.125 + 0.375 + 0.5 * math.log(2) + 0.5 * math.log(4)
    assert loss(make_output(), None).item() == pytest.approx(expected)
    assert [loss.terms[f"weight_{name}"].item() for name in TERMS] == pytest.approx([0.5, 0.25, 0.125])


def test_is_the_paper_s_equation_in_sigma(make_output):
    loss = constant_total()
    sigma = torch.tensor([0.7, 1.3, 2.1])
    loss.log_variance.data = (sigma**2).log()
    values = torch.tensor([2.0, 0.5, 3.0])
    expected = (values / (2 * sigma**2) + sigma.log()).sum()
    torch.testing.assert_close(loss(make_output(), None).detach(), expected)


def test_uncertainties_settle_at_the_logarithm_of_their_losses(make_output):
    loss, output = constant_total(), make_output()
    optimiser = torch.optim.Adam(loss.parameters(), lr=0.05)
    for _ in range(400):
        optimiser.zero_grad()
        loss(output, None).backward()
        optimiser.step()
    expected = torch.tensor([2.0, 0.5, 3.0]).log()
    torch.testing.assert_close(loss.log_variance.detach(), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("softmax", [True, False])
def test_adds_up_its_parts(make_output, make_target, softmax):
    output = make_output(softmax=softmax)
    target = make_target(output, softmax)
    loss = BiPVLLoss(softmax).eval()
    loss.log_variance.data = torch.tensor([0.3, -0.2, 1.0])
    parts = torch.stack(
        [
            SegmentationLoss(softmax)(output.logits, target),
            ClassEmbeddingLoss(softmax)(output.class_map, output.logits),
            AlignmentLoss().eval()(output)[0],
        ]
    )
    s = loss.log_variance
    torch.testing.assert_close(loss(output, target), (0.5 * torch.exp(-s) * parts + 0.5 * s).sum())
    torch.testing.assert_close(torch.stack([loss.terms[name] for name in TERMS]), parts.detach())


def test_terms_are_detached_scalars_of_every_kind(make_output, make_target):
    output = make_output()
    loss = BiPVLLoss()
    value = loss(output, make_target(output))
    expected = {"loss", *TERMS, "alignment_global", "alignment_local", *INDICATORS}
    expected |= {f"weight_{name}" for name in TERMS} | {f"log_variance_{name}" for name in TERMS}
    assert set(loss.terms) == expected
    assert loss.terms["loss"] == value
    for term in loss.terms.values():
        assert term.shape == ()
        assert not term.requires_grad
    assert set(loss.state_dict()) == {"log_variance"}


def test_logged_uncertainties_do_not_change_with_a_later_step(make_output, make_target):
    output = make_output()
    loss = BiPVLLoss()
    loss(output, make_target(output))
    logged = dict(loss.terms)
    with torch.no_grad():
        loss.log_variance += 1
    assert logged["log_variance_segmentation"] == 0
    assert logged["weight_segmentation"] == 0.5


@pytest.mark.parametrize("softmax", [True, False])
def test_gradients_reach_every_input(make_output, make_target, softmax):
    output = make_output(softmax=softmax)
    loss = BiPVLLoss(softmax)
    loss(output, make_target(output, softmax)).backward()
    inputs = [output.logits, output.class_map, output.vision_embeddings, output.concept_embeddings]
    for tensor in [*inputs, loss.log_variance]:
        assert tensor.grad.isfinite().all()
        assert (tensor.grad != 0).all()


def test_decoder_learns_from_the_segmentation_loss_alone(make_output, make_target):
    output = make_output()
    target = make_target(output)
    BiPVLLoss()(output, target).backward()
    (expected,) = torch.autograd.grad(0.5 * SegmentationLoss()(output.logits, target), output.logits)
    torch.testing.assert_close(output.logits.grad, expected)


@pytest.mark.parametrize("softmax", [True, False])
def test_batch_is_the_mean_of_its_samples(make_output, make_target, softmax):
    output = make_output(batch=3, softmax=softmax)
    target = make_target(output, softmax)
    loss = BiPVLLoss(softmax).eval()

    def alone(b):
        shared = ("same_sentence", "question")
        one = {name: getattr(output, name)[b : b + 1] for name in vars(output) if name not in shared}
        return loss(replace(output, **one), target[b : b + 1])

    torch.testing.assert_close(loss(output, target), torch.stack([alone(b) for b in range(3)]).mean())


def test_permuting_classes_changes_nothing(make_output, make_target):
    output = make_output()
    target = make_target(output)
    order = torch.tensor([3, 0, 4, 1, 2])
    channels = torch.cat([torch.zeros(1, dtype=torch.long), order + 1])
    permuted = replace(
        output,
        logits=output.logits[:, channels],
        class_map=output.class_map[:, channels],
        vision_embeddings=output.vision_embeddings[:, order],
        concept_embeddings=output.concept_embeddings[:, order],
        same_sentence=output.same_sentence[order][:, order],
    )
    loss = BiPVLLoss().eval()
    before, terms = loss(output, target), loss.terms
    torch.testing.assert_close(loss(permuted, channels.argsort()[target]), before)
    torch.testing.assert_close(loss.terms, terms)


@pytest.mark.parametrize("softmax", [True, False])
def test_plain_logits_cost_the_segmentation_loss_unweighted(make_output, make_target, softmax):
    output = make_output(softmax=softmax)
    target = make_target(output, softmax)
    loss = BiPVLLoss(softmax)
    loss.log_variance.data += 2
    value = loss(output.logits, target)
    assert value == SegmentationLoss(softmax)(output.logits, target)
    assert loss.terms == {"loss": value, "segmentation": value}
    value.backward()
    assert loss.log_variance.grad.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("arguments", "off"),
    [
        ({"use_alignment": False}, "alignment"),
        ({"alignment": AlignmentLoss(global_weight=0.0, local_weight=0.0)}, "alignment"),
        ({"use_class_embedding": False}, "class_embedding"),
    ],
)
def test_switched_off_term_neither_counts_nor_drifts(make_output, make_target, arguments, off):
    output = make_output()
    loss = BiPVLLoss(**arguments).eval()
    loss.log_variance.data = torch.tensor([0.1, 0.1, 0.1])
    optimiser = torch.optim.AdamW(loss.parameters(), lr=0.1, weight_decay=0.0)
    value = loss(output, make_target(output))
    rest = [loss.terms[name].item() for name in TERMS if name != off]
    assert value.item() == pytest.approx(sum(0.5 * math.exp(-0.1) * term + 0.05 for term in rest))
    assert not [name for name in loss.terms if name.endswith(off)]
    value.backward()
    optimiser.step()
    moved = loss.log_variance.detach() != 0.1
    assert moved.tolist() == [name != off for name in TERMS]


def test_term_left_alone_is_taken_as_it_is(make_output, make_target):
    output = make_output()
    target = make_target(output)
    loss = BiPVLLoss(use_alignment=False, use_class_embedding=False)
    value = loss(output, target)
    assert value == SegmentationLoss()(output.logits, target)
    assert loss.terms["weight_segmentation"] == 1
    value.backward()
    assert loss.log_variance.grad.tolist() == [0, 0, 0]


def test_single_class_leaves_the_uncertainty_of_the_alignment_alone(make_output, make_target):
    output = make_output(classes=1)
    loss = BiPVLLoss()
    loss(output, make_target(output)).backward()
    assert loss.terms["alignment"] == 0
    assert loss.terms["weight_alignment"] == 0
    assert loss.log_variance.grad[2] == 0
    assert (loss.log_variance.grad[:2] != 0).all()
    assert output.vision_embeddings.grad.isfinite().all()


def test_presence_comes_from_the_target(make_output, make_target):
    output = make_output(batch=1)
    target = make_target(output)
    target[target == 2] = 0
    target[target == 5] = 0
    loss = BiPVLLoss(alignment=AlignmentLoss(present_only=True)).eval()
    loss(output, target)
    present = torch.tensor([[True, False, True, True, False]])
    assert loss.terms["alignment"] == AlignmentLoss(present_only=True).eval()(output, present)[0]


def test_patch_with_one_class_leaves_the_uncertainty_of_the_alignment_alone(make_output, make_target):
    output = make_output()
    target = make_target(output).clamp(max=1)
    loss = BiPVLLoss(alignment=AlignmentLoss(present_only=True))
    loss(output, target).backward()
    assert loss.terms["alignment"] == 0
    assert loss.log_variance.grad[2] == 0
    # With one more class in one sample there is something to contrast.
    target[0, 0, 0, 0, 0] = 2
    loss.log_variance.grad = None
    loss(output, target).backward()
    assert loss.terms["alignment"] > 0
    assert loss.log_variance.grad[2] != 0


def test_is_computed_in_float32_under_autocast(make_output, make_target):
    output = make_output()
    target = make_target(output)
    loss = BiPVLLoss().eval()
    expected = loss(output, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert loss(output, target) == expected
        halves = {
            k: v.bfloat16() if isinstance(v, torch.Tensor) and v.is_floating_point() else v
            for k, v in vars(output).items()
        }
        low = loss(replace(output, **halves), target)
    assert low.dtype == torch.float32
    assert {term.dtype for term in loss.terms.values()} == {torch.float32}
    torch.testing.assert_close(low, expected, rtol=0.02, atol=0.02)


def test_noise_only_in_training(make_output, make_target):
    output = make_output()
    target = make_target(output)
    loss = BiPVLLoss()
    assert loss(output, target) != loss(output, target)
    loss.eval()
    assert loss(output, target) == loss(output, target)


@pytest.mark.parametrize("name", ["logits", "class_map", "vision_embeddings"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_are_not_hidden(make_output, make_target, name, value):
    output = make_output()
    getattr(output, name).data[0, 0] = value
    assert not BiPVLLoss()(output, make_target(output)).isfinite()


def test_label_outside_the_table_raises(make_output, make_target):
    output = make_output()
    target = make_target(output)
    target[1, 0, 0, 0, 0] = 6
    for predicted in (output, output.logits):
        with pytest.raises(ValueError, match=r"values \[6(.0)?\].*0 to 5 for 6 output channels"):
            BiPVLLoss()(predicted, target)


def test_disagreement_about_the_background_raises(make_output, make_target):
    output = make_output(softmax=False)
    with pytest.raises(ValueError, match="embeds 5 classes and has 5 output channels; exclusive classes need"):
        BiPVLLoss(softmax=True)(output, make_target(output))
    output = make_output(softmax=True)
    with pytest.raises(ValueError, match="embeds 5 classes and has 6 output channels; regions need"):
        BiPVLLoss(softmax=False)(output, make_target(output, softmax=False))


def test_can_be_written_in_a_config(make_output, make_target):
    parser = ConfigParser(
        {
            "loss": {
                "_target_": "scripts.losses.total.BiPVLLoss",
                "softmax": True,
                "use_alignment": True,
                "alignment": {"_target_": "scripts.losses.alignment.AlignmentLoss", "local_weight": 0.0},
            }
        }
    )
    output = make_output()
    target = make_target(output)
    loss = parser.get_parsed_content("loss")
    loss(output, target)
    assert "alignment_global" in loss.terms
    assert "alignment_local" not in loss.terms
    parser["loss#use_alignment"] = False
    parser.parse(reset=True)
    loss = parser.get_parsed_content("loss")
    loss(output, target)
    assert "alignment" not in loss.terms


def test_state_dict_carries_the_uncertainties():
    loss, restored = BiPVLLoss(), BiPVLLoss()
    loss.log_variance.data = torch.tensor([0.1, 0.2, 0.3])
    restored.load_state_dict(loss.state_dict())
    assert torch.equal(restored.log_variance, loss.log_variance)
