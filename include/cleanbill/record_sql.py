"""The SQL that turns clean lines into typed, judged records, written from the contract.

Identifiers and code lists come from the contract alone; file paths and limits are bound by the caller.
"""

from cleanbill.contract import Column, Contract, Kind

# A quoted field may hold line breaks, but nobody writes a record over more lines than this.
MAX_LINES_OF_A_RECORD = 100

_QUOTED_RECORD = """^(?:"(?:[^"]|"")*"|[^",]*)(?:,(?:"(?:[^"]|"")*"|[^",]*))*$"""
_QUOTED_FIELD = """,("(?:[^"]|"")*"|[^",]*)"""
QUOTE_PARAMETERS = {
    "record_pattern": _QUOTED_RECORD,
    "field_pattern": _QUOTED_FIELD,
    "max_lines": MAX_LINES_OF_A_RECORD,
}
_CLOCK = "(?:(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]|24:00:00)"
_PATTERNS = {
    Kind.MSISDN: r"^(?:\+86|0086|86)?(1[0-9]{10})$",
    Kind.SP_CODE: "[0-9]{6}",
    Kind.SERVICE_CODE: "[0-9A-Za-z][0-9A-Za-z._-]{0,9}",
    Kind.INTEGER: "[+-]?[0-9]+",
    Kind.TIME: f"[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}} {_CLOCK}",
    Kind.DATE: "[0-9]{4}-[0-9]{2}-[0-9]{2}",
}
_BAD_FORM = {
    Kind.MSISDN: "bad_msisdn",
    Kind.SP_CODE: "bad_code",
    Kind.SERVICE_CODE: "bad_code",
    Kind.CODE: "bad_code",
    Kind.CODE_NUMBER: "bad_code",
    Kind.BOOLEAN: "bad_code",
    Kind.INTEGER: "bad_number",
    Kind.FEE: "bad_number",
    Kind.TIME: "bad_time",
    Kind.DATE: "bad_date",
    Kind.MONTH: "bad_date",
}


# `delim` is a control character: the spool holds none, so each line is one value. A blank line is null.
LINES = """
physical as (
    select filename, line, row_number() over () as position
    from read_csv(
        $paths, columns = {'line': 'VARCHAR'}, header = false, auto_detect = false, delim = '\x01', quote = '',
        escape = '', new_line = '\\n', filename = true
    )
),
lines as (
    select
        spooled.delivery_no,
        spooled.file_no,
        spooled.earliest,
        spooled.latest,
        spooled.is_opaque,
        physical.position - spooled.first_position + 2 as line_no,
        physical.line
    from physical
    join spooled on spooled.path = physical.filename
)"""

JUDGED_RECORDS = """
records as (
    select
        *,
        case
            when raw is null then 'blank_line'
            when contains(raw, $long) then 'line_too_long'
            when contains(raw, $broken) then 'invalid_bytes'
            when fields is null then 'bad_quotes'
            when len(fields) <> $width then 'wrong_field_count'
        end as defect
    from split_records
)"""

SPLIT_PLAIN_LINES = """
split_records as (
    select * exclude (line), line as raw, string_split(line, ',') as fields from lines
)"""

# A record goes over several lines when a line with an odd number of quotes opens it and the next such line closes
# it. A stray quote must not swallow the lines behind it: a pair counts only if it makes one whole record of the
# right width; in a run of possible pairs every second one starts with the end of the pair before it.
# `place` numbers the odd lines of a file; the lines behind an odd line carry its place.
SPLIT_QUOTED_LINES = """
marked as (
    select *, sum(is_odd::integer) over (partition by file_no order by line_no rows unbounded preceding) as place
    from (select *, coalesce((length(line) - length(replace(line, '"', ''))) % 2 = 1, false) as is_odd from lines)
),
short_spans as (
    select file_no, place from marked where place > 0 group by all having count(*) < $max_lines
),
openings as (
    select file_no, place, string_agg(coalesce(line, ''), chr(10) order by line_no) as text
    from marked semi join short_spans using (file_no, place)
    group by all
),
joined_pairs as (
    select openings.file_no, openings.place, openings.text || chr(10) || closings.line as text
    from openings
    join marked as closings
        on closings.file_no = openings.file_no and closings.place = openings.place + 1 and closings.is_odd
),
possible_pairs as (
    select *, place - row_number() over (partition by file_no order by place) as run
    from joined_pairs
    where
        regexp_matches(text, $record_pattern)
        and len(regexp_extract_all(',' || text, $field_pattern, 1)) = $width
),
pairs as (
    select file_no, place, text
    from (select *, row_number() over (partition by file_no, run order by place) as place_in_run from possible_pairs)
    where place_in_run % 2 = 1
),
raw_records as (
    select
        marked.* exclude (line, is_odd, place),
        case when opened.text is not null and marked.is_odd then opened.text else marked.line end as raw
    from marked
    left join pairs as opened on opened.file_no = marked.file_no and opened.place = marked.place
    left join pairs as closed
        on closed.file_no = marked.file_no and closed.place = marked.place - 1 and marked.is_odd
    where closed.place is null and (opened.place is null or marked.is_odd)
),
split_records as (
    select
        *,
        case
            when not contains(raw, '"') then string_split(raw, ',')
            when regexp_matches(raw, $record_pattern) then
                list_transform(
                    regexp_extract_all(',' || raw, $field_pattern, 1),
                    lambda field: case
                        when starts_with(field, '"') then replace(field[2:-2], '""', '"') else field
                    end
                )
        end as fields
    from raw_records
)"""


def typed_records(contract: Contract, header: tuple[str, ...]) -> str:
    """Return the CTEs that turn fields into values and the final select in the column order of `parsed`."""
    texts, values, found = [], [], []
    for column in contract.columns:
        place = header.index(column.name) + 1 if column.name in header else None
        text = f"nullif(fields[{place}], '')" if place else "null::varchar"
        texts.append(f"case when defect is null then {text} end as {column.name}_text")
        values.append(f"{_value(column)} as {column.name}")
        found.append(f"when '{column.name}' then {column.name}_text")
    reasons = "\n            ".join(case for column in contract.columns for case in _reasons(column))
    names = ", ".join(column.name for column in contract.columns)
    # `*_text` columns are cut off by naming what goes on.
    return f"""
texts as (
    select delivery_no, file_no, line_no, earliest, latest, is_opaque, raw, defect, {", ".join(texts)}
    from records
),
typed as (
    select *, {", ".join(values)}
    from texts
),
judged as (
    select
        *,
        case
            when defect is not null then ':' || defect
            {reasons}
        end as failure
    from typed
)
select
    delivery_no,
    file_no,
    line_no,
    {names},
    nullif(split_part(failure, ':', 1), '') as failed_column,
    split_part(failure, ':', 2) as reason_code,
    case split_part(failure, ':', 1) {" ".join(found)} end as found,
    case when failure is not null then replace(replace(raw, $broken, ''), $long, '') end as raw
from judged
"""  # noqa: S608  names and codes come from the contract


def _value(column: Column) -> str:
    """Return the SQL that reads the text of a column; null when the text is empty or wrong."""
    text = f"{column.name}_text"
    if column.kind is Kind.TEXT:
        return text
    if column.kind is Kind.ACCESS_POINT:
        return f"nullif(upper(trim({text})), '')"
    if column.kind is Kind.MSISDN:
        return (
            f"case when is_opaque then {text} "
            f"else nullif(regexp_extract({text}, '{_PATTERNS[Kind.MSISDN]}', 1), '') end"
        )
    if column.kind in (Kind.SP_CODE, Kind.SERVICE_CODE):
        return f"case when regexp_full_match({text}, '{_PATTERNS[column.kind]}') then {text} end"
    if column.kind is Kind.CODE:
        return f"case when {text} in ({_literals(column.values)}) then {text} end"
    if column.kind is Kind.BOOLEAN:
        return f"case {text} when 'true' then true when 'false' then false end"
    if column.kind is Kind.CODE_NUMBER:
        number = _integer(text)
        return f"case when {number} in ({', '.join(column.values)}) then {number}::integer end"
    if column.kind in (Kind.INTEGER, Kind.FEE):
        return _integer(text)
    if column.kind is Kind.TIME:
        return _time(text)
    first_day = f" and substr({text}, 9, 2) = '01'" if column.kind is Kind.MONTH else ""
    return (
        f"case when regexp_full_match({text}, '{_PATTERNS[Kind.DATE]}') and substr({text}, 1, 4) <> '0000'"
        f"{first_day} then try_cast({text} as date) end"
    )


def _integer(text: str) -> str:
    return f"case when regexp_full_match({text}, '{_PATTERNS[Kind.INTEGER]}') then try_cast({text} as bigint) end"


def _time(text: str) -> str:
    # DuckDB reads 24:00:00 as the next midnight; the pattern lets through no other hour 24.
    compact = (
        f"substr({text}, 1, 4) || '-' || substr({text}, 5, 2) || '-' || substr({text}, 7, 2) || ' ' || "
        f"substr({text}, 9, 2) || ':' || substr({text}, 11, 2) || ':' || substr({text}, 13, 2)"
    )
    long_form = f"case when regexp_full_match({text}, '[0-9]{{14}}') then {compact} else {text} end"
    return (
        f"case when regexp_full_match({long_form}, '{_PATTERNS[Kind.TIME]}') and substr({text}, 1, 4) <> '0000' "
        f"and not starts_with({long_form}, '9999-12-31 24') then try_cast({long_form} as timestamp) end"
    )


def _reasons(column: Column) -> list[str]:
    """Return the `when … then 'column:code'` branches of one column, in the order they are judged."""
    name, text = column.name, f"{column.name}_text"
    branches = []
    if column.required:
        branches.append(f"when {text} is null then '{name}:missing_value'")
    if column.required_when:
        other, values = column.required_when
        branches.append(f"when {text} is null and {other} in ({_literals(values)}) then '{name}:missing_value'")
    if column.kind in _BAD_FORM:
        branches.append(f"when {text} is not null and {name} is null then '{name}:{_BAD_FORM[column.kind]}'")
    if column.empty_when:
        other, values = column.empty_when
        branches.append(f"when {text} is not null and {other} in ({_literals(values)}) then '{name}:bad_code'")
    if column.kind is Kind.FEE:
        branches.append(f"when {name} < 0 then '{name}:negative_fee'")
    if column.is_record_time:
        branches.append(f"when {name} not between earliest and latest then '{name}:outside_lateness'")
    return branches


def _literals(values: tuple[str, ...]) -> str:
    return ", ".join(f"'{value}'" for value in values)
