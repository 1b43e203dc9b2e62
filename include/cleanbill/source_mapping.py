"""Read a source mapping: the YAML that says how a foreign source turns into the extracts of the contract.

A mapping names the foreign files of one source, how their columns become contract columns, and what in them is
odd but not wrong. Everything in it is checked before a file is opened: an unknown key, a column nobody declares
or a contract column without a value is an error that names file, key, what was expected and what was found.

The words of the format are described in `source_mappings/README.md`.
"""

import re
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from cleanbill.contract import CONTRACTS, Kind
from cleanbill.errors import InputFileError
from cleanbill.fixed_width import FixedLayout

BUILT_IN = Path(__file__).parent / "source_mappings"
SOURCE_PATTERN = r"^[a-z0-9][a-z0-9-]{0,31}$"
NAME_PATTERN = r"^[a-z][a-z0-9_]{0,39}$"
TEMPLATE_PART = re.compile(r"\{([^{}]*)\}")
FILE_DATE = "{date}"
CONSENT_EXTRACTS = ("relation_events", "relation_snapshot")


class _Strict(BaseModel):
    """Refuse unknown keys and silent conversions (a bare 01 in YAML is a number, not the text '01')."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)


class Value(_Strict):
    """Where one contract (or derived) column comes from: a column, a constant or a template, then conversions."""

    column: str | None = None
    constant: str | None = None
    template: str | None = None
    nothing: list[str] = []
    codes: dict[str, str] | None = None
    strip_leading_zeros: bool = False
    unit: Literal["li", "fen", "yuan"] | None = None
    time: list[str] | None = None
    end_of_day: bool = False

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        origins = [name for name in ("column", "constant", "template") if getattr(self, name) is not None]
        if len(origins) != 1:
            raise ValueError(f"exactly one of column, constant, template (found {', '.join(origins) or 'none'})")
        if self.end_of_day and self.time is None:
            raise ValueError("end_of_day only together with time")
        if self.time is not None and not self.time:
            raise ValueError("at least one time format")
        return self

    def columns(self) -> list[str]:
        """Return the foreign columns this value reads."""
        if self.column is not None:
            return [self.column]
        return TEMPLATE_PART.findall(self.template) if self.template is not None else []


def _value_shorthand(raw: Any) -> Any:
    """`msisdn: phone` is short for `msisdn: {column: phone}`."""
    return {"column": raw} if isinstance(raw, str) else raw


ColumnValue = Annotated[Value, BeforeValidator(_value_shorthand)]


class Condition(_Strict):
    """A test of one column: against nothing (present, empty), a constant or another column of the row."""

    column: str
    test: Literal["present", "empty", "equal", "not_equal", "below", "above", "at_most", "at_least"] = Field(alias="is")
    value: str | None = None
    other: str | None = None
    kind: Literal["text", "number", "date"] = Field(default="text", alias="as")

    @model_validator(mode="after")
    def _one_operand(self) -> Self:
        operands = (self.value is not None) + (self.other is not None)
        if operands != (0 if self.test in ("present", "empty") else 1):
            raise ValueError(f"'{self.test}' takes {'neither' if operands else 'one'} of value and other")
        return self

    def columns(self) -> list[str]:
        return [self.column] if self.other is None else [self.column, self.other]


class Lookup(_Strict):
    """The row of another foreign file that belongs to a row: `match` is own column → column over there."""

    file: str
    match: dict[str, str] = Field(min_length=1)
    required: bool = True


class Verf(_Strict):
    """The file beside a fixed-width one that says what it must be: see control_file.py."""

    delimiter: str = Field(default="|", min_length=1, max_length=8)


class ForeignFile(_Strict):
    """One foreign file: format, columns and what can be derived from a row."""

    name: str = Field(pattern=r"^[^/\\\x00-\x1f]{1,200}$")
    format: Literal["csv", "fixed_width"] = "csv"
    encoding: Literal["utf-8", "gbk", "gb18030"] = "utf-8"
    delimiter: str = Field(default=",", min_length=1, max_length=8, pattern=r'^[^"\r\n\ufffd]+$')
    quoting: Literal["standard", "none"] = "standard"
    header: bool = True
    layout: FixedLayout | None = None
    verf: Verf | None = None
    columns: list[str] = []
    key: list[str] | None = None
    lookups: dict[str, Lookup] = {}
    derive: dict[str, ColumnValue] = {}

    @model_validator(mode="before")
    @classmethod
    def _columns_of_layout(cls, raw: Any) -> Any:
        """The columns of a fixed-width file are those its layout has positions for."""
        if isinstance(raw, dict) and isinstance(raw.get("layout"), dict):
            if "columns" in raw:
                raise ValueError("columns or layout, not both")
            return raw | {"columns": [str(name) for name in raw["layout"].get("positions") or {}]}
        return raw

    @model_validator(mode="after")
    def _format_agrees(self) -> Self:
        if (self.format == "fixed_width") != (self.layout is not None):
            raise ValueError("layout for fixed_width, and only for it")
        if self.verf is not None and self.layout is None:
            raise ValueError("verf only for fixed_width")
        if self.layout is not None and (self.model_fields_set & {"delimiter", "quoting", "header"}):
            raise ValueError("no delimiter, quoting or header for fixed_width")
        if not self.columns:
            raise ValueError("at least one column")
        if self.name.count(FILE_DATE) > 1:
            raise ValueError(f"{FILE_DATE} in name at most once")
        return self

    @property
    def has_date(self) -> bool:
        """Tell whether name or .verf say which day the file is of."""
        return FILE_DATE in self.name or self.verf is not None

    @field_validator("columns")
    @classmethod
    def _distinct(cls, columns: list[str]) -> list[str]:
        doubled = sorted({name for name in columns if columns.count(name) > 1})
        if doubled:
            raise ValueError(f"each column once (doubled: {', '.join(doubled)})")
        return columns


class Record(_Strict):
    """One kind of contract record made from each row of a file (or written out as constant rows)."""

    extract: str
    source_file: str | None = Field(default=None, alias="from")
    rows: list[dict[str, str]] | None = None
    when: list[Condition] = []
    columns: dict[str, ColumnValue] = {}
    day: ColumnValue | Literal["first", "file"] | None = None
    distinct: bool = False
    add_up: str | None = None

    @field_validator("day", mode="before")
    @classmethod
    def _day(cls, raw: Any) -> Any:
        return raw if raw in (None, "first", "file") else _value_shorthand(raw)

    @model_validator(mode="after")
    def _rows_or_file(self) -> Self:
        if (self.source_file is None) == (self.rows is None):
            raise ValueError("exactly one of from and rows")
        if self.rows is not None and (self.when or self.columns or self.distinct or self.add_up):
            raise ValueError("constant rows take no when, columns, distinct or add_up")
        if self.distinct and self.add_up:
            raise ValueError("distinct or add_up, not both")
        return self


class Oddity(_Strict):
    """Something in a foreign row that is not wrong enough to refuse, but must be counted and said."""

    what: str = Field(min_length=1, max_length=200)
    source_file: str = Field(alias="from")
    when: list[Condition] = Field(min_length=1)


class Period(_Strict):
    """The days the source covers: a day in it without rows is a delivery of zero rows."""

    first: date
    last: date

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.last < self.first:
            raise ValueError("last not before first")
        return self


class SourceMapping(_Strict):
    """A checked source mapping; `path` is where it was read from."""

    path: Path
    source: str = Field(pattern=SOURCE_PATTERN)
    description: str
    identity: Literal["msisdn", "opaque"]
    consent: Literal["as_delivered", "assume_confirmed"]
    quarantine_limit_percent: int = Field(ge=0, le=100)
    period: Period | None = None
    files: dict[str, ForeignFile] = Field(min_length=1)
    records: list[Record] = Field(min_length=1)
    oddities: list[Oddity] = []


class _LoaderWithoutDoubles(yaml.SafeLoader):
    """YAML keeps the last of two equal keys in silence; here the second one is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def find_mapping(mapping: str | Path) -> Path:
    """Return the file of a mapping given as a path or as the name of a built-in one (`ravenstack`).

    Raises:
        InputFileError: there is neither such a file nor such a built-in mapping.
    """
    path = Path(mapping)
    if path.is_file():
        return path
    built_in = {file.stem: file for file in sorted(BUILT_IN.glob("*.yml"))}
    if str(mapping) in built_in:
        return built_in[str(mapping)]
    raise InputFileError(
        where=str(mapping),
        expected=f"a mapping file, or one of the built-in mappings {', '.join(built_in)}",
        found="neither",
        advice="write a YAML file as described in include/cleanbill/source_mappings/README.md and give its path",
    )


def load_mapping(mapping: str | Path) -> SourceMapping:
    """Read and check a mapping.

    Raises:
        InputFileError: the file is missing, not YAML, or says something the format does not know; the message
            names the file, the key, what was expected and what was found.
    """
    path = find_mapping(mapping)
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_LoaderWithoutDoubles)  # noqa: S506 (a SafeLoader)
    except (yaml.YAMLError, OSError, ValueError, TypeError, RecursionError) as error:
        # Not only YAML's own errors: 2026-02-30 is a ValueError, a list as a key a TypeError.
        raise _mapping_error(path, "file", "YAML in UTF-8", " ".join(str(error).split())[:300]) from error
    if not isinstance(raw, dict):
        raise _mapping_error(path, "file", "a YAML mapping with keys", type(raw).__name__)
    try:
        loaded = SourceMapping(path=path, **{str(key): value for key, value in raw.items()})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "file"
        raise _mapping_error(path, key, first["msg"], repr(first["input"])[:120]) from error
    _check_references(loaded)
    return loaded


def _mapping_error(path: Path, key: str, expected: str, found: str) -> InputFileError:
    return InputFileError(
        where=f"{path}, key {key}",
        expected=expected,
        found=found,
        advice="correct the mapping; its format is described in include/cleanbill/source_mappings/README.md",
    )


def _check_references(mapping: SourceMapping) -> None:
    """Check what one key says about another: columns, files, contract columns, codes of time splitting."""
    earlier: list[str] = []
    for name, file in mapping.files.items():
        where = f"files.{name}"
        if not re.match(NAME_PATTERN, name):
            raise _mapping_error(mapping.path, where, "a name of small letters, digits and _", repr(name))
        for lookup_name, lookup in file.lookups.items():
            if lookup.file not in earlier:
                expected = f"a file declared before it ({', '.join(earlier) or 'none'})"
                raise _mapping_error(mapping.path, f"{where}.lookups.{lookup_name}.file", expected, repr(lookup.file))
            _known(mapping, f"{where}.lookups.{lookup_name}.match", lookup.match.keys(), set(file.columns))
            there = set(mapping.files[lookup.file].columns)
            _known(mapping, f"{where}.lookups.{lookup_name}.match", lookup.match.values(), there)
            key_there = mapping.files[lookup.file].key
            if sorted(lookup.match.values()) != sorted(key_there or []):
                expected = f"all columns of the key of {lookup.file} ({', '.join(key_there or ['it has none'])})"
                found = ", ".join(lookup.match.values())
                raise _mapping_error(mapping.path, f"{where}.lookups.{lookup_name}.match", expected, found)
        _known(mapping, f"{where}.key", file.key or [], set(file.columns))
        known = readable_columns(mapping, name) - set(file.derive)
        for derived, value in file.derive.items():
            if derived in known or "." in derived:
                raise _mapping_error(mapping.path, f"{where}.derive.{derived}", "a new plain name", "a column's name")
            _known(mapping, f"{where}.derive.{derived}", value.columns(), known)
            known.add(derived)
        earlier.append(name)
    for number, record in enumerate(mapping.records):
        _check_record(mapping, f"records.{number}", record)
    for number, oddity in enumerate(mapping.oddities):
        _check_file_and_columns(mapping, f"oddities.{number}", oddity.source_file, _read_by(oddity.when))


def readable_columns(mapping: SourceMapping, file_name: str) -> set[str]:
    """Return every name a value of this file may read: own, derived and `lookup.column`."""
    file = mapping.files[file_name]
    names = set(file.columns) | set(file.derive)
    for lookup_name, lookup in file.lookups.items():
        there = mapping.files[lookup.file]
        names |= {f"{lookup_name}.{column}" for column in [*there.columns, *there.derive]}
    return names


def _read_by(conditions: Iterable[Condition]) -> list[str]:
    return [column for condition in conditions for column in condition.columns()]


def _known(mapping: SourceMapping, key: str, names: Iterable[str], known: set[str]) -> None:
    for name in names:
        if name not in known:
            expected = f"a column of the file ({', '.join(sorted(known))})"
            raise _mapping_error(mapping.path, key, expected, repr(name))


def _check_file_and_columns(mapping: SourceMapping, key: str, file_name: str, names: Iterable[str]) -> None:
    if file_name not in mapping.files:
        raise _mapping_error(mapping.path, f"{key}.from", f"one of {', '.join(mapping.files)}", repr(file_name))
    _known(mapping, key, names, readable_columns(mapping, file_name))


def time_column(extract: str) -> str | None:
    """Return the column that holds the record's own time, by which a file of many days is split."""
    return next((column.name for column in CONTRACTS[extract].columns if column.is_record_time), None)


def assumed_columns(mapping: SourceMapping, extract: str) -> set[str]:
    """Return the contract columns `consent: assume_confirmed` fills."""
    is_assumed = mapping.consent == "assume_confirmed" and extract in CONSENT_EXTRACTS
    return {"confirmed_at"} if is_assumed else set()


def _check_record(mapping: SourceMapping, key: str, record: Record) -> None:
    if record.extract not in CONTRACTS:
        raise _mapping_error(mapping.path, f"{key}.extract", f"one of {', '.join(CONTRACTS)}", repr(record.extract))
    columns = {column.name: column for column in CONTRACTS[record.extract].columns}
    assumed = assumed_columns(mapping, record.extract)
    required = {name for name, column in columns.items() if column.required} - assumed
    if record.extract in CONSENT_EXTRACTS and not assumed:
        required.add("confirmed_at")
    for number, row in enumerate([record.columns] if record.rows is None else record.rows):
        where = f"{key}.columns" if record.rows is None else f"{key}.rows.{number}"
        for name in row:
            if name not in columns:
                raise _mapping_error(mapping.path, where, f"columns of {record.extract}: {', '.join(columns)}", name)
            if name in assumed:
                raise _mapping_error(mapping.path, where, f"no {name}: consent: assume_confirmed fills it", name)
        missing = sorted(required - set(row))
        if missing:
            expected = f"a value for each of {', '.join(sorted(required))}"
            raise _mapping_error(mapping.path, where, expected, f"none for {', '.join(missing)}")
    _check_day(mapping, key, record)
    if record.add_up is not None and (
        record.add_up not in record.columns or columns[record.add_up].kind != Kind.INTEGER
    ):
        raise _mapping_error(mapping.path, f"{key}.add_up", "a mapped column of whole numbers", repr(record.add_up))
    if record.source_file is not None:
        values = [*record.columns.values(), *([record.day] if isinstance(record.day, Value) else [])]
        names = [name for value in values for name in value.columns()]
        _check_file_and_columns(mapping, key, record.source_file, [*names, *_read_by(record.when)])


def _check_day(mapping: SourceMapping, key: str, record: Record) -> None:
    """A record must say its business date: by its own time, by another value, or 'first' for a full file."""
    if record.day == "first":
        own_time = time_column(record.extract)
        if own_time is not None:
            raise _mapping_error(mapping.path, f"{key}.day", f"nothing: {own_time} tells the business date", "'first'")
        return
    if record.day == "file":
        file = mapping.files.get(record.source_file or "")
        if file is None or not file.has_date:
            expected = f"a file with {FILE_DATE} in its name, or with a .verf"
            raise _mapping_error(mapping.path, f"{key}.day", expected, "'file'")
        return
    day = day_value(record)
    if record.rows is not None or day is None or day.time is None:
        expected = "'first' (delivered once), 'file' (the date of the file), or a value with time formats"
        raise _mapping_error(mapping.path, f"{key}.day", expected, "neither")


def day_value(record: Record) -> Value | None:
    """Return the value that tells the business date of a record; None where the landing or the file tells it."""
    if isinstance(record.day, Value):
        return record.day
    own_time = time_column(record.extract)
    return record.columns.get(own_time) if record.day is None and own_time is not None else None
