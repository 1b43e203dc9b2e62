-- Seeded randomness: every draw is a function of (seed, what is drawn, for whom), so nothing depends on threads,
-- row order or the DuckDB version. Times are whole seconds since 1970 in local time, days are 86,400 of them.
create macro draw(what, whom) as
    md5_number_lower(getvariable('seed')::varchar || '/' || what || '/' || whom::varchar);
create macro pick(what, whom, choices) as (draw(what, whom) % choices::ubigint)::bigint;
create macro bits(draw, skipped, choices) as ((draw >> skipped) % choices::ubigint)::bigint;
create macro as_time(seconds) as make_timestamp(seconds::bigint * 1000000);
create macro as_day(day) as date '1970-01-01' + day::integer;
create macro day_of(seconds) as seconds // 86400;
-- Busy in the afternoon and evening, quiet at four in the morning.
create macro second_of_day(draw) as
    ((bits(draw, 3, 12) + bits(draw, 13, 13) + 4) % 24) * 3600 + bits(draw, 23, 3600);
-- Far behind every simulated day: stands for "never".
create macro never() as 100000000000;
create macro quoted(content) as '"' || replace(content, '"', '""') || '"';

-- Weekends are busy, so are the first days of a month and the days around the trial's judge day.
create table calendar as
with days as (
    select
        day,
        as_day(day) as calendar_date,
        [95, 88, 90, 92, 96, 118, 125][1 + isodow(as_day(day)) % 7] as use_weight,
    from range(getvariable('first_day'), getvariable('last_day') + 1) days(day)
),
weighted as (
    select
        *,
        use_weight * case
            when day(calendar_date) <= 3 then 13
            when day(calendar_date) between 20 and 22 then 12
            else 10
        end as order_weight,
    from days
)
select
    *,
    sum(order_weight) over (order by day)::bigint - order_weight as weight_before,
    sum(order_weight) over ()::bigint as total_weight,
    sum(order_weight) filter (where day < getvariable('first_day') + getvariable('stock_days')) over ()::bigint
        as stock_weight,
from weighted;

create table month as
with firsts as (
    select unnest(generate_series(
        date_trunc('month', as_day(getvariable('first_day'))),
        date_trunc('month', as_day(getvariable('last_day'))),
        interval 1 month
    ))::date as month_first
)
select
    (row_number() over (order by month_first) - 1)::bigint as month_no,
    month_first,
    (month_first + interval 1 month)::date as next_first,
    (month_first - date '1970-01-01')::bigint * 86400 as month_s,
    ((month_first + interval 1 month)::date - date '1970-01-01')::bigint * 86400 as next_s,
    month_s >= getvariable('first_s') and next_s <= getvariable('end_s') as is_whole,
from firsts;
