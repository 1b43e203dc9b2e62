{#
    R6: the first M-01 00:00 that is after the first order and not before the end of the trial.
    judge_day: the trial ends with the month if the first order lies before the judge day, else with the next month;
    hours: after that many hours; month_end and none: the next first of a month.
#}
{% macro first_billable_month(first_ordered_at, trial) -%}
    case {{ trial }}.trial_kind
        when 'judge_day'
            then {{ add_months(
                month_of(first_ordered_at),
                'case when day(' ~ first_ordered_at ~ ') < ' ~ trial ~ '.judge_day then 1 else 2 end'
            ) }}
        when 'hours'
            then greatest(
                {{ add_months(month_of(first_ordered_at), 1) }},
                case
                    when {{ first_ordered_at }} + to_hours({{ trial }}.trial_hours) = date_trunc('month', {{ first_ordered_at }} + to_hours({{ trial }}.trial_hours))
                        then {{ month_of(first_ordered_at ~ ' + to_hours(' ~ trial ~ '.trial_hours)') }}
                    else {{ add_months(month_of(first_ordered_at ~ ' + to_hours(' ~ trial ~ '.trial_hours)'), 1) }}
                end
            )
        else {{ add_months(month_of(first_ordered_at), 1) }}
    end
{%- endmacro %}
