{# HMAC-SHA256 of a text under the installation's key, first 32 hex digits (3-marts); see cleanbill.pseudonym. #}
{% macro pseudonym(text) -%}
    left(
        sha256(
            getvariable('pseudonym_outer')
            || unhex(sha256(getvariable('pseudonym_inner') || encode({{ text }})))
        ),
        32
    )
{%- endmacro %}

{# 138****1234; an opaque or short identifier shows its first character only. #}
{% macro masked(msisdn) -%}
    case
        when regexp_full_match({{ msisdn }}, '1[0-9]{10}') then left({{ msisdn }}, 3) || '****' || right({{ msisdn }}, 4)
        else left({{ msisdn }}, 1) || '****'
    end
{%- endmacro %}
