"""From the bytes of a landed file to lines that a parser can trust.

A file is hashed first. Only then its bytes are unpacked and written, block by block, as plain lines: UTF-8, one
LF each, no header. What a line may not hold is made visible and marked, so that the parser can quarantine the
line and show what was there. A line is never dropped, joined or repaired here.
"""

import codecs
import csv
import hashlib
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cleanbill.contract import Contract
from cleanbill.errors import DeliveryRejected
from cleanbill.manifest import ManifestFile

# Marks the parser looks for. No line can hold them of its own: every control character is escaped.
BROKEN_BYTE_MARK = "\x1a"
LONG_LINE_MARK = "\x1c"

# Technical limits: no honest extract comes near them.
MAX_LINE_BYTES = 64 * 1024
MAX_UNPACKED_BYTES = 8 * 1024**3
HARMLESS_BYTES = 8 * 1024**2
MAX_UNPACK_RATIO = 100
SHOWN_OF_LONG_LINE = 200
BLOCK_BYTES = 4 * 1024**2

_CONTROL_BYTES = bytes(code for code in (*range(32), 127) if code not in (9, 10))
_CONTROL = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")
_LONG_LINE = re.compile(rb"(?m)^[^\n]{%d,}" % (MAX_LINE_BYTES + 1))


@dataclass(frozen=True)
class SpooledFile:
    """One landed file, ready to be parsed.

    Attributes:
        file: what the manifest says of it.
        path: the spooled lines; None when there is no data line.
        header: the column names of its header line, in file order.
        lines: how many data lines were spooled.
        has_quotes: a quote occurs somewhere behind the header.
    """

    file: ManifestFile
    path: Path | None
    header: tuple[str, ...]
    lines: int
    has_quotes: bool


def verify_bytes(descriptor: int, file: ManifestFile, where: str) -> None:
    """Hold size and sha256 of a file against its manifest, before anything looks into it.

    Raises:
        DeliveryRejected: `bytes_differ` or `sha256_differs`.
    """
    size = os.fstat(descriptor).st_size
    if size != file.bytes:
        raise DeliveryRejected(
            "bytes_differ", where, f"{file.bytes} bytes", f"{size} bytes", "send the file again as the next delivery"
        )
    digest = hashlib.sha256()
    for block in _read_blocks(descriptor):
        digest.update(block)
    _compare_digest(digest.hexdigest(), file, where)


def _compare_digest(found: str, file: ManifestFile, where: str) -> None:
    if found != file.sha256:
        raise DeliveryRejected(
            "sha256_differs", where, f"sha256 {file.sha256}", found, "send the file again as the next delivery"
        )


def spool_lines(descriptor: int, file: ManifestFile, where: str, contract: Contract, target: Path) -> SpooledFile:
    """Unpack a verified file into clean lines at `target` and read its header.

    The bytes are hashed once more while they are read: what is parsed is what was verified.

    Raises:
        DeliveryRejected: `bad_gzip`, `too_large`, `bad_header`, or `sha256_differs` if the file changed meanwhile.
    """
    digest = hashlib.sha256()
    blocks = _hashed(_read_blocks(descriptor), digest)
    if file.name.endswith(".gz"):
        blocks = _unpack(blocks, file, where)
    lines = 0
    has_quotes = False
    header_line: bytes | None = None
    with ExitStack() as stack:
        spool: BinaryIO | None = None
        for block in _clean_lines(blocks):
            if header_line is None:
                header_line, _, block = block.partition(b"\n")
            if not block:
                continue
            has_quotes = has_quotes or b'"' in block
            lines += block.count(b"\n")
            if spool is None:
                # Most deliveries of a quiet extract hold a header only: no file for them.
                spool = stack.enter_context(target.open("wb"))
                if block.startswith(codecs.BOM_UTF8):
                    # The parser takes one mark off the start of a file: the one of this data line must stay.
                    spool.write(codecs.BOM_UTF8)
            spool.write(block)
    _compare_digest(digest.hexdigest(), file, where)
    header = _read_header(header_line, contract, where)
    return SpooledFile(file, target if lines else None, header, lines, has_quotes)


def _read_blocks(descriptor: int) -> Iterator[bytes]:
    position = 0
    while block := os.pread(descriptor, BLOCK_BYTES, position):
        position += len(block)
        yield block


def _hashed(blocks: Iterator[bytes], digest: "hashlib._Hash") -> Iterator[bytes]:
    for block in blocks:
        digest.update(block)
        yield block


def _unpack(blocks: Iterator[bytes], file: ManifestFile, where: str) -> Iterator[bytes]:
    """Yield the content of a gzip stream of one or more members, in blocks, within safe bounds."""
    limit = min(MAX_UNPACKED_BYTES, max(HARMLESS_BYTES, file.bytes * MAX_UNPACK_RATIO))
    unpacked = 0
    member = zlib.decompressobj(wbits=31)
    at_start = True
    try:
        for block in blocks:
            while block:
                if member.eof:
                    member = zlib.decompressobj(wbits=31)
                at_start = False
                piece = member.decompress(block, BLOCK_BYTES)
                block = member.unused_data if member.eof else member.unconsumed_tail
                unpacked += len(piece)
                if unpacked > limit:
                    raise DeliveryRejected(
                        "too_large",
                        where,
                        f"at most {limit} bytes unpacked",
                        "more",
                        "send the data in several files",
                    )
                if piece:
                    yield piece
        is_complete = member.eof and not at_start
    except zlib.error:
        is_complete = False
    if not is_complete:
        raise DeliveryRejected(
            "bad_gzip", where, "a complete gzip stream", "a broken or cut one", "compress and send the file again"
        )


def _clean_lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield blocks of whole, clean lines; the last line gets its LF if it has none."""
    rest = b""
    at_start = True
    for block in blocks:
        rest += block
        if at_start and len(rest) >= len(codecs.BOM_UTF8):
            rest = rest.removeprefix(codecs.BOM_UTF8)
            at_start = False
        end = rest.rfind(b"\n") + 1
        if end:
            yield _clean(rest[:end])
            rest = rest[end:]
        if len(rest) > 2 * MAX_LINE_BYTES:
            # Enough to know the line is too long. Its last byte stays: it may be the CR of a CRLF.
            rest = rest[: 2 * MAX_LINE_BYTES] + rest[-1:]
    if at_start:
        rest = rest.removeprefix(codecs.BOM_UTF8)
    if rest:
        yield _clean(rest + b"\n")


def _clean(block: bytes) -> bytes:
    """Return whole lines with every forbidden byte made visible and marked."""
    if b"\r" in block:
        block = block.replace(b"\r\n", b"\n")
    if len(block.translate(None, _CONTROL_BYTES)) < len(block):
        block = _CONTROL.sub(_mark_control, block)
    try:
        block.decode("utf-8")
    except UnicodeDecodeError:
        block = block.decode("utf-8", errors="cleanbill_mark").encode("utf-8")
    if _has_long_line(block):
        block = _LONG_LINE.sub(_mark_long_line, block)
    return block


def _has_long_line(block: bytes) -> bool:
    start = 0
    while len(block) - start > MAX_LINE_BYTES:
        end = block.rfind(b"\n", start, start + MAX_LINE_BYTES + 1)
        if end < 0:
            return True
        start = end + 1
    return False


def _mark_long_line(match: re.Match[bytes]) -> bytes:
    begin = match[0][:SHOWN_OF_LONG_LINE].decode("utf-8", errors="ignore")
    return f"{LONG_LINE_MARK}{begin}…".encode()


def _mark_control(match: re.Match[bytes]) -> bytes:
    return f"{BROKEN_BYTE_MARK}\\x{match[0][0]:02x}".encode()


def _mark_broken_bytes(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)  # noqa: S101  registered for decoding only
    broken = error.object[error.start : error.end]
    return "".join(f"{BROKEN_BYTE_MARK}\\x{byte:02x}" for byte in broken), error.end


codecs.register_error("cleanbill_mark", _mark_broken_bytes)


def _read_header(line: bytes | None, contract: Contract, where: str) -> tuple[str, ...]:
    """Return the names of a header line; each column of the contract must be there exactly once."""
    expected = ", ".join(contract.required_header)

    def wrong(found: str) -> DeliveryRejected:
        return DeliveryRejected(
            "bad_header", f"{where} line 1", expected, found, "write the header by the input contract, send it again"
        )

    if line is None:
        raise wrong("an empty file")
    text = line.decode("utf-8")
    if BROKEN_BYTE_MARK in text or LONG_LINE_MARK in text:
        raise wrong("bytes that are no text, or a line without end")
    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error:
        raise wrong("broken quotes") from None
    names = rows[0] if rows else []
    # Only names of the contract are told: what else stands there may be a data line.
    columns = [column.name for column in contract.columns]
    if len(set(names)) < len(names):
        doubled = [name for name in columns if names.count(name) > 1]
        raise wrong("twice: " + ", ".join(doubled or ["a name outside the contract"]))
    missing = [name for name in contract.required_header if name not in names]
    if missing:
        raise wrong("without " + ", ".join(missing))
    return tuple(names)
