-- Who sells what. `launched` and `withdrawn`: share of the period (percent) after which a service enters or leaves
-- the catalogue. `burst_no`: the service whose orders jump in that burst. `weight`: how often it is ordered.
create table provider (sp_code varchar, sp_name varchar, status varchar);
insert into provider values
    ('901001', '晨星信息', 'active'),
    ('901002', 'Harbour Mobile', 'active'),
    ('901003', '天翼娱乐', 'active'),
    ('902001', 'Lotus Games', 'active'),
    ('902002', '掌上阅读', 'active'),
    ('902003', 'Redwall Sports', 'active'),
    ('903001', 'Jade Portal', 'active'),
    ('903002', '百乐彩铃', 'active'),
    ('903003', 'Fable & Sons', 'active'),
    ('904001', 'Quiet River', 'inactive');

create table service (
    service_no bigint, sp_code varchar, service_code varchar, service_name varchar, service_class varchar,
    billing_type varchar, monthly_fee_li bigint, weight bigint, burst_no bigint, launched bigint, withdrawn bigint,
    marketing_text varchar
);
insert into service
select row_number() over (order by sp_code, service_code) - 1, *
from (values
    ('901001', 'WEATHER', '天气早知道', 'sms', 'monthly', 3000, 90, null, null, null, '资费3元/月,发送TQ到1001订制'),
    ('901001', 'NEWS', '早晚报', 'sms', 'monthly', 5000, 80, null, null, null, '资费5元/月,发送XW到1001订制'),
    ('901001', 'JOKES', '每日一笑', 'sms', 'monthly', 8000, 40, 0, null, null, '免费试用三天, 资费8元/月'),
    ('901001', 'STOCKS', '股市快讯', 'sms', 'monthly', 15000, 25, null, null, null, '资费15元/月'),
    ('901001', 'POLL', '短信投票', 'sms', 'per_use', 0, 20, null, null, null, '资费1元/条'),
    ('901002', 'LOVE', 'Love notes', 'sms', 'monthly', 10000, 45, null, null, null, 'fee 10 yuan a month, not "free"'),
    ('901002', 'HOROSCOPE', 'Horoscope', 'sms', 'monthly', 6000, 45, null, null, null, 'fee 6 yuan a month'),
    ('901002', 'PICMAIL', 'Picture mail', 'mms', 'monthly', 12000, 35, null, null, null, 'fee 12 yuan a month'),
    ('901002', 'TIPS', 'Health tips', 'sms', 'free', 0, 25, null, null, null, '本业务不收取信息费'),
    ('901003', 'STARS', '明星周刊', 'mms', 'monthly', 8000, 35, 1, null, null, '资费8元/月'),
    ('901003', 'RING', '铃声下载', 'wap', 'monthly', 10000, 45, null, null, null, '资费10元/月'),
    ('901003', 'QUIZ', '开心问答', 'sms', 'monthly', 5000, 30, null, null, null, '资费5元/月'),
    ('901003', 'VIDEO', '掌上影院', 'wap', 'monthly', 20000, 25, null, 30, null, '资费20元/月'),
    ('902001', 'CHESS', 'Chess', 'portal', 'monthly', 6000, 35, null, null, null, 'fee 6 yuan a month'),
    ('902001', 'KUNGFU', 'Kungfu', 'portal', 'monthly', 8000, 45, 2, null, null, 'fee 8 yuan a month'),
    ('902001', 'RACING', 'Racing', 'portal', 'per_use', 0, 15, null, null, null, 'fee 2 yuan a download'),
    ('902001', 'HINTS', 'Game hints', 'sms', 'monthly', 4000, 20, null, null, null, 'fee 4 yuan a month'),
    ('902002', 'NOVEL', '小说频道', 'wap', 'monthly', 5000, 60, null, null, null, '资费5元/月'),
    ('902002', 'COMIC', '漫画频道', 'wap', 'monthly', 8000, 40, null, null, null, '资费8元/月'),
    ('902002', 'DAILY', '手机报', 'mms', 'monthly', 3000, 60, null, null, null, '资费3元/月'),
    ('902002', 'POEM', '每日一诗', 'sms', 'free', 0, 15, null, null, null, '资费0元'),
    ('902003', 'GOALS', 'Goal alerts', 'sms', 'monthly', 10000, 35, null, null, null, 'fee 10 yuan a month'),
    ('902003', 'LEAGUE', 'League table', 'wap', 'monthly', 6000, 30, null, null, null, 'fee 6 yuan a month'),
    ('902003', 'TICKETS', 'Ticket line', 'ivr', 'per_use', 0, 10, null, null, null, 'fee 1 yuan a minute'),
    ('903001', 'HOME', 'Jade home', 'portal', 'free', 0, 30, null, null, null, '资费0元'),
    ('903001', 'MAIL', 'Jade mail', 'portal', 'monthly', 5000, 40, null, null, null, 'fee 5 yuan a month'),
    ('903001', 'MAPS', 'Jade maps', 'wap', 'monthly', 7000, 30, 3, null, null, 'fee 7 yuan a month'),
    ('903002', 'CRBT', '彩铃', 'other', 'monthly', 5000, 50, null, null, null, '资费5元/月'),
    ('903002', 'VOICE', '声讯', 'ivr', 'monthly', 6000, 20, null, null, null, '资费6元/月'),
    ('903003', 'FABLE', 'Fable a day', 'sms', 'monthly', 5000, 25, null, null, null, 'fee 5 yuan a month'),
    ('903003', 'RIDDLE', 'Riddles', 'sms', 'monthly', 5000, 20, null, null, 60, 'fee 5 yuan a month'),
    ('904001', 'SLEEP', 'Sleep sounds', 'other', 'monthly', 3000, 10, null, null, null, 'fee 3 yuan a month')
) services(
    sp_code, service_code, service_name, service_class, billing_type, monthly_fee_li, weight, burst_no, launched,
    withdrawn, marketing_text
);

alter table service add column family varchar;      -- message: counted by MT, browse: by hits, none: no usage extract
alter table service add column launch_day bigint;   -- first day in the catalogue; null: always there
alter table service add column withdraw_day bigint; -- first day without it; null: stays
update service set
    family = case
        when service_class in ('sms', 'mms') then 'message'
        when service_class in ('wap', 'portal') then 'browse'
        else 'none'
    end,
    launch_day = getvariable('first_day') + getvariable('days') * launched // 100,
    withdraw_day = getvariable('first_day') + getvariable('days') * withdrawn // 100;

-- What a subscriber may be given: anything; any browsing service; or a service of one SP with several.
create table pool as
with members as (
    select 'any' as pool, service_no, weight from service
    union all
    select 'browse', service_no, weight from service where family = 'browse' and launched is null
    union all
    select 'settled', service_no, weight from service where launched is null and withdrawn is null
    union all
    select 'sp ' || sp_code, service_no, weight
    from service
    where
        launched is null and withdrawn is null
        and sp_code in (
            select sp_code from service where launched is null and withdrawn is null group by all having count(*) >= 3
        )
)
select
    *,
    sum(weight) over (partition by pool order by service_no)::bigint - weight as weight_before,
    sum(weight) over (partition by pool)::bigint as total_weight,
from members;
