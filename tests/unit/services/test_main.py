"""Starting: roles, and which keys an address needs."""

import pytest

from clicktide.errors import SettingError
from clicktide.settings import Settings
from services.access import exposure, keyfile
from services.access.keyfile import Key, Keys, Secret
from services.main import roles_of, tls_of


def ring(tmp_path, *scopes, expires=None):
    keys = [Key(f"key{i:05}", "k", s, 0, (Secret("0" * 64, 0, expires),)) for i, s in enumerate(scopes)]
    path = tmp_path / "keys.json"
    keyfile.write(path, Keys(keys=tuple(keys)))
    return exposure.keyring_of(Settings({"keys.file": str(path)}), lambda: 1000)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_no_keys(host):
    assert exposure.check(host, ("collector",), None) == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "shop.example", "localhost.evil.example"])
def test_other_addresses_are_refused_without_a_keys_file(host):
    with pytest.raises(SettingError, match=r"http\.host: .* keys are needed: .*TIDE_KEYS_FILE") as e:
        exposure.check(host, ("collector",), None)
    assert host in str(e.value)


@pytest.mark.parametrize(
    ("scopes", "roles", "missing"),
    [
        (("write",), ("collector",), None),
        (("read",), ("collector",), "write"),
        (("write",), ("query",), "read"),
        (("write", "read"), ("collector", "query", "dashboard"), None),
        (("admin",), ("collector", "query", "dashboard"), None),
        (("write",), ("collector", "dashboard"), "read"),
        ((), ("query",), "read"),
    ],
)
def test_each_role_needs_a_key_of_its_scope(tmp_path, scopes, roles, missing):
    found = ring(tmp_path, *scopes)
    if missing is None:
        assert exposure.check("0.0.0.0", roles, found) == "0.0.0.0"
    else:
        with pytest.raises(SettingError, match=f"no {missing} key that is good now"):
            exposure.check("0.0.0.0", roles, found)


def test_an_expired_key_is_none(tmp_path):
    with pytest.raises(SettingError, match="no write key"):
        exposure.check("0.0.0.0", ("collector",), ring(tmp_path, "write", expires=999))


def test_a_keys_file_that_is_not_there_is_refused_at_start(tmp_path):
    with pytest.raises(SettingError, match=r"keys file .*none\.json: No such file"):
        exposure.keyring_of(Settings({"keys.file": str(tmp_path / "none.json")}), lambda: 0)


def test_roles():
    assert roles_of("all") == ("collector", "query", "dashboard")
    assert roles_of("query") == ("query",)
    with pytest.raises(SettingError, match="collecter"):
        roles_of("collecter")


def test_a_certificate_needs_its_key(tmp_path):
    assert tls_of(Settings({})) is None
    pem = tmp_path / "cert.pem"
    pem.write_text("no certificate")
    with pytest.raises(SettingError, match=r"http\.tls_key: expected a PEM file"):
        tls_of(Settings({"http.tls_cert": str(pem)}))
    with pytest.raises(SettingError, match="do not fit"):
        tls_of(Settings({"http.tls_cert": str(pem), "http.tls_key": str(pem)}))
