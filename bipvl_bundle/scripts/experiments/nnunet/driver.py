"""Trains and predicts with nnU-Net: ``python driver.py JOB.json``, in nnU-Net's own environment.

It imports nothing of this bundle. Limits are set on the trainer, not by a class of its own, so that nnU-Net finds the
trainer's class again when it predicts.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.run.run_training import get_trainer_from_args

FINAL = "checkpoint_final.pth"
LATEST = "checkpoint_latest.pth"


def main(job: dict[str, Any]) -> None:
    """Train, or go on with a training that was stopped, and predict the cases of the job."""
    device = torch.device(job["device"])
    trainer = get_trainer_from_args(job["dataset"], job["configuration"], 0, device=device)
    trainer.num_epochs = job["epochs"]
    trainer.num_iterations_per_epoch = job["iterations"]
    trainer.num_val_iterations_per_epoch = min(50, job["iterations"])
    trainer.save_every = 1 if job["epochs"] <= 50 else 50
    if not job["mirror"]:
        _do_not_mirror(trainer)
    folder = Path(trainer.output_folder)
    if not (folder / FINAL).is_file():
        if (folder / LATEST).is_file():
            trainer.load_checkpoint(str(folder / LATEST))
        trainer.run_training()
    predictor = nnUNetPredictor(
        use_mirroring=job["mirror"], device=device, perform_everything_on_device=device.type != "cpu"
    )
    predictor.initialize_from_trained_model_folder(trainer.output_folder_base, use_folds=(0,), checkpoint_name=FINAL)
    images, names = [case["images"] for case in job["cases"]], [case["prediction"] for case in job["cases"]]
    predictor.predict_from_files_sequential(images, names, save_probabilities=job["regions"], overwrite=True)


def _do_not_mirror(trainer: Any) -> None:
    configure = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size

    def without_mirroring() -> Any:
        rotation, dummy_2d, patch_size, _ = configure()
        trainer.inference_allowed_mirroring_axes = None
        return rotation, dummy_2d, patch_size, None

    trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size = without_mirroring


if __name__ == "__main__":  # nnU-Net starts processes, which import this file
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
