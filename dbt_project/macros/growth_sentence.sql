{# One sentence that an SP can answer: what was counted, what was expected from what, and what drove it. #}
{% macro growth_sentence(alerts, drivers, evidence) -%}
    concat(
        {{ alerts }}.sp_code, ' ', {{ alerts }}.service_code, ': ',
        case
            when {{ alerts }}.reason = 'rise' then concat(
                {{ alerts }}.rise_orders, ' new orders from ', {{ alerts }}.first_day, ' to ', {{ alerts }}.day,
                ' where ', round({{ alerts }}.rise_expected, 1), ' were expected ('
            )
            else concat(
                {{ alerts }}.new_orders, ' new orders on ', {{ alerts }}.day, ' where ', round({{ alerts }}.expected, 1),
                ' were expected (usual range ', ceil({{ alerts }}.expected_low)::bigint, ' to ',
                floor({{ alerts }}.expected_high)::bigint, ', '
            )
        end,
        'from ', {{ alerts }}.baseline_days, ' days before; p ', {{ alerts }}.p_value, ', q ', {{ alerts }}.q_value, ')',
        case
            when {{ drivers }}.main_channel is not null and {{ alerts }}.direction = 'up' then concat(
                '; mainly channel ', {{ drivers }}.main_channel, ' (', {{ drivers }}.main_channel_percent,
                ' %), province ', {{ drivers }}.main_province, ' (', {{ drivers }}.main_province_percent,
                ' %), hour ', {{ drivers }}.main_hour, ' (', {{ drivers }}.main_hour_percent, ' %)'
            )
        end,
        case
            when {{ evidence }}.orders > 0 then concat(
                '; of ', {{ evidence }}.orders, ' orders ', {{ evidence }}.unconfirmed_percent, ' % lack a confirmation',
                case
                    when {{ evidence }}.never_used_percent is not null
                        then concat(' and ', {{ evidence }}.never_used_percent, ' % were never used since')
                end
            )
        end
    )
{%- endmacro %}
