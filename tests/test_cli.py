from __future__ import annotations

import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from scripts.cli import COMMANDS, load_command, main, summary


def test_check_accepts_the_entry_file(bundle_root, capsys):
    main(["check", "--config_file", str(bundle_root / "configs" / "train.yaml")])
    assert "no problem(s)" in capsys.readouterr().out


def test_check_names_the_nearest_key_and_fails(bundle_root, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["check", "--config_file", str(bundle_root / "configs" / "train.yaml"), "--max_epocs", "3"])
    assert stop.value.code == 1
    assert "'max_epocs'" in (said := capsys.readouterr().out)
    assert "'max_epochs'" in said


def test_picture_draws_volumes_that_are_stored_in_another_orientation(bundle_root, tmp_path):
    labels = np.zeros((12, 10, 8), dtype=np.uint8)
    labels[2:6, 3:7, 2:5] = 1
    affine = np.diag([-2.0, -3.0, 4.0, 1.0])
    paths = {}
    for name, array in {"image": labels * 100.0, "reference": labels, "prediction": labels}.items():
        paths[name] = str(tmp_path / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(array, affine), paths[name])
    concepts = str(bundle_root / "configs" / "concepts" / "phantom.yaml")
    output = tmp_path / "new" / "picture.png"
    main(["picture", *(f"--{k}={v}" for k, v in paths.items()), f"--concepts={concepts}", f"--output={output}"])
    assert output.read_bytes().startswith(b"\x89PNG")


def test_make_phantom_writes_a_data_set(tmp_path):
    main(["make_phantom", str(tmp_path / "phantom"), "--num_training=1", "--num_test=1", "--progress=False"])
    assert (tmp_path / "phantom" / "dataset.json").is_file()


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself(command, capsys, monkeypatch):
    monkeypatch.setenv("PAGER", "cat")
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    said = "".join(capsys.readouterr())
    assert load_command(command).__doc__.splitlines()[0].split("`")[0].rstrip(".")[:40] in said


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_without_a_command_all_of_them_are_listed(capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert all(f"\n  {command}\n" in said for command in COMMANDS)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_summary_is_the_first_line_of_the_docstring(command):
    assert summary(command) == load_command(command).__doc__.splitlines()[0]


def test_misspelt_command_names_the_nearest():
    with pytest.raises(SystemExit, match=r"no command 'relase'; the nearest is release\. python -m"):
        main(["relase"])


def test_list_of_commands_needs_neither_torch_nor_monai(bundle_root):
    """They take many seconds to import."""
    code = (
        "import sys; from scripts import cli\n"
        "try: cli.main([])\n"
        "except SystemExit: print('loaded:', {'torch', 'monai', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=bundle_root, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\nloaded: set()\n")


def test_prompt_prints_a_request_for_the_classes(capsys):
    main(["prompt", "left ventricle,right ventricle", "CT"])
    said = capsys.readouterr().out
    assert "left ventricle" in said
    assert "right ventricle" in said


def test_option_that_a_command_lacks_stops_it_before_it_begins(tmp_path):
    with pytest.raises(SystemExit, match=r"make_phantom has no option --num_trainin; the nearest is --num_training"):
        main(["make_phantom", str(tmp_path / "phantom"), "--num_trainin=1"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["make_phantom", "NEW"], ["experiments", "absent.yaml"]])
def test_option_of_one_dash_stops_any_command_before_it_begins(tmp_path, arguments):
    arguments = [str(tmp_path / word) if word == "NEW" else word for word in arguments]
    with pytest.raises(
        SystemExit, match=r"no option -num_folds; options have two dashes: --num_folds\. Nothing was done"
    ):
        main([*arguments, "-num_folds=1"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--noprogress", "--num-training=1"])
def test_options_may_be_written_as_fire_has_them(tmp_path, option):
    main(["make_phantom", str(tmp_path / "phantom"), "--num_test=1", option, "--num_training=1"])
    assert (tmp_path / "phantom" / "dataset.json").is_file()
