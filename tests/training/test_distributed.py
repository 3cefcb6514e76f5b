"""What can be tested of several processes within one: a group of one, or a rank that is made believe."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import pytest
import torch
import torch.distributed as dist
from ignite.engine import Engine
from monai.bundle import ConfigParser
from monai.networks.nets import BasicUNetPlusPlus
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from scripts.data.phantom import dataset as phantom
from scripts.losses.total import BiPVLLoss
from scripts.training.checkpoints import LastState
from scripts.training.distributed import (
    TORCHRUN,
    join_processes,
    local_device,
    validation_sampler,
    with_shared_statistics,
)
from scripts.training.engines import LossTerms


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment of the one process that torchrun would start."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    values = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))
    return monkeypatch


@pytest.fixture
def group(started: pytest.MonkeyPatch) -> Iterator[None]:
    join_processes("cpu")
    yield
    dist.destroy_process_group()


def pretend(patch: pytest.MonkeyPatch, rank: int, count: int) -> None:
    patch.setattr(idist, "get_rank", lambda: rank)
    patch.setattr(idist, "get_world_size", lambda: count)


class TestLocalDevice:
    def test_is_the_cpu_without_a_gpu(self, started: pytest.MonkeyPatch) -> None:
        started.setattr(torch.cuda, "is_available", lambda: False)
        assert local_device() == torch.device("cpu")

    def test_is_the_gpu_of_that_number(self, started: pytest.MonkeyPatch) -> None:
        started.setattr(torch.cuda, "is_available", lambda: True)
        started.setattr(torch.cuda, "device_count", lambda: 4)
        started.setenv("LOCAL_RANK", "3")
        assert local_device() == torch.device("cuda", 3)

    def test_more_processes_than_gpus_raises(self, started: pytest.MonkeyPatch) -> None:
        started.setattr(torch.cuda, "is_available", lambda: True)
        started.setattr(torch.cuda, "device_count", lambda: 2)
        started.setenv("LOCAL_RANK", "2")
        with pytest.raises(RuntimeError, match=r"Process 3 .* there are 2.*--nproc_per_node=2"):
            local_device()

    def test_without_torchrun_raises(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in TORCHRUN:
            monkeypatch.delenv(name, raising=False)
        with pytest.raises(RuntimeError, match=r"found no RANK, .*Start `torchrun"):
            local_device()
        with pytest.raises(RuntimeError, match="Start `torchrun"):
            join_processes("cpu")


class TestSharedStatistics:
    def test_batch_norms_become_synchronised_ones_with_their_weights(self) -> None:
        with torch.device("meta"):  # neither a CPU nor a GPU is needed to see what becomes of it
            network = nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2))
        names = list(network.state_dict())
        shared = with_shared_statistics(network)
        assert [type(module) for module in shared] == [nn.Conv3d, nn.SyncBatchNorm]
        assert list(shared.state_dict()) == names

    def test_without_batch_norm_the_network_is_left_alone(self) -> None:
        network = nn.Sequential(nn.Conv3d(1, 2, 3), nn.InstanceNorm3d(2))
        assert with_shared_statistics(network) is network
        assert [type(module) for module in network] == [nn.Conv3d, nn.InstanceNorm3d]

    def test_batch_norm_on_a_cpu_raises(self) -> None:
        network = nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2))
        with pytest.raises(RuntimeError, match=r"1 batch norms \('1' the first\).*on GPUs only.*backbone_norm"):
            with_shared_statistics(network)


class TestJoinProcesses:
    def test_joins_once_by_gloo_and_the_first_still_talks(self, group: None) -> None:
        assert (dist.get_backend(), dist.get_world_size()) == ("gloo", 1)
        join_processes("cpu")
        assert logging.root.manager.disable < logging.INFO

    def test_others_are_quiet(self, started: pytest.MonkeyPatch) -> None:
        silenced: list[int] = []
        started.setattr(dist, "init_process_group", lambda **options: None)
        started.setattr(dist, "get_rank", lambda: 1)
        started.setattr(logging, "disable", silenced.append)
        join_processes("cpu")
        assert silenced == [logging.INFO]

    def test_gpus_meet_by_nccl_on_their_own_device(self, started: pytest.MonkeyPatch) -> None:
        asked: dict[str, Any] = {}
        current: list[torch.device] = []
        started.setattr(dist, "init_process_group", lambda **options: asked.update(options))
        started.setattr(dist, "get_rank", lambda: 0)
        started.setattr(torch.cuda, "set_device", current.append)
        join_processes("cuda:1", timeout_minutes=2)
        assert (asked["backend"], asked["timeout"].total_seconds()) == ("nccl", 120)
        assert [asked["device_id"]] == current == [torch.device("cuda", 1)]


class TestValidationSampler:
    def shares(self, patch: pytest.MonkeyPatch, cases: int, processes: int) -> list[list[int]]:
        patch.setattr(dist, "is_available", lambda: True)
        patch.setattr(dist, "get_world_size", lambda *_: processes)
        shares = []
        for rank in range(processes):
            patch.setattr(dist, "get_rank", lambda *_, rank=rank: rank)
            shares.append(list(validation_sampler(range(cases))))
        return shares

    @pytest.mark.parametrize(("cases", "processes"), [(5, 3), (6, 3), (4, 3), (3, 3), (5, 1)])
    def test_each_case_is_dealt_once(self, monkeypatch: pytest.MonkeyPatch, cases: int, processes: int) -> None:
        shares = self.shares(monkeypatch, cases, processes)
        assert sorted(case for share in shares for case in share) == list(range(cases))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1

    def test_none_goes_without(self, monkeypatch: pytest.MonkeyPatch) -> None:
        shares = self.shares(monkeypatch, 2, 5)
        assert [len(share) for share in shares] == [1] * 5
        assert {case for share in shares for case in share} == {0, 1}


class TestLossTerms:
    def test_means_are_over_all_processes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The other process has met 4, 8 and 12 where this one has met 1 and 3."""
        other = torch.tensor([[24.0], [3.0]], dtype=torch.float64)
        monkeypatch.setattr(idist, "all_reduce", lambda own: own + other)
        loss = nn.Module()
        terms = LossTerms(loss, torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5))
        engine = Engine(lambda engine, batch: None)
        for value in (1.0, 3.0):
            loss.terms = {"alignment": torch.tensor(value)}
            terms.add(engine)
        terms.report(engine)
        assert engine.state.metrics["train_alignment"] == pytest.approx(28 / 5)

    def test_another_process_that_is_not_finite_stops_this_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(idist, "all_reduce", lambda own: own + torch.tensor([[float("nan")], [1.0]]))
        loss = nn.Module()
        loss.terms = {"alignment": torch.tensor(1.0)}
        terms = LossTerms(loss, torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5))
        engine = Engine(lambda engine, batch: None)
        terms.add(engine)
        with pytest.raises(ValueError, match="alignment became NaN"):
            terms.report(engine)


def test_state_that_some_processes_do_not_see_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, 1, 4)
    monkeypatch.setattr(idist, "all_reduce", lambda own: own + 2.0)
    last = LastState({}, tmp_path / "last.pt", resume=True)
    with pytest.raises(FileNotFoundError, match=r"exists for 2 of the 4 processes.*all machines share"):
        last.restore(Engine(lambda engine, batch: None))


def test_phantom_is_made_by_the_first_process_while_the_others_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    small = {"num_training": 1, "num_test": 0, "progress": False}

    def wait() -> None:
        phantom.make_phantom(tmp_path / "data", **small)
        made.append("by the first")
        monkeypatch.setattr(phantom, "make_phantom", lambda *_, **__: made.append("by the second"))

    monkeypatch.setattr("ignite.distributed.utils.get_rank", lambda: 1)
    monkeypatch.setattr("ignite.distributed.utils.get_world_size", lambda: 2)
    monkeypatch.setattr("ignite.distributed.utils.barrier", wait)
    phantom.ensure_phantom(tmp_path / "data", **small)
    assert made == ["by the first"]


def wrapped(bundle_root: Path, key: str, module: nn.Module) -> DistributedDataParallel:
    """As the overlay wraps it."""
    arguments = ConfigParser.load_config_file(bundle_root / "configs/multi_gpu_train.yaml")[key]
    names = {name: value for name, value in arguments.items() if name not in ("_target_", "module")}
    return DistributedDataParallel(module, **names)


@pytest.mark.usefixtures("group")
class TestUnusedParameters:
    """Steps in a group of one, where DistributedDataParallel keeps the books that it keeps in every group."""

    def gradients(self, network: nn.Module, loss: nn.Module, image: torch.Tensor) -> list[dict[str, Any]]:
        target = torch.zeros(image.shape[0], 1, *image.shape[2:])
        found = []
        for _ in range(2):  # what the first leaves open, the second finds
            network.zero_grad(set_to_none=True)
            loss(network(image), target).backward()
            plain = getattr(network, "module", network)
            found.append({name: None if p.grad is None else p.grad.clone() for name, p in plain.named_parameters()})
        return found

    @pytest.mark.parametrize(
        "switches",
        [{}, {"use_alignment": False}, {"use_alignment": False, "use_class_embedding": False}],
        ids=["all terms", "no alignment", "segmentation alone"],
    )
    def test_any_term_can_be_off(
        self, bundle_root: Path, make_network: Any, awaken: Any, image: torch.Tensor, switches: dict[str, bool]
    ) -> None:
        network, loss = awaken(make_network()), BiPVLLoss(**switches)
        loss.alignment.noise = 0.0
        image = image[:1]
        expected = self.gradients(network, loss, image)
        parallel, parallel_loss = wrapped(bundle_root, "network", network), wrapped(bundle_root, "loss", loss)
        found = self.gradients(parallel, parallel_loss, image)
        for step, reference in zip(found, expected, strict=True):
            for name, gradient in reference.items():
                torch.testing.assert_close(step[name], gradient, msg=name)
        with torch.no_grad():
            torch.testing.assert_close(parallel.eval()(image), network.eval()(image))

    def test_first_step_too_is_averaged(self, bundle_root: Path, make_network: Any, image: torch.Tensor) -> None:
        """Of a static graph by a sink, through which all outputs must pass that are to be found within the result."""
        output = wrapped(bundle_root, "network", make_network())(image[:1])
        for part in (output.logits, output.class_map, output.vision_embeddings, output.concept_embeddings):
            assert "DDPSink" in type(part.grad_fn).__name__

    def test_network_with_heads_that_it_does_not_use(self, bundle_root: Path) -> None:
        network = BasicUNetPlusPlus(out_channels=3, features=(4, 4, 4, 4, 4, 4))
        parallel = wrapped(bundle_root, "network", network)
        outputs = nn.Module()
        outputs.forward = lambda output, target: BiPVLLoss()(output[0], target)  # type: ignore[method-assign]
        steps = self.gradients(parallel, outputs, torch.randn(1, 1, 32, 32, 32))
        without = [{name for name, gradient in step.items() if gradient is None} for step in steps]
        assert without[0] == without[1] != set()
