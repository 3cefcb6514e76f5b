"""Concept tables from a language model, against a local server that speaks the protocol, badly where asked."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.words.chat import Chat
from scripts.words.table import ConceptTable
from scripts.words.writer import write_concepts

KEY = "sk-very-secret-0123"
CLASSES = ["right kidney", "left kidney", "liver"]
GOOD = {"shape": "A bean.", "location": "Beside  the spine."}


def completion(content: str | None, reason: str = "stop", **message: Any) -> dict[str, Any]:
    choice = {
        "index": 0,
        "finish_reason": reason,
        "message": {"role": "assistant", "content": content, **message},
    }
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "small", "choices": [choice]}


class Server:
    """Answers the n-th request with the n-th reply, and the rest with the last; keeps what was asked.

    A reply is the body (a dictionary, or text sent as it is), or (status, body), or a function to call first.
    """

    def __init__(self) -> None:
        self.replies: list[Any] = [completion(json.dumps(GOOD))]
        self.requests: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.keys: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.paths.append(self.path)
                outer.keys.append(self.headers["Authorization"])
                outer.requests.append(json.loads(body))
                reply = outer.replies[min(len(outer.requests), len(outer.replies)) - 1]
                status, content = reply if isinstance(reply, tuple) else (200, reply)
                if callable(content):
                    content = content()
                text = content if isinstance(content, str) else json.dumps(content)
                self.send_response(status)
                self.send_header("Content-Type", "text/html" if text.startswith("<") else "application/json")
                self.send_header("Content-Length", str(len(text.encode())))
                self.send_header("retry-after-ms", "1")
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: Any) -> None:
                pass

        class QuietServer(ThreadingHTTPServer):
            def handle_error(self, *_: Any) -> None:
                """A client that gave up is what one of the tests is about."""

        self.http = QuietServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def said(self, request: int, role: str) -> list[str]:
        return [m["content"] for m in self.requests[request]["messages"] if m["role"] == role]


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    thread = threading.Thread(target=running.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield running
    running.http.shutdown()
    running.http.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_MODEL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def write(server: Server, tmp_path: Path) -> Callable[..., Path]:
    """Ask the server for a table of the three classes, without the client's own retries."""

    def ask(**options: Any) -> Path:
        path = tmp_path / "organs.yaml"
        arguments = {"model": "small", "base_url": server.url, "concepts": list(GOOD), "retries": 0, **options}
        write_concepts(CLASSES, "CT", str(path), **arguments)
        return path

    return ask


class TestGoodAnswers:
    def test_the_table_is_written_unreviewed_and_reads_back_equal(self, write: Callable[..., Path]) -> None:
        path = write()
        table = ConceptTable.load(path)
        assert (table.modality, table.classes, table.concepts) == ("CT", tuple(CLASSES), tuple(GOOD))
        assert table.sentences == (("A bean.", "Beside the spine."),) * 3
        assert yaml.safe_load(path.read_text())["reviewed"] is False
        assert path.read_text().startswith("# Written by the language model small and read by nobody yet.")
        assert [p.name for p in path.parent.iterdir()] == ["organs.yaml"]

    def test_one_class_a_request_that_shows_what_was_written_before(
        self, write: Callable[..., Path], server: Server
    ) -> None:
        write()
        assert len(server.requests) == 3
        assert set(server.paths) == {"/v1/chat/completions"}
        for number, name in enumerate(CLASSES):
            (task,), (question,) = server.said(number, "system"), server.said(number, "user")
            assert "right kidney, left kidney, liver" in task
            assert '["shape", "location"]' in task
            assert question.endswith(f"Now describe: {name}")
            assert [f'"{label}"' in question for label in CLASSES] == [n < number for n in range(3)]
        assert server.requests[0]["model"] == "small"
        assert server.requests[0]["response_format"] == {"type": "json_object"}

    def test_progress_and_what_to_do_are_shown(
        self, write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = write()
        shown = capsys.readouterr()
        assert "asking small" in shown.err
        assert "3/3" in shown.err
        assert f"Wrote {path}: 3 classes, 2 concepts, UNREVIEWED" in shown.out

    def test_the_environment_names_endpoint_model_and_key(
        self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_MODEL", "from the environment")
        write_concepts("liver", "CT", str(tmp_path / "t.yaml"), concepts="shape,location")
        assert server.requests[0]["model"] == "from the environment"
        assert server.keys == [f"Bearer {KEY}"]

    def test_arguments_outweigh_the_environment(
        self, write: Callable[..., Path], server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
        monkeypatch.setenv("OPENAI_MODEL", "other")
        write()
        assert server.requests[0]["model"] == "small"

    def test_json_mode_can_be_left_out(self, write: Callable[..., Path], server: Server) -> None:
        write(json_mode=False)
        assert "response_format" not in server.requests[0]

    def test_a_fence_around_the_json_is_let_pass(self, write: Callable[..., Path], server: Server) -> None:
        server.replies = [completion(f"```json\n{json.dumps(GOOD)}\n```\n")]
        assert ConceptTable.load(write()).sentences[0][0] == "A bean."

    def test_a_request_that_fails_on_the_way_is_repeated(self, write: Callable[..., Path], server: Server) -> None:
        server.replies = [(500, "{}"), (429, "{}"), completion(json.dumps(GOOD))]
        write(retries=2)
        assert len(server.requests) == 5


class TestMalformedAnswers:
    @pytest.mark.parametrize(
        ("content", "fault"),
        [
            ("The kidney is a bean.", r"it is not JSON \(Expecting value at character 0\)"),
            (json.dumps([GOOD]), "no object with the keys shape, location"),
            (json.dumps({"shape": "A bean."}), "the object lacks 'location'"),
            (json.dumps({**GOOD, "colour": "Red."}), "unknown key 'colour'"),
            (json.dumps({**GOOD, "shape": ""}), "the sentence under 'shape' is empty"),
            (json.dumps({**GOOD, "shape": ["A bean."]}), "the sentence under 'shape' must be text"),
            (json.dumps({**GOOD, "shape": "word " * 51}), "has 51 words, twice the 25 asked for"),
        ],
    )
    def test_after_the_last_attempt_the_class_the_fault_and_the_answer_are_reported(
        self, write: Callable[..., Path], server: Server, tmp_path: Path, content: str, fault: str
    ) -> None:
        server.replies = [completion(content)]
        with pytest.raises(ValueError, match=fault) as raised:
            write(attempts=2)
        message = str(raised.value)
        assert message.startswith(f"Class 'right kidney': small at {server.url}")
        assert f"It begins: {content[:200]!r}" in message
        assert "Nothing was written" in message
        assert len(server.requests) == 2
        assert list(tmp_path.iterdir()) == []

    def test_the_fault_is_reported_to_the_model_and_the_next_answer_taken(
        self, write: Callable[..., Path], server: Server
    ) -> None:
        server.replies = [completion("no"), completion(json.dumps(GOOD))]
        write()
        assert len(server.requests) == 4
        assert server.said(1, "assistant") == ["no"]
        assert server.said(1, "user")[-1].startswith("That cannot be used: it is not JSON")
        assert server.said(2, "assistant") == []


class TestFailures:
    @pytest.mark.parametrize(
        ("reply", "kind", "message"),
        [
            (
                (401, {"error": {"message": f"bad key {KEY}"}}),
                ConnectionError,
                r"HTTP 401 \(.*\)\. Check OPENAI",
            ),
            (
                (404, {"error": {"message": "no such model"}}),
                ConnectionError,
                r"HTTP 404 \(.*such model.*\)\. .*/v1",
            ),
            ((429, {"error": {"message": "too many"}}), ConnectionError, r"HTTP 429 \(.*too many.*\)\. .* quota"),
            ((500, "oh"), ConnectionError, r"HTTP 500"),
            (
                (400, {"error": {"message": "response_format"}}),
                ConnectionError,
                r"HTTP 400 \(.*\)\. .*--json_mode",
            ),
            (completion(None, refusal="I would rather not."), ValueError, r"refuses: I would rather not"),
            (completion("", "content_filter"), ValueError, r"refuses: its content filter"),
            (completion('{"shape": "A be', "length"), ValueError, r'before the end .*it began: \{"shape": "A be\)'),
            (completion(""), ValueError, r"sent an empty answer"),
            (completion(None), ValueError, r"sent an empty answer"),
            ({"id": "1", "choices": []}, ValueError, r"does not speak the protocol; it sent"),
            ({"hello": "world"}, ValueError, r"does not speak the protocol; it sent"),
            ({"choices": [{"message": None}]}, ValueError, r"does not speak the protocol; it sent"),
            ("<html>Login</html>", ValueError, r"does not speak the protocol; it sent: <html>Login"),
            ('{"choices": [', ValueError, r"does not speak the protocol"),
            ("[]", ValueError, r"does not speak the protocol"),
        ],
    )
    def test_is_told_at_once_with_class_model_and_endpoint(
        self,
        write: Callable[..., Path],
        server: Server,
        tmp_path: Path,
        reply: Any,
        kind: type[Exception],
        message: str,
    ) -> None:
        server.replies = [reply]
        with pytest.raises(kind, match=message) as raised:
            write()
        assert f"class 'right kidney': small at {server.url}" in str(raised.value)
        assert len(server.requests) == 1
        assert list(tmp_path.iterdir()) == []

    def test_the_key_is_never_shown(self, write: Callable[..., Path], server: Server) -> None:
        server.replies = [(401, {"error": {"message": f"bad key {KEY}"}})]
        with pytest.raises(ConnectionError, match=r"bad key \*\*\*") as raised:
            write()
        assert KEY not in str(raised.value)
        assert raised.value.__suppress_context__

    def test_a_late_failure_writes_nothing_either(
        self, write: Callable[..., Path], server: Server, tmp_path: Path
    ) -> None:
        server.replies = [completion(json.dumps(GOOD)), completion(json.dumps(GOOD)), (500, "{}")]
        with pytest.raises(ConnectionError, match="class 'liver'"):
            write()
        assert list(tmp_path.iterdir()) == []

    def test_no_answer_in_time(self, write: Callable[..., Path], server: Server, tmp_path: Path) -> None:
        released = threading.Event()
        server.replies = [lambda: released.wait(5) and {}]
        begun = time.monotonic()
        with pytest.raises(TimeoutError, match=r"small at http.* did not answer within 0\.2 s; raise --timeout"):
            write(timeout=0.2)
        assert time.monotonic() - begun < 3
        released.set()
        assert list(tmp_path.iterdir()) == []

    def test_nobody_listens(self, write: Callable[..., Path], tmp_path: Path) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        with pytest.raises(ConnectionError, match=rf"small at {url}/ cannot be reached \(.*\)\. Check base URL"):
            write(base_url=url)
        assert list(tmp_path.iterdir()) == []

    def test_a_password_in_the_url_is_not_shown(self) -> None:
        assert Chat("small", "http://me:secret@localhost:1/v1").endpoint == "http://localhost:1/v1/"


class TestBeforeAnythingIsAsked:
    def test_an_existing_file_is_not_overwritten(
        self, write: Callable[..., Path], server: Server, tmp_path: Path
    ) -> None:
        (tmp_path / "organs.yaml").write_text("mine")
        with pytest.raises(FileExistsError, match=r"organs\.yaml exists and is not overwritten"):
            write()
        assert (tmp_path / "organs.yaml").read_text() == "mine"
        assert server.requests == []

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"model": None}, r"No model is named: pass --model, or set OPENAI_MODEL"),
            ({"base_url": "localhost:8000"}, r"base URL 'localhost:8000' must begin with http"),
            ({"attempts": 0}, r"`attempts` must be at least 1, found 0"),
            ({"concepts": ["name"]}, r"'name' is a key of the class itself"),
        ],
    )
    def test_a_wrong_setting_is_reported(
        self, write: Callable[..., Path], server: Server, options: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            write(**options)
        assert server.requests == []

    def test_a_key_is_needed(self, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("OPENAI_API_KEY")
        with pytest.raises(ValueError, match=r"OPENAI_API_KEY is not set\. .* any word where none is needed"):
            write()

    def test_the_client_library_is_needed(self, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "openai", None)
        with pytest.raises(ImportError, match=r"client library `openai`.*: pip install openai"):
            write()
