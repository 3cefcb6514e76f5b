from __future__ import annotations

import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from scripts.losses.alignment import AlignmentLoss, aggregate_concepts
from scripts.networks.outputs import BiPVLOutput


def plain_alignment(output, present=None, temperature=0.2, hard_negatives=3):
    """Equations 4 to 8 in NumPy, with a loop for every index: (global, local)."""
    vision = output.vision_embeddings.detach().double().numpy()
    concepts = output.concept_embeddings.detach().double().numpy()
    same = output.same_sentence.numpy()
    batch, classes, kinds, _ = concepts.shape

    def row_loss(similarities, own, negatives, limit):
        chosen = sorted((similarities[j] for j in negatives), reverse=True)[:limit]
        positive = math.exp(similarities[own] / temperature)
        return -math.log(positive / (positive + sum(math.exp(s / temperature) for s in chosen)))

    global_total, local_total = 0.0, 0.0
    for b in range(batch):
        taking_part = [i for i in range(classes) if present is None or present[b][i]]
        text = []
        for i in range(classes):
            weights = np.exp([vision[b, i] @ concepts[b, i, k] for k in range(kinds)])
            weights /= weights.sum()
            summed = sum(weights[k] * concepts[b, i, k] for k in range(kinds))
            text.append(summed / np.linalg.norm(summed))
        for i in taking_part:
            others = [j for j in taking_part if j != i]
            to_text = row_loss([vision[b, i] @ t for t in text], i, others, None)
            to_vision = row_loss([text[i] @ v for v in vision[b]], i, others, None)
            global_total += (to_text + to_vision) / 2 / len(taking_part) / batch
            for k in range(kinds):
                wrong = [j for j in others if not same[i, j, k]]
                rows = [vision[b, i] @ concepts[b, j, k] for j in range(classes)]
                columns = [concepts[b, i, k] @ vision[b, j] for j in range(classes)]
                both = row_loss(rows, i, wrong, hard_negatives) + row_loss(columns, i, wrong, hard_negatives)
                local_total += both / (2 * kinds) / len(taking_part) / batch
    return global_total, local_total


def sample(output, index):
    shared = {"same_sentence": output.same_sentence, "question": output.question}
    parts = {f.name: getattr(output, f.name)[index : index + 1] for f in fields(output) if f.name not in shared}
    return BiPVLOutput(**parts, **shared)


def orthogonal_pair():
    """Two classes, two concepts; everything of a class on its own axis."""
    axes = torch.eye(2).unsqueeze(0)
    return BiPVLOutput(
        logits=torch.zeros(1, 3, 2, 2, 2),
        class_map=torch.zeros(1, 3, 1, 1, 1),
        vision_embeddings=axes,
        concept_embeddings=axes.unsqueeze(2).repeat(1, 1, 2, 1),
        same_sentence=torch.eye(2, dtype=torch.bool).unsqueeze(-1).repeat(1, 1, 2),
    )


def test_hand_computed_case():
    # Every positive has cosine 1 and every negative 0, in all rows of all terms.
    loss, terms = AlignmentLoss().eval()(orthogonal_pair())
    row = math.log(1 + math.exp(-1 / 0.2))
    assert terms["alignment_global"].item() == pytest.approx(row, abs=1e-6)
    assert terms["alignment_local"].item() == pytest.approx(row, abs=1e-6)
    assert loss.item() == pytest.approx(2 * row, abs=1e-6)


def test_indistinguishable_classes_cost_the_logarithm_of_their_number(make_output):
    output = make_output(classes=6)
    output.vision_embeddings = torch.ones_like(output.vision_embeddings)
    output.concept_embeddings = torch.ones_like(output.concept_embeddings)
    _, terms = AlignmentLoss().eval()(output)
    assert terms["alignment_global"].item() == pytest.approx(math.log(6), abs=1e-5)
    assert terms["alignment_local"].item() == pytest.approx(math.log(4), abs=1e-5)
    assert terms["cosine_vision"].item() == pytest.approx(1, abs=1e-5)
    assert terms["cosine_text"].item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("concepts", [2, 6])
def test_equals_the_plain_loops(make_output, classes, concepts):
    output = make_output(classes=classes, concepts=concepts, seed=classes)
    output.same_sentence[0, 1, 0] = output.same_sentence[1, 0, 0] = True
    loss, terms = AlignmentLoss(global_weight=0.5, local_weight=3.0).eval()(output)
    expected_global, expected_local = plain_alignment(output)
    assert terms["alignment_global"].item() == pytest.approx(expected_global, abs=1e-5)
    assert terms["alignment_local"].item() == pytest.approx(expected_local, abs=1e-5)
    assert loss.item() == pytest.approx(0.5 * expected_global + 3 * expected_local, abs=1e-5)


@pytest.mark.parametrize("hard_negatives", [1, 2, None])
def test_number_of_hard_negatives(make_output, hard_negatives):
    output = make_output(classes=6)
    _, terms = AlignmentLoss(hard_negatives=hard_negatives).eval()(output)
    _, expected = plain_alignment(output, hard_negatives=hard_negatives)
    assert terms["alignment_local"].item() == pytest.approx(expected, abs=1e-5)


def test_aggregated_text_weighs_the_concepts_of_one_class():
    vision = torch.tensor([[[1.0, 0.0]]])
    concepts = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]]]])
    text = aggregate_concepts(vision, concepts)
    # Weights e/(e + 1) and 1/(e + 1); normalised, the vector is (e, 1) / sqrt(e^2 + 1).
    expected = torch.tensor([math.e, 1.0]) / math.sqrt(math.e**2 + 1)
    torch.testing.assert_close(text[0, 0], expected)


def test_equal_sentences_are_no_negatives(make_output):
    output = make_output(batch=1, classes=3, concepts=2)
    shared = output.concept_embeddings.detach().clone()
    shared[:, 1, 0] = shared[:, 0, 0]
    output.concept_embeddings = shared.requires_grad_()
    output.same_sentence[0, 1, 0] = output.same_sentence[1, 0, 0] = True
    loss = AlignmentLoss().eval()
    vision, concepts = output.vision_embeddings, output.concept_embeddings
    everyone = torch.ones(1, 3, dtype=torch.bool)
    rows = loss.local_loss(vision, concepts[:, :, :1], output.same_sentence[..., :1], everyone)
    (gradient,) = torch.autograd.grad(rows[0, 0], vision)
    # Class 0 is contrasted with class 2 only: the image of class 1 does not matter to it.
    assert gradient[0, 0].abs().sum() > 0
    assert gradient[0, 1].abs().sum() == 0
    assert gradient[0, 2].abs().sum() > 0


def test_concept_shared_by_all_classes_costs_nothing(make_output):
    output = make_output(classes=3, concepts=2)
    output.same_sentence[..., 0] = True
    loss, terms = AlignmentLoss().eval()(output)
    assert terms["alignment_local"].item() == pytest.approx(plain_alignment(output)[1], abs=1e-5)
    output.same_sentence[...] = True
    loss, terms = AlignmentLoss(global_weight=0).eval()(output)
    assert terms["alignment_local"] == 0
    loss.backward()
    assert output.vision_embeddings.grad.abs().sum() == 0
    assert output.concept_embeddings.grad.abs().sum() == 0


@pytest.mark.parametrize("seed", range(10))
def test_is_never_negative(make_output, seed):
    output = make_output(classes=1 + seed, concepts=1 + seed % 4, width=2, seed=seed)
    output.same_sentence |= torch.rand(output.same_sentence.shape) > 0.7
    loss, _ = AlignmentLoss(temperature=0.02)(output)
    assert loss >= 0


def test_batch_is_the_mean_of_its_samples(make_output):
    output = make_output(batch=3)
    loss = AlignmentLoss().eval()
    alone = torch.stack([loss(sample(output, b))[0] for b in range(3)])
    torch.testing.assert_close(loss(output)[0], alone.mean())


def test_permuting_classes_permutes_their_terms(make_output):
    output = make_output()
    output.same_sentence[0, 3, 1] = output.same_sentence[3, 0, 1] = True
    order = torch.tensor([3, 0, 4, 1, 2])
    permuted = replace(
        output,
        vision_embeddings=output.vision_embeddings[:, order],
        concept_embeddings=output.concept_embeddings[:, order],
        same_sentence=output.same_sentence[order][:, order],
    )
    loss = AlignmentLoss().eval()
    torch.testing.assert_close(loss(output), loss(permuted))
    everyone = torch.ones(2, 5, dtype=torch.bool)

    def per_class(o):
        text = aggregate_concepts(o.vision_embeddings, o.concept_embeddings)
        local = loss.local_loss(o.vision_embeddings, o.concept_embeddings, o.same_sentence, everyone)
        return loss.global_loss(o.vision_embeddings, text, everyone), local

    for before, after in zip(per_class(output), per_class(permuted), strict=True):
        torch.testing.assert_close(before[:, order], after)
        assert not torch.allclose(before, after)


def test_gradients_reach_both_modalities(make_output):
    for switched_on in ({"local_weight": 0.0}, {"global_weight": 0.0}):
        output = make_output()
        AlignmentLoss(**switched_on)(output)[0].backward()
        for gradient in (output.vision_embeddings.grad, output.concept_embeddings.grad):
            assert gradient.isfinite().all()
            assert (gradient.abs().sum(dim=-1) > 0).all()


def test_gradient_descent_separates_collapsed_classes(make_output):
    output = make_output(batch=1)
    vision = (torch.ones(1, 5, 8) + 0.1 * output.vision_embeddings.detach()).requires_grad_()
    concepts = (torch.ones(1, 5, 3, 8) + 0.1 * output.concept_embeddings.detach()).requires_grad_()
    loss = AlignmentLoss()
    optimiser = torch.optim.Adam([vision, concepts], lr=0.05)
    torch.manual_seed(0)
    for step in range(60):
        current = replace(
            output,
            vision_embeddings=F.normalize(vision, dim=-1),
            concept_embeddings=F.normalize(concepts, dim=-1),
        )
        value, terms = loss(current)
        if step == 0:
            assert terms["cosine_vision"] > 0.95
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
    assert terms["top1_vision_to_text"] == 1
    assert terms["top1_text_to_vision"] == 1
    assert terms["cosine_vision"] < 0.3
    assert terms["cosine_text"] < 0.3


def test_indicators_are_measured_in_both_directions():
    output = orthogonal_pair()
    # Both images look like class 0: its own words win for image 0 only; text 0 cannot tell the images.
    output.vision_embeddings = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    _, terms = AlignmentLoss()(output)
    assert terms["top1_vision_to_text"] == 0.5
    assert terms["top1_text_to_vision"] == 0
    assert terms["cosine_vision"] == 1
    assert terms["cosine_text"] == 0


def test_noise_only_in_training(make_output):
    output = make_output()
    loss = AlignmentLoss()
    torch.manual_seed(1)
    first, second = loss(output), loss(output)
    assert first[0] != second[0]
    # The noise is small, and no business of the local term.
    torch.testing.assert_close(first[0], second[0], rtol=0.05, atol=0.05)
    assert first[1]["alignment_local"] == second[1]["alignment_local"]
    loss.eval()
    assert loss(output)[0] == loss(output)[0]
    assert AlignmentLoss(noise=0.0)(output)[0] == loss(output)[0]


def test_noise_has_its_standard_deviation():
    loss = AlignmentLoss(noise=0.01)
    embeddings = torch.zeros(4, 5, 2000)
    embeddings[..., 0] = 1
    torch.manual_seed(0)
    noisy = loss._perturb(embeddings)
    torch.testing.assert_close(noisy.norm(dim=-1), torch.ones(4, 5))
    scale = math.sqrt(1 + 2000 * 0.01**2)  # the length before it was normalised again
    assert (noisy[..., 1:] * scale).std().item() == pytest.approx(0.01, rel=0.05)


def test_one_sentence_a_class_takes_the_global_term_only(make_output):
    output = make_output(concepts=1)
    loss, terms = AlignmentLoss().eval()(output)
    assert "alignment_local" not in terms
    assert loss == terms["alignment_global"]
    assert loss.item() == pytest.approx(plain_alignment(output)[0], abs=1e-5)


def test_one_sentence_a_class_without_the_global_term_raises(make_output):
    with pytest.raises(ValueError, match=r"one sentence each.*`global_weight` is 0"):
        AlignmentLoss(global_weight=0.0)(make_output(concepts=1))


def test_single_class_costs_nothing_and_has_finite_gradients(make_output):
    output = make_output(classes=1)
    loss, terms = AlignmentLoss()(output)
    assert loss == 0
    loss.backward()
    assert output.vision_embeddings.grad.abs().sum() == 0
    assert output.concept_embeddings.grad.abs().sum() == 0
    assert all(value.isfinite() for value in terms.values())


def test_only_present_classes_take_part(make_output):
    output = make_output(batch=3)
    present = torch.tensor([[1, 1, 0, 1, 0], [1, 1, 1, 1, 1], [0, 0, 1, 0, 1]]).bool()
    output.same_sentence[0, 1, 2] = output.same_sentence[1, 0, 2] = True
    loss, terms = AlignmentLoss(present_only=True).eval()(output, present)
    expected = plain_alignment(output, present.tolist())
    assert terms["alignment_global"].item() == pytest.approx(expected[0], abs=1e-5)
    assert terms["alignment_local"].item() == pytest.approx(expected[1], abs=1e-5)
    loss.backward()
    for gradient in (output.vision_embeddings.grad, output.concept_embeddings.grad):
        assert ((gradient.flatten(2).abs().sum(dim=-1) > 0) == present).all()


def test_samples_with_fewer_than_two_present_classes_cost_nothing(make_output):
    output = make_output(batch=2)
    present = torch.tensor([[False] * 5, [False, True, False, False, False]])
    loss, terms = AlignmentLoss(present_only=True)(output, present)
    assert loss == 0
    loss.backward()
    assert output.vision_embeddings.grad.abs().sum() == 0
    assert output.concept_embeddings.grad.abs().sum() == 0
    assert all(value.isfinite() for value in terms.values())


def test_all_classes_take_part_by_default(make_output):
    output = make_output(batch=1)
    loss = AlignmentLoss().eval()
    assert loss(output)[0] == loss(output, torch.ones(1, 5, dtype=torch.bool))[0] > 0


@pytest.mark.parametrize(("present", "found"), [(None, "none"), (torch.ones(2, 4), r"shape \(2, 4\)")])
def test_missing_mask_of_present_classes_raises(make_output, present, found):
    with pytest.raises(ValueError, match=rf"shape \(2, 5\); got .*{found}"):
        AlignmentLoss(present_only=True)(make_output(), present)


def test_weights_switch_terms_off(make_output):
    output = make_output()
    loss, terms = AlignmentLoss(local_weight=0.0).eval()(output)
    assert loss == terms["alignment_global"]
    assert "alignment_local" not in terms
    loss, terms = AlignmentLoss(global_weight=0.0).eval()(output)
    assert loss == terms["alignment_local"]
    assert "alignment_global" not in terms
    assert not AlignmentLoss(global_weight=0.0, local_weight=0.0).enabled


def test_is_computed_in_float32_under_autocast(make_output):
    output = make_output()
    loss = AlignmentLoss().eval()
    expected, _ = loss(output)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, terms = loss(output)
    assert found.dtype == torch.float32
    assert found == expected
    low = replace(
        output,
        vision_embeddings=output.vision_embeddings.bfloat16(),
        concept_embeddings=output.concept_embeddings.bfloat16(),
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, terms = loss(low)
    assert found.dtype == torch.float32
    assert {value.dtype for value in terms.values()} == {torch.float32}
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)


def test_nan_is_not_hidden(make_output):
    output = make_output()
    output.vision_embeddings.data[0, 0] = torch.nan
    assert AlignmentLoss()(output)[0].isnan()


def test_disagreeing_shapes_raise(make_output):
    output = make_output()
    with pytest.raises(ValueError, match=r"vision embeddings \(2, 5, 8\).*got \(2, 4, 8\)"):
        AlignmentLoss()(replace(output, vision_embeddings=output.vision_embeddings[:, :4]))
    with pytest.raises(ValueError, match=r"same_sentence \(5, 5, 3\).*and \(5, 5, 2\)"):
        AlignmentLoss()(replace(output, same_sentence=output.same_sentence[..., :2]))


@pytest.mark.parametrize(
    ("argument", "value", "bound"),
    [
        ("temperature", 0.0, "above 0"),
        ("noise", -0.1, "at least 0"),
        ("hard_negatives", 0, "at least 1"),
        ("global_weight", -1.0, "at least 0"),
        ("local_weight", -1.0, "at least 0"),
    ],
)
def test_arguments_out_of_range_raise(argument, value, bound):
    with pytest.raises(ValueError, match=f"`{argument}` {bound}, got {value}"):
        AlignmentLoss(**{argument: value})
