from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import SaveImaged

from scripts.inference.naming import CaseNamed, name_by_case


@pytest.mark.parametrize(("case", "name"), [({"case": "p.1"}, "p.1_seg.nii.gz"), ({}, "img_seg.nii.gz")])
def test_mask_is_named_after_its_case(tmp_path: Path, case: dict[str, str], name: str) -> None:
    mask = MetaTensor(torch.zeros(1, 2, 2, 2), meta={"filename_or_obj": "somewhere/img.nii.gz"})
    save = SaveImaged("pred", output_dir=tmp_path, output_postfix="seg", output_name_formatter=name_by_case,
                      separate_folder=False, print_log=False)  # fmt: skip
    save(CaseNamed("pred")({"pred": mask, **case}))
    assert [path.name for path in tmp_path.iterdir()] == [name]
