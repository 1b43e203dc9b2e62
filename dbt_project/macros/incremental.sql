{#
    The incremental design: every model is "delete the affected keys, insert them anew", so a killed run can be
    repeated. These macros are pre-hooks: they run in the transaction of the model.
#}

{# Delete from the model the rows that meet the condition; nothing on a first or full build. #}
{% macro delete_rows(condition) -%}
    {% if is_incremental() %}delete from {{ this }} where {{ condition }}{% endif %}
{%- endmacro %}

{# Delete the rows of deliveries that were replaced, withdrawn or (after a killed run) half taken in. #}
{% macro delete_changed_deliveries(extract) -%}
    {{ delete_rows(
        "(business_date, source) in (select business_date, source from "
        ~ ref('changed_deliveries') ~ " where extract = '" ~ extract ~ "')"
    ) }}
{%- endmacro %}

{#
    Set the session variable `<variable>` to the list of lake files of one extract that changed in this run.
    Which: 'new_path' (now in force) or 'old_path' (in force before). The empty file keeps the list non-empty.
#}
{% macro set_changed_paths(variable, extract, which='new_path') -%}
    set variable {{ variable }} = (
        select list_prepend('lake/{{ extract }}/empty.parquet', coalesce(list({{ which }} order by {{ which }}), []))
        from {{ ref('changed_deliveries') }}
        where extract = '{{ extract }}' and {{ which }} is not null
    );
    {{ check_lake_files(variable) }}
{%- endmacro %}

{#
    Set `<variable>` to the lake files in force that can hold records of the months to recompute: a record lies in
    a file of its own day or later, as late as the most tolerant source allows.
#}
{% macro set_usage_paths(variable, extract, months) -%}
    set variable {{ variable }} = (
        select list_prepend('lake/{{ extract }}/empty.parquet', coalesce(list(deliveries.lake_path order by deliveries.lake_path), []))
        from {{ source('control', 'in_force') }} as deliveries
        cross join {{ source('control', 'run_context') }} as context
        {% if is_incremental() -%}
        cross join (
            select
                min(month) - interval 1 day as first_day,
                max(month) + interval 1 month + to_days((select max(max_lateness_days) from {{ ref('policy_ingest') }})::integer) as last_day
            from {{ months }}
        ) as affected
        {%- endif %}
        where
            deliveries.extract = '{{ extract }}'
            and deliveries.lake_path is not null
            and deliveries.business_date <= context.as_of_date
            {% if is_incremental() -%}
            and deliveries.business_date between affected.first_day and affected.last_day
            {%- endif %}
    );
    {#- a full build has checked all of them while it took them in -#}
    {% if is_incremental() %}{{ check_lake_files(variable) }}{% endif %}
{%- endmacro %}

{#
    Stop the model if a file of `<variable>` is not, byte for byte, what ingest wrote: a flipped bit in a Parquet file
    mostly reads as another value.
#}
{% macro check_lake_files(variable) -%}
    select error('damaged lake file ' || min(recorded.lake_path) || ': delete it, then run again; it is made anew from landing/')
    from read_blob(getvariable('{{ variable }}')) as found
    inner join {{ source('control', 'lake_files') }} as recorded
        on array_to_string(string_split(found.filename, '/')[-4:], '/') = recorded.lake_path
    where recorded.sha256 <> sha256(found.content)
    having count(*) > 0
{%- endmacro %}

{% macro lake_rows(variable) -%}
    read_parquet(getvariable('{{ variable }}'))
{%- endmacro %}

{# All records of the months to recompute: on a full build staging holds every file in force, and reads faster. #}
{% macro usage_rows(extract, variable) -%}
    {% if is_incremental() %}{{ lake_rows(variable) }}{% else %}{{ ref('stg_' ~ extract) }}{% endif %}
{%- endmacro %}

{# Set `<variable>` to the lake files of a full extract on the days its content changed. #}
{% macro set_full_file_paths(variable, extract) -%}
    set variable {{ variable }} = (
        select list_prepend(
            'lake/{{ extract }}/empty.parquet',
            coalesce(list_filter(flatten(list(lake_paths order by business_date)), lambda path: path is not null), [])
        )
        from {{ ref('full_file_changes') }}
        where extract = '{{ extract }}'
    );
    {{ check_lake_files(variable) }}
{%- endmacro %}

{# The bills this run judges anew: whole months, and single accounts of other months. #}
{% macro judged_bills() -%}
    billing_month in (select billing_month from {{ ref('int_billing_months') }} where is_judged_whole)
    or (billing_month, subscriber_id, sp_code) in (select billing_month, subscriber_id, sp_code from {{ ref('int_affected_bills') }})
{%- endmacro %}

{# Where a model lists what changed: no rows on a full build, which makes everything anew and asks for none of them. #}
{% macro unless_full_build() -%}
    {% if flags.FULL_REFRESH %}where false{% endif %}
{%- endmacro %}
