-- The same for an extract of headquarters: one delivery a day, empty if nothing happened.
select
    calendar.day, null as source, 1 as delivery, 1 as part, count(line.line) as lines,
    string_agg(line.line || chr(10), '' order by line.at_s, line.line) as content, null as total,
from calendar
left join headquarters_line line on line.day = calendar.day and line.extract = $extract
where calendar.day between $from and $through
group by calendar.day
order by calendar.day
