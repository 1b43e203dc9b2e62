# The image of every Airflow service in docker-compose.yml: the locked packages and this repository, nothing else.
FROM python:3.12-slim

RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin cleanbill \
    && install --directory --owner cleanbill --group cleanbill --mode 0750 \
        /data /opt/airflow /var/log/airflow /var/lib/airflow-users

WORKDIR /opt/cleanbill
COPY requirements.lock ./
RUN pip install --no-cache-dir --require-hashes --no-deps -r requirements.lock

COPY pyproject.toml ./
COPY include ./include
RUN pip install --no-cache-dir --no-deps --no-build-isolation .
COPY dags ./dags
COPY dbt_project ./dbt_project
COPY expectations ./expectations

ENV PYTHONUNBUFFERED=1 CLEANBILL_PROJECT_ROOT=/opt/cleanbill
USER 10001:10001
