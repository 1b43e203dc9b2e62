{#
    R3, the baseline: what a series would count in a period, judged from its own past only. These macros know nothing
    of relations or days, only series, positions (whole numbers, one a period) and lists of counts, so that
    `cleanbill growth` runs the same SQL on any file of counts. Everything happens inside one list per row: the order
    of summation is fixed, and so is every digit, whatever the number of threads.
#}

{# A list clipped at `cap_scale` robust standard deviations around its median (Poisson floor); null stays null. #}
{% macro growth_limits(values, is_high) -%}
    list_aggregate({{ values }}, 'median') {{ '+' if is_high else '-' }} cap_scale * greatest(
        sqrt(list_aggregate({{ values }}, 'median') + 1),
        1.4826 * list_aggregate({{ values }}, 'mad')
        {%- if is_high -%}
        , (list_aggregate({{ values }}, 'quantile_cont', 0.85) - list_aggregate({{ values }}, 'median')) / 1.0364
        {%- endif %}
    )
{%- endmacro %}

{% macro growth_clipped(values, low, high) -%}
    list_transform(
        {{ values }}, lambda v: case when v < {{ low }} then {{ low }} when v > {{ high }} then {{ high }} else v end
    )
{%- endmacro %}

{#
    Level, seasonal factor, dispersion and drift of every series at every period.

    series: series, start_position (since when it is known to exist; may be null), first_position (of the list),
    counts (double[], null = incomplete). Lists begin window + guard periods before the first of the positions.
    periods: position, and the parameters of policy_growth valid then.

    A series that is not known to exist at a position starts with the first count above zero in its window.
    Past bursts are capped twice: around the usual count of their slot, then again with the season taken out.
#}
{% macro growth_baselines(series, periods) %}
with periods as (
    select * from {{ periods }}
),

cut as (
    select
        series.series,
        periods.*,
        series.start_position,
        series.counts[
            (periods.position - series.first_position - periods.guard_periods - periods.window_periods + 1):(
                periods.position - series.first_position + 1
            )
        ] as known
    from {{ series }} as series
    cross join periods
),

windows as (
    select
        *,
        case
            when position >= start_position
                then list_transform(
                    known[1:window_periods],
                    lambda v, i: case when position - guard_periods - window_periods + i - 1 >= start_position then v end
                )
            else list_transform(
                known[1:window_periods],
                lambda v, i: case when i >= list_position(list_transform(known, lambda k: coalesce(k, 0) > 0), true) then v end
            )
        end as raw
    from cut
    where position >= start_position or list_aggregate(known, 'max') > 0
),

-- The usual count of each slot of the season, and how far the counts scatter around it, in units of its square root.
slots as (
    select
        *,
        list_transform(
            range(0, season_length),
            lambda slot: coalesce(
                list_aggregate(raw[(slot + 1):window_periods:season_length], 'median'), list_aggregate(raw, 'median')
            )
        ) as slot_counts
    from windows
),

scatter as (
    select
        *,
        list_transform(
            raw,
            lambda v, i: (v - slot_counts[(i - 1) % season_length + 1]) / sqrt(slot_counts[(i - 1) % season_length + 1] + 1)
        ) as residuals
    from slots
),

limits as (
    select
        *,
        cap_scale * greatest(1, 1.4826 * list_aggregate(residuals, 'mad')) as residual_low,
        cap_scale * greatest(
            1, 1.4826 * list_aggregate(residuals, 'mad'),
            (list_aggregate(residuals, 'quantile_cont', 0.85) - list_aggregate(residuals, 'median')) / 1.0364
        ) as residual_high
    from scatter
),

capped as (
    select
        *,
        list_transform(
            residuals,
            lambda r, i: slot_counts[(i - 1) % season_length + 1] + sqrt(slot_counts[(i - 1) % season_length + 1] + 1)
            * case when r < -residual_low then -residual_low when r > residual_high then residual_high else r end
        ) as capped
    from limits
),

-- The slot of position p is its place in the season, counted from the oldest period of the window.
seasons as (
    select
        *,
        case when season_length = 1 then [1.0::double] else list_transform(
            range(0, season_length),
            lambda slot: coalesce(
                (list_sum(capped[(slot + 1):window_periods:season_length]) + season_prior)
                / nullif(
                    list_aggregate(capped[(slot + 1):window_periods:season_length], 'count') * list_avg(capped)
                    + season_prior, 0
                ),
                1
            )
        ) end as factors
    from capped
),

flat as (
    select
        *,
        list_transform(raw, lambda v, i: v / greatest(factors[(i - 1) % season_length + 1], 0.05)) as flat
    from seasons
),

flat_limits as (
    select
        *,
        {{ growth_limits('flat', false) }} as flat_low,
        {{ growth_limits('flat', true) }} as flat_high
    from flat
),

flat_capped as (
    select
        * exclude (flat),
        {{ growth_clipped('flat', 'flat_low', 'flat_high') }} as flat
    from flat_limits
),

blocks as (
    select
        *,
        list_transform(
            range(0, window_periods // block_periods),
            lambda block: flat[(block * block_periods + 1):((block + 1) * block_periods)]
        ) as blocks
    from flat_capped
),

moments as (
    select
        *,
        list_aggregate(flat, 'count') as baseline_periods,
        list_avg(flat) as mean_count,
        list_avg(flat[(window_periods - level_periods + 1):window_periods]) as level,
        list_aggregate(flat[(window_periods - level_periods + 1):window_periods], 'count') as level_size,
        list_filter(list_transform(blocks, lambda block: list_avg(block)), lambda v: v is not null) as block_means,
        list_sum(
            list_transform(blocks, lambda block: list_aggregate(block, 'var_pop') * list_aggregate(block, 'count'))
        ) as squares
    from blocks
),

spread as (
    select
        *,
        greatest(baseline_periods - len(block_means) - season_length + 1, 1) as freedom,
        list_aggregate(
            list_transform(range(1, len(block_means)), lambda i: pow(block_means[i + 1] - block_means[i], 2)), 'median'
        ) as step_square
    from moments
)

select
    series,
    position,
    known[window_periods + guard_periods + 1] as observed,
    baseline_periods,
    freedom,
    coalesce(level, mean_count, 0) as level,
    greatest(coalesce(level_size, 0), 1) as level_size,
    greatest(factors[(window_periods + guard_periods) % season_length + 1], 0.05) as factor,
    coalesce(squares / freedom / nullif(mean_count, 0), 1) as dispersion,
    case
        when len(block_means) > 2 and mean_count > 0
            then greatest(step_square / 0.91 - squares / freedom / block_periods, 0) / pow(greatest(mean_count, 0.1), 2)
        else 0
    end as drift
from spread
{% endmacro %}

{# The parameters as columns, from rows of policy_growth. #}
{% macro growth_parameters() -%}
    {%- set whole = [
        'is_two_sided', 'season_length', 'window_periods', 'block_periods', 'level_periods', 'guard_periods',
        'minimum_baseline', 'ramp_periods', 'market_groups_min', 'market_groups_max', 'market_spread_min'
    ] -%}
    {%- set measures = [
        'cap_scale', 'season_prior', 'ramp_ratio', 'alert_p', 'alert_q', 'minimum_size', 'calendar_allowance',
        'market_group_size', 'outage_share_market', 'outage_share_alone', 'outage_size'
    ] -%}
    {%- for parameter in whole -%}
        max(value) filter (where parameter = '{{ parameter }}')::integer as {{ parameter }},
    {% endfor -%}
    {%- for parameter in measures -%}
        max(value) filter (where parameter = '{{ parameter }}')::double as {{ parameter }}{{ ',' if not loop.last }}
    {% endfor -%}
{%- endmacro %}

{# A day as a position and back; 5,000 years of days are whole numbers. #}
{% macro growth_position(day) -%}
    date_diff('day', date '1970-01-01', {{ day }})
{%- endmacro %}

{% macro growth_day(position) -%}
    (date '1970-01-01' + ({{ position }})::integer)
{%- endmacro %}

{# A probability with three significant digits: more of them would be noise. #}
{% macro growth_shown(probability) -%}
    format('{:.2e}', {{ probability }})::double
{%- endmacro %}
