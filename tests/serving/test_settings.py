from __future__ import annotations

import dataclasses

import pytest

from mllm_embed.fetch import HostRules
from mllm_embed_serving.invalid_settings import InvalidSettings
from mllm_embed_serving.settings import ServerSettings

pytestmark = pytest.mark.fast


def test_the_media_policy_never_reads_files_nor_private_addresses() -> None:
    for allow in (False, True):
        policy = ServerSettings(allow_url_media=allow).media_policy()
        assert policy.allow_urls is allow
        assert not policy.allow_paths
        assert not policy.allow_private_addresses


def test_the_rules_for_hosts_reach_the_media_policy() -> None:
    rules = {"media_domains": ("a.example",), "private_media_hosts": ("127.0.0.1:80",)}
    hosts = ServerSettings(allow_url_media=True, **rules).media_policy().hosts  # type: ignore[arg-type]
    assert hosts == HostRules(("a.example",), ("127.0.0.1:80",))
    for name, value in rules.items():
        with pytest.raises(InvalidSettings, match="go with --allow-url-media"):
            ServerSettings(**{name: value})  # type: ignore[arg-type]
    with pytest.raises(InvalidSettings, match="HOST:PORT"):
        ServerSettings(allow_url_media=True, private_media_hosts=("127.0.0.1",))


def test_the_limits_reach_the_media_policy() -> None:
    settings = ServerSettings(max_image_bytes=1, max_image_pixels=2, max_request_pixels=3, media_timeout_s=4)
    policy = settings.media_policy()
    assert (policy.max_bytes, policy.max_pixels, policy.max_total_pixels, policy.timeout_s) == (1, 2, 3, 4)


@pytest.mark.parametrize(
    "name", [field.name for field in dataclasses.fields(ServerSettings) if field.type in ("int", "float")]
)
def test_limits_must_be_positive(name: str) -> None:
    with pytest.raises(InvalidSettings, match=f"{name} must be greater than 0, but is 0"):
        dataclasses.replace(ServerSettings(), **{name: 0})  # type: ignore[arg-type]  # numbers, by the selection above
