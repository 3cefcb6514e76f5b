"""MONAI Label's own server, over HTTP: the words of each request, fine-tuning, scores.

    python -m pytest -m monailabel

BIPVL_MONAILABEL_VENV names an environment that is there already; else the start command makes one.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from scripts.networks.weights import write_weights
from scripts.words.table import ConceptTable

pytestmark = pytest.mark.monailabel


def voxels(image: Any) -> np.ndarray[Any, Any]:
    return np.asarray(image.dataobj)


@pytest.fixture
def table(server: Any) -> ConceptTable:
    return ConceptTable.load(server.bundle / "configs/concepts/phantom.yaml")


@pytest.fixture
def options(server: Any) -> dict[str, Any]:
    return server.info()["models"][server.model]["config"]


@pytest.fixture
def edited(options: dict[str, Any], table: ConceptTable) -> dict[str, str]:
    """The liver's text, as a user changes it in the client: one sentence is another."""
    shape = table.sentences[table.classes.index("liver")][table.concepts.index("shape")]
    text = options["words of liver"]
    assert shape in text
    return {"words of liver": text.replace(shape, "Two thin rings, one inside the other.")}


class TestInfo:
    def test_lists_the_labels_of_the_table(self, server: Any, table: ConceptTable) -> None:
        info = server.info()
        assert info["labels"] == list(table.classes)
        assert info["models"][server.model]["labels"] == {name: i for i, name in enumerate(table.classes, start=1)}

    def test_shows_every_sentence(self, options: dict[str, Any], table: ConceptTable) -> None:
        for label, row in zip(table.classes, table.sentences, strict=True):
            expected = "; ".join(f"{concept}: {text}" for concept, text in zip(table.concepts, row, strict=True))
            assert options[f"words of {label}"] == expected

    def test_offers_training_scoring_and_the_strategy(self, server: Any) -> None:
        info = server.info()
        assert server.model in info["trainers"]
        assert server.model in info["scoring"]
        assert "epistemic" in info["strategies"]


class TestInference:
    def test_answers_with_labels_in_the_grid_of_the_image(self, server: Any, table: ConceptTable) -> None:
        for case in ("case_0", "case_1"):
            image, found = nib.load(server.studies / f"{case}.nii.gz"), server.infer(case)
            assert found.shape == image.shape
            np.testing.assert_allclose(found.affine, image.affine, atol=1e-3)
            assert found.get_data_dtype() == np.uint8
            assert set(np.unique(voxels(found))) <= set(range(len(table.classes) + 1))
            assert len(np.unique(voxels(found))) > 2

    def test_answers_what_the_bundle_writes_by_itself(self, server: Any, tmp_path: Path) -> None:
        command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.yaml"]
        command += ["--dataset_dir", str(server.studies / "case_0.nii.gz"), "--output_dir", str(tmp_path)]
        subprocess.run(command, cwd=server.bundle, check=True, capture_output=True)
        written = voxels(nib.load(tmp_path / "predictions/case_0_seg.nii.gz"))
        assert (voxels(server.infer("case_0")) == written).mean() > 0.999  # another numpy, perhaps another torch


@contextmanager
def added(server: Any, name: str, values: np.ndarray[Any, Any], voxel: list[float], folder: Path) -> Iterator[str]:
    """An image among the studies, and afterwards not."""
    nib.save(nib.Nifti1Image(values.astype(np.float32), np.diag([*voxel, 1.0])), folder / f"{name}.nii.gz")
    content = (folder / f"{name}.nii.gz").read_bytes()
    server.form(f"/datastore/image?image={name}", "PUT", "file", content, filename=f"{name}.nii.gz")
    yield name
    server.ask(f"/datastore/image?id={name}", "DELETE")


class TestWhatTheModelWasMadeFor:
    def test_an_image_of_another_size_or_kind_is_refused_unless_asked_for(self, server: Any, tmp_path: Path) -> None:
        voxels_of = np.random.default_rng(0).uniform(-900, 300, size=(8, 8, 40))
        for name, values, voxel, reason in (
            ("long", voxels_of, [8.0, 8.0, 40.0], "'long' measures 1600 x 64 x 64 mm"),
            ("other", voxels_of + 1000, [8.0, 8.0, 8.0], "'other' has no values below -200, unlike CT in HU"),
        ):
            with added(server, name, values, voxel, tmp_path):
                with pytest.raises(urllib.error.HTTPError) as refused:
                    server.infer(name)
                told = json.loads(refused.value.read())["detail"]
                assert refused.value.code == 400
                assert reason in told
                assert "set `other_images` to true" in told
                assert server.infer(name, other_images=True).shape == values.shape

    def test_a_model_of_another_network_is_refused_by_the_setting(self, server: Any) -> None:
        state = torch.load(server.bundle / "models/model.pt", weights_only=True)
        plan = copy.deepcopy(state.record["plan"])
        plan["backbone"]["network"]["feature_size"] = 24
        write_weights(state, server.bundle / "models/wider.pt", {"plan": plan})
        with pytest.raises(urllib.error.HTTPError) as refused:
            server.infer("case_0", model_filename="wider.pt")
        (server.bundle / "models/wider.pt").unlink()
        assert refused.value.code == 400
        told = json.loads(refused.value.read())["detail"]
        assert "'wider.pt' was trained with backbone#network#feature_size = 24, the first model with 12" in told


class TestWords:
    def test_of_a_request_are_read_for_that_request(self, server: Any, edited: dict[str, str]) -> None:
        before = voxels(server.infer("case_0"))
        assert (voxels(server.infer("case_0", **edited)) != before).any()
        assert np.array_equal(voxels(server.infer("case_0")), before)

    def test_as_shown_change_nothing(self, server: Any, options: dict[str, Any]) -> None:
        shown = {name: value for name, value in options.items() if name.startswith("words of ")}
        assert np.array_equal(voxels(server.infer("case_0", **shown)), voxels(server.infer("case_0")))

    def test_of_another_class_give_its_mask(self, server: Any, options: dict[str, Any], table: ConceptTable) -> None:
        left, right = "left kidney", "right kidney"
        exchanged = {f"words of {left}": options[f"words of {right}"], f"words of {right}": options[f"words of {left}"]}
        before, after = voxels(server.infer("case_0")), voxels(server.infer("case_0", **exchanged))
        numbers = list(range(len(table.classes) + 1))
        i, j = (table.classes.index(name) + 1 for name in (left, right))
        numbers[i], numbers[j] = j, i
        assert {i, j} & set(np.unique(before)), "nothing to exchange"
        assert np.array_equal(np.asarray(numbers)[before], after)

    def test_under_a_new_name_give_the_same_mask(
        self, server: Any, options: dict[str, Any], table: ConceptTable
    ) -> None:
        classes = "; ".join("x" if name == "liver" else name for name in table.classes)
        asked = {"further classes": f"x = {options['words of liver']}", "classes": classes}
        assert np.array_equal(voxels(server.infer("case_0", **asked)), voxels(server.infer("case_0")))

    def test_of_some_classes_come_with_their_labels(self, server: Any) -> None:
        params = {"result_extension": ".nii.gz", "classes": "liver; x", "further classes": "x = location: In front."}
        path = f"/infer/{server.model}?image=case_0&output=json"
        told = json.loads(server.form(path, "POST", "params", json.dumps(params).encode()))
        told = told.get("params", told)
        assert told["label_names"] == {"liver": 1, "x": 2}
        assert told["not learnt"] == ["x"]

    @pytest.mark.parametrize(
        ("option", "text", "message"),
        [
            ("classes", "livr", "`classes` asks for 'livr', which has no words"),
            ("words of liver", "shape: A wedge.", "The text for 'liver' lacks 'title'"),
            ("words of liver", "", "The text for 'liver' is empty"),
            ("words of liver", "shap: A wedge.", "unknown concept 'shap'; did you mean 'shape'"),
            ("words of liver", "$import this", "'words of liver' begins with '$'"),
            ("words of livr", "shape: A wedge.", "no option 'words of livr'; did you mean 'words of liver'"),
        ],
    )
    def test_that_cannot_be_read_are_refused_by_name(self, server: Any, option: str, text: str, message: str) -> None:
        with pytest.raises(urllib.error.HTTPError) as refused:
            server.infer("case_0", **{option: text})
        assert refused.value.code == 400
        assert message in json.loads(refused.value.read())["detail"]


class TestScoring:
    def test_the_next_sample_is_the_most_uncertain_one(self, server: Any) -> None:
        done = server.post(f"/scoring/{server.model}?run_sync=true", simulation_size=2)
        objects = json.loads((server.studies / "datastore_v2.json").read_text())["objects"]
        scores = {name: entry["image"]["info"]["epistemic_entropy"] for name, entry in objects.items()}
        assert done["executed"] == len(scores) == 4
        assert all(0 < score < np.log(9) for score in scores.values()), "of nine channels"
        assert len(set(scores.values())) == 4
        chosen = server.post("/activelearning/epistemic")
        assert chosen["id"] == max(scores, key=lambda name: scores[name])


class TestTraining:
    """Last: the weights are others from here on."""

    FROM_SLICER = {"run_id": "", "model_filename": "model.pt", "tracking": "None", "multi_gpu": True, "gpus": "all"}  # noqa: RUF012

    def test_fine_tunes_on_the_submitted_labels(self, server: Any, labels: Path) -> None:
        model = server.bundle / "models/model.pt"
        weights, before = model.read_bytes(), voxels(server.infer("case_2"))
        for case in ("case_0", "case_1"):
            server.submit(case, labels / f"{case}.nii.gz")
        path = f"/train/{server.model}?run_sync=true"
        server.post(path, max_epochs=2, val_split=0.0, **self.FROM_SLICER)  # not judged: two steps may do worse
        assert model.read_bytes() != weights
        assert model.with_name("model_1.pt").read_bytes() == weights
        assert (voxels(server.infer("case_2")) != before).any()
        assert np.array_equal(voxels(server.infer("case_2", model_filename="model_1.pt")), before)
        assert not (server.bundle / "data").exists(), "the phantom is not needed here"
        new, old = (torch.load(path, weights_only=True).record for path in (model, model.with_name("model_1.pt")))
        assert new["plan"]["spacing"] == old["plan"]["spacing"] == [8.0, 8.0, 8.0]
        assert new["plan"]["backbone"] == old["plan"]["backbone"]
        assert all(a >= b for a, b in zip(new["images"]["largest_mm"], old["images"]["largest_mm"], strict=True))

    def test_fine_tunes_on_too_few_labels_to_validate_on(self, server: Any, labels: Path) -> None:
        model = server.bundle / "models/model.pt"
        weights = model.read_bytes()
        server.submit("case_0", labels / "case_0.nii.gz")
        server.post(f"/train/{server.model}?run_sync=true", max_epochs=1, **self.FROM_SLICER)
        assert model.read_bytes() != weights
        assert "There is no case to validate on" in server.log.read_text()

    def test_starts_from_the_best_model_unless_told_otherwise(self, server: Any) -> None:
        offered = server.info()["trainers"][server.model]["config"]["model_filename"]
        assert offered[0] == "model.pt"
        assert "last.pt" in offered
