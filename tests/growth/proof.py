"""Prints the reference table of the labelled data beside ours (`make growth-proof`); needs ../shared/data/growth."""

import json
import re
import sys
from pathlib import Path

from cleanbill.growth_series import judge_file
from cleanbill.settings import REPOSITORY

DATA = REPOSITORY.parent / "shared" / "data"
OUTBREAK_WARM_UP = 28  # weeks
TAXI_WARM_UP = 35  # days
OURS = "**service_growth**"


def outbreaks(path: Path) -> tuple[int, int, int, int]:
    """Return (outbreaks found, outbreaks, false weeks, weeks without a label), after the warm-up."""
    rows = judge_file(path, "weekly", is_two_sided=False).dicts()
    first = {}
    for row in rows:
        first[row["series"]] = min(row["position"], first.get(row["series"], row["position"]))
    rows = [row for row in rows if row["position"] >= first[row["series"]] + OUTBREAK_WARM_UP]
    labelled = {row["series"] for row in rows if row["is_labelled"]}  # one outbreak a series
    found = {row["series"] for row in rows if row["is_labelled"] and row["is_alert"]}
    calm = [row for row in rows if not row["is_labelled"]]
    return len(found), len(labelled), sum(row["is_alert"] for row in calm), len(calm)


def taxi(path: Path, windows_path: Path) -> tuple[int, int, int, int]:
    """Return (windows found, windows, false days, days outside of them), after the warm-up."""
    windows = [(start[:10], end[:10]) for start, end in json.loads(windows_path.read_text())]
    rows = judge_file(path, "daily", is_two_sided=True).dicts()
    rows = rows[TAXI_WARM_UP:]
    alerts = [row["time"][:10] for row in rows if row["is_alert"]]
    found = sum(any(start <= day <= end for day in alerts) for start, end in windows)
    calm = [row["time"][:10] for row in rows if not any(s <= row["time"][:10] <= e for s, e in windows)]
    return found, len(windows), len(set(alerts) & set(calm)), len(calm)


def table(lines: list[str], after: str, row: str) -> list[str]:
    """Return the rows of the markdown table whose header holds a word, with ours below."""
    start = next(number for number, line in enumerate(lines) if line.startswith("| rule") and after in line)
    end = next((number for number in range(start, len(lines)) if not lines[number].startswith("|")), len(lines))
    return [*lines[start:end], row]


def main() -> int:
    growth = DATA / "growth"
    if not growth.is_dir():
        print(f"{growth} is not there: nothing to hold the rule against. The tests use generated series instead.")
        return 0
    lines = re.split(r"\n", (DATA / "README.md").read_text(encoding="utf-8"))
    found, all_of_them, false, calm = outbreaks(growth / "outbreaks.csv")
    print("Outbreaks by week, upward:")
    ours = f"| {OURS} | {found}/{all_of_them} | {100 * false / calm:.2f} % ({false}/{calm}) |"
    print("\n".join(table(lines, "outbreaks found", ours)))
    found, all_of_them, false, calm = taxi(growth / "nyc_taxi.csv", growth / "nyc_taxi_windows.json")
    print("\nTaxi rides by day, two-sided:")
    print("\n".join(table(lines, "windows found", f"| {OURS} | {found}/{all_of_them} | {false}/{calm} |")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
