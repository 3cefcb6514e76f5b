from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SimpleInferer
from monai.networks.nets import BasicUNet

from scripts.data.logits import ToLabelsd
from scripts.inference.requests import RequestedWordsd, RequestInferer, request_options
from scripts.words.lines import words_text
from scripts.words.table import ConceptTable

EDIT = {"liver": {"shape": "A disc."}}


@pytest.fixture
def network(make_network: Callable[..., Any], awaken: Callable[..., Any]) -> Any:
    return awaken(make_network(dropout=0.5)).eval()


@pytest.fixture
def volume() -> MetaTensor:
    return MetaTensor(torch.randn(1, 64, 32, 32, generator=torch.Generator().manual_seed(1)))


def requested(table: ConceptTable, volume: MetaTensor, **options: str) -> MetaTensor:
    """The image as it reaches the inferer: preprocessed with the options of a request, in a batch of one."""
    return RequestedWordsd("image", table)({"image": volume.clone(), "device": "cpu", **options})["image"][None]


def infer(network: Any, image: torch.Tensor, **arguments: Any) -> torch.Tensor:
    with torch.no_grad():
        return RequestInferer(SimpleInferer(), **arguments)(image, network)


def edited_text(table: ConceptTable) -> dict[str, str]:
    return {"words of liver": words_text(table, "liver").replace("A wedge.", "A disc.")}


class TestWords:
    def test_hold_for_their_image_and_no_other(self, network: Any, table: ConceptTable, volume: MetaTensor) -> None:
        plain = infer(network, volume[None])
        assert torch.equal(plain, network(volume[None]))
        other = infer(network, requested(table, volume, **edited_text(table)))
        expected = copy.deepcopy(network)
        expected.set_concepts(table.replace_sentences(EDIT))
        assert torch.equal(other, expected(volume[None]))
        assert not torch.allclose(other, plain)
        assert torch.equal(infer(network, requested(table, volume)), plain)

    def test_as_shown_change_nothing(self, network: Any, table: ConceptTable, volume: MetaTensor) -> None:
        shown = {f"words of {label}": words_text(table, label) for label in table.classes}
        image = requested(table, volume, **shown)
        assert image.meta.keys() == volume.meta.keys()
        assert torch.equal(infer(network, image), network(volume[None]))

    @pytest.mark.parametrize(
        ("option", "message"),
        [
            ({"words of livr": "shape: a; location: b"}, "no class 'livr'"),
            ({"words of liver": "shape: a"}, "text for 'liver' lacks 'location'"),
        ],
    )
    def test_that_cannot_be_read_stop_before_the_network(
        self, table: ConceptTable, volume: MetaTensor, option: dict[str, str], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            requested(table, volume, **option)

    def test_are_not_evaluated(self, table: ConceptTable, volume: MetaTensor) -> None:
        with pytest.raises(ValueError, match=r"'shape' begins with '\$', which a configuration would evaluate"):
            requested(table, volume, **{"words of liver": "shape: $1/0; location: On the right."})

    def test_need_a_network_that_reads(self, table: ConceptTable) -> None:
        network = BasicUNet(in_channels=1, out_channels=4, features=(2, 2, 2, 2, 2, 2)).eval()
        image = torch.randn(1, 1, 32, 32, 32)
        assert torch.equal(infer(network, image), network(image))
        with pytest.raises(ValueError, match="a BasicUNet reads none"):
            infer(network, requested(table, MetaTensor(image[0]), **edited_text(table)))


class TestClasses:
    """Of a request: other ones than the table's."""

    LIVER = "shape: A wedge.; location: Top right."

    @pytest.fixture
    def reader(self, make_network: Callable[..., Any], awaken: Callable[..., Any]) -> Any:
        return awaken(make_network(head="words")).eval()

    def test_some_in_any_order_have_the_logits_that_they_have_among_all(
        self, reader: Any, table: ConceptTable, volume: MetaTensor
    ) -> None:
        whole = infer(reader, volume[None])
        some = infer(reader, requested(table, volume, classes="Liver; right kidney"))
        torch.testing.assert_close(some, whole[:, [0, 3, 1]])
        assert torch.equal(infer(reader, volume[None]), whole)

    def test_a_further_one_in_the_words_of_another_has_its_logits(
        self, reader: Any, table: ConceptTable, volume: MetaTensor
    ) -> None:
        whole = infer(reader, volume[None])
        options = {"further classes": f"x = {self.LIVER}", "classes": "left kidney; x"}
        torch.testing.assert_close(infer(reader, requested(table, volume, **options)), whole[:, [0, 2, 3]])

    def test_what_the_client_is_told(self, table: ConceptTable, volume: MetaTensor) -> None:
        transform = RequestedWordsd("image", table)
        options = {"further classes": "cyst = shape: A ball.\nx = A disc.", "classes": "x; liver"}
        case = transform({"image": volume.clone(), **options})
        assert case["result"] == {"classes": {"x": 1, "liver": 2}, "not learnt": ["x"]}
        assert "result" not in transform({"image": volume.clone(), **edited_text(table)})
        known = {"further classes": f"x = {self.LIVER}\ny = A disc.", "classes": "x; y"}  # x has the liver's words
        assert transform({"image": volume.clone(), **known})["result"]["not learnt"] == ["y"]

    def test_are_fixed_where_each_has_a_channel(self, network: Any, table: ConceptTable, volume: MetaTensor) -> None:
        with pytest.raises(ValueError, match="With `head: channels` words can be edited, classes cannot"):
            infer(network, requested(table, volume, classes="liver"))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"classes": "spleen"}, "`classes` asks for 'spleen', which has no words"),
            ({"classes": "liver; Liver"}, "duplicate class 'Liver'"),
            ({"further classes": "spleen"}, "has the line 'spleen'; expected '<name> = <words>'"),
            ({"further classes": "x = colour: red"}, "The words of 'x' has an unknown concept 'colour'"),
            ({"further classes": f"x = {LIVER}"}, "'liver' and 'x' have the same words"),
        ],
    )
    def test_that_cannot_be_had_are_refused_by_name(
        self, table: ConceptTable, volume: MetaTensor, options: dict[str, str], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            requested(table, volume, **options)


class TestOptions:
    def test_every_class_is_one(self, table: ConceptTable) -> None:
        options = request_options(table, result_dtype="uint8")
        words = ["words of right kidney", "words of left kidney", "words of liver"]
        assert list(options) == [*words, "classes", "further classes", "result_dtype"]
        assert options["words of liver"] == TestClasses.LIVER

    def test_the_text_of_a_request_is_in_the_place_of_the_tables(self, table: ConceptTable) -> None:
        assert request_options(table, **{"words of liver": "x"})["words of liver"] == "x"

    def test_as_listed_change_nothing(self, table: ConceptTable, volume: MetaTensor) -> None:
        assert requested(table, volume, **request_options(table)).meta.keys() == volume.meta.keys()


class TestSamples:
    def test_differ_by_the_dropout_of_fusion(self, network: Any, table: ConceptTable, volume: MetaTensor) -> None:
        network.train()
        samples = [infer(network, volume[None]) for _ in range(3)]
        assert not torch.allclose(samples[0], samples[1])
        assert not torch.allclose(samples[1], samples[2])
        for sample in samples:
            torch.testing.assert_close(sample.sum(1).as_tensor(), torch.ones(1, 64, 32, 32))

    def test_without_dropout_are_the_probabilities_of_evaluation(
        self, make_network: Callable[..., Any], table: ConceptTable, volume: MetaTensor
    ) -> None:
        """Whatever else a network in training mode would do: its text encoder has a dropout of its own."""
        network = make_network().train()
        network.text_encoder.embeddings.dropout.p = 0.5
        sample = infer(network, volume[None])
        torch.testing.assert_close(sample.as_tensor(), network.eval()(volume[None]).softmax(1))

    def test_of_regions_are_sigmoids(
        self, make_network: Callable[..., Any], table: ConceptTable, volume: MetaTensor
    ) -> None:
        network = make_network(softmax=False).train()
        sample = infer(network, volume[None], softmax=False)
        torch.testing.assert_close(sample.as_tensor(), network.eval()(volume[None]).sigmoid())

    def test_stay_probabilities_where_logits_become_labels(
        self, network: Any, table: ConceptTable, volume: MetaTensor
    ) -> None:
        to_labels = ToLabelsd("pred")
        sample = infer(network.train(), volume[None])[0]
        assert to_labels({"pred": sample})["pred"] is sample
        assert to_labels({"pred": infer(network.eval(), volume[None])[0]})["pred"].shape == (1, 64, 32, 32)

    def test_can_be_of_other_words(self, network: Any, table: ConceptTable, volume: MetaTensor) -> None:
        edited = requested(table, volume, **edited_text(table))
        network.train()
        torch.manual_seed(0)
        plain = infer(network, volume[None])
        torch.manual_seed(0)
        assert not torch.allclose(infer(network, edited), plain)
        assert network.training


def test_arguments_of_the_engine_reach_the_inner_inferer() -> None:
    seen: list[Any] = []
    inner = lambda inputs, network, *args, **kwargs: seen.append((args, kwargs))  # noqa: E731
    RequestInferer(inner)(torch.zeros(1), lambda image: image, 1, condition=2)
    assert seen == [((1,), {"condition": 2})]
