"""Trains and predicts with nnU-Net: ``python driver.py JOB.json``, in nnU-Net's own environment.

It imports nothing of this bundle. Limits are set on the trainer, not by a class of its own, so that nnU-Net finds the
trainer's class again when it predicts.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.run.run_training import get_trainer_from_args
from torch.utils.flop_counter import FlopCounterMode

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
    seconds: list[float] = []
    if not (folder / FINAL).is_file():
        if (folder / LATEST).is_file():
            trainer.load_checkpoint(str(folder / LATEST))
        seconds = _timed(trainer)
        trainer.run_training()
    predictor = nnUNetPredictor(
        use_mirroring=job["mirror"], device=device, perform_everything_on_device=device.type != "cpu"
    )
    predictor.initialize_from_trained_model_folder(trainer.output_folder_base, use_folds=(0,), checkpoint_name=FINAL)
    cost = Path(job["cost"])
    if seconds or not cost.is_file():
        facts = {"iteration_seconds": statistics.median(seconds) if seconds else None, **_peak(device)}
        cost.write_text(json.dumps({**_size(predictor, device), **facts}, indent=2) + "\n", encoding="utf-8")
    images, names = [case["images"] for case in job["cases"]], [case["prediction"] for case in job["cases"]]
    predictor.predict_from_files_sequential(images, names, save_probabilities=job["regions"], overwrite=True)


def _timed(trainer: Any) -> list[float]:
    """Let a trainer note the seconds from the beginning of each iteration to that of the next, in the list returned."""
    step, between, begun = trainer.train_step, [], [0.0]

    def timed(batch: Any) -> Any:
        now = time.perf_counter()
        if begun[0]:
            between.append(now - begun[0])
        begun[0] = now
        return step(batch)

    trainer.train_step = timed
    return between


def _size(predictor: Any, device: torch.device) -> dict[str, int]:
    """Return the parameters of the network, and the operations of a forward of one patch in evaluation."""
    network = predictor.network.to(device).eval()
    channels = len(predictor.dataset_json["channel_names"])
    patch = torch.zeros(1, channels, *predictor.configuration_manager.patch_size, device=device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(patch)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return {"parameters": parameters, "operations": counter.get_total_flops()}


def _peak(device: torch.device) -> dict[str, Any]:
    """Return the largest memory of the training: PyTorch's on a GPU, else this process's where Linux tells it."""
    if device.type == "cuda":
        return {"peak_bytes": torch.cuda.max_memory_allocated(device), "device": torch.cuda.get_device_name(device)}
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.is_file() else []
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")]
    return {"peak_bytes": found[0] if found else None, "device": device.type}


def _do_not_mirror(trainer: Any) -> None:
    configure = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size

    def without_mirroring() -> Any:
        rotation, dummy_2d, patch_size, _ = configure()
        trainer.inference_allowed_mirroring_axes = None
        return rotation, dummy_2d, patch_size, None

    trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size = without_mirroring


if __name__ == "__main__":  # nnU-Net starts processes, which import this file
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
