"""What is refused of a request, with status 400 or 404 and the reason."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fastapi import HTTPException, UploadFile
from monailabel.interfaces.utils.app import app_instance

from guard import options as rules
from guard.plain import require_name, require_plain  # the bundle's, put here by start.sh

SESSION = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@contextmanager
def refusing() -> Iterator[None]:
    """Turns a ValueError into status 400."""
    try:
        yield
    except ValueError as error:
        raise HTTPException(400, str(error)) from error


def checked(given: Any, known: Mapping[str, rules.Rule], what: str) -> dict[str, Any]:
    """The options of a request, if they are those that `known` has."""
    with refusing():
        return rules.check(given, known, what)


def noted(text: str, what: str) -> dict[str, Any]:
    """What a client notes of an image or a label, from its JSON."""
    with refusing():
        return rules.notes(parsed(text), what)


def parsed(text: str) -> Any:
    """The content of a form's field of JSON."""
    try:
        return json.loads(text) if text else {}
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"The options are no JSON: {error}.") from error


def found(tasks: Mapping[str, Any], name: str, kind: str) -> Any:
    """The task of a name."""
    with refusing():
        require_plain(name, f"The name of the {kind}")
    if name not in tasks:
        raise HTTPException(404, f"There is no {kind} '{name}'; there is {', '.join(sorted(tasks)) or 'none'}.")
    return tasks[name]


def known_image(image: str) -> None:
    """An image is named as the studies have it; a path is no name."""
    with refusing():
        require_plain(image, "The name of the image")
    known = app_instance().datastore().list_images()
    if image not in known:
        raise HTTPException(404, f"There is no image '{image}' among the {len(known)} of the studies; give its name.")


def known_session(session_id: str) -> None:
    """A session is called as the server has called it, which no folder is."""
    if not SESSION.fullmatch(session_id):
        raise HTTPException(400, f"'{session_id}' is no name of a session.")
    if app_instance().sessions() is None or app_instance().sessions().get_session(session_id) is None:
        raise HTTPException(404, f"There is no session '{session_id}'.")


def readable_upload(upload: UploadFile | None) -> None:
    """The name of a file tells how it is read, and may become that of an image."""
    if upload is None or not upload.filename:
        return
    named(upload.filename, "The name of the file")
    if not upload.filename.endswith(rules.EXTENSIONS):
        expected = ", ".join(rules.EXTENSIONS)
        raise HTTPException(400, f"The file '{upload.filename}' cannot be read; expected one of {expected}.")


def new_image_name(image: str | None, filename: str) -> str:
    """What an uploaded image will be called: as the client says, else as its file; no image is replaced."""
    extension = next((end for end in rules.EXTENSIONS if filename.endswith(end)), "")
    name = image or filename.removesuffix(extension)
    named(name, "The name of the image")
    if name in app_instance().datastore().list_images():
        raise HTTPException(400, f"There is an image '{name}' already; give the new one another name.")
    return name


def named(text: str, what: str) -> None:
    """A text that a file or a folder is called after."""
    with refusing():
        require_name(text, what)
