"""The lines of the first billing feed of a month, or why the month may not be billed."""

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from tests.oracle.landing import Landing
from tests.oracle.marts import Oracle

CHARGE_COLUMNS = ["msisdn", "sp_code", "service_code", "subscription_id", "billing_month", "fee_li", "charge_time"]
EXCLUSION_COLUMNS = [
    "msisdn",
    "sp_code",
    "service_code",
    "subscription_id",
    "billing_month",
    "fee_li",
    "disposition",
    "reason",
]


@dataclass
class Feed:
    """Feed v1 of a month: charges per province, exclusions, settlement, inputs; blockers if it is stopped."""

    as_of: date
    charges: dict  # province -> sorted rows of text
    exclusions: list
    settlement: list  # dicts of the settlement rows of the month
    inputs: list  # (extract, date, source, delivery, sha256 of the manifest)
    dispositions: dict  # disposition -> (count, fee_li)
    blockers: set  # (blocker, extract, source, day)


def first_feed(home: Path, key: str | bytes, month: date, landing: Landing | None = None) -> Feed:
    """Compute v1 of a billing month: its rows at the last day of the month before."""
    return feed_at(home, key, month, month - timedelta(days=1), landing)


def feed_at(home: Path, key: str | bytes, month: date, as_of: date | None, landing: Landing | None = None) -> Feed:
    """Compute the rows of a billing month at any as-of date; None: the default of the contract."""
    oracle = Oracle(home, key, as_of, landing)
    numbers = {oracle.subscription_id(spell): spell.relation[0] for spell in oracle.all_spells()}
    charges: dict = {}
    exclusions, dispositions = [], {}
    for row in oracle.rows("billing_dispositions"):
        if row["billing_month"] != month:
            continue
        count, fee = dispositions.get(row["disposition"], (0, 0))
        dispositions[row["disposition"]] = (count + 1, fee + row["fee_li"])
        line = (
            numbers[row["subscription_id"]],
            row["sp_code"],
            row["service_code"],
            row["subscription_id"],
            month.isoformat(),
            str(row["fee_li"]),
        )
        if row["disposition"] == "billed":
            charges.setdefault(row["province"] or "unknown", []).append((*line, f"{month:%Y-%m}-01 00:00:00"))
        else:
            exclusions.append((*line, row["disposition"], row["reason"]))
    for lines in charges.values():
        lines.sort(key=lambda line: line[:3])
    exclusions.sort(key=lambda line: line[:3])
    return Feed(
        as_of=oracle.as_of,
        charges=charges,
        exclusions=exclusions,
        settlement=[row for row in oracle.rows("sp_settlement") if row["billing_month"] == month],
        inputs=[
            (*(str(part) for part in key), str(one.delivery), one.manifest_sha256)
            for key, one in sorted(oracle.in_force.items())
        ],
        dispositions=dispositions,
        blockers=oracle.blockers.get(month, set()),
    )
