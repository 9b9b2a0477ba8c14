import ipaddress
import sys

import pytest
import requests

from artifacts import addresses, web
from artifacts.addresses import AddressRefused, HostUnknown, Policy
from tests.tuning import servers
from tests.tuning.conftest import certificate  # noqa: F401


def refusal(address, *allowed):
    return Policy(allowed).refusal(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.5",
        "172.16.0.1",
        "192.168.1.1",
        "127.0.0.1",
        "100.64.0.1",
        "::1",
        "fd12::1",
        "::ffff:10.0.0.5",
        "2002:a00:5::1",
    ],
)
def test_private_addresses_need_the_operators_word(address):
    assert "allowedPrivateCIDRs" in refusal(address)
    assert (
        refusal(address, "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "100.64.0.0/10", "::/0") == ""
    )


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.0.1",
        "fe80::1",
        "fd00:ec2::254",
        "168.63.129.16",
        "100.100.100.200",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "::169.254.169.254",
        "64:ff9b:1::a9fe:a9fe",
        "64:ff9b:1:a9fe:a9:fe00::",
        "64:ff9b:1:abcd:a9:fea9:fe00::",
    ],
)
def test_metadata_and_link_local_are_never_allowed(address):
    assert "never allowed" in refusal(address, "0.0.0.0/0", "::/0")
    assert "never allowed" in Policy(private=True).refusal(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111", "64:ff9b::101:101"])
def test_public_addresses_are_free(address):
    assert refusal(address) == ""


@pytest.mark.parametrize("address", ["::10.0.0.1", "64:ff9b::a00:1", "64:ff9b:1::a00:1", "64:ff9b:1::101:101", "::1"])
def test_a_private_address_stays_one_in_another_dress(address):
    assert "private address" in refusal(address)
    assert Policy(private=True).refusal(ipaddress.ip_address(address)) == ""


def test_an_allowed_range_allows_no_other():
    assert refusal("10.1.0.1", "10.0.0.0/16")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://example.com/a", "scheme 'ftp' is not supported; use https or http"),
        ("file:///etc/passwd", "scheme 'file'"),
        ("//example.com/a", "scheme ''"),
        ("example.com/a", "scheme ''"),
        ("", "scheme ''"),
        ("https:///a", "names no host"),
        ("http://localhost/a", "127.0.0.1 is a private address"),
        ("http://a.localhost./a", "127.0.0.1 is a private address"),
        ("http://127.0.0.1/a", "127.0.0.1 is a private address"),
        ("http://[::1]/a", "::1 is a private address"),
        ("http://[::ffff:127.0.0.1]/a", "is a private address"),
        ("http://2130706433/a", "address in disguise"),
        ("http://0x7f000001/a", "address in disguise"),
        ("http://0x7f.1/a", "address in disguise"),
        ("http://0177.0.0.1/a", "address in disguise"),
        ("http://169.254.169.254/latest", "never allowed"),
        ("http://metadata.google.internal/", "never allowed"),
        ("http://[::1", "no URL"),
        ("http://example.com:99999/", "no URL"),
    ],
)
def test_urls_that_need_no_lookup_to_be_refused(url, words):
    with pytest.raises(AddressRefused) as raised:
        addresses.split(url, Policy())
    assert words in str(raised.value)


@pytest.mark.parametrize(
    "url", ["https://example.com/a?b=c", "http://1.1.1.1:8080/a", "https://1e100.net/", "https://0x.example.org/"]
)
def test_ordinary_urls_pass(url):
    assert addresses.split(url, Policy()).geturl() == url


def test_what_may_be_secret_is_not_shown():
    assert addresses.shown("https://user:pass@host:8443/path?sig=secret#x") == "https://host:8443/path"


@pytest.fixture
def server():
    running = servers.Files()
    running.files["/a"] = b"content"
    yield running
    running.close()


def test_a_session_connects_only_where_it_may(server):
    with web.Session(Policy()) as session, pytest.raises(AddressRefused, match="is a private"):
        session.get(f"{server.url}/a")
    assert server.asked == []
    with web.Session(Policy(["127.0.0.0/8"])) as session:
        assert session.get(f"{server.url}/a").content == b"content"


def test_a_name_is_judged_by_what_it_resolves_to(server):
    url = f"http://localhost:{server.port}/a"  # a name from /etc/hosts
    with web.Session(Policy()) as session, pytest.raises(AddressRefused, match="host localhost resolves"):
        session.get(url)
    with web.Session(Policy(["127.0.0.0/8", "::1/128"])) as session:
        assert session.get(url).content == b"content"
    assert server.asked[-1][2]["Host"] == f"localhost:{server.port}"


def test_the_connection_goes_to_the_address_that_was_judged(server):
    looked_up = []

    def listen(event, arguments):
        if event == "socket.getaddrinfo":
            looked_up.append(arguments[0])

    sys.addaudithook(listen)  # for good, but what it appends to is forgotten
    with web.Session(Policy(["127.0.0.0/8", "::1/128"])) as session:
        session.get(f"http://localhost:{server.port}/a")
    assert looked_up.count("localhost") == 1  # a second answer might be another one


def test_one_bad_address_of_a_name_is_enough(server):
    found = addresses.resolve("localhost", server.port)
    allowed = [f"{address}/{address.max_prefixlen}" for address in found[1:]]
    with web.Session(Policy(allowed)) as session, pytest.raises(AddressRefused, match=str(found[0])):
        session.get(f"http://localhost:{server.port}/a")


def test_a_name_that_does_not_exist():
    with pytest.raises(HostUnknown, match="check its spelling"):
        addresses.resolve("x" * 64 + ".example", 80)  # too long to be asked about


def test_nobody_there_is_a_connection_error():
    port = servers.free_port()
    with web.Session(Policy(["127.0.0.0/8"])) as session, pytest.raises(requests.ConnectionError) as raised:
        session.get(f"http://127.0.0.1:{port}/a?sig=secret")
    assert web.cause(raised.value) == "no address of 127.0.0.1 answers: [Errno 111] Connection refused"


def test_the_proxy_of_the_environment_is_used_and_may_be_private(server, monkeypatch):
    proxy = servers.Files()
    proxy.files["/a"] = b"by proxy"
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with web.Session(Policy()) as session:
        assert session.get("http://data.example/a").content == b"by proxy"
    assert proxy.asked[0][1] == "http://data.example/a"
    proxy.close()


def test_netrc_is_not_read(server, tmp_path, monkeypatch):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password mine\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    with web.Session(Policy(["127.0.0.0/8"])) as session:
        session.get(f"{server.url}/a")
    assert "Authorization" not in server.asked[-1][2]


def test_certificates_are_checked_against_the_name(certificate, monkeypatch):  # noqa: F811
    server = servers.Files(tls=certificate)
    server.files["/a"] = b"content"
    with web.Session(Policy(["127.0.0.0/8", "::1/128"])) as session:
        with pytest.raises(requests.exceptions.SSLError):  # nobody trusts it
            session.get(f"https://localhost:{server.port}/a")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate[0]))
        assert session.get(f"https://localhost:{server.port}/a").content == b"content"
        with pytest.raises(requests.exceptions.SSLError):  # not its name
            session.get(f"https://127.0.0.1:{server.port}/a")
    server.close()
