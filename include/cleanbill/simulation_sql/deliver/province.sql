-- The deliveries of one extract in some days, as text: (day, source, delivery, part, lines, text, total). A resent
-- delivery 1 lacks some lines and has some that nobody made; delivery 2 is the truth. `delivered_line` stands for
-- the table of the extract.
with keys as (
    select calendar.day, source.source_no, source.source, resent.day is not null as is_resent
    from calendar
    cross join source
    left join resent on resent.extract = $extract and resent.day = calendar.day and resent.source_no = source.source_no
    where calendar.day between $from and $through
),
numbers as (
    select *, unnest(case when is_resent then [1, 2] else [1] end) as delivery from keys
),
parted as (
    select
        numbers.day, numbers.source, numbers.delivery, line.line, line.at_s, line.measure,
        -- A big first day of a month comes in two files.
        case
            when numbers.source_no = 0 and day(as_day(numbers.day)) = 1 and $extract != 'relation_events'
                then 1 + coalesce(ascii(right(md5(line.line), 1)) % 2, 0)
            else 1
        end as part,
    from numbers
    left join delivered_line line on
        line.day = numbers.day and line.source_no = numbers.source_no
        and (not line.is_ghost or numbers.is_resent and numbers.delivery = 1)
        and (
            not numbers.is_resent or numbers.delivery = 2
            or line.is_ghost or md5_number_lower(line.line) % 8 > 0
        )
)
select
    day, source, delivery, part, count(line) as lines,
    string_agg(line || chr(10), '' order by at_s, line) as content,
    case when bool_or(line is not null and measure is null) then null else coalesce(sum(measure), 0)::bigint end
        as total,
from parted
group by day, source, delivery, part
order by day, source, delivery, part
