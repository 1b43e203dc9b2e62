{#
    R3, the test: how far a count lies from its expectation, in standard normal units. Counts are negative-binomial
    with variance = dispersion x mean (dispersion >= 1: the Poisson floor), matched in mean, variance and skewness by
    the Wilson-Hilferty form of the Pearson III distribution, then drawn in for the few periods behind the dispersion
    (Wallace's approximation of Student's t). Held against scipy's exact tails in the tests.
#}
{#
    correction: -0.5 for the upper tail, 0.5 for the lower one, 0 for the middle. Not cbrt(): DuckDB ends with an
    internal error when it is planned over a table without rows, as on the first days of an operator.
#}
{% macro growth_pearson(observed, expected, dispersion, correction) -%}
    (
        6 * sqrt({{ dispersion }} * {{ expected }}) / (2 * {{ dispersion }} - 1) * (
            pow(greatest(
                (2 * {{ dispersion }} - 1) * ({{ observed }} + {{ correction }} - {{ expected }})
                / (2 * {{ dispersion }} * {{ expected }}) + 1, 0
            ), 1 / 3) - 1
        ) + (2 * {{ dispersion }} - 1) / (6 * sqrt({{ dispersion }} * {{ expected }}))
    )
{%- endmacro %}

{% macro growth_student(score, freedom) -%}
    (
        sign({{ score }}) * sqrt({{ freedom }} * ln(1 + pow({{ score }}, 2) / {{ freedom }}))
        * (8 * {{ freedom }} + 1) / (8 * {{ freedom }} + 3)
    )
{%- endmacro %}

{#
    Upper tail of the standard normal distribution, relative error below 1.2e-7 everywhere (Numerical Recipes, erfc).
    t: growth_tail_point of the same score, a column of its own, because it stands here nine times.
#}
{% macro growth_tail(score, t) -%}
    abs((case when {{ score }} < 0 then 1 else 0 end) - 0.5 * {{ t }} * exp(
        -{{ score }} * {{ score }} / 2 - 1.26551223 + {{ t }} * (
            1.00002368 + {{ t }} * (0.37409196 + {{ t }} * (0.09678418 + {{ t }} * (-0.18628806 + {{ t }} * (
                0.27886807 + {{ t }} * (-1.13520398 + {{ t }} * (1.48851587 + {{ t }} * (
                    -0.82215223 + {{ t }} * 0.17087277
                )))
            ))))
        )
    ))
{%- endmacro %}

{% macro growth_tail_point(score) -%}
    (1 / (1 + abs({{ score }}) / 2.8284271247461903))
{%- endmacro %}

{#
    What the market did in each period: the common shock (observed / expected of all series, as the median over
    groups of series, so that no burst moves it), its relative standard error and the number of groups. Groups have
    equal shares of small and large series and expect at least `market_group_size` counts each; with fewer than
    `market_groups_min` of them no shock can be told from a burst, and it is 1.
#}
{% macro growth_market(baselines, periods) %}
with tested as (
    select
        baselines.position,
        baselines.series,
        baselines.observed,
        baselines.level * baselines.factor as expected,
        periods.market_groups_min,
        periods.market_group_size,
        periods.outage_share_alone,
        least(
            periods.market_groups_max,
            floor(
                sum(round(least(baselines.level * baselines.factor, periods.market_group_size) * 1000)::bigint)
                    over (partition by baselines.position)
                / (1000 * periods.market_group_size)
            )
        )::integer as groups,
        row_number() over (
            partition by baselines.position
            order by round(baselines.level * baselines.factor * 1000) desc, baselines.series
        ) as nth_largest
    from {{ baselines }} as baselines
    inner join {{ periods }} as periods on baselines.position = periods.position
    where baselines.observed is not null and baselines.baseline_periods >= periods.minimum_baseline
),

totals as (
    select
        position,
        sum(observed)::double as observed,
        sum(round(expected * 1000)::bigint) / 1000 as expected,
        count(*) as tested,
        count(*) filter (where expected >= market_group_size) as speaking,
        count(*) filter (where expected >= market_group_size and observed <= outage_share_alone * expected) as silent
    from tested
    group by position
),

-- What the same series counted in the guard periods: an outage is sudden, a decline is not.
before as (
    select
        tested.position,
        sum(earlier.observed) / count(distinct earlier.position) as observed
    from tested
    inner join {{ periods }} as periods on tested.position = periods.position
    inner join {{ baselines }} as earlier
        on
            tested.series = earlier.series
            and earlier.position >= tested.position - periods.guard_periods
            and earlier.position < tested.position
            and earlier.observed is not null
    group by tested.position
),

grouped as (
    select
        position,
        groups,
        sum(observed) / greatest(sum(round(expected * 1000)::bigint) / 1000, 0.001) as ratio
    from tested
    where groups >= market_groups_min
    group by position, groups, nth_largest % groups
),

shocks as (
    select
        position,
        any_value(groups) as groups,
        median(ratio) as shock,
        1.2533 * 1.4826 * mad(ratio) / sqrt(any_value(groups)) as shock_error
    from grouped
    group by position
)

select
    periods.position,
    coalesce(shocks.groups, 0) as groups,
    coalesce(shocks.shock, 1) as shock,
    coalesce(shocks.shock_error, 0) as shock_error,
    coalesce(
        totals.expected >= periods.outage_size
        and case
            when shocks.groups is not null then shocks.shock <= periods.outage_share_market
            else totals.speaking = totals.silent and (totals.speaking > 1 or totals.tested = 1)
        end
        and totals.observed <= periods.outage_share_market * coalesce(before.observed, totals.expected), false
    ) as is_outage
from {{ periods }} as periods
left join totals on periods.position = totals.position
left join before on periods.position = before.position
left join shocks on periods.position = shocks.position
{% endmacro %}

{#
    Scores of every series at every period (positive = more than expected):
    base_up/base_down against the baseline; new_up/new_down against the worse of the baseline, the guard periods and
    known calendar days of the window with the same name; ramp: the sum of the last ramp_periods against the
    baseline that ended before them. All are divided by the spread of the scores of the period across services, where
    that is wider than chance (empirical null): a day on which every service is unusual makes none of them an alert.

    baselines, market: rows of the periods and of the ramp_periods and guard periods before them.
    calendar: position, calendar_day (a name such as '1st'; no row for ordinary periods).
#}
{% macro growth_scores(baselines, market, periods, calendar) %}
with periods as (
    select * from {{ periods }}
),

baselines as (
    select * from {{ baselines }}
),

rows_before as (
    select
        periods.position,
        baselines.series,
        baselines.position as position_before,
        baselines.observed,
        baselines.factor * greatest(coalesce(market.shock, 1), 0.05) as factor,
        baselines.observed / (baselines.factor * greatest(coalesce(market.shock, 1), 0.05)) as flat,
        periods.ramp_periods,
        periods.guard_periods
    from periods
    inner join baselines
        on
            baselines.position < periods.position
            and baselines.position >= periods.position - greatest(periods.ramp_periods - 1, periods.guard_periods)
    left join {{ market }} as market on baselines.position = market.position
),

recent as (
    select
        position,
        series,
        max(flat) filter (where position_before >= position - guard_periods) as guard_high,
        min(flat) filter (where position_before >= position - guard_periods) as guard_low,
        count(observed) filter (where position_before > position - ramp_periods) as ramp_size,
        sum(observed) filter (where position_before > position - ramp_periods) as ramp_observed,
        sum(round(factor * 1000000)::bigint) filter (
            where position_before > position - ramp_periods and observed is not null
        ) / 1000000 as ramp_factor
    from rows_before
    group by position, series
),
{# The highest and lowest count on earlier known calendar days of the same name, with today's factor for theirs. #}
same_days as (
    select
        periods.position,
        baselines.series,
        max(baselines.observed / baselines.factor) as calendar_high,
        min(baselines.observed / baselines.factor) as calendar_low
    from periods
    inner join {{ calendar }} as today on periods.position = today.position
    inner join {{ calendar }} as earlier
        on
            today.calendar_day = earlier.calendar_day
            and earlier.position < periods.position - periods.guard_periods
            and earlier.position >= periods.position - periods.guard_periods - periods.window_periods
    inner join baselines on earlier.position = baselines.position
    group by periods.position, baselines.series
),

expected as (
    select
        baselines.series,
        baselines.position,
        baselines.observed,
        baselines.baseline_periods,
        baselines.freedom,
        market.groups,
        baselines.baseline_periods >= periods.minimum_baseline
        and baselines.observed is not null and not market.is_outage as is_tested,
        market.is_outage,
        baselines.factor * greatest(market.shock, 0.05) as factor,
        baselines.level * baselines.factor * greatest(market.shock, 0.05) as expected,
        case
            when today.position is not null and market.groups = 0 then periods.calendar_allowance
            else 0
        end as allowance,
        greatest(
            baselines.dispersion + baselines.drift * baselines.level, 1
        ) * (1.0 + 1.0 / baselines.level_size) as dispersion,
        market.shock_error,
        greatest(baselines.level, recent.guard_high, same_days.calendar_high / greatest(market.shock, 0.05)) as high,
        least(baselines.level, recent.guard_low, same_days.calendar_low / greatest(market.shock, 0.05)) as low,
        recent.ramp_observed + baselines.observed as ramp_observed,
        before.level * (recent.ramp_factor + baselines.factor * greatest(market.shock, 0.05)) as ramp_expected,
        case
            when recent.ramp_size + 1 = periods.ramp_periods and before.baseline_periods >= periods.minimum_baseline
                then greatest(before.dispersion, 1) * (1.0 + periods.ramp_periods / before.level_size)
                    + before.level * (recent.ramp_factor + baselines.factor * greatest(market.shock, 0.05)) * before.drift
        end as ramp_dispersion,
        before.freedom as ramp_freedom
    from periods
    inner join baselines on periods.position = baselines.position
    inner join {{ market }} as market on periods.position = market.position
    left join recent on baselines.series = recent.series and baselines.position = recent.position
    left join same_days on baselines.series = same_days.series and baselines.position = same_days.position
    left join baselines as before
        on baselines.series = before.series and before.position = periods.position - periods.ramp_periods + 1
    left join {{ calendar }} as today on periods.position = today.position
),

dispersed as (
    select
        * exclude (dispersion),
        dispersion + expected * (pow(allowance, 2) + pow(shock_error / greatest(factor, 0.05), 2)) as dispersion
    from expected
),

measured as (
    select
        *,
        greatest(expected, 0.5) as tested_base,
        greatest(high * factor, 0.5) as tested_high,
        greatest(low * factor, 0.5) as tested_low,
        greatest(ramp_expected, 0.5) as tested_ramp
    from dispersed
),

raw_scores as (
    select
        *,
        {{ growth_pearson('observed', 'tested_base', 'dispersion', '-0.5') }} as raw_base_up,
        -{{ growth_pearson('observed', 'tested_base', 'dispersion', '0.5') }} as raw_base_down,
        {{ growth_pearson('observed', 'tested_high', 'dispersion', '-0.5') }} as raw_new_up,
        -{{ growth_pearson('observed', 'tested_low', 'dispersion', '0.5') }} as raw_new_down,
        {{ growth_pearson('ramp_observed', 'tested_ramp', 'ramp_dispersion', '-0.5') }} as raw_ramp,
        case
            when is_tested and expected >= 3 then {{ growth_pearson('observed', 'tested_base', 'dispersion', '0') }}
        end as raw_centre
    from measured
),

scored as (
    select
        *,
        {{ growth_student('raw_base_up', 'freedom') }} as base_up,
        {{ growth_student('raw_base_down', 'freedom') }} as base_down,
        {{ growth_student('raw_new_up', 'freedom') }} as new_up,
        {{ growth_student('raw_new_down', 'freedom') }} as new_down,
        {{ growth_student('raw_ramp', 'ramp_freedom') }} as ramp,
        {{ growth_student('raw_centre', 'freedom') }} as centre
    from raw_scores
),

spreads as (
    select
        scored.position,
        case
            when count(scored.centre) >= any_value(periods.market_spread_min)
                then greatest(
                    1, (quantile_cont(scored.centre, 0.75) - quantile_cont(scored.centre, 0.25)) / 1.349
                )
            else 1
        end as spread
    from scored
    inner join periods on scored.position = periods.position
    group by scored.position
)

select
    scored.series,
    scored.position,
    scored.observed,
    scored.baseline_periods,
    scored.is_tested,
    scored.is_outage,
    scored.expected,
    scored.dispersion,
    scored.freedom,
    spreads.spread,
    scored.base_up / spreads.spread as base_up,
    scored.base_down / spreads.spread as base_down,
    scored.new_up / spreads.spread as new_up,
    scored.new_down / spreads.spread as new_down,
    scored.ramp / spreads.spread as ramp,
    scored.ramp_observed,
    scored.ramp_expected
from scored
inner join spreads on scored.position = spreads.position
{% endmacro %}
