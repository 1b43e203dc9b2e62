"""For every expectation of every suite a statement that spoils the good warehouse so that it must object.

Expectations that name one column or key are spoiled by rule (`spoil_by_rule`); those that are a query of their own
have a statement here, keyed by stage, suite and the sentence that must hold.
"""

from cleanbill.suites import COMPOUND_UNIQUE, IN_SET, NOT_NULL, ROW_COUNT, UNIQUE, Expectation, Suite

SPELL = "md5('spell1')"
AN_ACCEPTED_DELIVERY = "extract = 'refunds' and business_date = date '2026-09-20' and source = 'bj'"

RAW = {
    (
        "deliveries",
        "rows loaded, quarantined and dropped as duplicates are the rows of the manifest, for every delivery",
    ): (f"update control.deliveries set rows_in = rows_in + 1 where {AN_ACCEPTED_DELIVERY}"),
    ("deliveries", "no counter of a delivery is negative"): (
        f"update control.deliveries set rows_in = -1 where {AN_ACCEPTED_DELIVERY}"
    ),
    ("deliveries", "no delivery over its quarantine limit waits for a resend"): (
        "update control.deliveries set status = 'rejected' where extract = 'refunds' and source = 'sd' and delivery = 3"
    ),
    ("deliveries", "a delivery that was not accepted says why"): (
        "update control.deliveries set reason_code = null where status = 'rejected'"
    ),
    ("deliveries", "an accepted delivery has a lake file exactly if rows of it were loaded"): (
        f"update control.deliveries set lake_path = null where {AN_ACCEPTED_DELIVERY}"
    ),
    ("deliveries", "no delivery stays rejected"): (
        "delete from control.deliveries where extract = 'refunds' and source = 'sd' and delivery = 3"
    ),
    ("deliveries", "no delivery repeats the bytes of another day or source"): (
        "update control.deliveries set duplicate_of = 'refunds 2026-09-19 bj d1' "
        "where extract = 'refunds' and business_date = date '2026-09-21'"
    ),
    (
        "delivery_files",
        "rows loaded, quarantined and dropped as duplicates are the rows of the manifest, for every file",
    ): (f"update control.delivery_files set rows_loaded = rows_loaded - 1 where {AN_ACCEPTED_DELIVERY}"),
    ("delivery_files", "no counter of a file is negative"): (
        f"update control.delivery_files set bytes = -1 where {AN_ACCEPTED_DELIVERY}"
    ),
    ("delivery_files", "the counters of a delivery are the sums of its files"): (
        f"delete from control.delivery_files where {AN_ACCEPTED_DELIVERY}"
    ),
    ("delivery_files", "every file belongs to a recorded delivery"): (
        f"delete from control.deliveries where {AN_ACCEPTED_DELIVERY}"
    ),
    ("delivery_files", "every file carries the sha256 it was verified with"): (
        f"update control.delivery_files set sha256 = 'unknown' where {AN_ACCEPTED_DELIVERY}"
    ),
    ("in_force", "the delivery in force is the highest accepted one that is not withdrawn and repeats no other day"): (
        f"delete from control.in_force where {AN_ACCEPTED_DELIVERY}"
    ),
    ("in_force", "a delivery in force carries the counters, lake file and manifest of its record"): (
        f"update control.in_force set rows_loaded = rows_loaded + 1 where {AN_ACCEPTED_DELIVERY}"
    ),
    ("in_force", "the same bytes count for one day and source only"): (
        "update control.delivery_files set rows_in = 1, sha256 = repeat('a', 64) "
        "where extract = 'sms_usage' and business_date in (date '2026-06-01', date '2026-06-02')"
    ),
    ("in_force", "every expected delivery up to the newest delivered day is there"): (
        "delete from control.in_force where extract = 'sms_usage' and business_date = date '2026-08-09'"
    ),
}

USAGE_COLUMNS = {"stg_sms_usage": "sent_at", "stg_wap_usage": "accessed_at", "stg_gprs_usage": "started_at"}
WITH_MSISDN = (
    "stg_relation_events",
    "stg_relation_snapshot",
    "stg_sms_usage",
    "stg_wap_usage",
    "stg_gprs_usage",
    "stg_line_status",
    "stg_sp_reports",
    "stg_refunds",
)
WITH_SERVICE = (
    "stg_relation_events",
    "stg_relation_snapshot",
    "stg_sms_usage",
    "stg_wap_usage",
    "stg_sp_penalties",
    "stg_sp_reports",
    "stg_refunds",
    "stg_service_catalogue",
)
ALL_ROWS_KEPT = (
    "stg_relation_events",
    "stg_relation_snapshot",
    "stg_line_status",
    "stg_sp_penalties",
    "stg_sp_reports",
    "stg_refunds",
)
FULL_FILES = ("stg_service_catalogue", "stg_service_providers")

STAGING = {
    ("changed_deliveries", "every delivery in force that was not absorbed yet is taken in"): (
        "delete from control.absorbed where extract = 'refunds' and business_date = date '2026-08-01'"
    ),
    ("changed_deliveries", "what is taken in is the delivery in force, within the as-of date"): (
        "update control.run_context set as_of_date = date '2026-09-29'"
    ),
    ("run_context", "something was delivered up to the as-of date"): (
        "update control.run_context set as_of_date = date '2020-01-01'"
    ),
    ("stg_relation_events", "only an event on all relations of an SP names no service"): (
        "update staging.stg_relation_events set action = 'cancel_all' where event_id = 'e4c'"
    ),
    ("stg_relation_events", "a replacement names the service it replaces"): (
        "update staging.stg_relation_events set action = 'replace' where event_id = 'e1'"
    ),
    ("stg_relation_events", "no event_time lies after the midnight that ends its business date"): (
        "update staging.stg_relation_events set event_time = timestamp '2026-10-01 00:00:01' where event_id = 'e8'"
    ),
    ("stg_sp_reports", "no reported_at lies after the midnight that ends its business date"): (
        "update staging.stg_sp_reports set reported_at = timestamp '2026-09-21 00:00:01'"
    ),
    ("stg_relation_snapshot", "a snapshot names a relation once"): (
        "insert into staging.stg_relation_snapshot select * from staging.stg_relation_snapshot"
    ),
    ("stg_line_status", "a stop does not end before it begins"): (
        "update staging.stg_line_status set to_time = from_time - interval 1 second"
    ),
    ("stg_sp_penalties", "a suspension does not end before it begins"): (
        "update staging.stg_sp_penalties set suspended_to = suspended_from - interval 1 second"
    ),
    ("stg_refunds", "the month of a refund is a first of a month"): (
        "update staging.stg_refunds set billing_month = date '2026-08-02'"
    ),
    ("stg_refunds", "no refund takes money from the subscriber"): "update staging.stg_refunds set amount_li = -1",
    ("stg_service_catalogue", "a monthly service has a fee, and no fee is negative"): (
        "update staging.stg_service_catalogue set monthly_fee_li = null where service_code = 'news'"
    ),
    ("stg_service_providers", "the status of a provider is active, inactive or not given"): (
        "update staging.stg_service_providers set status = 'asleep'"
    ),
    ("stg_service_providers", "SP codes are six digits"): (
        "update staging.stg_service_providers set sp_code = '90001'"
    ),
    **{
        (table, f"no {column} lies after the midnight that ends its business date"): (
            f"update staging.{table} set {column} = timestamp '2026-10-01 00:00:01'"
        )
        for table, column in USAGE_COLUMNS.items()
    },
    **{
        (table, "no two records of a delivery are equal in all columns"): (
            f"insert into staging.{table} by name select * replace (line_no + 1 as line_no) from staging.{table}"
        )
        for table in USAGE_COLUMNS
    },
    **{
        (table, "it holds exactly the rows loaded of each delivery that changed in this build"): (
            f"delete from staging.{table}"
        )
        for table in USAGE_COLUMNS
    },
    **{
        (table, "it holds exactly the rows loaded of each delivery in force up to the as-of date"): (
            f"insert into staging.{table} select * from staging.{table} limit 1"
        )
        for table in ALL_ROWS_KEPT
    },
    **{
        (table, "of each day it holds, it holds exactly the rows loaded of the deliveries in force"): (
            f"insert into staging.{table} select * from staging.{table} limit 1"
        )
        for table in FULL_FILES
    },
    **{
        (table, "the first full file in force is among those read"): (
            f"update staging.{table} set business_date = date '2026-05-02'"
        )
        for table in FULL_FILES
    },
    **{
        (table, "a subscriber is 1 and ten digits, unless its delivery is declared opaque"): (
            f"update staging.{table} set msisdn = '8613800000001'"
        )
        for table in WITH_MSISDN
    },
    **{
        (table, "SP codes are six digits and service codes at most ten characters of the allowed set"): (
            f"update staging.{table} set service_code = '=cmd'"
        )
        for table in WITH_SERVICE
    },
}

MARTS = {
    ("absorbed_state", "the build that ended is the one that was begun"): (
        "update control.run_context set inputs_digest = 'another'"
    ),
    ("absorbed_state", "the build took in every delivery in force up to the as-of date, and no other"): (
        "update control.in_force set delivery = 2 where extract = 'sms_usage' and business_date = date '2026-09-29'"
    ),
    ("dim_service", "a service has one version at a time"): (
        "insert into marts.dim_service by name "
        "select * replace (date '2026-08-01' as valid_from) from marts.dim_service where service_code = 'news'"
    ),
    ("dim_service", "every service of the catalogue up to the as-of date is there"): (
        "delete from marts.dim_service where service_code = 'ring'"
    ),
    ("dim_service_provider", "the providers are those of the newest full file"): (
        "update marts.dim_service_provider set sp_code = '900002'"
    ),
    ("subscriptions", "the spells of the mart are the spells of the restricted warehouse"): (
        f"delete from marts.subscriptions where subscription_id = {SPELL}"
    ),
    ("subscriptions", "every order opened a spell or is a finding already_ordered"): (
        "delete from marts.relation_event_findings where reason = 'already_ordered'"
    ),
    ("subscriptions", "the status is that at the end of the as-of date"): (
        f"update marts.subscriptions set status = 'suspended' where subscription_id = {SPELL}"
    ),
    ("subscriptions", "a spell has an end reason exactly if it has an end"): (
        f"update marts.subscriptions set end_reason = 'cancel' where subscription_id = {SPELL}"
    ),
    ("subscriptions", "nothing happens after the midnight that ends the as-of date"): (
        f"update intermediate.int_spells set ended_at = timestamp '2026-10-01 00:00:01' where subscription_id = {SPELL}"
    ),
    ("subscriptions", "the first billable month is a first of a month after the first order"): (
        f"update marts.subscriptions set first_billable_month = date '2026-07-01' where subscription_id = {SPELL}"
    ),
    ("subscriptions", "a spell does not end before it begins"): (
        "update marts.subscriptions set ended_at = ordered_at - interval 1 second where subscription_id = md5('spell4')"
    ),
    ("subscriptions", "subscriber ids are pseudonyms and numbers are masked"): (
        f"update marts.subscriptions set msisdn_masked = '13800000001' where subscription_id = {SPELL}"
    ),
    ("subscription_usage_monthly", "every row has counted use, within its month and not after the as-of date"): (
        f"update marts.subscription_usage_monthly set mt_count = 0 where subscription_id = {SPELL}"
    ),
    ("subscription_usage_monthly", "use lies within the spell it is counted for"): (
        "update marts.subscription_usage_monthly set subscription_id = md5('spell4') "
        "where subscription_id = md5('spell6')"
    ),
    ("anomalous_subscriptions", "the dates of an anomaly follow one another up to the as-of date"): (
        "update marts.anomalous_subscriptions set resolved_on = date '2026-10-01'"
    ),
    ("anomalous_subscriptions", "the report status fits the report, the due date and the as-of date"): (
        "update marts.anomalous_subscriptions set report_status = 'pending', reported_at = null"
    ),
    ("anomalous_subscriptions", "an abnormal relation is a spell that was live when it was detected"): (
        "update marts.subscriptions set ended_at = timestamp '2026-08-24 23:59:59' "
        "where subscription_id = md5('spell2')"
    ),
    ("anomalous_subscriptions", "nobody is abnormal on incomplete usage"): (
        "update marts.extract_completeness set delivered = false "
        "where extract = 'sms_usage' and day = date '2026-08-01'"
    ),
    ("service_growth", "an alert has a reason, a small p and q, and a difference worth an answer"): (
        "update marts.service_growth set p_value = 0.01 where is_alert"
    ),
    ("service_growth", "an incomplete day is never an alert"): (
        "update marts.extract_completeness set delivered = false "
        "where extract = 'relation_events' and day = date '2026-09-02'"
    ),
    ("service_growth", "the orders of a day are the spells ordered on it"): (
        "update marts.service_growth set new_orders = new_orders + 1"
    ),
    ("service_growth_alerts", "every alert of service_growth is there, on its days"): (
        "update marts.service_growth_alerts set last_day = day - 1"
    ),
    (
        "service_growth_relations",
        "every relation is a spell ordered on the days of an upward alert of its service",
    ): "update marts.service_growth_relations set ordered_at = ordered_at + interval 1 day",
    ("silent_subscriptions", "silent means complete usage in the whole window, unknown means a gap in it"): (
        "update marts.extract_completeness set delivered = false "
        "where extract = 'sms_usage' and day = date '2026-09-30'"
    ),
    (
        "silent_subscriptions",
        "only relations live and ordered before the window are judged, with the measure of their class",
    ): "update marts.silent_subscriptions set wap_hits = 0 where service_class = 'sms'",
    ("silent_subscriptions", "the counts are those of the usage mart"): (
        "update marts.silent_subscriptions set mt_count = 1 where verdict = 'silent'"
    ),
    (
        "billing_dispositions",
        "every live spell has exactly one disposition in every month, and no other spell has one",
    ): (
        f"delete from marts.billing_dispositions where subscription_id = {SPELL} and billing_month = date '2026-09-01'"
    ),
    ("billing_dispositions", "the fees of all dispositions are the fees of all live relations, service by service"): (
        f"update marts.billing_dispositions set fee_li = 2001, charged_li = 2001 where subscription_id = {SPELL}"
    ),
    ("billing_dispositions", "what is charged is the fee of billed relations, and nothing else"): (
        "update marts.billing_dispositions set charged_li = fee_li where disposition = 'trial'"
    ),
    ("billing_dispositions", "dispositions and reasons are the documented codes"): (
        "update marts.billing_dispositions set reason = 'chargeable' where disposition = 'trial'"
    ),
    ("billing_dispositions", "no relation is charged twice for a month"): (
        "insert into marts.billing_dispositions by name select * replace (md5('other') as subscription_id) "
        f"from marts.billing_dispositions where subscription_id = {SPELL}"
    ),
    ("billing_dispositions", "only services with a monthly fee in the catalogue are charged"): (
        "update marts.dim_service set billing_type = 'per_use' where service_code = 'news'"
    ),
    ("billing_dispositions", "nobody is charged in the trial, while paused or without consent"): (
        f"update marts.subscriptions set confirmed_at = timestamp '2026-08-01 00:00:00' where subscription_id = {SPELL}"
    ),
    ("billing_dispositions", "nobody is charged who is silent or abnormal"): (
        "update marts.billing_dispositions set disposition = 'billed' where disposition = 'silent'"
    ),
    ("billing_dispositions", "who is not charged as silent or abnormal is listed as such"): (
        "delete from marts.anomalous_subscriptions"
    ),
    ("billing_dispositions", "money is whole li and no mart holds a number of a subscriber"): (
        "alter table marts.billing_dispositions alter column charged_li type double"
    ),
    ("relation_event_findings", "a finding is about an event, but for the differences of a snapshot"): (
        "update marts.relation_event_findings set event_id = null"
    ),
    (
        "billing_preview",
        "only the month after that of the as-of date is previewed, and only from the policy's day on",
    ): ("update control.absorbed_state set as_of_date = date '2026-09-19'"),
    ("billing_preview", "every spell that is live and not ended by then is in the preview"): (
        "delete from marts.billing_preview where subscription_id = md5('spell2')"
    ),
    ("billing_preview", "on the last day of a month the preview is the bill"): (
        "update marts.billing_preview set verdict = 'open'"
    ),
    (
        "billing_preview_stops",
        "what stops the bill is missing, not waived and expected by now, or nobody was to deliver it",
    ): "update marts.billing_preview_stops set source = 'bj', day = date '2026-07-15'",
    ("relation_event_findings", "every finding is about an event or snapshot in force"): (
        "update marts.relation_event_findings set source = 'sd' where event_id is not null"
    ),
    ("usage_outside_spells", "every row has use, of a month up to the as-of date"): (
        "update marts.usage_outside_spells set wap_hits = 0"
    ),
    ("subscription_usage_monthly", "the counted use that this build took in stands in the sums"): (
        "delete from intermediate.int_spell_usage where msisdn = '13800000005'"
    ),
    ("extract_completeness", "it repeats the counters of every delivery in force up to the as-of date"): (
        "update marts.extract_completeness set rows_loaded = rows_loaded + 1 "
        "where extract = 'sms_usage' and day = date '2026-09-30'"
    ),
    (
        "extract_completeness",
        "the status says whether it was delivered, waived by two people or missing, and what is missing has no rows",
    ): "update control.waivers set expires_on = date '2026-09-29'",
    ("extract_completeness", "no missing day is waived"): (
        "update marts.extract_completeness set day = date '2026-07-16' where status = 'waived'"
    ),
    ("billed_charges", "the lines of every version add up to what its manifest states"): (
        f"delete from marts.billed_charges where version = 1 and subscription_id = {SPELL}"
    ),
    ("billed_charges", "a line is charged the sum of its versions, and never less than nothing"): (
        "update marts.billed_charges set charged_li = 1 where version = 2"
    ),
    ("sp_settlement", "the waterfall adds up"): "update marts.sp_settlement set to_settle_li = to_settle_li + 1",
    ("sp_settlement", "every amount of the waterfall is the sum of its dispositions"): (
        "delete from marts.sp_settlement where billing_month = date '2026-10-01'"
    ),
    ("sp_settlement", "a settlement that is held says why, and only that one"): (
        "update marts.sp_settlement set status = 'held'"
    ),
}

EXPORT = {
    ("adjustments", "the earlier versions and the adjustments add up to the charges, line by line"): (
        "delete from main.adjustments where reason = 'no_such_order'"
    ),
    ("adjustments", "an adjustment is the amount now minus the sum of the earlier versions, and never nothing"): (
        "update main.adjustments set fee_li = fee_li + 1 where reason = 'charged_now'"
    ),
    ("adjustments", "the reason of an adjustment is a documented code that fits its amounts"): (
        "update main.adjustments set reason = 'silent' where reason = 'abnormal'"
    ),
    ("adjustments", "adjusted subscribers, codes and dates have their exact form"): (
        "update main.adjustments set service_code = '=news' where reason = 'charged_now'"
    ),
    ("dispositions", "all rows are of one billing month, the first of a month"): (
        f"update main.dispositions set billing_month = date '2026-11-01' where subscription_id = {SPELL}"
    ),
    ("charges", "the charges are the billed dispositions, no more and no less"): (
        f"delete from main.charges where subscription_id = {SPELL}"
    ),
    ("charges", "every charge is more than nothing"): "update main.charges set fee_li = 0",
    ("charges", "subscribers are numbers, or opaque ids where a source is declared opaque"): (
        f"update main.charges set msisdn = 'U-77' where subscription_id = {SPELL}"
    ),
    ("charges", "codes and ids of the feed have their exact form"): (
        f"update main.charges set service_code = '=news' where subscription_id = {SPELL}"
    ),
    ("charges", "every charge is triggered at the first of its month, midnight"): (
        f"update main.charges set charge_time = timestamp '2026-10-01 00:00:01' where subscription_id = {SPELL}"
    ),
    ("exclusions", "the exclusions are the dispositions that are not billed, no more and no less"): (
        "delete from main.exclusions"
    ),
    ("exclusions", "every exclusion names its reason in a code"): "update main.exclusions set reason = 'Not asked'",
    ("exclusions", "nobody is charged and excluded"): (
        f"update main.exclusions set subscription_id = {SPELL} where subscription_id = md5('spell2')"
    ),
    ("exclusions", "excluded subscribers and codes have their exact form"): (
        "update main.exclusions set sp_code = '+90001'"
    ),
    (
        "settlement",
        "what is left of the gross after the deductions by disposition is what the subscribers are charged",
    ): f"update main.charges set fee_li = fee_li + 1 where subscription_id = {SPELL}",
    ("settlement", "the frozen waterfall adds up for the month of the feed"): (
        "update main.settlement set billing_month = date '2026-09-01'"
    ),
    ("inputs", "every input carries the sha256 of its manifest"): "update main.inputs set sha256 = ''",
    ("inputs", "no input lies after the as-of date, and the as-of date is that of the version"): (
        "update main.inputs set date = date '2026-10-01' where extract = 'sms_usage' and date = date '2026-09-30'"
    ),
}

SPOILED = {"raw": RAW, "staging": STAGING, "marts": MARTS, "export": EXPORT}


def spoil_by_rule(suite: Suite, expectation: Expectation) -> str | None:
    """Return the statement that breaks an expectation about one column, key or count; None for a query."""
    table = suite.qualified_table
    if expectation.type == ROW_COUNT:
        return f"delete from {table}"
    if expectation.type == NOT_NULL:
        return f"update {table} set {expectation.kwargs['column']} = null"
    if expectation.type == IN_SET:
        return f"update {table} set {expectation.kwargs['column']} = '9'"
    if expectation.type in (UNIQUE, COMPOUND_UNIQUE):
        return f"insert into {table} select * from {table} limit 1"
    return None


def spoiling_statement(suite: Suite, expectation: Expectation) -> str:
    """Return the statement that breaks this expectation; KeyError if nobody has written one."""
    by_rule = spoil_by_rule(suite, expectation)
    return by_rule if by_rule is not None else SPOILED[suite.stage][suite.name, expectation.description]
