"""Platform A's order file read line by line in plain Python, to hold against what a landing made of it."""

import re
from dataclasses import dataclass, field
from datetime import datetime

CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
ACTIONS = {"1": "order", "2": "suspend", "3": "resume", "4": "cancel", "": ""}
CHANNELS = {"短信": "sms", "网页": "web", "WAP": "wap", "": ""}
PROVINCES = {"北京": "bj", "上海": "sh", "广东": "gd", "": ""}


@dataclass
class ForeignOutcome:
    """What must become of a file: records in file order, refused lines with their codes, repeats."""

    records: list[list[str]] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)
    repeats: int = 0


def read_orders(content: bytes) -> ForeignOutcome:
    """Return what must become of the lines of an `ordersync_{date}.txt`."""
    outcome = ForeignOutcome()
    seen: dict[str, list[str]] = {}
    lines = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        fields = _fields(line)
        if isinstance(fields, str):
            outcome.refused[number] = fields
        elif fields[0] in seen:
            if seen[fields[0]] == fields:
                outcome.repeats += 1
            else:
                outcome.refused[number] = "conflicting_key"
        else:
            seen[fields[0]] = fields
            _place(outcome, number, fields)
    return outcome


def _fields(line: bytes) -> list[str] | str:
    try:
        text = line.decode("gbk")
    except UnicodeDecodeError:
        return "invalid_bytes"
    if CONTROL.search(text):
        return "invalid_bytes"
    fields = text.split("|")
    if len(fields) != 10:
        return "wrong_field_count"
    return fields if fields[0] else "missing_value"


def _place(outcome: ForeignOutcome, number: int, fields: list[str]) -> None:
    seq, msisdn, sp, service, action, time, confirmed, channel, province, _ = fields
    columns = {
        "action": (ACTIONS.get(action), "bad_code"),
        "time": (_time(time), "bad_time"),
        "channel": (CHANNELS.get(channel), "bad_code"),
        "confirmed": (_time(confirmed), "bad_time"),
        "province": (PROVINCES.get(province), "bad_code"),
    }
    wrong = [code for value, code in columns.values() if value is None]
    if wrong:
        outcome.refused[number] = wrong[0]
    else:
        outcome.records.append([f"A{seq}", msisdn, sp, service, *(value for value, _ in columns.values())])


def _time(text: str) -> str | None:
    text = text.strip(" ")
    if not text:
        return ""
    if not re.fullmatch("[0-9]{14}", text):
        return None
    is_end = text.endswith("240000")
    try:
        moment = datetime.strptime(text[:8] + "000000" if is_end else text, "%Y%m%d%H%M%S")
    except ValueError:
        return None
    return f"{moment:%Y-%m-%d} 24:00:00" if is_end else f"{moment:%Y-%m-%d %H:%M:%S}"
