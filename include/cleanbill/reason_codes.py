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

# A row of a foreign file that `cleanbill land` leaves out; beside these it uses the codes of records above.
FOREIGN_ROW_CODES = {
    "wrong_row_length": "a fixed-width row that is shorter or longer than the layout says",
    "conflicting_key": "a row with the key of an earlier row and other content",
    "no_match": "a row whose lookup finds no row in the other file",
    "outside_period": "a record on a day outside the period the mapping declares",
}

# Foreign files that `cleanbill land` refuses as a whole; nothing is written.
LANDING_CODES = {
    "file_missing": "a file of the mapping is not among those given",
    "file_ambiguous": "several of the given files could be one file of the mapping",
    "unreadable_file": "the operating system would not let the file be read",
    "bad_gzip": "a .gz file that is no complete gzip stream",
    "too_large": "a file unpacks to more than is safe",
    "not_text": "a file that cannot be split into lines",
    "bad_header": "the header line lacks a mapped column or names one twice",
    "bad_file_date": "the date in a file name is no day",
    "verf_missing": "a .dat file without its .verf",
    "bad_verf": "the .verf cannot be read, or contradicts itself",
    "verf_other_file": "the .verf has no row for the .dat file",
    "date_differs": "the days that names and .verf of the files give are not one day",
    "row_length_differs": "the .verf announces another row length than the layout",
    "bytes_differ": "the size of the .dat is not that of its .verf",
    "rows_differ": "the number of rows in the .dat is not that of its .verf",
    "no_period": "the records name no days, or wildly distant ones",
    "over_limit": "more refused rows than the mapping allows",
    "contradicting_rows": "a full file says two things about one service or provider",
    "would_lose_records": "a day would lose records it already has",
    "foreign_delivery": "somebody else delivers under the name of this source",
    "original_gone": "a replay needs the original file, which is no longer there",
    "original_changed": "a replay needs the original file, which is another one now",
    "other_source": "a replay was given the mapping of another source",
    "landing_at_work": "another landing works on the data root",
    "counts_differ": "the rows of a file do not add up (a defect of this program)",
}
