"""The input contract as data: which extracts exist, their columns, types and rules.

This module is the allow-list for every identifier that reaches SQL from a file: names of extracts and columns
are only ever taken from here, never from an input.
"""

from dataclasses import dataclass
from enum import StrEnum

SCHEMA_VERSION = 1


class Kind(StrEnum):
    """How the text of a column is read; `SQL_TYPES` says what it becomes."""

    TEXT = "text"
    MSISDN = "msisdn"
    SP_CODE = "sp_code"
    SERVICE_CODE = "service_code"
    CODE = "code"
    CODE_NUMBER = "code_number"
    ACCESS_POINT = "access_point"
    INTEGER = "integer"
    FEE = "fee"
    TIME = "time"
    DATE = "date"
    MONTH = "month"
    BOOLEAN = "boolean"


SQL_TYPES = {
    Kind.TEXT: "varchar",
    Kind.MSISDN: "varchar",
    Kind.SP_CODE: "varchar",
    Kind.SERVICE_CODE: "varchar",
    Kind.CODE: "varchar",
    Kind.CODE_NUMBER: "integer",
    Kind.ACCESS_POINT: "varchar",
    Kind.INTEGER: "bigint",
    Kind.FEE: "bigint",
    Kind.TIME: "timestamp",
    Kind.DATE: "date",
    Kind.MONTH: "date",
    Kind.BOOLEAN: "boolean",
}

# Columns every lake file carries behind those of the contract.
ORIGIN_COLUMNS = {
    "business_date": "date",
    "source": "varchar",
    "delivery": "integer",
    "file_name": "varchar",
    "line_no": "bigint",
}


@dataclass(frozen=True)
class Column:
    """One column of an extract.

    Attributes:
        name: as in the header line.
        kind: how its text is read.
        required: an empty cell sends the record to quarantine.
        values: the allowed codes of `CODE` and `CODE_NUMBER`.
        is_record_time: the record's own time, held against the allowed lateness.
        may_be_absent: the header may lack it; it is null then.
        required_when: (other column, its values): an empty cell is an error only then.
        empty_when: (other column, its values): a filled cell is an error then.
    """

    name: str
    kind: Kind
    required: bool = True
    values: tuple[str, ...] = ()
    is_record_time: bool = False
    may_be_absent: bool = False
    required_when: tuple[str, tuple[str, ...]] | None = None
    empty_when: tuple[str, tuple[str, ...]] | None = None

    @property
    def sql_type(self) -> str:
        return SQL_TYPES[self.kind]


@dataclass(frozen=True)
class Contract:
    """One extract.

    Attributes:
        extract: its name.
        columns: in contract order.
        is_full_file: each delivery is the whole state (its content gets a digest, so that an unchanged one is seen).
        drops_equal_rows: rows equal in all columns within one delivery are counted once.
        refuses_known_bytes: a file whose bytes are in force under another date or source is a duplicate delivery.
    """

    extract: str
    columns: tuple[Column, ...]
    is_full_file: bool = False
    drops_equal_rows: bool = False
    refuses_known_bytes: bool = False

    @property
    def required_header(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns if not column.may_be_absent)

    @property
    def integer_columns(self) -> tuple[str, ...]:
        """The columns a manifest may give a total for."""
        return tuple(
            column.name for column in self.columns if column.kind in (Kind.INTEGER, Kind.FEE, Kind.CODE_NUMBER)
        )


_SERVICE_ACTIONS = ("order", "cancel", "suspend", "resume", "activate", "replace")
_SP_WIDE_ACTIONS = ("cancel_all", "suspend_all")
_MSISDN = Column("msisdn", Kind.MSISDN)
_SP_CODE = Column("sp_code", Kind.SP_CODE)
_SERVICE_CODE = Column("service_code", Kind.SERVICE_CODE)
_USE_STATUS = Column("status", Kind.CODE, values=("ok", "failed"))
_CATALOGUE_STATUS = Column("status", Kind.CODE, required=False, values=("active", "inactive"))


def _text(name: str, required: bool = False) -> Column:
    return Column(name, Kind.TEXT, required=required)


_ALL_CONTRACTS = (
    Contract(
        "relation_events",
        (
            _text("event_id", required=True),
            _MSISDN,
            _SP_CODE,
            Column(
                "service_code",
                Kind.SERVICE_CODE,
                required=False,
                required_when=("action", _SERVICE_ACTIONS),
                empty_when=("action", _SP_WIDE_ACTIONS),
            ),
            Column("action", Kind.CODE, values=_SERVICE_ACTIONS + _SP_WIDE_ACTIONS),
            Column("event_time", Kind.TIME, is_record_time=True),
            _text("channel"),
            Column("confirmed_at", Kind.TIME, required=False),
            _text("province"),
            Column(
                "old_service_code",
                Kind.SERVICE_CODE,
                required=False,
                may_be_absent=True,
                required_when=("action", ("replace",)),
            ),
        ),
        refuses_known_bytes=True,
    ),
    Contract(
        "relation_snapshot",
        (
            _MSISDN,
            _SP_CODE,
            _SERVICE_CODE,
            Column("status", Kind.CODE, values=("active", "suspended")),
            Column("first_ordered_at", Kind.TIME, required=False),
            Column("ordered_at", Kind.TIME),
            Column("confirmed_at", Kind.TIME, required=False),
            _text("channel"),
            _text("province"),
        ),
        is_full_file=True,
    ),
    Contract(
        "sms_usage",
        (
            _MSISDN,
            _SP_CODE,
            _SERVICE_CODE,
            Column("direction", Kind.CODE, values=("MT", "MO")),
            Column("sent_at", Kind.TIME, is_record_time=True),
            _USE_STATUS,
            Column("purpose", Kind.CODE, values=("content", "fee", "reminder", "test")),
            Column("message_count", Kind.INTEGER),
            Column("fee_li", Kind.FEE),
        ),
        drops_equal_rows=True,
        refuses_known_bytes=True,
    ),
    Contract(
        "wap_usage",
        (
            _MSISDN,
            _SP_CODE,
            _SERVICE_CODE,
            Column("accessed_at", Kind.TIME, is_record_time=True),
            _USE_STATUS,
            Column("hits", Kind.INTEGER),
            Column("fee_li", Kind.FEE),
        ),
        drops_equal_rows=True,
        refuses_known_bytes=True,
    ),
    Contract(
        "gprs_usage",
        (
            _MSISDN,
            Column("apn", Kind.ACCESS_POINT, required=False),
            Column("started_at", Kind.TIME, is_record_time=True),
            Column("up_bytes", Kind.INTEGER),
            Column("down_bytes", Kind.INTEGER),
        ),
        drops_equal_rows=True,
        refuses_known_bytes=True,
    ),
    Contract(
        "service_catalogue",
        (
            _SP_CODE,
            _SERVICE_CODE,
            _text("service_name"),
            Column("service_class", Kind.CODE, values=("sms", "mms", "wap", "portal", "ivr", "other")),
            Column("is_portal", Kind.BOOLEAN),
            Column("billing_type", Kind.CODE, values=("monthly", "per_use", "free")),
            Column("monthly_fee_li", Kind.FEE, required=False, required_when=("billing_type", ("monthly",))),
            _CATALOGUE_STATUS,
            Column("valid_from", Kind.DATE),
            _text("marketing_text"),
        ),
        is_full_file=True,
    ),
    Contract(
        "service_providers",
        (_SP_CODE, _text("sp_name"), _text("province"), _CATALOGUE_STATUS, _text("contact")),
        is_full_file=True,
    ),
    Contract(
        "sp_reports",
        (
            _text("report_id", required=True),
            _SP_CODE,
            _SERVICE_CODE,
            _MSISDN,
            _text("anomaly_type"),
            Column("reported_at", Kind.TIME, is_record_time=True),
        ),
        refuses_known_bytes=True,
    ),
    Contract(
        "sp_penalties",
        (
            _text("penalty_id", required=True),
            _SP_CODE,
            Column("service_code", Kind.SERVICE_CODE, required=False),
            Column("suspended_from", Kind.TIME),
            Column("suspended_to", Kind.TIME, required=False),
            _text("reason"),
        ),
    ),
    Contract(
        "refunds",
        (
            _text("refund_id", required=True),
            _MSISDN,
            _SP_CODE,
            _SERVICE_CODE,
            Column("billing_month", Kind.MONTH),
            Column("amount_li", Kind.INTEGER),
            Column("times", Kind.CODE_NUMBER, values=("1", "2")),
            _text("reason"),
        ),
        refuses_known_bytes=True,
    ),
    Contract(
        "line_status",
        (
            _MSISDN,
            Column("status", Kind.CODE, values=("stopped", "closed")),
            Column("from_time", Kind.TIME),
            Column("to_time", Kind.TIME, required=False),
        ),
    ),
)

CONTRACTS: dict[str, Contract] = {contract.extract: contract for contract in _ALL_CONTRACTS}
