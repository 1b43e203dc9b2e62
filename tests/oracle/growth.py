"""Abnormal growth (R3) one service and one day at a time, from the written definition (DECISIONS.md, growth)."""

import csv
import math
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from itertools import pairwise
from statistics import NormalDist, median

from cleanbill.settings import REPOSITORY

ONE_DAY = timedelta(days=1)
COLUMNS = [
    *("sp_code", "service_code", "day", "new_orders", "expected", "ratio", "p_value", "q_value", "is_alert"),
    *("direction", "baseline_days", "reason", "expected_low", "expected_high", "rise_orders", "rise_expected"),
]


@dataclass
class Baseline:
    """What a service would count on a day."""

    size: int
    level: float
    level_size: int
    factor: float
    dispersion: float
    freedom: int
    drift: float


@cache
def policy() -> dict:
    """Return the daily parameters without an end."""
    path = REPOSITORY / "dbt_project" / "seeds" / "policy_growth.csv"
    with path.open(newline="", encoding="utf-8") as file:
        return {
            row["parameter"]: float(row["value"])
            for row in csv.DictReader(file)
            if row["cadence"] == "daily" and not row["valid_to"]
        }


@cache
def holidays() -> set:
    path = REPOSITORY / "dbt_project" / "seeds" / "working_day_exceptions.csv"
    with path.open(newline="", encoding="utf-8") as file:
        return {date.fromisoformat(row["day"]) for row in csv.DictReader(file) if row["is_working_day"] == "false"}


def quantile(values: list, share: float) -> float:
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    return ordered[low] + (place - low) * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low])


def capped(values: dict, scale: float) -> dict:
    """Clip values at a number of robust standard deviations around the median."""
    middle = median(values.values())
    robust = 1.4826 * median(abs(value - middle) for value in values.values())
    low = max(math.sqrt(middle + 1), robust)
    high = max(low, (quantile(list(values.values()), 0.85) - middle) / 1.0364)
    return {day: min(max(value, middle - scale * low), middle + scale * high) for day, value in values.items()}


def capped_by_slot(values: dict, scale: float, season: int) -> dict:
    """Clip values around the median of their slot of the season."""
    slots: dict = {}
    for age, value in values.items():
        slots.setdefault(age % season, []).append(value)
    usual = {slot: median(same) for slot, same in slots.items()}
    away = {age: (value - usual[age % season]) / math.sqrt(usual[age % season] + 1) for age, value in values.items()}
    middle = median(away.values())
    low = max(1.0, 1.4826 * median(abs(one - middle) for one in away.values()))
    high = max(low, (quantile(list(away.values()), 0.85) - middle) / 1.0364)
    return {
        age: usual[age % season] + math.sqrt(usual[age % season] + 1) * min(max(one, -scale * low), scale * high)
        for age, one in away.items()
    }


def mean(values: list) -> float:
    return sum(values) / len(values)


class Growth:
    """Judge every service on every day.

    Args:
        counts: new orders by service and day.
        known_from: since when the catalogue knows a service.
        complete: days on which every delivery of order events is there.
        first, last: the days judged.
    """

    def __init__(self, counts: dict, known_from: dict, complete: set, first: date, last: date) -> None:
        self.policy = policy()
        self.holidays = holidays()
        self.counts, self.known_from, self.complete = counts, known_from, complete
        self.first = first
        self.days = [first + ONE_DAY * n for n in range((last - first).days + 1)]
        self.services = sorted(set(counts) | set(known_from))
        whole = (
            "window_periods guard_periods season_length block_periods level_periods ramp_periods is_two_sided "
            "minimum_baseline market_groups_min market_groups_max market_spread_min"
        )
        for name in whole.split():
            setattr(self, name, int(self.policy[name]))
        self.baselines = {(s, d): b for d in self.days for s in self.services if (b := self.baseline(s, d))}
        self.shocks = {day: self.shock(day) for day in self.days}
        self.scores = {day: self.score_day(day) for day in self.days}
        self.judged = {day: self.judge_day(day) for day in self.days}

    def rows(self) -> list:
        return [row for day in self.days for row in self.rows_of(day)]

    def observed(self, service: tuple, day: date) -> float | None:
        if day not in self.complete or day < self.first:
            return None
        return float(self.counts.get(service, {}).get(day, 0))

    def calendar_day(self, day: date) -> str | None:
        if day in self.holidays:
            return "holiday"
        return {1: "1st", 20: "20th", 21: "20th"}.get(day.day)

    def baseline(self, service: tuple, day: date) -> Baseline | None:
        reach = self.window_periods + self.guard_periods
        known = {age: self.observed(service, day - ONE_DAY * age) for age in range(reach + 1)}
        start = self.known_from.get(service)
        is_known = start is not None and day >= max(start, self.first)
        if not is_known and not any(value for value in known.values()):
            return None
        oldest = (day - max(start, self.first)).days if is_known else max(age for age, n in known.items() if n)
        raw = {
            age: value
            for age, value in known.items()
            if self.guard_periods < age <= min(oldest, reach) and value is not None
        }
        if not raw:
            return Baseline(0, 0.0, 1, 1.0, 1.0, 1, 0.0)
        scale = self.policy["cap_scale"]
        season = self.season_length
        limited = capped_by_slot(raw, scale, season)
        usual, prior = mean(list(limited.values())), self.policy["season_prior"]
        factors = {}
        for slot in range(season):
            same = [value for age, value in limited.items() if age % season == slot]
            factors[slot] = max((sum(same) + prior) / (len(same) * usual + prior), 0.05) if same else 1.0
        flat = capped({age: value / factors[age % season] for age, value in raw.items()}, scale)
        blocks: dict = {}
        for age in sorted(flat, reverse=True):
            blocks.setdefault((reach - age) // self.block_periods, []).append(flat[age])
        centre = mean(list(flat.values()))
        squares = sum((value - mean(block)) ** 2 for block in blocks.values() for value in block)
        freedom = max(len(flat) - len(blocks) - season + 1, 1)
        means = [mean(blocks[number]) for number in sorted(blocks)]
        drift = 0.0
        if len(means) > 2 and centre > 0:
            step = median((right - left) ** 2 for left, right in pairwise(means))
            drift = max(step / 0.91 - squares / freedom / self.block_periods, 0) / max(centre, 0.1) ** 2
        newest = [value for age, value in flat.items() if age <= self.guard_periods + self.level_periods]
        return Baseline(
            len(flat),
            mean(newest) if newest else centre,
            max(len(newest), 1),
            factors[0],
            squares / freedom / centre if centre else 1.0,
            freedom,
            drift,
        )

    def tested(self, day: date) -> dict:
        return {
            service: self.baselines[service, day]
            for service in self.services
            if (service, day) in self.baselines
            and self.observed(service, day) is not None
            and self.baselines[service, day].size >= self.minimum_baseline
        }

    def shock(self, day: date) -> tuple:
        """Return (factor, standard error, groups, whether the day is an outage)."""
        tested = self.tested(day)
        size = self.policy["market_group_size"]
        expected = {service: one.level * one.factor for service, one in tested.items()}
        groups = min(self.market_groups_max, math.floor(sum(round(min(e, size), 3) for e in expected.values()) / size))
        if groups >= self.market_groups_min:
            sums: dict = {}
            ordered = sorted(expected, key=lambda service: (-round(expected[service] * 1000), "/".join(service)))
            for number, service in enumerate(ordered, 1):
                seen, due = sums.get(number % groups, (0, 0))
                sums[number % groups] = (seen + self.observed(service, day), due + expected[service])
            ratios = [seen / max(due, 0.001) for seen, due in sums.values()]
            middle = median(ratios)
            error = 1.2533 * 1.4826 * median(abs(ratio - middle) for ratio in ratios) / math.sqrt(groups)
            is_low = middle <= self.policy["outage_share_market"]
            return middle, error, groups, is_low and self.is_sudden(day, expected)
        large = [service for service in expected if expected[service] >= size]
        limit = self.policy["outage_share_alone"]
        is_low = all(self.observed(service, day) <= limit * expected[service] for service in large)
        is_low = is_low and (len(large) > 1 or len(expected) == 1)
        return 1.0, 0.0, 0, is_low and self.is_sudden(day, expected)

    def is_sudden(self, day: date, expected: dict) -> bool:
        """Tell whether enough was expected and much less is there than on the days before."""
        due = sum(expected.values())
        sums = []
        for back in range(1, self.guard_periods + 1):
            at = day - ONE_DAY * back
            seen = [self.observed(service, at) for service in expected if (service, at) in self.baselines]
            if any(value is not None for value in seen):
                sums.append(sum(seen))
        before = mean(sums) if sums else due
        seen = sum(self.observed(service, day) for service in expected)
        return due >= self.policy["outage_size"] and seen <= self.policy["outage_share_market"] * before

    def factor(self, service: tuple, day: date) -> float:
        return self.baselines[service, day].factor * max(self.shocks[day][0], 0.05)

    def score_day(self, day: date) -> dict:
        scores = {}
        shock, error, groups, is_outage = self.shocks[day]
        for service in self.services:
            one = self.baselines.get((service, day))
            if one is None:
                continue
            seen = self.observed(service, day)
            row = {"baseline": one, "observed": seen, "is_outage": is_outage}
            row["is_tested"] = one.size >= self.minimum_baseline and seen is not None and not is_outage
            scores[service] = row
            if seen is None:
                continue
            factor = self.factor(service, day)
            expected = one.level * factor
            allowance = self.policy["calendar_allowance"] if self.calendar_day(day) and groups == 0 else 0
            dispersion = max(one.dispersion + one.drift * one.level, 1) * (1 + 1 / one.level_size)
            dispersion += expected * (allowance**2 + (error / max(factor, 0.05)) ** 2)
            earlier = [
                self.observed(service, at) / self.factor(service, at)
                for at in (day - ONE_DAY * back for back in range(1, self.guard_periods + 1))
                if (service, at) in self.baselines and self.observed(service, at) is not None
            ]
            earlier += [value / max(shock, 0.05) for value in self.same_days(service, day)]
            row |= {"expected": expected, "dispersion": dispersion}
            for name, bar, side in (
                ("base_up", expected, -1),
                ("base_down", expected, 1),
                ("new_up", max([one.level, *earlier]) * factor, -1),
                ("new_down", min([one.level, *earlier]) * factor, 1),
                ("centre", expected, 0),
            ):
                row[name] = score(seen, bar, dispersion, one.freedom, side / 2) * (-1 if side == 1 else 1)
            self.score_ramp(service, day, row)
        centres = [row["centre"] for row in scores.values() if row["is_tested"] and row["expected"] >= 3]
        spread = 1.0
        if len(centres) >= self.market_spread_min:
            spread = max(1.0, (quantile(centres, 0.75) - quantile(centres, 0.25)) / 1.349)
        for row in scores.values():
            row["spread"] = spread
            for name in ("base_up", "base_down", "new_up", "new_down", "ramp"):
                if row.get(name) is not None:
                    row[name] /= spread
        return scores

    def same_days(self, service: tuple, day: date) -> list:
        name = self.calendar_day(day)
        if name is None:
            return []
        ages = range(self.guard_periods + 1, self.guard_periods + self.window_periods + 1)
        days = [day - ONE_DAY * age for age in ages]
        return [
            self.observed(service, at) / self.baselines[service, at].factor
            for at in days
            if self.calendar_day(at) == name
            and (service, at) in self.baselines
            and self.observed(service, at) is not None
        ]

    def score_ramp(self, service: tuple, day: date, row: dict) -> None:
        days = [day - ONE_DAY * back for back in range(self.ramp_periods)]
        before = self.baselines.get((service, days[-1]))
        if before is None or before.size < self.minimum_baseline:
            return
        if any((service, at) not in self.baselines or self.observed(service, at) is None for at in days):
            return
        seen = sum(self.observed(service, at) for at in days)
        expected = before.level * sum(self.factor(service, at) for at in days)
        dispersion = max(before.dispersion, 1) * (1 + self.ramp_periods / before.level_size) + expected * before.drift
        row |= {"rise": seen, "rise_expected": expected}
        row["ramp"] = score(seen, expected, dispersion, before.freedom, -0.5)

    def judge_day(self, day: date) -> dict:
        scores = self.scores[day]
        sides = 1 + self.is_two_sided
        for row in scores.values():
            if row["observed"] is not None:
                worse = max(row["base_up"], row["base_down"]) if self.is_two_sided else row["base_up"]
                row["p"] = min(sides * tail(worse), 1.0)
                row["is_fewer"] = row["base_down"] > row["base_up"]
                news = row["new_down"] if self.is_two_sided and row["is_fewer"] else row["new_up"]
                row["p_new"] = sides * tail(news)
            if row["is_tested"] and row.get("ramp") is not None:
                row["p_ramp"] = tail(row["ramp"])
        adjust([row for row in scores.values() if row["is_tested"]], "p", "q")
        adjust([row for row in scores.values() if "p_ramp" in row], "p_ramp", "q_ramp")
        limit, share, size = (self.policy[name] for name in ("alert_p", "alert_q", "minimum_size"))
        for row in scores.values():
            row["is_abnormal"] = (
                row["is_tested"]
                and row["p"] <= limit
                and row["q"] <= share
                and abs(row["observed"] - row["expected"]) >= size
            )
            row["is_sudden"] = row["is_abnormal"] and row["p_new"] <= limit
            ratio = self.policy["ramp_ratio"]
            is_ramp = "p_ramp" in row and (
                row["p_ramp"] <= limit
                and row["q_ramp"] <= share
                and row["rise"] - row["rise_expected"] >= size
                and row["rise"] >= ratio * row["rise_expected"]
                and row["observed"] > row["expected"]
            )
            is_high = row["is_abnormal"] and not row["is_fewer"] and row["observed"] >= ratio * row["expected"]
            row["is_ramp"], row["is_crossing"] = is_ramp, is_ramp or is_high
            row["is_falling"] = row["is_abnormal"] and row["is_fewer"] and row["observed"] * ratio <= row["expected"]
        return scores

    def reason(self, service: tuple, day: date, row: dict) -> str:
        if row["observed"] is None or row["is_outage"]:
            return "incomplete day"
        if not row["is_tested"]:
            return "no baseline"
        if row["is_sudden"]:
            return "drop" if row["is_fewer"] else "burst"
        if row["is_crossing"] and not self.is_told(service, day):
            return "rise"
        if row["is_falling"] and not self.is_fall_told(service, day):
            return "drop"
        if row["is_abnormal"] or row["is_crossing"]:
            return "continues"
        is_small = row["p"] <= self.policy["alert_p"] and row["q"] <= self.policy["alert_q"]
        return "below minimum size" if is_small else "as expected"

    def is_told(self, service: tuple, day: date) -> bool:
        return any(
            row["is_crossing"] or (row["is_sudden"] and not row["is_fewer"]) for row in self.before(service, day)
        )

    def is_fall_told(self, service: tuple, day: date) -> bool:
        return any(row["is_falling"] or (row["is_sudden"] and row["is_fewer"]) for row in self.before(service, day))

    def before(self, service: tuple, day: date) -> list:
        """Return what was judged on the ramp_periods before a day."""
        days = (day - ONE_DAY * back for back in range(1, self.ramp_periods + 1))
        return [row for at in days if (row := self.judged.get(at, {}).get(service))]

    def rows_of(self, day: date) -> list:
        rows = []
        for service, row in self.judged[day].items():
            reason = self.reason(service, day, row)
            is_tested = row["is_tested"]
            shown = dict.fromkeys(COLUMNS)
            shown |= {"sp_code": service[0], "service_code": service[1], "day": day, "reason": reason}
            shown["new_orders"] = self.counts.get(service, {}).get(day, 0)
            shown["baseline_days"] = row["baseline"].size
            shown["is_alert"] = reason in ("burst", "drop", "rise")
            if is_tested:
                by_ramp = reason == "rise" and row["is_ramp"]
                expected = row["expected"]
                shown["expected"] = expected
                shown["ratio"] = row["observed"] / expected if expected >= 0.05 else None
                shown["p_value"] = row["p_ramp"] if by_ramp else row["p"]
                shown["q_value"] = row["q_ramp"] if by_ramp else row["q"]
                shown["direction"] = "down" if row["is_fewer"] and reason != "rise" else "up"
                shown["expected_low"], shown["expected_high"] = self.band(row)
                if "p_ramp" in row:
                    shown["rise_orders"], shown["rise_expected"] = int(row["rise"]), row["rise_expected"]
            rows.append(tuple(shown[column] for column in COLUMNS))
        return rows

    def band(self, row: dict) -> tuple:
        limit = -NormalDist().inv_cdf(self.policy["alert_p"] / (1 + self.is_two_sided)) * row["spread"]
        numbers = (row["expected"], row["dispersion"], row["baseline"].freedom)
        return max(count_scoring(-limit, *numbers), 0.0), max(count_scoring(limit, *numbers), 0.0)


@cache
def count_scoring(wanted: float, expected: float, dispersion: float, freedom: int) -> float:
    """Find a count by its score, by halving."""
    low, high = -1.0, 1.0
    while score(high, expected, dispersion, freedom, 0) < wanted:
        high *= 2
    while high - low > 0.01:
        middle = (low + high) / 2
        is_above = score(middle, expected, dispersion, freedom, 0) > wanted
        low, high = (low, middle) if is_above else (middle, high)
    return (low + high) / 2


def score(seen: float, expected: float, dispersion: float, freedom: int, correction: float) -> float:
    """Return the standard normal score of a count (Wilson-Hilferty, then Student)."""
    expected = max(expected, 0.5)
    deviation = math.sqrt(dispersion * expected)
    skew = (2 * dispersion - 1) / deviation
    x = (seen + correction - expected) / deviation
    z = 6 / skew * (math.cbrt(max(skew * x / 2 + 1, 0)) - 1) + skew / 6
    shrunk = math.sqrt(freedom * math.log1p(z * z / freedom)) * (8 * freedom + 1) / (8 * freedom + 3)
    return math.copysign(shrunk, z)


def tail(z: float) -> float:
    return math.erfc(z / math.sqrt(2)) / 2


def adjust(rows: list, p: str, q: str) -> None:
    """Benjamini-Hochberg."""
    lowest = 1.0
    for rank, row in sorted(enumerate(sorted(rows, key=lambda row: row[p]), 1), reverse=True, key=lambda one: one[0]):
        lowest = min(lowest, row[p] * len(rows) / rank)
        row[q] = lowest
