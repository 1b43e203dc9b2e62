"""Small CSV files of the data root that people write by hand: read whole and strictly, added to safely.

A wrong line stops the build with its line number: a half-read list of expected extracts would turn a missing file
into silence, a half-read list of waivers would bill what nobody excused.
"""

import csv
import fcntl
import io
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from cleanbill.contract import CONTRACTS
from cleanbill.errors import InputFileError
from cleanbill.manifest import is_source_name
from cleanbill.masking import mask_text

MSISDN_PREFIXES = ("0086", "+86", "86")
MSISDN_PATTERN = re.compile(r"1\d{10}", re.ASCII)
DAY_PATTERN = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
NUMBER_PATTERN = re.compile(r"[1-9][0-9]{0,8}")
LONGEST_SHOWN = 40  # characters of a wrong value in an error
ADVICE = "correct the line and run again; nothing was built"
FILE_MODE = 0o640
NOT_WRITTEN = 0  # the number of a line that is to be added


@dataclass(frozen=True)
class ReferenceLine:
    """One line of a reference file, with the readers of its fields; a wrong field raises InputFileError."""

    path: Path
    number: int
    fields: Mapping[str, str]

    def wrong(self, column: str, expected: str) -> InputFileError:
        """Return the error of a field (a test number is never shown)."""
        shown = mask_text(self._field(column))[:LONGEST_SHOWN]
        found = "a number that is not one" if column == "msisdn" else repr(shown)
        if self.number == NOT_WRITTEN:
            return InputFileError(f"a line of {self.path.name}, {column}", expected, found, "nothing was written")
        return InputFileError(f"{self.path.name}, line {self.number}, column {column}", expected, found, ADVICE)

    def _field(self, column: str) -> str:
        return (self.fields.get(column) or "").strip()

    def text(self, column: str) -> str:
        value = self._field(column)
        if not value or not value.isprintable():
            raise self.wrong(column, "a value")
        return value

    def free_text(self, column: str) -> str:
        """Return what people wrote; it is told in reports and marts, so it holds no number of a subscriber."""
        value = self.text(column)
        if mask_text(value) != value:
            raise self.wrong(column, "a text without a phone number")
        return value

    def day(self, column: str) -> date:
        value = self.text(column)
        try:
            if DAY_PATTERN.fullmatch(value):
                return date.fromisoformat(value)
        except ValueError:
            pass
        raise self.wrong(column, "a date written YYYY-MM-DD")

    def day_or_none(self, column: str) -> date | None:
        return self.day(column) if self._field(column) else None

    def validity(self) -> tuple[date, date | None]:
        """Return valid_from and valid_to (None: open); the second does not lie before the first."""
        first, last = self.day("valid_from"), self.day_or_none("valid_to")
        if last is not None and last < first:
            raise self.wrong("valid_to", f"no day before valid_from, {first}")
        return first, last

    def number_from_one(self, column: str) -> int:
        value = self.text(column)
        if not NUMBER_PATTERN.fullmatch(value):
            raise self.wrong(column, "a number from 1 on")
        return int(value)

    def one_of(self, column: str, allowed: Sequence[str]) -> str:
        value = self.text(column)
        if value not in allowed:
            raise self.wrong(column, "one of " + ", ".join(allowed))
        return value

    def extract(self) -> str:
        return self.one_of("extract", tuple(CONTRACTS))

    def source(self) -> str:
        value = self.text("source")
        if not is_source_name(value):
            raise self.wrong("source", "the name of a source")
        return value

    def two_people(self) -> tuple[str, str]:
        """Return who asked and who approved; spelling the same name in another way makes no second person."""
        asked, approved = self.free_text("requested_by"), self.free_text("approved_by")
        if _person(asked) == _person(approved):
            raise self.wrong("approved_by", "a second person")
        return asked, approved

    def msisdn(self, column: str) -> str:
        value = self.text(column)
        for prefix in MSISDN_PREFIXES:
            if value.startswith(prefix):
                value = value.removeprefix(prefix)
                break
        if not MSISDN_PATTERN.fullmatch(value):
            raise self.wrong(column, "an MSISDN: 1 and 10 digits, optionally after 86, +86 or 0086")
        return value


def _person(name: str) -> str:
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())


def read_lines(path: Path, columns: Sequence[str]) -> list[ReferenceLine] | None:
    """Return the lines of a reference file (blank ones left out), or None if there is no such file.

    Raises:
        InputFileError: it cannot be read, is no UTF-8 CSV, or its header lacks or doubles a column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return list(_lines(path, csv.DictReader(file, strict=True), columns))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputFileError(
            str(path), "a readable file", error.strerror or type(error).__name__, "correct its permissions, run again"
        ) from error


def _lines(path: Path, reader: csv.DictReader, columns: Sequence[str]) -> Iterator[ReferenceLine]:
    try:
        header = [name.strip() for name in reader.fieldnames or []]
        if any(header.count(column) != 1 for column in columns):
            raise InputFileError(
                where=f"{path.name}, line 1",
                expected=f"a header with the columns {', '.join(columns)}, once each",
                found=repr(mask_text(",".join(header))[: 2 * LONGEST_SHOWN]),
                advice=ADVICE,
            )
        reader.fieldnames = header
        for fields in reader:
            if None in fields:
                raise InputFileError(
                    f"{path.name}, line {reader.line_num}", f"{len(header)} fields", "more of them", ADVICE
                )
            if any((value or "").strip() for value in fields.values()):
                yield ReferenceLine(path, reader.line_num, fields)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputFileError(
            where=f"{path.name}, after line {reader.line_num}",
            expected="CSV in UTF-8 with closed quotes",
            found=type(error).__name__,
            advice="save the file as UTF-8 CSV and run again; nothing was built",
        ) from error


def write_lines(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a reference file anew; who reads it sees the old or the new one, whole (None is an empty field)."""
    _replace(path, _csv_text([columns, *rows]).encode())


def append_line(path: Path, columns: Sequence[str], values: Mapping[str, object]) -> None:
    """Add one line to a reference file, which is made with its header if there is none; all other bytes stay.

    Two programs that add at the same time both succeed. The caller has read the file and found it right.
    """
    with _lock(path.parent):
        content = path.read_bytes() if path.exists() else _csv_text([columns]).encode()
        header = next(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))
        if not content.endswith(b"\n"):
            content += b"\n"
        line = [values.get(name.strip(), "") for name in header]
        _replace(path, content + _csv_text([line]).encode())


def _csv_text(rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(path: Path, content: bytes) -> None:
    unfinished = path.with_name(path.name + ".part")
    with os.fdopen(os.open(unfinished, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, FILE_MODE), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
