"""Services made up from a known distribution: how often the growth rule is wrong, and how much of an event it finds.

python -m tests.growth.simulation null 5000          share of service-days with an alert where nothing happened
python -m tests.growth.simulation recall FOLDER      recall by size, duration and volume: recall.md, recall.svg
"""

import sys
from pathlib import Path

import duckdb
import numpy as np
from cleanbill.growth_series import Verdicts, judge

HOLIDAY_WEEK, SURGE, OUTAGE, MISSING = range(100, 107), (140, 141), 120, 90
VOLUMES, SIZES, DURATIONS = (2, 10, 50, 250), (2, 3, 5, 10), (1, 3, 7)
RAMP_SIZES, RAMP_DAYS = (2, 3, 5), 21


def market(services: int, days: int, seed: int) -> np.ndarray:
    """Return the means (services x days) of an ordinary market: weekdays, the 1st, 20th and 21st, drift."""
    rng = np.random.default_rng(seed)
    day = np.arange(days)
    volume = np.exp(rng.normal(np.log(8), 1.3, (services, 1)))
    week = np.exp(rng.normal(0, 0.15, (services, 7)))
    drift = np.exp(rng.normal(0, 0.05, (services, 1)) * day / days)
    month = np.select([day % 30 == 0, day % 30 == 19, day % 30 == 20], [1.6, 1.2, 1.3], 1.0)
    return volume * week[:, day % 7] * drift * month ** np.exp(rng.normal(0, 0.1, (services, 1)))


def draw(means: np.ndarray, seed: int) -> np.ndarray:
    """Draw counts: every other service Poisson, the others with a variance of 1 to 4 times the mean."""
    rng = np.random.default_rng(seed)
    dispersion = 1 + 1e-6 + 3 * rng.random((len(means), 1))
    counts = rng.negative_binomial(means / (dispersion - 1), 1 / dispersion).astype(float)
    counts[::2] = rng.poisson(means[::2])
    return counts


def without_anomaly(services: int, days: int = 180, seed: int = 1) -> np.ndarray:
    """Return counts with a holiday week, a surge of the whole market and a day of which 15 % arrived."""
    rng = np.random.default_rng(seed)
    means = market(services, days, seed)
    means[:, list(HOLIDAY_WEEK)] *= np.exp(rng.normal(np.log(0.7), 0.15, (services, 1)))
    means[:, list(SURGE)] *= np.exp(rng.normal(np.log(3), 0.25, (services, 1)))
    counts = draw(means, seed)
    counts[:, OUTAGE] = np.floor(counts[:, OUTAGE] * 0.15)
    return counts


def judged(counts: np.ndarray, missing: tuple[int, ...] = ()) -> Verdicts:
    """Judge counts (services x days) by the SQL of service_growth; days of `missing` were never delivered."""
    import pandas

    services, days = counts.shape
    frame = pandas.DataFrame(
        {
            "service": np.repeat(np.arange(services), days),
            "position": np.tile(np.arange(days), services),
            "count": counts.ravel(),
        }
    )
    frame = frame[~frame["position"].isin(missing)]
    with duckdb.connect(config={"threads": 2, "memory_limit": "6GB"}) as connection:
        connection.register("frame", frame)
        connection.execute(
            "create temp table readings as select 's' || lpad(service::varchar, 5, '0') as series, "
            "position::bigint as position, position::varchar as moment, count, 1 as readings, "
            "null::boolean as is_labelled from frame"
        )
        return judge(connection, "daily")


def null_table(services: int) -> list[str]:
    """Return lines on a market without an anomaly: alerts by side, and what the special days were called."""
    rows = [row for row in judged(without_anomaly(services), (MISSING,)).dicts() if row["expected"] is not None]
    days = len(rows)
    alerts = [row for row in rows if row["is_alert"]]
    lines = [f"{services:,} services, {days:,} service-days judged"]
    for reason in ("burst", "rise", "drop"):
        found = sum(row["reason"] == reason for row in alerts)
        lines.append(f"  {reason}: {found} alerts, {100 * found / days:.4f} %")
    for title, wanted in (("holiday week", HOLIDAY_WEEK), ("surge", SURGE)):
        lines.append(f"  on the {title}: {sum(row['position'] in wanted for row in alerts)} alerts")
    lines.append(f"  all: {100 * len(alerts) / days:.4f} % of service-days")
    return lines


def events(each: int) -> list[tuple]:
    """Return (volume, kind, size, days) of every service with an event."""
    bursts = [("burst", size, days) for size in SIZES for days in DURATIONS]
    ramps = [("ramp", size, RAMP_DAYS) for size in RAMP_SIZES]
    return [(volume, *event) for volume in VOLUMES for event in bursts + ramps for _ in range(each)]


def recall(each: int, seed: int = 2) -> dict[tuple, float]:
    """Return the share of events with an alert within their days (or the day after), by volume, kind, size, days."""
    rng = np.random.default_rng(seed)
    planted = events(each)
    days = 150
    means = market(2 * len(planted), days, seed)
    starts = rng.integers(70, 120, len(planted))
    for row, ((volume, kind, size, length), start) in enumerate(zip(planted, starts, strict=True)):
        means[row] *= volume / means[row].mean()
        growth = np.full(length, size) if kind == "burst" else 1 + (size - 1) * np.arange(1, length + 1) / length
        means[row, start : start + length] *= growth
    alerts = {(row["series"], row["position"]) for row in judged(draw(means, seed)).dicts() if row["is_alert"]}
    found: dict[tuple, list[bool]] = {}
    for row, (event, start) in enumerate(zip(planted, starts, strict=True)):
        window = range(start, start + event[3] + 1)
        found.setdefault(event, []).append(any((f"s{row:05d}", day) in alerts for day in window))
    return {event: sum(hits) / len(hits) for event, hits in found.items()}


def recall_markdown(shares: dict[tuple, float], each: int) -> str:
    kinds = list(dict.fromkeys(event[1:] for event in shares))
    lines = [
        f"Share of planted events that raised an alert, {each} services a cell, in a market of as many calm ones.",
        "",
        "| event | " + " | ".join(f"{volume} orders a day" for volume in VOLUMES) + " |",
        "|---|" + "---|" * len(VOLUMES),
    ]
    for kind, size, days in kinds:
        name = (
            f"{size} × for {days} day{'s' * (days > 1)}" if kind == "burst" else f"slow rise to {size} × in {days} days"
        )
        cells = (f"{100 * shares[volume, kind, size, days]:.0f} %" for volume in VOLUMES)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def recall_svg(shares: dict[tuple, float]) -> str:
    """Draw recall by volume, one line for each size of a one-day burst and each slow rise."""
    chosen = [("burst", size, 1) for size in SIZES] + [("ramp", size, RAMP_DAYS) for size in RAMP_SIZES]
    colours = ("#f5b7b1", "#ec7063", "#cb4335", "#78281f", "#aed6f1", "#3498db", "#1b4f72")
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 560 300" font-family="sans-serif" font-size="11">',
        '<rect width="560" height="300" fill="white"/>',
        '<text x="40" y="18" font-size="13">Events found, by orders a day (red: one-day burst, blue: slow rise)</text>',
    ]
    for level in (0, 50, 100):
        parts.append(f'<text x="34" y="{264 - 2.2 * level}" text-anchor="end">{level} %</text>')
    for place, volume in enumerate(VOLUMES):
        parts.append(f'<text x="{50 + 110 * place}" y="284" text-anchor="middle">{volume}</text>')
    for colour, (kind, size, days) in zip(colours, chosen, strict=True):
        heights = [260 - 220 * shares[volume, kind, size, days] for volume in VOLUMES]
        points = " ".join(f"{50 + 110 * place},{height:.0f}" for place, height in enumerate(heights))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
    for place, (colour, (kind, size, _)) in enumerate(zip(colours, chosen, strict=True)):
        name = f"{size} × burst" if kind == "burst" else f"rise to {size} ×"
        parts.append(f'<text x="420" y="{60 + 16 * place}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>", ""])


def main(arguments: list[str]) -> None:
    if arguments[0] == "null":
        print("\n".join(null_table(int(arguments[1]))))
        return
    folder, each = Path(arguments[1]), int(arguments[2]) if len(arguments) > 2 else 30
    shares = recall(each)
    (folder / "recall.md").write_text(recall_markdown(shares, each), encoding="utf-8")
    (folder / "recall.svg").write_text(recall_svg(shares), encoding="utf-8")
    print(recall_markdown(shares, each))


if __name__ == "__main__":
    main(sys.argv[1:])
