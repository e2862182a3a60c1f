"""Starting: roles and addresses."""

import pytest

from clicktide.errors import SettingError
from services.main import check_loopback, roles_of


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_addresses_are_taken(host):
    assert check_loopback(host) == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "shop.example", "localhost.evil.example"])
def test_others_are_refused_by_name(host):
    with pytest.raises(SettingError, match=r"http\.host: expected a loopback address"):
        check_loopback(host)


def test_roles():
    assert roles_of("all") == ("collector", "query", "dashboard")
    assert roles_of("query") == ("query",)
    with pytest.raises(SettingError, match="collecter"):
        roles_of("collecter")
