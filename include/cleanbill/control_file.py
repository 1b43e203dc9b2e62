"""The .verf beside a fixed-width .dat: what the sender says of it, one row per data file, checked before parsing.

    data file | data date | created | bytes | records | row length

Dates are YYYYMMDD, the moment of creation YYYYMMDDHHMMSS; a row length includes the line end, so that
bytes = records × row length.
"""

import re
from dataclasses import astuple, dataclass
from datetime import date, datetime
from pathlib import Path
from typing import BinaryIO

from cleanbill.errors import LandingRefused
from cleanbill.fixed_width import FixedLayout
from cleanbill.foreign_text import BLOCK, open_foreign
from cleanbill.manifest import shown

SUFFIX = ".verf"
FIELDS = ("data file", "data date", "created", "bytes", "records", "row length")
LONGEST = 1 << 20
_COUNT = re.compile(r"[0-9]{1,18}", re.ASCII)
_RESEND = "have data and .verf sent again together; nothing was written"


@dataclass(frozen=True)
class ControlRow:
    """What a .verf says of one data file."""

    data_file: str
    data_date: date
    created: str
    bytes: int
    records: int
    row_length: int

    def line(self, delimiter: str = "|") -> str:
        """Return the row as it stands in a file."""
        name, day, *rest = astuple(self)
        return delimiter.join([name, f"{day:%Y%m%d}", *map(str, rest)])


def verf_of(data: Path) -> Path:
    """Return where the .verf of a data file must be: beside it, with the same stem."""
    return data.with_name(data.name.removesuffix(".gz")).with_suffix(SUFFIX)


def read_control_row(data: Path, delimiter: str) -> ControlRow:
    """Return the row of a data file from the .verf beside it.

    Raises:
        LandingRefused: `verf_missing`, `bad_verf`, `verf_other_file`.
    """
    path = verf_of(data)
    if not path.is_file():
        raise LandingRefused(
            "verf_missing",
            str(path),
            f"the control file of {data.name}",
            "nothing",
            "have it sent, or put it beside the data file; without it the data cannot be believed",
        )
    with open_foreign(path) as stream:
        content = stream.read(LONGEST + 1)
    if len(content) > LONGEST:
        raise _bad(path, "file", f"at most {LONGEST} bytes", "more")
    # Only names are no ASCII, and one that is compared is compared as text.
    lines = content.decode("utf-8" if _is_utf8(content) else "gb18030", errors="replace").splitlines()
    rows = [(number, line.split(delimiter)) for number, line in enumerate(lines, 1) if line.strip()]
    name = data.name.removesuffix(".gz")
    of_file = [(number, fields) for number, fields in rows if fields[0].strip() == name]
    if not of_file:
        others = ", ".join(shown(fields[0].strip()) for _, fields in rows[:3]) or "nothing"
        raise LandingRefused(
            "verf_other_file",
            str(path),
            f"a row for {name}",
            f"{len(rows)} rows, for {others}",
            _RESEND,
        )
    if len(of_file) > 1:
        raise _bad(path, f"line {of_file[1][0]}", f"one row for {name}", f"{len(of_file)}")
    return _parse(path, *of_file[0])


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _bad(path: Path, where: str, expected: str, found: str) -> LandingRefused:
    return LandingRefused("bad_verf", f"{path}, {where}", expected, found, _RESEND)


def _parse(path: Path, number: int, raw: list[str]) -> ControlRow:
    fields = [field.strip() for field in raw]
    if len(fields) != len(FIELDS):
        raise _bad(path, f"line {number}", f"{len(FIELDS)} fields: {' | '.join(FIELDS)}", f"{len(fields)}")
    name, day_text, created, *counts = fields
    day = parse_day(day_text)
    if day is None:
        raise _bad(path, f"line {number}, field data date", "a day as YYYYMMDD", shown(day_text))
    if not _is_moment(created):
        raise _bad(path, f"line {number}, field created", "a moment as YYYYMMDDHHMMSS", shown(created))
    for field, text in zip(FIELDS[3:], counts, strict=True):
        if not _COUNT.fullmatch(text):
            raise _bad(path, f"line {number}, field {field}", "plain digits", shown(text))
    return ControlRow(name, day, created, *(int(text) for text in counts))


def parse_day(text: str) -> date | None:
    """Return the day written YYYYMMDD, else None."""
    if not re.fullmatch(r"[0-9]{8}", text, re.ASCII):
        return None
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        return None


def _is_moment(text: str) -> bool:
    if not re.fullmatch(r"[0-9]{14}", text, re.ASCII):
        return False
    try:
        # 24:00:00 is the midnight that ends the day.
        datetime.strptime(text[:8] + text[8:].replace("240000", "000000"), "%Y%m%d%H%M%S")
    except ValueError:
        return False
    return True


def verify_against(data: Path, row: ControlRow, layout: FixedLayout) -> None:
    """Hold a data file against its row of the .verf, before anything of it is parsed.

    Raises:
        LandingRefused: `row_length_differs`, `bytes_differ`, `rows_differ`.
    """
    where = str(data)
    said = f"as {verf_of(data).name} says"
    if row.row_length != layout.row_length:
        raise LandingRefused(
            "row_length_differs",
            where,
            f"rows of {layout.row_length} bytes with their line end (layout of the mapping)",
            f"{row.row_length} {said}",
            "compare the layout with the sender's table of positions; nothing was written",
        )
    with open_foreign(data) as stream:
        size, records = _measure(stream, layout)
    if size != row.bytes:
        raise LandingRefused("bytes_differ", where, f"{row.bytes} bytes {said}", f"{size}", _RESEND)
    if records != row.records:
        raise LandingRefused("rows_differ", where, f"{row.records} records {said}", f"{records}", _RESEND)
    # The last row of some senders has no line end.
    if row.bytes not in (row.records * row.row_length, row.records * row.row_length - len(layout.end)):
        raise LandingRefused(
            "row_length_differs",
            where,
            f"{row.records} records of {row.row_length} bytes",
            f"{row.bytes} bytes",
            _RESEND,
        )


def _measure(stream: BinaryIO, layout: FixedLayout) -> tuple[int, int]:
    """Return bytes and records of a stream; with a line end the records are its lines."""
    size = lines = 0
    last = b"\n"
    while block := stream.read(BLOCK):
        size += len(block)
        lines += block.count(b"\n")
        last = block[-1:]
    if layout.end:
        return size, lines + (last != b"\n")
    return size, -(-size // layout.row_length)
