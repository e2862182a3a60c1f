"""Kafka behind TLS and SASL, by both clients: with the settings that fit, and what is said when one does not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import certificates
import pytest
from certificates import Certificates
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from integration.log.own_broker import OwnBroker, need_java
from ports import free_ports

from clicktide.errors import LogError
from clicktide.log import open_log
from clicktide.log.confluent.inquiry import Inquiry
from clicktide.log.kafka import Cluster
from clicktide.log.kafka_python.admin import KafkaPythonAdmin
from clicktide.log.port import Log, Outgoing, TopicPartition
from clicktide.settings import Settings

pytestmark = [pytest.mark.service, pytest.mark.timeout(300)]

USER, PASSWORD = "tide", "s3cret word"
JAAS = "org.apache.kafka.common.security"
PATIENCE_S = 5.0


class Secure:
    """The listener's address and its authority's files."""

    def __init__(self, address: str, files: Certificates) -> None:
        self.address, self.files = address, files

    def log(self, adapter: str, mechanism: str) -> Log:
        return open_log(self.settings(adapter, mechanism))

    def settings(self, adapter: str, mechanism: str, **given: object) -> Settings:
        return Settings(
            {
                "log.adapter": adapter,
                "kafka.bootstrap": self.address,
                "kafka.security": "SASL_SSL",
                "kafka.sasl_mechanism": mechanism,
                "kafka.username": USER,
                "kafka.password": PASSWORD,
                "kafka.ca_file": str(self.files.authority),
                **{f"kafka.{name}": value for name, value in given.items()},
            }
        )


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    need_java()
    folder: Path = tmp_path_factory.mktemp("secure")
    files = certificates.make(folder)
    more = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(files.both),
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
        "listener.name.secure.plain.sasl.jaas.config": (
            f'{JAAS}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
        ),
        "listener.name.secure.scram-sha-512.sasl.jaas.config": f"{JAAS}.scram.ScramLoginModule required;",
    }
    broker, (port,) = OwnBroker(folder / "kafka", more), free_ports(1)
    broker.listener("SASL_SSL", port)
    try:
        broker.start()
        _add_scram_user(broker.address)
        yield Secure(f"127.0.0.1:{port}", files)
    finally:
        broker.kill()


def _add_scram_user(plain_address: str) -> None:
    admin = AdminClient({"bootstrap.servers": plain_address})
    info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
    wish = UserScramCredentialUpsertion(USER, info, PASSWORD.encode())
    for done in admin.alter_user_scram_credentials([wish]).values():
        done.result(30)


@pytest.mark.parametrize(
    ("adapter", "mechanism"),
    [("confluent", "SCRAM-SHA-512"), ("kafka-python", "SCRAM-SHA-512"), ("confluent", "PLAIN")],
)
def test_the_whole_port_works_over_sasl_ssl(secure: Secure, adapter: str, mechanism: str) -> None:
    log = secure.log(adapter, mechanism)
    topic = f"{adapter}-{mechanism}".lower()
    place = TopicPartition(topic, 0)
    admin, producer, consumer = log.admin(), log.producer(), log.consumer("g")
    try:
        admin.create_topics({topic: 1})
        producer.send([Outgoing(topic, b"k", b"v", partition=0)], 30)
        consumer.assign({place: 0})
        found: list[bytes] = []
        deadline = time.monotonic() + 60
        while not found:
            assert time.monotonic() < deadline
            found += [value for batch in consumer.poll(10, 0.5) for value in batch.values]
        assert found == [b"v"]
        consumer.commit({place: 1})
        assert consumer.committed([place]) == {place: 1}
        assert set(consumer.fetch(place, [0], 10)) == {0}
    finally:
        for opened in (consumer, producer, admin):
            opened.close()


@pytest.mark.parametrize("wrong", ["password", "authority"])
@pytest.mark.parametrize("adapter", ["confluent", "kafka-python"])
def test_what_does_not_fit_is_said_in_one_line(secure: Secure, adapter: str, wrong: str) -> None:
    given = {"password": "wrong"} if wrong == "password" else {"ca_file": str(secure.files.stranger)}
    cluster = Cluster.of(secure.settings(adapter, "SCRAM-SHA-512", **given))
    # As their adapters ask, but with less patience.
    ask = {
        "confluent": lambda: Inquiry(cluster, "g").counts(PATIENCE_S),
        "kafka-python": lambda: KafkaPythonAdmin(cluster, PATIENCE_S).topics(),
    }[adapter]
    expected = {"password": "authenticat", "authority": "certificate"}[wrong]
    # kafka-python (3.0.12) drops what comes together with the end of a connection, as a refusal often does.
    for _ in range(1 if adapter == "confluent" else 8):
        with pytest.raises(LogError) as caught:
            ask()
        said = str(caught.value)
        assert "\n" not in said
        assert "Kafka: " in said
        assert PASSWORD not in said
        if expected in said.lower():
            break
    assert expected in said.lower(), said
