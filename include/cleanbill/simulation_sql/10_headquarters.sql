-- What headquarters sends: full files every day, and what changes.
create table headquarters_line as
with fees as (
    select
        service.*, monthly_fee_li as fee_li, coalesce(launch_day, getvariable('first_day') - 400) as valid_day,
        coalesce(launch_day, 0) as listed_day,
    from service
    union all
    -- Two prices change; each is announced five days before.
    select
        service.*, monthly_fee_li + case service_code when 'NEWS' then 1000 else -2000 end,
        getvariable('first_day') + getvariable('days') * 55 // 100,
        getvariable('first_day') + getvariable('days') * 55 // 100 - 5,
    from service
    where service_code in ('NEWS', 'LOVE')
)
select
    'service_catalogue' as extract, calendar.day,
    service_no * 2 + (valid_day > getvariable('first_day'))::bigint as at_s,
    concat_ws(
        ',', sp_code, service_code, service_name, service_class, (service_class = 'portal')::varchar, billing_type,
        fee_li, 'active', as_day(valid_day)::varchar, quoted(marketing_text)
    ) as line,
from fees
join calendar on calendar.day >= listed_day and (withdraw_day is null or calendar.day < withdraw_day)
union all
select
    'service_providers', calendar.day, 0,
    concat_ws(
        ',', sp_code, quoted(sp_name), (select source from source where source_no = 0), status,
        'service@' || sp_code || '.example'
    ),
from provider
cross join calendar;

-- Suspensions of SPs and services in the last and in a middle month: over and under the limit, overlapping, open.
create table penalty as
with planned (number, month_back, from_day, length_days, sp_code, service_code, reason) as (
    values
        (1, 0, 2, 14, '903003', null, 'data not cleaned up'),
        (2, 0, 4, 6, '902001', null, 'misleading text'),
        (3, 0, 5, 8, '901003', 'RING', 'complaints'),
        (4, 0, 10, 7, '901003', null, 'complaints'),
        (5, 0, 12, null, '904001', null, 'no answer'),
        (6, 1, 3, 12, '902003', 'LEAGUE', 'price not shown'),
        (7, 2, 8, 9, '903001', null, 'clean-up delayed')
)
select
    'PEN-' || lpad(number::varchar, 4, '0') as penalty_id, sp_code, service_code, reason,
    month_s + from_day * 86400 + 9 * 3600 as from_s,
    case when length_days is not null then from_s + length_days * 86400 + 8 * 3600 end as to_s,
from planned
join month on month.month_no = (select max(month_no) from month) - month_back
where month_s + from_day * 86400 >= getvariable('first_s') and month_s + (from_day + 1) * 86400 <= getvariable('end_s');

insert into headquarters_line
with told as (
    select penalty.*, day_of(from_s) as day, null::bigint as told_to_s from penalty
    union all
    -- The end is told on its day, under the same id.
    select penalty.*, day_of(to_s), to_s from penalty where to_s < getvariable('end_s')
)
select
    'sp_penalties', day, from_s,
    concat_ws(
        ',', penalty_id, sp_code, coalesce(service_code, ''), as_time(from_s)::varchar,
        coalesce(as_time(told_to_s)::varchar, ''), reason
    ),
from told;

insert into headquarters_line
with told as (
    select line_stop.*, day_of(from_s) as day, null::bigint as told_to_s from line_stop
    union all
    select line_stop.*, day_of(to_s), to_s from line_stop where to_s is not null
)
select
    'line_status', day, from_s,
    concat_ws(',', msisdn, status, as_time(from_s)::varchar, coalesce(as_time(told_to_s)::varchar, '')),
from told;

-- Reports on what is abnormal, and a few on what is not.
insert into headquarters_line
with reports as (
    select
        spell_no, sp_code, service_code, msisdn,
        case when spell_no % 2 = 0 then 'never_accessed' else 'no_traffic' end as anomaly_type, reported_s,
    from true_report
    where reported_s is not null
    union all
    select
        spell_no, sp_code, service_code, msisdn, 'never_accessed',
        ordered_s + 1 + pick('needless', spell_no, least(ended_s, getvariable('end_s')) - ordered_s - 2),
    from spell
    where
        role = 'regular' and kind = 'regular' and family != 'none' and pick('needless report', spell_no, 400) = 0
        and least(ended_s, getvariable('end_s')) - ordered_s > 86400
        and spell_no not in (select spell_no from true_anomaly)
)
select
    'sp_reports',
    least(
        day_of(reported_s) + if(pick('report is late', spell_no, 10) = 0, 2, 0), getvariable('last_day')
    ),
    reported_s,
    concat_ws(
        ',', 'REP-' || lpad(spell_no::varchar, 9, '0'), sp_code, service_code, msisdn, anomaly_type,
        as_time(reported_s)::varchar
    ),
from reports;

insert into headquarters_line
with charged as (
    select
        spell.*, month.month_first, month.next_s,
        day_of(month.month_s) + pick('refund day', spell_no * 64 + month_no, 27) as day,
    from spell
    join month on spell.ordered_s < month.month_s - 45 * 86400 and coalesce(spell.ended_s, never()) >= month.month_s
    where billing_type = 'monthly' and pick('refund', spell_no * 64 + month_no, 500) = 0
)
select
    'refunds', day, spell_no,
    concat_ws(
        ',', 'REF-' || lpad(spell_no::varchar, 9, '0') || '-' || strftime(month_first, '%Y%m'), msisdn, sp_code,
        service_code, month_first::varchar, monthly_fee_li, 1 + spell_no % 2,
        ['complaint', 'not ordered', 'double charge'][1 + spell_no % 3]
    ),
from charged
where day <= getvariable('last_day');
