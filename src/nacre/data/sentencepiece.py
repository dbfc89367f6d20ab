"""SentencePiece models (`spiece.model`, `tokenizer.model`) read without the sentencepiece or protobuf packages.

The file is one protocol-buffer message, `sentencepiece_model.proto`; the few fields that decide ids are read here
from the wire format (https://protobuf.dev/programming-guides/encoding/).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from nacre.errors import CheckpointError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
UNIGRAM, BPE = 1, 2
META = "▁"


@dataclass
class SentencePieceModel:
    """What a model file says: pieces as (text, score, type), and how text is prepared."""

    pieces: list[tuple[str, float, int]] = field(default_factory=list)
    model_type: int = UNIGRAM
    unk_id: int = 0
    byte_fallback: bool = False
    charsmap: bytes = b""
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True


def read_model(path: Path) -> SentencePieceModel:
    """Reads a SentencePiece model file. Raises CheckpointError where it is damaged."""
    model = SentencePieceModel()
    try:
        for number, value in _fields(path.read_bytes()):
            if number == 1:
                model.pieces.append(_piece(_bytes(value)))
            elif number == 2:
                _trainer(model, _bytes(value))
            elif number == 3:
                _normalizer(model, _bytes(value))
    except (IndexError, ValueError, struct.error) as error:
        raise CheckpointError(
            f"{path} is no SentencePiece model or is damaged: {error}", remedy="copy the file again from its source"
        ) from error
    if not model.pieces:
        raise CheckpointError(f"{path} holds no pieces", remedy="copy the file again from its source")
    return model


def to_tokenizer(model: SentencePieceModel, path: Path) -> Tokenizer:
    """The same segmentation in the `tokenizers` library; control and user-defined pieces become added tokens."""
    if model.model_type == UNIGRAM:
        vocab = [(text, score) for text, score, _ in model.pieces]
        raw = Tokenizer(models.Unigram(vocab, model.unk_id, model.byte_fallback))
    elif model.model_type == BPE:
        ids = {text: index for index, (text, _, _) in enumerate(model.pieces)}
        unk = model.pieces[model.unk_id][0]
        raw = Tokenizer(
            models.BPE(ids, _merges(model), unk_token=unk, fuse_unk=True, byte_fallback=model.byte_fallback)
        )
    else:
        raise CheckpointError(
            f"{path} is a SentencePiece model of type {model.model_type}; only unigram and BPE are supported",
            remedy="convert it to tokenizer.json with the project that trained it",
        )
    _prepare(raw, model)
    for text, _, kind in model.pieces:
        if kind in (CONTROL, USER_DEFINED):
            token = AddedToken(text, normalized=False, special=kind == CONTROL)
            (raw.add_special_tokens if kind == CONTROL else raw.add_tokens)([token])
    return raw


def _prepare(raw: Tokenizer, model: SentencePieceModel) -> None:
    """Normalizer, pre-tokenizer and decoder."""
    steps: list[normalizers.Normalizer] = []
    if model.charsmap:
        steps.append(normalizers.Precompiled(model.charsmap))
    if model.remove_extra_whitespaces:
        steps += _fewer_blanks(model)
    if model.model_type == UNIGRAM:
        # Only at the start: user-defined pieces cut the text, and no blank precedes what follows them.
        scheme = "first" if model.add_dummy_prefix else "never"
        raw.pre_tokenizer = pre_tokenizers.Metaspace(replacement=META, prepend_scheme=scheme)
    else:
        if model.add_dummy_prefix:
            steps.append(normalizers.Prepend(META))
        steps.append(normalizers.Replace(" ", META))
    if steps:
        raw.normalizer = normalizers.Sequence(steps)
    undo: list[decoders.Decoder] = [decoders.Replace(META, " "), decoders.ByteFallback(), decoders.Fuse()]
    if model.add_dummy_prefix:
        undo.append(decoders.Strip(content=" ", left=1, right=0))
    raw.decoder = decoders.Sequence(undo)


def _fewer_blanks(model: SentencePieceModel) -> list[normalizers.Normalizer]:
    """What `remove_extra_whitespaces` does, as far as it can be said for the parts between added tokens.

    The library normalises those parts one by one, so a blank before a user-defined piece would be taken for the end of
    the text: where there are such pieces, the end is left alone. Metaspace merges leading blanks with its own.
    """
    steps: list[normalizers.Normalizer] = [normalizers.Replace(Regex(" {2,}"), " ")]
    if model.model_type == BPE or not model.add_dummy_prefix:
        steps.append(normalizers.Replace(Regex("^ +"), ""))
    if all(kind != USER_DEFINED for _, _, kind in model.pieces):
        steps.append(normalizers.Replace(Regex(" +$"), ""))
    return steps


def _merges(model: SentencePieceModel) -> list[tuple[str, str]]:
    """Merges that rebuild every piece from two others, best score first (the file stores scores, not merges)."""
    ids = {text: index for index, (text, _, _) in enumerate(model.pieces)}
    merges: list[tuple[float, int, int, int, tuple[str, str]]] = []
    for order, (text, score, kind) in enumerate(model.pieces):
        if kind not in (NORMAL, UNUSED, USER_DEFINED):
            continue
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in ids and right in ids:
                merges.append((-score, order, ids[left], ids[right], (left, right)))
    merges.sort()
    return [pair for *_, pair in merges]


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Field numbers and raw values of one message: an int for varints, bytes for everything else."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if at + size > len(data):
            raise ValueError(f"the file ends inside field {number}")
        yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _bytes(value: bytes | int) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number stands where a message is due")
    return value


def _signed(value: bytes | int) -> int:
    """An int32 field: negative numbers are stored as 64-bit two's complement."""
    number = int(value)
    return number - (1 << 64) if number >> 63 else number


def _piece(data: bytes) -> tuple[str, float, int]:
    text, score, kind = "", 0.0, NORMAL
    for number, value in _fields(data):
        if number == 1:
            text = _bytes(value).decode("utf-8")
        elif number == 2:
            score = struct.unpack("<f", _bytes(value))[0]
        elif number == 3:
            kind = int(value)
    return text, score, kind


def _trainer(model: SentencePieceModel, data: bytes) -> None:
    for number, value in _fields(data):
        if number == 3:
            model.model_type = int(value)
        elif number == 35:
            model.byte_fallback = bool(value)
        elif number == 40:
            model.unk_id = _signed(value)


def _normalizer(model: SentencePieceModel, data: bytes) -> None:
    for number, value in _fields(data):
        if number == 2:
            model.charsmap = _bytes(value)
        elif number == 3:
            model.add_dummy_prefix = bool(value)
        elif number == 4:
            model.remove_extra_whitespaces = bool(value)
