"""The numbers of the notice and our defaults, written down a second time on purpose.

The pipeline reads them from its policy seeds; a mistake there shows as a difference here.
"""

from datetime import date, timedelta

import chinese_calendar

TENURE_DAYS = 30
SILENT_MESSAGE_MONTHS = 1
SILENT_MESSAGE_LIMIT = 3
SILENT_ACCESS_MONTHS = 4
SILENT_ACCESS_LIMIT = 0
TRIAL_RULE_FROM = date(2006, 7, 10)
TRIAL_JUDGE_DAY = 21
TRIAL_HOURS_BEFORE = 72
CONSENT_FROM = date(2006, 10, 10)
SUSPENSION_LIMIT = timedelta(hours=240)
REPORT_WORKING_DAYS = 3
OPERATOR_PERCENT = 15
LATENESS_DAYS = 31
PREVIEW_FROM_DAY = 20
QUARANTINE_PERCENT = 1

MESSAGE_CLASSES = ("sms", "mms")
ACCESS_CLASSES = ("wap", "portal")

# The published working calendar ends here; afterwards only Monday to Friday is known.
LAST_PUBLISHED_DAY = date(2026, 12, 31)


def is_working_day(day: date) -> bool:
    """Tell whether a day is a working day in China, make-up weekends included."""
    if day > LAST_PUBLISHED_DAY:
        return day.weekday() < 5
    return chinese_calendar.is_workday(day)


def due_on(detected_on: date) -> tuple[date, bool]:
    """Return the third working day after the detection, and whether the calendar for it is only estimated."""
    day = detected_on
    left = REPORT_WORKING_DAYS
    while left:
        day += timedelta(days=1)
        if is_working_day(day):
            left -= 1
    return day, day > LAST_PUBLISHED_DAY


def operator_share(to_settle_li: int) -> int:
    """Return the operator's part of an amount in li, rounded half to even."""
    whole, rest = divmod(to_settle_li * OPERATOR_PERCENT, 100)
    if rest > 50 or (rest == 50 and whole % 2 == 1):
        whole += 1
    return whole
