{{ config(materialized='view') }}
-- What the catalogue says of a service at the midnight that begins a day, for every day on which that can change:
-- nothing if the newest file before it does not name the service, else its newest row with valid_from on or before
-- that day. The first file reaches back before the first delivery.

with files as (
    select
        business_date,
        case when is_first then date '0001-01-01' else business_date + 1 end as holds_from,
        coalesce(next_business_date + 1, date '9999-12-31') as holds_to
    from {{ ref('full_file_changes') }}
    where extract = 'service_catalogue'
),

catalogue as (
    select * from {{ ref('stg_service_catalogue') }}
),

-- Days on which the answer can change.
turns as (
    select sp_code, service_code, valid_from as day from catalogue
    union
    select services.sp_code, services.service_code, files.holds_from
    from (select distinct sp_code, service_code from catalogue) as services
    cross join files
    where files.holds_from > date '0001-01-01'
),

answers as (
    select
        turns.sp_code,
        turns.service_code,
        turns.day,
        catalogue.service_name,
        catalogue.service_class,
        catalogue.is_portal,
        catalogue.billing_type,
        catalogue.monthly_fee_li,
        catalogue.status,
        catalogue.valid_from as row_valid_from,
        catalogue.marketing_text,
        row_number() over (
            partition by turns.sp_code, turns.service_code, turns.day
            order by
                catalogue.business_date desc, catalogue.valid_from desc,
                catalogue.source desc, catalogue.file_name desc, catalogue.line_no desc
        ) as nth_newest
    from turns
    inner join files on turns.day >= files.holds_from and turns.day < files.holds_to
    semi join catalogue as named
        on
            files.business_date = named.business_date
            and turns.sp_code = named.sp_code
            and turns.service_code = named.service_code
    inner join catalogue
        on
            turns.sp_code = catalogue.sp_code
            and turns.service_code = catalogue.service_code
            and catalogue.business_date <= files.business_date
            and catalogue.valid_from <= turns.day
),

final as (
    select
        turns.*,
        answers.* exclude (sp_code, service_code, day, nth_newest),
        answers.sp_code is not null as is_named
    from turns
    left join answers
        on
            turns.sp_code = answers.sp_code
            and turns.service_code = answers.service_code
            and turns.day = answers.day
            and answers.nth_newest = 1
)

select * from final
