"""TLS of a node, and certificates for it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import attrs

from .ports import HOST

DAYS = "30"


@attrs.frozen
class Tls:
    """
    The TLS listener of a node.

    Attributes:
        ca: The file of the authority that clients' certificates are checked with.
        certificate: The node's certificate, for ``localhost``.
        key: Its key.
        verify: Whether a client must have a certificate.
        login_from: ``common_name`` or ``distinguished_name`` where a client's certificate says
            who it is, by the mechanism EXTERNAL; empty for user name and password only.
    """

    ca: Path
    certificate: Path
    key: Path
    verify: bool = False
    login_from: str = ""

    def config(self, port: int) -> dict[str, object]:
        """Return this in RabbitMQ's words."""
        checks = self.verify or self.login_from
        config: dict[str, object] = {
            "listeners.ssl.1": f"{HOST}:{port}",
            "ssl_options.cacertfile": self.ca,
            "ssl_options.certfile": self.certificate,
            "ssl_options.keyfile": self.key,
            "ssl_options.verify": "verify_peer" if checks else "verify_none",
            "ssl_options.fail_if_no_peer_cert": str(self.verify).lower(),
        }
        if self.login_from:
            config |= {
                "auth_mechanisms.1": "EXTERNAL",
                "auth_mechanisms.2": "PLAIN",
                "ssl_cert_login_from": self.login_from,
            }
        return config


class Certificates:
    """
    An authority of the tests' own, made by ``openssl``, and what it certified.

    Args:
        folder: Where to put the files.

    Attributes:
        ca: The authority's certificate.
        server: Certificate and key for ``localhost`` and 127.0.0.1.
        client: Certificate and key of the user ``guest``.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # From Python 3.13 on, certificates are looked at by the letter of RFC 5280.
        (folder / "names").write_text(
            f"subjectAltName=DNS:localhost,IP:{HOST}\n"
            "basicConstraints=critical,CA:FALSE\n"
            "keyUsage=critical,digitalSignature,keyEncipherment\n"
            "subjectKeyIdentifier=hash\n"
            "authorityKeyIdentifier=keyid\n"
        )
        self.ca = folder / "ca.pem"
        self._openssl(
            "req",
            "-x509",
            *self._new("ca", "authority"),
            "-out",
            "ca.pem",
            "-days",
            DAYS,
            "-addext",
            "keyUsage=critical,keyCertSign,cRLSign",
        )
        self.server = self._certify("server", "localhost")
        self.client = self._certify("client", "guest")

    def tls(self, *, verify: bool = False, login_from: str = "") -> Tls:
        """Return the listener of a node that has these."""
        return Tls(self.ca, *self.server, verify, login_from)

    def _certify(self, file: str, name: str) -> tuple[Path, Path]:
        self._openssl("req", *self._new(file, name), "-out", f"{file}.csr")
        signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names")
        self._openssl(
            "x509", "-req", "-in", f"{file}.csr", *signing, "-days", DAYS, "-out", f"{file}.pem"
        )
        return self._folder / f"{file}.pem", self._folder / f"{file}.key"

    def _new(self, file: str, name: str) -> tuple[str, ...]:
        key = f"{file}.key"
        return "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-subj", f"/CN={name}"

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(
            ["openssl", *arguments], cwd=self._folder, check=True, capture_output=True, timeout=60
        )
