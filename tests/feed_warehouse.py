"""A small hand-made warehouse with every disposition, for tests of the feed, `explain` and `status`.

Month M = 2026-11, as of 2026-10-31. Nothing is computed here: the rows are what a build would have left.
"""

import hashlib
from datetime import date
from pathlib import Path

from cleanbill.build import inputs_digest
from cleanbill.control import open_warehouse
from cleanbill.reference_inputs import load_reference_inputs
from cleanbill.settings import get_settings

MONTH = date(2026, 11, 1)
AS_OF = date(2026, 10, 31)
FIRST_DAY = date(2026, 10, 1)

DDL = """
create schema if not exists staging;
create schema if not exists intermediate;
create schema if not exists marts;
create schema if not exists policy;
create or replace table intermediate.int_spells (
    subscription_id varchar, subscriber_id varchar, msisdn varchar, sp_code varchar, service_code varchar,
    opening_event_id varchar, opening_source varchar, province varchar, channel varchar, confirmed_at timestamp,
    first_ordered_at timestamp, ordered_at timestamp, ended_at timestamp, end_reason varchar,
    next_ordered_at timestamp, first_billable_month date
);
create or replace table intermediate.int_silence (
    subscription_id varchar, billing_month date, verdict varchar, before_data_start boolean, usage_extract varchar,
    window_start date
);
create or replace table intermediate.int_billing_blockers (
    billing_month date, blocker varchar, extract varchar, source varchar, day date, relations bigint
);
create or replace table marts.billing_dispositions (
    billing_month date, subscription_id varchar, subscriber_id varchar, sp_code varchar, service_code varchar,
    province varchar, disposition varchar, reason varchar, fee_li bigint, charged_li bigint
);
create or replace table marts.sp_settlement (
    sp_code varchar, billing_month date, gross_li bigint, errors_li bigint, audited_li bigint, stopped_li bigint,
    closed_li bigint, abnormal_li bigint, silent_li bigint, price_per_message_li bigint, refunds_li bigint,
    penalties_li bigint, double_refunds_li bigint, other_li bigint, to_settle_li bigint, operator_share_li bigint,
    sp_share_li bigint, status varchar, hold_reason varchar
);
create or replace table policy.policy_tenure (rule varchar, tenure_days integer, valid_from date);
insert into policy.policy_tenure values ('R1', 30, date '1900-01-01');
"""

# (disposition, reason, fee_li, province); two provinces, one unknown, one that is no file name.
LINES = [
    ("billed", "chargeable", 5000, "bj"),
    ("billed", "chargeable", 8000, "bj"),
    ("billed", "chargeable", 3000, "bj"),
    ("billed", "chargeable", 2000, None),
    ("billed", "chargeable", 1000, "a/b 北"),
    ("unknown_service", "not_in_catalogue", 0, "bj"),
    ("free_service", "no_monthly_fee", 0, "bj"),
    ("test", "test_number", 5000, "bj"),
    ("suspended", "relation_suspended", 5000, "sh"),
    ("trial", "in_trial", 5000, "sh"),
    ("unconsented", "no_second_confirmation", 5000, "sh"),
    ("line_stopped", "stopped", 5000, "sh"),
    ("line_stopped", "closed", 7000, "sh"),
    ("sp_suspended", "suspension_over_limit", 5000, "sh"),
    ("abnormal", "abnormal_relation", 5000, "sh"),
    ("silent", "silent_user", 5000, "sh"),
]


def pseudonym_of(number: int) -> str:
    """Return the subscription id of the n-th line."""
    return hashlib.sha256(f"spell {number}".encode()).hexdigest()[:32]


def msisdn_of(number: int) -> str:
    """Return the number of the n-th line; they fall, so that sorted output differs from insertion order."""
    return str(13900009999 - number)


def make_warehouse(lines: list[tuple] | None = None, as_of: date = AS_OF, month: date = MONTH) -> Path:
    """Write the warehouse of the current data root and return its path."""
    settings = get_settings()
    lines = LINES if lines is None else lines
    with open_warehouse(settings) as connection:
        connection.execute(DDL)
        for number, (disposition, reason, fee_li, province) in enumerate(lines):
            spell, subscriber = pseudonym_of(number), pseudonym_of(10_000 + number)
            service = f"MF{number % 3}"
            charged = fee_li if disposition == "billed" else 0
            connection.execute(
                "insert into intermediate.int_spells by name select $1 as subscription_id, $2 as subscriber_id, "
                "$3 as msisdn, '900001' as sp_code, $4 as service_code, $5 as province, "
                "timestamp '2026-09-02 10:00:00' as ordered_at, timestamp '2026-09-02 10:00:00' as first_ordered_at",
                [spell, subscriber, msisdn_of(number), service, province],
            )
            connection.execute(
                "insert into marts.billing_dispositions values ($1, $2, $3, '900001', $4, $5, $6, $7, $8, $9)",
                [month, spell, subscriber, service, province, disposition, reason, fee_li, charged],
            )
        connection.execute(
            "insert into marts.sp_settlement values "
            "('900001', $1, 46000, 0, 46000, 5000, 7000, 5000, 5000, 0, 100, 0, 0, 5000, 18900, 2835, 16065, "
            "'payable', null), ('900000', $1, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, -5, -1, -4, 'held', 'sp_suspended')",
            [month],
        )
        connection.execute(
            "insert into intermediate.int_silence values ('x', $1, 'unknown', true, 'sms_usage', $2)",
            [month, FIRST_DAY],
        )
        for day in (FIRST_DAY, date(2026, 10, 15), as_of):
            add_delivery("relation_events", day, "bj", connection=connection)
        connection.execute(
            "insert into control.absorbed by name select extract, business_date, source, delivery from control.in_force"
        )
        load_reference_inputs(connection, settings)
        digest = inputs_digest(connection, settings, as_of)
        connection.execute("insert into control.absorbed_state values ($1, $2)", [as_of, digest])
    return settings.warehouse


def add_delivery(extract: str, day: date, source: str, delivery: int = 1, connection=None) -> None:
    """Put a delivery in force that the build has not taken in (unless absorbed afterwards)."""
    if connection is None:
        with open_warehouse(get_settings()) as opened:
            add_delivery(extract, day, source, delivery, opened)
        return
    sha256 = hashlib.sha256(f"{extract} {day} {source} {delivery}".encode()).hexdigest()
    connection.execute(
        "delete from control.in_force where extract = $1 and business_date = $2 and source = $3", [extract, day, source]
    )
    connection.execute(
        "insert into control.in_force values ($1, $2, $3, $4, $5, 1, 1, 0, 0, null, null)",
        [extract, day, source, delivery, sha256],
    )
    connection.execute(
        "insert into control.deliveries by name select $1 as extract, $2::date as business_date, $3 as source, "
        "$4 as delivery, 'x' as manifest_path, $5 as manifest_sha256, 'msisdn' as identity, 'accepted' as status, "
        "1 as rows_in, 1 as rows_loaded, 0 as rows_quarantined, 0 as rows_duplicate",
        [extract, day, source, delivery, sha256],
    )
