"""The public contract of the marts (3-marts): which tables are published, with which columns, in which order.

An allow-list on purpose: a table or column that is not named here never leaves the restricted warehouse.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedTable:
    """A mart as analysts get it; `order` makes the order of its rows the same in every publication.

    Its rows are those of the mart of its name unless it has another `source` (schema.table of the warehouse).
    """

    name: str
    columns: tuple[str, ...]
    order: tuple[str, ...]
    source: str | None = None


def _table(name: str, columns: str, order: str, source: str | None = None) -> PublishedTable:
    return PublishedTable(name, tuple(columns.split()), tuple(order.split()), source)


# Released versions are published as soon as they are sealed, without waiting for the next build of the marts: what
# is billed passed the export gate and an approval, and must not go out of sight with a build that began before.
BILLED_CHARGES = _table(
    "billed_charges",
    "billing_month version subscription_id subscriber_id sp_code service_code charged_li delta_li sealed_on",
    "billing_month version subscription_id",
    source="control.billed_lines",
)


PUBLISHED_MARTS = (
    _table(
        "dim_service",
        "sp_code service_code service_name service_class is_portal billing_type monthly_fee_li valid_from valid_to",
        "sp_code service_code valid_from",
    ),
    _table("dim_service_provider", "sp_code sp_name province status", "sp_code"),
    _table(
        "subscriptions",
        "subscription_id subscriber_id msisdn_masked sp_code service_code province channel first_ordered_at ordered_at"
        " ended_at end_reason status confirmed_at first_billable_month",
        "sp_code service_code ordered_at subscription_id",
    ),
    _table(
        "subscription_usage_monthly",
        "subscription_id month mt_count mo_count wap_hits active_days last_used_on",
        "month subscription_id",
    ),
    _table(
        "usage_outside_spells",
        "sp_code service_code month subscribers mt_count mo_count wap_hits",
        "month sp_code service_code",
    ),
    _table(
        "anomalous_subscriptions",
        "subscription_id subscriber_id sp_code service_code anomaly_type observed_from detected_on resolved_on due_on"
        " due_on_is_estimated report_to report_status reported_at",
        "detected_on subscription_id anomaly_type",
    ),
    _table(
        "service_growth",
        "sp_code service_code day new_orders expected ratio p_value q_value is_alert direction baseline_days reason"
        " expected_low expected_high rise_orders rise_expected",
        "day sp_code service_code",
    ),
    _table(
        "service_growth_alerts",
        "sp_code service_code day first_day last_day reason direction new_orders expected expected_low expected_high"
        " ratio p_value q_value baseline_days orders main_channel main_channel_percent main_province"
        " main_province_percent main_hour main_hour_percent unconfirmed_percent never_used_percent explanation",
        "day sp_code service_code",
    ),
    _table(
        "service_growth_relations",
        "subscription_id subscriber_id sp_code service_code ordered_at alert_day is_confirmed is_used",
        "alert_day sp_code service_code ordered_at subscription_id",
    ),
    _table(
        "silent_subscriptions",
        "subscription_id subscriber_id sp_code service_code service_class billing_month window_start mt_count wap_hits"
        " verdict",
        "billing_month subscription_id",
    ),
    _table(
        "billing_dispositions",
        "billing_month subscription_id subscriber_id sp_code service_code province disposition reason fee_li"
        " charged_li",
        "billing_month subscription_id",
    ),
    _table(
        "billing_preview",
        "billing_month subscription_id subscriber_id sp_code service_code province disposition reason fee_li"
        " charged_li verdict",
        "billing_month subscription_id",
    ),
    _table(
        "billing_preview_stops",
        "billing_month extract source day reason relations",
        "day extract source reason",
    ),
    _table(
        "sp_settlement",
        "sp_code billing_month gross_li errors_li audited_li stopped_li closed_li abnormal_li silent_li"
        " price_per_message_li refunds_li penalties_li double_refunds_li other_li to_settle_li operator_share_li"
        " sp_share_li status hold_reason",
        "billing_month sp_code",
    ),
    _table(
        "relation_event_findings",
        "event_id subscriber_id sp_code service_code action event_time business_date source reason",
        "business_date source event_id reason subscriber_id sp_code service_code action event_time",
    ),
    _table(
        "extract_completeness",
        "extract source day expected delivered delivery rows_in rows_loaded rows_quarantined rows_duplicate status",
        "day extract source",
    ),
    BILLED_CHARGES,
)

# Made at publication, about the run; everything else is a function of the inputs alone.
GATE_RESULTS = _table("gate_results", "stage suite expectation success observed expected", "stage suite expectation")
MART_INFO = _table(
    "mart_info", "as_of deliveries_digest policy_digest code_version published_at red_gates waived", "as_of"
)
RUN_TABLE_COMMENTS = {
    "gate_results": {
        "": "What the gates of this run found. Grain: one row per expectation.",
        "stage": "Border that was checked - raw, staging or marts",
        "suite": "Table the expectation is about",
        "expectation": "The sentence that must hold",
        "success": "Whether it held; one that did not and is published was a warning",
        "observed": "What was found, in counts",
        "expected": "What was asked for",
    },
    "mart_info": {
        "": "What to cite beside a result: the state these marts were computed from. Grain: one row.",
        "as_of": "As-of date A; deliveries with a later business date do not exist for these marts",
        "deliveries_digest": "sha256 over the deliveries in force up to A, with the sha256 of their manifests",
        "policy_digest": "sha256 over the policy tables, expected pairs and test numbers as loaded",
        "code_version": "Release and digest of the code that computed them",
        "published_at": "When they were published, Asia/Shanghai",
        "red_gates": "Expectations that did not hold in this run (stage/suite: sentence); empty if none",
        "waived": "Missing days somebody waived (extract/source/day); empty if none",
    },
}
