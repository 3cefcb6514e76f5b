from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from ignite.handlers import Checkpoint
from monai.bundle import ConfigParser, ConfigWorkflow, verify_net_in_out
from scipy import ndimage

import scripts.release.bundle
from scripts.configuration.check import check_config
from scripts.data.phantom.dataset import make_phantom
from scripts.release.bundle import release_bundle
from scripts.training.checkpoints import load_model
from scripts.whole_file import digest_of
from scripts.words.table import ConceptTable

Describe = Callable[..., Path]


# What a user does with a released bundle in Python, in the folder where this runs.
LOAD = """
import sys
from pathlib import Path
import torch
from monai.bundle import load

bundle = Path(sys.argv[1])
network = load(bundle.name, bundle_dir=bundle.parent, workflow_type="infer", device="cpu").eval()
assert Path(sys.modules["scripts"].__file__).parent == bundle / "scripts"
image = torch.randn(1, 1, 64, 32, 32, generator=torch.Generator().manual_seed(0))
with torch.no_grad():
    torch.save(network(image), "logits.pt")
"""


def network_of(root: Path, entry: str) -> torch.nn.Module:
    parser = ConfigParser()
    parser.read_config([str(root / "configs" / entry)])
    parser["bundle_root"] = str(root)
    network = parser.get_parsed_content("network_def")
    return load_model(network, root / "models/model.pt").eval()


def runs_in(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-B", "-m", "monai.bundle", "run", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


class TestConfigs:
    @pytest.mark.parametrize("entry", ["train.yaml", "inference.yaml"])
    def test_stand_alone(self, bundle: Path, entry: str) -> None:
        assert check_config(str(bundle / "configs" / entry)) == []

    @pytest.mark.parametrize(
        ("entry", "overlay"),
        [
            ("train.yaml", "evaluate.yaml"),
            ("train.yaml", "multi_gpu_train.yaml"),
            ("inference.yaml", "exported.yaml"),
        ],
    )
    def test_overlays_fit(self, bundle: Path, entry: str, overlay: str) -> None:
        assert check_config([str(bundle / "configs" / name) for name in (entry, overlay)]) == []

    def test_hold_the_options_of_the_training(self, bundle: Path, tiny_options: dict[str, Any]) -> None:
        train, inference = (
            yaml.safe_load((bundle / "configs" / name).read_text()) for name in ("train.yaml", "inference.yaml")
        )
        assert train["max_epochs"] == tiny_options["max_epochs"]
        assert "max_epochs" not in inference
        for content in (train, inference):
            assert content["roi_size"] == tiny_options["roi_size"]
            assert content["backbone"]["network"]["depths"] == [1, 1, 1, 1]

    def test_leave_out_of_inference_what_is_of_the_training_alone(self, describe: Describe, tmp_path: Path) -> None:
        out = release_bundle(str(describe(overlays=["ablation_global_only.yaml"])), str(tmp_path))
        train, inference = (
            yaml.safe_load((out / "configs" / name).read_text()) for name in ("train.yaml", "inference.yaml")
        )
        assert train["loss_def"]["alignment"]["local_weight"] == 0
        assert not {"loss_def", "learning_rate", "prepare_data"} & set(inference)

    def test_segment_and_score_by_the_options_of_the_description(
        self, describe: Describe, tiny_options: dict[str, Any], tmp_path: Path
    ) -> None:
        looks = {"mirror_axes": [0], "keep_largest": ["liver"], "remove_smaller": {"spleen": 0.5}}
        out = release_bundle(str(describe(options={**tiny_options, **looks})), str(tmp_path))
        for files in (["inference.yaml"], ["train.yaml", "evaluate.yaml"]):
            parser = ConfigParser()
            parser.read_config([str(out / "configs" / name) for name in files])
            assert {key: parser.get(key) for key in looks} == looks
            assert check_config([str(out / "configs" / name) for name in files]) == []
        assert "mirror_axes" not in yaml.safe_load((out / "configs/train.yaml").read_text())
        text = (out / "configs/evaluate.yaml").read_text()
        assert "\nmirror_axes: [0] # also look at mirrored images" in text
        page = (out / "README.md").read_text()
        assert 'By default inference goes by `keep_largest: ["liver"]`, `mirror_axes: [0]`, `remove_smaller:' in page
        assert "which takes 2 times as long" in page
        assert "The scores above were taken with none of them." in page

    def test_name_no_place_outside_the_bundle(self, bundle: Path, tiny_bert: Path, bundle_root: Path) -> None:
        for path in [*bundle.glob("configs/*"), *bundle.glob("docs/*"), bundle / "README.md"]:
            if path.is_file():
                text = path.read_text()
                assert str(bundle_root) not in text
                assert str(tiny_bert.parent) not in text
                assert not re.search(r"/(home|tmp|root|Users)/", text), path

    @pytest.mark.parametrize(("entry", "kind"), [("train.yaml", "train"), ("inference.yaml", "infer")])
    def test_have_every_property_that_monai_asks_for(
        self, bundle: Path, entry: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        cases = [{"image": f"{name}.nii.gz", "label": f"{name}_seg.nii.gz"} for name in "abc"]
        (tmp_path / "dataset.json").write_text(json.dumps({"training": cases, "test": cases}))
        for case in cases:
            for file in case.values():
                nib.save(nib.Nifti1Image(np.eye(3, dtype=np.float32)[None], np.eye(4)), tmp_path / file)
        options = {"dataset_dir": str(tmp_path / "dataset.json"), "output_dir": str(tmp_path / "runs")}
        options |= {"cache_rate": 0.0} if kind == "train" else {}
        path = str(bundle / "configs" / entry)
        workflow = ConfigWorkflow(
            path, workflow_type=kind, logging_file=False, init_id="absent", bundle_root=str(bundle), **options
        )
        workflow.initialize()
        assert workflow.check_properties() == []

    def test_entry_files_build_one_network(self, bundle: Path, weights: Path) -> None:
        image = torch.randn(1, 1, 64, 32, 32, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            one, other = (network_of(bundle, entry)(image) for entry in ("train.yaml", "inference.yaml"))
        assert torch.equal(one, other)
        assert one.std() > 0


class TestMonai:
    def test_verifies_metadata(self, bundle: Path) -> None:
        schema = Path(__file__).parents[1] / "bundle/meta_schema_20240725.json"
        metadata = json.loads((bundle / "configs/metadata.json").read_text())
        jsonschema.validate(metadata, json.loads(schema.read_text()))

    def test_verifies_network(self, bundle: Path) -> None:
        verify_net_in_out(
            net_id="network_def",
            meta_file=str(bundle / "configs/metadata.json"),
            config_file=str(bundle / "configs/inference.yaml"),
            bundle_root=str(bundle),
        )

    def test_loads_network_with_weights_from_a_foreign_folder(self, bundle: Path, tmp_path: Path) -> None:
        """In a process of its own, whose one `scripts` is the released one."""
        done = subprocess.run(
            [sys.executable, "-B", "-c", LOAD, str(bundle)], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        image = torch.randn(1, 1, 64, 32, 32, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected = network_of(bundle, "train.yaml")(image)
        torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), expected)

    def test_model_loads_as_the_zoo_and_plain_pytorch_load_it(self, bundle: Path) -> None:
        path, network = bundle / "models/model.pt", network_of(bundle, "inference.yaml")
        network.load_state_dict(torch.load(path, weights_only=True), strict=True)
        Checkpoint.load_objects(to_load={"": network}, checkpoint=str(path))  # as monai.bundle exports a checkpoint
        assert json.loads((bundle / "docs/figures.json").read_text())["weights_sha256"] == digest_of(path)

    @pytest.mark.slow
    def test_runs_from_a_foreign_folder_with_nothing_but_itself(
        self, bundle: Path, tmp_path: Path, bundle_root: Path
    ) -> None:
        image = np.random.default_rng(0).normal(size=(40, 30, 20)).astype(np.float32)
        nib.save(nib.Nifti1Image(image, np.diag([8.0, 8.0, 8.0, 1.0])), tmp_path / "image.nii.gz")
        files = ["--config_file", str(bundle / "configs/inference.yaml"), "--bundle_root", str(bundle)]
        classes = list(ConceptTable.load(bundle / "configs/concepts/mine.yaml").classes)
        looks = [
            "--mirror_axes",
            "[0]",
            "--ensemble",
            f"['{bundle / 'models/model.pt'}']",
            "--keep_largest",
            str(classes),
        ]
        places = ["--dataset_dir", str(tmp_path / "image.nii.gz"), "--output_dir", str(tmp_path)]
        runs_in(tmp_path, *files, *places, *looks)
        labels = nib.load(tmp_path / "predictions/image_seg.nii.gz")
        assert labels.shape == image.shape
        assert labels.get_data_dtype() == np.uint8
        found = np.unique(np.asarray(labels.dataobj))[1:]
        assert len(found)
        assert [ndimage.label(labels.dataobj == label, np.ones((3, 3, 3)))[1] for label in found] == [1] * len(found)

    @pytest.mark.slow
    def test_is_measured_where_it_is_released_and_goes_on_training(
        self, describe: Describe, tiny_options: dict[str, Any], weights: Path, tmp_path: Path
    ) -> None:
        make_phantom(tmp_path / "data", num_training=3, num_test=2, progress=False)
        path = describe(figures=None, options={**tiny_options, "mirror_axes": [0]})
        out = release_bundle(str(path), str(tmp_path), ckpt_path=str(weights), dataset_dir=str(tmp_path / "data"))
        record = json.loads((out / "docs/figures.json").read_text())
        assert record["precision"] == "float16"  # the weights were rounded to it before
        assert record["settings"] == {"mirror_axes": [0]}
        assert "The scores above were taken" not in (out / "README.md").read_text()
        assert len((out / "docs/metrics_per_case.csv").read_text().splitlines()) == 1 + 2 * 8
        table = (out / "docs/reading.md").read_text()
        assert "| meaningless words |" in table.replace("  ", " ")
        assert table in (out / "README.md").read_text()
        assert not list(out.rglob("__pycache__"))
        changes = {"weights": str(out / "models/model.pt"), "figures": str(out / "docs")}
        path = describe(options={**tiny_options, "mirror_axes": [0]}, **changes)
        again = release_bundle(str(path), str(tmp_path / "again"))
        assert (again / "README.md").read_text() == (out / "README.md").read_text()
        options = ["--dataset_dir", str(tmp_path / "data"), "--max_epochs", "1", "--val_interval", "1"]
        start = ["--start_from", str(out / "models/model.pt"), "--ckpt_dir", str(tmp_path / "tuned")]
        said = runs_in(out, "training", "--config_file", "configs/train.yaml", *options, *start)
        assert f"Loaded the model {out / 'models/model.pt'}" in said
        assert (tmp_path / "tuned/model.pt").is_file()


class TestPages:
    def test_figures_stand_in_both_pages(self, bundle: Path) -> None:
        for page in ("README.md", "docs/README.md"):
            text = (bundle / page).read_text()
            assert "| spleen | 45.0 ± 63.6 | 2.0 | 40.0 ± 56.6 | 1 | 2 |" in text
            assert "2 test cases that nothing was chosen on" in text
            assert "A. Author. A book." in text

    def test_links_lead_somewhere(self, bundle: Path) -> None:
        for page in (bundle / "README.md", bundle / "docs/README.md"):
            links = re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text())
            assert links
            assert all((page.parent / link).is_file() for link in links)

    def test_reading_test_stands_in_the_card_and_its_verdict_in_the_description(
        self, bundle: Path, figures: Path
    ) -> None:
        verdict = (figures / "reading.md").read_text().splitlines()[0]
        assert f"## Does it read?\n\n{verdict}\n\n| wording | DSC |" in (bundle / "README.md").read_text()
        facts = json.loads((bundle / "configs/metadata.json").read_text())
        assert facts["description"] == f"Segments what it can. {verdict}"

    def test_without_a_reading_test_the_card_says_so(self, describe: Describe, figures: Path, tmp_path: Path) -> None:
        for name in ("figures.json", "metrics_per_case.csv"):
            (tmp_path / name).write_bytes((figures / name).read_bytes())
        out = release_bundle(str(describe(figures=str(tmp_path))), str(tmp_path / "out"))
        assert "## Does it read?\n\nNot tested." in (out / "README.md").read_text()

    def test_card_has_a_header_for_the_hub(self, bundle: Path) -> None:
        _, header, page = (bundle / "README.md").read_text().split("---\n", 2)
        content = yaml.safe_load(header)
        assert content["library_name"] == "monai"
        assert content["license"] == "apache-2.0"
        (result,) = content["model-index"][0]["results"]
        assert {metric["type"] for metric in result["metrics"]} == {"dice", "hd95_mm", "nsd"}
        assert page.strip().startswith("# Model Overview")

    def test_metadata_are_the_releases_own(self, bundle: Path) -> None:
        metadata = json.loads((bundle / "configs/metadata.json").read_text())
        assert metadata["name"] == bundle.name == "bipvl_mine"
        assert metadata["version"] in metadata["changelog"]
        channels = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
        assert channels["0"] == "background"
        assert channels["8"] == "urinary bladder"
        assert metadata["eval_metrics"]["mean_hd95_mm"] == pytest.approx(2.0)


class TestBadInput:
    def test_existing_folder_is_kept(self, describe: Describe, tmp_path: Path) -> None:
        (tmp_path / "bipvl_mine").mkdir()
        (tmp_path / "bipvl_mine/thesis.txt").write_text("years of work")
        with pytest.raises(FileExistsError, match="exists"):
            release_bundle(str(describe()), str(tmp_path))
        with pytest.raises(FileExistsError, match="no released bipvl_mine"):
            release_bundle(str(describe()), str(tmp_path), overwrite=True)
        assert (tmp_path / "bipvl_mine/thesis.txt").read_text() == "years of work"

    def test_figures_of_other_weights(self, describe: Describe, weights: Path, tmp_path: Path) -> None:
        state = torch.load(weights, weights_only=True)
        state["model"]["backbone.network.out.conv.conv.bias"] += 1
        torch.save(state, tmp_path / "other.pt")
        with pytest.raises(ValueError, match="measured with other weights"):
            release_bundle(str(describe()), str(tmp_path), ckpt_path=str(tmp_path / "other.pt"))
        assert not list(tmp_path.glob("*bipvl_mine*"))

    def test_weights_of_another_network(self, describe: Describe, tiny_options: dict[str, Any], tmp_path: Path) -> None:
        other = {**tiny_options, "backbone#network#feature_size": 24}
        with pytest.raises(ValueError, match="does not fit the network"):
            release_bundle(str(describe(options=other)), str(tmp_path))

    def test_files_of_other_models(self, describe: Describe, tiny_options: dict[str, Any], tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="set ensemble, which belong to a machine"):
            release_bundle(str(describe(options={**tiny_options, "ensemble": ["/x.pt"]})), str(tmp_path))

    def test_option_of_a_machine(self, describe: Describe, tiny_options: dict[str, Any], tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="set ckpt_dir, which belong to a machine"):
            release_bundle(str(describe(options={**tiny_options, "ckpt_dir": "/x"})), str(tmp_path))

    def test_misspelt_option(self, describe: Describe, tiny_options: dict[str, Any], tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="max_epocs"):
            release_bundle(str(describe(options={**tiny_options, "max_epocs": 3})), str(tmp_path))

    @pytest.mark.parametrize("name", ["../../escaped", "/escaped", ""])
    def test_a_name_that_leaves_the_bundle(
        self, describe: Describe, tiny_options: dict[str, Any], tmp_path: Path, name: str
    ) -> None:
        overlay = tmp_path / "mine.yaml"
        overlay.write_text(yaml.safe_dump({"dataset_name": name}))
        options = {key: value for key, value in tiny_options.items() if key != "dataset_name"}
        for changes in (
            {"options": {**options, "dataset_name": name}},
            {"overlays": [str(overlay)], "options": options},
        ):
            with pytest.raises(ValueError, match="dataset_name becomes the name of a file or a folder"):
                release_bundle(str(describe(**changes)), str(tmp_path / "out"))
        overlay.write_text(f"dataset_name: \"$'{name or '.'}'\"")  # only known once it is evaluated
        with pytest.raises(ValueError, match="dataset_name becomes the name of a file or a folder"):
            release_bundle(str(describe(overlays=[str(overlay)], options=options)), str(tmp_path / "out"))
        assert not [path for path in tmp_path.rglob("*") if "escaped" in path.name or path.name == "bipvl_mine"]

    @pytest.mark.parametrize(
        "record", ['{"evaluate_on": "$print(1)"}', '{"a": 1, "a": 2}', "[]", '{"evaluate_on": "test"}', '{"evil": 1}']
    )
    def test_a_record_of_figures_that_is_none(
        self, describe: Describe, figures: Path, tmp_path: Path, record: str
    ) -> None:
        (tmp_path / "figures").mkdir()
        (tmp_path / "figures/metrics_per_case.csv").write_bytes((figures / "metrics_per_case.csv").read_bytes())
        (tmp_path / "figures/figures.json").write_text(record)
        with pytest.raises(ValueError, match=r"figures\.json'"):
            release_bundle(str(describe(figures=str(tmp_path / "figures"))), str(tmp_path / "out"))

    def test_nothing_to_take_the_figures_from(self, describe: Describe, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="names no `figures`"):
            release_bundle(str(describe(figures=None)), str(tmp_path))
        with pytest.raises(FileNotFoundError, match=r"lacks figures\.json, metrics_per_case\.csv"):
            release_bundle(str(describe(figures=str(tmp_path))), str(tmp_path))

    def test_no_weights(self, describe: Describe, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="names no `weights`"):
            release_bundle(str(describe(weights=None)), str(tmp_path))
        with pytest.raises(FileNotFoundError, match=r"nowhere\.pt does not exist"):
            release_bundle(str(describe()), str(tmp_path), ckpt_path=str(tmp_path / "nowhere.pt"))


class TestLargeFiles:
    def test_need_a_place_to_be_fetched_from(
        self, describe: Describe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(scripts.release.bundle, "FILE_LIMIT", 3_000_000)
        with pytest.raises(ValueError, match=r"models/model\.pt of bipvl_mine are above .* limit of 3 MB"):
            release_bundle(str(describe()), str(tmp_path))

    def test_are_listed_with_their_digest(
        self, describe: Describe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(scripts.release.bundle, "FILE_LIMIT", 3_000_000)
        out = release_bundle(str(describe(download_url="https://example.org/mine/")), str(tmp_path))
        (entry,) = yaml.safe_load((out / "large_files.yml").read_text())["large_files"]
        assert entry["path"] == "models/model.pt"
        assert entry["url"] == "https://example.org/mine/models/model.pt"
        assert entry["hash_type"] == "md5"
        assert len(entry["hash_val"]) == 32
