"""A small hand-made warehouse that every gate lets through, for tests that spoil one thing in it.

As-of date 2026-09-30, so 2026-10 is the newest billing month. Seven spells of one SP:

- 1 news: used, billed every month;                 - 5 ring: paused since 10 September;
- 2 news: never used, in trial, then abnormal;      - 6 ring: not used, its window lacks a day: unknown;
- 3 news: silent in July, used again since;         - 7 news: ordered in September's trial days.
- 4 news: cancelled in September;
"""

from pathlib import Path

import duckdb
from cleanbill.control import CONTROL_DDL

AS_OF = "2026-09-30"
MISSING_DAY = "2026-07-15"

DELIVERIES = """
insert into control.deliveries
select
    extract, cast(day as date), 'bj', 1,
    'landing/' || extract || '/' || cast(day as date) || '/m.json', sha256(extract || day), 'msisdn', 'accepted',
    null, null, null, 0, 0, 0, 0, null, null, null
from (select unnest([
    'relation_events', 'sms_usage', 'wap_usage', 'gprs_usage', 'service_catalogue', 'service_providers',
    'sp_reports', 'sp_penalties', 'refunds', 'line_status'
]) as extract)
cross join (select unnest(generate_series(timestamp '2026-05-01', timestamp '2026-09-30', interval 1 day)) as day)
where not (extract = 'wap_usage' and cast(day as date) = date '2026-07-15');
insert into control.deliveries
values (
    'relation_snapshot', '2026-09-30', 'bj', 1, 'landing/relation_snapshot/2026-09-30/m.json', sha256('snapshot'),
    'msisdn', 'accepted', null, null, null, 0, 0, 0, 0, null, null, null
);
-- a refused resend whose successor was accepted: no reason to warn
insert into control.deliveries
values (
    'refunds', '2026-09-29', 'sd', 1, 'landing/refunds/2026-09-29/sd.json', sha256('sd1'),
    'msisdn', 'rejected', 'sha256_differs', 'the bytes differ', null, 4, 0, 0, 0, null, null, null
);
insert into control.deliveries
values (
    'refunds', '2026-09-29', 'sd', 2, 'landing/refunds/2026-09-29/sd2.json', sha256('sd2'),
    'msisdn', 'over_limit', 'over_limit', 'half of it is bad', null, 4, 2, 2, 0, null, null, null
);
insert into control.deliveries
values (
    'refunds', '2026-09-29', 'sd', 3, 'landing/refunds/2026-09-29/sd3.json', sha256('sd3'),
    'msisdn', 'accepted', null, null, null, 0, 0, 0, 0, null, null, null
);
insert into control.deliveries
values (
    'refunds', '2026-09-30', 'sd', 1, 'landing/refunds/2026-09-30/sd.json', sha256('sd30'),
    'msisdn', 'accepted', null, null, null, 0, 0, 0, 0, null, null, null
);
insert into control.waivers values ('wap_usage', 'bj', '2026-07-15', 'lost', 'a', 'b', '2027-01-01');
insert into control.run_context values ('2026-09-30', '2026-09-29', 'digest');
insert into control.absorbed_state values ('2026-09-30', 'digest');
"""

STAGING = """
create schema staging;
create table staging.stg_relation_events as
select
    event_id, msisdn, '900001' as sp_code, service_code, action, cast(event_time as timestamp) as event_time,
    'wap' as channel, cast(event_time as timestamp) as confirmed_at, 'bj' as province,
    cast(null as varchar) as old_service_code, cast(event_time as date) as business_date, 'bj' as source, 1 as delivery,
    'events.csv' as file_name, row_number() over (order by event_time, event_id) + 1 as line_no
from (values
    ('e1', '13800000001', 'news', 'order', '2026-07-10 10:00:00'),
    ('e2', '13800000002', 'news', 'order', '2026-07-25 10:00:00'),
    ('e3', '13800000003', 'news', 'order', '2026-06-05 10:00:00'),
    ('e4', '13800000004', 'news', 'order', '2026-08-01 10:00:00'),
    ('e4c', '13800000004', 'news', 'cancel', '2026-09-15 10:00:00'),
    ('e5', '13800000005', 'ring', 'order', '2026-08-05 10:00:00'),
    ('e5s', '13800000005', 'ring', 'suspend', '2026-09-10 10:00:00'),
    ('e6', '13800000006', 'ring', 'order', '2026-05-05 10:00:00'),
    ('e7', '13800000007', 'news', 'order', '2026-09-02 10:00:00'),
    ('e8', '13800000001', 'news', 'order', '2026-09-30 10:00:00')
) as events (event_id, msisdn, service_code, action, event_time);

create table staging.stg_relation_snapshot as
select
    '13800000001' as msisdn, '900001' as sp_code, 'news' as service_code, 'active' as status,
    timestamp '2026-07-10 10:00:00' as first_ordered_at, timestamp '2026-07-10 10:00:00' as ordered_at,
    timestamp '2026-07-10 10:00:00' as confirmed_at, 'wap' as channel, 'bj' as province,
    date '2026-09-30' as business_date, 'bj' as source, 1 as delivery, 'snapshot.csv' as file_name, 2 as line_no;

create table staging.stg_sms_usage as
select
    '13800000001' as msisdn, '900001' as sp_code, 'news' as service_code, 'MT' as direction,
    timestamp '2026-09-30 08:00:00' as sent_at, 'ok' as status, 'content' as purpose, 5::bigint as message_count,
    0::bigint as fee_li, date '2026-09-30' as business_date, 'bj' as source, 1 as delivery, 'sms.csv' as file_name,
    2::bigint as line_no;
create table staging.stg_wap_usage as
select
    '13800000005' as msisdn, '900001' as sp_code, 'ring' as service_code,
    timestamp '2026-09-30 08:00:00' as accessed_at, 'ok' as status, 3::bigint as hits, 0::bigint as fee_li,
    date '2026-09-30' as business_date, 'bj' as source, 1 as delivery, 'wap.csv' as file_name, 2::bigint as line_no;
create table staging.stg_gprs_usage as
select
    '13800000005' as msisdn, 'CMWAP' as apn, timestamp '2026-09-30 08:00:00' as started_at, 10::bigint as up_bytes,
    20::bigint as down_bytes, date '2026-09-30' as business_date, 'bj' as source, 1 as delivery,
    'gprs.csv' as file_name, 2::bigint as line_no;
create table staging.stg_line_status as
select
    '13800000009' as msisdn, 'stopped' as status, timestamp '2026-09-01 08:00:00' as from_time,
    timestamp '2026-09-02 08:00:00' as to_time, date '2026-09-02' as business_date, 'bj' as source, 1 as delivery,
    'lines.csv' as file_name, 2::bigint as line_no;
create table staging.stg_sp_penalties as
select
    'p1' as penalty_id, '900001' as sp_code, cast(null as varchar) as service_code,
    timestamp '2026-09-01 08:00:00' as suspended_from, timestamp '2026-09-02 08:00:00' as suspended_to,
    'x' as reason, date '2026-09-02' as business_date, 'bj' as source, 1 as delivery, 'penalties.csv' as file_name,
    2::bigint as line_no;
create table staging.stg_sp_reports as
select
    'r1' as report_id, '900001' as sp_code, 'news' as service_code, '13800000002' as msisdn,
    'never_accessed' as anomaly_type, timestamp '2026-09-20 08:00:00' as reported_at,
    date '2026-09-20' as business_date, 'bj' as source, 1 as delivery, 'reports.csv' as file_name, 2::bigint as line_no;
create table staging.stg_refunds as
select
    'f1' as refund_id, '13800000001' as msisdn, '900001' as sp_code, 'news' as service_code,
    date '2026-08-01' as billing_month, 2000::bigint as amount_li, 1 as times, 'x' as reason,
    date '2026-09-20' as business_date, 'bj' as source, 1 as delivery, 'refunds.csv' as file_name, 2::bigint as line_no;
create table staging.stg_service_catalogue as
select
    '900001' as sp_code, service_code, 'name' as service_name, service_class, false as is_portal,
    'monthly' as billing_type, monthly_fee_li::bigint as monthly_fee_li, 'active' as status,
    date '2026-01-01' as valid_from, cast(null as varchar) as marketing_text, date '2026-05-01' as business_date,
    'bj' as source, 1 as delivery, 'catalogue.csv' as file_name, line_no::bigint as line_no
from (values ('news', 'sms', 2000, 2), ('ring', 'portal', 3000, 3))
as services (service_code, service_class, monthly_fee_li, line_no);
create table staging.stg_service_providers as
select
    '900001' as sp_code, 'SP' as sp_name, 'bj' as province, 'active' as status, 'desk' as contact,
    date '2026-05-01' as business_date, 'bj' as source, 1 as delivery, 'providers.csv' as file_name,
    2::bigint as line_no;
create table staging.full_file_changes as
select unnest(['service_catalogue', 'service_providers']) as extract, date '2026-05-01' as business_date;
"""

# The counters of ingest follow from the rows above; each delivery with rows has one file.
COUNTERS = """
create temporary table counted as
select 'relation_events' as extract, business_date, source, delivery from staging.stg_relation_events
union all select 'relation_snapshot', business_date, source, delivery from staging.stg_relation_snapshot
union all select 'sms_usage', business_date, source, delivery from staging.stg_sms_usage
union all select 'wap_usage', business_date, source, delivery from staging.stg_wap_usage
union all select 'gprs_usage', business_date, source, delivery from staging.stg_gprs_usage
union all select 'line_status', business_date, source, delivery from staging.stg_line_status
union all select 'sp_penalties', business_date, source, delivery from staging.stg_sp_penalties
union all select 'sp_reports', business_date, source, delivery from staging.stg_sp_reports
union all select 'refunds', business_date, source, delivery from staging.stg_refunds
union all select 'service_catalogue', business_date, source, delivery from staging.stg_service_catalogue
union all select 'service_providers', business_date, source, delivery from staging.stg_service_providers;
update control.deliveries
set rows_in = sums.loaded + 2, rows_loaded = sums.loaded, rows_quarantined = 1, rows_duplicate = 1,
    lake_path = 'lake/' || deliveries.extract || '/' || deliveries.business_date || '/bj.d1.parquet'
from (select extract, business_date, source, delivery, count(*) as loaded from counted group by all) as sums
where
    deliveries.extract = sums.extract and deliveries.business_date = sums.business_date
    and deliveries.source = sums.source and deliveries.delivery = sums.delivery;
insert into control.delivery_files
select
    extract, business_date, source, delivery, extract || '_' || source || '.csv', 100,
    sha256(extract || business_date || source || delivery), rows_in, rows_loaded, rows_quarantined, rows_duplicate
from control.deliveries;
insert into control.in_force
select
    extract, business_date, source, delivery, manifest_sha256, rows_in, rows_loaded, rows_quarantined, rows_duplicate,
    lake_path, content_digest
from control.deliveries
where status = 'accepted';
insert into control.absorbed
select extract, business_date, source, delivery, lake_path, content_digest from control.in_force;
create table staging.changed_deliveries as
select
    extract, business_date, source, cast(null as integer) as old_delivery, delivery as new_delivery,
    cast(null as varchar) as old_path, lake_path as new_path
from control.in_force
where business_date = date '2026-09-30';
"""

POLICY = """
create schema policy;
create table policy.service_classes as
select * from (values ('sms', 'sms_usage'), ('mms', 'sms_usage'), ('wap', 'wap_usage'), ('portal', 'wap_usage'))
as classes (service_class, usage_extract);
create table policy.policy_preview as
select 20 as first_day, date '1900-01-01' as valid_from, cast(null as date) as valid_to;
create table policy.policy_growth as
select * from (values ('daily', 'alert_p', 0.002), ('daily', 'alert_q', 0.05)) as policy (cadence, parameter, value);
create table policy.policy_consent as
select true as is_required, date '2006-10-10' as valid_from, cast(null as date) as valid_to;
"""

INTERMEDIATE = """
create schema intermediate;
create table intermediate.int_spells as
select
    md5('spell' || number) as subscription_id, md5('subscriber' || number) as subscriber_id,
    '1380000000' || number as msisdn, '900001' as sp_code, service_code, 'e' || number as opening_event_id,
    'bj' as opening_source, 'bj' as province, 'wap' as channel, cast(ordered_at as timestamp) as confirmed_at,
    cast(ordered_at as timestamp) as first_ordered_at, cast(ordered_at as timestamp) as ordered_at,
    cast(ended_at as timestamp) as ended_at, end_reason, cast(null as timestamp) as next_ordered_at,
    cast(first_billable_month as date) as first_billable_month
from (values
    (1, 'news', '2026-07-10 10:00:00', null, null, '2026-08-01'),
    (2, 'news', '2026-07-25 10:00:00', null, null, '2026-09-01'),
    (3, 'news', '2026-06-05 10:00:00', null, null, '2026-07-01'),
    (4, 'news', '2026-08-01 10:00:00', '2026-09-15 10:00:00', 'cancel', '2026-09-01'),
    (5, 'ring', '2026-08-05 10:00:00', null, null, '2026-09-01'),
    (6, 'ring', '2026-05-05 10:00:00', null, null, '2026-06-01'),
    (7, 'news', '2026-09-02 10:00:00', null, null, '2026-10-01')
) as spells (number, service_code, ordered_at, ended_at, end_reason, first_billable_month);
create table intermediate.int_suspensions as
select
    md5('spell5') as subscription_id, '13800000005' as msisdn, '900001' as sp_code, 'ring' as service_code,
    timestamp '2026-09-10 10:00:00' as suspended_from, cast(null as timestamp) as suspended_to;
create table intermediate.int_spell_usage as
select
    case when number < 8 then md5('spell' || number) end as subscription_id, '1380000000' || number as msisdn,
    '900001' as sp_code, case when wap_hits > 0 then 'ring' else 'news' end as service_code,
    cast(month as date) as month, mt_count::bigint as mt_count, 0::bigint as mo_count, wap_hits::bigint as wap_hits,
    2::bigint as active_days, cast(last_used_on as date) as last_used_on
from (values
    (1, '2026-07-01', 9, 0, '2026-07-20'), (1, '2026-08-01', 9, 0, '2026-08-20'), (1, '2026-09-01', 9, 0, '2026-09-30'),
    (3, '2026-06-01', 9, 0, '2026-06-20'), (3, '2026-07-01', 2, 0, '2026-07-20'), (3, '2026-08-01', 9, 0, '2026-08-20'),
    (3, '2026-09-01', 9, 0, '2026-09-20'), (4, '2026-08-01', 9, 0, '2026-08-20'), (5, '2026-08-01', 0, 9, '2026-08-20'),
    (5, '2026-09-01', 0, 9, '2026-09-30'), (6, '2026-05-01', 0, 9, '2026-05-20'), (7, '2026-09-01', 9, 0, '2026-09-20'),
    (8, '2026-09-01', 0, 4, '2026-09-20')
) as usage (number, month, mt_count, wap_hits, last_used_on);
"""

MARTS = """
create schema marts;
create table marts.dim_service as
select
    sp_code, service_code, service_name, service_class, is_portal, billing_type, monthly_fee_li, valid_from,
    cast(null as date) as valid_to
from staging.stg_service_catalogue;
create table marts.dim_service_provider as
select sp_code, sp_name, province, status from staging.stg_service_providers;
create table marts.subscriptions as
select
    subscription_id, subscriber_id, '138****' || right(msisdn, 4) as msisdn_masked, sp_code, service_code, province,
    channel, first_ordered_at, ordered_at, ended_at, end_reason,
    case when ended_at is not null then 'ended' when subscription_id = md5('spell5') then 'suspended' else 'active' end
        as status,
    confirmed_at, first_billable_month
from intermediate.int_spells;
create table marts.subscription_usage_monthly as
select subscription_id, month, mt_count, mo_count, wap_hits, active_days, last_used_on
from intermediate.int_spell_usage
where subscription_id is not null;
create table marts.usage_outside_spells as
select
    sp_code, service_code, month, count(*) as subscribers, sum(mt_count)::bigint as mt_count,
    sum(mo_count)::bigint as mo_count, sum(wap_hits)::bigint as wap_hits
from intermediate.int_spell_usage
where subscription_id is null
group by all;
create table marts.anomalous_subscriptions as
select
    md5('spell2') as subscription_id, md5('subscriber2') as subscriber_id, '900001' as sp_code, 'news' as service_code,
    'never_accessed' as anomaly_type, date '2026-07-25' as observed_from, date '2026-08-24' as detected_on,
    cast(null as date) as resolved_on, date '2026-08-27' as due_on, false as due_on_is_estimated, 'bj' as report_to,
    'reported_late' as report_status, timestamp '2026-09-20 08:00:00' as reported_at;
create table marts.service_growth as
select
    '900001' as sp_code, 'news' as service_code, date '2026-09-02' as day, cast(1 as bigint) as new_orders,
    0.1 :: double as expected, 10.0 :: double as ratio, 0.0001 :: double as p_value, 0.0001 :: double as q_value,
    true as is_alert, 'up' as direction, 56 as baseline_days, 'burst' as reason, 0.0 :: double as expected_low,
    0.9 :: double as expected_high, 1 :: bigint as rise_orders, 0.7 :: double as rise_expected;
create table marts.service_growth_alerts as
select
    sp_code, service_code, day, day as first_day, day as last_day, reason, direction, new_orders, expected,
    expected_low, expected_high, ratio, p_value, q_value, baseline_days, new_orders as orders, 'wap' as main_channel,
    100 as main_channel_percent, 'bj' as main_province, 100 as main_province_percent, 10 as main_hour,
    100 as main_hour_percent, 0 as unconfirmed_percent, 100 as never_used_percent,
    'news had one order' as explanation
from marts.service_growth;
create table marts.service_growth_relations as
select
    subscription_id, subscriber_id, sp_code, service_code, ordered_at, date '2026-09-02' as alert_day,
    true as is_confirmed, false as is_used
from marts.subscriptions
where subscription_id = md5('spell7');
create table marts.silent_subscriptions as
select
    md5('spell' || number) as subscription_id, md5('subscriber' || number) as subscriber_id, '900001' as sp_code,
    service_code, service_class, cast(billing_month as date) as billing_month,
    cast(window_start as date) as window_start, mt_count::bigint as mt_count, wap_hits::bigint as wap_hits, verdict
from (values
    (2, 'news', 'sms', '2026-09-01', '2026-08-01', 0, null, 'silent'),
    (2, 'news', 'sms', '2026-10-01', '2026-09-01', 0, null, 'silent'),
    (3, 'news', 'sms', '2026-08-01', '2026-07-01', 2, null, 'silent'),
    (6, 'ring', 'portal', '2026-10-01', '2026-06-01', null, 0, 'unknown')
) as silent (number, service_code, service_class, billing_month, window_start, mt_count, wap_hits, verdict);
create table marts.billing_dispositions as
with live as (
    select *, cast(unnest(generate_series(
        date_trunc('month', ordered_at) + interval 1 month,
        least(coalesce(ended_at, timestamp '2026-10-01'), timestamp '2026-10-01'), interval 1 month
    )) as date) as billing_month
    from intermediate.int_spells
),
judged as (
    select
        live.*,
        case
            when subscription_id = md5('spell5') and billing_month = date '2026-10-01' then 'suspended'
            when billing_month < first_billable_month then 'trial'
            when subscription_id = md5('spell2') then 'abnormal'
            when subscription_id = md5('spell3') and billing_month = date '2026-08-01' then 'silent'
            else 'billed'
        end as disposition,
        case service_code when 'news' then 2000 else 3000 end::bigint as fee_li
    from live
)
select
    billing_month, subscription_id, subscriber_id, sp_code, service_code, province, disposition,
    case disposition
        when 'suspended' then 'relation_suspended' when 'trial' then 'in_trial' when 'abnormal' then 'abnormal_relation'
        when 'silent' then 'silent_user' else 'chargeable'
    end as reason,
    fee_li,
    case when disposition = 'billed' then fee_li else 0 end::bigint as charged_li
from judged;
create table marts.billing_preview as
select *, 'known' as verdict from marts.billing_dispositions where billing_month = date '2026-10-01';
create table marts.billing_preview_stops as
select
    date '2026-10-01' as billing_month, 'wap_usage' as extract, cast(null as varchar) as source,
    date '2026-09-30' as day, 'unknown_usage' as reason, 1::bigint as relations;
create table marts.relation_event_findings as
select
    event_id, md5('subscriber1') as subscriber_id, sp_code, service_code, action, event_time, business_date, source,
    'already_ordered' as reason
from staging.stg_relation_events
where event_id = 'e8'
union all
select null, md5('subscriber6'), '900001', 'ring', null, null, date '2026-09-30', 'bj', 'snapshot_disagrees';
create table marts.extract_completeness as
select
    extract, source, business_date as day, extract <> 'relation_snapshot' and source = 'bj' as expected,
    true as delivered, delivery, rows_in, rows_loaded, rows_quarantined, rows_duplicate, 'delivered' as status
from control.in_force
union all
select 'wap_usage', 'bj', date '2026-07-15', true, false, null, 0, 0, 0, 0, 'waived';
-- Version 1 of September charged spells 1 and 2, version 2 gave spell 2 back.
insert into control.billed_versions values
('2026-09-01', 1, sha256('v1'), sha256('key'), 2, 4000, '2026-09-01'),
('2026-09-01', 2, sha256('v2'), sha256('key'), 1, -2000, '2026-09-12');
insert into control.billed_lines values
('2026-09-01', 1, md5('spell1'), md5('subscriber1'), '900001', 'news', 2000, 2000, '2026-09-01'),
('2026-09-01', 1, md5('spell2'), md5('subscriber2'), '900001', 'news', 2000, 2000, '2026-09-01'),
('2026-09-01', 2, md5('spell2'), md5('subscriber2'), '900001', 'news', 0, -2000, '2026-09-12');
create table marts.billed_charges as select * from control.billed_lines;
create table marts.sp_settlement as
with amounts as (
    select
        sp_code,
        billing_month,
        coalesce(sum(fee_li) filter (where disposition in ('abnormal', 'silent', 'billed')), 0)::bigint as gross_li,
        coalesce(sum(fee_li) filter (where disposition = 'abnormal'), 0)::bigint as abnormal_li,
        coalesce(sum(fee_li) filter (where disposition = 'silent'), 0)::bigint as silent_li
    from marts.billing_dispositions
    group by all
)
select
    sp_code, billing_month, gross_li, 0::bigint as errors_li, gross_li as audited_li, 0::bigint as stopped_li,
    0::bigint as closed_li, abnormal_li, silent_li, 0::bigint as price_per_message_li, 0::bigint as refunds_li,
    0::bigint as penalties_li, 0::bigint as double_refunds_li, 0::bigint as other_li,
    gross_li - abnormal_li - silent_li as to_settle_li, 100::bigint as operator_share_li,
    gross_li - abnormal_li - silent_li - 100 as sp_share_li, 'payable' as status, cast(null as varchar) as hold_reason
from amounts;
"""

FEED = """
create table feed.main.charges as
select
    spells.msisdn, decided.sp_code, decided.service_code, decided.subscription_id, decided.province,
    decided.billing_month, decided.charged_li as fee_li, cast(decided.billing_month as timestamp) as charge_time
from marts.billing_dispositions as decided
inner join intermediate.int_spells as spells using (subscription_id)
where decided.billing_month = date '2026-10-01' and decided.disposition = 'billed';
create table feed.main.exclusions as
select
    spells.msisdn, decided.sp_code, decided.service_code, decided.subscription_id, decided.billing_month,
    decided.fee_li, decided.disposition, decided.reason
from marts.billing_dispositions as decided
inner join intermediate.int_spells as spells using (subscription_id)
where decided.billing_month = date '2026-10-01' and decided.disposition <> 'billed';
create table feed.main.settlement as select * from marts.sp_settlement where billing_month = date '2026-10-01';
create table feed.main.inputs as
select extract, business_date as date, source, delivery, manifest_sha256 as sha256 from control.in_force;
create table feed.main.dispositions as
select * from marts.billing_dispositions where billing_month = date '2026-10-01';
-- Version 2: spell 1 was charged less, spell 2 is abnormal now, an order of version 1 exists no more, and spell 6 or
-- whoever else is billed was not charged before.
create table feed.main.billed_before as
select
    subscription_id, msisdn, '900001' as sp_code, 'news' as service_code, 'bj' as province_part,
    previous_li::bigint as previous_li
from (values
    (md5('spell1'), '13800000001', 1500), (md5('spell2'), '13800000002', 2000), (md5('gone'), '13800000009', 700)
) as before (subscription_id, msisdn, previous_li);
create table feed.main.adjustments as
select
    coalesce(charges.msisdn, billed_before.msisdn) as msisdn,
    coalesce(charges.sp_code, billed_before.sp_code) as sp_code,
    coalesce(charges.service_code, billed_before.service_code) as service_code,
    subscription_id, 'bj' as province_part, date '2026-10-01' as billing_month,
    coalesce(charges.fee_li, 0) - coalesce(previous_li, 0) as fee_li, timestamp '2026-10-01' as charge_time,
    coalesce(previous_li, 0) as previous_li, coalesce(charges.fee_li, 0) as new_li,
    coalesce(charges.fee_li, 0) - coalesce(previous_li, 0) as delta_li,
    case
        when previous_li > 0 and charges.fee_li > 0 then 'fee_changed'
        when charges.fee_li > 0 then 'charged_now'
        when subscription_id = md5('gone') then 'no_such_order'
        else 'abnormal'
    end as reason
from feed.main.charges as charges
full join feed.main.billed_before as billed_before using (subscription_id);
create table feed.main.feed_info as
select
    date '2026-10-01' as billing_month, 2 as version, date '2026-09-30' as as_of, date '2026-09-30' as base_as_of,
    'digest' as policy_digest, false as has_opaque_identities;
"""


def write_good_warehouse(path: Path) -> None:
    """Write the warehouse file that all gates but export let through."""
    path.parent.mkdir(parents=True, exist_ok=True)
    config = {"storage_compatibility_version": "v1.5.0", "default_block_size": "16384"}
    with duckdb.connect(str(path), config=config) as connection:
        for script in (CONTROL_DDL, DELIVERIES, STAGING, COUNTERS, POLICY, INTERMEDIATE, MARTS):
            connection.execute(script)


def write_good_feed(warehouse: Path, path: Path) -> None:
    """Write the frozen feed database of 2026-10 that the export gate lets through."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        connection.execute(f"attach '{path}' as feed (read_write, block_size 16384)")
        connection.execute(FEED)
        connection.execute("detach feed")
