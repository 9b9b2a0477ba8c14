"""The grammar of data sets' addresses: what text alone says against one.

What a name resolves to is judged by the downloader.
"""

import ipaddress
import re

from kaito_hera.admission.rule import Case, Rule, matches, matching, quote, quoted

_LABEL = "[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = rf"{_LABEL}(?:[.]{_LABEL})*[.]?"
_HOST = r"(?:[A-Za-z0-9_.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])"
"""Roughly: the API server counts the cost of each letter of a pattern against each letter of an address."""
_PORT = "(?::[0-9]{1,5})?"
_SCHEME = "[Hh][Tt][Tt][Pp][Ss]?://"
_USER = r"(?:[^/?#@\x00-\x20\x7f]*@)?"
_ADDRESS = rf"{_SCHEME}{_USER}{_HOST}{_PORT}(?:[/?#][^\x00-\x20\x7f]*)?"
_PASSWORD = rf"{_SCHEME}[^/?#@]*:[^/?#]*@[^\x00-\x1f]*"

_METADATA = ("metadata", "metadata.google", "metadata.google.internal", "metadata.goog", "instance-data")
_LOCAL = (
    r"(?:(?:[^.]+[.])*localhost|"
    + "|".join(name.replace(".", "[.]") for name in (*_METADATA, "instance-data.ec2.internal"))
    + ")[.]?"
)
_NUMBER = "(?:[^.]+[.])*(?:0x[0-9a-f]*|[0-9]+)[.]?"
"""What resolvers read as an address, plain or in disguise (0x7f.1, 2130706433)."""
_BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_PLAIN = rf"{_BYTE}(?:[.]{_BYTE}){{3}}"
_NEVER = (
    r"(?:0|127|22[4-9]|23[0-9]|24[0-9]|25[0-5])[.][0-9.]+|169[.]254[.][0-9.]+"
    "|168[.]63[.]129[.]16|100[.]100[.]100[.]200|192[.]0[.]0[.]192"
)
"""This machine, link-local, multicast, reserved; metadata services of Azure, Alibaba and Oracle."""
_METADATA_6 = "fd00:ec2::254"

_TELLS = (
    "carries a password, which whoever may read the Workspace reads too:"
    " take a volumeSource, or an address that is signed for a short time"
)
_SHAPE = "is no http:// or https:// address with a host: write https://HOST/PATH, other letters percent-encoded"
_PLACE = (
    "names this machine, a link-local address or a metadata service, plainly or in disguise: name the host of the data"
)


def reason(url: str) -> str:
    """Why it can never be fetched; empty when its text says nothing against it."""
    if matches(_PASSWORD, url):
        return _TELLS
    if not matches(_ADDRESS, url):
        return _SHAPE
    return "" if _allowed(_host(url)) else _PLACE


def _host(url: str) -> str:
    authority = re.split("[/?#]", url)[2].lower()
    place = authority.split("@")[-1]
    return place.split("]")[0] if place.startswith("[") else place.split(":")[0]


def _allowed(host: str) -> bool:
    if host.startswith("["):
        return _allowed_6(host[1:])
    if matches(_NUMBER, host):
        return matches(_PLAIN, host) and not matches(_NEVER, host)
    return matches(_NAME, host) and not matches(_LOCAL, host)


def _allowed_6(text: str) -> bool:
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        return False
    never = address.is_unspecified or address.is_loopback or address.is_multicast or address.is_link_local
    return not (never or address.ipv4_mapped or address == ipaddress.IPv6Address(_METADATA_6))


def _found(case: Case) -> list[str]:
    urls = case.workspace.tuning.input.urls if case.workspace.tuning else ()
    bad = [url for url in urls if reason(url)]
    if not bad:
        return []
    why = reason(bad[0])
    seen = "" if why == _TELLS else quoted(bad[0]) + " "
    more = f"; {len(bad) - 1} more of them are no better" if len(bad) > 1 else ""
    return [f"tuning.input.urls[{urls.index(bad[0])}]: {seen}{why}{more}"]


_URLS = "object.?tuning.?input.?urls.orValue([])"
_HOST_CEL = (
    "u.split('/')[2].split('?')[0].split('#')[0].lowerAscii()"
    ".split('@').map(p, p.startsWith('[') ? p.split(']')[0] : p.split(':')[0])"
)
"""Of what stands before and behind an @, the last is the host."""
_ALLOWED_6 = (
    f"(isIP(h.substring(1)) && ip(h.substring(1)).isGlobalUnicast() && ip(h.substring(1)) != ip('{_METADATA_6}'))"
)
_ALLOWED = (
    f"h.startsWith('[') ? {_ALLOWED_6} : {matching(_NUMBER, 'h')}"
    f" ? {matching(_PLAIN, 'h')} && !{matching(_NEVER, 'h')} : {matching(_NAME, 'h')} && !{matching(_LOCAL, 'h')}"
)
_HOSTS = f"[{_HOST_CEL}].all(hs, [hs[size(hs) - 1]].all(h, {_ALLOWED}))"
_GOOD = f"!{matching(_PASSWORD, 'u')} && {matching(_ADDRESS, 'u')} && {_HOSTS}"
_WHY = (
    f"{matching(_PASSWORD, 'u')} ? '{_TELLS}' : {quote('u')} + ' ' +"
    f" (!{matching(_ADDRESS, 'u')} ? '{_SHAPE}' : '{_PLACE}')"
)

RULES = (
    Rule(
        "V38 address of data",
        ("tuning.input.urls",),
        f"[{_URLS}.filter(u, !({_GOOD}))].filter(bad, size(bad) > 0).map(bad, [bad[0]].map(u,"
        f" 'tuning.input.urls[' + string({_URLS}.indexOf(u)) + ']: ' + ({_WHY}))[0]"
        " + (size(bad) > 1 ? '; ' + string(size(bad) - 1) + ' more of them are no better' : ''))",
        _found,
    ),
)
