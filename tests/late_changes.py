"""Changes a landing folder after the fact, as sources do: deliveries resent with other records, taken back, late."""

import csv
import gzip
import hashlib
import io
import json
import random
from dataclasses import dataclass
from pathlib import Path

CHANGED = (
    "relation_events",
    "sms_usage",
    "wap_usage",
    "gprs_usage",
    "line_status",
    "service_catalogue",
    "sp_penalties",
)


@dataclass
class LateChanges:
    """Random changes of the deliveries of one data root; everything follows from the seed, which is printed."""

    home: Path
    seed: int

    def __post_init__(self) -> None:
        print(f"late changes seed {self.seed}")
        self.rng = random.Random(self.seed)
        self.held_back: list[tuple[Path, list[Path]]] = []

    def hold_back(self, share: float, extracts: tuple[str, ...]) -> None:
        """Take some deliveries out of landing, to arrive late."""
        for manifest in sorted((self.home / "landing").glob("*/*/*.manifest.json")):
            if manifest.parts[-3] in extracts and self.rng.random() < share:
                files = [manifest.parent / file["name"] for file in json.loads(manifest.read_text())["files"]]
                aside = self.home / "held_back" / manifest.parent.relative_to(self.home / "landing")
                aside.mkdir(parents=True, exist_ok=True)
                for path in (manifest, *files):
                    path.rename(aside / path.name)
                self.held_back.append((manifest, files))

    def arrive(self, number: int) -> None:
        """Let some of the deliveries that were held back arrive."""
        self.rng.shuffle(self.held_back)
        for manifest, files in self.held_back[:number]:
            aside = self.home / "held_back" / manifest.parent.relative_to(self.home / "landing")
            for path in (*files, manifest):
                (aside / path.name).rename(path)
        del self.held_back[:number]

    def resend(self, number: int) -> int:
        """Resend some deliveries with records left out, moved in time or changed; return how many were."""
        newest = self._newest()
        candidates = [newest[key] for key in sorted(newest) if key[0] in CHANGED and _has_rows(newest[key][1])]
        return sum(self._resend(*one) for one in self.rng.sample(candidates, min(number, len(candidates))))

    def withdraw(self, number: int) -> None:
        """Take some resent deliveries back: the one before counts again."""
        resent = sorted((key, delivery) for key, (delivery, _) in self._newest().items() if delivery > 1)
        path = self.home / "withdrawals.csv"
        if not path.exists():
            path.write_text("extract,source,business_date,delivery,reason,requested_by,approved_by\n")
        with path.open("a") as file:
            for (extract, day, source), delivery in self.rng.sample(resent, min(number, len(resent))):
                line = f"{extract},{source},{day},{delivery},sent by mistake,Li Lei,Han Meimei\n"
                if line not in path.read_text():
                    file.write(line)

    def _newest(self) -> dict[tuple, tuple[int, Path]]:
        """Return the highest delivery number of every (extract, day, source) and its manifest."""
        newest: dict[tuple, tuple[int, Path]] = {}
        for path in sorted((self.home / "landing").glob("*/*/*.manifest.json")):
            try:
                manifest = json.loads(path.read_text())
                key = (manifest["extract"], manifest["business_date"], manifest["source"])
                newest[key] = max(newest.get(key, (0, path)), (manifest["delivery"], path))
            except (ValueError, KeyError, TypeError):
                continue
        return newest

    def _resend(self, delivery: int, path: Path) -> bool:
        manifest = json.loads(path.read_text())
        text = ""
        for file in manifest["files"]:
            raw = (path.parent / file["name"]).read_bytes()
            text = (gzip.decompress(raw) if file["name"].endswith(".gz") else raw).decode("utf-8-sig", "replace")
            break
        rows = list(csv.reader(io.StringIO(text)))
        if len(rows) < 2:
            return False
        header, rows = rows[0], [row for row in rows[1:] if len(row) == len(rows[0])]
        kept = [self._changed(header, row) for row in rows if self.rng.random() > 0.4]
        target = io.StringIO()
        csv.writer(target, lineterminator="\n").writerows([header, *kept])
        name = (
            f"{manifest['extract']}_{manifest['business_date'].replace('-', '')}_{manifest['source']}_d{delivery + 1}"
        )
        content = target.getvalue().encode()
        (path.parent / f"{name}.csv").write_bytes(content)
        entry = {
            "name": f"{name}.csv",
            "rows": len(kept),
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        manifest |= {"delivery": delivery + 1, "files": [entry]}
        manifest.pop("totals", None)
        (path.parent / f"{name}.manifest.json").write_text(json.dumps(manifest))
        return True

    def _changed(self, header: list[str], row: list[str]) -> list[str]:
        values = dict(zip(header, row, strict=True))
        if self.rng.random() < 0.3:
            if "monthly_fee_li" in values and values["monthly_fee_li"].isdecimal():
                values["monthly_fee_li"] = str(int(values["monthly_fee_li"]) + self.rng.choice([1, 1000]))
            if "confirmed_at" in values:
                values["confirmed_at"] = ""
            if values.get("status") == "ok":
                values["status"] = "failed"
        if "province" in values and self.rng.random() < 0.1:
            values["province"] = self.rng.choice(["", "sx", "bj"])
        return [values[column] for column in header]


def _has_rows(manifest: Path) -> bool:
    return any(file["rows"] for file in json.loads(manifest.read_text())["files"])
