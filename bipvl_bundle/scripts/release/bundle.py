"""The command `release`: writes a trained model as a bundle of its own."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser

from scripts.configuration.plan import plan_of
from scripts.networks.bert import copy_bert
from scripts.networks.bipvl_seg import BiPVLSeg
from scripts.networks.weights import in_half, read_checkpoint, read_weights, record_of, write_weights
from scripts.release.card import card, front_matter
from scripts.release.description import BUNDLE_ROOT, Release, load_release
from scripts.release.figures import READING, SCORES, Figures, measure, measure_reading, read_figures
from scripts.release.flatten import ENTRIES, flatten, released, way_of_segmenting, with_settings, write_yaml
from scripts.release.metadata import metadata
from scripts.release.reach import reached_files
from scripts.release.space import write_space
from scripts.report.run_page import write_run_page
from scripts.report.safely import or_warn
from scripts.report.sections import FILES
from scripts.training.checkpoints import load_model
from scripts.trust.digests import write_sums
from scripts.trust.parsing import read_mapping
from scripts.trust.plain import require_name
from scripts.whole_file import digest_of

FILE_LIMIT = 25_000_000  # bytes, of a file in the Model Zoo's repository
OVERLAYS = (
    *("evaluate.yaml", "report_postprocessing.yaml", "reading.yaml", "multi_gpu_train.yaml"),
    *("multi_gpu_evaluate.yaml", "exported.yaml", "deploy.yaml"),
)
# The workflow that reads infer.json: it alone knows where that file lies, and hands itself to no expression of it.
CALLERS = "(frame.f_locals.get('self') for frame, _ in traceback.walk_stack(None))"
WORKFLOW = f"next(caller for caller in {CALLERS} if isinstance(caller, monai.bundle.ConfigWorkflow))"


def release_bundle(
    description: str,
    output: str,
    *,
    ckpt_path: str | None = None,
    dataset_dir: str | None = None,
    evaluate_on: str = "test",
    overwrite: bool = False,
) -> Path:
    """Write a self-contained bundle of one data set and one trained model.

    With `dataset_dir` the new bundle scores its model, once in full and once in half precision; half precision is kept
    if it changes no printed score. Then a BiPVL-Seg is tested on whether it reads its words. Without `dataset_dir`, the
    description names the weights and the figures of an earlier release, which must belong to each other. A page with
    the scores, pictures of cases and the reading test is written to `NAME_report` beside the bundle.

    Args:
        description: YAML file such as configs/releases/hippocampus.yaml
        output: folder that receives the bundle, under the name in the description
        ckpt_path: the trained model; by default the description's `weights`
        dataset_dir: data set to score the model on
        evaluate_on: test, or validation, the fold held out in training
        overwrite: replace an existing bundle of this name

    Raises:
        FileNotFoundError: description, overlay, checkpoint, data or scores are absent.
        FileExistsError: the folder exists, and `overwrite` is not set or it is no bundle of this name.
        ValueError: the description or configuration is malformed; the checkpoint is of another network or other
            classes; scores are of other weights; a file exceeds the Model Zoo's limit and `download_url` is not set.
        RuntimeError: the new bundle could not be evaluated.
    """
    release = load_release(description)
    source = _weights_file(release, ckpt_path)
    target = Path(output).expanduser().absolute() / release.name
    _check_target(target, release, overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{release.name}_") as folder:
        draft, scratch = Path(folder) / release.name, Path(folder) / "figures"
        record = record_of(read_checkpoint(source, quiet=True))
        parsers = {entry: flatten(release, entry, record) for entry in ENTRIES}
        network = parsers["train.yaml"].get_parsed_content("network_def")
        load_model(network, source)
        _write_configs(draft, release, parsers)
        _copy_parts(draft, release, parsers["train.yaml"])
        if dataset_dir is None:
            figures = _recorded(release, source, draft)
        else:
            options = _split(parsers["train.yaml"], dataset_dir, evaluate_on)
            figures = replace(_measured(draft, source, scratch, options), settings=way_of_segmenting(release))
            if isinstance(network, BiPVLSeg):
                print("testing whether it reads ...")
                measure_reading(draft, draft / "models/model.pt", figures.folder, options=options)
        _write_pages(draft, release, parsers["train.yaml"], figures)
        _write_large_files(draft, release)
        if target.exists():
            shutil.rmtree(target)
        draft.replace(target)
        _report(target, figures)
        if dataset_dir is not None:
            or_warn("The page of the release could not be written", lambda: _keep_page(figures.folder, target))
    return target


def _weights_file(release: Release, ckpt_path: str | None) -> Path:
    if ckpt_path is not None:
        return Path(ckpt_path).expanduser().absolute()
    if release.weights is None:
        raise ValueError(
            f"The description of {release.name} names no `weights`: give the trained model as `ckpt_path`."
        )
    return BUNDLE_ROOT / release.weights


def _check_target(target: Path, release: Release, overwrite: bool) -> None:
    if not target.exists():
        return
    if not overwrite:
        raise FileExistsError(f"'{target}' exists. Choose another `output`, or set `overwrite` to replace it.")
    file = target / "configs/metadata.json"
    if not file.is_file() or read_mapping(file, "a bundle's metadata").get("name") != release.name:
        raise FileExistsError(f"'{target}' is no released {release.name} and is not replaced; choose another `output`.")


def _write_configs(draft: Path, release: Release, parsers: dict[str, ConfigParser]) -> None:
    dataset_name = _dataset_name(parsers["train.yaml"])
    for entry, parser in parsers.items():
        header = (
            f"{release.title}, {release.version}: {entry} of the BiPVL-Seg bundle with "
            f"{', '.join(release.overlays) or 'no overlay'} in one file.\n"
            "What each setting means is said in the source bundle's file of this name."
        )
        write_yaml(draft / "configs" / entry, released(parser, dataset_name), header)
    network = _network_alone(released(parsers["inference.yaml"], dataset_name))
    (draft / "configs/infer.json").write_text(json.dumps(network, indent=4) + "\n", encoding="utf-8")


def _dataset_name(parser: ConfigParser) -> str:
    """Return the name for the concept table's file."""
    return require_name(parser.get_parsed_content("dataset_name"), "dataset_name")


def _network_alone(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content of infer.json, from which `monai.bundle.load` builds the network in any folder."""
    wanted, found = ["network_def"], {}
    while wanted:
        key = wanted.pop()
        if key not in found and key in content:
            found[key] = content[key]
            wanted += re.findall(r"@([A-Za-z_]\w*)", json.dumps(content[key]))
    found["bundle_root"] = f"$str({WORKFLOW}.config_root_path.resolve().parent)"
    start = {"imports": ["$import sys", "$import traceback"], "initialize": ["$sys.path.insert(0, str(@bundle_root))"]}
    return {**start, **{key: found[key] for key in [*content, "bundle_root"] if key in found}}


def _copy_parts(draft: Path, release: Release, parser: ConfigParser) -> None:
    for name in (*OVERLAYS, "logging.conf"):
        shutil.copyfile(BUNDLE_ROOT / "configs" / name, draft / "configs" / name)
    evaluate = draft / "configs/evaluate.yaml"  # scored is what inference.yaml would write
    evaluate.write_text(with_settings(evaluate.read_text("utf-8"), way_of_segmenting(release)), encoding="utf-8")
    (draft / "configs/concepts").mkdir()
    dataset_name = _dataset_name(parser)
    shutil.copyfile(parser.get_parsed_content("concepts_file"), draft / "configs/concepts" / f"{dataset_name}.yaml")
    for file in reached_files(BUNDLE_ROOT, [*draft.glob("configs/*.yaml"), draft / "configs/infer.json"]):
        copy = draft / file.relative_to(BUNDLE_ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    shutil.copyfile(BUNDLE_ROOT / "LICENSE", draft / "LICENSE")
    text_encoder, folder = str(parser.get_parsed_content("text_encoder")), draft / "models/text_encoder"
    if Path(text_encoder).is_dir():
        shutil.copytree(text_encoder, folder)
    else:
        copy_bert(text_encoder, folder)
        write_sums(folder)


def _split(parser: ConfigParser, dataset_dir: str, evaluate_on: str) -> dict[str, Any]:
    evaluate = yaml.safe_load((BUNDLE_ROOT / "configs/evaluate.yaml").read_text(encoding="utf-8"))
    return {
        "dataset_dir": str(Path(dataset_dir).expanduser().absolute()),
        "evaluate_on": evaluate_on,
        "nsd_tolerance": float(evaluate["nsd_tolerance"]),
        "num_workers": parser.get_parsed_content("num_workers"),
    }


def _recorded(release: Release, weights: Path, draft: Path) -> Figures:
    if release.figures is None:
        raise ValueError(
            f"The description of {release.name} names no `figures`: give `dataset_dir` to have the model scored."
        )
    figures = read_figures(BUNDLE_ROOT / release.figures, weights)
    target = draft / "models/model.pt"
    write_weights(read_weights(weights), target, _record(weights, draft))
    return replace(figures, weights_sha256=digest_of(target))  # of the same weights, whatever they were wrapped in


def _record(weights: Path, draft: Path) -> dict[str, Any]:
    """Return what the model's file knows, with the plan as the new bundle has it, and no path of the training."""
    known = record_of(read_checkpoint(weights, quiet=True))
    plan = plan_of(ConfigParser.load_config_file(draft / "configs/train.yaml"))
    return {**{key: value for key, value in known.items() if key != "written"}, "plan": plan}


def _measured(draft: Path, source: Path, scratch: Path, options: dict[str, Any]) -> Figures:
    state, record = read_weights(source), _record(source, draft)
    full = scratch / "float32.pt"
    write_weights(state, full, record)
    print("scoring the weights as they are ...")
    figures, chosen = measure(draft, full, scratch / "float32", precision="float32", options=options), full
    smaller = in_half(state)
    if smaller is not None:
        half = scratch / "float16.pt"
        write_weights(smaller, half, record)
        print("scoring them in half precision ...")
        scored = measure(draft, half, scratch / "float16", precision="float16", options=options)
        if scored.rows() == figures.rows():
            figures, chosen = scored, half
        else:
            print("Half precision changes a figure; the weights stay in full precision.")
    shutil.copyfile(chosen, draft / "models/model.pt")
    assert digest_of(draft / "models/model.pt") == figures.weights_sha256
    return figures


def _write_pages(draft: Path, release: Release, parser: ConfigParser, figures: Figures) -> None:
    table = parser.get_parsed_content("concept_table")
    facts = metadata(release, parser, table, figures)
    (draft / "configs/metadata.json").write_text(json.dumps(facts, indent=4) + "\n", encoding="utf-8")
    write_space(draft, facts)
    docs = draft / "docs"
    docs.mkdir()
    page = card(release, parser, table, figures, facts, read_weights(draft / "models/model.pt"))
    (docs / "README.md").write_text(page.replace("(docs/", "("), encoding="utf-8")
    (draft / "README.md").write_text(front_matter(release, figures, table.modality) + page, encoding="utf-8")
    (docs / "data_license.txt").write_text(release.data_license + "\n", encoding="utf-8")
    shutil.copyfile(figures.folder / SCORES, docs / SCORES)
    if figures.reading():
        shutil.copyfile(figures.folder / READING, docs / READING)
    replace(figures, folder=docs).record()


def _write_large_files(draft: Path, release: Release) -> None:
    large = [path for path in sorted(draft.rglob("*")) if path.is_file() and path.stat().st_size > FILE_LIMIT]
    if not large:
        return
    names = [path.relative_to(draft).as_posix() for path in large]
    if release.download_url is None:
        raise ValueError(
            f"{', '.join(names)} of {release.name} are above the Model Zoo's limit of {FILE_LIMIT / 1e6:.0f} MB. "
            "Set `download_url` in the description to where they will lie; the bundle then says where to fetch them."
        )
    entries = [
        {"path": name, "url": f"{release.download_url.rstrip('/')}/{name}", "hash_val": digest_of(path, "md5")}
        for name, path in zip(names, large, strict=True)
    ]
    content = {"large_files": [{**entry, "hash_type": "md5"} for entry in entries]}
    (draft / "large_files.yml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def _keep_page(scores: Path, target: Path) -> None:
    """Write the page of the release beside it: it shows patients' images, which are not to be handed on unasked."""
    page = write_run_page(scores, scores, reading=scores)
    folder = target.with_name(f"{target.name}_report")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(scores / FILES, folder / FILES)
    shutil.copyfile(page, folder / page.name)
    print(f"{folder / page.name}: the page of its scores, not a part of the bundle")


def _report(target: Path, figures: Figures) -> None:
    for row in figures.rows():
        print("  ".join(row))
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    print(f"{target}: {size / 1e6:.1f} MB, weights in {figures.precision}")
