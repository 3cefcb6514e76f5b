"""Kernels made of words: the head alone, and the network that has it."""

from __future__ import annotations

import copy
import logging
import random
from dataclasses import replace

import pytest
import torch

from scripts.losses.total import BiPVLLoss
from scripts.networks.word_head import WordHead
from scripts.words.questions import QuestionSampler
from scripts.words.table import ConceptTable

MANY = ConceptTable(
    modality="CT",
    concepts=("shape", "location"),
    classes=tuple(f"class {letter}" for letter in "abcdefghijklmno"),
    sentences=tuple((f"Shape {letter}.", f"Place {letter * 2}.") for letter in "abcdefghijklmno"),
)


@pytest.fixture
def network(make_network, awaken):
    return awaken(make_network(head="words")).double().eval()


@pytest.fixture
def image(image):
    return image[:1].double()


def logits(network, image):
    with torch.no_grad():
        return network(image)


class TestHead:
    def test_equals_the_formula_voxel_by_voxel(self):
        torch.manual_seed(0)
        head = WordHead(text_channels=6, feature_channels=4).double()
        head.centre_on(torch.randn(5, 3, 6))
        features = torch.randn(2, 4, 3, 2, 2, dtype=torch.float64)
        states = torch.randn(2, 3, 6, dtype=torch.float64)
        kept = torch.tensor([[True, True, True], [False, True, False]])
        found = head(features, head.kernels(states, kept))
        means = [states[0].mean(dim=0), states[1, 1]]
        kernels = [head.background, *(head.mlp(head.norm(mean - head.centre)) for mean in means)]
        for channel, kernel in enumerate(kernels):
            theta, bias = kernel[:4], kernel[4]
            expected = sum(theta[f] * features[:, f] for f in range(4)) / 2 + bias
            torch.testing.assert_close(found[:, channel], expected)

    def test_regions_have_no_background(self):
        head = WordHead(6, 4, background=False)
        kernels = head.kernels(torch.randn(3, 2, 6), torch.ones(3, 2, dtype=torch.bool))
        assert kernels.shape == (3, 5)
        assert head(torch.randn(1, 4, 2, 2, 2), kernels).shape == (1, 3, 2, 2, 2)

    def test_centre_is_the_mean_of_all_sentences_and_is_saved(self):
        head, states = WordHead(6, 4), torch.randn(5, 3, 6)
        head.centre_on(states)
        torch.testing.assert_close(head.state_dict()["centre"], states.reshape(15, 6).mean(dim=0))


class TestClasses:
    def test_permuted_classes_give_permuted_logits(self, network, table, image):
        plain = logits(network, image)
        permuted = logits(network.with_concepts(table.only(["liver", "right kidney", "left kidney"])), image)
        torch.testing.assert_close(permuted, plain[:, [0, 3, 1, 2]], rtol=1e-10, atol=1e-10)

    def test_some_of_the_classes_have_the_logits_that_they_have_among_all(self, network, table, image):
        plain = logits(network, image)
        some = logits(network.with_concepts(table.only(["liver", "left kidney"])), image)
        torch.testing.assert_close(some, plain[:, [0, 3, 2]], rtol=1e-10, atol=1e-10)

    def test_exchanged_words_exchange_the_logits(self, network, table, image):
        plain = logits(network, image)
        swapped = logits(network.with_concepts(table.swapped("right kidney", "liver")), image)
        torch.testing.assert_close(swapped, plain[:, [0, 3, 2, 1]], rtol=1e-10, atol=1e-10)
        assert not torch.allclose(swapped, plain)

    def test_words_of_a_class_under_another_name_find_it(self, network, table, image):
        renamed = ConceptTable("CT", table.concepts, ("x",), (table.sentences[2],))
        found = logits(network.with_concepts(renamed), image)
        torch.testing.assert_close(found, logits(network, image)[:, [0, 3]], rtol=1e-10, atol=1e-10)

    def test_one_state_dict_serves_2_and_15_classes(self, make_network, awaken, table, image):
        trained = awaken(make_network(head="words")).double().eval()
        for concepts, channels in ((table.only(["liver", "left kidney"]), 3), (MANY, 16)):
            other = make_network(seed=4, concepts=concepts, head="words").double().eval()
            shapes = {name: tensor.shape for name, tensor in other.state_dict().items() if "_extra_state" not in name}
            assert shapes == {
                name: tensor.shape for name, tensor in trained.state_dict().items() if "_extra_state" not in name
            }
            other.load_state_dict(trained.state_dict())
            found = logits(other, image)
            assert found.shape[1] == channels
            torch.testing.assert_close(found, logits(trained.with_concepts(concepts), image))

    def test_other_words_leave_the_network_with_its_own(self, network, table, image):
        plain = logits(network, image)
        network.with_concepts(MANY)(image)
        assert torch.equal(logits(network, image), plain)


class TestTraining:
    @pytest.mark.parametrize("softmax", [True, False])
    @pytest.mark.parametrize("stages", [(1, 2, 3, 4), (2,), ()])
    def test_every_parameter_receives_a_gradient(self, make_network, awaken, image, softmax, stages):
        network = awaken(make_network(head="words", softmax=softmax, fused_stages=stages)).train()
        loss = BiPVLLoss(softmax)
        shape = (1, 1 if softmax else 3, *image.shape[2:])
        target = torch.randint(0, 4 if softmax else 2, shape).float()
        loss(network(image.float()), target).backward()
        dead = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
        assert [name for name in dead if not name.endswith("key.bias")] == []

    def test_output_has_the_documented_shapes(self, make_network, image):
        output = make_network(head="words", projection_channels=20).train()(image.float().repeat(2, 1, 1, 1, 1))
        assert output.logits.shape == (2, 4, 64, 32, 32)
        assert output.class_map.shape == (2, 4, 2, 1, 1)
        assert output.vision_embeddings.shape == (2, 3, 20)
        assert output.concept_embeddings.shape == (2, 3, 2, 20)

    def test_training_asks_what_is_drawn(self, make_network, awaken, image, table):
        sampler = QuestionSampler(subset=1.0)
        network = awaken(make_network(head="words")).double().train()
        network.learn(table, sampler)
        random.seed(3)
        question = sampler.draw(table)
        random.seed(3)
        output = network(image)
        assert output.question.classes == question.classes
        assert output.question.num_classes == 3
        expected = logits(network.eval(), image)[:, [0, *(label + 1 for label in question.classes)]]
        torch.testing.assert_close(output.logits.detach(), expected)

    def test_mirrored_question_mirrors_the_image_and_not_the_target(self, make_network, awaken, image, table):
        network = awaken(make_network(head="words")).double().train()
        network.learn(table, QuestionSampler(mirror=1.0))
        output = network(image)
        assert output.question.mirrored
        mirrored = table.swapped("right kidney", "left kidney").replace_sentences({"liver": {"location": "Top left."}})
        expected = logits(network.eval().with_concepts(mirrored), image.flip(2))
        torch.testing.assert_close(output.logits.detach(), expected)

    def test_left_out_sentences_do_not_count(self, make_network, awaken, image, table):
        network = awaken(make_network(head="words")).double().train()
        network.learn(table, QuestionSampler(leave_out=1.0))
        random.seed(0)
        with torch.no_grad():
            found = [network(image).logits for _ in range(8)]
        assert not all(torch.allclose(logits, found[0]) for logits in found)

    def test_learning_centres_a_new_network_on_its_words_once(self, make_network, table):
        network = make_network(head="words")
        network.learn(table)
        states = network._read_words(network.asked)
        torch.testing.assert_close(network.word_head.centre, states.flatten(0, 1).mean(dim=0))
        torch.testing.assert_close(network.class_embedding.head.centre, network.word_head.centre)
        before = network.word_head.centre.clone()
        network.learn(MANY)
        assert torch.equal(network.word_head.centre, before)


class TestMemory:
    def test_a_checkpoint_brings_its_context(self, make_network, awaken, table, image):
        """BiFusion reads the sentences that the model has learnt from, whatever is asked for."""
        trained = awaken(make_network(head="words")).double().eval()
        other = make_network(seed=4, concepts=MANY, head="words").double().eval()
        assert not torch.equal(other.context.token_ids, trained.context.token_ids)
        other.load_state_dict(trained.state_dict())
        assert torch.equal(other.context.token_ids, trained.context.token_ids)

    def test_classes_that_were_in_no_label_are_named(self, make_network, caplog, table):
        renamed = replace(table, classes=("right kidney", "left kidney", "hepar"))
        new = replace(
            renamed.replace_sentences({"left kidney": {"shape": "A ring."}}), classes=("right kidney", "gland", "hepar")
        )
        network = make_network(concepts=new, head="words")
        with caplog.at_level(logging.WARNING):
            network.load_state_dict(make_network(head="words").state_dict())
        assert "has not learnt to segment 'gland': none" in caplog.text
        assert network.memory.unseen(new) == ["gland"]  # the words of 'hepar' are known under another name

    def test_remembers_what_it_learns_later(self, make_network, table):
        network = make_network(concepts=MANY, head="words")
        network.learn(table)
        other = make_network(head="words")
        other.load_state_dict(network.state_dict())
        assert set(other.memory.learnt) == {*MANY.classes, *table.classes}
        assert other.memory.unseen(table) == []

    @pytest.mark.parametrize(("ours", "theirs"), [("words", "channels"), ("channels", "words")])
    def test_another_head_raises(self, make_network, ours, theirs):
        state = make_network(head=theirs).state_dict()
        with pytest.raises(ValueError, match=rf"trained with the head '{theirs}'.*Set `head` to {theirs}"):
            make_network(head=ours).load_state_dict(state, strict=False)

    def test_edited_sentences_warn(self, make_network, table):
        edited = table.replace_sentences({"liver": {"shape": "A triangle."}})
        with pytest.warns(UserWarning, match="not those that the checkpoint was trained with"):
            make_network(concepts=edited, head="words").load_state_dict(make_network(head="words").state_dict())


class TestKeptText:
    @torch.no_grad()
    def test_words_are_read_once_for_many_images_in_evaluation(self, make_network, image):
        network = make_network(head="words").double().eval()
        runs = []
        network.text_encoder.stages[3][0].output.register_forward_hook(lambda *_: runs.append(1))
        network(image)
        first = len(runs)
        network(image)
        assert (first, len(runs)) == (2, 3)  # the context passes with every image, the words do not

    @torch.no_grad()
    def test_changed_weights_are_seen(self, make_network, awaken, image):
        network = awaken(make_network(head="words")).double().eval()
        before = network(image)
        network.text_encoder.stages[3][0].output.dense.weight.mul_(2)
        after = network(image)
        assert not torch.equal(after, before)
        assert torch.equal(after, copy.deepcopy(network).train().eval()(image))


def test_unknown_head_raises(make_network):
    with pytest.raises(ValueError, match="`head` must be one of words, channels, found 'word'"):
        make_network(head="word")
