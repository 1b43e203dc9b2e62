"""From the bytes of a foreign file to clean text: bounded, block by block, never changing the original."""

import codecs
import gzip
import hashlib
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from cleanbill.errors import LandingRefused
from cleanbill.spool import HARMLESS_BYTES, MAX_UNPACK_RATIO

BLOCK = 1 << 20
CODECS = {"utf-8": "utf-8-sig", "gbk": "gbk", "gb18030": "gb18030"}
UNREADABLE = "�"
# Between the fields of a clean line, whatever the foreign file had there: no clean text can hold it.
FIELD_END = "\x1f"
# Characters no text record holds; DuckDB would split or cut the line at some of them.
CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def open_foreign(path: Path) -> Iterator[BinaryIO]:
    """Open a foreign file, unpacked if its name ends in .gz.

    Raises:
        LandingRefused: `unreadable_file`, `bad_gzip`, `too_large` (the last two while the file is read).
    """
    try:
        plain = path.open("rb")
        size = path.stat().st_size
    except OSError as error:
        raise _unreadable(path, error) from None
    with plain:
        if path.suffix == ".gz":
            unpacked = gzip.GzipFile(fileobj=plain)
            yield io.BufferedReader(_Watched(unpacked, path, max(HARMLESS_BYTES, size * MAX_UNPACK_RATIO)), BLOCK)
        else:
            yield io.BufferedReader(_Watched(plain, path, None), BLOCK)


def _unreadable(path: Path, error: OSError) -> LandingRefused:
    found = error.strerror or type(error).__name__
    return LandingRefused(
        "unreadable_file", str(path), "a file that can be read", found, "check the file and its permissions"
    )


class _Watched(io.RawIOBase):
    """A stream whose errors name the file, and that refuses to give more than `limit` bytes."""

    def __init__(self, stream: BinaryIO, path: Path, limit: int | None) -> None:
        self._stream, self._path, self._limit, self._given = stream, path, limit, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        try:
            block = self._stream.read(len(buffer))
        except (gzip.BadGzipFile, EOFError, zlib.error):
            raise LandingRefused(
                "bad_gzip", str(self._path), "a complete gzip stream", "a broken or cut one", "have the file sent again"
            ) from None
        except OSError as error:
            raise _unreadable(self._path, error) from None
        self._given += len(block)
        if self._limit is not None and self._given > self._limit:
            raise LandingRefused(
                "too_large",
                str(self._path),
                f"at most {self._limit} bytes unpacked",
                "more",
                "unpack it yourself if it is meant to be so, and land the plain file",
            )
        buffer[: len(block)] = block
        return len(block)


def decode_to_utf8(path: Path, encoding: str, delimiter: str, target: Path) -> bool:
    """Write the text of `path` to `target` as UTF-8 with plain line ends and FIELD_END for the delimiter.

    Bytes that are not of the encoding, and control characters, become U+FFFD: the record that holds one is
    quarantined as `invalid_bytes` later.

    Returns:
        Whether the text holds a quote.
    """
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(CODECS[encoding])("replace"), translate=True)
    # A delimiter may itself be a control character.
    unclean = re.compile("|".join(filter(None, (re.escape(delimiter), f"({CONTROL_CHARACTERS.pattern})"))))
    has_quotes = False
    kept = ""
    with open_foreign(path) as stream, target.open("w", encoding="utf-8", newline="") as clean:
        is_last = False
        while not is_last:
            block = stream.read(BLOCK)
            is_last = not block
            text = kept + decoder.decode(block, final=is_last)
            has_quotes = has_quotes or '"' in text
            text = unclean.sub(lambda found: UNREADABLE if found[1] else FIELD_END, text)
            # What could be the beginning of a delimiter waits for the next block.
            kept = "" if is_last else _begun(text, delimiter)
            clean.write(text[: len(text) - len(kept)])
    return has_quotes


def _begun(text: str, delimiter: str) -> str:
    """Return the end of a text that could be the beginning of a delimiter."""
    lengths = range(len(delimiter) - 1, 0, -1)
    return next((delimiter[:length] for length in lengths if text.endswith(delimiter[:length])), "")
