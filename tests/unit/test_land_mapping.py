"""A source mapping is checked before any file is opened; each error names file, key, expected and found."""

from pathlib import Path

import pytest
from cleanbill.errors import InputFileError
from cleanbill.source_mapping import BUILT_IN, load_mapping

GOOD = """
source: acme
description: sample
identity: msisdn
consent: as_delivered
quarantine_limit_percent: 1
files:
  people:
    name: people.csv
    columns: [phone, region]
    key: [phone]
  orders:
    name: orders.csv
    columns: [id, phone, product, kind, at, confirmed]
    lookups:
      person: {file: people, match: {phone: phone}, required: false}
    derive:
      service: {column: product, codes: {A: "1001"}}
records:
  - extract: relation_events
    from: orders
    when:
      - {column: kind, is: present}
    columns:
      event_id: id
      msisdn: phone
      sp_code: {constant: "100001"}
      service_code: service
      action: {column: kind, codes: {"1": order, "2": cancel}}
      event_time: {column: at, time: ["%Y%m%d%H%M%S"]}
      confirmed_at: {column: confirmed, time: ["%Y%m%d%H%M%S"]}
      province: person.region
oddities:
  - what: order without region
    from: orders
    when:
      - {column: person.region, is: empty}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "acme.yml"
    path.write_text(text, encoding="utf-8")
    return path


def test_good_mapping_loads(tmp_path: Path):
    mapping = load_mapping(write(tmp_path, GOOD))
    assert mapping.records[0].columns["msisdn"].column == "phone"
    assert mapping.records[0].columns["action"].codes == {"1": "order", "2": "cancel"}


@pytest.mark.parametrize("path", sorted(BUILT_IN.glob("*.yml")), ids=lambda path: path.stem)
def test_every_built_in_mapping_loads_by_its_name(path: Path):
    assert load_mapping(path.stem).source == path.stem


WRONG = {
    "unknown key": ("identity: msisdn", "identity: msisdn\ncolour: red", "key colour", "red"),
    "key twice": ("identity: msisdn", "identity: msisdn\nidentity: opaque", "key file", "identity"),
    "not YAML": ("identity: msisdn", "identity: [msisdn", "key file", "line"),
    "no such day": (
        "identity: msisdn",
        "identity: msisdn\nperiod: {first: 2024-02-30, last: 2024-03-01}",
        "file",
        "day",
    ),
    "list as a key": ("identity: msisdn", "identity: msisdn\n[a, b]: c", "key file", ""),
    "deep nesting": ("identity: msisdn", f"identity: {'[' * 5000}", "key file", ""),
    "a file's day without a date": (
        "    from: orders\n    when",
        "    from: orders\n    day: file\n    when",
        "records.0.day",
        "{date}",
    ),
    "fixed width without a layout": (
        "name: orders.csv",
        "name: orders.csv\n    format: fixed_width",
        "files.orders",
        "layout",
    ),
    "verf of a csv": ("name: orders.csv", 'name: orders.csv\n    verf: {delimiter: "|"}', "files.orders", "verf"),
    "columns and layout": (
        "name: orders.csv",
        "name: orders.csv\n    format: fixed_width\n    layout: {row_length: 9, positions: {id: 1-8}}",
        "files.orders",
        "not both",
    ),
    "two dates in a name": ("name: orders.csv", 'name: "{date}_{date}.csv"', "files.orders", "at most once"),
    "missing key": ("identity: msisdn\n", "", "key identity", "required"),
    "unknown identity": ("identity: msisdn", "identity: imsi", "key identity", "imsi"),
    "source that cannot be in a file name": ("source: acme", "source: a_1", "key source", "a_1"),
    "code read as a number": ('codes: {"1": order', "codes: {1: order", "codes.1", "string"),
    "code read as a truth value": ('codes: {"1": order', "codes: {yes: order", "codes", "string"),
    "unknown format": ("name: orders.csv", "name: orders.csv\n    format: xml", "files.orders.format", "xml"),
    "unknown encoding": (
        "name: orders.csv",
        "name: orders.csv\n    encoding: ebcdic",
        "files.orders.encoding",
        "ebcdic",
    ),
    "quote as delimiter": (
        "name: orders.csv",
        "name: orders.csv\n    delimiter: '|\"'",
        "files.orders.delimiter",
        '|"',
    ),
    "path in a name": ("name: orders.csv", "name: ../orders.csv", "files.orders.name", "../orders.csv"),
    "column twice": ("[phone, region]", "[phone, phone]", "files.people.columns", "phone"),
    "key that is no column": ("key: [phone]", "key: [telephone]", "files.people.key", "telephone"),
    "lookup into a later file": ("{file: people,", "{file: orders,", "files.orders.lookups.person.file", "orders"),
    "lookup not by the key": ("match: {phone: phone}", "match: {phone: region}", "lookups.person.match", "region"),
    "derive from an unknown column": (
        "{column: product, codes",
        "{column: produce, codes",
        "derive.service",
        "produce",
    ),
    "unknown extract": ("extract: relation_events", "extract: relations", "records.0.extract", "relations"),
    "unknown file": ("    from: orders\n    when:", "    from: order\n    when:", "records.0.from", "order"),
    "unknown column": ("msisdn: phone", "msisdn: telephone", "records.0", "telephone"),
    "column of no contract": ("event_id: id", "event_id: id\n      colour: id", "records.0.columns", "colour"),
    "contract column without a value": ("      msisdn: phone\n", "", "records.0.columns", "msisdn"),
    "consent not said": ("consent: as_delivered\n", "", "key consent", "required"),
    "confirmed_at missing": (
        '      confirmed_at: {column: confirmed, time: ["%Y%m%d%H%M%S"]}\n',
        "",
        "records.0.columns",
        "confirmed_at",
    ),
    "consent said twice": ("consent: as_delivered", "consent: assume_confirmed", "records.0.columns", "confirmed_at"),
    "no business date": (
        'event_time: {column: at, time: ["%Y%m%d%H%M%S"]}',
        "event_time: at",
        "records.0.day",
        "neither",
    ),
    "events delivered once": (
        "    from: orders\n    when",
        "    from: orders\n    day: first\n    when",
        "day",
        "event_time",
    ),
    "two origins": ('sp_code: {constant: "100001"}', 'sp_code: {constant: "1", column: id}', "sp_code", "exactly one"),
    "end of day without time": (
        'sp_code: {constant: "100001"}',
        'sp_code: {constant: "1", end_of_day: true}',
        "sp_code",
        "time",
    ),
    "test with too many operands": (
        "{column: kind, is: present}",
        "{column: kind, is: present, value: x}",
        "when.0",
        "neither",
    ),
    "test without operand": ("{column: kind, is: present}", "{column: kind, is: below}", "when.0", "one"),
    "unknown test": ("{column: kind, is: present}", "{column: kind, is: like, value: x}", "when.0.is", "like"),
    "oddity of an unknown column": (
        "{column: person.region, is",
        "{column: person.city, is",
        "oddities.0",
        "person.city",
    ),
    "period backwards": (
        "identity: msisdn",
        "identity: msisdn\nperiod: {first: 2024-01-02, last: 2024-01-01}",
        "key period",
        "last not before",
    ),
    "add_up of a text": (
        "    from: orders\n    when",
        "    from: orders\n    add_up: channel\n    when",
        "records.0.add_up",
        "channel",
    ),
}


@pytest.mark.parametrize(("old", "new", "where", "said"), WRONG.values(), ids=WRONG.keys())
def test_wrong_mapping_is_refused_with_file_key_and_finding(tmp_path: Path, old: str, new: str, where: str, said: str):
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(InputFileError) as caught:
        load_mapping(path)
    assert caught.value.where.startswith(str(path))
    assert where in caught.value.where
    assert said in str(caught.value)
    assert caught.value.advice


def test_unknown_mapping_names_the_built_in_ones(tmp_path: Path):
    with pytest.raises(InputFileError, match="ravenstack"):
        load_mapping(str(tmp_path / "nothing.yml"))


FIXED = """
source: acme
description: sample
identity: msisdn
consent: as_delivered
quarantine_limit_percent: 1
files:
  lines:
    name: lines.dat
    format: fixed_width
    layout: {row_length: ROW, line_end: END, positions: {msisdn: FIRST, state: 12-12, since: 13-26}}
records:
  - extract: line_status
    from: lines
    day: {column: since, time: ["%Y%m%d%H%M%S"]}
    columns:
      msisdn: msisdn
      status: {column: state, codes: {A: stopped, B: closed}}
      from_time: {column: since, time: ["%Y%m%d%H%M%S"]}
"""


@pytest.mark.parametrize(
    ("row_length", "end", "first", "said"),
    [
        (27, "lf", "1-11", None),
        (26, "lf", "1-11", "since"),
        (26, "none", "1-11", None),
        (25, "none", "1-11", "since"),
        (28, "crlf", "1-11", None),
        (27, "crlf", "1-11", "since"),
        (27, "lf", "0-11", "positions.msisdn"),
        (27, "lf", "11-1", "positions.msisdn"),
        (27, "lf", "11", "positions.msisdn"),
        (27, "lf", "1-x", "positions.msisdn"),
        (0, "lf", "1-11", "layout.row_length"),
        (27, "cr", "1-11", "layout.line_end"),
    ],
)
def test_a_layout_must_fit_its_row(tmp_path: Path, row_length: int, end: str, first: str, said: str | None):
    text = (
        FIXED.replace("ROW", str(row_length))
        .replace("END", end)
        .replace("FIRST", first if "-" in first else f"'{first}'")
    )
    path = write(tmp_path, text)
    if said is None:
        assert load_mapping(path).files["lines"].columns == ["msisdn", "state", "since"]
    else:
        with pytest.raises(InputFileError, match=said):
            load_mapping(path)
