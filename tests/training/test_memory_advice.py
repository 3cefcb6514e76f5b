from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import StatsHandler
from monai.inferers import SlidingWindowInferer, SlidingWindowInfererAdapt
from monai.networks.nets import SwinUNETR
from monai.transforms import Lambdad
from torch import nn

from scripts.training.memory_advice import ADVICE, MemoryAdvice, is_out_of_memory

SETTINGS = {"amp": False, "crops_per_volume": 4, "batch_size": 1, "roi_size": [96, 96, 64]}
FULL = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.75 GiB\nIf reserved but"


class Full(nn.Module):
    """A network that meets the end of memory."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.error = error if error is not None else torch.OutOfMemoryError(FULL)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        raise self.error


def loader() -> DataLoader:
    case = {"image": torch.zeros(1, 8, 8, 8), "label": torch.zeros(1, 8, 8, 8)}
    return DataLoader(Dataset([case, case]), batch_size=2)


def trainer(network: nn.Module, *handlers: Any) -> SupervisedTrainer:
    parameters = {"network": network, "optimizer": torch.optim.SGD(network.parameters(), lr=0.1)}
    return SupervisedTrainer(
        "cpu", 1, loader(), loss_function=nn.MSELoss(), train_handlers=list(handlers), **parameters
    )


def evaluator(network: nn.Module, inferer: Any = None, *handlers: Any, **options: Any) -> SupervisedEvaluator:
    return SupervisedEvaluator("cpu", loader(), network, inferer=inferer, val_handlers=list(handlers), **options)


def failure_of(run: Callable[[], Any]) -> str:
    with pytest.raises(MemoryError) as raised:
        run()
    return str(raised.value)


class TestTrainer:
    def test_says_what_to_lower_with_the_present_values(self) -> None:
        lines = failure_of(trainer(Full(), MemoryAdvice(SETTINGS)).run).splitlines()
        assert lines[0] == (
            "Training on a batch of images (2, 1, 8, 8, 8) ran out of memory: CUDA out of memory. Tried to "
            "allocate 2.00 GiB. GPU 0 has a total capacity of 7.75 GiB"
        )
        assert lines[2:] == [
            "  amp: true computes in 16 bits on a GPU, in about half the memory, now False",
            "  crops_per_volume: lower it; memory grows in proportion, now 4",
            "  roi_size: smaller edges; memory grows with the number of voxels, now [96, 96, 64]",
        ]

    def test_original_error_is_the_cause(self) -> None:
        network = Full()
        with pytest.raises(MemoryError) as raised:
            trainer(network, MemoryAdvice(SETTINGS)).run()
        assert raised.value.__cause__ is network.error

    @pytest.mark.parametrize(("use_checkpoint", "named"), [(False, True), (True, False)])
    def test_names_checkpointing_where_the_network_has_it_off(self, use_checkpoint: bool, named: bool) -> None:
        network = Full()
        depths = (1, 1, 1, 1)
        network.swin = SwinUNETR(1, 2, feature_size=12, depths=depths, use_checkpoint=use_checkpoint)
        assert ("backbone#network#use_checkpoint" in failure_of(trainer(network, MemoryAdvice(SETTINGS)).run)) == named

    def test_validation_within_training_gives_its_own_advice(self) -> None:
        inner = evaluator(Full(), SlidingWindowInferer(8), MemoryAdvice({"sw_batch_size": 4}))
        outer = trainer(nn.Conv3d(1, 1, 1), MemoryAdvice(SETTINGS))
        outer.add_event_handler(Events.EPOCH_COMPLETED, lambda: inner.run(1))
        message = failure_of(outer.run)
        assert message.startswith("Inference on a batch")
        assert "sw_batch_size: lower it; the result is the same, now 4" in message
        assert "crops_per_volume" not in message

    def test_is_heard_beside_other_handlers_of_exceptions(self) -> None:
        failure_of(trainer(Full(), MemoryAdvice(SETTINGS), StatsHandler()).run)

    def test_other_errors_pass(self) -> None:
        with pytest.raises(RuntimeError, match=r"^mat1 and mat2$"):
            trainer(Full(RuntimeError("mat1 and mat2")), MemoryAdvice(SETTINGS)).run()


class TestEvaluator:
    def test_shortage_within_a_transform_is_recognised(self) -> None:
        def fill(prediction: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError(FULL)

        post = Lambdad(keys="pred", func=fill)
        message = failure_of(evaluator(nn.Conv3d(1, 1, 1), None, MemoryAdvice(SETTINGS), postprocessing=post).run)
        assert "ran out of memory: CUDA out of memory." in message

    @pytest.mark.parametrize(
        ("inferer", "named"),
        [
            (SlidingWindowInferer(8), True),
            (SlidingWindowInferer(8, device="cpu"), False),
            (SlidingWindowInfererAdapt(8), False),
        ],
        ids=["where the network is", "on the CPU", "on the CPU by itself"],
    )
    def test_names_stitching_where_it_is_on_a_gpu(self, inferer: Any, named: bool) -> None:
        engine = evaluator(Full(), inferer)
        engine.state.device = torch.device("cuda")
        engine.state.batch = {"image": torch.zeros(1, 1, 8, 8, 8)}
        message = failure_of(lambda: MemoryAdvice(SETTINGS)(engine, torch.OutOfMemoryError(FULL)))
        assert ("validate#inferer#device" in message) == named
        assert "backbone#network#use_checkpoint" not in message
        assert "in training too, now [96, 96, 64]" in message


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (
            RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            True,
        ),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("shapes do not match"), False),
        (ValueError("DefaultCPUAllocator: can't allocate memory"), False),
    ],
)
def test_recognises_every_way_to_say_it(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) == expected


def test_allocator_of_the_cpu_says_what_is_looked_for() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(raised.value)


def test_unknown_setting_raises() -> None:
    with pytest.raises(ValueError, match=r"knows of amp, .*; found swing"):
        MemoryAdvice({"swing": 1})


@pytest.mark.parametrize("name", ADVICE)
def test_advice_applies_to_a_value_that_can_be_lowered(name: str) -> None:
    lowest = {"amp": True, "crops_per_volume": 1, "batch_size": 1, "sw_batch_size": 1}
    higher = {"amp": False, "crops_per_volume": 2, "batch_size": 2, "sw_batch_size": 2, "roi_size": [32, 32, 64]}
    assert ADVICE[name].applies(higher[name])
    assert name not in lowest or not ADVICE[name].applies(lowest[name])
