"""Every reason code an input can be refused with, and what it means."""

# A record that goes to quarantine while the rest of its delivery loads.
RECORD_CODES = {
    "blank_line": "a line without any character, counted as a record by the manifest",
    "line_too_long": "a line longer than any record can be",
    "invalid_bytes": "bytes that are not UTF-8, or control characters",
    "bad_quotes": "quotes that are not closed or stand inside an unquoted field (RFC 4180)",
    "wrong_field_count": "too few or too many fields for the header of the file",
    "missing_value": "an empty cell where the contract needs a value",
    "bad_number": "not plain digits with an optional sign, or beyond 64 bits",
    "negative_fee": "a fee below zero",
    "bad_time": "not YYYY-MM-DD HH:MM:SS or YYYYMMDDHHMMSS, or no such moment",
    "bad_date": "not YYYY-MM-DD, no such day, or a billing month that is not a first day",
    "bad_code": "not one of the codes, or not the form of a code",
    "bad_msisdn": "not 1 and 10 digits after one prefix 86, +86 or 0086",
    "outside_lateness": "the record's time lies outside the lateness its source is allowed",
}

# A delivery that is refused as a whole; what was in force before stays in force.
DELIVERY_CODES = {
    "unknown_extract": "a folder of landing/ that is no extract of the contract",
    "bad_folder": "a folder below the extract that is no date",
    "bad_manifest_name": "the manifest's file name is not <extract>_<YYYYMMDD>_<source>[_d<delivery>].manifest.json",
    "manifest_not_json": "the manifest is no JSON object",
    "bad_manifest_field": "a field of the manifest is missing or of the wrong type",
    "unknown_schema_version": "a schema version this program does not know",
    "manifest_mismatch": "extract, date, source or delivery differ between manifest, file name and folder",
    "unsafe_name": "a file name that could leave the folder",
    "bad_file_name": "a data file's name does not follow the pattern",
    "unsafe_file": "a symbolic link, folder, pipe or device where a plain file must be",
    "file_missing": "a file the manifest names is not there",
    "unreadable_file": "the operating system would not let the file be read",
    "bytes_differ": "the size of a file is not that of the manifest",
    "sha256_differs": "the sha256 of a file is not that of the manifest",
    "bad_gzip": "a .gz file that is no complete gzip stream",
    "too_large": "a file unpacks to more than is safe",
    "bad_header": "the header line lacks a column, names one twice or cannot be read",
    "rows_differ": "the number of records in a file is not that of the manifest",
    "total_differs": "a control total differs",
    "delivery_changed": "an accepted delivery number came again with another manifest",
    "over_limit": "more records in quarantine than the source's limit",
    "parser_failed": "the file could not be parsed at all",
}
