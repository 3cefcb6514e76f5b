from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.inferers import SimpleInferer

from scripts.inference.averaging import AveragingInferer, check_ensemble
from scripts.networks.weights import write_weights
from scripts.training.checkpoints import load_model


@pytest.fixture
def volume() -> torch.Tensor:
    return torch.randn(1, 1, 64, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def reader(make_network, awaken):
    return awaken(make_network(head="words")).eval()


def test_one_look_is_that_of_the_wrapped_inferer(reader, volume) -> None:
    with torch.no_grad():
        assert torch.equal(AveragingInferer(SimpleInferer())(volume, reader), reader(volume))


def test_words_of_a_mirrored_image_have_their_sides_exchanged(reader, volume, table) -> None:
    swapped = reader.with_concepts(
        table.swapped("right kidney", "left kidney").replace_sentences({"liver": {"location": "Top left."}})
    )
    with torch.no_grad():
        expected = (reader(volume).softmax(1) + swapped(volume.flip(2)).flip(2).softmax(1)) / 2
        found = AveragingInferer(SimpleInferer(), mirror_axes=[0])(volume, reader)
        plain = (reader(volume).softmax(1) + reader(volume.flip(2)).flip(2).softmax(1)) / 2
    torch.testing.assert_close(found.exp(), expected, atol=1e-6, rtol=1e-4)
    assert not torch.allclose(plain, expected, atol=1e-4)


def test_channels_of_a_mirrored_image_change_sides(make_network, awaken, volume) -> None:
    network = awaken(make_network()).eval()  # background, right kidney, left kidney, liver
    with torch.no_grad():
        mirrored = network(volume.flip(2)).flip(2)[:, [0, 2, 1, 3]]
        found = AveragingInferer(SimpleInferer(), mirror_axes=[0])(volume, network)
    expected = (network(volume).softmax(1) + mirrored.softmax(1)) / 2
    torch.testing.assert_close(found.exp(), expected, atol=1e-6, rtol=1e-4)


def test_all_combinations_of_axes_are_looked_at(volume) -> None:
    seen = []

    def network(image: torch.Tensor) -> torch.Tensor:
        seen.append(image)
        return torch.cat([image, -image], dim=1)

    found = AveragingInferer(SimpleInferer(), mirror_axes=[1, 2])(volume, network)
    assert len(seen) == 4
    assert {tuple(axis for axis in range(2, 5) if torch.equal(one, volume.flip(axis))) for one in seen} >= {(3,), (4,)}
    torch.testing.assert_close(found.exp(), network(volume).softmax(1), atol=1e-6, rtol=1e-4)


@pytest.fixture
def other(make_network, awaken, tmp_path: Path) -> Path:
    """A model of the same configuration, as another fold leaves it."""
    record = {"plan": {"roi_size": [64, 32, 32]}, "trained_on": []}
    write_weights(awaken(make_network(head="words"), seed=5).state_dict(), tmp_path / "fold1.pt", record)
    write_weights({"x": torch.zeros(1)}, tmp_path / "same.pt", record)
    write_weights({"x": torch.zeros(1)}, tmp_path / "else.pt", {"plan": {"roi_size": [96, 96, 96]}})
    return tmp_path / "fold1.pt"


def test_probabilities_of_an_ensemble_are_averaged_in_the_words_asked_for(
    reader, other, volume, table, make_network
) -> None:
    averaging = AveragingInferer(SimpleInferer(), ensemble=[other], like=other.with_name("same.pt"), load=load_model)
    second = load_model(make_network(head="words"), other).eval()
    fewer = table.only(["liver", "left kidney"])
    with torch.no_grad():
        for one, two in ((reader, second), (reader.with_concepts(fewer), second.with_concepts(fewer))):
            expected = (one(volume).softmax(1) + two(volume).softmax(1)) / 2
            torch.testing.assert_close(averaging(volume, one).exp(), expected, atol=1e-6, rtol=1e-4)


def test_ensemble_of_another_configuration(reader, other, volume) -> None:
    averaging = AveragingInferer(SimpleInferer(), ensemble=[other], like=other.with_name("else.pt"), load=load_model)
    with pytest.raises(
        ValueError, match=r"fold1.pt of `ensemble` was trained with roi_size = \[64, 32, 32\], the first"
    ):
        averaging(volume, reader)
    with pytest.raises(ValueError, match=r"fold1.pt of `ensemble` was trained with roi_size"):
        check_ensemble(other.with_name("else.pt"), [other])
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt"):
        check_ensemble(other.with_name("same.pt"), [other, other.with_name("nowhere.pt")])


def test_impossible_settings() -> None:
    with pytest.raises(ValueError, match=r"`mirror_axes` lists axes out of 0 .* found \[3\]"):
        AveragingInferer(SimpleInferer(), mirror_axes=[3])
    with pytest.raises(ValueError, match="`ensemble` lists the files"):
        AveragingInferer(SimpleInferer(), ensemble="model.pt")
