"""Numbers of subscribers as people and reports may see them: 138****1234."""

import re

MSISDN_LENGTH = 11
# Any run of digits long enough to hold an MSISDN, with or without a country prefix.
LONG_NUMBER = re.compile(rf"\d{{{MSISDN_LENGTH},}}")
PREFIX = re.compile(r"^(?:0086|86)(?=1\d{10}$)")
# In a line that may hold anything: a moment, or digits (also with separators) that could be the most of an MSISDN.
MOMENT_OR_NUMBER = re.compile(r"(20\d\d-\d\d-\d\d(?:[ T]\d\d(?::\d\d){1,2})?(?![\d-]))|\d(?:[ .()-]{0,2}\d){6,}")
PSEUDONYM = re.compile(r"[0-9a-f]{32}|[0-9a-f]{64}")


def mask_msisdn(value: str) -> str:
    """Return 138****1234; of an identifier that is no MSISDN only the first character is shown."""
    digits = PREFIX.sub("", value.removeprefix("+"))
    if digits.isdigit() and len(digits) >= MSISDN_LENGTH:
        return f"{digits[:3]}****{digits[-4:]}"
    return f"{value[:1]}****"


def mask_text(text: str) -> str:
    """Return the text with every number that could be an MSISDN masked; pseudonyms and digests stay whole."""
    if PSEUDONYM.fullmatch(text):
        return text
    return LONG_NUMBER.sub(lambda found: mask_msisdn(found.group()), text)


def mask_line(text: str) -> str:
    """Return a raw line for people: every longer number masked, also one with separators or a digit missing."""
    return MOMENT_OR_NUMBER.sub(
        lambda found: found[0] if found[1] else f"{found[0][:3]}****{found[0][-2:]}",
        "".join(character if character.isprintable() else "\ufffd" for character in text),
    )


def mask_name(name: str) -> str:
    """Return a file name or path that somebody else chose, for people: numbers masked, nothing unprintable."""
    return mask_text("".join(character if character.isprintable() else "\ufffd" for character in name))
