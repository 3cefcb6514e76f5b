from __future__ import annotations

from scripts.configuration.run_folder import folder_name


def test_first_fold_and_seed_are_not_told() -> None:
    assert folder_name("phantom") == "phantom"
    assert folder_name("phantom", ["unet"], fold=1) == "phantom_unet_fold1"
    assert folder_name("phantom", ["unet", "paper"], fold=2, seed=3) == "phantom_unet_paper_fold2_seed3"
