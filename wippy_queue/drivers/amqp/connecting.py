"""From settings to pika's connection parameters, and from its errors to ours."""

from __future__ import annotations

import re
import ssl
import struct
import tempfile
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

import pika
from pika import exceptions
from pika.credentials import ExternalCredentials, PlainCredentials

from ...errors import PermissionDeniedError, UnavailableError
from .settings import AmqpSettings, TlsSettings
from .table import encode_table

_ACCESS_REFUSED: Final = 403
_NOT_ALLOWED: Final = 530

_PROBABLE: Final = (exceptions.ProbableAuthenticationError, exceptions.ProbableAccessDeniedError)
"""What pika takes any end of a connection for that comes during the login."""

_CLOSED_BY_BROKER = re.compile(r"ConnectionClosedByBroker: \((\d+)\) ['\"](.*)['\"]", re.DOTALL)
"""How such an error tells of the broker's own word."""


class AmqplainCredentials(PlainCredentials):
    """
    A name and a password by the mechanism AMQPLAIN.

    Source:
        RabbitMQ's ``rabbit_auth_mechanism_amqplain``: a field table without its length.
    """

    TYPE = "AMQPLAIN"

    def response_for(self, start: Any) -> tuple[str | None, bytes | None]:
        """Return mechanism and response, or twice ``None`` where the broker has no AMQPLAIN."""
        mechanisms = start.mechanisms
        offered = (
            mechanisms.split() if isinstance(mechanisms, bytes) else mechanisms.encode().split()
        )
        if self.TYPE.encode() not in offered:
            return None, None
        table = encode_table({"LOGIN": self.username or "", "PASSWORD": self.password or ""}, ())
        return self.TYPE, table[struct.calcsize(">I") :]


def parameters(settings: AmqpSettings, role: str) -> list[Any]:
    """
    Return pika's parameters for each URL.

    Args:
        settings: The driver's fields.
        role: What the connection is for; the broker shows it.

    Raises:
        UnavailableError: A certificate or key cannot be read.
    """
    return [_parameters(settings, url, role) for url in settings.url]


def _parameters(settings: AmqpSettings, url: str, role: str) -> Any:
    parts = urlsplit(url)
    query = {name: int(values[-1]) for name, values in parse_qs(parts.query).items()}
    vhost = settings.vhost or unquote(parts.path.removeprefix("/")) or "/"
    user, password = unquote(parts.username or "guest"), unquote(parts.password or "guest")
    timeout = query.get("connection_timeout", 0) / 1000 or settings.connection_timeout or None
    is_secure = parts.scheme == "amqps"
    optional: dict[str, Any] = {
        "frame_max": query.get("frame_max", settings.frame_size),
        "channel_max": query.get("channel_max", settings.channel_max),
    }
    if is_secure:
        tls = settings.tls or TlsSettings()
        optional["ssl_options"] = pika.SSLOptions(_context(tls), tls.server_name or parts.hostname)
    return pika.ConnectionParameters(
        host=parts.hostname or "localhost",
        port=parts.port or (5671 if is_secure else 5672),
        virtual_host=vhost,
        credentials=_credentials(settings.auth_mechanism, user, password),
        heartbeat=query.get("heartbeat", int(settings.heartbeat)),
        socket_timeout=timeout,
        # The whole way up: TCP, TLS and login.
        stack_timeout=timeout,
        client_properties={
            "connection_name": f"{settings.connection_name or 'wippy_queue'} ({role})"
        },
        **{name: value for name, value in optional.items() if value is not None},
    )


def _credentials(mechanism: str, user: str, password: str) -> Any:
    if mechanism == "EXTERNAL":
        return ExternalCredentials()
    kind = AmqplainCredentials if mechanism == "AMQPLAIN" else PlainCredentials
    return kind(user, password)


def _context(tls: TlsSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=tls.pem("ca"))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if tls.insecure_skip_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        certificate, key = tls.pem("cert"), tls.pem("key")
        if certificate is not None and key is not None:
            # OpenSSL reads them from files alone; the folder is this user's own.
            with tempfile.TemporaryDirectory(prefix="wippy-queue-") as folder:
                cert_file, key_file = Path(folder, "cert.pem"), Path(folder, "key.pem")
                cert_file.write_text(certificate)
                key_file.write_text(key)
                context.load_cert_chain(cert_file, key_file)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise UnavailableError(f"the certificates of tls cannot be used: {error}") from error
    return context


def connection_error(
    error: BaseException, address: str
) -> PermissionDeniedError | UnavailableError:
    """Return what to raise where a connection could not be opened."""
    cause = _cause(error)
    code, said = _code(cause), _said(cause)
    if isinstance(cause, _PROBABLE):
        word = _CLOSED_BY_BROKER.search(str(cause))
        code, said = (int(word[1]), word[2]) if word else (None, "it was lost during the login")
    if code in (_ACCESS_REFUSED, _NOT_ALLOWED):
        return PermissionDeniedError(f"{address} refuses the login, or the virtual host: {said}")
    if isinstance(cause, exceptions.AuthenticationError):
        return PermissionDeniedError(f"{address} offers no login by {cause}")
    if isinstance(cause, exceptions.IncompatibleProtocolError):
        said = "it does not speak AMQP 0-9-1; is it a port for TLS, which amqps:// is for?"
    elif isinstance(cause, ssl.SSLError) and cause.reason == "WRONG_VERSION_NUMBER":
        said = "it does not speak TLS; is it a port for amqp://?"
    return UnavailableError(f"{address} cannot be reached: {said}")


def lost_error(error: BaseException, address: str) -> UnavailableError:
    """Return what to raise where an open connection was lost."""
    return UnavailableError(f"the connection to {address} was lost: {_said(_cause(error))}")


def _cause(error: BaseException) -> BaseException:
    """Return what lies under pika's wrappers."""
    seen = 0
    while seen < 10:
        seen += 1
        inner = getattr(error, "exception", None)
        several = getattr(error, "exceptions", None)
        if isinstance(inner, BaseException):
            error = inner
        elif several:
            error = several[-1]
        elif (
            isinstance(error, exceptions.AMQPConnectionError)
            and error.args
            and isinstance(error.args[0], BaseException)
        ):
            error = error.args[0]
        else:
            break
    return error


def _code(error: BaseException) -> int | None:
    return getattr(error, "reply_code", None) if isinstance(error, exceptions.AMQPError) else None


def _said(error: BaseException) -> str:
    text = getattr(error, "reply_text", None) or str(error) or type(error).__name__
    name = type(error).__name__
    return text if name in text or hasattr(error, "reply_text") else f"{name}: {text}"
