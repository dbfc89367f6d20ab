"""Tokenizer folders as Hugging Face ships them: reading four formats, writing one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from nacre.data import sentencepiece
from nacre.data.tokenizer_style import ROLES, STYLES, WELL_KNOWN, sentinels
from nacre.data.tokenizer_train import frame
from nacre.errors import CheckpointError

Read = tuple[Tokenizer, dict[str, str], dict[str, Any]]

# How Qwen2 cuts words before its merges (transformers, models/qwen2/tokenization_qwen2.py).
QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
ANY_FAST = "PreTrainedTokenizerFast"


def read_folder(path: Path) -> Read:
    """The library tokenizer, the roles of its special tokens, and its `tokenizer_config.json`.

    `path` is a folder, or the one file in it that holds the vocabulary. Raises CheckpointError.
    """
    folder = path if path.is_dir() else path.parent
    if not path.exists():
        raise CheckpointError(f"there is no tokenizer at {path}", remedy="check the path")
    settings = _read_json(folder / "tokenizer_config.json")
    for names, reader in READERS.items():
        found = [folder / name for name in names]
        if path.is_file() and path not in found and len(names) == 1 and path.suffix == found[0].suffix:
            found = [path]  # the one file under a name of its own
        if all(file.is_file() for file in found) and (path.is_dir() or path in found):
            try:
                raw = reader(found, settings)
            except (CheckpointError, MemoryError):
                raise
            except Exception as error:  # the library raises bare Exception for any damaged file
                raise CheckpointError(
                    f"{found[0]} is damaged or of an unknown format: {error}", remedy="copy it again from its source"
                ) from error
            _declare(raw, settings)
            if "tokenizer.json" not in names:
                settings = {**settings, "tokenizer_class": ANY_FAST}
            return raw, _roles(raw, folder, settings), settings
    known = "; ".join(" + ".join(names) for names in READERS)
    raise CheckpointError(f"{path} holds no tokenizer of a known format", remedy=f"expected one of: {known}")


def write_folder(folder: Path, raw: Tokenizer, roles: Mapping[str, str], settings: Mapping[str, Any]) -> None:
    """Writes tokenizer.json, tokenizer_config.json and special_tokens_map.json, each by rename."""
    folder.mkdir(parents=True, exist_ok=True)
    named = {f"{role}_token": roles[role] for role in ROLES if role in roles}
    config = {"tokenizer_class": ANY_FAST, "clean_up_tokenization_spaces": False, **settings, **named}
    _write(folder / "tokenizer.json", raw.to_str(pretty=True))
    _write(folder / "tokenizer_config.json", _dump(config))
    _write(folder / "special_tokens_map.json", _dump(named))


def _from_json(files: list[Path], settings: Mapping[str, Any]) -> Tokenizer:
    return Tokenizer.from_file(str(files[0]))


def _from_vocab_txt(files: list[Path], settings: Mapping[str, Any]) -> Tokenizer:
    """BERT WordPiece. Without a tokenizer_config.json text is lowered, as `transformers` does by default."""
    lines = files[0].read_text(encoding="utf-8").split("\n")
    tokens = lines[:-1] if lines and not lines[-1] else lines
    vocab = {token.rstrip("\r"): index for index, token in enumerate(tokens)}
    unk = _content(settings.get("unk_token")) or "[UNK]"
    if unk not in vocab:
        raise CheckpointError(f"{files[0]} has no unknown token {unk!r}", remedy="is this a BERT vocabulary?")
    raw = Tokenizer(models.WordPiece(vocab, unk_token=unk, max_input_chars_per_word=100))
    raw.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=settings.get("do_lower_case", True),
    )
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.decoder = decoders.WordPiece(prefix="##")
    style = STYLES["bert"]
    present = [token for token in style.tokens if token in vocab]
    raw.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in present])
    if {"[CLS]", "[SEP]"} <= set(present):
        frame(raw, style)
    return raw


def _from_merges(files: list[Path], settings: Mapping[str, Any]) -> Tokenizer:
    """Byte-level BPE of GPT-2, RoBERTa or Qwen2, told apart by `tokenizer_class`; GPT-2 where nothing is said."""
    name = str(settings.get("tokenizer_class", "GPT2Tokenizer")).removesuffix("Fast")
    if name not in ("GPT2Tokenizer", "Qwen2Tokenizer", "RobertaTokenizer", "PreTrainedTokenizer"):
        raise CheckpointError(
            f"{files[0].parent} holds a vocabulary with merges for {name}, whose word splitting is not known here",
            remedy="save it with transformers, which writes a tokenizer.json",
        )
    raw = Tokenizer(models.BPE.from_file(str(files[0]), str(files[1])))
    blank = bool(settings.get("add_prefix_space", False))
    raw.decoder = decoders.ByteLevel()
    if name == "Qwen2Tokenizer":
        raw.normalizer = normalizers.NFC()
        raw.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(QWEN2_WORDS), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=blank, use_regex=False),
            ]
        )
        return raw
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=blank, use_regex=True)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"] if name == "RobertaTokenizer" else ["<|endoftext|>"]
    present = [token for token in special if raw.token_to_id(token) is not None]
    raw.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in present])
    if name == "RobertaTokenizer":
        frame(raw, STYLES["roberta"])
    return raw


def _from_sentencepiece(files: list[Path], settings: Mapping[str, Any]) -> Tokenizer:
    """Framed as the family that the pieces or `tokenizer_class` tell: T5, XLNet, or Llama for BPE."""
    model = sentencepiece.read_model(files[0])
    raw = sentencepiece.to_tokenizer(model, files[0])
    first = [text for text, _, _ in model.pieces[:3]]
    if first == ["<pad>", "</s>", "<unk>"]:
        count = int(settings.get("extra_ids", 100))
        absent = [token for token in sentinels(count) if raw.token_to_id(token) is None]
        raw.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in absent])
        frame(raw, STYLES["t5"])
    elif raw.token_to_id("<cls>") is not None and raw.token_to_id("<sep>") is not None:
        ids = [(token, raw.token_to_id(token)) for token in ("<sep>", "<cls>")]
        raw.post_processor = processors.TemplateProcessing(
            single="$A:0 <sep>:0 <cls>:2", pair="$A:0 <sep>:0 $B:1 <sep>:1 <cls>:2", special_tokens=ids
        )
    elif model.model_type == sentencepiece.BPE and first[1:] == ["<s>", "</s>"]:
        _bos_eos(raw, bos=bool(settings.get("add_bos_token", True)), eos=bool(settings.get("add_eos_token", False)))
    return raw


def _bos_eos(raw: Tokenizer, *, bos: bool, eos: bool) -> None:
    before, after = ("<s>:0 " if bos else ""), (" </s>:0" if eos else "")
    if bos or eos:
        raw.post_processor = processors.TemplateProcessing(
            single=f"{before}$A:0{after}",
            pair=f"{before}$A:0{after} {before.replace(':0', ':1')}$B:1{after.replace(':0', ':1')}",
            special_tokens=[(token, raw.token_to_id(token)) for token in ("<s>", "</s>")],
        )


Reader = Callable[[list[Path], Mapping[str, Any]], Tokenizer]
# Files of a format -> its reader; the first that is complete wins.
READERS: dict[tuple[str, ...], Reader] = {
    ("tokenizer.json",): _from_json,
    ("vocab.json", "merges.txt"): _from_merges,
    ("encoder.json", "vocab.bpe"): _from_merges,
    ("vocab.txt",): _from_vocab_txt,
    ("spiece.model",): _from_sentencepiece,
    ("tokenizer.model",): _from_sentencepiece,
    ("sentencepiece.bpe.model",): _from_sentencepiece,
}


def _declare(raw: Tokenizer, settings: Mapping[str, Any]) -> None:
    """Adds the tokens of `added_tokens_decoder` that the vocabulary lacks, and holds them to their declared ids."""
    declared = settings.get("added_tokens_decoder") or {}
    for index, entry in sorted(((int(key), value) for key, value in declared.items()), key=lambda item: item[0]):
        options = {key: entry[key] for key in ("lstrip", "rstrip", "single_word", "normalized") if key in entry}
        special = bool(entry.get("special", False))
        token = AddedToken(entry["content"], special=special, **options)
        (raw.add_special_tokens if special else raw.add_tokens)([token])
        if raw.token_to_id(entry["content"]) != index:
            raise CheckpointError(
                f"tokenizer_config.json gives {entry['content']!r} id {index}, the vocabulary "
                f"{raw.token_to_id(entry['content'])}",
                remedy="the two files belong to different tokenizers: copy both from one source",
            )


def _roles(raw: Tokenizer, folder: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    """Role -> token: what the config files say; where they say nothing at all, the well-known spellings."""
    said = {**_read_json(folder / "special_tokens_map.json"), **settings}
    if any(f"{role}_token" in said for role in ROLES):
        return {role: token for role in ROLES if (token := _content(said.get(f"{role}_token")))}
    roles = {}
    for role, spellings in WELL_KNOWN.items():
        match = next((token for token in spellings if raw.token_to_id(token) is not None), None)
        if match is not None:
            roles[role] = match
    if roles.get("eos") == "<|endoftext|>":
        roles.setdefault("bos", "<|endoftext|>")
    return roles


def _content(token: Any) -> str | None:
    """A special token is written as a string or as an AddedToken object."""
    if isinstance(token, Mapping):
        token = token.get("content")
    return token if isinstance(token, str) else None


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}", remedy="copy it again from its source") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds no object", remedy="copy it again from its source")
    return value


def _dump(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True) + "\n"


def _write(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
