"""The fields of an AMQP driver, and the options of its queues and consumers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any, Final, TypedDict
from urllib.parse import SplitResult, parse_qs, urlsplit

import attrs

from ...errors import ConfigError, ConfigProblem
from ...fields import FieldError, Unshown, checked, duration, flag, optional, text, whole
from ...structure import structure

_SECURE = "amqps"


def _pem(value: Any) -> str:
    if not isinstance(value, str) or "-----BEGIN" not in value:
        raise FieldError(
            "PEM text, which has a line -----BEGIN; that of a file is file://PATH",
            Unshown("something else"),
        )
    return str(value)


class TlsFields(TypedDict, total=False):
    """The fields of ``TlsSettings`` that code gives as a mapping."""

    enabled: bool
    server_name: str
    cert: str
    cert_env: str
    key: str
    key_env: str
    ca: str
    ca_env: str
    insecure_skip_verify: bool


@attrs.frozen(kw_only=True)
class TlsSettings:
    """
    How a connection is encrypted. Every URL has to be an ``amqps://`` one then.

    Attributes:
        enabled: Whether TLS is wanted; by default it is by the URL. True with an ``amqp://``
            URL is an error, false with an ``amqps://`` URL too.
        server_name: The name that the broker's certificate has to have; by default the URL's.
        cert: The client's certificate, as PEM text.
        cert_env: The environment variable that holds it.
        key: The key of ``cert``, as PEM text.
        key_env: The environment variable that holds it.
        ca: The certificates that are trusted, as PEM text; by default the system's.
        ca_env: The environment variable that holds them.
        insecure_skip_verify: Whether the broker's certificate is not looked at. Anybody in
            between can read and change everything then.
    """

    enabled: bool | None = checked(optional(flag), default=None)
    server_name: str | None = checked(optional(text), default=None)
    cert: str | None = checked(optional(_pem), default=None, repr=False)
    cert_env: str | None = checked(optional(text), default=None)
    key: str | None = checked(optional(_pem), default=None, repr=False)
    key_env: str | None = checked(optional(text), default=None)
    ca: str | None = checked(optional(_pem), default=None, repr=False)
    ca_env: str | None = checked(optional(text), default=None)
    insecure_skip_verify: bool = checked(flag, default=False)

    def __attrs_post_init__(self) -> None:
        """Check the fields against each other, and look up the environment's."""
        problems = []
        for name in ("cert", "key", "ca"):
            variable = getattr(self, f"{name}_env")
            if variable is None:
                continue
            if getattr(self, name) is not None:
                said = f"{name} and {name}_env are mutually exclusive"
                problems.append(ConfigProblem(message=said, path=(f"{name}_env",)))
            elif not os.environ.get(variable):
                said = f"the environment variable {variable} is not set"
                problems.append(ConfigProblem(message=said, path=(f"{name}_env",)))
        if self._given("cert") != self._given("key"):
            said = "cert and key must be provided together"
            problems.append(ConfigProblem(message=said, path=("cert",)))
        if problems:
            raise ConfigError(problems)

    def _given(self, name: str) -> bool:
        return bool(getattr(self, name) or getattr(self, f"{name}_env"))

    def pem(self, name: str) -> str | None:
        """Return ``cert``, ``key`` or ``ca``, from wherever it is given."""
        variable = getattr(self, f"{name}_env")
        found = os.environ.get(variable) if variable else getattr(self, name)
        return None if found is None else str(found)


def _tls(value: Any) -> TlsSettings | None:
    return None if value is None else structure(TlsSettings, value)


def _urls(value: Any) -> tuple[str, ...]:
    given = value if isinstance(value, list | tuple) else [value]
    if not given:
        raise FieldError("at least one URL", Unshown("an empty list"))
    return tuple(_url(each) for each in given)


def _parts(value: Any, expected: str) -> SplitResult:
    """Return the parts of a URL, none of which is a piece of its password."""
    if not isinstance(value, str):
        raise FieldError(expected, value)
    try:
        parts = urlsplit(value)
        parts.port  # noqa: B018 - raises where it is no number
    except ValueError:
        raise FieldError(expected, Unshown("a URL that cannot be read")) from None
    if parts.fragment or ("@" not in parts.netloc and "@" in parts.path + parts.query):
        written = "one whose password has a character that is to be written as %2F, %3F or %23"
        raise FieldError(expected, Unshown(written))
    return parts


def _url(value: Any) -> str:
    expected = "a URL such as amqp://user:password@host:5672/vhost"
    parts = _parts(value, expected)
    if parts.scheme not in ("amqp", _SECURE):
        raise FieldError(expected, Unshown(f"one with the scheme {parts.scheme or 'none'}"))
    if not parts.hostname or parts.port == 0:
        raise FieldError(expected, Unshown("one without a host"))
    if "@" in parts.path:
        # What stands before it may be the rest of a password.
        raise FieldError(
            "a URL in which a password's special characters are written as %40 (@), %2F (/), "
            "%3A (:), %23 (#), %3F (?)",
            Unshown("one with an @ behind the host"),
        )
    for name, values in parse_qs(parts.query, keep_blank_values=True).items():
        if name not in _QUERY:
            known = ", ".join(_QUERY)
            raise FieldError(f"a query of {known}", Unshown(f"{name} in the query"))
        least, most = _QUERY[name]
        written = values[-1]
        if not re.fullmatch("[0-9]{1,10}", written) or not least <= int(written) <= most:
            bounds = f"{least} to {most}"
            raise FieldError(f"{name} in the query of {bounds}", Unshown(repr(written)))
    return str(value)


_QUERY: Final = {
    "heartbeat": (0, 65535),
    "connection_timeout": (1, 2**31),
    "channel_max": (16, 65535),
    "frame_max": (4096, 131_072),
}
"""
What may stand in a URL's query, with its bounds: whole seconds, milliseconds, counts and bytes.

Source:
    RabbitMQ's URI query parameters, and those of the Go client that Wippy uses.
"""


_AUTH: Final = ("PLAIN", "EXTERNAL", "AMQPLAIN")


def _auth(value: Any) -> str:
    if value in ("", None):
        return "PLAIN"
    if not isinstance(value, str) or value not in _AUTH:
        raise FieldError(" or ".join(_AUTH), value)
    return str(value)


def _heartbeat(value: Any) -> float:
    seconds = duration(value)
    if seconds != int(seconds) or seconds > 65535:
        raise FieldError("a duration in whole seconds, at most 65535, or 0 for none", value)
    return seconds


def _above_zero(value: Any) -> float:
    seconds = duration(value)
    if seconds < 0.001:
        raise FieldError("a duration of at least 1ms", value)
    return seconds


def milliseconds(value: Any) -> float:
    """Check a duration that goes to the broker in whole milliseconds of 32 bits."""
    seconds = duration(value)
    if not 0.001 <= seconds <= (2**32 - 1) / 1000:
        raise FieldError("a duration of 1ms to 49 days", value)
    return seconds


def _management_url(value: Any) -> str:
    expected = "a URL such as http://user:password@host:15672"
    parts = _parts(value, expected)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise FieldError(expected, Unshown("one of another form"))
    return str(value)


class AmqpFields(TypedDict, total=False):
    """The fields of ``AmqpSettings`` that code gives as keywords."""

    url: str | list[str] | tuple[str, ...]
    vhost: str | None
    connection_name: str | None
    auth_mechanism: str
    heartbeat: float | str
    connection_timeout: float | str
    default_message_ttl: float | str | None
    default_queue_ttl: float | str | None
    default_queue_expiry: float | str | None
    reconnect_delay: float | str
    reconnect_max_delay: float | str
    prefetch_count: int | None
    frame_size: int | None
    channel_max: int | None
    tls: TlsSettings | TlsFields | None
    management_url: str | None


@attrs.frozen(kw_only=True)
class AmqpSettings:
    """
    The fields of a ``queue.driver.amqp``.

    Attributes:
        url: Where the broker is: ``amqp://user:password@host:port/vhost``, or ``amqps://`` for
            TLS. A list for a cluster, whose nodes are tried in turn. ``heartbeat`` (seconds),
            ``connection_timeout`` (milliseconds), ``frame_max`` and ``channel_max`` in its
            query come before the fields below.
        vhost: The virtual host, instead of the URL's.
        connection_name: What the broker shows the connections as.
        auth_mechanism: ``PLAIN``, ``EXTERNAL`` (by the certificate) or ``AMQPLAIN``.
        heartbeat: Seconds, whole ones; a connection without a sign of life for about that long
            is given up. 0 for never.
        connection_timeout: Seconds until a connection has to be open, login included.
        default_message_ttl: Seconds after which the broker drops messages, from their publish
            on, where ``amqp.expiration`` says nothing else; ``None`` for never.
        default_queue_ttl: The ``message_ttl`` of queues that give none.
        default_queue_expiry: The ``queue_expiry`` of queues that give none.
        reconnect_delay: Seconds before a lost connection is opened anew; doubles.
        reconnect_max_delay: Seconds that this delay does not exceed.
        prefetch_count: The most deliveries that a consumer gets unsettled, where that is less
            than its ``prefetch`` and ``concurrency`` together.
        frame_size: Bytes of a frame at most, 4096 to 131072; by default what the broker
            says.
        channel_max: Channels of a connection at most, at least 16: each consumer has one, and
            some are for questions. By default what the broker says.
        tls: How the connection is encrypted.
        management_url: Where the broker's management plugin is:
            ``http://user:password@host:15672``. With it, ``info`` shows what is in flight.

    Source:
        Wippy runtime, ``api/service/queue/amqp/config.go``.
    """

    url: tuple[str, ...] = checked(_urls, default="amqp://guest:guest@localhost:5672/", repr=False)
    vhost: str | None = checked(optional(text), default=None)
    connection_name: str | None = checked(optional(text), default=None)
    auth_mechanism: str = checked(_auth, default="PLAIN")
    heartbeat: float = checked(_heartbeat, default=10.0)
    connection_timeout: float = checked(_above_zero, default=30.0)
    default_message_ttl: float | None = checked(optional(milliseconds), default=None)
    default_queue_ttl: float | None = checked(optional(milliseconds), default=None)
    default_queue_expiry: float | None = checked(optional(milliseconds), default=None)
    reconnect_delay: float = checked(_above_zero, default=1.0)
    reconnect_max_delay: float = checked(duration, default=30.0)
    prefetch_count: int | None = checked(optional(whole(1, 65535)), default=None)
    frame_size: int | None = checked(optional(whole(4096, 131_072)), default=None)
    channel_max: int | None = checked(optional(whole(16, 65535)), default=None)
    tls: TlsSettings | None = checked(_tls, default=None)
    management_url: str | None = checked(optional(_management_url), default=None, repr=False)

    def __attrs_post_init__(self) -> None:
        """Check the fields against each other."""
        problems = list(self._problems())
        if problems:
            raise ConfigError(problems)

    def _problems(self) -> Iterator[ConfigProblem]:
        schemes = {urlsplit(url).scheme for url in self.url}
        enabled = None if self.tls is None else self.tls.enabled
        if self.tls is not None and enabled is not False and schemes != {_SECURE}:
            yield ConfigProblem(
                message="tls is given, and an amqp:// URL connects in clear text; write amqps://",
                path=("tls",),
            )
        if enabled is False and _SECURE in schemes:
            yield ConfigProblem(
                message="false, and an amqps:// URL connects by TLS; write amqp://",
                path=("tls", "enabled"),
            )
        if self.auth_mechanism == "EXTERNAL" and (self.tls is None or self.tls.pem("cert") is None):
            yield ConfigProblem(
                message="EXTERNAL takes the name from the client's certificate: give tls.cert "
                "and tls.key",
                path=("auth_mechanism",),
            )
        if self.reconnect_max_delay < self.reconnect_delay:
            yield ConfigProblem(
                message=f"expected at least reconnect_delay ({self.reconnect_delay:g} s), got "
                f"{self.reconnect_max_delay:g} s",
                path=("reconnect_max_delay",),
            )

    @property
    def addresses(self) -> list[str]:
        """The brokers as ``host:port/vhost``, without passwords."""
        return [self._address(urlsplit(url)) for url in self.url]

    def _address(self, parts: SplitResult) -> str:
        port = parts.port or (5671 if parts.scheme == _SECURE else 5672)
        path = self.vhost or parts.path.removeprefix("/")
        return f"{parts.hostname}:{port}/{path if path != '/' else ''}"
