from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from scripts.concepts import ConceptTable
from scripts.losses.total import BiPVLLoss
from scripts.networks.outputs import BiPVLOutput


def target_for(image, channels, exclusive=True):
    generator = torch.Generator().manual_seed(2)
    shape = (image.shape[0], 1 if exclusive else channels, *image.shape[2:])
    return torch.randint(0, channels if exclusive else 2, shape, generator=generator).float()


@pytest.mark.parametrize("use_v2", [False, True])
def test_equals_its_backbone_bit_for_bit_at_initialisation(make_network, image, use_v2):
    network = make_network(use_v2=use_v2).eval()
    with torch.no_grad():
        assert torch.equal(network(image), network.backbone.network(image))


def test_text_equals_its_bert_at_initialisation(make_network, image):
    network = make_network().train()
    seen = []
    network.projection.text.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    network(image)
    encoder, hidden = network.text_encoder, network.text_encoder.embed(network.token_ids)
    for stage in (1, 2, 3, 4):
        hidden = encoder.run_stage(stage, hidden, network.token_mask)
    expected = hidden[:, 0].reshape(3, 2, -1).expand(2, -1, -1, -1)
    torch.testing.assert_close(seen[0], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("exclusive", [True, False])
def test_training_output_has_the_documented_shapes(make_network, image, exclusive):
    network = make_network(exclusive=exclusive, projection_channels=20).train()
    output = network(image)
    channels = 4 if exclusive else 3
    assert isinstance(output, BiPVLOutput)
    assert output.logits.shape == (2, channels, 64, 32, 32)
    assert output.class_map.shape == (2, channels, 2, 1, 1)
    assert output.vision_embeddings.shape == (2, 3, 20)
    assert output.concept_embeddings.shape == (2, 3, 2, 20)
    for embeddings in (output.vision_embeddings, output.concept_embeddings):
        torch.testing.assert_close(embeddings.norm(dim=-1), torch.ones(embeddings.shape[:-1]))
    assert output.same_sentence.tolist()[0][1] == [True, False]


def test_every_parameter_receives_a_gradient(make_network, awaken, image):
    network, loss = awaken(make_network()).train(), BiPVLLoss()
    loss(network(image), target_for(image, 4)).backward()
    for module in (network, loss):
        dead = [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()]
        # Softmax over keys does not see a bias that shifts every key alike; token 0 is padding.
        assert [name for name in dead if not name.endswith("key.bias")] == []


def test_samples_of_a_batch_do_not_touch(make_network, awaken, image):
    network = awaken(make_network()).eval()
    with torch.no_grad():
        whole = network(image)
        for i in range(2):
            torch.testing.assert_close(network(image[i : i + 1])[0], whole[i], atol=1e-4, rtol=1e-4)


def test_words_change_the_segmentation(make_network, awaken, table, image):
    network = awaken(make_network()).eval()
    with torch.no_grad():
        before = network(image)
        network.set_concepts(table.replace_sentences({"liver": {"shape": "A long thin tube."}}))
        changed = network(image)
        network.set_concepts(table)
        assert not torch.allclose(changed, before)
        assert torch.equal(network(image), before)


def test_permuted_classes_give_permuted_embeddings(make_network, awaken, table, image):
    order = [2, 0, 1]
    permuted = replace(
        table,
        classes=tuple(table.classes[i] for i in order),
        sentences=tuple(table.sentences[i] for i in order),
    )
    network, other = awaken(make_network()).train(), awaken(make_network(concepts=permuted)).train()
    ours, theirs = network(image), other(image)
    torch.testing.assert_close(theirs.logits, ours.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(theirs.concept_embeddings, ours.concept_embeddings[:, order], atol=1e-5, rtol=1e-4)


class TestKeptText:
    @pytest.fixture
    def network(self, make_network, awaken):
        network = awaken(make_network()).eval()
        network.runs = 0

        def count(*_):
            network.runs += 1

        network.text_encoder.embeddings.register_forward_hook(count)
        return network

    def fresh(self, network, image):
        with torch.no_grad():
            return copy.deepcopy(network).train().eval()(image)

    @torch.no_grad()
    def test_stage_1_runs_once_for_many_images_in_evaluation(self, network, image):
        first = network(image)
        assert torch.equal(network(image), first)
        assert network.runs == 1

    @torch.no_grad()
    def test_setting_evaluation_again_keeps_it(self, network, image):
        network(image)
        network.eval()(image)
        assert network.runs == 1

    @torch.no_grad()
    def test_stage_1_runs_once_a_batch_in_training(self, network, image):
        network.train()(image)
        assert network.runs == 1
        network(image)
        assert network.runs == 2

    def test_optimiser_step_is_seen(self, network, image):
        with torch.no_grad():
            before = network(image)
        optimizer = torch.optim.SGD(network.text_encoder.parameters(), lr=0.1)
        network(image).square().mean().backward()
        optimizer.step()
        with torch.no_grad():
            after = network(image)
        assert not torch.equal(after, before)
        assert torch.equal(after, self.fresh(network, image))

    def test_loaded_weights_are_seen(self, network, make_network, awaken, image):
        other = awaken(make_network(seed=5), seed=6).eval()
        with torch.no_grad():
            network(image)
            network.load_state_dict(other.state_dict())
            assert torch.equal(network(image), other(image))

    def test_gradients_in_evaluation_reach_the_text(self, network, image):
        with torch.inference_mode():
            network(image)
        network(image).square().mean().backward()
        assert network.text_encoder.embeddings.word_embeddings.weight.grad.any()


class TestStateDict:
    def test_round_trip_through_a_file(self, make_network, awaken, image, tmp_path):
        network, other = awaken(make_network()).eval(), make_network(seed=9).eval()
        torch.save(network.state_dict(), tmp_path / "model.pt")
        other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
        with torch.no_grad():
            assert torch.equal(other(image), network(image))

    def test_holds_every_parameter_and_no_words(self, make_network, table):
        names = set(make_network().state_dict())
        assert {name for name, _ in make_network().named_parameters()} < names
        assert not names & {"token_ids", "token_mask", "same_sentence"}

    def test_other_classes_raise_naming_both(self, make_network, table):
        renamed = replace(table, classes=("spleen", "left kidney", "liver"))
        with pytest.raises(ValueError, match=r"trained for 3 classes, \['spleen'.*has 3, \['right kidney'"):
            make_network().load_state_dict(make_network(concepts=renamed).state_dict())

    def test_other_number_of_classes_raises(self, make_network, table):
        fewer = replace(table, classes=table.classes[:2], sentences=table.sentences[:2])
        with pytest.raises(ValueError, match=r"trained for 2 classes"):
            make_network().load_state_dict(make_network(concepts=fewer).state_dict())

    def test_edited_sentences_warn_and_load(self, make_network, awaken, table):
        edited = table.replace_sentences({"liver": {"shape": "A triangle."}})
        network, trained = make_network(concepts=edited), awaken(make_network())
        with pytest.warns(UserWarning, match="not those that the checkpoint was trained with"):
            network.load_state_dict(trained.state_dict())
        assert torch.equal(network.projection.text.weight, trained.projection.text.weight)


def test_number_of_output_channels_must_fit_the_table(make_network, table):
    network = make_network()
    with pytest.raises(ValueError, match="names 3 classes, which needs 3 output channels; the backbone has 4"):
        type(network)(network.backbone, network.text_encoder, table, exclusive=False)


def test_words_for_other_classes_raise(make_network):
    other = ConceptTable("CT", ("shape",), ("spleen",), (("Round.",),))
    with pytest.raises(ValueError, match="Words can be edited, classes cannot"):
        make_network().set_concepts(other)
