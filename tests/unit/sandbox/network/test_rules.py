"""The list of hosts of a job: what its entries mean, and what they never mean."""

from __future__ import annotations

import ipaddress

import pytest

from sandbox.network.rules import HostRules, is_public, normal_name, parse_rule


@pytest.mark.parametrize(
    ("entry", "name", "port", "permitted"),
    [
        ("example.com", "example.com", 443, True),
        ("example.com", "example.com", 80, True),
        ("example.com", "example.com", 22, False),
        ("example.com", "a.example.com", 443, False),
        ("example.com", "badexample.com", 443, False),
        ("example.com", "example.com.evil.test", 443, False),
        ("EXAMPLE.com.", "example.com", 443, True),
        ("*.example.com", "a.b.example.com", 443, True),
        ("*.example.com", "example.com", 443, False),
        ("*.example.com", "badexample.com", 443, False),
        ("example.com:8443", "example.com", 8443, True),
        ("example.com:8443", "example.com", 443, False),
        ("db.internal=10.0.0.5:5432", "db.internal", 5432, True),
        ("db.internal=10.0.0.5:5432", "db.internal", 443, False),
    ],
)
def test_names(entry: str, name: str, port: int, *, permitted: bool) -> None:
    """A name is itself or, with a star, what is below it, label by label; a port is 80, 443 or the one given."""
    assert HostRules([entry]).permits_name(name, port) == permitted


@pytest.mark.parametrize(
    ("entry", "address", "named", "permitted"),
    [
        ("10.1.2.3", "10.1.2.3", False, True),
        ("10.0.0.0/8", "10.1.2.3", True, True),
        ("10.1.2.3:5432", "10.1.2.3", False, False),
        ("[::1]:443", "::1", False, True),
        ("fd00::/8", "fd12::1", False, True),
        ("example.com", "93.184.215.14", True, True),
        ("example.com", "93.184.215.14", False, False),
        ("example.com", "10.1.2.3", True, False),
        ("example.com", "169.254.169.254", True, False),
        ("db.internal=10.0.0.5", "10.0.0.5", False, False),
        ("db.internal=10.0.0.5", "10.0.0.5", True, False),
    ],
)
def test_addresses(entry: str, address: str, *, named: bool, permitted: bool) -> None:
    """A listed address may be reached as it is and by a name; a pinned one by its name alone."""
    found = HostRules([entry]).permits_address(ipaddress.ip_address(address), 443, named=named)
    assert found == permitted


def test_a_pinned_name_is_not_looked_up() -> None:
    """It leads where the list says, at its port."""
    rules = HostRules(["db.internal=10.0.0.5:5432", "example.com"])
    assert str(rules.pinned("db.internal", 5432)) == "10.0.0.5"
    assert rules.pinned("db.internal", 443) is None
    assert rules.pinned("example.com", 443) is None


@pytest.mark.parametrize(
    "entry",
    [
        "",
        " ",
        "*",
        "*.",
        "a..b",
        ".a",
        "-a.b",
        "a b",
        "a/b",
        "http://a.b",
        "user@a.b",
        "a.b:0",
        "a.b:65536",
        "a.b:x",
        "a.*.b",
        "127.1",
        "2130706433",
        "0x7f.1",
        "0x7f000001",
        "a.0x1",
        "010.0.0.1",
        "256.1.1.1",
        "fe80::1%eth0",
        "a.b=c.d",
        "*.a.b=1.2.3.4",
        "a:80=1.2.3.4",
        "a=1.2.3.0/24",
        "\N{KELVIN SIGN}.com",
        "a" * 64 + ".com",
        ".".join(["a" * 50] * 6),
    ],
)
def test_what_is_no_entry(entry: str) -> None:
    """Above all what some C library takes for an address."""
    with pytest.raises(ValueError, match=r"host|port|NAME=ADDRESS"):
        parse_rule(entry)


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0",
        "10.0.0.1",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.168.0.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "100::1",
        "2001::1",
        "2001:db8::1",
        "2002:a00:1::",
        "fc00::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ],
)
def test_addresses_that_are_not_public(text: str) -> None:
    """Of this host, of its networks, of nobody; also in the shape of IPv6."""
    assert not is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "64:ff9b::808:808"])
def test_addresses_that_are_public(text: str) -> None:
    """The rest."""
    assert is_public(ipaddress.ip_address(text))


def test_one_spelling_of_a_name() -> None:
    """Lower case, and no dot at the end."""
    assert normal_name("WWW.Example.COM.") == "www.example.com"
    assert normal_name("example.com..") is None
    assert normal_name("localhost") == "localhost"
