{#
    A share of an amount in li, rounded half to even, in integers only (a division would give DOUBLE).
    share_bp: hundredths of a per cent.
#}
{% macro share_half_even(amount_li, share_bp) -%}
    (
        sign({{ amount_li }}) * (
            abs({{ amount_li }} * {{ share_bp }}) // 10000
            + case
                when (abs({{ amount_li }} * {{ share_bp }}) % 10000) * 2 > 10000 then 1
                when
                    (abs({{ amount_li }} * {{ share_bp }}) % 10000) * 2 = 10000
                    and (abs({{ amount_li }} * {{ share_bp }}) // 10000) % 2 = 1 then 1
                else 0
            end
        )
    )::bigint
{%- endmacro %}
