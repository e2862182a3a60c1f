"""The real servers of the stack on this machine: Kafka, Redis, two MariaDB servers, Apache Storm.

Everything listens on the loopback address, lives under one folder (default ``.stack/``) and is
started, found again and stopped by recorded process id.
"""
