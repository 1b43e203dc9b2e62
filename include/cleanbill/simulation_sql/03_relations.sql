-- Subscribers. `kind` is decided by a shuffled rank, so that the smallest world has some of each kind.
create table subscriber as
with shuffled as (
    select number as subscriber_no, row_number() over (order by draw('shuffle', number), number) - 1 as place
    from range(getvariable('subscribers')) numbers(number)
),
kinds as (
    select
        shuffled.*,
        coalesce(kind_cut.kind, 'regular') as kind,
    from shuffled
    left join kind_cut on shuffled.place >= kind_cut.from_place and shuffled.place < kind_cut.to_place
)
select
    *,
    -- The nine digits are a permutation of the subscriber numbers: nobody shares a number.
    '1' || (3 + pick('prefix', subscriber_no, 7))::varchar
        || lpad(((subscriber_no * 716151937 + pick('number', 0, 1000000000)) % 1000000000)::varchar, 9, '0') as msisdn,
    least(
        pick('home', subscriber_no, getvariable('sources')), pick('home again', subscriber_no, getvariable('sources'))
    ) as home_no,
from kinds;

create table burst as
select
    burst_no,
    service_no,
    getvariable('first_day') + getvariable('days') * [18, 41, 63, 82][1 + burst_no] // 100 as day,
from service
where burst_no is not null;

create table relation as
with wanted as (
    select
        subscriber.*,
        choice,
        subscriber_no * 8 + choice as relation_no,
        case
            when kind = 'dark' and choice = 0 then 'browse'
            when kind in ('dark', 'stopped', 'closed', 'test') then 'settled'
            when kind in ('leaver', 'pauser')
                then (
                    select list(distinct pool order by pool) from pool where pool like 'sp %'
                )[1 + pick('sp', subscriber_no, (select count(distinct pool) from pool where pool like 'sp %'))]
            else 'any'
        end as pool,
    from subscriber
    cross join range(3) choices(choice)
    where
        choice < case
            when kind in ('leaver', 'pauser') then 3
            when kind in ('dark', 'stopped', 'closed') then 2
            else [1, 1, 1, 1, 1, 2, 2, 2, 3, 3][1 + pick('relations', subscriber_no, 10)]
        end
),
drawn as (
    select wanted.*, pick('service', relation_no, pools.total_weight) as weight_drawn
    from wanted
    join (select distinct pool, total_weight from pool) pools using (pool)
),
chosen as (
    select
        drawn.* exclude (pool, weight_drawn),
        coalesce(burst.service_no, pool.service_no) as service_no,
        burst.day as burst_day,
    from drawn
    asof join pool on drawn.pool = pool.pool and drawn.weight_drawn >= pool.weight_before
    left join burst on drawn.kind = 'burst' and drawn.choice = 0 and burst.burst_no = drawn.place % 4
),
single as (
    select chosen.*, service.* exclude (service_no, weight, burst_no, launched, withdrawn, marketing_text)
    from chosen
    join service using (service_no)
    qualify row_number() over (partition by subscriber_no, service_no order by choice) = 1
),
dated as (
    select
        single.*,
        case
            when kind in ('stopped', 'closed') or pick('stock', relation_no, 100) < getvariable('stock_percent')
                then pick('stock day', relation_no, calendar_total.stock_weight)
            else pick('order day', relation_no, calendar_total.total_weight)
        end as weight_drawn,
    from single
    cross join (select distinct stock_weight, total_weight from calendar) calendar_total
),
placed as (
    select
        dated.* exclude (weight_drawn),
        greatest(
            coalesce(dated.burst_day, calendar.day),
            coalesce(dated.launch_day + 1 + pick('launch', relation_no, 20), 0)
        ) as order_day,
    from dated
    asof join calendar on dated.weight_drawn >= calendar.weight_before
),
-- One order in a hundred sits on a boundary of the trial rule or of a month.
timed as (
    select
        *,
        case if(launch_day is null, pick('boundary', relation_no, 300), -1)
            when 0 then epoch(date_trunc('month', as_day(order_day)))::bigint + 20 * 86400 - 1
            when 1 then epoch(date_trunc('month', as_day(order_day)))::bigint + 20 * 86400
            when 2 then epoch(date_trunc('month', as_day(order_day)) + interval 1 month)::bigint
            else order_day * 86400 + second_of_day(draw('order time', relation_no))
        end as first_order_s,
    from placed
)
select * from timed
where first_order_s >= getvariable('first_s');
