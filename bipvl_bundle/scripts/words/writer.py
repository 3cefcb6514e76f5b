"""The command `write_concepts`: a concept table drafted by a language model."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from scripts.trust.parsing import check_keys
from scripts.words.chat import Chat, Conversation
from scripts.words.checks import check_text, tidy
from scripts.words.files import check_new_file, write_table
from scripts.words.prompts import LONGEST, checked, concept_prompt
from scripts.words.table import ConceptTable

_FORM = """
You are asked for one structure at a time. Answer with one JSON object and nothing else, its keys exactly {keys}, its \
values the sentences."""
_NEXT = """{known}Now describe: {name}"""
_KNOWN = """These are written already; repeat a sentence word for word where the next structure looks the same.
{rows}

"""
_AGAIN = "That cannot be used: {fault} Answer again, with the JSON object alone."
_NOTE = """Written by the language model {model} and read by nobody yet. Read every sentence, correct it, and set
`reviewed` to true once a reader with radiological training has done so."""
_QUOTED = 200  # characters of an answer that are quoted


def write_concepts(
    classes: Sequence[str],
    modality: str,
    output: str,
    model: str | None = None,
    *,
    concepts: Sequence[str] | None = None,
    base_url: str | None = None,
    timeout: float = 120.0,
    retries: int = 2,
    attempts: int = 3,
    json_mode: bool = True,
) -> None:
    """Draft a concept table by a language model at any OpenAI-compatible endpoint; it needs a review.

    The key is read from OPENAI_API_KEY only. There is one request per class, which shows the model the sentences
    written so far: left and right can then share a sentence, and a bad answer costs one request.

    Args:
        classes: names in label order, "spleen,left kidney" or a list
        modality: CT, MR, ...
        output: the table's file, which must not exist
        model: its name at the endpoint; by default OPENAI_MODEL
        concepts: names of the concepts; by default those of the paper
        base_url: URL of the endpoint, such as http://localhost:8000/v1; by default OPENAI_BASE_URL, else OpenAI's
        timeout: seconds to wait for each answer
        retries: repetitions of a request that failed on the way, with growing pauses
        attempts: answers to ask for per class if they cannot be used
        json_mode: ask the endpoint to enforce JSON; set False if it cannot

    Raises:
        ValueError: a name or a setting is missing or wrong, or the answer is no such table.
        OSError: the endpoint cannot be reached or answers with an error, or the file cannot be written.
        ImportError: the client library is not installed.
    """
    classes, modality, concepts = checked(classes, modality, concepts)
    if attempts < 1:
        raise ValueError(f"`attempts` must be at least 1, found {attempts}.")
    check_new_file(output)
    model = model or os.environ.get("OPENAI_MODEL")
    if not model:
        raise ValueError("No model is named: pass --model, or set OPENAI_MODEL.")
    chat = Chat(model, base_url, timeout=timeout, retries=retries, json_mode=json_mode)
    task = concept_prompt(classes, modality, concepts) + _FORM.format(keys=json.dumps(list(concepts)))
    rows: dict[str, tuple[str, ...]] = {}
    for name in tqdm(classes, desc=f"asking {' '.join(model.split())}", unit="class"):
        rows[name] = _ask(chat, task, name, rows, concepts, attempts)
    table = ConceptTable(modality, concepts, classes, tuple(rows.values()), reviewed=False)
    write_table(table, output, _NOTE.format(model=" ".join(model.split())))
    print(f"Wrote {output}: {len(classes)} classes, {len(concepts)} concepts, UNREVIEWED. Read it before you train.")


def _ask(
    chat: Chat,
    task: str,
    name: str,
    rows: dict[str, tuple[str, ...]],
    concepts: Sequence[str],
    attempts: int,
) -> tuple[str, ...]:
    """Ask for the sentences of one class, in the order of the concepts."""
    known = {class_name: dict(zip(concepts, row, strict=True)) for class_name, row in rows.items()}
    written = _KNOWN.format(rows=json.dumps(known, ensure_ascii=False, indent=1)) if known else ""
    talk: Conversation = [("system", task), ("user", _NEXT.format(known=written, name=name))]
    answer, fault = "", ""
    for _ in range(attempts):
        answer = chat.answer(talk, about=f"class '{name}'")
        try:
            return _read(answer, concepts)
        except ValueError as error:
            fault = str(error)
            talk += [("assistant", answer), ("user", _AGAIN.format(fault=fault))]
    raise ValueError(
        f"Class '{name}': {chat.model} at {chat.endpoint} gave {attempts} answer(s), none of which can be used. The "
        f"last: {fault} It begins: {answer[:_QUOTED]!r}. Nothing was written; try again, or another model."
    )


def _read(answer: str, concepts: Sequence[str]) -> tuple[str, ...]:
    """Read the sentences of an answer, ignoring a Markdown fence around the JSON."""
    text = answer.strip()
    if text.startswith("```") and text.endswith("```"):
        text = text.strip("`").removeprefix("json")
    try:
        content: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON ({error.msg} at character {error.pos}).") from error
    if not isinstance(content, dict):
        raise ValueError(f"it is JSON, but no object with the keys {', '.join(concepts)}.")
    check_keys(content, required=concepts, known=concepts, where="the object")
    sentences = tuple(tidy(content[concept]) for concept in concepts)
    for concept, sentence in zip(concepts, sentences, strict=True):
        check_text(sentence, f"the sentence under '{concept}'")
        if len(sentence.split()) > 2 * LONGEST:
            raise ValueError(
                f"the sentence under '{concept}' has {len(sentence.split())} words, twice the {LONGEST} asked for."
            )
    return sentences
