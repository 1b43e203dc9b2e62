{#
    R3, the decision. An alert is news: a count far above (or, where both directions are asked, below) its baseline
    that also beats the days just before it ('burst', 'drop'), or one that came by steps: the first in ramp_periods
    that is out by ramp_ratio, alone ('rise', 'drop') or in its sum with those before it ('rise'). What stays abnormal
    without being news is 'continues', so that one burst is one alert.
#}

{# Score that a standard normal variable exceeds with a small probability (Abramowitz and Stegun 26.2.23). #}
{% macro growth_quantile(probability) -%}
    {%- set t = 'sqrt(-2 * ln(' ~ probability ~ '))' -%}
    (
        {{ t }} - (2.515517 + 0.802853 * {{ t }} + 0.010328 * pow({{ t }}, 2))
        / (1 + 1.432788 * {{ t }} + 0.189269 * pow({{ t }}, 2) + 0.001308 * pow({{ t }}, 3))
    )
{%- endmacro %}

{# The count that scores `score`: the inverse of growth_score. #}
{% macro growth_band(expected, dispersion, score) -%}
    (
        {{ expected }} + 2 * {{ dispersion }} * {{ expected }} / (2 * {{ dispersion }} - 1) * (
            pow(greatest(
                1 + (2 * {{ dispersion }} - 1) / (6 * sqrt({{ dispersion }} * {{ expected }})) * (
                    {{ score }} - (2 * {{ dispersion }} - 1) / (6 * sqrt({{ dispersion }} * {{ expected }}))
                ), 0
            ), 3) - 1
        )
    )
{%- endmacro %}

{#
    scores: rows of the wanted positions and of the ramp_periods before them.
    periods: the parameters of all positions; wanted: the positions to decide.
#}
{% macro growth_decisions(scores, periods, wanted) %}
with needed as (
    select distinct periods.position - steps.back as position
    from {{ wanted }} as wanted
    inner join {{ periods }} as periods on wanted.position = periods.position
    inner join (select unnest(range(0, 400)) as back) as steps on steps.back <= periods.ramp_periods
),

worst as (
    select
        scores.*,
        periods.* exclude (position),
        periods.is_two_sided = 1 and scores.base_down > scores.base_up as is_fewer,
        scores.is_tested and scores.ramp is not null as is_ramp_tested
    from {{ scores }} as scores
    inner join {{ periods }} as periods on scores.position = periods.position
    semi join needed on scores.position = needed.position
),

chosen as (
    select
        *,
        case when is_fewer then base_down else base_up end as base,
        case when is_fewer then new_down else new_up end as news
    from worst
),

points as (
    select
        *,
        {{ growth_tail_point('base') }} as base_point,
        {{ growth_tail_point('news') }} as news_point,
        {{ growth_tail_point('ramp') }} as ramp_point
    from chosen
),

tails as (
    select
        *,
        least((1 + is_two_sided) * {{ growth_tail('base', 'base_point') }}, 1) as p,
        (1 + is_two_sided) * {{ growth_tail('news', 'news_point') }} as p_new,
        {{ growth_tail('ramp', 'ramp_point') }} as p_ramp
    from points
),

ranked as (
    select
        *,
        count(*) over (partition by position, is_tested) as tested,
        count(*) over (partition by position, is_ramp_tested) as ramp_tested,
        row_number() over (partition by position, is_tested order by p, series) as nth_p,
        row_number() over (partition by position, is_ramp_tested order by p_ramp, series) as nth_ramp
    from tails
),

-- Benjamini-Hochberg among the series tested in the period.
adjusted as (
    select
        *,
        min(least(p * tested / nth_p, 1)) over (
            partition by position, is_tested order by nth_p desc rows unbounded preceding
        ) as q,
        min(least(p_ramp * ramp_tested / nth_ramp, 1)) over (
            partition by position, is_ramp_tested order by nth_ramp desc rows unbounded preceding
        ) as q_ramp
    from ranked
),

compared as (
    select
        *,
        is_tested and p <= alert_p and q <= alert_q and abs(observed - expected) >= minimum_size as is_abnormal,
        coalesce(
            is_ramp_tested
            and p_ramp <= alert_p and q_ramp <= alert_q
            and ramp_observed - ramp_expected >= minimum_size
            and ramp_observed >= ramp_ratio * ramp_expected
            and observed > expected, false
        ) as is_ramp
    from adjusted
),

judged as (
    select
        *,
        is_abnormal and p_new <= alert_p as is_sudden,
        is_ramp or (is_abnormal and not is_fewer and observed >= ramp_ratio * expected) as is_crossing,
        is_abnormal and is_fewer and observed * ramp_ratio <= expected as is_falling
    from compared
),

-- Each wanted period with what the ramp_periods before it already said.
told as (
    select
        wanted.position,
        earlier.series,
        bool_or(earlier.is_crossing or (earlier.is_sudden and not earlier.is_fewer)) as is_told,
        bool_or(earlier.is_falling or (earlier.is_sudden and earlier.is_fewer)) as is_fall_told
    from {{ wanted }} as wanted
    inner join {{ periods }} as periods on wanted.position = periods.position
    inner join judged as earlier
        on earlier.position < wanted.position and earlier.position >= wanted.position - periods.ramp_periods
    group by wanted.position, earlier.series
),

decided as (
    select
        judged.*,
        case
            when judged.observed is null or judged.is_outage then 'incomplete day'
            when not judged.is_tested then 'no baseline'
            when judged.is_sudden
                then case when judged.is_fewer then 'drop' else 'burst' end
            when judged.is_crossing and not coalesce(told.is_told, false) then 'rise'
            when judged.is_falling and not coalesce(told.is_fall_told, false) then 'drop'
            when judged.is_abnormal or judged.is_crossing then 'continues'
            when judged.p <= judged.alert_p and judged.q <= judged.alert_q then 'below minimum size'
            else 'as expected'
        end as reason
    from judged
    semi join {{ wanted }} as wanted on judged.position = wanted.position
    left join told on judged.series = told.series and judged.position = told.position
),

banded as (
    select
        *,
        greatest(expected, 0.5) as centre,
        {{ growth_quantile('alert_p / (1 + is_two_sided)') }} * spread as band_score
    from decided
),

stretched as (
    select
        *,
        {{ growth_unstudent('band_score', 'freedom') }} as band_reach
    from banded
)

select
    series,
    position,
    case when is_tested then expected end as expected,
    case when is_tested and expected >= 0.05 then observed / expected end as ratio,
    case when reason = 'rise' and is_ramp then p_ramp when is_tested then p end as p_value,
    case when reason = 'rise' and is_ramp then q_ramp when is_tested then q end as q_value,
    reason in ('burst', 'drop', 'rise') as is_alert,
    case when is_tested then case when is_fewer and reason <> 'rise' then 'down' else 'up' end end as direction,
    baseline_periods,
    reason,
    case when is_tested then greatest({{ growth_band('centre', 'dispersion', '(-band_reach)') }}, 0) end as expected_low,
    case when is_tested then {{ growth_band('centre', 'dispersion', 'band_reach') }} end as expected_high,
    case when is_ramp_tested then ramp_observed end as ramp_observed,
    case when is_ramp_tested then ramp_expected end as ramp_expected
from stretched
{% endmacro %}

{# The inverse of growth_student. #}
{% macro growth_unstudent(score, freedom) -%}
    (
        sign({{ score }}) * sqrt({{ freedom }} * (
            exp(pow({{ score }} * (8 * {{ freedom }} + 3) / (8 * {{ freedom }} + 1), 2) / {{ freedom }}) - 1
        ))
    )
{%- endmacro %}
