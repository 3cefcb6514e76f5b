"""MONAI Label's server with guarded endpoints, for one origin, and with a reason in each answer that is a refusal."""

from __future__ import annotations

import ipaddress
import json
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware import Middleware
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from monailabel.config import settings
from monailabel.endpoints import activelearning, batch_infer, datastore, info, login, logs, model, ohif, scoring, train
from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException, MONAILabelException
from monailabel.interfaces.utils.app import app_instance

from guard import endpoints

logger = logging.getLogger(__name__)

READING = {"GET", "HEAD", "DELETE"}
"""What of MONAI Label's own endpoints is left as it is; the others are guarded, or not there."""
LEFT = (info, datastore, logs, model, ohif, activelearning, batch_infer, scoring, train)
ORIGINS = [str(origin).rstrip("/") for origin in settings.MONAI_LABEL_CORS_ORIGINS]
"""Web pages from elsewhere that may use the server: the environment's MONAI_LABEL_CORS_ORIGINS, by default none."""


NAMES = {"localhost", socket.gethostname().lower(), socket.getfqdn().lower()}
NAMES.update(host for origin in ORIGINS if (host := urlsplit(origin).hostname))
"""What the server may be called in a request."""


class OneOrigin:
    """Refuses what a browser sends for a page from elsewhere, whether or not the page may read the answer.

    The server is asked by an address or by this machine's names, so that no other name can be made to point at it.
    """

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        reason = self._reason(scope) if scope["type"] in ("http", "websocket") else ""
        if reason:
            await JSONResponse({"detail": reason}, 403)(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _reason(self, scope: Any) -> str:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        origin, host = headers.get("origin"), headers.get("host", "")
        if origin is not None and origin not in ORIGINS and urlsplit(origin).netloc != host:
            return f"Pages of {origin[:80]} may not use this server."
        if origin is None and headers.get("sec-fetch-site") == "cross-site" and scope["path"] != "/":
            return "Pages from elsewhere may not use this server."
        name = urlsplit(f"//{host}").hostname
        if name not in NAMES and not _is_address(name):
            return f"This server is not called {host[:80]}; it is {', '.join(sorted(NAMES))}, or ask it by its address."
        return ""


def _is_address(name: str | None) -> bool:
    try:
        return bool(ipaddress.ip_address(name or ""))
    except ValueError:
        return False


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    instance = app_instance()
    instance.server_mode(True)
    instance.on_init_complete()
    yield


async def not_there(request: Request, error: Any) -> JSONResponse:
    return JSONResponse({"detail": error.msg}, 404)


async def not_fulfilled(request: Request, error: Any) -> JSONResponse:
    return JSONResponse({"detail": getattr(error, "msg", None) or str(error) or type(error).__name__}, 400)


async def not_understood(request: Request, error: RequestValidationError) -> JSONResponse:
    said = [f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in error.errors()]
    return JSONResponse({"detail": "; ".join(said)}, 400)


async def failed(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": f"The server failed: {type(error).__name__}: {error}. Its log says where."}, 500)


def make_app() -> FastAPI:
    """The server's application."""
    cors = {"allow_origins": ORIGINS, "allow_credentials": True, "allow_methods": ["*"], "allow_headers": ["*"]}
    app = FastAPI(
        title=settings.MONAI_LABEL_PROJECT_NAME,
        docs_url="/",
        redoc_url="/docs",
        lifespan=lifespan,
        middleware=[Middleware(OneOrigin), Middleware(CORSMiddleware, **cors)],
        exception_handlers={
            ImageNotFoundException: not_there,
            LabelNotFoundException: not_there,
            FileNotFoundError: not_fulfilled,
            MONAILabelException: not_fulfilled,
            ValueError: not_fulfilled,
            AssertionError: not_fulfilled,  # MONAI Label's, such as for an empty archive
            RequestValidationError: not_understood,
            Exception: failed,
        },
    )
    app.include_router(endpoints.router, prefix=settings.MONAI_LABEL_API_STR)
    for module in LEFT:
        left = APIRouter()
        left.routes.extend(route for route in module.router.routes if route.methods <= READING)  # type: ignore[attr-defined]
        app.include_router(left, prefix=settings.MONAI_LABEL_API_STR)
    if settings.MONAI_LABEL_AUTH_ENABLE:
        app.include_router(login.router, prefix=settings.MONAI_LABEL_API_STR)
    logger.info("Pages that may use the server, beside its own: %s", json.dumps(ORIGINS))
    return app


app = make_app()
