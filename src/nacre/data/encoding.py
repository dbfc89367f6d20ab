"""Which encoding a text file is in: decided from the whole file in one streaming pass, and never by guessing silently.

UTF-8 (with or without a byte order mark), UTF-16 with a byte order mark, and GB18030 (which contains GBK and GB2312).
"""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from nacre.errors import DataError

CHUNK = 1 << 20
WINDOW = 1 << 16
# Of the characters beyond ASCII, the share that must lie in GB2312 (common characters) to believe in GB18030.
# Latin-1 text that happens to decode as GB18030 has next to none; traditional characters in GBK still reach it.
COMMON_SHARE = 0.3
# Frequent in every Chinese text, in simplified and traditional writing alike.
COMMONEST = frozenset("的一是不了在人有我他大上中到小也子就你可下生好自用天出以那之家心都如同，。")


@dataclass(frozen=True)
class Encoding:
    """A Python codec name and the number of bytes of the byte order mark to skip."""

    codec: str
    skip: int = 0

    def __str__(self) -> str:
        return f"{self.codec} with byte order mark" if self.skip else self.codec


# UTF-32 stands before UTF-16: its little-endian mark begins with the one of UTF-16.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def open_bytes(path: Path) -> IO[bytes]:
    """Opens a file for reading bytes, through gzip when its name ends in .gz. Raises DataError when it cannot."""
    try:
        return cast("IO[bytes]", gzip.open(path, "rb")) if path.suffix.lower() == ".gz" else path.open("rb")
    except OSError as error:
        raise DataError(
            f"cannot open {path}: {error.strerror or error}", remedy="check the path and its permissions"
        ) from error


def chunks(path: Path, size: int = CHUNK) -> Iterator[bytes]:
    """The (decompressed) bytes of a file, piece by piece. A damaged gzip stream is a DataError with the offset."""
    offset = 0
    with open_bytes(path) as file:
        while True:
            try:
                chunk = file.read(size)
            except (EOFError, zlib.error, OSError) as error:
                raise DataError(
                    f"{path}: cannot be read past byte {offset:,} of its content: {error}",
                    remedy="the file is damaged or cut short: copy or download it again",
                ) from error
            if not chunk:
                return
            offset += len(chunk)
            yield chunk


def detect(path: Path, *, tolerant: bool = False) -> Encoding:
    """The encoding of a text file. Raises DataError with line and byte offset when it is none of the known ones.

    A file that is damaged in places is refused too, unless `tolerant`: then the reader drops and counts those lines.
    """
    head = next(chunks(path, 4), b"")
    for mark, codec in MARKS:
        if head.startswith(mark):
            return Encoding(codec, len(mark))
    damage = _first_invalid(path, "utf-8")
    if damage is None:
        return Encoding("utf-8")
    window = _window_around(path, damage.offset)
    if _mostly_utf8(window):
        if tolerant:
            return Encoding("utf-8")
        raise damage.error(path, "UTF-8")
    if not _looks_chinese(window):
        raise DataError(
            f"{damage.place(path)}: neither UTF-8 nor GB18030 (byte 0x{damage.byte:02X})",
            remedy="name its encoding (config: read: {encoding: ...}), or convert it: iconv -f ENCODING -t UTF-8",
        )
    if _looks_big5(window):
        raise DataError(
            f"{damage.place(path)}: the text looks like Big5 (traditional Chinese), which is not assumed",
            remedy="name the encoding (config: read: {encoding: big5}), or convert the file to UTF-8",
        )
    gb_damage = _first_invalid(path, "gb18030")
    if gb_damage is not None and not tolerant:
        raise gb_damage.error(path, "GB18030")
    return Encoding("gb18030")


def named(path: Path, name: str) -> Encoding:
    """The encoding that a user named, with the byte order mark to skip if the file has one. Raises DataError."""
    try:
        codec = codecs.lookup(name).name
        "\n".encode(codec)
    except LookupError as error:
        raise DataError(f"unknown encoding {name!r}", remedy="utf-8, gb18030, big5, utf-16, latin-1, ...") from error
    head = next(chunks(path, 4), b"")
    for mark, marked in MARKS:
        if head.startswith(mark) and marked.startswith(codec.removesuffix("-sig")):
            return Encoding(marked, len(mark))
    # Without a mark the bare names mean little-endian, as on the systems that write such files.
    return Encoding({"utf-8-sig": "utf-8", "utf-16": "utf-16-le", "utf-32": "utf-32-le"}.get(codec, codec))


@dataclass(frozen=True)
class _Damage:
    offset: int
    line: int
    byte: int

    def place(self, path: Path) -> str:
        return f"{path}, line {self.line:,}, byte {self.offset:,}"

    def error(self, path: Path, encoding: str) -> DataError:
        return DataError(
            f"{self.place(path)}: the text is {encoding}, but not there (byte 0x{self.byte:02X})",
            remedy="repair that line, or drop and count such lines (config: read: {on_error: drop})",
        )


def _first_invalid(path: Path, codec: str) -> _Damage | None:
    decoder = codecs.getincrementaldecoder(codec)()
    offset, line, pending = 0, 1, b""
    for chunk in chunks(path):
        try:
            decoder.decode(chunk)
        except UnicodeDecodeError as error:
            # The decoder prepends what it had kept back of the chunk before.
            at = error.start - len(pending)
            seen = chunk[: max(at, 0)]
            byte = (pending + chunk)[error.start]
            return _Damage(offset + at, line + seen.count(b"\n"), byte)
        offset += len(chunk)
        line += chunk.count(b"\n")
        pending = decoder.getstate()[0]
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return _Damage(offset - len(pending), line, pending[0])
    return None


def _window_around(path: Path, offset: int) -> bytes:
    """Whole lines around `offset` where lines are short; at most 2 * WINDOW bytes."""
    begin = max(0, offset - WINDOW)
    kept, position = b"", 0
    for chunk in chunks(path):
        if position + len(chunk) > begin:
            kept += chunk[max(0, begin - position) :]
        position += len(chunk)
        if len(kept) >= 2 * WINDOW:
            break
    kept = kept[: 2 * WINDOW]
    return kept[kept.find(b"\n") + 1 :] if begin and b"\n" in kept[:WINDOW] else kept


def _mostly_utf8(window: bytes) -> bool:
    """Whether the bytes beyond ASCII are mainly well-formed UTF-8: then it is damaged UTF-8, not another encoding."""
    text = window.decode("utf-8", errors="replace")
    broken = text.count("\ufffd")
    # Three bytes are the length of a Chinese character; two-byte forms also arise by chance in GB18030.
    whole = sum(1 for character in text if character >= "\u0800" and character != "\ufffd")
    return whole > broken


def _looks_big5(window: bytes) -> bool:
    """Whether the bytes, which GB18030 takes as well, have more of the commonest characters when read as Big5."""
    try:
        traditional = window[: window.rfind(b"\n") + 1 or None].decode("big5")
    except UnicodeDecodeError:
        return False
    simplified = window.decode("gb18030", errors="ignore")
    return _n_commonest(traditional) > 2 * _n_commonest(simplified)


def _n_commonest(text: str) -> int:
    return sum(character in COMMONEST for character in text)


def _looks_chinese(window: bytes) -> bool:
    text = window.decode("gb18030", errors="ignore")
    beyond = [character for character in text if character > "\x7f"]
    common = "".join(beyond).encode("gb2312", errors="ignore")
    return bool(beyond) and len(common) // 2 >= COMMON_SHARE * len(beyond)
