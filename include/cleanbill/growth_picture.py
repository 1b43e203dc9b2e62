"""One picture of a service's growth around a day: its usual range, what it counted, and its SP's other services.

Drawn as a small SVG by hand: no script, no font file, nothing from a network, the same bytes for the same rows.
"""

from datetime import date, timedelta
from html import escape
from pathlib import Path

import duckdb

from cleanbill.errors import InputFileError
from cleanbill.settings import Settings, get_settings

DAYS_BEFORE, DAYS_AFTER = 42, 14
WIDTH, HEIGHT = 760, 300
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 48, 34
COLOURS = {"burst": "#c0392b", "rise": "#c0392b", "drop": "#2c6fbb", "continues": "#e59866"}
MARKED = "incomplete day"


def draw_growth(sp_code: str, service_code: str, day: date, settings: Settings | None = None) -> Path:
    """Write the picture of a service around a day to `reports/growth/`.

    Returns:
        The path of the SVG file.

    Raises:
        InputFileError: nothing is published, or service_growth has no such row.
    """
    settings = settings or get_settings()
    try:
        rows, others = _read(settings, sp_code, service_code, day)
    except duckdb.Error as error:
        found = type(error).__name__
        advice = "move the file away, the next run writes it"
        raise InputFileError(str(settings.published_marts), "published marts", found, advice) from None
    folder = settings.home / "reports" / "growth"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{sp_code}_{service_code}_{day}.svg"
    path.write_text(growth_svg(f"{sp_code} {service_code}", day, rows, others), encoding="utf-8")
    return path


def _read(settings: Settings, sp_code: str, service_code: str, day: date) -> tuple[list[dict], dict[date, float]]:
    """Return the service's rows around the day, and by day the middle of the ratios of the SP's other services."""
    path = settings.published_marts
    if not path.exists():
        raise InputFileError(str(path), "published marts", "none", "run the pipeline first: `cleanbill run`")
    wanted = {
        "sp": sp_code,
        "service": service_code,
        "first": day - timedelta(DAYS_BEFORE),
        "last": day + timedelta(DAYS_AFTER),
    }
    with duckdb.connect(str(path), read_only=True) as connection:
        answer = connection.execute(
            """
            select day, new_orders, expected, expected_low, expected_high, reason
            from service_growth
            where sp_code = $sp and service_code = $service and day between $first and $last
            order by day
            """,
            wanted,
        )
        names = [column[0] for column in answer.description]
        rows = [dict(zip(names, row, strict=True)) for row in answer.fetchall()]
        others = connection.execute(
            """
            select day, sum(new_orders) / sum(expected)
            from service_growth
            where sp_code = $sp and service_code <> $service and expected > 0 and day between $first and $last
            group by day
            """,
            wanted,
        ).fetchall()
    if day not in {row["day"] for row in rows}:
        raise InputFileError(
            f"service_growth of {sp_code} {service_code}",
            f"a row of {day}",
            "none",
            'take SP, service and day from `cleanbill query "select * from service_growth where is_alert"`',
        )
    return rows, dict(others)


def growth_svg(title: str, day: date, rows: list[dict], others: dict[date, float]) -> str:
    """Return the picture as text."""
    first, last = rows[0]["day"], rows[-1]["day"]
    span = max((last - first).days, 1)
    top = max(1.0, *(max(row["new_orders"], row["expected_high"] or 0) for row in rows)) * 1.05

    def x(at: date) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (at - first).days / span

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(value, top) / top

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" font-size="11" role="img">',
        f"<title>{escape(title)}, {day}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="18" font-size="14">{escape(title)}: new orders by day, around {day}</text>',
        f'<text x="{LEFT}" y="34" fill="#555">grey: usual range, dashes: expected, green: as the SP\'s other services; '
        "red: alert, orange: continues, blue: drop, hollow: incomplete</text>",
    ]
    for run in _runs(rows):
        upper = [f"{x(row['day']):.1f},{y(row['expected_high']):.1f}" for row in run]
        lower = [f"{x(row['day']):.1f},{y(row['expected_low']):.1f}" for row in reversed(run)]
        parts.append(f'<polygon points="{" ".join(upper + lower)}" fill="#ddd"/>')
        parts.append(_line([(x(row["day"]), y(row["expected"])) for row in run], "#666", ' stroke-dasharray="5 3"'))
        neighbours = [(x(row["day"]), y(row["expected"] * others[row["day"]])) for row in run if row["day"] in others]
        parts.append(_line(neighbours, "#27855a", ' stroke-dasharray="1 4" stroke-linecap="round"'))
    for value in (0, top / 2.1, top / 1.05):
        parts.append(f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:,.0f}</text>')
    for row in rows:
        if (row["day"] - first).days % 7 == 0:
            label = f"{row['day']:%m-%d}"
            parts.append(f'<text x="{x(row["day"]):.1f}" y="{HEIGHT - 12}" text-anchor="middle">{label}</text>')
    parts.append(_line([(x(row["day"]), y(row["new_orders"])) for row in rows if row["reason"] != MARKED], "#222", ""))
    parts += [_mark(x(row["day"]), y(row["new_orders"]), row["reason"]) for row in rows]
    return "\n".join([*filter(None, parts), "</svg>", ""])


def _runs(rows: list[dict]) -> list[list[dict]]:
    """Split the rows where there is no expectation."""
    runs: list[list[dict]] = [[]]
    for row in rows:
        if row["expected"] is None:
            runs.append([])
        else:
            runs[-1].append(row)
    return [run for run in runs if run]


def _line(points: list[tuple[float, float]], colour: str, style: str) -> str:
    if len(points) < 2:
        return ""
    path = " ".join(f"{left:.1f},{top:.1f}" for left, top in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.4"{style}/>'


def _mark(left: float, top: float, reason: str) -> str:
    if reason == MARKED:
        return f'<circle cx="{left:.1f}" cy="{top:.1f}" r="3" fill="white" stroke="#222"/>'
    colour = COLOURS.get(reason)
    return f'<circle cx="{left:.1f}" cy="{top:.1f}" r="4" fill="{colour}"/>' if colour else ""
