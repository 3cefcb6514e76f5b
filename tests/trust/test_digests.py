from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from scripts.networks.weights import read_checkpoint, write_weights
from scripts.trust.digests import SUMS, add_digest, check_digest, check_sums, write_sums


@pytest.fixture
def model(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    state = {f"layer{n}.weight": torch.randn(16, 33, generator=generator).half() for n in range(20)}
    write_weights(state, tmp_path / "model.pt", {"trained_on": ["ab12"]})
    return tmp_path / "model.pt"


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def refusals(path: Path, bits: list[int], read: Callable[[Path], object] = read_checkpoint) -> int:
    """How many of the files that differ in one bit are refused by name."""
    content, count = path.read_bytes(), 0
    for bit in bits:
        path.write_bytes(flipped(content, bit))
        try:
            read(path)
        except ValueError as error:
            count += path.name in str(error)
    path.write_bytes(content)
    return count


class TestModelFile:
    def test_one_bit_changed_anywhere_is_refused(self, model: Path) -> None:
        size = model.stat().st_size * 8
        assert refusals(model, random.Random(0).sample(range(size), 60)) == 60
        assert read_checkpoint(model)

    def test_each_bit_of_the_end_of_the_file_is_refused(self, model: Path) -> None:
        size = model.stat().st_size * 8
        assert refusals(model, list(range(size - 8 * 93, size))) == 8 * 93

    @pytest.mark.parametrize("name", ["models/model.pt", "models/hippocampus/model.pt"])
    def test_those_of_the_project_are_refused_with_one_bit_changed(
        self, bundle_root: Path, tmp_path: Path, name: str
    ) -> None:
        path = tmp_path / "model.pt"
        path.write_bytes((bundle_root / name).read_bytes())
        assert check_digest(path)
        size = path.stat().st_size * 8
        assert refusals(path, random.Random(1).sample(range(size), 60), check_digest) == 60

    def test_what_was_found_is_said(self, model: Path) -> None:
        model.write_bytes(flipped(model.read_bytes(), 9000))
        with pytest.raises(ValueError, match=r"model\.pt' is damaged: it carries the SHA-256 \w{12}\.\.\. and has "):
            check_digest(model)

    def test_a_file_that_was_cut_or_continued_is_refused(self, model: Path) -> None:
        content = model.read_bytes()
        for count in (*range(1, 95), 1000, len(content)):
            model.write_bytes(content[:-count])
            with pytest.raises(ValueError, match=r"model\.pt"):
                read_checkpoint(model)
        model.write_bytes(content + b"x")
        with pytest.raises(ValueError, match=r"model\.pt"):
            read_checkpoint(model)

    def test_the_digest_is_in_no_reader_s_way(self, model: Path) -> None:
        for mmap in (None, True):
            state = torch.load(model, weights_only=True, mmap=mmap)
            assert len(state) == 20
            assert all(isinstance(value, torch.Tensor) for value in state.values())

    def test_a_file_without_one_says_so(self, tmp_path: Path) -> None:
        torch.save({"a": torch.ones(1)}, tmp_path / "bare.pt")
        assert check_digest(tmp_path / "bare.pt") is None
        (tmp_path / "other").write_bytes(b"x")
        assert check_digest(tmp_path / "other") is None

    def test_it_is_given_once_and_to_archives_alone(self, model: Path, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="is no zip archive without a comment"):
            add_digest(model)
        (tmp_path / "other").write_bytes(b"x" * 100)
        with pytest.raises(ValueError, match="is no zip archive without a comment"):
            add_digest(tmp_path / "other")

    def test_an_onnx_file_has_it_as_a_property(self, tmp_path: Path) -> None:
        onnx = pytest.importorskip("onnx")
        graph = onnx.helper.make_graph([onnx.helper.make_node("Neg", ["x"], ["y"])], "g", [], [])
        path = tmp_path / "model.onnx"
        onnx.save(onnx.helper.make_model(graph), path)
        assert check_digest(path) is None
        digest = add_digest(path)
        assert check_digest(path) == digest
        assert {p.key: p.value for p in onnx.load(path).metadata_props} == {"sha256": digest}
        size = path.stat().st_size * 8
        assert refusals(path, list(range(size)), check_digest) == size


class TestFolder:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        (tmp_path / "vocab.txt").write_text("a\nb\n")
        (tmp_path / "weights").write_bytes(bytes(range(256)))
        write_sums(tmp_path)
        return tmp_path

    def test_unchanged_files_pass_and_sha256sum_agrees(self, folder: Path) -> None:
        assert check_sums(folder)
        subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=folder, check=True, capture_output=True)

    def test_a_folder_without_digests_says_so(self, tmp_path: Path) -> None:
        assert not check_sums(tmp_path)

    @pytest.mark.parametrize("name", ["vocab.txt", "weights"])
    def test_a_changed_or_absent_file_is_named(self, folder: Path, name: str) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(flipped(content, 9))
        with pytest.raises(ValueError, match=rf"{name}' is absent or not what was written; 'SHA256SUMS' has"):
            check_sums(folder)
        (folder / name).unlink()
        with pytest.raises(ValueError, match=rf"{name}' is absent or not what was written"):
            check_sums(folder)

    def test_a_changed_list_is_named(self, folder: Path) -> None:
        (folder / SUMS).write_text("x  vocab.txt\n")
        with pytest.raises(ValueError, match=r"SHA256SUMS' has the line 'x  vocab\.txt'"):
            check_sums(folder)

    def test_the_text_encoder_of_the_project_is_what_was_written(self, bundle_root: Path) -> None:
        assert check_sums(bundle_root / "models/text_encoder")
