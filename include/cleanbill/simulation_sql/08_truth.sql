-- The truth, from what was planted: nothing here reads an event or a record of use.
create table true_anomaly as
with due as (
    select
        *,
        day_of(ordered_s) + getvariable('tenure_days') as detected_day,
        (detected_day + 1) * 86400 as judged_s,
    from spell
    where family != 'none'
),
found as (
    select *, 'never_accessed' as anomaly_type, least(counted_use_s, ended_s) as resolved_s
    from due
    where coalesce(counted_use_s, never()) >= judged_s
    union all
    select *, 'no_traffic', least(counted_traffic_s, ended_s)
    from due
    where family = 'browse' and coalesce(counted_traffic_s, never()) >= judged_s
)
select *
from found
where coalesce(ended_s, never()) >= judged_s and detected_day <= getvariable('last_day');

-- What the SP reports of it: on the day of detection or the next (in time whatever the working days), before it,
-- three weeks later (late whatever the holidays), or never.
create table true_report as
with drawn as (
    select distinct
        spell_no, msisdn, sp_code, service_code, service_class, detected_day, next_ordered_s, ordered_s,
        ['early', 'in time', 'in time', 'in time', 'in time', 'late', 'late', 'never'][1 + pick('report', spell_no, 8)]
            as manner,
    from true_anomaly
),
timed as (
    select
        *,
        case manner
            when 'early' then greatest(ordered_s + 3600, (detected_day - 10) * 86400)
            when 'in time' then (detected_day + pick('report day', spell_no, 2)) * 86400
            when 'late' then (detected_day + 21 + pick('report day', spell_no, 5)) * 86400
        end + 1 + second_of_day(draw('report time', spell_no)) as reported_s,
    from drawn
)
select * exclude (reported_s), case
    when reported_s < least(next_ordered_s, getvariable('end_s')) then reported_s
end as reported_s
from timed;

create table true_silence as
with months as (
    select
        *,
        count(*) over window_of as window_months,
        sum(counted) over window_of as window_use,
        bool_and(lives_whole_month and not is_paused) over window_of as is_judged,
        min(month_first) over window_of as window_start,
    from (
        select *, case family when 'message' then 1 else getvariable('silent_months') end as length
        from planted_month
    )
    window window_of as (
        partition by spell_no order by month_no
        range between (length - 1) preceding and current row
    )
)
select
    next_first as billing_month, spell_no, subscriber_no, window_start,
    case when months.family = 'message' then window_use::bigint end as mt_count,
    case when months.family = 'browse' then window_use::bigint end as wap_hits,
from months
where
    is_judged and window_months = length
    and window_use <= case family when 'message' then getvariable('silent_messages') else 0 end;
