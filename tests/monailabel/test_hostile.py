"""What a client may try on the real server: code in every field, paths, bad images, many requests at once.

python -m pytest -m monailabel
"""

from __future__ import annotations

import gzip
import json
import shutil
import socket
import time
import urllib.error
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from scripts.networks.weights import read_weights, write_weights

pytestmark = pytest.mark.monailabel

GONE = "00000000-0000-0000-0000-000000000000"


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that code would make."""
    return tmp_path_factory.mktemp("hostile") / "executed"


@pytest.fixture(autouse=True)
def nothing_was_executed(executed: Path, server: Any) -> Iterator[None]:
    before = set(server.studies.parent.iterdir())
    yield
    assert not executed.exists()
    assert set(server.studies.parent.iterdir()) == before
    assert server.process.poll() is None


@pytest.fixture(scope="module")
def hostile(executed: Path) -> list[Any]:
    code = f"$__import__('pathlib').Path(r'{executed}').touch()"
    built = {"_target_": "pathlib.Path.touch", "self": {"_target_": "pathlib.Path", "_args_": [str(executed)]}}
    return [code, f" {code}", "@network", "%/etc/passwd", [code], [[code]], {"a": [code]}, {code: 1}, built, [built]]


def refused(ask: Any, *arguments: Any, **options: Any) -> tuple[int, str]:
    """Status and reason of an answer that is none."""
    with pytest.raises(urllib.error.HTTPError) as error:
        ask(*arguments, **options)
    return error.value.code, str(json.loads(error.value.read())["detail"])


def goes_on(server: Any) -> None:
    assert server.infer("case_0").shape == nib.load(server.studies / "case_0.nii.gz").shape


class TestCode:
    def test_in_any_option_of_a_request_is_refused_by_its_name(self, server: Any, hostile: list[Any]) -> None:
        info = server.info()
        model, trainer = (info[kind][server.model]["config"] for kind in ("models", "trainers"))
        own = ["device", "unlisted"]
        tried = 0
        for names, path in (
            ([*trainer, *own, "tracking_run_name", "run_id"], f"/train/{server.model}"),
            ([*model, *own, "images", "label_tag", "gpus"], f"/batch/infer/{server.model}"),
            (["simulation_size", "max_samples", *own], f"/scoring/{server.model}"),
            (["client_id", "strategy", *own], "/activelearning/epistemic"),
        ):
            for name in names:
                for value in hostile:
                    status, reason = refused(server.post, path, **{name: value})
                    assert (status, f"'{name}'" in reason) == (400, True), (path, name, value, reason)
                    tried += 1
        for name in [*model, *own, "image", "label_tag", "result_extension"]:
            for value in hostile:
                status, reason = refused(server.infer, "case_0", **{name: value})
                assert (status, f"'{name}'" in reason) == (400, True), (name, value, reason)
                tried += 1
        assert tried > 300
        goes_on(server)

    def test_in_names_keys_and_notes_is_refused(self, server: Any, hostile: list[Any]) -> None:
        code = hostile[0]
        quoted = urllib.parse.quote(code, safe="")
        for path in (f"/train/{server.model}", f"/batch/infer/{server.model}", "/activelearning/epistemic"):
            assert refused(server.post, path, **{code: 1})[0] == 400
        for path in (f"/train/{quoted}", f"/batch/infer/{quoted}", f"/scoring/{quoted}", f"/activelearning/{quoted}"):
            assert refused(server.post, path)[0] in (400, 404)
        params = json.dumps({"note": {"_target_": "os.getcwd"}}).encode()
        assert refused(server.form, "/datastore/image/info?image=case_0", "PUT", "info", params)[0] == 400
        assert refused(server.form, f"/infer/{server.model}?image={quoted}", "POST", "params", b"{}")[0] in (400, 404)

    def test_a_device_that_is_none_does_not_stay(self, server: Any) -> None:
        for _ in range(3):
            assert refused(server.infer, "case_0", device="%/etc/passwd")[0] == 400
        goes_on(server)


class TestPlaces:
    @pytest.mark.parametrize("image", ["nowhere", "../studies/case_0", "case_0/../case_1", "", "."])
    def test_an_image_that_is_not_listed(self, server: Any, image: str) -> None:
        status, reason = refused(server.infer, image)
        assert status in (400, 404)
        assert image in reason

    def test_an_absolute_path_is_no_image(self, server: Any) -> None:
        path = str(server.studies / "case_0.nii.gz")
        assert refused(server.infer, path) == (
            404,
            f"There is no image '{path}' among the 4 of the studies; give its name.",
        )
        assert refused(server.infer, "case_0", image=path)[0] == 400
        assert refused(server.post, f"/batch/infer/{server.model}", images=[path])[0] == 400

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("model_filename", "modle.pt"),
            ("model_filename", "../models/model.pt"),
            ("device", "cude"),
            ("device", "cuda:7"),
            ("result_extension", "/../../escaped.nii"),
            ("label_tag", "../../escaped"),
            ("label_tag", "final"),
        ],
    )
    def test_a_misspelt_or_wandering_value_is_refused_and_not_replaced(
        self, server: Any, option: str, value: str
    ) -> None:
        status, reason = refused(server.infer, "case_0", save_label=True, **{option: value})
        assert status == 400
        assert f"'{option}'" in reason

    @pytest.mark.parametrize("path", ["/train/other", "/batch/infer/other", "/scoring/other", "/activelearning/other"])
    def test_what_there_is_not_is_said(self, server: Any, path: str) -> None:
        status, reason = refused(server.post, path)
        assert status == 404
        assert "There is no" in reason

    def test_no_upload_leaves_its_folder(self, server: Any) -> None:
        image = (server.studies / "case_0.nii.gz").read_bytes()
        for path, field, name in (
            ("/datastore/image?image=../../escaped", "file", "x.nii.gz"),
            ("/datastore/image", "file", "../../escaped.nii.gz"),
            ("/datastore/image", "file", "escaped.sh"),
            ("/datastore/image", "file", "case_0.nii.gz"),  # is there
            ("/datastore/image?image=case_0", "file", "x.nii.gz"),
            ("/datastore/label?image=case_0&tag=../../escaped", "label", "x.nii.gz"),
            ("/datastore/label?image=../../escaped", "label", "x.nii.gz"),
            ("/session/?uncompress=true", "files", "x.tar"),
            ("/session/", "files", "..%2f..%2fescaped"),
        ):
            assert refused(server.form, path, "PUT", field, image, filename=name)[0] in (400, 404), path
        for session in ("..", "../..", GONE):
            asked = f"/infer/{server.model}?session_id={session}"
            assert refused(server.form, asked, "POST", "params", b"{}")[0] in (400, 404)
        assert refused(server.ask, f"/session/{GONE}", "DELETE")[0] == 404
        assert not list(server.studies.parent.parent.rglob("*escaped*"))

    @pytest.mark.parametrize(
        ("path", "method"),
        [
            ("/datastore/image?id=nowhere", "DELETE"),
            ("/datastore/image?image=nowhere", "GET"),
            ("/datastore/label?label=case_0&tag=..", "GET"),
            ("/datastore/dataset", "GET"),
            ("/logs/?lines=many", "GET"),
            ("/model/other", "GET"),
            ("/proxy/dicom/wado/x", "GET"),
            ("/nowhere", "GET"),
            ("/reload", "POST"),
            (f"/model/{'small_bundle'}", "PUT"),
            (f"/infer/wsi_v2/{'small_bundle'}", "POST"),
        ],
    )
    def test_other_requests_have_a_reason_too(self, server: Any, path: str, method: str) -> None:
        assert refused(server.ask, path, method)[0] in (400, 404, 405)

    def test_what_the_server_notes_itself_cannot_be_written(self, server: Any) -> None:
        for notes in ({"strategy": 5}, {"epistemic_entropy": "x"}, [1]):
            asked = ("/datastore/image/info?image=case_0", "PUT", "info", json.dumps(notes).encode())
            assert refused(server.form, *asked)[0] == 400
        assert server.post("/activelearning/random")["id"]

    def test_bodies_that_are_no_options(self, server: Any) -> None:
        for body in (b"[1]", b'"x"', b"{", b"[" * 100_000, b"\xff"):
            assert refused(server.ask, f"/train/{server.model}", "POST", body)[0] == 400
        assert refused(server.form, f"/infer/{server.model}?image=case_0", "POST", "params", b"{")[0] == 400


class TestOrigins:
    def test_pages_from_elsewhere_are_refused(self, server: Any) -> None:
        for headers in (
            {"Origin": "http://evil.example"},
            {"Origin": "null"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Host": "evil.example"},
        ):
            assert refused(server.ask, "/info/", headers=headers)[0] == 403, headers
            assert refused(server.ask, f"/train/{server.model}", "POST", b"{}", headers=headers)[0] == 403

    def test_the_servers_own_pages_and_clients_without_one_are_served(self, server: Any) -> None:
        assert server.ask("/info/", headers={"Origin": server.url})
        assert server.ask("/info/", headers={"Host": server.url.replace("http://127.0.0.1", "localhost")})
        assert server.ask("/")

    def test_no_other_origin_is_told_that_it_may_read(self, server: Any) -> None:
        preflight = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
        status, _ = refused(server.ask, f"/train/{server.model}", "OPTIONS", headers=preflight)
        assert status == 403


BAD = {
    "nan": lambda image: image * np.nan,
    "flat": lambda image: image[:, :, 0],
    "twice": lambda image: np.stack([image, image], axis=-1),
}


def bad_images(good: Path, folder: Path) -> dict[str, Path]:
    image = nib.load(good)
    paths = {name: folder / f"{name}.nii.gz" for name in (*BAD, "cut", "text")}
    for name, change in BAD.items():
        nib.save(nib.Nifti1Image(change(image.get_fdata()).astype(np.float32), image.affine), paths[name])
    paths["cut"].write_bytes(good.read_bytes()[:5000])
    paths["text"].write_text("no image")
    return paths


class TestBadImages:
    """Before the training, after which there is no telling what a mask looks like."""

    def test_are_refused_with_the_reason_and_the_server_goes_on(self, server: Any, tmp_path: Path) -> None:
        for name, path in bad_images(server.studies / "case_0.nii.gz", tmp_path).items():
            asked = f"/infer/{server.model}?output=image"
            status, reason = refused(server.form, asked, "POST", "file", path.read_bytes(), filename=path.name)
            assert status == 400, (name, reason)
            assert "applying transform" not in reason
            assert len(reason) > 20
        goes_on(server)

    def test_in_a_batch_are_told_and_the_others_segmented_once(self, server: Any, tmp_path: Path) -> None:
        bad = bad_images(server.studies / "case_0.nii.gz", tmp_path)
        for name in ("nan", "cut"):
            server.form("/datastore/image", "PUT", "file", bad[name].read_bytes(), filename=f"{name}.nii.gz")
        asked = f"/batch/infer/{server.model}?run_sync=true&images=unlabeled"
        done = server.post(asked, label_tag="batch")
        assert {name for name, result in done.items() if "error" in result} == {"nan", "cut"}
        labels = server.studies / "labels/batch"
        assert {path.name for path in labels.glob("*.nii.gz")} == {f"case_{n}.nii.gz" for n in range(4)}
        rows = (labels / "failures.csv").read_text().splitlines()
        assert rows[0] == "case,file,reason"
        assert [row.split(",")[0] for row in rows[1:]] == ["cut", "nan"]
        assert "4 of 6 images segmented, 2 failed." in server.log.read_text()
        times = {path: path.stat().st_mtime_ns for path in labels.glob("*.nii.gz")}
        assert set(server.post(asked, label_tag="batch")) == {"nan", "cut"}, "the others are there"
        assert {path: path.stat().st_mtime_ns for path in times} == times
        summary = server.post(f"/scoring/{server.model}?run_sync=true", simulation_size=2)
        assert set(summary["failures"]) == {"nan", "cut"}
        assert summary["executed"] == 4
        for name in ("nan", "cut"):
            server.ask(f"/datastore/image?id={name}", "DELETE")


class TestManyAtOnce:
    def test_four_requests_at_once_have_their_own_answers(self, server: Any) -> None:
        cases = [f"case_{n}" for n in range(4)]
        alone = {case: np.asarray(server.infer(case).dataobj) for case in cases}
        with ThreadPoolExecutor(4) as pool:
            asked = {case: pool.submit(server.infer, case) for case in cases}
            time.sleep(0.5)
            begun = time.monotonic()
            server.info()
            assert time.monotonic() - begun < 5
            assert not all(future.done() for future in asked.values()), "information is given meanwhile"
            for case, future in asked.items():
                assert np.array_equal(np.asarray(future.result().dataobj), alone[case])

    def test_words_of_one_request_are_not_those_of_another(self, server: Any) -> None:
        shown = server.info()["models"][server.model]["config"]["words of liver"]
        other = "; ".join(f"{part.split(':')[0]}: Two thin rings." for part in shown.split("; "))
        plain = np.asarray(server.infer("case_1").dataobj)
        edited = np.asarray(server.infer("case_1", **{"words of liver": other}).dataobj)
        assert (plain != edited).any()
        with ThreadPoolExecutor(4) as pool:
            asked = [
                pool.submit(server.infer, "case_1", **({"words of liver": other} if n % 2 else {})) for n in range(4)
            ]
            for n, future in enumerate(asked):
                assert np.array_equal(np.asarray(future.result().dataobj), edited if n % 2 else plain)

    def test_a_client_that_goes_away_takes_nothing_with_it(self, server: Any) -> None:
        host, port = server.url.removeprefix("http://").split(":")
        for _ in range(2):
            with socket.create_connection((host, int(port))) as client:
                body = b"params=%7B%7D"
                client.sendall(
                    f"POST /infer/{server.model}?image=case_0&output=image HTTP/1.1\r\nHost: {host}:{port}\r\n"
                    f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                    + body
                )
        goes_on(server)


@contextmanager
def damaged(server: Any) -> Iterator[str]:
    """The name of a model of which one bit was changed."""
    models = server.bundle / "models"
    content = bytearray((models / "model.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (models / "damaged.pt").write_bytes(content)
    yield "damaged.pt"
    (models / "damaged.pt").unlink()


class TestModelFiles:
    def test_a_damaged_one_is_refused_by_name_and_the_sound_one_serves_on(self, server: Any) -> None:
        with damaged(server) as name:
            status, reason = refused(server.infer, "case_0", model_filename=name)
            assert status == 400
            assert "damaged.pt' is damaged: it carries the SHA-256" in reason
            goes_on(server)

    def test_are_told_apart_though_they_are_as_old_as_each_other(self, server: Any) -> None:
        model = server.bundle / "models/model.pt"
        other = model.with_name("other.pt")
        state = {name: value * 0 if value.is_floating_point() else value for name, value in read_weights(model).items()}
        write_weights(state, other)
        shutil.copystat(model, other)
        try:
            used = np.asarray(server.infer("case_0").dataobj)
            assert (np.asarray(server.infer("case_0", model_filename="other.pt").dataobj) != used).any()
            assert np.array_equal(np.asarray(server.infer("case_0", model_filename="model.pt").dataobj), used)
        finally:
            other.unlink()


@contextmanager
def learning_rate(server: Any, value: str) -> Iterator[None]:
    """Another learning rate in the bundle that is served."""
    config = server.bundle / "configs/train.yaml"
    text = config.read_text()
    changed = text.replace("learning_rate: 0.001", f"learning_rate: {value}", 1)
    assert changed != text
    config.write_text(changed)
    try:
        yield
    finally:
        config.write_text(text)


class TestTraining:
    """Last."""

    def test_without_a_label_is_refused(self, server: Any) -> None:
        shutil.rmtree(server.studies / "labels/batch", ignore_errors=True)
        assert refused(server.post, f"/train/{server.model}") == (
            400,
            "There is nothing to learn from: no label was submitted yet.",
        )

    def test_that_comes_out_worse_keeps_the_old_model_in_use_and_says_so(self, server: Any, labels: Path) -> None:
        for case in ("case_0", "case_1", "case_2"):
            server.submit(case, labels / f"{case}.nii.gz")
        model = server.bundle / "models/model.pt"
        weights, before = model.read_bytes(), np.asarray(server.infer("case_3").dataobj)
        with learning_rate(server, "0.5"):
            done = server.post(
                f"/train/{server.model}?run_sync=true", max_epochs=1, val_split=0.4, model_filename="model.pt"
            )
        assert done["outcome"]["worse"]
        assert "WORSE" in done["outcome"]["text"]
        assert any("WORSE" in line for line in done["details"])
        assert model.read_bytes() == weights
        assert np.array_equal(np.asarray(server.infer("case_3").dataobj), before)
        assert server.info()["train_stats"][server.model]["worse"]
        assert "model_1.pt" in server.info()["models"][server.model]["config"]["model_filename"]

    def test_that_diverges_is_told_with_its_reason_and_keeps_the_old_model(self, server: Any) -> None:
        model = server.bundle / "models/model.pt"
        weights, before = model.read_bytes(), np.asarray(server.infer("case_3").dataobj)
        with learning_rate(server, "30.0"):
            status, reason = refused(
                server.post,
                f"/train/{server.model}?run_sync=true",
                max_epochs=1,
                val_split=0.4,
                model_filename="model.pt",
            )
        assert status == 400
        assert "FAILED, the model in use is what it was" in reason
        assert "finite" in reason
        assert model.read_bytes() == weights
        assert np.array_equal(np.asarray(server.infer("case_3").dataobj), before)
        assert server.info()["train_stats"][server.model]["failed"]

    def test_images_are_segmented_meanwhile_and_a_second_training_waits(self, server: Any) -> None:
        task = server.post(f"/train/{server.model}", max_epochs=3, model_filename="model.pt")
        assert task["status"] in ("SUBMITTED", "RUNNING")
        before = np.asarray(server.infer("case_3").dataobj)
        running = json.loads(server.ask("/train/?check_if_running=true"))
        assert running["status"] == "RUNNING", "the image did not wait for it"
        assert refused(server.post, f"/train/{server.model}")[0] == 429
        assert np.array_equal(np.asarray(server.infer("case_3").dataobj), before)
        for _ in range(1200):
            state = json.loads(server.ask("/train/"))
            if state["status"] not in ("SUBMITTED", "RUNNING"):
                break
            time.sleep(1)
        assert state["status"] == "DONE", state["details"]

    def test_from_a_damaged_model_is_refused(self, server: Any) -> None:
        with damaged(server) as name:
            status, reason = refused(server.post, f"/train/{server.model}", max_epochs=1, model_filename=name)
            assert status == 400
            assert "damaged.pt' is damaged" in reason


def test_gzip_is_what_clients_read(server: Any) -> None:
    path = f"/infer/{server.model}?image=case_0&output=image"
    answer = server.form(path, "POST", "params", json.dumps({"result_extension": ".nii.gz"}).encode())
    assert nib.Nifti1Image.from_bytes(gzip.decompress(answer)).shape
