from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from scripts.losses.total import BiPVLLoss
from scripts.networks.outputs import BiPVLOutput
from scripts.words.table import ConceptTable


def target_for(image, channels, softmax=True):
    generator = torch.Generator().manual_seed(2)
    shape = (image.shape[0], 1 if softmax else channels, *image.shape[2:])
    return torch.randint(0, channels if softmax else 2, shape, generator=generator).float()


def embed(network):
    """The N * K sentences, each padded and each for itself, and their mask."""
    token_ids, mask = network.text_encoder.tokenize(network.concepts.sentences_flat)
    return network.text_encoder.embeddings(input_ids=token_ids), mask


def run_stage(network, stage, hidden, mask):
    """As Hugging Face's own layers do it, padding computed and masked, all tokens to the last."""
    for layer in network.text_encoder.stages[stage - 1]:
        hidden = layer(hidden, attention_mask=mask[:, None, None, :])
    return hidden


def test_text_equals_its_bert_at_initialisation(make_network, image):
    network = make_network().train()
    seen = []
    network.projection.text.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    network(image)
    hidden, mask = embed(network)
    for stage in (1, 2, 3, 4):
        hidden = run_stage(network, stage, hidden, mask)
    expected = hidden[:, 0].reshape(3, 2, -1).expand(2, -1, -1, -1)
    torch.testing.assert_close(seen[0], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("softmax", [True, False])
def test_training_output_has_the_documented_shapes(make_network, image, softmax):
    network = make_network(softmax=softmax, projection_channels=20).train()
    output = network(image)
    channels = 4 if softmax else 3
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


def plain_pass(network, image):
    """Logits and t_k in training, nothing saved: padded sentences, all of them, stage by stage with the image."""
    hidden, mask = embed(network)
    state = {"hidden": run_stage(network, 1, hidden, mask), "mask": mask}

    def fuse(stage, features):
        if stage > 1:
            state["hidden"] = run_stage(network, stage, state["hidden"], state["mask"])
        else:
            state.update(hidden=state["hidden"].repeat(len(image), 1, 1), mask=mask.repeat(len(image), 1))
        if str(stage - 1) not in network.fusions:
            return features
        hidden = state["hidden"]
        text, features = network.fusions[str(stage - 1)](hidden[:, 0].unflatten(0, (len(image), -1)), features)
        state["hidden"] = torch.cat([text.flatten(0, 1)[:, None], hidden[:, 1:]], dim=1)
        return features

    classes = len(network.concepts.classes)
    return network.backbone(image, fuse), state["hidden"][:, 0].reshape(len(image), classes, -1, 16)


class TestAllTokens:
    @pytest.mark.parametrize("stages", [(1, 2, 3, 4), (4,), (2,)])
    def test_equal_a_plain_pass_with_each_different_sentence_once(self, make_network, awaken, image, stages):
        network = awaken(make_network(fuse_all_tokens=True, fused_stages=stages)).double()
        image = image[:1].double()
        sentences = network.concepts.sentences_flat
        hidden, mask = embed(network)
        state = {"hidden": run_stage(network, 1, hidden, mask)}

        def fuse(stage, features):
            hidden = run_stage(network, stage, state["hidden"], mask) if stage > 1 else state["hidden"]
            if stage not in stages:
                state["hidden"] = hidden
                return features
            parts = {sentence: hidden[i][mask[i]] for i, sentence in enumerate(sentences)}
            text, features = network.fusions[str(stage - 1)](torch.cat(list(parts.values()))[None], features)
            fused = dict(zip(parts, text[0].split([len(part) for part in parts.values()]), strict=True))
            for i, sentence in enumerate(sentences):
                hidden = hidden.clone()
                hidden[i, mask[i]] = fused[sentence]
            state["hidden"] = hidden
            return features

        expected = network.backbone(image, fuse)
        with torch.no_grad():
            torch.testing.assert_close(network.eval()(image), expected.detach())
        output = network.train()(image)
        torch.testing.assert_close(output.logits, expected)
        concepts = state["hidden"][:, 0].reshape(1, 3, 2, -1)
        reference = network.projection(output.class_map[:, 1:], concepts)[1]
        torch.testing.assert_close(output.concept_embeddings, reference)

    def test_reads_more_than_the_first_token(self, make_network, awaken, image):
        one, other = (awaken(make_network(fuse_all_tokens=every)).eval() for every in (True, False))
        assert not torch.allclose(one(image), other(image))


class TestFusedStages:
    @pytest.fixture
    def image(self, image):
        return image[:1]

    @pytest.fixture
    def count_runs(self):
        """Counts how often each text stage of a network runs, by hooks on the first layer of each."""

        def attach(network):
            runs = [0] * 4
            for i, stage in enumerate(network.text_encoder.stages):
                stage[0].output.register_forward_hook(lambda *_, i=i: runs.__setitem__(i, runs[i] + 1))
            return runs

        return attach

    @pytest.mark.parametrize("stages", [(1, 2, 3, 4), (4,), (2, 3), ()])
    def test_equal_a_plain_pass_forward_and_backward(self, make_network, awaken, image, stages):
        """Kidneys share a sentence, and no two lengths are equal: nothing is lost by packing and sharing."""
        network = awaken(make_network(fused_stages=stages)).double().train()
        seen = []
        network.projection.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1]))
        image = image.double().repeat(2, 1, 1, 1, 1) * torch.tensor([1.0, -2.0]).view(2, 1, 1, 1, 1)
        results = []
        for logits, concepts in ((network(image).logits, seen[0]), plain_pass(network, image)):
            network.zero_grad()
            (logits.square().mean() + concepts.sin().mean()).backward()
            gradients = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
            results.append((logits.detach(), concepts.detach(), gradients))
        torch.testing.assert_close(results[0], results[1], atol=1e-10, rtol=1e-8)

    @pytest.mark.parametrize("stages", [(1, 2, 3, 4), (1, 3), (1,), (4,)])
    def test_equal_a_plain_pass_in_evaluation(self, make_network, awaken, image, stages):
        network = awaken(make_network(fused_stages=stages)).double().eval()
        with torch.no_grad():
            torch.testing.assert_close(network(image.double()), plain_pass(network, image.double())[0])

    @pytest.mark.parametrize(("stages", "names"), [((1, 2, 3, 4), "0123"), ([4], "3"), ([3, 2], "12"), ([], "")])
    def test_only_these_have_parameters(self, make_network, stages, names):
        network = make_network(fused_stages=stages)
        assert {name.split(".")[1] for name in network.state_dict() if name.startswith("fusions.")} == set(names)

    @pytest.mark.parametrize("stages", [(1,), (2, 3), (4,), ()])
    def test_every_parameter_receives_a_gradient(self, make_network, awaken, image, stages):
        network = awaken(make_network(fused_stages=stages)).train()
        BiPVLLoss()(network(image), target_for(image, 4)).backward()
        dead = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
        assert [name for name in dead if not name.endswith("key.bias")] == []

    def test_late_fusion_equals_the_backbone_at_initialisation_and_reads(self, make_network, awaken, table, image):
        network = make_network(fused_stages=[4]).eval()
        with torch.no_grad():
            assert torch.equal(network(image), network.backbone(image))
            before = awaken(network)(image)
            network.set_concepts(table.replace_sentences({"liver": {"shape": "A long thin tube."}}))
            assert not torch.allclose(network(image), before)

    @pytest.mark.parametrize(
        ("stages", "runs_of_two_images"),
        [
            ((1, 2, 3, 4), [1, 2, 2, 2]),
            ((4,), [1, 1, 1, 1]),
            ((2, 3), [1, 1, 2, 0]),
            ((1,), [1, 0, 0, 0]),
            ((), [0] * 4),
        ],
    )
    def test_evaluation_reads_once_what_no_image_touches(
        self, make_network, image, count_runs, stages, runs_of_two_images
    ):
        """And nothing that no image waits for."""
        network = make_network(fused_stages=stages).eval()
        runs = count_runs(network)
        with torch.no_grad():
            network(image)
            network(image)
        assert runs == runs_of_two_images

    @pytest.mark.parametrize(("stages", "images"), [((4,), [1, 1, 1, 1]), ((2,), [1, 1, 2, 2])])
    def test_training_reads_them_once_a_batch(self, make_network, image, stages, images):
        network = make_network(fused_stages=stages).train()
        sizes = []
        for stage in network.text_encoder.stages:
            stage[0].output.register_forward_hook(lambda _, inputs, output: sizes.append(len(inputs[0])))
        network(image.repeat(2, 1, 1, 1, 1))
        assert sizes == images

    @torch.no_grad()
    def test_changed_weights_of_a_later_stage_are_seen(self, make_network, awaken, image):
        network = awaken(make_network(fused_stages=[4])).eval()
        before = network(image)
        network.text_encoder.stages[3][0].output.dense.weight.mul_(2)
        after = network(image)
        assert not torch.equal(after, before)
        assert torch.equal(after, copy.deepcopy(network).train().eval()(image))

    def test_checkpoint_with_other_stages_does_not_load(self, make_network):
        with pytest.raises(RuntimeError, match=r"(?s)Missing key.*fusions\.2.*Unexpected key.*fusions\.3"):
            make_network(fused_stages=[3]).load_state_dict(make_network(fused_stages=[4]).state_dict())

    @pytest.mark.parametrize("stages", [[0], [5], [1, 1], [1.5]])
    def test_other_stages_raise(self, make_network, stages):
        found = str(stages).replace("[", r"\[")
        with pytest.raises(ValueError, match=rf"`fused_stages` lists stages out of \[1, 2, 3, 4\].*; found {found}"):
            make_network(fused_stages=stages)

    @pytest.mark.parametrize("arguments", [{"num_heads": (3, 6)}, {"vision_self_attention": [True] * 5}])
    def test_another_number_of_values_than_stages_raises(self, make_network, arguments):
        name = next(iter(arguments))
        with pytest.raises(ValueError, match=f"`{name}` needs one value for each of the 4 stages, fused or not"):
            make_network(**arguments)


def test_token_budget_reaches_every_block(make_network):
    assert [block.token_budget for block in make_network(token_budget=7).fusions.values()] == [7] * 4
    assert [block.token_budget for block in make_network().fusions.values()] == [24**3] * 4


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
        assert not [name for name in names if name.startswith(("sentences", "same_sentence"))]

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
        type(network)(network.backbone, network.text_encoder, table, head="channels", softmax=False)


def test_words_for_other_classes_raise(make_network):
    other = ConceptTable("CT", ("shape",), ("spleen",), (("Round.",),))
    with pytest.raises(ValueError, match="words can be edited, classes cannot"):
        make_network().set_concepts(other)


def test_segmentation_knows_no_order_of_the_classes_words(make_network, awaken, table, image):
    """So exchanging the words of two classes changes nothing; see docs/words.md."""
    network = awaken(make_network()).double().eval()
    with torch.no_grad():
        plain = network(image.double())
        swapped = network.with_concepts(table.swapped("right kidney", "liver"))(image.double())
    torch.testing.assert_close(swapped, plain, rtol=1e-9, atol=1e-9)


def test_other_words_leave_the_network_with_its_own(make_network, awaken, table, image):
    """And with its own weights: the other one has no copies of them."""
    network, image = awaken(make_network()).double().eval(), image.double()  # beyond rounding, however little it is
    with torch.no_grad():
        plain = network(image)
        words = replace(table, sentences=(("A ring.", "On the right."), *table.sentences[1:]))
        other = network.with_concepts(words)
        changed = other(image)
        assert torch.equal(network(image), plain)
        assert (changed - plain).abs().max() > 1e-7
        network.set_concepts(words)
        assert torch.equal(network(image), changed)
    assert all(a is b for a, b in zip(network.parameters(), other.parameters(), strict=True))
    with pytest.raises(ValueError, match="words can be edited, classes cannot"):
        network.with_concepts(replace(table, classes=("a", "b", "c")))
