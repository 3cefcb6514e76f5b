from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BertModel, CLIPTextModelWithProjection

from scripts.networks.baselines.frozen_texts import FrozenTexts, encode, fill


class TestEncode:
    def test_of_a_clip_is_its_projected_embedding(self, tiny_clip):
        texts = ["a spleen.", "the left kidney of a man."]
        clip, tokens = CLIPTextModelWithProjection.from_pretrained(tiny_clip), AutoTokenizer.from_pretrained(tiny_clip)
        for text, vector in zip(texts, encode(str(tiny_clip), texts), strict=True):
            expected = clip(**tokens([text], return_tensors="pt")).text_embeds[0]
            torch.testing.assert_close(vector, expected, atol=1e-5, rtol=1e-5)

    def test_of_a_bert_is_its_cls_state(self, tiny_bert):
        texts = ["a.", "a b c."]
        bert, tokens = BertModel.from_pretrained(tiny_bert).eval(), AutoTokenizer.from_pretrained(tiny_bert)
        for text, vector in zip(texts, encode(str(tiny_bert), texts), strict=True):
            expected = bert(**tokens([text], return_tensors="pt")).last_hidden_state[0, 0]
            torch.testing.assert_close(vector, expected, atol=1e-5, rtol=1e-5)

    def test_of_no_model_raises(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="neither a folder with a Hugging Face model"):
            encode(str(tmp_path / "none"), ["a"])

    def test_of_a_clip_that_lacks_weights_raises(self, tiny_clip, tmp_path):
        folder = shutil.copytree(tiny_clip, tmp_path / "clip")
        weights = load_file(folder / "model.safetensors")
        del weights["text_projection.weight"]
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ValueError, match=r"incomplete: 1 weights are missing .* text_projection"):
            encode(str(folder), ["a"])

    def test_of_a_text_that_is_too_long_raises(self, tiny_clip):
        with pytest.raises(ValueError, match="reads at most 77 tokens; 'aaaa"):
            encode(str(tiny_clip), ["a" * 100])


class TestFill:
    def test_every_place(self):
        assert fill("{modality}: a {name}. {text}", "liver", "CT", "A wedge.") == "CT: a liver. A wedge."

    @pytest.mark.parametrize("prompt", ["A picture.", "A {organ} {name}", "{name"])
    def test_other_places_raise(self, prompt):
        with pytest.raises(ValueError, match=r"has \{name\} or \{text\}"):
            fill(prompt, "liver", "CT", "A wedge.")


class TestFrozenTexts:
    def test_has_a_row_for_each_modality_and_class(self, tiny_clip, table):
        texts = FrozenTexts(table, str(tiny_clip), prompt="A {modality} of a {name}.", modalities=["MR", "CT"])
        assert texts.frozen_texts.shape == (2, 4, 12)
        assert texts.modality == 1
        assert texts.prompts(table, "MR")[:2] == [
            "A magnetic resonance imaging of a background.",
            "A magnetic resonance imaging of a right kidney.",
        ]
        assert list(texts.parameters()) == []

    def test_sentences_are_joined(self, tiny_clip, table):
        texts = FrozenTexts(table, str(tiny_clip), background=False)
        assert texts.prompts(table, "CT")[0] == "A bean: on the right."

    def test_checkpoint_of_the_same_words_needs_no_encoder(self, tiny_clip, table):
        trained = FrozenTexts(table, str(tiny_clip))
        alone = FrozenTexts(table, None, width=12)
        alone.load_state_dict(trained.state_dict())
        assert torch.equal(alone.frozen_texts, trained.frozen_texts)

    def test_edited_words_are_read_anew_and_warned_of(self, tiny_clip, table):
        state = FrozenTexts(table, str(tiny_clip)).state_dict()
        edited = FrozenTexts(table.replace_sentences({"liver": {"shape": "A cube."}}), str(tiny_clip))
        made = edited.frozen_texts.clone()
        with pytest.warns(UserWarning, match="not those that the checkpoint was trained"):
            edited.load_state_dict(state)
        assert torch.equal(edited.frozen_texts, made)

    def test_checkpoint_of_other_classes_raises(self, tiny_clip, table, permuted):
        state = FrozenTexts(table, str(tiny_clip)).state_dict()
        with pytest.raises(ValueError, match="trained for 3 classes"):
            FrozenTexts(permuted(table, [1, 0, 2]), str(tiny_clip)).load_state_dict(state)

    def test_modality_that_is_not_in_the_table_raises(self, table):
        with pytest.raises(ValueError, match=r"describes CT images; `modalities` are \['MR'\]"):
            FrozenTexts(table, None, modalities=["MR"], width=4)

    def test_neither_encoder_nor_width_raises(self, table):
        with pytest.raises(ValueError, match="`text_width`"):
            FrozenTexts(table, None)
