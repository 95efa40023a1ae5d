"""The certificate of a server that speaks https, checked before anything is loaded."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from mllm_embed_serving.invalid_settings import InvalidSettings


@dataclass(frozen=True)
class Tls:
    """A certificate and its key.

    Attributes:
        certificate: PEM file of the certificate, followed by those of its issuers.
        key: PEM file of its private key, without a password.
    """

    certificate: Path
    key: Path

    @classmethod
    def of(cls, certificate: Path | None, key: Path | None) -> Tls | None:
        """Return the two files, or None where neither is given.

        Raises:
            InvalidSettings: only one is given, one cannot be read, or they do not belong together.
        """
        if certificate is None and key is None:
            return None
        if certificate is None or key is None:
            raise InvalidSettings("--tls-cert and --tls-key go together: give both")
        for option, file in (("--tls-cert", certificate), ("--tls-key", key)):
            if not file.is_file():
                raise InvalidSettings(f"{option}: there is no file {file}")
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, _no_password)
        except OSError as error:  # SSLError too
            reason = getattr(error, "reason", None) or error.strerror or "unreadable"
            raise InvalidSettings(f"--tls-cert {certificate} and --tls-key {key} cannot be used: {reason}") from None
        return cls(certificate, key)


def _no_password() -> str:
    raise InvalidSettings("--tls-key must be a key without a password: nobody is there to type it")
