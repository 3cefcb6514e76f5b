"""A campaign against what is read and written: damaged files, odd texts, kills, many cases.

    CAMPAIGN=1 pytest tests/campaign -m slow -s

runs all of it and prints the rows of the table in docs/robustness.md; without CAMPAIGN a twentieth is run.
"""

from __future__ import annotations

import copy
import gzip
import json
import logging
import os
import random
import resource
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.inferers import SimpleInferer
from monai.transforms import Compose, Orientationd
from torch import nn

from scripts.configuration.check import check_config
from scripts.data.datalist import load_datalist
from scripts.data.loading import SafeLoadImaged, load_volume
from scripts.data.nifti import MILLIMETRES
from scripts.data.transforms import CheckCased, SafeSpacingd
from scripts.inference.failures import run_cases
from scripts.inference.outputs import SafeSaveImaged
from scripts.networks.weights import read_checkpoint, save_atomically
from scripts.whole_file import write_rows
from scripts.words.table import ConceptTable

pytestmark = pytest.mark.slow
SHARE = 1.0 if os.environ.get("CAMPAIGN") else 0.05
LONGEST = 20.0  # seconds that a file may take
AFFINE = np.array([[-1.5, 0.2, 0, 40], [0.2, 1.5, 0, -30], [0, 0, 2.5, 12], [0, 0, 0, 1.0]])
VOXELS = np.random.default_rng(0).integers(-1000, 1000, size=(16, 14, 12)).astype(np.int16)
FIELDS = "dim datatype bitpix pixdim vox_offset scl_slope scl_inter xyzt_units qform_code sform_code".split()  # noqa: SIM905
FIELDS += [f"quatern_{part}" for part in "bcd"] + [f"{f}_{a}" for f in ("qoffset", "srow") for a in "xyz"]
NUMBERS = (0, 1, -1, 2, 3, 7, 1e-5, 0.01, 255, 1e4, 1e30, -1e30, float("nan"), float("inf"))
VALUES: tuple[Any, ...] = (None, [], {}, 3, -1.5, True, "", "$__import__('os')", "@x", {"_target_": "os.getcwd"})


def report(name: str, outcomes: Counter[str]) -> None:
    """Print a row of the table, and fail where something was silent or crashed."""
    kinds = ("held", "refused clearly", "silent", "crashed")
    print(f"\n| {name} | {sum(outcomes.values())} | {' | '.join(str(outcomes[kind]) for kind in kinds)} |")
    assert not outcomes["silent"], outcomes
    assert not outcomes["crashed"], outcomes


def mutated_nifti(rng: random.Random) -> tuple[bytes, str]:
    """A file with a damage and how its name ends; voxels are damaged where a checksum stands over them."""
    image = nib.Nifti1Image(VOXELS, None)
    image.header.set_qform(AFFINE, code=rng.choice([0, 1]), strip_shears=True)
    image.header.set_sform(AFFINE, code=rng.choice([0, 1, 2]))
    image.header.set_xyzt_units(rng.choice(["mm", "micron", "unknown"]))
    content = bytearray(image.to_bytes())
    way = rng.choice(["field", "header bit", "compressed bit", "cut off", "more"])
    if way == "field":
        header = nib.Nifti1Header(bytes(content[:348]), check=False)
        name = rng.choice(FIELDS)
        with np.errstate(all="ignore"):
            array = header[name]
            value = np.array(rng.choice(NUMBERS)).astype(array.dtype)
            place = rng.randrange(array.size) if array.ndim else None
            header[name] = value if place is None else np.where(np.arange(array.size) == place, value, array)
        content[:348] = header.binaryblock
    if way == "header bit":
        place = rng.randrange(8 * 348)
        content[place // 8] ^= 1 << place % 8
    packed = bytearray(gzip.compress(bytes(content), 1, mtime=0))
    if way == "compressed bit":
        place = rng.randrange(8 * 10, 8 * len(packed))
        packed[place // 8] ^= 1 << place % 8
    if way == "cut off":
        plain = rng.random() < 0.5
        kept = content if plain else packed
        return bytes(kept[: rng.randrange(len(kept))]), ".nii" if plain else ".nii.gz"
    if way == "more":
        packed += rng.randbytes(rng.randrange(1, 100))
    return bytes(packed), ".nii.gz"


def as_nibabel_reads(path: Path) -> tuple[np.ndarray, np.ndarray]:
    image = nib.load(path)
    scale = MILLIMETRES[int(image.header["xyzt_units"]) & 7]
    return np.asarray(image.dataobj, dtype=np.float32), np.diag([scale] * 3 + [1.0]) @ image.affine


def outcome_of(path: Path, pipeline: Callable[[Any], Any]) -> str:
    """Whether a file comes out as nibabel, which has code of its own, reads it; or is refused by its name."""
    begun = time.monotonic()
    try:
        loaded = load_volume(path)
        pipeline({"image": str(path)})
    except ValueError as error:
        said = str(error) + str(error.__cause__)
        return "refused clearly" if str(path) in said else f"crashed: {error!r}"
    except RuntimeError as error:  # monai.transforms.Compose wraps the error of a transform
        return "refused clearly" if str(path) in str(error.__cause__) else f"crashed: {error!r}"
    except BaseException as error:  # what else is raised is no refusal
        return f"crashed: {error!r}"
    if time.monotonic() - begun > LONGEST:
        return "crashed: slow"
    voxels, affine = as_nibabel_reads(path)
    same = np.array_equal(loaded[0].numpy().reshape(-1), voxels.reshape(-1)) if loaded.ndim == 4 else True
    return "held" if same and np.allclose(loaded.affine, affine, atol=1e-3) else "silent"


def test_damaged_nifti(tmp_path: Path) -> None:
    logging.disable(logging.WARNING)
    checks = CheckCased("image")
    pipeline = Compose(
        [
            SafeLoadImaged("image", ensure_channel_first=True),
            checks,
            Orientationd("image", "RAS", labels=None),
            SafeSpacingd("image", (2.0, 2.0, 2.0)),
        ]
    )
    outcomes: Counter[str] = Counter()
    for number in range(int(500 * SHARE)):
        content, suffix = mutated_nifti(random.Random(number))
        path = tmp_path / f"file_{number}{suffix}"
        path.write_bytes(content)
        found = outcome_of(path, pipeline)
        outcomes[found.split(":")[0]] += 1
        if found.startswith(("crashed", "silent")):
            print(number, found)
        path.unlink()
    logging.disable(logging.NOTSET)
    report("NIfTI files", outcomes)


def mutated_text(text: str, rng: random.Random) -> str:
    """A text with a damage to its letters, or to what it holds."""
    way = rng.choice(["letters", "cut off", "value", "key", "twice"])
    if way == "letters":
        place = rng.randrange(len(text))
        return (
            text[:place] + rng.choice(["\x00", "\u200b", "$", "@", "%", "{", "[", ":", "\t", "é", "'"]) + text[place:]
        )
    if way == "cut off":
        return text[: rng.randrange(len(text))]
    content = copy.deepcopy(yaml.safe_load(text))
    holders = [content]
    for holder in holders:
        inner = holder.values() if isinstance(holder, dict) else holder
        holders += [value for value in inner if isinstance(value, dict | list) and value]
    holder = rng.choice(holders)
    place = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    if way == "twice" and isinstance(holder, list):
        holder.append(holder[place])
    elif way == "key" and isinstance(holder, dict):
        holder[rng.choice(["", "$x", "_target_", "\u200b", "mean", "None"])] = holder.pop(place)
    else:
        holder[place] = rng.choice(
            [None, [], {}, 3, -1.5, True, "", "$__import__('os')", "@x", {"_target_": "os.getcwd"}]
        )
    return json.dumps(content)


def test_damaged_texts(tmp_path: Path, bundle_root: Path) -> None:
    (tmp_path / "i.nii.gz").write_bytes(b"")
    cases = [{"image": "i.nii.gz", "label": "i.nii.gz", "case": f"c{n}", "patient": f"p{n}"} for n in range(3)]
    sources: dict[str, tuple[str, Callable[[Path], Any]]] = {
        "concept tables": ((bundle_root / "configs/concepts/phantom.yaml").read_text(), ConceptTable.load),
        "datalists": (json.dumps({"labels": {"0": "background", "1": "liver"}, "training": cases}), load_datalist),
        "overlays": (
            (bundle_root / "configs/dataset_hippocampus.yaml").read_text(),
            lambda path: check_config([str(bundle_root / "configs/train.yaml"), str(path)]),
        ),
    }
    for kind, (text, read) in sources.items():
        outcomes: Counter[str] = Counter()
        for number in range(max(5, int(100 * SHARE))):
            path = tmp_path / ("odd.json" if kind == "datalists" else "odd.yaml")
            path.write_text(mutated_text(text, random.Random(number)), encoding="utf-8")
            try:
                found = read(path)
                outcomes["refused clearly" if kind == "overlays" and found else "held"] += 1
            except (ValueError, FileNotFoundError) as error:
                outcomes["refused clearly" if path.name in str(error) or "odd" in str(error) else "crashed"] += 1
            except Exception as error:  # no refusal
                print(kind, number, repr(error))
                outcomes["crashed"] += 1
        report(kind, outcomes)


def write_for_ever(folder: Path, mask: MetaTensor) -> None:
    """What a run writes, one after the other, until it is killed."""
    save = SafeSaveImaged("pred", folder)
    for number in range(10**6):
        save({"pred": mask})
        save_atomically({"model": {"weight": torch.full((200_000,), float(number))}}, folder / "last.pt")
        write_rows(folder / "table.csv", [{"case": f"c{row}", "dice": number} for row in range(200)])


def check_written(folder: Path) -> None:
    mask, state, table = folder / "case_seg.nii.gz", folder / "last.pt", folder / "table.csv"
    if mask.exists():
        assert load_volume(mask).shape == (1, 24, 24, 24)
    if state.exists():
        assert read_checkpoint(state, quiet=True)["model"]["weight"].unique().numel() == 1
    if table.exists():
        rows = table.read_text(encoding="utf-8").splitlines()[1:]
        assert len(rows) == 200
        assert len({row.split(",")[1] for row in rows}) == 1


def test_kill_at_any_moment(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((24, 24, 24), np.float32), AFFINE), tmp_path / "case.nii.gz")
    mask = load_volume(tmp_path / "case.nii.gz")
    folder = tmp_path / "out"
    folder.mkdir()
    outcomes: Counter[str] = Counter()
    for number in range(max(5, int(100 * SHARE))):
        child = os.fork()
        if child == 0:
            try:
                write_for_ever(folder, mask)
            finally:
                os._exit(1)
        time.sleep(random.Random(number).uniform(0.0, 0.3))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        check_written(folder)
        outcomes["held"] += 1
    save_atomically({"model": {"weight": torch.zeros(3)}}, folder / "last.pt")
    assert not list(folder.glob(".last.pt.*")), "what kills leave of a checkpoint is cleared"
    report("kills", outcomes)


class Threshold(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return (image > 0).to(torch.uint8)


def test_many_cases_in_bounded_memory(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(VOXELS.repeat(4, 0).repeat(4, 1).repeat(4, 2), AFFINE), tmp_path / "case.nii.gz")
    count = int(1000 * SHARE)
    items = []
    for number in range(count):
        path = tmp_path / f"case_{number}.nii.gz"
        os.link(tmp_path / "case.nii.gz", path)
        items.append({"image": str(path), "case": f"case_{number}"})
    (tmp_path / "case_3.nii.gz").unlink()  # one in their midst fails
    (tmp_path / "case_3.nii.gz").write_bytes(b"damaged")
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items, SafeLoadImaged("image", ensure_channel_first=True)), batch_size=1),
        network=Threshold(),
        inferer=SimpleInferer(),
        prepare_batch=lambda batch, *_, **__: (batch["image"], None),
        postprocessing=SafeSaveImaged("pred", tmp_path / "out"),
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RuntimeError, match=f"1 of {count} cases failed: case_3"):
        run_cases(evaluator, tmp_path / "out")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == count - 1
    print(f"\n{count} cases: {grown:.0f} MB more at the peak")
    assert grown < 200
    report("cases", Counter({"held": count - 1, "refused clearly": 1}))
