from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import ipaddress
import re
import socket
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import PIL.Image
import pytest

from mllm_embed.errors import InputError, MediaFetchError, MediaNotAllowed, MediaTooLarge
from mllm_embed.fetch import HostRules, fetch, is_public
from mllm_embed.media import MediaPolicy, load
from mllm_embed.types import Image

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.fast

PUBLIC = "93.184.216.34"
ANOTHER_PUBLIC = "2606:4700::1111"
BODY = b"not empty"


def get(url: str, **changes: Any) -> Any:
    """Fetch with the limits of a server, private addresses refused unless a test says otherwise."""
    limits: dict[str, Any] = {
        "max_bytes": 1_000,
        "timeout_s": 5.0,
        "max_redirects": 3,
        "allow_private_addresses": False,
    }
    return fetch(url, **(limits | changes))


@dataclass
class Loopback:
    """A real HTTP server on 127.0.0.1 that answers by path."""

    port: int = 0
    requests: list[str] = field(default_factory=list)
    answers: dict[str, bytes] = field(default_factory=dict)
    handlers: list[asyncio.Task[Any]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answer(self, path: str, body: bytes = BODY, status: str = "200 OK", **headers: str) -> str:
        lines = [
            f"HTTP/1.1 {status}",
            "Connection: close",
            *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items()),
        ]
        if "Transfer_Encoding" not in headers:
            lines.append(f"Content-Length: {headers.get('length', len(body))}")
        self.answers[path] = "\r\n".join([*lines, "", ""]).encode() + body
        return self.url + path

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.handlers += filter(None, [asyncio.current_task()])
        try:
            await self.respond(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):  # the client may have left first
                await writer.wait_closed()

    async def respond(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.requests.append(request)
        path = request.split()[1]
        if path == "/never":
            await reader.read()  # until the client gives up
        elif path == "/drip":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n")
            while not writer.is_closing():  # until the client gives up
                writer.write(b"x")
                await asyncio.sleep(0.02)
        else:
            writer.write(self.answers[path])


@pytest.fixture
async def loopback() -> AsyncIterator[Loopback]:
    site = Loopback()
    server = await asyncio.start_server(site.handle, "127.0.0.1", 0)
    site.port = server.sockets[0].getsockname()[1]
    async with server:
        yield site
        await asyncio.gather(*site.handlers, return_exceptions=True)


class Names:
    """A resolver under the test's control: each look-up of a name takes its next answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: dict[str, list[list[str]]] = {}
        self.asked: list[str] = []
        original = asyncio.BaseEventLoop.getaddrinfo

        async def getaddrinfo(loop: Any, host: str, port: int, **options: Any) -> Any:
            if host not in self.answers:
                return await original(loop, host, port, **options)
            self.asked.append(host)
            left = self.answers[host]
            addresses = left.pop(0) if len(left) > 1 else left[0]
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

        monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(monkeypatch)


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Connections that never leave the process: records the requests, answers from a table by path."""
    record: dict[str, Any] = {"requests": [], "answers": {}, "dead": set()}

    def handle(request: httpx.Request) -> httpx.Response:
        record["requests"].append(request)
        if request.url.host in record["dead"]:
            raise httpx.ConnectError("unreachable")
        body = httpx.ByteStream(BODY)  # a stream, as from a socket: `content=` would count as read already
        response: httpx.Response = record["answers"].get(request.url.path, httpx.Response(200, stream=body))
        return response

    client = partial(httpx.AsyncClient, transport=httpx.MockTransport(handle))
    monkeypatch.setattr(httpx, "AsyncClient", client)
    return record


async def test_a_url_is_fetched_and_decoded(loopback: Loopback) -> None:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (6, 5), "red").save(buffer, "PNG")
    url = loopback.answer("/red.txt", buffer.getvalue(), Content_Type="text/plain")
    policy = MediaPolicy(allow_urls=True, allow_paths=False, allow_private_addresses=True)
    image = await load(Image(url), policy)
    assert (image.size, image.getpixel((0, 0))) == ((6, 5), (255, 0, 0))
    with pytest.raises(MediaNotAllowed, match="public address"):
        await load(Image(url), MediaPolicy.server(allow_urls=True))
    assert len(loopback.requests) == 1


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "localhost",
        "0.0.0.0",  # noqa: S104 - the point of the test
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "224.0.0.1",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:a9fe:a9fe]",
        "[fe80::1]",
        "[fd00::1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
    ],
)
async def test_hosts_that_are_not_public_are_refused(host: str, internet: dict[str, Any]) -> None:
    for scheme in ("http", "https"):
        with pytest.raises(MediaNotAllowed, match="must lead to a public address"):
            await get(f"{scheme}://{host}/latest/meta-data/")
    assert not internet["requests"]


async def test_one_private_address_among_public_ones_is_enough(names: Names, internet: dict[str, Any]) -> None:
    names.answers["mixed.example"] = [[PUBLIC, "10.0.0.5"]]
    with pytest.raises(MediaNotAllowed, match="public address"):
        await get("http://mixed.example/a.png")
    assert not internet["requests"]


async def test_the_connection_goes_to_the_checked_address(names: Names, internet: dict[str, Any]) -> None:
    names.answers["rebinding.example"] = [[PUBLIC], ["127.0.0.1"]]  # the second look-up would be the trap
    assert await get("https://rebinding.example:8443/a.png?token=1") == BODY
    assert names.asked == ["rebinding.example"]
    (request,) = internet["requests"]
    assert str(request.url) == f"https://{PUBLIC}:8443/a.png?token=1"
    assert request.headers["host"] == "rebinding.example:8443"
    assert request.extensions["sni_hostname"] == "rebinding.example"


async def test_a_name_that_rebinds_between_redirects_is_refused(names: Names, internet: dict[str, Any]) -> None:
    names.answers["rebinding.example"] = [[PUBLIC], ["127.0.0.1"]]
    internet["answers"]["/a"] = httpx.Response(302, headers={"Location": "/b"})
    with pytest.raises(MediaNotAllowed, match="public address"):
        await get("http://rebinding.example/a")
    assert [request.url.path for request in internet["requests"]] == ["/a"]


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("http://169.254.169.254/latest/meta-data/", "public address"),
        ("http://localhost/", "public address"),
        ("file:///etc/passwd", "http or https"),
        ("gopher://example.org/", "http or https"),
        ("http://user:secret@names.example/", "user name or password"),
    ],
)
async def test_redirects_pass_the_same_gate(
    location: str, message: str, names: Names, internet: dict[str, Any]
) -> None:
    names.answers["names.example"] = [[PUBLIC]]
    internet["answers"]["/a"] = httpx.Response(301, headers={"Location": location})
    with pytest.raises(MediaNotAllowed, match=message):
        await get("http://names.example/a")
    assert len(internet["requests"]) == 1


async def test_redirects_are_followed_and_counted(loopback: Loopback) -> None:
    for hop in range(4):
        loopback.answer(f"/{hop}", b"", "302 Found", Location=f"/{hop + 1}")
    loopback.answer("/4")
    allowed = partial(get, allow_private_addresses=True)
    assert await allowed(loopback.url + "/1") == BODY
    with pytest.raises(MediaFetchError, match="redirects more than 3 times"):
        await allowed(loopback.url + "/0")


async def test_a_private_place_that_is_allowed_is_that_place_only(loopback: Loopback, names: Names) -> None:
    rules = HostRules(private=(f"127.0.0.1:{loopback.port}",))
    loopback.answer("/a")
    assert await get(loopback.url + "/a", hosts=rules) == BODY
    names.answers["names.example"] = [["127.0.0.1"]]
    for other in (
        "http://127.0.0.1:1/a",
        f"http://127.0.0.2:{loopback.port}/a",
        f"http://names.example:{loopback.port}/a",
    ):
        with pytest.raises(MediaNotAllowed, match="public address"):
            await get(other, hosts=rules)
        loopback.answer("/to", b"", "302 Found", Location=other)
        with pytest.raises(MediaNotAllowed, match="public address"):
            await get(loopback.url + "/to", hosts=rules)


async def test_only_allowed_domains_are_asked(names: Names, internet: dict[str, Any]) -> None:
    rules = HostRules(domains=("names.example",))
    for name in ("names.example", "a.names.example", "othernames.example", "names.example.org"):
        names.answers[name] = [[PUBLIC]]
    assert await get("http://names.example/a", hosts=rules) == BODY
    assert await get("https://a.names.example/a", hosts=rules) == BODY
    asked = len(internet["requests"])
    for other in ("othernames.example", "names.example.org"):
        with pytest.raises(MediaNotAllowed, match="this host"):
            await get(f"http://{other}/a", hosts=rules)
    assert len(internet["requests"]) == asked
    internet["answers"]["/to"] = httpx.Response(302, headers={"Location": "http://othernames.example/a"})
    with pytest.raises(MediaNotAllowed, match="this host"):
        await get("http://names.example/to", hosts=rules)


async def test_an_unreachable_address_is_not_the_last_word(names: Names, internet: dict[str, Any]) -> None:
    names.answers["dual.example"] = [[ANOTHER_PUBLIC, PUBLIC]]
    internet["dead"] = {ANOTHER_PUBLIC}
    assert await get("http://dual.example/a.png") == BODY
    internet["dead"] = {ANOTHER_PUBLIC, PUBLIC}
    with pytest.raises(MediaFetchError, match="ConnectError"):
        await get("http://dual.example/a.png")


async def test_the_host_header_keeps_the_name(loopback: Loopback, names: Names) -> None:
    names.answers["pictures.example"] = [["127.0.0.1"]]
    loopback.answer("/a")
    url = f"http://pictures.example:{loopback.port}/a"
    assert await get(url, allow_private_addresses=True) == BODY
    headers = loopback.requests[0].lower()
    assert f"\r\nhost: pictures.example:{loopback.port}\r\n" in headers
    assert "\r\naccept-encoding: identity\r\n" in headers


async def test_the_body_has_a_budget(loopback: Loopback) -> None:
    allowed = partial(get, allow_private_addresses=True)
    assert len(await allowed(loopback.answer("/fits", b"x" * 1_000))) == 1_000
    with pytest.raises(MediaTooLarge, match="at most 1,000 bytes, but the URL's has 1,001"):
        await allowed(loopback.answer("/declared", b"x" * 1_001))
    chunks = b"1f4\r\n" + b"x" * 500 + b"\r\n"
    streamed = loopback.answer("/streamed", chunks * 3 + b"0\r\n\r\n", Transfer_Encoding="chunked")
    with pytest.raises(MediaTooLarge, match="at most 1,000 bytes, but the URL delivers more"):
        await allowed(streamed)


async def test_a_compressed_body_is_refused(loopback: Loopback) -> None:
    bomb = loopback.answer("/bomb", gzip.compress(bytes(100_000)), Content_Encoding="gzip")
    with pytest.raises(MediaFetchError, match="compressed body"):
        await get(bomb, allow_private_addresses=True)


@pytest.mark.parametrize("path", ["/never", "/drip"])
async def test_one_deadline_for_everything(path: str, loopback: Loopback) -> None:
    with pytest.raises(MediaFetchError, match=r"did not deliver within 0\.3 s"):
        await get(loopback.url + path, allow_private_addresses=True, timeout_s=0.3)


async def test_failures_are_errors_of_the_input(loopback: Loopback, names: Names) -> None:
    allowed = partial(get, allow_private_addresses=True)
    with pytest.raises(MediaFetchError, match="HTTP status 404"):
        await allowed(loopback.answer("/absent", b"", "404 Not Found"))
    with pytest.raises(MediaFetchError, match="could not be fetched"):
        await allowed(loopback.answer("/short", b"x", length="900"))
    loopback.answers["/garbage"] = b"this is not HTTP\r\n\r\n"
    with pytest.raises(MediaFetchError, match="could not be fetched"):
        await allowed(loopback.url + "/garbage")
    names.answers["empty.example"] = [[]]
    with pytest.raises(MediaFetchError, match="no address"):
        await get("http://empty.example/")


@pytest.mark.parametrize("url", ["http://", "http://[::1", "http://a:99999/", "http:///a.png", "http://\udc80/"])
async def test_malformed_urls_are_errors_of_the_input(url: str) -> None:
    with pytest.raises((MediaFetchError, MediaNotAllowed)):
        await get(url)


async def test_the_environment_is_not_trusted(loopback: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    assert await get(loopback.answer("/a"), allow_private_addresses=True) == BODY


async def test_messages_name_no_address(loopback: Loopback, names: Names) -> None:
    names.answers["inside.example"] = [["10.11.12.13"]]
    names.answers["closed.example"] = [["127.0.0.1"]]
    loopback.answer("/to", b"", "302 Found", Location="http://10.11.12.13/")
    attempts = [
        get("http://inside.example/"),
        get("http://closed.example:9/", allow_private_addresses=True),
        get(loopback.url + "/to", allow_private_addresses=True, timeout_s=0.2),
    ]
    for attempt in attempts:
        with pytest.raises(InputError) as caught:
            await attempt
        assert not re.search(r"\d+\.\d+\.\d+\.\d+", str(caught.value))


@pytest.mark.parametrize("address", [PUBLIC, ANOTHER_PUBLIC, f"::ffff:{PUBLIC}", "64:ff9b::808:808", "1.1.1.1"])
def test_public_addresses(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "ff0e::1",
        "64:ff9b:1::1",
        "fec0::1",
        "::127.0.0.1",
        "198.18.0.1",
        "255.255.255.255",
        "2001:db8::1",
        "fe80::1%eth0",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
