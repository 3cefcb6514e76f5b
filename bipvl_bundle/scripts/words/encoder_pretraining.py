"""Texts, tokenizer and training of the bundle's small text encoder."""

from __future__ import annotations

import random
import re
import string
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from tqdm.auto import tqdm
from transformers import BertForMaskedLM, BertTokenizer, DataCollatorForLanguageModeling

from scripts.words.table import FORMATS, ConceptTable

Example = dict[str, list[int]]

_SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_SIGNS = "\u2013\u2014\u2018\u2019\u201c\u201d\u00b0\u00b1\u00b2\u00b3\u00b5\u00d7"  # dashes, quotes, units
_CHARACTERS = sorted(set(string.ascii_lowercase + string.digits + string.punctuation + _SIGNS))
_HELD_OUT = 0.1
_WARM_UP = 0.1
_TEMPERATURE = 0.05
_CONTRAST_WEIGHT = 0.3


def all_texts(tables: Sequence[ConceptTable]) -> list[str]:
    """Return every different sentence of every table in every format."""
    texts = [text for table in tables for name in FORMATS for text in table.as_format(name).sentences_flat]
    return list(dict.fromkeys(texts))


def split_texts(tables: Sequence[ConceptTable], seed: int) -> tuple[list[str], list[str]]:
    """Return the texts to train on and the concept sentences held out.

    Sentences that differ by left and right alone stay together, and an aggregated sentence is trained on only
    where none of its parts is held out.
    """
    fixed = dict.fromkeys(sentence for table in tables for sentence in table.sentences_flat)
    groups = sorted({_sideless(sentence) for sentence in fixed})
    random.Random(seed).shuffle(groups)
    hidden = set(groups[: max(1, round(_HELD_OUT * len(groups)))])
    held_out = [sentence for sentence in fixed if _sideless(sentence) in hidden]
    train = [sentence for sentence in fixed if _sideless(sentence) not in hidden]
    for table in tables:
        train.extend(table.as_format("name").sentences_flat)
        for row, joined in zip(table.sentences, table.as_format("aggregated").sentences_flat, strict=True):
            if not any(_sideless(sentence) in hidden for sentence in row):
                train.append(joined)
    return list(dict.fromkeys(train)), held_out


def _sideless(sentence: str) -> str:
    return re.sub(r"\b(left|right)", "side", sentence.casefold())


def make_tokenizer(texts: Sequence[str], *, vocab_size: int, max_positions: int) -> BertTokenizer:
    """Train a lower-casing WordPiece tokenizer whose pieces include every printable ASCII character.

    Raises:
        ValueError: `vocab_size` leaves no room for the characters, or a text exceeds `max_positions`.
    """
    continuing = [f"##{character}" for character in _CHARACTERS]
    reserved = len(_SPECIAL_TOKENS) + len(_CHARACTERS) + len(continuing)
    if vocab_size < reserved:
        raise ValueError(f"vocab_size must be at least {reserved}, so many are characters; found {vocab_size}.")
    trained = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    trained.normalizer = normalizers.BertNormalizer(lowercase=True)
    trained.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    # Named as special tokens, the continuing characters are all present and their order, on which the trainer
    # breaks ties, is the same in every run.
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=[*_SPECIAL_TOKENS, *continuing],
        initial_alphabet=_CHARACTERS,
        show_progress=False,
    )
    trained.train_from_iterator(texts, trainer)
    tokenizer = BertTokenizer(vocab=trained.get_vocab(), do_lower_case=True, model_max_length=max_positions)
    lengths = {text: len(tokenizer.tokenize(text)) + 2 for text in texts}
    longest = max(texts, key=lambda text: lengths[text])
    if lengths[longest] > max_positions:
        raise ValueError(
            f"max_positions is {max_positions}, but this text has {lengths[longest]} word pieces: '{longest}'"
        )
    return tokenizer


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Context manager that sets one thread and a seed, and restores both at the end."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def pretrain(
    model: BertForMaskedLM,
    tokenizer: BertTokenizer,
    texts: Sequence[str],
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
) -> None:
    """Train by masked language modelling, and by [CLS] states that tell the texts of a batch apart.

    L = CE(masked word pieces) + 0.3 CE(cos(c_i, m_j) / 0.05, i), with c_i and m_i the [CLS] states of text i
    whole and masked.
    """
    collate = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15, seed=seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=learning_rate, total_steps=steps + 1, pct_start=_WARM_UP
    )
    batches = _batches([{"input_ids": ids} for ids in tokenizer(list(texts))["input_ids"]], batch_size, seed)
    model.train()
    progress = tqdm(range(steps), desc="text encoder", unit="step")
    for _ in progress:
        examples = next(batches)
        loss = _loss(model, collate(examples), dict(tokenizer.pad(examples, return_tensors="pt")))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)


def _loss(model: BertForMaskedLM, masked: dict[str, Tensor], whole: dict[str, Tensor]) -> Tensor:
    output = model(**masked, output_hidden_states=True)
    of_masked = F.normalize(output.hidden_states[-1][:, 0], dim=-1)  # B x D
    of_whole = F.normalize(model.bert(**whole).last_hidden_state[:, 0], dim=-1)  # B x D
    alike = of_whole @ of_masked.T / _TEMPERATURE  # B x B
    contrast = F.cross_entropy(alike, torch.arange(len(alike)))
    loss: Tensor = output.loss + _CONTRAST_WEIGHT * contrast
    return loss


def _batches(examples: Sequence[Example], batch_size: int, seed: int) -> Iterator[list[Example]]:
    """Yield endless batches of texts of similar length, so that little is padding."""
    generator = random.Random(seed)
    while True:
        drawn = sorted(generator.sample(examples, len(examples)), key=lambda example: len(example["input_ids"]))
        starts = list(range(0, len(drawn), batch_size))
        generator.shuffle(starts)
        for start in starts:
            yield drawn[start : start + batch_size]


@torch.no_grad()
def masked_accuracy(model: BertForMaskedLM, tokenizer: BertTokenizer, sentences: Sequence[str]) -> float:
    """Return the fraction of word pieces that are predicted when each is masked alone."""
    model.eval()
    right = total = 0
    for sentence in sentences:
        ids: Tensor = tokenizer(sentence, return_tensors="pt")["input_ids"][0]  # L
        places = torch.arange(1, len(ids) - 1)
        rows = torch.arange(len(places))
        masked = ids.repeat(len(places), 1)  # L-2 x L
        masked[rows, places] = tokenizer.mask_token_id
        answers = model(input_ids=masked).logits[rows, places].argmax(dim=-1)
        right += int((answers == ids[places]).sum())
        total += len(places)
    return right / total


def most_frequent_accuracy(tokenizer: BertTokenizer, train: Sequence[str], held_out: Sequence[str]) -> float:
    """Return the accuracy of always predicting the most frequent word piece of the training texts."""
    piece = Counter(piece for text in train for piece in tokenizer.tokenize(text)).most_common(1)[0][0]
    pieces = [piece for text in held_out for piece in tokenizer.tokenize(text)]
    return pieces.count(piece) / len(pieces)


@torch.no_grad()
def sentence_likeness(model: BertForMaskedLM, tokenizer: BertTokenizer, sentences: Sequence[str]) -> float:
    """Return the mean cosine between [CLS] states of different sentences; 1 if nothing tells them apart."""
    model.eval()
    states = model.bert(**tokenizer(list(sentences), padding=True, return_tensors="pt")).last_hidden_state[:, 0]
    states = F.normalize(states, dim=-1)  # S x D
    others = ~torch.eye(len(states), dtype=torch.bool)
    return float((states @ states.T)[others].mean())
