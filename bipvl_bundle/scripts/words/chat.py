"""Client of the Chat Completions protocol, with errors that name their cause."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit, urlunsplit

Conversation = list[tuple[str, str]]  # role ("system", "user", "assistant") and text

_ADVICE = {
    400: "It may not know the model, or JSON mode: then pass --json_mode False.",
    401: "Check OPENAI_API_KEY.",
    403: "Check OPENAI_API_KEY and what it allows.",
    404: "Check the base URL, which usually ends in /v1, and the name of the model.",
    429: "Wait, or check the quota of the account.",
}
_QUOTED = 300  # characters of an endpoint's message that are quoted


class Chat:
    """A model at an OpenAI-compatible endpoint, used through the official client.

    Args:
        model: its name at the endpoint.
        base_url: of the endpoint; OPENAI_BASE_URL or else OpenAI's own if None.
        timeout: seconds to wait for an answer.
        retries: of a request that failed on the way (connection, 408, 409, 429, 5xx), by the client.
        json_mode: whether the endpoint is asked to answer in JSON.

    Raises:
        ValueError: OPENAI_API_KEY is not set, or the base URL is none.
        ImportError: the client library is not installed.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        *,
        timeout: float = 120.0,
        retries: int = 2,
        json_mode: bool = True,
    ) -> None:
        self._api = _client_library()
        self._key = os.environ.get("OPENAI_API_KEY", "")
        if not self._key:
            raise ValueError(
                "OPENAI_API_KEY is not set. Set it to the key of the endpoint, or to any word where none is needed."
            )
        self.model = model
        self.json_mode = json_mode
        url = base_url or os.environ.get("OPENAI_BASE_URL") or None
        if url is not None and urlsplit(url).scheme not in ("http", "https"):
            raise ValueError(f"The base URL {url!r} must begin with http:// or https://, as http://localhost:8000/v1.")
        self._client = self._api.OpenAI(api_key=self._key, base_url=url, timeout=timeout, max_retries=retries)
        self._timeout = timeout
        self.endpoint = _without_user(str(self._client.base_url))

    def answer(self, talk: Conversation, about: str) -> str:
        """Return the model's next text in a conversation.

        Args:
            talk: what was said.
            about: what the question is about, for error messages.

        Raises:
            TimeoutError: no answer in time.
            ConnectionError: the endpoint cannot be reached, or answers with an HTTP error.
            ValueError: it answers, but not by the protocol, or refuses, or stops before the end.
        """
        options: dict[str, Any] = {"response_format": {"type": "json_object"}} if self.json_mode else {}
        messages: Any = [{"role": role, "content": text} for role, text in talk]
        where = f"{about}: {self.model} at {self.endpoint}"
        try:
            reply = self._client.chat.completions.create(model=self.model, messages=messages, **options)
        except self._api.APITimeoutError as error:
            raise TimeoutError(f"{where} did not answer within {self._timeout:g} s; raise --timeout.") from error
        except self._api.APIStatusError as error:
            advice = _ADVICE.get(error.status_code, "")
            quote = self._quote(error.message)
            # Not from the error: a traceback would show its text, and with it what an endpoint echoes of the key.
            raise ConnectionError(f"{where} answers HTTP {error.status_code} ({quote}). {advice}".rstrip()) from None
        except self._api.APIConnectionError as error:
            cause = self._quote(str(error.__cause__ or error))
            raise ConnectionError(f"{where} cannot be reached ({cause}). Check base URL and network.") from error
        except (self._api.APIError, ValueError) as error:
            raise ValueError(f"{where} does not speak the protocol: {self._quote(str(error))}") from None
        return self._text(reply, where)

    def _text(self, reply: Any, where: str) -> str:
        try:
            choice = reply.choices[0]
            message, reason = choice.message, choice.finish_reason
            refusal, content = getattr(message, "refusal", None), message.content
        except (AttributeError, IndexError, TypeError):
            raise ValueError(f"{where} does not speak the protocol; it sent: {self._quote(str(reply))}") from None
        if refusal:
            raise ValueError(f"{where} refuses: {self._quote(refusal)}")
        if reason == "content_filter":
            raise ValueError(f"{where} refuses: its content filter stopped the answer.")
        if reason == "length":
            raise ValueError(
                f"{where} stopped before the end of its answer (it began: {self._quote(content)}), at its limit of "
                "tokens. Raise the limit at the endpoint, or take another model."
            )
        if not isinstance(content, str) or not content.strip():
            raise ValueError(f"{where} sent an empty answer.")
        return content

    def _quote(self, text: Any) -> str:
        """Shorten a text from outside to one line without the key."""
        line = " ".join(str(text).split()).replace(self._key, "***")
        return line if len(line) <= _QUOTED else f"{line[:_QUOTED]}..."


def _client_library() -> Any:
    try:
        import openai
    except ImportError as error:
        raise ImportError(
            "This needs the client library `openai`, which is no part of the bundle's requirements: pip install openai"
        ) from error
    return openai


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
