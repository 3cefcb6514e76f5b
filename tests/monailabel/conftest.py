"""The real server on a small bundle, driven as a client drives it."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import pytest
import torch
import yaml
from monai.bundle import ConfigParser

from scripts.configuration.plan import plan_of
from scripts.data.image_kind import describe_images
from scripts.data.phantom.dataset import draw_case
from scripts.networks.weights import write_weights

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = {"roi_size": [64, 32, 32], "spacing": [8.0, 8.0, 8.0]}
CASES = 4
STARTING = 900  # seconds; the first time the environment is made


class Server:
    """A running server, its bundle, its studies, and the labels of the images in them."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, bundle: Path, studies: Path, log: Path) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self.bundle = bundle
        self.studies = studies
        self.log = log

    @property
    def model(self) -> str:
        return self.bundle.name

    def ask(
        self,
        path: str,
        method: str = "GET",
        content: bytes | None = None,
        kind: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        headers = {"Content-Type": kind, **(headers or {})}
        request = urllib.request.Request(self.url + path, data=content, headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=300) as answer:
            return answer.read()

    def info(self) -> dict[str, Any]:
        return json.loads(self.ask("/info/"))

    def post(self, path: str, **options: Any) -> dict[str, Any]:
        return json.loads(self.ask(path, "POST", json.dumps(options).encode()))

    def form(self, path: str, method: str, name: str, value: bytes, filename: str | None = None) -> bytes:
        """Ask with a form of one field."""
        boundary = uuid.uuid4().hex
        file = f'; filename="{filename}"' if filename else ""
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        content = head.encode() + value + f"\r\n--{boundary}--\r\n".encode()
        return self.ask(path, method, content, f"multipart/form-data; boundary={boundary}")

    def infer(self, case: str, **params: Any) -> nib.Nifti1Image:
        path = f"/infer/{self.model}?image={urllib.parse.quote(case, safe='')}&output=image"
        answer = self.form(path, "POST", "params", json.dumps({"result_extension": ".nii.gz", **params}).encode())
        return nib.Nifti1Image.from_bytes(gzip.decompress(answer))

    def submit(self, case: str, label: Path) -> None:
        path = f"/datastore/label?image={case}&tag=final"
        self.form(path, "PUT", "label", label.read_bytes(), filename=f"{case}.nii.gz")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, bundle_root: Path, awaken: Callable[..., Any]) -> Path:
    """A copy of the bundle, with random weights that read; their file alone tells that they are for small images."""
    folder = tmp_path_factory.mktemp("served") / "small_bundle"

    def left_out(path: str, names: list[str]) -> set[str]:
        outputs = {"data", "runs"} if Path(path) == bundle_root else set()
        return {name for name in names if name in outputs or name == "__pycache__" or name.endswith(".pt")}

    shutil.copytree(bundle_root, folder, ignore=left_out)
    path = folder / "configs/train.yaml"
    config = {**yaml.safe_load(path.read_text()), "learning_rate": 1e-3}  # what a few steps make better and not worse
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    parser = ConfigParser()
    parser.read_config(str(path))
    parser.update({**SMALL, "bundle_root": str(folder), "backbone#network#depths": [1, 1, 1, 1]})
    images = tmp_path_factory.mktemp("images")
    nib.save(draw_case(0, 0, 0).image, images / "case_0.nii.gz")
    described = describe_images([{"image": str(images / "case_0.nii.gz")}])
    torch.manual_seed(0)
    network = awaken(parser.get_parsed_content("network_def"))
    record = {"plan": plan_of(parser.get()), "images": described}
    write_weights(network.state_dict(), folder / "models/model.pt", record)
    return folder


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    for index in range(CASES):
        nib.save(draw_case(0, 0, index).label, folder / f"case_{index}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def server(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    studies = folder / "studies"
    studies.mkdir()
    for index in range(CASES):
        nib.save(draw_case(0, 0, index).image, studies / f"case_{index}.nii.gz")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [str(REPOSITORY / "monailabel/start.sh"), str(studies), str(bundle), "--port", str(port)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder, env={**os.environ})
    running = Server(process, port, bundle, studies, folder / "log")
    try:
        _wait(running)
        yield running
    finally:
        process.terminate()
        process.wait(30)


def _wait(server: Server) -> None:
    for _ in range(STARTING):
        time.sleep(1)
        if server.process.poll() is not None:
            log = server.log.read_text()
            if "pip" in log and "Serving" not in log:
                pytest.skip(f"MONAI Label could not be installed: {log.strip().splitlines()[-1]}")
            pytest.fail(f"The server ended before it answered:\n{log[-3000:]}")
        try:
            server.info()
        except (urllib.error.URLError, ConnectionError):
            continue
        return
    pytest.fail(f"No answer within {STARTING} seconds:\n{server.log.read_text()[-3000:]}")
