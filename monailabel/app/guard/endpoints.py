"""What a client may ask the server to do. Each request is looked at before MONAI Label sees any of it.

The paths and answers are MONAI Label's. A request that cannot be fulfilled is answered 400, or 404 for what is not
there, with the reason. These are no coroutines: one that takes long does not keep the others waiting.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Annotated, Any

import torch
from fastapi import APIRouter, BackgroundTasks, Body, Depends, File, Form, HTTPException, UploadFile
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.endpoints import activelearning as sample_endpoint
from monailabel.endpoints import datastore as datastore_endpoint
from monailabel.endpoints import infer as infer_endpoint
from monailabel.endpoints import session as session_endpoint
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.tasks.batch_infer import BatchInferImageType
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.async_tasks.task import AsyncTask
from monailabel.utils.others.generic import device_list

from guard import options as rules
from guard.refusals import (
    checked,
    found,
    known_image,
    known_session,
    named,
    new_image_name,
    noted,
    parsed,
    readable_upload,
    refusing,
)

router = APIRouter()

Options = Annotated[Any, Body()]
AsUser = Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))]
AsAnnotator = Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR))]
AsAdmin = Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ADMIN))]

RUNNING = ("SUBMITTED", "RUNNING")
FAILED = "The training ended without a reason; see the log of the server."


@router.post("/infer/{model}", summary="Segment an image")
def infer(
    background_tasks: BackgroundTasks,
    model: str,
    user: AsUser,
    image: str = "",
    session_id: str = "",
    params: Annotated[str, Form()] = "{}",
    file: Annotated[UploadFile | None, File()] = None,
    label: Annotated[UploadFile | None, File()] = None,
    output: infer_endpoint.ResultType | None = None,
) -> Any:
    task = found(app_instance()._infers, model, "model")
    options = checked(parsed(params), rules.inference(task.config(), devices()), f"The model '{model}'")
    if output == infer_endpoint.ResultType.dicom_seg and not isinstance(app_instance().datastore(), DICOMWebDatastore):
        raise HTTPException(400, "The studies are no DICOM; ask for the output 'image'.")
    if not (image or session_id or file):
        raise HTTPException(400, "Nothing to segment: give the name of an image, a session, or a file.")
    if image:
        known_image(image)
    if session_id:
        known_session(session_id)
    for upload in (file, label):
        readable_upload(upload)
    text = json.dumps(options)
    return infer_endpoint.run_inference(background_tasks, model, image, session_id, text, file, label, output)


@router.post("/batch/infer/{model}", summary="Segment many images")
def batch_infer(
    model: str,
    user: AsAdmin,
    images: BatchInferImageType = BatchInferImageType.IMAGES_ALL,
    params: Options = None,
    run_sync: bool = False,
) -> Any:
    task = found(app_instance()._infers, model, "model")
    known = app_instance().datastore().list_images()
    options = checked(params or {}, rules.batch(task.config(), devices(), known), f"The model '{model}'")
    return _run("batch_infer", {"model": model, "images": images.value, **options}, run_sync)


@router.post("/train/{model}", summary="Train a model on the labels that were submitted")
def train(model: str, user: AsAdmin, params: Options = None, run_sync: bool = False, enqueue: bool = False) -> Any:
    task = found(app_instance()._trainers, model, "trainer")
    options = checked(params or {}, rules.training(task.config(), devices()), f"The training of '{model}'")
    if not app_instance().datastore().datalist():
        raise HTTPException(400, "There is nothing to learn from: no label was submitted yet.")
    chosen = options.get("model_filename", "model.pt")
    with refusing():
        task.check_start(chosen[0] if isinstance(chosen, list) else chosen)
    return _train(model, options, run_sync, enqueue)


@router.post("/train/", summary="Train all models", include_in_schema=False)
def train_all(user: AsAdmin, params: Options = None, run_sync: bool = False) -> Any:
    trainers = app_instance()._trainers
    known = {model: rules.training(task.config(), devices()) for model, task in trainers.items()}
    given = checked(params or {}, dict.fromkeys(known, rules.plain), "The server")
    options = {model: checked(given.get(model, {}), known[model], f"The training of '{model}'") for model in known}
    return {model: {"result": _train(model, options[model], run_sync, True)} for model in known}


@router.post("/scoring/{method}", summary="Score the images without a label by uncertainty")
def scoring(method: str, user: AsAnnotator, params: Options = None, run_sync: bool = False) -> Any:
    found(app_instance()._scoring_methods, method, "scoring method")
    options = checked(params or {}, rules.scoring(devices()), f"The scoring method '{method}'")
    return _run("scoring", {"method": method, **options}, run_sync)


@router.post("/scoring/", summary="Run all scoring methods", include_in_schema=False)
def scoring_all(user: AsAnnotator, params: Options = None, run_sync: bool = False) -> Any:
    methods = app_instance()._scoring_methods
    given = checked(params or {}, dict.fromkeys(methods, rules.plain), "The server")
    options = {m: checked(given.get(m, {}), rules.scoring(devices()), f"The scoring method '{m}'") for m in methods}
    return {m: {"result": _run("scoring", {"method": m, **options[m]}, run_sync, enqueue=True)} for m in methods}


@router.post("/activelearning/{strategy}", summary="Choose the image to annotate next")
def next_sample(strategy: str, user: AsUser, params: Options = None) -> Any:
    task = found(app_instance()._strategies, strategy, "strategy")
    config = task.info().get("config", {})
    options = checked(params or {}, rules.next_sample(config), f"The strategy '{strategy}'")
    return sample_endpoint.sample(strategy, options, user.username)


@router.put("/datastore/", include_in_schema=False)
@router.put("/datastore/image", summary="Put a new image into the studies")
def add_image(
    background_tasks: BackgroundTasks,
    user: AsAnnotator,
    file: Annotated[UploadFile, File()],
    image: str | None = None,
    params: Annotated[str, Form()] = "{}",
) -> Any:
    readable_upload(file)
    name = new_image_name(image, file.filename or "")
    notes = noted(params, "The notes on the image")
    return datastore_endpoint.add_image(background_tasks, name, json.dumps(notes), file, user.username)


@router.put("/datastore/label", summary="Submit a label")
def save_label(
    background_tasks: BackgroundTasks,
    user: AsAnnotator,
    image: str,
    label: Annotated[UploadFile, File()],
    params: Annotated[str, Form()] = "{}",
    tag: str = "final",
) -> Any:
    known_image(image)
    named(tag, "The tag of the label")
    readable_upload(label)
    notes = noted(params, "The notes on the label")
    return datastore_endpoint.save_label(background_tasks, image, json.dumps(notes), tag, label, user.username)


@router.put("/datastore/image/info", summary="Note something of an image")
def image_info(user: AsAnnotator, image: str, info: Annotated[str, Form()] = "{}") -> Any:
    known_image(image)
    notes = noted(info, "The notes on the image")
    return datastore_endpoint.update_image_info(image, json.dumps(notes), user.username)


@router.put("/datastore/label/info", summary="Note something of a label")
def label_info(user: AsAnnotator, label: str, tag: str, info: Annotated[str, Form()] = "{}") -> Any:
    notes = noted(info, "The notes on the label")
    if not app_instance().datastore().get_label_uri(label, tag):
        raise HTTPException(404, f"There is no label '{label}' with the tag '{tag}'.")
    return datastore_endpoint.update_label_info(label, tag, json.dumps(notes), user.username)


@router.put("/session/", summary="Bring an image for some requests, without putting it into the studies")
def create_session(
    background_tasks: BackgroundTasks,
    user: AsUser,
    files: Annotated[list[UploadFile], File()],
    uncompress: bool = False,
    expiry: int = 0,
) -> Any:
    if uncompress or len(files) != 1:
        raise HTTPException(400, "A session holds one image as one file; archives are not unpacked here.")
    readable_upload(files[0])
    return session_endpoint.create_session(background_tasks, False, expiry, files)


@router.get("/session/{session_id}")
def get_session(session_id: str, user: AsUser, update_ts: bool = False, image: bool = False) -> Any:
    known_session(session_id)
    return session_endpoint.get_session(session_id, update_ts, image)


@router.delete("/session/{session_id}")
def remove_session(session_id: str, user: AsUser) -> Any:
    known_session(session_id)
    return session_endpoint.remove_session(session_id)


def devices() -> list[str]:
    """What a request may call a device."""
    gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return list(dict.fromkeys([*device_list(), "cpu", *(["cuda", *gpus] if gpus else [])]))


def _train(model: str, options: Mapping[str, Any], run_sync: bool, enqueue: bool) -> Any:
    """In a process of its own in any case, so that images can be segmented meanwhile."""
    task = _run("train", {"model": model, **options}, False, enqueue=enqueue)
    while run_sync and task["status"] in RUNNING:
        time.sleep(0.2)
    outcome = app_instance()._trainers[model].stats() if run_sync else {}
    if task["status"] == "ERROR":
        # By the file, since MONAI Label misses what a process says last.
        known = "text" in outcome
        raise HTTPException(400 if known else 500, outcome["text"] if known else FAILED)
    return {**task, "outcome": outcome} if run_sync else task


def _run(method: str, request: dict[str, Any], run_sync: bool, *, enqueue: bool = False) -> Any:
    done, detail = AsyncTask.run(method, request=request, force_sync=run_sync, enqueue=enqueue)
    if done is None:
        raise HTTPException(429, detail)
    return done
