"""Fixed-width text in any encoding: one layout, read and written by the same table of byte positions.

Positions count BYTES of the encoding, as the switches that make such files do: a Chinese character takes two in
GBK. A row's length includes its line end, so bytes = rows × row length, which is what a .verf file says.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import BinaryIO, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cleanbill.foreign_text import CONTROL_CHARACTERS, UNREADABLE

LINE_ENDS = {"none": b"", "lf": b"\n", "crlf": b"\r\n"}
LONGEST_ROW = 64 * 1024
BLANKS = " \u3000"  # the second is the blank of Chinese text, used as padding by some


class FixedLayout(BaseModel):
    """Where the columns of a fixed-width row stand.

    Attributes:
        row_length: bytes of a row, its line end included.
        line_end: what ends a row: `lf`, `crlf` or `none`.
        positions: column → `first-last` byte, counted from 1.
        right: columns the writer aligns right (numbers); a reader takes blanks off both sides.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    row_length: int = Field(ge=1, le=LONGEST_ROW)
    line_end: Literal["none", "lf", "crlf"] = "lf"
    positions: dict[str, str] = Field(min_length=1)
    right: list[str] = []

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for name, text in self.positions.items():
            first, dash, last = text.partition("-")
            if not (dash and first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last) <= self.width):
                raise ValueError(f"positions.{name} as first-last byte within 1-{self.width} (found {text!r})")
        if unknown := sorted(set(self.right) - set(self.positions)):
            raise ValueError(f"right names columns of positions (found {', '.join(unknown)})")
        return self

    @property
    def end(self) -> bytes:
        return LINE_ENDS[self.line_end]

    @property
    def width(self) -> int:
        """Bytes of a row without its line end."""
        return self.row_length - len(self.end)

    @cached_property
    def slices(self) -> list[slice]:
        """Return the bytes of each column, in the order of `positions`."""
        bounds = [text.partition("-") for text in self.positions.values()]
        return [slice(int(first) - 1, int(last)) for first, _, last in bounds]


@dataclass(frozen=True)
class FixedRow:
    """One row as it was read: its columns, or the reason code why it cannot be cut into them."""

    columns: list[str]
    raw_text: str
    problem: str | None = None


class DoesNotFit(ValueError):
    """A value is too long for its place, or its encoding cannot write it.

    Attributes:
        where: row and column.
        place: what the layout allows there.
        found: what is wrong with the value (not the value itself).
    """

    def __init__(self, where: str, place: str, found: str) -> None:
        self.where, self.place, self.found = where, place, found
        super().__init__(f"{where}: {found}")


def read_rows(stream: BinaryIO, layout: FixedLayout, encoding: str) -> Iterator[FixedRow]:
    """Yield the rows of a stream, one at a time; a row that is wrong is yielded with its reason.

    With a line end a row of another length costs only itself; without one the rows are counted off.
    """
    for row in _split(stream, layout):
        if len(row) != layout.width:
            yield FixedRow([], shown(row, encoding), "wrong_row_length")
            continue
        try:
            if row.isascii():
                text = row.decode("ascii")
                columns = [text[place].strip(BLANKS) for place in layout.slices]
            else:
                columns = [row[place].decode(encoding).strip(BLANKS) for place in layout.slices]
        except UnicodeDecodeError:
            yield FixedRow([], shown(row, encoding), "invalid_bytes")
            continue
        raw_text = shown(row, encoding)
        if UNREADABLE in raw_text:
            yield FixedRow([], raw_text, "invalid_bytes")
            continue
        yield FixedRow(columns, raw_text)


def shown(row: bytes, encoding: str) -> str:
    """Return a row as one line of text; what is no text of the encoding shows as U+FFFD."""
    text = CONTROL_CHARACTERS.sub(UNREADABLE, row.decode(encoding, errors="replace"))
    return text.replace("\n", UNREADABLE).replace("\r", UNREADABLE)


def _split(stream: BinaryIO, layout: FixedLayout) -> Iterator[bytes]:
    if not layout.end:
        while row := stream.read(layout.row_length):
            yield row
        return
    while line := stream.readline(2 * LONGEST_ROW):
        yield line.removesuffix(layout.end if line.endswith(layout.end) else b"\n")
        while not line.endswith(b"\n") and (line := stream.readline(2 * LONGEST_ROW)):
            pass  # a row of this length is wrong whatever follows: only its beginning is kept


def write_rows(stream: BinaryIO, layout: FixedLayout, encoding: str, rows: Iterable[Sequence[str]]) -> int:
    """Write rows of values in the order of `positions`; return how many. Bytes between columns are blanks.

    Raises:
        DoesNotFit: a value is longer than its place, holds a line end, or the encoding has no bytes for it.
    """
    names = list(layout.positions)
    count = 0
    for count, row in enumerate(rows, 1):
        buffer = bytearray(b" " * layout.width)
        for name, place, value in zip(names, layout.slices, row, strict=True):
            length = place.stop - place.start
            encoded = _encoded(value, length, encoding, f"row {count}, column {name}")
            buffer[place] = encoded.rjust(length) if name in layout.right else encoded.ljust(length)
        stream.write(buffer + layout.end)
    return count


def _encoded(value: str, length: int, encoding: str, where: str) -> bytes:
    place = f"{length} bytes of {encoding}"
    try:
        encoded = value.encode(encoding)
    except UnicodeEncodeError as error:
        raise DoesNotFit(where, place, f"a character {encoding} cannot write") from error
    if len(encoded) > length:
        raise DoesNotFit(where, place, f"{len(encoded)} bytes")
    if value != value.strip(BLANKS) or not value.isprintable():
        raise DoesNotFit(where, place, "a blank at its edge, or a control character")
    return encoded
