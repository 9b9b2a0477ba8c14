"""Which addresses may be connected to: the one place that decides it. `web` has the sessions that obey."""

import ipaddress
import queue
import re
import socket
import threading
from collections.abc import Iterable
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

import pydantic

from artifacts import errors

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

RESOLVE_SECONDS = 10.0

NEVER = tuple(
    map(
        ipaddress.ip_network,
        [
            "169.254.0.0/16",  # link-local: the metadata service of most clouds
            "fe80::/10",
            "fd00:ec2::254/128",  # AWS metadata over IPv6
            "168.63.129.16/32",  # Azure's host agent, on a public address
            "100.100.100.200/32",  # Alibaba metadata
            "192.0.0.192/32",  # Oracle metadata
            "0.0.0.0/8",
            "::/128",
            "224.0.0.0/4",
            "ff00::/8",
        ],
    )
)
"""Refused whatever the operator allows."""

METADATA_HOSTS = frozenset({"metadata.google.internal", "metadata.goog", "metadata", "instance-data"})


class AddressRefused(errors.HostRefused):
    """The address may not be connected to, or the text is no address; says why."""


class HostUnknown(errors.Away):
    """There is no such name in DNS."""


def _networks(ranges: Iterable[str]) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(each, strict=False) for each in ranges)


def _are_ranges(value: tuple[str, ...]) -> tuple[str, ...]:
    _networks(value)
    return value


Ranges = Annotated[tuple[str, ...], pydantic.AfterValidator(_are_ranges)]
"""CIDRs of a model's field; what is none is a validation error."""


class Policy:
    """Which private addresses may be connected to: those in the allowed ranges, or with `private` all."""

    def __init__(self, allowed: Iterable[str] = (), *, private: bool = False) -> None:
        self._allowed = _networks(allowed)
        self._private = private

    def refusal(self, address: Address) -> str:
        """Why it may not be connected to; empty when it may."""
        judged = _embedded(address)
        if any(each in network for network in NEVER for each in (judged, *_nat64(address))):
            return f"{address} is a link-local or metadata address, which is never allowed"
        public = judged.is_global and address not in _LOCAL_NAT64
        if public or self._private or any(judged in network for network in self._allowed):
            return ""
        return f"{address} is a private address; have the operator list it in allowedPrivateCIDRs or use a public host"


ANY_PRIVATE = Policy(private=True)
"""For registries and the hub, which often have private addresses, unlike data that anyone may name."""


def _embedded(address: Address) -> Address:
    """The IPv4 address inside a mapped, 6to4 or NAT64 one, which is where packets would end."""
    if isinstance(address, ipaddress.IPv6Address):
        if any(address in network for network in _ENDS_IN_IPV4) and int(address) > 1:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return address.ipv4_mapped or address.sixtofour or address
    return address


_ENDS_IN_IPV4 = _networks(("64:ff9b::/96", "::/96"))
"""NAT64, and addresses of old that are nothing else."""

_LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")
"""A network's own: where in it the IPv4 address stands is the network's choice."""


def _nat64(address: Address) -> list[Address]:
    """The IPv4 addresses that a network's own NAT64 may mean by it, by RFC 6052's places."""
    if address not in _LOCAL_NAT64:
        return []
    bits = int(address)
    places = ((bits >> 64 & 0xFFFF) << 16) | (bits >> 40 & 0xFFFF), bits >> 24 & 0xFFFFFFFF, bits & 0xFFFFFFFF
    return [ipaddress.IPv4Address(place) for place in places if place >> 24]  # 0.0.0.0/8 is of nobody


def split(url: str, policy: Policy) -> SplitResult:
    """The parts of a URL whose text alone is no reason to refuse it."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port  # reading the port checks it
    except ValueError as error:
        raise AddressRefused(  # without the error's words, which may hold a part of a password
            "this is no URL: its host or port cannot be read; write https://host/path, and a password percent-encoded"
        ) from error
    if parts.scheme not in {"http", "https"}:
        raise AddressRefused(f"scheme {parts.scheme!r} is not supported; use https or http")
    if not host:
        raise AddressRefused("the URL names no host; write https://host/path")
    if _literal(host) is None and (":" in host or _NUMBERS.fullmatch(host)):
        raise AddressRefused(f"host {host} is an address in disguise; write a name or a plain address")
    if host.rstrip(".") in METADATA_HOSTS:
        raise AddressRefused(f"host {host} is a metadata service, which is never allowed")
    literal = _LOOPBACK if re.fullmatch(r"(.*\.)?localhost\.?", host) else _literal(host)
    if literal is not None and (why := policy.refusal(literal)):
        raise AddressRefused(f"host {host}: {why}")
    return parts


_NUMBERS = re.compile(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+))*\.?")
"""What resolvers read as an address: unless it is a plain one, it is written so (0x7f.1, 2130706433) to pass checks."""

_LOOPBACK = ipaddress.ip_address("127.0.0.1")


def shown(url: str) -> str:
    """The URL without what may be secret in it: user, password, query."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}{port}{parts.path}"[:300]


def resolve(host: str, port: int | None) -> list[Address]:
    """The addresses of a host, in the order to try them, within RESOLVE_SECONDS."""
    answers: queue.SimpleQueue[list[Address] | OSError] = queue.SimpleQueue()
    # getaddrinfo has no timeout: with a dead resolver and search domains it takes a minute
    threading.Thread(target=_resolve, args=(host, port, answers), daemon=True).start()
    try:
        answer = answers.get(timeout=RESOLVE_SECONDS)
    except queue.Empty:
        raise TimeoutError(f"no DNS answer for {host} within {RESOLVE_SECONDS:.0f} s") from None
    if isinstance(answer, socket.gaierror) and answer.errno in {socket.EAI_NONAME, _NO_DATA}:
        raise HostUnknown(f"host {host} does not exist (DNS); check its spelling")
    if isinstance(answer, OSError):
        raise answer
    return answer


_NO_DATA = getattr(socket, "EAI_NODATA", socket.EAI_NONAME)


def _resolve(host: str, port: int | None, answers: "queue.SimpleQueue[list[Address] | OSError]") -> None:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        answers.put(error if isinstance(error, OSError) else socket.gaierror(socket.EAI_NONAME, str(error)))
        return
    answers.put(list(dict.fromkeys(ipaddress.ip_address(str(entry[4][0]).split("%")[0]) for entry in found)))


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host.split("%", maxsplit=1)[0])
    except ValueError:
        return None
