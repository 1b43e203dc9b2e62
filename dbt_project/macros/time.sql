{#
    Date arithmetic and the two readings of time that every rule shares. Engine differences live here.
#}

{% macro month_of(moment) -%}
    date_trunc('month', {{ moment }})::date
{%- endmacro %}

{% macro add_months(day, months) -%}
    ({{ day }} + to_months(({{ months }})::integer))::date
{%- endmacro %}

{% macro add_days(day, days) -%}
    ({{ day }} + to_days(({{ days }})::integer))::date
{%- endmacro %}

{# The midnight that ends a day. #}
{% macro end_of(day) -%}
    ({{ day }} + interval 1 day)::timestamp
{%- endmacro %}

{#
    "At an instant t means the state just before t": an interval from a to b (b null = open) holds if
    a < t and (b is null or b >= t).
#}
{% macro holds_at(started, ended, moment) -%}
    ({{ started }} < {{ moment }} and ({{ ended }} is null or {{ ended }} >= {{ moment }}))
{%- endmacro %}

{# A policy or catalogue row is valid on a day if valid_from <= day < valid_to (null = open). #}
{% macro is_valid_on(row, day) -%}
    ({{ row }}.valid_from <= {{ day }} and ({{ row }}.valid_to is null or {{ day }} < {{ row }}.valid_to))
{%- endmacro %}

{# On how many days of one month: a bit a day, where counting distinct days would keep a set for every group. #}
{% macro count_days_of_month(moment) -%}
    bit_count(bit_or(1 << (day({{ moment }})::integer - 1)))::bigint
{%- endmacro %}
