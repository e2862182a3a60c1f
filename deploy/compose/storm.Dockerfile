# Storm with the Python that its workers' components need: `streamparse_run` on PATH, and what src/ imports.
# Not built where it was written (no Docker engine there). The version is project.clj's.
FROM storm:2.8.3 AS storm
FROM python:3.11-slim-bookworm
RUN apt-get update && apt-get install -y --no-install-recommends openjdk-17-jre-headless && rm -rf /var/lib/apt/lists/*
COPY --from=storm /apache-storm-2.8.3 /opt/storm
COPY requirements.lock .
RUN pip install --no-cache-dir --require-hashes -r requirements.lock
ENV PATH=/opt/storm/bin:$PATH
RUN useradd --system --home-dir /opt/storm storm && mkdir -p /opt/storm/local /opt/storm/logs && chown -R storm /opt/storm
USER storm
