"""How answers look on a terminal: query results, an explanation, the status. Nothing is computed here."""

import csv
from collections.abc import Iterable
from typing import Any, TextIO

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from cleanbill.day_ranges import in_words
from cleanbill.explain import Explanation
from cleanbill.quarantine import QuarantineEntry
from cleanbill.query import QueryResult
from cleanbill.status import Status

WIDTH_OF_FILES = 240
NARROW = 24  # a column of shorter values is never folded
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\u00a0", " ")


def show(renderable: RenderableType) -> None:
    """Print to standard output, into a file or pipe wide enough for a table's lines to stay whole."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH_OF_FILES)
    console.print(renderable)


def cell(value: Any) -> Text:
    """Return a value as inert text: no markup, no control characters."""
    text = "" if value is None else f"{value:,}" if type(value) is int else str(value)
    return Text("".join(character if character.isprintable() else "\ufffd" for character in text))


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> Table:
    """Return a plain table; numbers are put to the right."""
    rows = [list(row) for row in rows]
    view = Table(title=title or None, title_justify="left", title_style="bold", header_style="bold", box=None)
    for position, column in enumerate(columns):
        values = [row[position] for row in rows]
        view.add_column(
            Text(column),
            justify="right" if any(type(value) in (int, float) for value in values) else "left",
            overflow="fold",
            no_wrap=all(len(cell(value)) <= NARROW for value in values),
        )
    for row in rows:
        view.add_row(*map(cell, row))
    return view


def pairs(title: str, values: Iterable[tuple[str, Any]]) -> Table:
    """Return names and values, one per line."""
    view = Table(title=title or None, title_justify="left", title_style="bold", show_header=False, box=None)
    view.add_column(style="dim")
    view.add_column(overflow="fold")
    for name, value in values:
        view.add_row(Text(name), cell("none" if value is None else value))
    return view


def query_view(result: QueryResult) -> RenderableType:
    """Return the rows of an answer as a table."""
    parts: list[RenderableType] = [table("", result.columns, result.rows), Text(_rows_in_words(result), style="dim")]
    return Group(*parts)


def _rows_in_words(result: QueryResult) -> str:
    more = ", more were left out (--max-rows)" if result.is_cut else ""
    return f"{len(result.rows):,} row{'' if len(result.rows) == 1 else 's'}{more}"


def write_csv(result: QueryResult, target: TextIO) -> None:
    """Write the rows of an answer as CSV that a spreadsheet does not read as formulas."""
    writer = csv.writer(target)  # RFC 4180: also a lone CR is then inside quotes
    writer.writerow([_neutral(column) for column in result.columns])
    writer.writerows([_neutral(value) for value in row] for row in result.rows)


def _neutral(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value


def explanation_view(explanation: Explanation) -> RenderableType:
    """Return an explanation, from the decision down to the input lines."""
    month = f"{explanation.month:%Y-%m}"
    spell, service = explanation.spell, explanation.service
    parts: list[RenderableType] = [Text(f"Subscription {explanation.subscription_id}, billing month {month}")]
    parts.append(Text(f"as of {explanation.as_of} (the warehouse's last finished build)", style="dim"))
    if explanation.is_unfinished:
        parts.append(Text("a build has begun and not ended: some rows may be newer than that", style="yellow"))
    if explanation.decision:
        decision = explanation.decision
        verdict = f"{decision['disposition']} ({decision['reason']}): charged {decision['charged_li']:,} li"
        parts.append(Text(f"Decision: {verdict} of a fee of {decision['fee_li']:,} li", style="bold"))
    else:
        parts.append(Text(f"No decision for {month}: {explanation.no_decision}", style="bold"))
    parts.append(
        pairs(
            "\nSubscription",
            [
                ("number", spell["msisdn"]),
                ("SP, service", f"{spell['sp_code']} {spell['service_code']}"),
                ("name, class", f"{service.get('service_name')} ({service.get('service_class')})" if service else None),
                ("province, channel", f"{spell['province']}, {spell['channel']}"),
                ("status", spell["status"]),
                ("first order in history", spell["first_ordered_at"]),
                ("this spell", f"{spell['ordered_at']} to {spell['ended_at'] or 'now'} {spell['end_reason'] or ''}"),
                ("trial over, first billable month", f"{spell['first_billable_month']:%Y-%m}"),
                ("second confirmation", spell["confirmed_at"]),
            ],
        )
    )
    parts.append(
        table(
            "\nRules in their order (the first that holds decides)",
            ["rule", "holds", "fact"],
            [(rule.disposition, rule.answer, rule.fact) for rule in explanation.rules],
        )
    )
    if explanation.waivers:
        parts.append(_dicts("\nMissing days it does without, by waiver", explanation.waivers, ""))
    parts.append(_dicts("\nCounted use by month", explanation.usage, "no counted use"))
    parts.append(_dicts("\nAnomalies", explanation.anomalies, "none"))
    parts.append(_dicts("\nSilence", [explanation.silence] if explanation.silence else [], "not silent, or not judged"))
    parts.append(
        table(
            "\nPolicy rows that applied",
            ["table", "looked up for", "row"],
            [
                (row.table, row.valid_on, ", ".join(f"{k}={v}" for k, v in row.values.items() if v is not None))
                for row in explanation.policy
            ],
        )
    )
    parts.append(
        table(
            "\nInput lines behind it",
            ["extract", "business date", "source", "delivery", "file", "line", "content"],
            [
                (
                    line.extract,
                    line.business_date,
                    line.source,
                    line.delivery,
                    line.file_name,
                    line.line_no,
                    line.content,
                )
                for line in explanation.lines
            ],
        )
    )
    for extract, count in explanation.lines_left_out.items():
        parts.append(Text(f"and {count:,} more lines of {extract}", style="dim"))
    return Group(*parts)


def _dicts(title: str, rows: list[dict[str, Any]], otherwise: str) -> RenderableType:
    if not rows:
        return Group(Text(title, style="bold"), Text(otherwise))
    return table(title, rows[0].keys(), [row.values() for row in rows])


def status_view(status: Status) -> RenderableType:
    """Return the five questions of a data root: delivered, missing, gated, published, exported."""
    parts: list[RenderableType] = [
        pairs(
            "",
            [
                ("data root", status.home),
                ("warehouse as of", status.as_of),
                ("published as of", status.published_as_of),
                ("published at", status.published_at),
            ],
        )
    ]
    parts += [Text(f"ALARM: {alarm}", style="bold red") for alarm in status.alarms]
    parts += [Text(f"note: {note}", style="yellow") for note in status.notes]
    parts.append(
        table(
            "\nDelivered (in force)",
            ["extract", "source", "first day", "last day", "days", "rows loaded", "quarantined", "duplicates"],
            [
                (
                    pair.extract,
                    pair.source,
                    pair.first_day,
                    pair.last_day,
                    pair.days,
                    pair.rows_loaded,
                    pair.rows_quarantined,
                    pair.rows_duplicate,
                )
                for pair in status.delivered
            ],
        )
    )
    parts.append(
        table(
            "\nMissing",
            ["extract", "source", "days", "which"],
            [(pair.extract, pair.source, pair.days, in_words(pair.ranges)) for pair in status.missing],
        )
        if status.missing
        else Group(
            Text("\nMissing", style="bold"),
            Text("no expected day up to the as-of date" if status.as_of or status.published_as_of else "not known yet"),
        )
    )
    if status.refused:
        parts.append(
            table(
                "\nRefused deliveries",
                ["extract", "business date", "source", "delivery", "status", "reason"],
                [
                    (one.extract, one.business_date, one.source, one.delivery, one.status, one.reason)
                    for one in status.refused
                ],
            )
        )
    if status.waivers:
        parts.append(
            table(
                "\nWaivers (waivers.csv as of the last build)",
                ["extract", "source", "day", "expires on", "effect", "reason", "asked", "approved"],
                [
                    (
                        one.extract,
                        one.source,
                        one.day,
                        one.expires_on,
                        one.effect,
                        one.reason,
                        one.requested_by,
                        one.approved_by,
                    )
                    for one in status.waivers
                ],
            )
        )
    if status.withdrawn:
        parts.append(
            table(
                "\nWithdrawn deliveries (withdrawals.csv as of the last run)",
                ["extract", "business date", "source", "delivery", "effect", "reason", "asked", "approved"],
                [
                    (
                        one.key.extract,
                        one.key.business_date,
                        one.key.source,
                        one.key.delivery,
                        one.effect,
                        one.reason,
                        one.requested_by,
                        one.approved_by,
                    )
                    for one in status.withdrawn
                ],
            )
        )
    parts.append(
        table(
            "\nGates (newest verdict of each stage)",
            ["stage", "verdict", "checked at", "run", "not met"],
            [
                (gate.stage, "green" if gate.passed else "RED", gate.checked_at, gate.run_id, "; ".join(gate.failures))
                for gate in status.gates
            ],
        )
    )
    if status.newest_report is not None:
        parts.append(Text(f"report: {status.newest_report}", overflow="fold"))
    parts.append(
        table(
            "\nBilling feeds",
            ["month", "state", "as of", "charges", "charged li", "folder"],
            [
                (
                    month.month,
                    month.state,
                    month.as_of,
                    month.charges,
                    month.charged_li,
                    month.folder.relative_to(status.home) if month.folder.is_relative_to(status.home) else month.folder,
                )
                for month in status.exported
            ],
        )
        if status.exported
        else Group(Text("\nBilling feeds", style="bold"), Text("none"))
    )
    return Group(*parts)


def quarantine_view(entries: list[QuarantineEntry], max_rows: int) -> RenderableType:
    """Return what is kept out, one line per stage, reason, extract, source and day, with its sum."""
    if not entries:
        return Text("nothing is kept out")
    parts: list[RenderableType] = [
        table(
            "",
            ["at", "reason", "extract", "source", "day", "rows", "file", "line", "example"],
            [
                (one.stage, one.reason, one.extract, one.source, one.day, one.rows, one.file, one.line, one.example)
                for one in entries[:max_rows]
            ],
        )
    ]
    if len(entries) > max_rows:
        parts.append(Text(f"… and {len(entries) - max_rows:,} more (--max-rows, or choose by --reason, --source …)"))
    sums: dict[tuple[str, str], int] = {}
    for one in entries:
        sums[one.stage, one.reason] = sums.get((one.stage, one.reason), 0) + one.rows
    counts = "; ".join(f"{rows:,} {reason} at {stage}" for (stage, reason), rows in sums.items())
    parts.append(Text(f"rows in all: {counts}"))
    return Group(*parts)
