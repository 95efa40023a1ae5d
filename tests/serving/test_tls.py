"""https by a real handshake with a real server, and browsers' pages (CORS) only where their origin is allowed."""

from __future__ import annotations

import datetime as dt
import ipaddress
import socket
import ssl
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from rich.console import Console

from mllm_embed.backends.fake import fake_embedder
from mllm_embed.embedder import Embedder
from mllm_embed_serving.access.keys import KeyLimits, given_keys
from mllm_embed_serving.app import create_app
from mllm_embed_serving.invalid_settings import InvalidSettings
from mllm_embed_serving.runner import DemoOptions, RunOptions, run
from mllm_embed_serving.settings import ServerSettings
from mllm_embed_serving.tls import Tls
from tests.server_process import ServerProcess, servable_fake


def certificate(folder: Path, password: bytes | None = None) -> tuple[Path, Path]:
    """Write a self-signed certificate for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    signed = (
        x509.CertificateBuilder(subject_name=name, issuer_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    lock = serialization.NoEncryption() if password is None else serialization.BestAvailableEncryption(password)
    files = folder / "server.crt", folder / "server.key"
    files[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    files[1].write_bytes(key.private_bytes(pem, form, lock))
    return files


def test_a_server_with_a_certificate_speaks_https_only(tmp_path: Path) -> None:
    crt, key = certificate(tmp_path)
    trusted = ssl.create_default_context(cafile=crt)
    arguments = (str(servable_fake(tmp_path / "fake")), "--backend", "fake", "--port", "0")
    with ServerProcess(*arguments, "--tls-cert", str(crt), "--tls-key", str(key), log=tmp_path / "log") as server:
        url = server.wait_ready(trusted)
        assert url.startswith("https://")
        assert "curl https://" in server.output
        body = {"model": "fake", "input": "cat"}
        answer = httpx.post(f"{url}/v1/embeddings", json=body, verify=trusted, trust_env=False)
        assert len(answer.json()["data"][0]["embedding"]) == 64
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"{url}/health", trust_env=False)
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"{url.replace('https', 'http')}/health", trust_env=False)
        address = (httpx.URL(url).host, httpx.URL(url).port or 443)
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.load_verify_locations(crt)
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with socket.create_connection(address) as plain, pytest.raises(ssl.SSLError):
            old.wrap_socket(plain, server_hostname=address[0])


@pytest.mark.fast
def test_what_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "locked").mkdir()
    crt, key = certificate(tmp_path)
    _, other = certificate(tmp_path / "other")
    _, locked = certificate(tmp_path / "locked", b"password")
    assert Tls.of(None, None) is None
    assert Tls.of(crt, key) == Tls(crt, key)
    for pair, says in (
        ((crt, None), "go together"),
        ((None, key), "go together"),
        ((crt, tmp_path / "none"), "--tls-key: there is no file"),
        ((crt, other), "KEY_VALUES_MISMATCH"),
        ((key, key), "cannot be used"),
        ((crt, locked), "without a password"),
    ):
        with pytest.raises(InvalidSettings, match=says):
            Tls.of(*pair)


def preflight(origin: str) -> dict[str, str]:
    return {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }


@pytest.mark.fast
@pytest.mark.parametrize(
    ("allowed", "origin", "answered"),
    [
        ((), "https://a.example", None),
        (("https://a.example",), "https://a.example", "https://a.example"),
        (("https://a.example",), "https://b.example", None),
        (("https://a.example",), "https://a.example.b.example", None),
        (("*",), "https://b.example", "*"),
    ],
)
async def test_only_allowed_origins_may_call_from_a_page(
    embedder: Embedder, allowed: tuple[str, ...], origin: str, answered: str | None
) -> None:
    keys = given_keys(["k"], KeyLimits())
    transport = httpx.ASGITransport(create_app(embedder, ServerSettings(api_keys=keys, allowed_origins=allowed)))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        asked = await client.options("/v1/embeddings", headers=preflight(origin))
        assert asked.headers.get("access-control-allow-origin") == answered
        assert (asked.status_code == 200) == (answered is not None)
        body = {"model": "fake", "input": "cat"}
        for key, status in (("k", 200), ("wrong", 401)):
            headers = {"origin": origin, "authorization": f"Bearer {key}"}
            answer = await client.post("/v1/embeddings", json=body, headers=headers)
            assert answer.status_code == status
            assert answer.headers.get("access-control-allow-origin") == answered
            assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.fast
@pytest.mark.parametrize("origin", ["a.example", "https://a.example/", "ftp://a.example", ""])
def test_an_origin_is_a_scheme_and_a_host(origin: str) -> None:
    with pytest.raises(InvalidSettings, match="--allow-origin"):
        ServerSettings(allowed_origins=(origin,))


@pytest.mark.fast
def test_the_playground_cannot_follow() -> None:
    settings = ServerSettings(tls=Tls(Path("a"), Path("b")))
    options = RunOptions("x", fake_embedder, settings, "127.0.0.1", 0, DemoOptions("127.0.0.1", 0, None, None))
    with pytest.raises(InvalidSettings, match="--demo does not go with --tls-cert"):
        run(options, Console())
