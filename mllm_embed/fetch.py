"""Fetch one URL without being led astray: the guard against server-side request forgery.

Only `media`, and the server's front for pictures, use it. The host is resolved once, every address it has must be
public, and the connection goes to an address that was checked, so a name that resolves differently a moment later (DNS
rebinding) gains nothing. Redirects pass the same gate. The environment (proxies, certificate overrides, netrc) is
ignored. Messages name no address.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from mllm_embed.errors import MediaFetchError, MediaNotAllowed, MediaTooLarge

if TYPE_CHECKING:
    import ssl

    import httpx

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_CARRIERS = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::/96"))
"""NAT64 and the old IPv4-compatible addresses: the last 32 bits are an IPv4 address."""
_NAT64_INSIDE = ipaddress.IPv6Network("64:ff9b:1::/48")
"""NAT64 prefixes that a site gives out itself (RFC 8215), which Python 3.11 takes for public."""
_ACCEPT = "image/*, video/*, application/pdf"
_MAX_ADDRESSES = 4
"""Addresses of one host that are tried; a host without IPv6 here must be reachable by its IPv4 address."""


@dataclass(frozen=True)
class HostRules:
    """Which hosts may be asked; redirects pass the same rules.

    Attributes:
        domains: if there are any, only these names and those below them.
        private: `HOST:PORT` places that may be asked although their addresses are not public.
    """

    domains: tuple[str, ...] = ()
    private: tuple[str, ...] = ()

    def allow(self, host: str) -> bool:
        """Return whether a host may be asked."""
        return not self.domains or any(host == domain or host.endswith(f".{domain}") for domain in self.domains)


ANY_PUBLIC = HostRules()


async def fetch(
    url: str,
    *,
    max_bytes: int,
    timeout_s: float,
    max_redirects: int,
    allow_private_addresses: bool,
    hosts: HostRules = ANY_PUBLIC,
) -> bytes:
    """Return the body of `url`.

    Args:
        url: an http or https URL.
        max_bytes: longest body.
        timeout_s: seconds for everything together: names, redirects, body.
        max_redirects: redirects that are followed.
        allow_private_addresses: also connect to addresses that are not public.
        hosts: which hosts may be asked.

    Raises:
        MediaNotAllowed: not http(s), credentials in the URL, or a host that is not public or not allowed.
        MediaTooLarge: the body is longer than `max_bytes`.
        MediaFetchError: anything that keeps the body from arriving in time.
    """
    import httpx

    try:
        async with asyncio.timeout(timeout_s):
            target = httpx.URL(url)
            for _ in range(max_redirects + 1):
                private = allow_private_addresses or f"{target.host}:{_port(target)}" in hosts.private
                if not hosts.allow(target.host):
                    raise MediaNotAllowed("media may not be fetched from this host here")
                answer = await _get(target, max_bytes, timeout_s, private)
                if isinstance(answer, bytes):
                    return answer
                target = answer
    except TimeoutError:
        raise MediaFetchError(f"the media URL did not deliver within {timeout_s:g} s") from None
    except httpx.InvalidURL:
        raise MediaFetchError("the media URL is not a valid URL") from None
    except (httpx.HTTPError, OSError, UnicodeError) as error:
        raise MediaFetchError(f"the media URL could not be fetched ({type(error).__name__})") from None
    raise MediaFetchError(f"the media URL redirects more than {max_redirects} times")


async def _get(url: httpx.URL, max_bytes: int, timeout_s: float, allow_private: bool) -> bytes | httpx.URL:
    """Return the body, or the URL to which the answer redirects."""
    import httpx

    if url.scheme not in ("http", "https") or not url.host:
        raise MediaNotAllowed(f"a media URL must be http or https, but leads to {url.scheme!r}")
    if url.userinfo:
        raise MediaNotAllowed("a media URL must not contain a user name or password")
    addresses = await _checked_addresses(url, allow_private)
    timeout = httpx.Timeout(timeout_s, connect=timeout_s / len(addresses))
    async with httpx.AsyncClient(verify=_tls(), trust_env=False, timeout=timeout) as client:
        for position, address in enumerate(addresses, start=1):
            request = client.build_request(
                "GET",
                url.copy_with(host=str(address)),
                headers={"Host": url.netloc.decode("ascii"), "Accept-Encoding": "identity", "Accept": _ACCEPT},
                extensions={"sni_hostname": url.raw_host.decode("ascii")},
            )
            try:
                response = await client.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if position == len(addresses):
                    raise
                continue
            try:
                return await _read(response, url, max_bytes)
            finally:
                await response.aclose()
    raise MediaFetchError("the media URL's host has no address")


async def _read(response: httpx.Response, url: httpx.URL, max_bytes: int) -> bytes | httpx.URL:
    """Read the body within its budget, as sent: a compressed body could be a bomb, and media have no need of it."""
    if response.has_redirect_location:
        return url.join(response.headers["location"])
    if response.status_code != 200:
        raise MediaFetchError(f"the media URL answered with HTTP status {response.status_code}")
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise MediaFetchError("the media URL answered with a compressed body, which was not asked for")
    declared = response.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared) > max_bytes:
        raise MediaTooLarge(f"a media file may have at most {max_bytes:,} bytes, but the URL's has {int(declared):,}")
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > max_bytes:
            raise MediaTooLarge(f"a media file may have at most {max_bytes:,} bytes, but the URL delivers more")
    return bytes(body)


async def _checked_addresses(url: httpx.URL, allow_private: bool) -> list[IPAddress]:
    """Resolve the host once; refuse it if any of its addresses is not public."""
    loop = asyncio.get_running_loop()
    try:
        answers = await loop.getaddrinfo(url.raw_host.decode("ascii"), _port(url), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise MediaFetchError("the media URL's host could not be found") from None
    addresses = list(dict.fromkeys(ipaddress.ip_address(answer[4][0]) for answer in answers))
    if not addresses:
        raise MediaFetchError("the media URL's host has no address")
    if not allow_private and not all(map(is_public, addresses)):
        raise MediaNotAllowed("a media URL must lead to a public address")
    return addresses[:_MAX_ADDRESSES]


def _port(url: httpx.URL) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def is_public(address: IPAddress) -> bool:
    """Return whether an address is one of the open internet.

    Addresses that carry an IPv4 address (mapped, compatible, 6to4, Teredo, NAT64) are as public as what they carry.
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        carried = [inner for inner in (address.sixtofour, *(address.teredo or ())) if inner is not None]
        if any(address in network for network in _CARRIERS):
            carried.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if not all(map(is_public, carried)):
            return False
        if address in _NAT64_INSIDE or address.is_site_local:
            return False
    return address.is_global and not address.is_multicast


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    """Make the TLS settings once: reading the certificates takes longer than fetching a picture."""
    import httpx

    return httpx.create_ssl_context(trust_env=False)
