"""The floor: the same job by hand. One file of SQL, DuckDB and the standard library, no framework.

It verifies every file of landing/ by sha256, reads them strictly (wrong records are set aside with file and reason),
drops doubled usage lines, holds rows and totals against the manifests, writes the lake as Parquet per delivery,
computes the marts as of one day in one go and publishes them as one DuckDB file and as Parquet. What it leaves out is
what cleanbill is for: gates, increments, resumption, late data, snapshots, missing days, line numbers, explanations.

    python -m tests.bench.floor <data root> <as-of date> <output folder>
"""

import hashlib
import json
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb

PROJECT = Path(__file__).resolve().parents[2]
THREADS = 2

# column → kind; `?` = may be empty. A kind is (SQL value, reason if the text is there and the value is not).
EXTRACTS = {
    "relation_events": "event_id:text msisdn:msisdn sp_code:sp service_code:service? action:action event_time:own_time "
    "channel:text? confirmed_at:time? province:text? old_service_code:service?",
    "sms_usage": "msisdn:msisdn sp_code:sp service_code:service direction:direction sent_at:own_time status:use_status "
    "purpose:purpose message_count:integer fee_li:fee",
    "wap_usage": "msisdn:msisdn sp_code:sp service_code:service accessed_at:own_time status:use_status hits:integer "
    "fee_li:fee",
    "gprs_usage": "msisdn:msisdn apn:apn? started_at:own_time up_bytes:integer down_bytes:integer",
    "service_catalogue": "sp_code:sp service_code:service service_name:text service_class:class is_portal:boolean "
    "billing_type:billing monthly_fee_li:fee? status:status? valid_from:date marketing_text:text?",
    "service_providers": "sp_code:sp sp_name:text province:text? status:status? contact:text?",
    "sp_reports": "report_id:text sp_code:sp service_code:service msisdn:msisdn anomaly_type:text? "
    "reported_at:own_time",
    "sp_penalties": "penalty_id:text sp_code:sp service_code:service? suspended_from:time suspended_to:time? "
    "reason:text?",
    "refunds": "refund_id:text msisdn:msisdn sp_code:sp service_code:service billing_month:date amount_li:integer "
    "times:times reason:text?",
    "line_status": "msisdn:msisdn status:line from_time:time to_time:time?",
}
USAGE = ("sms_usage", "wap_usage", "gprs_usage")
CODES = {
    "action": "order cancel suspend resume activate cancel_all suspend_all replace",
    "direction": "MT MO",
    "use_status": "ok failed",
    "purpose": "content fee reminder test",
    "class": "sms mms wap portal ivr other",
    "billing": "monthly per_use free",
    "status": "active inactive",
    "line": "stopped closed",
    "times": "1 2",
}
MARTS = {  # table: order of its rows
    "dim_service": "sp_code, service_code, valid_from",
    "dim_service_provider": "sp_code",
    "subscriptions": "subscription_id",
    "subscription_usage_monthly": "month, subscription_id",
    "anomalous_subscriptions": "detected_on, subscription_id, anomaly_type",
    "silent_subscriptions": "billing_month, subscription_id",
    "billing_dispositions": "billing_month, subscription_id",
    "sp_settlement": "billing_month, sp_code",
    "relation_event_findings": "business_date, source, event_id, reason",
    "usage_outside_spells": "month, sp_code, service_code",
    "extract_completeness": "day, extract, source",
}


def value_of(column: str, kind: str) -> tuple[str, str]:
    """Return the SQL value of a column's text and the reason code when there is text and no value."""
    if kind == "text":
        return column, "bad_text"
    if kind == "msisdn":
        return rf"nullif(regexp_extract({column}, '^(?:\+86|0086|86)?(1[0-9]{{10}})$', 1), '')", "bad_msisdn"
    if kind == "sp":
        return f"case when regexp_full_match({column}, '[0-9]{{6}}') then {column} end", "bad_code"
    if kind == "service":
        return (
            f"case when regexp_full_match({column}, '[0-9A-Za-z][0-9A-Za-z._-]{{0,9}}') then {column} end",
            "bad_code",
        )
    if kind == "apn":
        return f"upper(trim({column}))", "bad_text"
    if kind == "boolean":
        return f"case {column} when 'true' then true when 'false' then false end", "bad_code"
    if kind in ("integer", "fee"):
        return (
            f"case when regexp_full_match({column}, '[+-]?[0-9]+') then try_cast({column} as bigint) end",
            "bad_number",
        )
    if kind == "date":
        return (
            f"case when regexp_full_match({column}, '[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}') "
            f"then try_cast({column} as date) end",
            "bad_date",
        )
    if kind in ("time", "own_time"):
        parts = [
            f"substr({column}, {start}, {length})"
            for start, length in ((1, 4), (5, 2), (7, 2), (9, 2), (11, 2), (13, 2))
        ]
        compact = "{} || '-' || {} || '-' || {} || ' ' || {} || ':' || {} || ':' || {}".format(*parts)
        text = f"case when regexp_full_match({column}, '[0-9]{{14}}') then {compact} else {column} end"
        return (
            f"case when regexp_full_match({text}, '[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}} "
            "(?:(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]|24:00:00)') "
            f"then try_cast({text} as timestamp) end",
            "bad_time",
        )
    allowed = ", ".join(f"'{code}'" for code in CODES[kind].split())
    return f"case when {column} in ({allowed}) then {column} end", "bad_code"


def find_deliveries(landing: Path, as_of: str) -> dict[tuple[str, str, str], dict]:
    """Return the manifest of the highest delivery per (extract, date, source) up to a day."""
    newest: dict[tuple[str, str, str], dict] = {}
    for path in sorted(landing.glob("*/*/*.manifest.json")):
        if path.parent.name <= as_of:
            content = path.read_bytes()
            manifest = json.loads(content)
            manifest["folder"] = path.parent
            key = manifest["extract"], manifest["business_date"], manifest["source"]
            if key not in newest or newest[key]["delivery"] < manifest["delivery"]:
                newest[key] = manifest
    return newest


def verify(manifest: dict) -> None:
    """Hold size and sha256 of each file against its manifest."""
    for file in manifest["files"]:
        path = manifest["folder"] / file["name"]
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if path.stat().st_size != file["bytes"] or digest != file["sha256"]:
            sys.exit(f"{path}: not the bytes of its manifest")


def read_extract(con: duckdb.DuckDBPyConnection, extract: str, deliveries: list[dict], lake: Path) -> None:
    """Read all files of an extract into the table of its name; set wrong records aside; write the lake."""
    columns = dict(item.split(":") for item in EXTRACTS[extract].split())
    files = [(str(item["folder"] / file["name"]), item, file) for item in deliveries for file in item["files"]]
    con.execute(
        "create or replace temp table files as select unnest($1) as path, unnest($2)::date as business_date, "
        "unnest($3) as source, unnest($4)::bigint as rows_in",
        [
            [path for path, _, _ in files],
            [item["business_date"] for _, item, _ in files],
            [item["source"] for _, item, _ in files],
            [file["rows"] for _, _, file in files],
        ],
    )
    texts = ", ".join(f"'{column}': 'varchar'" for column in columns)
    values, reasons = [], []
    for column, kind in columns.items():
        value, reason = value_of(column, kind.rstrip("?"))
        values.append(f"{value} as value_{column}")
        if not kind.endswith("?"):
            reasons.append(f"when {column} is null then '{column}: missing'")
        if kind.rstrip("?") != "text":
            reasons.append(f"when {column} is not null and value_{column} is null then '{column}: {reason}'")
        if kind.startswith("fee"):
            reasons.append(f"when value_{column} < 0 then '{column}: negative_fee'")
        if kind == "own_time":
            reasons.append(
                f"when value_{column} not between business_date - interval 31 day and business_date + interval 1 day "
                f"then '{column}: outside_lateness'"
            )
    names = ", ".join(columns)
    con.execute(
        f"""
        create or replace temp table judged as
        with
            texts as (
                select * from read_csv(
                    $1, columns = {{{texts}}}, header = true, auto_detect = false, delim = ',', quote = '"',
                    escape = '"', filename = true, store_rejects = true, rejects_limit = 0
                )
            ),
            typed as (select *, {", ".join(values)} from texts)
        select
            path, business_date, source, {", ".join(f"value_{column} as {column}" for column in columns)},
            case {" ".join(reasons)} end as failure
        from typed inner join files on typed.filename = files.path
        """,
        [[path for path, _, _ in files]],
    )
    con.execute(f"insert into quarantine select '{extract}', path, failure from judged where failure is not null")
    con.execute(
        f"insert into quarantine select '{extract}', file_path, min(error_type::varchar) from reject_errors "
        "inner join reject_scans using (scan_id, file_id) group by file_path, line"
    )
    con.execute("drop table if exists reject_errors")
    con.execute("drop table if exists reject_scans")
    distinct = "distinct" if extract in USAGE else ""
    con.execute(
        f"create or replace table {extract} as select {distinct} business_date, source, {names} from judged where failure is null"
    )
    con.execute(
        f"""
        insert into counts
        with
            loaded as (select business_date, source, count(*) as n from {extract} group by all),
            taken as (select business_date, source, count(*) as n from judged where failure is null group by all),
            aside as (
                select business_date, source, count(*) as n
                from quarantine inner join files using (path) where extract = '{extract}' group by all
            ),
            announced as (select business_date, source, sum(rows_in) as n from files group by all)
        select
            '{extract}', business_date, source, announced.n, coalesce(loaded.n, 0), coalesce(aside.n, 0),
            coalesce(taken.n, 0) - coalesce(loaded.n, 0), coalesce(taken.n, 0) + coalesce(aside.n, 0) = announced.n
        from announced
        left join loaded using (business_date, source)
        left join taken using (business_date, source)
        left join aside using (business_date, source)
        """
    )
    for column in {name for item in deliveries for name in item.get("totals", {})}:
        stated = {
            (item["business_date"], item["source"]): item["totals"][column] for item in deliveries if item.get("totals")
        }
        summed = con.execute(
            f"select business_date::varchar, source, sum({column})::bigint, count(*) filter (where {column} is null) "
            "from judged group by all"
        ).fetchall()
        for day, source, found, unreadable in summed:
            if (day, source) in stated and stated[day, source] != found and not unreadable:
                con.execute(
                    "update counts set is_right = false where business_date = $1 and source = $2", [day, source]
                )
    con.execute(
        f"copy (select *, business_date as day, source as of from {extract}) to '{lake / extract}' "
        "(format parquet, compression zstd, partition_by (day, of))"
    )
    con.execute("drop table judged")


def pseudonym(text: str) -> str:
    """Return the SQL of HMAC-SHA256 under the session's key, first 32 hex digits."""
    return (
        "left(sha256(getvariable('pseudonym_outer') || "
        f"unhex(sha256(getvariable('pseudonym_inner') || encode({text})))), 32)"
    )


def set_key(con: duckdb.DuckDBPyConnection, key: bytes) -> None:
    block = key.ljust(64, b"\0")
    con.execute("set variable pseudonym_inner = $1", [bytes(byte ^ 0x36 for byte in block)])
    con.execute("set variable pseudonym_outer = $1", [bytes(byte ^ 0x5C for byte in block)])


def load_policy(con: duckdb.DuckDBPyConnection) -> None:
    for path in (PROJECT / "dbt_project" / "seeds").glob("*.csv"):
        con.execute(f"create temp table {path.stem} as from read_csv('{path}')")


def marts_sql() -> str:
    """Return the statements that compute the marts, in order."""
    return f"""
create temp table catalogue_days as
with days as (
    select
        business_date,
        bit_xor(hash(sp_code, service_code, service_name, service_class, is_portal, billing_type, monthly_fee_li,
            status, valid_from, marketing_text)) as digest
    from service_catalogue group by business_date
), changed as (
    select *, lag(digest) over (order by business_date) as before from days
)
select
    business_date,
    case when row_number() over (order by business_date) = 1 then date '0001-01-01' else business_date + 1 end as holds_from,
    coalesce(lead(business_date) over (order by business_date) + 1, date '9999-12-31') as holds_to
from changed where digest is distinct from before;

create temp table catalogue as
select * from service_catalogue where business_date in (select business_date from catalogue_days);

create table dim_service as
with turns as (
    select sp_code, service_code, valid_from as day from catalogue
    union
    select sp_code, service_code, holds_from
    from (select distinct sp_code, service_code from catalogue) cross join catalogue_days
    where holds_from > date '0001-01-01'
), answers as (
    select turns.sp_code, turns.service_code, turns.day, catalogue.* exclude (sp_code, service_code, business_date, source)
    from turns
    inner join catalogue_days as files on turns.day >= files.holds_from and turns.day < files.holds_to
    semi join catalogue as named on files.business_date = named.business_date
        and turns.sp_code = named.sp_code and turns.service_code = named.service_code
    inner join catalogue on turns.sp_code = catalogue.sp_code and turns.service_code = catalogue.service_code
        and catalogue.business_date <= files.business_date and catalogue.valid_from <= turns.day
    qualify row_number() over (
        partition by turns.sp_code, turns.service_code, turns.day
        order by catalogue.business_date desc, catalogue.valid_from desc
    ) = 1
), stated as (
    select turns.*, answers.* exclude (sp_code, service_code, day), answers.sp_code is not null as is_named
    from turns left join answers using (sp_code, service_code, day)
), versions as (
    select *, lead(day) over (partition by sp_code, service_code order by day) as valid_to_day
    from (
        select *
        from stated
        window in_order as (partition by sp_code, service_code order by day)
        qualify lag(is_named) over in_order is distinct from is_named
            or lag(row(service_name, service_class, is_portal, billing_type, monthly_fee_li, status, valid_from, marketing_text))
                over in_order
                is distinct from row(service_name, service_class, is_portal, billing_type, monthly_fee_li, status, valid_from, marketing_text)
    )
)
select
    sp_code, service_code, service_name, service_class, is_portal, billing_type,
    coalesce(monthly_fee_li, 0) as monthly_fee_li, day as valid_from, valid_to_day as valid_to
from versions where is_named;

create table dim_service_provider as
select sp_code, sp_name, province, status from service_providers
where business_date = (select max(business_date) from service_providers);

-- relations: first delivered event of an id, what it does to each relation, spells and pauses
create temp table events as
with compared as (
    select
        *,
        row_number() over first_delivered as nth,
        row(msisdn, sp_code, service_code, action, event_time, channel, confirmed_at, province, old_service_code)
        is distinct from first_value(
            row(msisdn, sp_code, service_code, action, event_time, channel, confirmed_at, province, old_service_code)
        ) over first_delivered as differs
    from relation_events
    window first_delivered as (partition by event_id order by business_date, source)
)
select
    *,
    differs and row_number() over (partition by event_id, differs order by nth) = 1 as is_first_conflict
from compared;

create temp table acts as
with effective as (select * from events where nth = 1),
named as (
    select msisdn, sp_code, service_code, event_time, event_id, 1 as part,
        case action when 'order' then 'open' when 'cancel' then 'close' when 'suspend' then 'suspend' else 'resume' end as act
    from effective where action in ('order', 'cancel', 'suspend', 'resume', 'activate')
    union all
    select msisdn, sp_code, old_service_code, event_time, event_id, 1, 'close' from effective where action = 'replace'
    union all
    select msisdn, sp_code, service_code, event_time, event_id, 2, 'open' from effective where action = 'replace'
), everything as (
    select *, false as is_broadcast from named
    union all
    select events.msisdn, events.sp_code, relations.service_code, events.event_time, events.event_id, 1,
        case events.action when 'cancel_all' then 'close' else 'suspend' end, true
    from effective as events
    inner join (select distinct msisdn, sp_code, service_code from named where act = 'open') as relations
        using (msisdn, sp_code)
    where events.action in ('cancel_all', 'suspend_all')
), judged as (
    select *, coalesce(
        lag(case when act in ('open', 'close') then act end ignore nulls) over in_order = 'open', false
    ) as was_open
    from everything
    window in_order as (partition by msisdn, sp_code, service_code order by event_time, event_id, part)
)
select
    *,
    act in ('open', 'close') and was_open = (act = 'close') as changes_spell,
    sum((act = 'open' and not was_open)::integer) over (
        partition by msisdn, sp_code, service_code order by event_time, event_id, part
        rows between unbounded preceding and current row
    ) as spell_number
from judged;

create temp table spells as
with turns as (
    select *,
        lead(event_id) over in_order as closing_event_id,
        lead(event_time) over in_order as ended_at,
        lead(event_time, 2) over in_order as next_ordered_at
    from acts where changes_spell
    window in_order as (partition by msisdn, sp_code, service_code order by event_time, event_id, part)
), opened as (
    select
        turns.*, events.province, events.channel, events.confirmed_at, closing.action as end_reason,
        min(turns.event_time) over (partition by turns.msisdn, turns.sp_code, turns.service_code) as first_ordered_at
    from turns
    inner join events on turns.event_id = events.event_id and events.nth = 1
    left join events as closing on turns.closing_event_id = closing.event_id and closing.nth = 1
    where turns.act = 'open'
), numbers as (
    select msisdn, {pseudonym("msisdn")} as subscriber_id from (select distinct msisdn from opened)
)
select
    {pseudonym("concat_ws('|', opened.msisdn, sp_code, service_code, strftime(event_time, '%Y-%m-%d %H:%M:%S'), event_id)")}
        as subscription_id,
    numbers.subscriber_id, opened.msisdn, sp_code, service_code, province, channel, confirmed_at, first_ordered_at,
    event_time as ordered_at, ended_at, end_reason, next_ordered_at, spell_number,
    case policy_trial.trial_kind
        when 'judge_day' then (date_trunc('month', first_ordered_at)
            + to_months(case when day(first_ordered_at) < policy_trial.judge_day then 1 else 2 end))::date
        else error('another trial') end as first_billable_month
from opened
inner join numbers on opened.msisdn = numbers.msisdn
left join policy_trial on policy_trial.valid_from <= first_ordered_at::date
    and (policy_trial.valid_to is null or first_ordered_at::date < policy_trial.valid_to);

create temp table suspensions as
with toggles as (
    select *, lag(act) over in_order = 'suspend' as was_suspended
    from acts where changes_spell or (was_open and act in ('suspend', 'resume'))
    window in_order as (partition by msisdn, sp_code, service_code order by event_time, event_id, part)
), pauses as (
    select *, event_time as suspended_from, lead(event_time) over (
        partition by msisdn, sp_code, service_code order by event_time, event_id, part
    ) as suspended_to
    from toggles where act <> 'suspend' or was_suspended is not true
)
select spells.subscription_id, pauses.suspended_from, pauses.suspended_to
from pauses inner join spells using (msisdn, sp_code, service_code, spell_number)
where pauses.act = 'suspend';

create table subscriptions as
select
    subscription_id, subscriber_id, left(msisdn, 3) || '****' || right(msisdn, 4) as msisdn_masked, sp_code,
    service_code, province, channel, first_ordered_at, ordered_at, ended_at, end_reason,
    case
        when ended_at < getvariable('as_of_end') then 'ended'
        when subscription_id in (
            select subscription_id from suspensions
            where suspended_from < getvariable('as_of_end')
                and (suspended_to is null or suspended_to >= getvariable('as_of_end'))
        ) then 'suspended'
        else 'active'
    end as status,
    confirmed_at, first_billable_month
from spells;

create table relation_event_findings as
with reasons as (
    select event_id, 'already_ordered' as reason from acts where act = 'open' and was_open
    union
    select event_id, 'not_ordered' from acts where act <> 'open' and not was_open and not is_broadcast
    union
    select event_id, 'unknown_service'
    from (
        select event_id, event_time, sp_code, service_code from events where nth = 1 and service_code is not null
        union all
        select event_id, event_time, sp_code, old_service_code from events where nth = 1 and action = 'replace'
    ) as named
    anti join dim_service as services on named.sp_code = services.sp_code and named.service_code = services.service_code
        and services.valid_from <= named.event_time::date + 1
        and (services.valid_to is null or named.event_time::date + 1 < services.valid_to)
), found as (
    select events.*, reason from events inner join reasons using (event_id) where nth = 1
    union all
    select *, 'conflicting_event' from events where is_first_conflict
)
select distinct event_id, {pseudonym("msisdn")} as subscriber_id, sp_code, service_code, action, event_time,
    business_date, source, reason
from found;

-- use
create temp table spell_usage as
with records as (
    select msisdn, sp_code, service_code, sent_at as used_at,
        case when direction = 'MT' then message_count else 0 end as mt_count,
        case when direction = 'MO' then message_count else 0 end as mo_count, 0 as wap_hits
    from sms_usage where status = 'ok' and purpose = 'content' and message_count > 0
    union all
    select msisdn, sp_code, service_code, accessed_at, 0, 0, hits from wap_usage where status = 'ok' and hits > 0
)
select
    spells.subscription_id, records.msisdn, records.sp_code, records.service_code,
    date_trunc('month', used_at)::date as month,
    sum(mt_count)::bigint as mt_count, sum(mo_count)::bigint as mo_count, sum(wap_hits)::bigint as wap_hits,
    count(distinct used_at::date) as active_days,
    min(used_at) filter (where mt_count + mo_count > 0) as first_message_at,
    min(used_at) filter (where wap_hits > 0) as first_hit_at, max(used_at)::date as last_used_on
from records
left join spells on records.msisdn = spells.msisdn and records.sp_code = spells.sp_code
    and records.service_code = spells.service_code and records.used_at >= spells.ordered_at
    and records.used_at < coalesce(spells.ended_at, timestamp 'infinity')
group by all;

create table subscription_usage_monthly as
select subscription_id, month, mt_count, mo_count, wap_hits, active_days, last_used_on
from spell_usage where subscription_id is not null;

create table usage_outside_spells as
select sp_code, service_code, month, count(*) as subscribers, sum(mt_count)::bigint as mt_count,
    sum(mo_count)::bigint as mo_count, sum(wap_hits)::bigint as wap_hits
from spell_usage where subscription_id is null group by all;

create temp table spell_traffic as
select spells.subscription_id, min(records.started_at) as first_traffic_at
from gprs_usage as records
inner join spells on records.msisdn = spells.msisdn and records.started_at >= spells.ordered_at
    and records.started_at < coalesce(spells.ended_at, timestamp 'infinity')
where records.apn = 'CMWAP' and records.up_bytes + records.down_bytes > 0
group by all;

-- anomalies and what the SPs owe for them; no day is missing in this world
create temp table working_days as
select day::date as day, coalesce(is_working_day, isodow(day) <= 5) as is_working_day,
    day not between published_from and published_until as is_estimated,
    sum(coalesce(is_working_day, isodow(day) <= 5)::integer) over (order by day) as so_far
from working_calendar
cross join lateral (select unnest(generate_series(published_from::timestamp, published_until + interval 1 year, interval 1 day)) as day)
left join working_day_exceptions using (day);

create temp table starts as
select extract, min(business_date) as first_day from counts group by extract;

create table anomalous_subscriptions as
with kinds as (
    select 'never_accessed' as anomaly_type, service_class, use_measure as measure, usage_extract as extract, report_to
    from service_classes where usage_extract is not null
    union all
    select 'no_traffic', service_class, 'traffic', 'gprs_usage', report_to from service_classes where is_browsed
), windows as (
    select
        spells.*, kinds.anomaly_type, kinds.measure, kinds.report_to,
        greatest(spells.ordered_at::date, starts.first_day) as observed_from,
        greatest(spells.ordered_at::date, starts.first_day) + policy_tenure.tenure_days::integer as detected_on
    from spells
    inner join dim_service as services using (sp_code, service_code)
    inner join kinds using (service_class)
    inner join starts using (extract)
    inner join policy_tenure using (anomaly_type)
    where services.valid_from <= greatest(spells.ordered_at::date, starts.first_day) + policy_tenure.tenure_days::integer + 1
        and (services.valid_to is null
            or services.valid_to > greatest(spells.ordered_at::date, starts.first_day) + policy_tenure.tenure_days::integer + 1)
), used as (
    select subscription_id, min(first_message_at) as first_message_at, min(first_hit_at) as first_hit_at
    from spell_usage where subscription_id is not null group by all
), found as (
    select
        windows.*,
        case measure when 'messages' then first_message_at when 'hits' then first_hit_at else first_traffic_at end as first_used_at
    from windows
    left join used using (subscription_id)
    left join spell_traffic using (subscription_id)
    where detected_on <= getvariable('as_of')
        and ordered_at < detected_on + 1 and (ended_at is null or ended_at >= detected_on + 1)
        and (first_used_at is null or first_used_at >= detected_on + 1)
), reports as (
    select found.subscription_id, min(sp_reports.reported_at) as reported_at
    from (select distinct subscription_id, msisdn, sp_code, service_code, ordered_at, next_ordered_at from found) as found
    inner join (
        select * from sp_reports qualify row_number() over (partition by report_id order by business_date desc, source desc) = 1
    ) as sp_reports on found.msisdn = sp_reports.msisdn and found.sp_code = sp_reports.sp_code
        and found.service_code = sp_reports.service_code and found.ordered_at <= sp_reports.reported_at
        and (found.next_ordered_at is null or sp_reports.reported_at < found.next_ordered_at)
    group by all
)
select
    found.subscription_id, found.subscriber_id, found.sp_code, found.service_code, found.anomaly_type,
    found.observed_from, found.detected_on,
    case when least(first_used_at, ended_at)::date <= getvariable('as_of') then least(first_used_at, ended_at)::date end as resolved_on,
    deadline.day as due_on, deadline.is_estimated as due_on_is_estimated,
    case when found.report_to = 'province' then found.province else found.report_to end as report_to,
    case
        when reports.reported_at < deadline.day + 1 then 'reported'
        when reports.reported_at is not null then 'reported_late'
        when getvariable('as_of') <= deadline.day then 'pending'
        else 'unreported'
    end as report_status,
    reports.reported_at
from found
inner join working_days as detection on found.detected_on = detection.day
cross join policy_report
inner join working_days as deadline
    on detection.so_far + policy_report.working_days = deadline.so_far and deadline.is_working_day
left join reports using (subscription_id);

-- months
create temp table live as
with months as (
    select unnest(generate_series(
        date_trunc('month', (select min(ordered_at) from spells)), getvariable('as_of_end'), interval 1 month
    ))::date as billing_month
)
select months.billing_month, spells.*, services.service_class, services.billing_type, services.monthly_fee_li,
    services.sp_code is not null as is_in_catalogue
from months
inner join spells on ordered_at < billing_month and (ended_at is null or ended_at >= billing_month)
left join dim_service as services on spells.sp_code = services.sp_code and spells.service_code = services.service_code
    and services.valid_from <= billing_month and (services.valid_to is null or billing_month < services.valid_to);

create temp table silence as
with windows as (
    select live.*, policy.use_measure, policy.max_count, classes.usage_extract,
        (billing_month - to_months(policy.window_months))::date as window_start
    from live
    inner join policy_silence as policy using (service_class)
    inner join service_classes as classes using (service_class)
    where ordered_at <= billing_month - to_months(policy.window_months)
), judged as (
    select windows.* from windows
    anti join suspensions on windows.subscription_id = suspensions.subscription_id
        and suspensions.suspended_from < billing_month
        and (suspended_to is null or suspended_to > greatest(window_start::timestamp, suspended_from))
), counted as (
    select judged.billing_month, judged.subscription_id,
        coalesce(sum(usage.mt_count), 0)::bigint as mt_count, coalesce(sum(usage.wap_hits), 0)::bigint as wap_hits
    from judged left join spell_usage as usage on judged.subscription_id = usage.subscription_id
        and usage.month >= judged.window_start and usage.month < judged.billing_month
    group by all
)
select
    subscription_id, subscriber_id, sp_code, service_code, service_class, billing_month, window_start,
    case when use_measure = 'messages' then mt_count end as mt_count,
    case when use_measure = 'hits' then wap_hits end as wap_hits,
    case when window_start < first_day then 'unknown' else 'silent' end as verdict
from judged
inner join counted using (billing_month, subscription_id)
inner join starts on judged.usage_extract = starts.extract
where case use_measure when 'messages' then mt_count else wap_hits end <= max_count;

create table silent_subscriptions as from silence;

create temp table line_stops as
with current_records as (
    select msisdn, status, from_time, coalesce(to_time, timestamp 'infinity') as to_time
    from (
        select * from line_status
        qualify row_number() over (partition by msisdn, status, from_time order by business_date desc, source desc) = 1
    )
    where to_time is null or to_time > from_time
), islands as (
    select *, sum(starts) over (partition by msisdn, status order by from_time, to_time rows unbounded preceding) as island
    from (
        select *, coalesce(from_time > max(to_time) over (
            partition by msisdn, status order by from_time, to_time rows between unbounded preceding and 1 preceding
        ), true)::integer as starts
        from current_records
    )
), lines as (
    select msisdn, status, min(from_time) as from_time, max(to_time) as to_time from islands group by msisdn, status, island
)
select live.billing_month, live.msisdn, case when bool_or(lines.status = 'closed') then 'closed' else 'stopped' end as reason
from (select distinct billing_month, msisdn from live) as live
inner join lines on live.msisdn = lines.msisdn and lines.from_time < billing_month and lines.to_time >= billing_month
where lines.status = 'closed' or lines.from_time <= billing_month - interval 1 month
group by all;

create temp table service_stops as
with clipped as (
    select billing_month, live.sp_code, live.service_code,
        greatest(suspended_from, (billing_month - interval 1 month)::timestamp) as covered_from,
        least(coalesce(suspended_to, billing_month), billing_month)::timestamp as covered_to
    from (select distinct billing_month, sp_code, service_code from live) as live
    inner join (
        select * from sp_penalties qualify row_number() over (partition by penalty_id order by business_date desc, source desc) = 1
    ) as penalties on live.sp_code = penalties.sp_code
        and (penalties.service_code is null or live.service_code = penalties.service_code)
        and suspended_from < billing_month
        and (suspended_to is null or (suspended_to > billing_month - interval 1 month and suspended_to > suspended_from))
), covered as (
    select billing_month, sp_code, service_code, sum(greatest(date_diff('second', greatest(covered_from, before), covered_to), 0)) as seconds
    from (
        select *, coalesce(max(covered_to) over (
            partition by billing_month, sp_code, service_code order by covered_from, covered_to
            rows between unbounded preceding and 1 preceding
        ), covered_from) as before
        from clipped
    )
    group by all
)
select billing_month, sp_code, service_code from covered cross join policy_suspension where seconds > max_hours * 3600;

create table billing_dispositions as
with judged as (
    select
        live.billing_month, live.subscription_id, live.subscriber_id, live.sp_code, live.service_code, live.province,
        case
            when not is_in_catalogue then 'unknown_service'
            when billing_type <> 'monthly' or monthly_fee_li = 0 then 'free_service'
            when paused.subscription_id is not null then 'suspended'
            when live.billing_month < first_billable_month then 'trial'
            when coalesce(consent.is_required, true) and (confirmed_at is null or confirmed_at >= live.billing_month)
                then 'unconsented'
            when line_stops.reason is not null then 'line_stopped'
            when service_stops.sp_code is not null then 'sp_suspended'
            when abnormal.subscription_id is not null then 'abnormal'
            when silent.subscription_id is not null then 'silent'
            else 'billed'
        end as disposition,
        line_stops.reason as stop_reason,
        coalesce(monthly_fee_li, 0) as fee_li
    from live
    left join (
        select distinct live.billing_month, live.subscription_id from live inner join suspensions using (subscription_id)
        where suspended_from < billing_month and (suspended_to is null or suspended_to >= billing_month)
    ) as paused using (billing_month, subscription_id)
    left join (
        select distinct live.billing_month, live.subscription_id
        from live inner join anomalous_subscriptions as anomalies using (subscription_id)
        where detected_on < billing_month and (resolved_on is null or resolved_on >= billing_month)
    ) as abnormal using (billing_month, subscription_id)
    left join (select * from silence where verdict = 'silent') as silent using (billing_month, subscription_id)
    left join line_stops on live.billing_month = line_stops.billing_month and live.msisdn = line_stops.msisdn
    left join service_stops on live.billing_month = service_stops.billing_month
        and live.sp_code = service_stops.sp_code and live.service_code = service_stops.service_code
    left join policy_consent as consent on consent.valid_from <= live.ordered_at::date
        and (consent.valid_to is null or live.ordered_at::date < consent.valid_to)
)
select billing_month, subscription_id, subscriber_id, sp_code, service_code, province, judged.disposition,
    case when judged.disposition = 'line_stopped' then stop_reason else codes.reason end as reason,
    fee_li, case when judged.disposition = 'billed' then fee_li else 0 end as charged_li
from judged inner join disposition_codes as codes using (disposition);

create table sp_settlement as
with fees as (
    select
        sp_code, billing_month,
        coalesce(sum(fee_li) filter (where codes.is_gross), 0)::bigint as gross_li,
        coalesce(sum(fee_li) filter (where dispositions.reason = 'stopped'), 0)::bigint as stopped_li,
        coalesce(sum(fee_li) filter (where dispositions.reason = 'closed'), 0)::bigint as closed_li,
        coalesce(sum(fee_li) filter (where disposition = 'abnormal'), 0)::bigint as abnormal_li,
        coalesce(sum(fee_li) filter (where disposition = 'silent'), 0)::bigint as silent_li,
        coalesce(sum(fee_li) filter (where disposition = 'sp_suspended'), 0)::bigint as other_li
    from billing_dispositions as dispositions inner join disposition_codes as codes using (disposition)
    group by all
), repaid as (
    select sp_code, (date_trunc('month', business_date) + interval 1 month)::date as billing_month,
        sum(amount_li)::bigint as refunds_li, sum(case when times = '2' then amount_li else 0 end)::bigint as double_refunds_li
    from (select * from refunds qualify row_number() over (partition by refund_id order by business_date desc, source desc) = 1)
    where (date_trunc('month', business_date) + interval 1 month) <= getvariable('as_of_end')
    group by all
), settled as (
    select
        sp_code, billing_month, coalesce(gross_li, 0) as gross_li, coalesce(stopped_li, 0) as stopped_li,
        coalesce(closed_li, 0) as closed_li, coalesce(abnormal_li, 0) as abnormal_li, coalesce(silent_li, 0) as silent_li,
        coalesce(other_li, 0) as other_li, coalesce(refunds_li, 0) as refunds_li,
        coalesce(double_refunds_li, 0) as double_refunds_li,
        coalesce(gross_li, 0) - coalesce(stopped_li, 0) - coalesce(closed_li, 0) - coalesce(abnormal_li, 0)
        - coalesce(silent_li, 0) - coalesce(other_li, 0) - coalesce(refunds_li, 0) - coalesce(double_refunds_li, 0)
            as to_settle_li
    from fees full join repaid using (sp_code, billing_month)
), shared as (
    select *, (sign(to_settle_li) * (
        abs(to_settle_li * operator_share_bp) // 10000
        + case
            when (abs(to_settle_li * operator_share_bp) % 10000) * 2 > 10000 then 1
            when (abs(to_settle_li * operator_share_bp) % 10000) * 2 = 10000
                and (abs(to_settle_li * operator_share_bp) // 10000) % 2 = 1 then 1
            else 0
        end
    ))::bigint as operator_share_li
    from settled cross join policy_settlement
)
select sp_code, billing_month, gross_li, 0::bigint as errors_li, gross_li as audited_li, stopped_li, closed_li,
    abnormal_li, silent_li, 0::bigint as price_per_message_li, refunds_li, 0::bigint as penalties_li,
    double_refunds_li, other_li, to_settle_li, operator_share_li, to_settle_li - operator_share_li as sp_share_li,
    'payable' as status, null::varchar as hold_reason
from shared;

create table extract_completeness as
select extract, source, business_date as day, true as expected, true as delivered, rows_in, rows_loaded,
    rows_quarantined, rows_duplicate, 'delivered' as status
from counts;
"""


def publish(con: duckdb.DuckDBPyConnection, output: Path) -> None:
    """Write the marts as one DuckDB file that old clients read, and as Parquet, and move both into place."""
    staged = output / "marts.staged.duckdb"
    con.execute(f"attach '{staged}' as published (storage_version 'v1.0.0')")
    parquet = output / "parquet"
    parquet.mkdir()
    for table, order in MARTS.items():
        con.execute(f"create table published.{table} as from {table} order by {order}")
        con.execute(f"copy published.{table} to '{parquet / table}.parquet' (format parquet, compression zstd)")
    con.execute("detach published")
    staged.replace(output / "marts.duckdb")


def main(home: Path, as_of: str, output: Path) -> None:
    """Do the whole job of one bulk load."""
    shutil.rmtree(output, ignore_errors=True)
    (output / "lake").mkdir(parents=True)
    con = duckdb.connect(str(output / "floor.duckdb"), config={"threads": THREADS, "memory_limit": "4GB"})
    con.execute("create table quarantine (extract varchar, path varchar, reason varchar)")
    con.execute(
        "create table counts (extract varchar, business_date date, source varchar, rows_in bigint, rows_loaded bigint, "
        "rows_quarantined bigint, rows_duplicate bigint, is_right boolean)"
    )
    deliveries = find_deliveries(home / "landing", as_of)
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(verify, deliveries.values()))
    for extract in EXTRACTS:
        chosen = [item for (name, _, _), item in sorted(deliveries.items()) if name == extract]
        read_extract(con, extract, chosen, output / "lake")
    (wrong,) = con.execute("select count(*) from counts where not is_right").fetchone()
    if wrong:
        sys.exit(f"{wrong} deliveries differ from their manifests")
    load_policy(con)
    set_key(con, os.environ["CLEANBILL_PSEUDONYM_KEY"].encode())
    con.execute("set variable as_of = $1::date", [as_of])
    con.execute("set variable as_of_end = ($1::date + interval 1 day)::timestamp", [as_of])
    con.execute(marts_sql())
    publish(con, output)
    con.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
