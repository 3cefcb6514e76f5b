"""An export as a user makes and uses it: by the command, in the bundle, and as the documentation says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from scripts.configuration.check import check_config
from scripts.data.phantom.dataset import make_phantom
from scripts.export.command import ONNX_PACKAGES, export_model
from scripts.export.network import describe_export

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGS = REPOSITORY / "bipvl_bundle/configs"
FILES = ("inference.yaml", "backbone_unet.yaml")  # a U-Net is traced in a fifth of the time
PATHS = [str(CONFIGS / name) for name in FILES]
FORMATS = ["pt2", pytest.param("onnx", marks=pytest.mark.slow)]  # writing ONNX takes most of the time
ALONE = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("transformers", "tokenizers", "scripts"):
            raise ModuleNotFoundError(f"{name} is not here")

sys.meta_path.insert(0, Absent())
"""


class Exports(NamedTuple):
    """A folder with an exported network and its checkpoint, the options that make it, and a case."""

    folder: Path
    options: dict[str, Any]
    case: Path


@pytest.fixture(scope="module")
def exports(tiny: dict[str, Any], awaken: Any, bundle_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Exports:
    folder = tmp_path_factory.mktemp("exports")
    options = {key: value for key, value in tiny.items() if not key.startswith("backbone")}
    options |= {"bundle_root": str(bundle_root), "roi_size": [32, 32, 32], "backbone#network#channels": [4, 4, 8, 8, 8]}
    options |= {"network_def#num_heads": [1, 1, 1, 1], "head": "channels"}
    parser = ConfigParser()
    parser.read_config(PATHS)
    parser.update({key.replace("#", "::"): value for key, value in options.items()})
    torch.manual_seed(0)
    network = awaken(parser.get_parsed_content("network_def"))
    torch.save({"model": network.state_dict()}, folder / "model.pt")
    export_model(folder / "model.pt2", PATHS, ckpt_path=folder / "model.pt", **options)
    make_phantom(folder / "data", num_training=1, num_test=1, progress=False)
    (case,) = (folder / "data/imagesTs").iterdir()
    return Exports(folder, options, case)


@pytest.fixture(scope="module")
def with_onnx(exports: Exports) -> Exports:
    for package in ONNX_PACKAGES:
        pytest.importorskip(package, reason="ONNX is an optional format: pip install onnx onnxscript onnxruntime")
    export_model(exports.folder / "model.onnx", PATHS, ckpt_path=exports.folder / "model.pt", **exports.options)
    return exports


@pytest.fixture(scope="module")
def expected(exports: Exports, bundle_run: Callable[..., None]) -> np.ndarray[Any, Any]:
    """What the network itself makes of the case, by the bundle's inference."""
    options = {**exports.options, "dataset_dir": str(exports.case), "output_dir": str(exports.folder / "eager")}
    bundle_run("run", *FILES, folder=exports.folder, ckpt_path=str(exports.folder / "model.pt"), **options)
    mask = labels_in(exports.folder / "eager/predictions")
    assert len(np.unique(mask)) > 2
    return mask


def labels_in(folder: Path) -> np.ndarray[Any, Any]:
    (path,) = folder.glob("*_seg.nii.gz")
    return np.asarray(nib.load(path).dataobj)


def exported_file(ending: str, request: pytest.FixtureRequest) -> Path:
    exports: Exports = request.getfixturevalue("with_onnx" if ending == "onnx" else "exports")
    return exports.folder / f"model.{ending}"


@pytest.mark.slow
def test_inference_with_the_onnx_file_segments_as_the_network_does(
    with_onnx: Exports, expected: np.ndarray[Any, Any], run: Callable[..., None], tmp_path: Path
) -> None:
    options = {**with_onnx.options, "dataset_dir": str(with_onnx.case), "sw_batch_size": 2}
    run("run", *FILES, "exported.yaml", export_path=str(with_onnx.folder / "model.onnx"), **options)
    found = labels_in(tmp_path / "runs/predictions")
    assert found.shape == expected.shape
    assert (found == expected).mean() > 0.9999


@pytest.mark.parametrize("ending", FORMATS)
def test_lines_of_the_documentation_work_as_written(
    exports: Exports, expected: np.ndarray[Any, Any], tmp_path: Path, request: pytest.FixtureRequest, ending: str
) -> None:
    path = exported_file(ending, request)
    text = (REPOSITORY / "bipvl_bundle/docs/export.md").read_text(encoding="utf-8")
    blocks = dict(re.findall(r"<!-- test: (\w+) -->\n```python\n(.*?)```", text, flags=re.DOTALL))
    code = blocks[ending] + blocks["use"]
    statements = [line for line in code.splitlines() if line and not line.startswith(("import", "from"))]
    assert len(statements) <= 12
    shutil.copy(path, tmp_path)
    shutil.copy(exports.case, tmp_path / "case.nii.gz")
    (tmp_path / "use.py").write_text(ALONE + code)
    command = [sys.executable, "-W", "ignore", "use.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (labels_in(tmp_path) == expected).mean() > 0.9999
    saved, image = nib.load(tmp_path / "case_seg.nii.gz"), nib.load(exports.case)
    np.testing.assert_allclose(saved.affine, image.affine, atol=1e-4)


@pytest.mark.parametrize("ending", FORMATS)
def test_classes_and_digest_can_be_read_from_the_file(
    exports: Exports, request: pytest.FixtureRequest, ending: str
) -> None:
    memory = torch.load(exports.folder / "model.pt", weights_only=True)["model"]["_extra_state"]
    about = describe_export(exported_file(ending, request))
    assert bytes(memory.tolist()).decode().count(about["words"]["digest"]) == 1
    assert about["channels"][:2] == ["background", "spleen"]
    assert about["versions"]["bundle"]


def test_checkpoint_of_other_classes_raises(exports: Exports, tmp_path: Path) -> None:
    options = {**exports.options, "concepts_file": str(CONFIGS / "concepts/hippocampus.yaml"), "text_format": "name"}
    with pytest.raises(ValueError, match=r"trained for 8 classes.*has 2, \['anterior hippocampus'"):
        export_model(tmp_path / "m.pt2", PATHS, ckpt_path=exports.folder / "model.pt", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("base", [["inference.yaml"], ["train.yaml", "evaluate.yaml"]])
def test_overlay_is_sound_on_inference_and_on_evaluation(base: list[str]) -> None:
    assert check_config([str(CONFIGS / name) for name in (*base, "exported.yaml")]) == []
