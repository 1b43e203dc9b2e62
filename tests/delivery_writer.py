"""Writes single deliveries into a landing folder for tests, right or wrong on purpose."""

import gzip
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HEADERS = {
    "relation_events": "event_id,msisdn,sp_code,service_code,action,event_time,channel,confirmed_at,province",
    "relation_snapshot": "msisdn,sp_code,service_code,status,first_ordered_at,ordered_at,confirmed_at,channel,province",
    "sms_usage": "msisdn,sp_code,service_code,direction,sent_at,status,purpose,message_count,fee_li",
    "wap_usage": "msisdn,sp_code,service_code,accessed_at,status,hits,fee_li",
    "gprs_usage": "msisdn,apn,started_at,up_bytes,down_bytes",
    "service_catalogue": "sp_code,service_code,service_name,service_class,is_portal,billing_type,monthly_fee_li,"
    "status,valid_from,marketing_text",
    "service_providers": "sp_code,sp_name,province,status,contact",
    "sp_reports": "report_id,sp_code,service_code,msisdn,anomaly_type,reported_at",
    "sp_penalties": "penalty_id,sp_code,service_code,suspended_from,suspended_to,reason",
    "refunds": "refund_id,msisdn,sp_code,service_code,billing_month,amount_li,times,reason",
    "line_status": "msisdn,status,from_time,to_time",
}


def policy_root(folder: Path, max_lateness_days: int = 31, max_quarantined_percent: str = "100") -> Path:
    """Write a project root whose only seed is an ingest policy; return it for CLEANBILL_PROJECT_ROOT."""
    seeds = folder / "dbt_project" / "seeds"
    seeds.mkdir(parents=True)
    (seeds / "policy_ingest.csv").write_text(
        "source,extract,max_lateness_days,max_quarantined_percent,valid_from,valid_to,reason,origin\n"
        f"*,*,{max_lateness_days},{max_quarantined_percent},1900-01-01,,test,test\n"
    )
    return folder


@dataclass
class DeliveryWriter:
    """One delivery under construction; `write` puts it into landing/ and returns the path of its manifest."""

    home: Path
    extract: str = "sms_usage"
    day: str = "2026-10-01"
    source: str = "bj"
    delivery: int = 1
    parts: list[tuple[str, bytes, int]] = field(default_factory=list)
    totals: dict[str, Any] | None = None
    changes: dict[str, Any] = field(default_factory=dict)  # manifest fields to replace; None removes one

    @property
    def folder(self) -> Path:
        return self.home / "landing" / self.extract / self.day

    @property
    def stem(self) -> str:
        numbering = f"_d{self.delivery}" if self.delivery > 1 else ""
        return f"{self.extract}_{self.day.replace('-', '')}_{self.source}{numbering}"

    def add(
        self, lines: Sequence[str], header: str | None = None, part: str = "", gz: bool = False
    ) -> "DeliveryWriter":
        """Add a file of data lines below the contract's header."""
        text = "".join(line + "\n" for line in (header or HEADERS[self.extract], *lines))
        return self.add_bytes(text.encode(), len(lines), part, gz)

    def add_bytes(self, content: bytes, rows: int, part: str = "", gz: bool = False) -> "DeliveryWriter":
        """Add a file of any bytes that the manifest says to hold `rows` records."""
        name = f"{self.stem}{part}.csv" + (".gz" if gz else "")
        self.parts.append((name, gzip.compress(content, mtime=0) if gz else content, rows))
        return self

    def manifest(self) -> dict[str, Any]:
        fields = {
            "extract": self.extract,
            "business_date": self.day,
            "source": self.source,
            "delivery": self.delivery,
            "schema_version": 1,
            "files": [
                {"name": name, "rows": rows, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
                for name, content, rows in self.parts
            ],
        }
        if self.totals is not None:
            fields["totals"] = self.totals
        fields.update(self.changes)
        return {name: value for name, value in fields.items() if value is not None}

    def write(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, content, _ in self.parts:
            (self.folder / name).write_bytes(content)
        path = self.folder / f"{self.stem}.manifest.json"
        path.write_text(json.dumps(self.manifest()))
        return path
