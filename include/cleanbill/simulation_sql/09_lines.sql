-- The text lines of every delivery: which day and source they belong to, in that source's way of writing.
create macro written_time(seconds, is_at_midnight, dialect) as
    case
        when dialect = 1 and is_at_midnight then strftime(as_time(seconds - 86400), '%Y%m%d') || '240000'
        when dialect = 1 then strftime(as_time(seconds), '%Y%m%d%H%M%S')
        when is_at_midnight then as_day(day_of(seconds) - 1)::varchar || ' 24:00:00'
        else as_time(seconds)::varchar
    end;
create macro written_msisdn(msisdn, dialect, spread) as
    case when dialect = 2 then ['86', '+86', '0086', ''][1 + bits(spread, 29, 4)] || msisdn else msisdn end;

create table resent as
with kinds as (
    select unnest(['relation_events', 'sms_usage', 'wap_usage', 'gprs_usage']) as extract
)
select extract, source_no, day
from kinds
cross join source
cross join calendar
where pick('resent', extract || source_no || '/' || day, 1000) < getvariable('resent_permille');

-- When what is not there the next morning comes: five files in a thousand are late, a resend follows its original.
create table arrival as
with sent as (
    select extract, source, calendar.day
    from (select unnest(['relation_events', 'sms_usage', 'wap_usage', 'gprs_usage']) as extract) kinds
    cross join source
    cross join calendar
    union all
    select extract, 'hq', calendar.day
    from (select unnest(['line_status', 'service_catalogue', 'sp_penalties', 'sp_reports', 'refunds']) as extract) kinds
    cross join calendar
)
select
    extract, day, source, 1 as delivery,
    day + 2 + pick('lateness', extract || source || '/' || day, 10) as arrival_day
from sent
where pick('late file', extract || source || '/' || day, 1000) < 5
union all
select resent.extract, day, source, 2, day + 13 + pick('resent on', extract || source || '/' || day, 15)
from resent
join source using (source_no);

-- The delivery that a resend replaces also claims use nobody made: by planted spells, so that it shows if it counts.
insert into message by name
select
    spell_no, resent.day * 86400 + 43200 as used_s, 'MT' as direction, 'ok' as status, 'content' as purpose,
    9 as message_count, true as is_fixed, 0::ubigint as spread, true as is_ghost, msisdn, source_no as home_no, sp_code,
    service_code, 0 as fee_li,
from resent
join spell on
    spell.role = 'never' and spell.family = 'message'
    and spell.ordered_s < resent.day * 86400 and coalesce(spell.ended_s, never()) > (resent.day + 1) * 86400
where resent.extract = 'sms_usage'
qualify row_number() over (partition by source_no, day order by spell_no) <= 3;
insert into access by name
select
    spell_no, resent.day * 86400 + 43200 as used_s, 'ok' as status, 9 as hits, true as is_fixed, 0::ubigint as spread,
    true as is_ghost, msisdn, source_no as home_no, sp_code, service_code, 0 as fee_li,
from resent
join spell on
    spell.role = 'never' and spell.family = 'browse'
    and spell.ordered_s < resent.day * 86400 and coalesce(spell.ended_s, never()) > (resent.day + 1) * 86400
where resent.extract = 'wap_usage'
qualify row_number() over (partition by source_no, day order by spell_no) <= 3;
insert into traffic by name
select
    msisdn, source_no as home_no, 'CMWAP' as apn, resent.day * 86400 + 43200 as started_s, 900 as up_bytes,
    900 as down_bytes, true as is_fixed, 0::ubigint as spread, true as is_ghost,
from resent
cross join dark_subscriber
where resent.extract = 'gprs_usage'
qualify row_number() over (partition by source_no, day order by subscriber_no) <= 3;

-- Where and when a record of use is delivered: three in a hundred roam, four in a thousand are late (1 to 31 days),
-- fifteen in a hundred thousand are sent twice. A late record due after the last day is not there yet.
create macro placed(at_s, home_no, is_fixed, spread, is_ghost) as {
    'source_no': case
        when is_ghost or bits(spread, 33, 100) >= 3 then home_no
        else (home_no + 1 + bits(spread, 50, 7)) % getvariable('sources')
    end,
    'lag': case when not is_fixed and bits(spread, 47, 1000) < 4 then 1 + bits(spread, 5, 31) else 0 end,
    'copies': case when not is_ghost and bits(spread, 39, 100000) < getvariable('doubled_per_100000') then 2 else 1 end
};
create macro delivered_on(at_s, lag, is_at_midnight) as day_of(at_s) + lag - is_at_midnight::bigint;
create macro falls_on_midnight(at_s, lag, dialect) as
    at_s % 86400 = 0 and lag = 0 and dialect < 2 and day_of(at_s) > getvariable('first_day');

create table message_line as
with placed_messages as (
    select *, placed(used_s, home_no, is_fixed, spread, is_ghost) as place from message
),
written as (
    select
        placed_messages.*, source.source_no, dialect,
        falls_on_midnight(used_s, place.lag, dialect) as is_at_midnight,
    from placed_messages
    join source on source.source_no = placed_messages.place.source_no
)
select
    'sms_usage' as extract, delivered_on(used_s, place.lag, is_at_midnight) as day, source_no, used_s as at_s,
    concat_ws(
        ',', written_msisdn(msisdn, dialect, spread), sp_code, service_code, direction,
        written_time(used_s, is_at_midnight, dialect), status, purpose, message_count, fee_li
    ) as line,
    message_count as measure, is_ghost, unnest(range(place.copies)) as copy,
from written
where day_of(used_s) + place.lag <= getvariable('last_day');

create table access_line as
with placed_accesses as (
    select *, placed(used_s, home_no, is_fixed, spread, is_ghost) as place from access
),
written as (
    select
        placed_accesses.*, source.source_no, dialect,
        falls_on_midnight(used_s, place.lag, dialect) as is_at_midnight,
    from placed_accesses
    join source on source.source_no = placed_accesses.place.source_no
)
select
    'wap_usage' as extract, delivered_on(used_s, place.lag, is_at_midnight) as day, source_no, used_s as at_s,
    concat_ws(
        ',', written_msisdn(msisdn, dialect, spread), sp_code, service_code,
        written_time(used_s, is_at_midnight, dialect), status, hits, fee_li
    ) as line,
    hits as measure, is_ghost, unnest(range(place.copies)) as copy,
from written
where day_of(used_s) + place.lag <= getvariable('last_day');

create table traffic_line as
with placed_traffic as (
    select *, placed(started_s, home_no, is_fixed, spread, is_ghost) as place from traffic
),
written as (
    select
        placed_traffic.*, source.source_no, dialect,
        falls_on_midnight(started_s, place.lag, dialect) as is_at_midnight,
    from placed_traffic
    join source on source.source_no = placed_traffic.place.source_no
)
select
    'gprs_usage' as extract, delivered_on(started_s, place.lag, is_at_midnight) as day, source_no, started_s as at_s,
    concat_ws(
        ',', written_msisdn(msisdn, dialect, spread), apn, written_time(started_s, is_at_midnight, dialect),
        up_bytes, down_bytes
    ) as line,
    up_bytes as measure, is_ghost, unnest(range(place.copies)) as copy,
from written
where day_of(started_s) + place.lag <= getvariable('last_day');

create table event_line as
select
    'relation_events' as extract, act.day, home_no as source_no, event_s as at_s,
    concat_ws(
        ',', event_id, written_msisdn(msisdn, act.dialect, draw('written', letter || number)), sp_code,
        coalesce(service_code, ''), action, written_time(event_s, is_at_midnight, act.dialect), channel,
        coalesce(written_time(confirmed_s, false, act.dialect), ''),
        case when pick('no province', number, 300) = 0 then '' else source.source end,
        coalesce(old_service_code, '')
    ) as line,
    0::bigint as measure, false as is_ghost, 0::bigint as copy,
from act
join source on source.source_no = act.home_no;
