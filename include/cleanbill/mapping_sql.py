"""Turn a source mapping into SQL: one statement per foreign file and per kind of record.

Every text of the mapping is a bound parameter and every identifier is made here (c1, d1, r1 …), so that nothing
a mapping or a foreign header says becomes SQL.

A converted value has two columns: the value, and beside it a reason code when the foreign value cannot be
converted. Nothing is guessed: an unknown code, a fraction of a li or an impossible day is a reason code.
"""

# ruff: noqa: S608 - every identifier is numbered, a checked name or of the contract; every text is bound

from dataclasses import dataclass, field
from datetime import date

from cleanbill.contract import CONTRACTS, Kind
from cleanbill.source_mapping import (
    TEMPLATE_PART,
    Condition,
    Record,
    SourceMapping,
    Value,
    assumed_columns,
    day_value,
)

LI_PER_UNIT = {"li": (1, 0), "fen": (10, 1), "yuan": (1000, 3)}  # factor, decimals that are exact
COMPARISONS = {"equal": "=", "not_equal": "<>", "below": "<", "above": ">", "at_most": "<=", "at_least": ">="}
COMPARED_AS = {"text": "{}", "number": "try_cast({} as decimal(38, 6))", "date": "try_cast({} as timestamp)"}
CONSENTING_ACTIONS = ("order", "replace")


@dataclass(frozen=True)
class Term:
    """A value in SQL: the text (null if empty) and the reason code (null if it could be converted)."""

    text: str
    error: str | None = None


@dataclass
class Statement:
    """SQL text under construction with its bound parameters."""

    parameters: dict[str, object] = field(default_factory=dict)
    sql: str = ""

    def bind(self, value: object) -> str:
        """Return the placeholder of a value."""
        for name, known in self.parameters.items():
            if type(known) is type(value) and known == value:
                return f"${name}"
        name = f"p{len(self.parameters) + 1}"
        self.parameters[name] = value
        return f"${name}"


def convert(statement: Statement, value: Value, terms: dict[str, Term], keeps_time: bool = True) -> Term:
    """Return a mapping value as SQL over the columns named by `terms`.

    Args:
        statement: takes the bound parameters.
        value: what the mapping says.
        terms: foreign column name → SQL.
        keeps_time: False for contract columns that hold a day only.
    """
    term = _origin(statement, value, terms)
    if value.nothing:
        nothing = f"list_contains({statement.bind(value.nothing)}, {term.text})"
        term = Term(f"case when not {nothing} then {term.text} end", term.error)
    if value.strip_leading_zeros:
        term = Term(f"ltrim({term.text}, '0')", term.error)
    if value.codes is not None:
        term = _decode(statement, value.codes, term)
    if value.unit is not None:
        term = _to_li(value.unit, term)
    if value.time is not None:
        term = _to_time(statement, value.time, value.end_of_day, keeps_time, term)
    return term


def _origin(statement: Statement, value: Value, terms: dict[str, Term]) -> Term:
    if value.constant is not None:
        return Term(f"nullif({statement.bind(value.constant)}, '')")
    if value.column is not None:
        return terms[value.column]
    pieces, errors = [], []
    for number, piece in enumerate(TEMPLATE_PART.split(value.template or "")):
        if number % 2 == 0:
            pieces.append(statement.bind(piece))
        else:
            pieces.append(f"coalesce({terms[piece].text}, '')")
            errors.append(terms[piece].error)
    return Term(f"nullif({' || '.join(pieces)}, '')", first_error(errors))


def _decode(statement: Statement, codes: dict[str, str], term: Term) -> Term:
    """A code the list does not know is `bad_code`; an empty cell stays empty unless '' is in the list."""
    cases = " ".join(
        f"when coalesce({term.text}, '') = {statement.bind(foreign)} then {statement.bind(ours)}"
        for foreign, ours in codes.items()
    )
    known = f"list_contains({statement.bind(list(codes))}, {term.text})"
    unknown = f"case when {term.text} is not null and not {known} then 'bad_code' end"
    return Term(f"nullif(case {cases} end, '')", first_error([term.error, unknown]))


def _to_li(unit: str, term: Term) -> Term:
    """Exact decimals only: what is no whole number of li is `bad_number`, never rounded."""
    factor, decimals = LI_PER_UNIT[unit]
    fraction = f"[0-9]{{1,{decimals}}}0*" if decimals else "0+"
    is_exact = f"regexp_full_match({term.text}, '[+-]?[0-9]{{1,15}}(\\.{fraction})?')"
    li = f"try_cast(try_cast({term.text} as decimal(30, 6)) * {factor} as bigint)::varchar"
    wrong = f"case when not {is_exact} then 'bad_number' end"
    return Term(f"case when {is_exact} then {li} end", first_error([term.error, wrong]))


def _to_time(statement: Statement, formats: list[str], end_of_day: bool, keeps_time: bool, term: Term) -> Term:
    """Write a time as the contract does. 24:00:00 stays with the day it ends, and so does its business date."""
    parsed = _first_parsed(statement, formats, term.text)
    ended = f"regexp_replace({term.text}, '24(:?00(:?00)?)$', '00\\1')"
    parsed_midnight = f"case when {ended} <> {term.text} then {_first_parsed(statement, formats, ended)} end"
    if not keeps_time:
        text = f"strftime({parsed}, '%Y-%m-%d')"
    elif end_of_day:
        text = f"strftime({parsed}, '%Y-%m-%d') || ' 24:00:00'"
    else:
        text = (
            f"coalesce(strftime({parsed}, '%Y-%m-%d %H:%M:%S'), strftime({parsed_midnight}, '%Y-%m-%d') || ' 24:00:00')"
        )
    wrong = f"case when {term.text} is not null and {text} is null then 'bad_time' end"
    return Term(text, first_error([term.error, wrong]))


def _first_parsed(statement: Statement, formats: list[str], text: str) -> str:
    """The first format that reads the text and writes it the same: DuckDB reads 9153 as 09:15:03 and 26 as a year."""
    parsed = []
    for one in formats:
        bound = statement.bind(one)
        read = f"try_strptime({text}, {bound})"
        parsed.append(f"case when lower(strftime({read}, {bound})) = lower(trim({text})) then {read} end")
    return f"coalesce({', '.join(parsed)})"


def first_error(errors: list[str | None]) -> str | None:
    """Return the first reason code among SQL terms; None when none of them can fail."""
    real = [error for error in errors if error is not None]
    return f"coalesce({', '.join(real)})" if real else None


def test_of(statement: Statement, condition: Condition, terms: dict[str, Term]) -> Term:
    """Return a condition as a boolean SQL term; a comparison with an empty cell does not hold."""
    left = terms[condition.column]
    if condition.test in ("present", "empty"):
        return Term(f"{left.text} is {'not ' if condition.test == 'present' else ''}null", left.error)
    right = terms[condition.other] if condition.other is not None else Term(statement.bind(condition.value))
    compared_as = COMPARED_AS[condition.kind]
    test = f"{compared_as.format(left.text)} {COMPARISONS[condition.test]} {compared_as.format(right.text)}"
    return Term(f"coalesce({test}, false)", first_error([left.error, right.error]))


def file_terms(mapping: SourceMapping, file_name: str) -> dict[str, Term]:
    """Return how each readable column of a file is called in its `row_<file>` table."""
    file = mapping.files[file_name]
    terms = {name: Term(f"c{number}") for number, name in enumerate(file.columns, 1)}
    for number, name in enumerate(file.derive, 1):
        terms[name] = Term(f"d{number}", f"d{number}_error")
    for lookup_number, (lookup_name, lookup) in enumerate(file.lookups.items(), 1):
        for name, term in file_terms(mapping, lookup.file).items():
            if "." not in name:
                prefix = f"l{lookup_number}_"
                terms[f"{lookup_name}.{name}"] = Term(prefix + term.text, term.error and prefix + term.error)
    return terms


def row_statement(mapping: SourceMapping, file_name: str) -> Statement:
    """Return the statement that makes `row_<file>` of `raw_<file>`: repeats marked, lookups joined, columns derived.

    Columns: line_no, lines, raw_text, problem (null: usable; 'duplicate': an equal row came before), c…, l…, d….
    """
    file = mapping.files[file_name]
    statement = Statement()
    own = [f"c{number}" for number in range(1, len(file.columns) + 1)]
    keys = [f"c{file.columns.index(name) + 1}" for name in file.key or []]
    if keys:
        # Only rows whose key comes again are compared in full.
        window = f"partition by {', '.join(keys)} order by line_no"
        usable = f"problem is null and {' and '.join(f'{key} is not null' for key in keys)}"
        same = " and ".join(f"rows.{key} = repeated.{key}" for key in keys)
        columns = f"line_no, lines, raw_text, {', '.join(own)}"
        keyed = f"""
            with rows as (
                select {columns}, case when {usable} then null else coalesce(problem, 'missing_value') end as problem
                from raw_{file_name}
            ),

            repeated as (
                select {", ".join(keys)} from rows where problem is null group by all having count(*) > 1
            )

            select {columns}, problem
            from rows anti join repeated on rows.problem is null and {same}
            union all
            select
                {columns},
                case
                    when row_number() over ({window}) = 1 then null
                    when [{", ".join(own)}] = first_value([{", ".join(own)}]) over ({window}) then 'duplicate'
                    else 'conflicting_key'
                end as problem
            from rows semi join repeated on rows.problem is null and {same}
        """
    else:
        keyed = f"select * from raw_{file_name}"
    joins, looked_up, missing = [], [], []
    for number, lookup in enumerate(file.lookups.values(), 1):
        there = mapping.files[lookup.file]
        matches = [
            f"keyed.c{file.columns.index(ours) + 1} = there{number}.c{there.columns.index(theirs) + 1}"
            for ours, theirs in lookup.match.items()
        ]
        joins.append(
            f"left join row_{lookup.file} as there{number} on there{number}.problem is null and {' and '.join(matches)}"
        )
        for term in file_terms(mapping, lookup.file).values():
            names = [name for name in (term.text, term.error) if name is not None]
            looked_up += [f"there{number}.{name} as l{number}_{name}" for name in names if not name.startswith("l")]
        if lookup.required:
            missing.append(f"when there{number}.line_no is null then 'no_match'")
    problem = (
        f"case when keyed.problem is not null then keyed.problem {' '.join(missing)} end" if missing else "problem"
    )
    terms = file_terms(mapping, file_name)
    known = {name: term for name, term in terms.items() if name not in file.derive}
    query = f"""
        select {", ".join(f"keyed.{name}" for name in ["line_no", "lines", "raw_text", *own])},
            {"keyed." if not missing else ""}{problem} as problem{"".join(f", {name}" for name in looked_up)}
        from ({keyed}) as keyed
        {" ".join(joins)}
    """
    for number, (name, value) in enumerate(file.derive.items(), 1):
        term = convert(statement, value, known)
        query = f"select *, {term.text} as d{number}, {term.error or 'null::varchar'} as d{number}_error from ({query})"
        known[name] = terms[name]
    statement.sql = f"create table row_{file_name} as {query}"
    return statement


def record_statement(mapping: SourceMapping, number: int, record: Record, file_day: date | None = None) -> Statement:
    """Return the statement that makes `record_<number>`: line_no, day, error, and the contract columns v1 ….

    `file_day` is the day of the record's file, for `day: file`.

    `error` is `<reason code> <contract column>` of the first value that cannot be converted.
    """
    statement = Statement()
    terms = file_terms(mapping, str(record.source_file))
    contract_columns = CONTRACTS[record.extract].columns
    values: dict[str, Term] = {}
    for column in contract_columns:
        if column.name in record.columns:
            keeps_time = column.kind not in (Kind.DATE, Kind.MONTH)
            values[column.name] = convert(statement, record.columns[column.name], terms, keeps_time)
        else:
            values[column.name] = Term("null::varchar")
    for name in assumed_columns(mapping, record.extract):
        values[name] = _assumed_confirmation(record.extract, values)
    errors = [(name, term.error) for name, term in values.items() if term.error is not None]
    if record.add_up is not None:
        text = values[record.add_up].text
        wrong = f"case when not coalesce(regexp_full_match({text}, '[+-]?[0-9]{{1,17}}'), false) then 'bad_number' end"
        errors.append((record.add_up, wrong))
    day = day_value(record)
    day_text = "null"
    if record.day == "file":
        day_text = f"{statement.bind(file_day)}::date"
    elif day is not None:
        day_term = convert(statement, day, terms)
        day_text = f"try_cast(left({day_term.text}, 10) as date)"
        errors += [("business_date", error) for error in (day_term.error,) if error is not None]
        errors.append(("business_date", f"case when {day_text} is null then 'missing_value' end"))
    tests = [test_of(statement, condition, terms) for condition in record.when]
    errors += [("when", test.error) for test in tests if test.error is not None]
    named_errors = [f"{error} || {statement.bind(' ' + name)}" for name, error in errors]
    # A row whose condition cannot be judged must not fall out in silence.
    wanted = [f"({test.text}{f' or {test.error} is not null' if test.error else ''})" for test in tests]
    statement.sql = f"""
        create table record_{number} as
        select
            line_no,
            {day_text} as day,
            {first_error([f"({error})" for error in named_errors]) or "null::varchar"} as error,
            {", ".join(f"{term.text} as v{position}" for position, term in enumerate(values.values(), 1))}
        from row_{record.source_file}
        where {" and ".join(["problem is null", *wanted])}
    """
    return statement


def _assumed_confirmation(extract: str, values: dict[str, Term]) -> Term:
    """`assume_confirmed`: an order was confirmed the moment it was made."""
    if extract == "relation_snapshot":
        return Term(values["ordered_at"].text)
    actions = ", ".join(f"'{action}'" for action in CONSENTING_ACTIONS)
    return Term(f"case when {values['action'].text} in ({actions}) then {values['event_time'].text} end")
