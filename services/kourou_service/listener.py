"""Named listeners: the addresses of one process, each for the clients of one network.

A client in a container network and one on the host need different addresses of the same broker. So a listener has a
name, and whoever came by an access point of that name is answered with the brokers' addresses of that name. The same
way clients that speak TLS are told apart: a listener speaks either TLS or plaintext.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, NamedTuple, cast

from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import NoDecode

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.route import scheme_of
from kourou_service.settings import StringList, split_commas

DEFAULT_NAME = "local"
DEFAULT_TLS_NAME = "local-tls"
TLS_PREFIX = "tls://"
MAX_NAME_CHARS = 32
WILDCARDS = ("0.0.0.0", "::")


@dataclass(frozen=True)
class HostPort:
    host: str
    """An IPv4 or IPv6 address (without brackets) or a domain name."""
    port: int

    @classmethod
    def parse(cls, text: str) -> "HostPort":
        """Reads `host:port` or `[v6]:port`. Raises ValueError with a sentence for the user."""
        host, colon, port = text.strip().rpartition(":")
        if not colon or not host:
            raise ValueError(f"{text!r} is not host:port")
        if not (port.isascii() and port.isdigit() and int(port) <= 65535):
            raise ValueError(f"the port of {text!r} is not a number from 0 to 65535")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ValueError(f"{text!r}: an IPv6 address stands in brackets, as in [::1]:8081")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Way(NamedTuple):
    """How a client comes: by the listeners of that name, over TLS or in plaintext."""

    name: str
    tls: bool = False


@dataclass(frozen=True)
class Listener:
    """One setting `name=[tls://]bind[/advertised]`, such as `internal=0.0.0.0:8081/namesrv-1:8081`."""

    name: str
    bind: HostPort
    advertised: HostPort
    tls: bool = False

    @classmethod
    def parse(cls, text: str) -> "Listener":
        """Raises ValueError with a sentence for the user."""
        name, equals, addresses = text.strip().partition("=")
        if not equals:
            name, addresses = "", text.strip()
        tls = addresses.startswith(TLS_PREFIX)
        addresses = addresses.removeprefix(TLS_PREFIX)
        if not equals:
            name = DEFAULT_TLS_NAME if tls else DEFAULT_NAME
        if "://" in addresses:
            raise ValueError(f"{text.strip()!r}: {TLS_PREFIX} stands once, before the address to bind, or not at all")
        if not name or len(name) > MAX_NAME_CHARS or not name.replace("-", "").replace("_", "").isalnum():
            raise ValueError(f"{name!r} is no name of a listener: letters, digits, - and _, at most {MAX_NAME_CHARS}")
        bind_text, slash, advertised_text = addresses.partition("/")
        bind = HostPort.parse(bind_text)
        advertised = HostPort.parse(advertised_text) if slash else bind
        if advertised.host in WILDCARDS:
            shown = f"{name}={TLS_PREFIX if tls else ''}{bind}"
            raise ValueError(f"clients cannot reach {advertised}: add the address they use, {shown}/HOST:PORT")
        return cls(name, bind, advertised, tls)

    @property
    def way(self) -> Way:
        return Way(self.name, self.tls)

    def bound(self, address: str) -> "Listener":
        """The listener once it listens on `address`; matters when its port was 0, which picks a free one."""
        port = HostPort.parse(address).port
        bind = replace(self.bind, port=port)
        return replace(self, bind=bind, advertised=replace(self.advertised, port=self.advertised.port or port))

    def endpoints(self) -> v2.Endpoints:
        return endpoints_of([self.advertised])

    @property
    def bound_form(self) -> str:
        """How it is set, without what it advertises."""
        return f"{self.name}={TLS_PREFIX if self.tls else ''}{self.bind}"

    def __str__(self) -> str:
        return self.bound_form if self.advertised == self.bind else f"{self.bound_form}/{self.advertised}"


def _parse_listeners(value: object) -> object:
    parts = split_commas(value)
    if not isinstance(parts, (list, tuple)):
        return parts
    listeners = [_parse_listener(part) for part in cast("Sequence[object]", parts)]
    if not listeners:
        raise ValueError("at least one listener is needed")
    if len({listener.name for listener in listeners}) < len(listeners):
        raise ValueError("two listeners have the same name")
    return tuple(listeners)


def _parse_listener(value: object) -> Listener:
    if isinstance(value, Listener):
        return value
    return Listener.parse(str(value))


def _parse_address(value: object) -> object:
    return HostPort.parse(value) if isinstance(value, str) else value


def _parse_optional_address(value: object) -> object:
    return None if value == "" else _parse_address(value)


def _check_targets(targets: tuple[str, ...]) -> tuple[str, ...]:
    for target in targets:
        if not HostPort.parse(target).port:
            raise ValueError(f"{target!r}: nobody is reached at port 0")
    return targets


TargetsSetting = Annotated[StringList, AfterValidator(_check_targets)]
"""Addresses "host:port" of others, as they are given: names are resolved again and again."""
ListenersSetting = Annotated[tuple[Listener, ...], NoDecode, BeforeValidator(_parse_listeners)]
AddressSetting = Annotated[HostPort, NoDecode, BeforeValidator(_parse_address)]
OptionalAddressSetting = Annotated[HostPort | None, NoDecode, BeforeValidator(_parse_optional_address)]
"""Empty for none."""


def endpoints_of(addresses: Sequence[HostPort]) -> v2.Endpoints:
    """Endpoints of at least one address, with the scheme that fits the first."""
    return v2.Endpoints(
        scheme=scheme_of(addresses[0].host),
        addresses=[v2.Address(host=address.host, port=address.port) for address in addresses],
    )


def addresses_of(endpoints: v2.Endpoints) -> list[HostPort]:
    return [HostPort(address.host, address.port) for address in endpoints.addresses]


class ListenerNames:
    """By which listener a client came, told from what it says: the endpoints of its request, else its :authority."""

    def __init__(self, own: Iterable[Listener], fallback: str):
        """`fallback` names the listener of calls that do not tell at all."""
        self._own: dict[HostPort, Way] = {}
        self._ways: dict[str, Way] = {fallback: Way(fallback)}
        self._fallback = fallback
        self._learned: Mapping[HostPort, Way] = {}
        for listener in own:
            self._ways[listener.name] = listener.way
            self._own[_plain(listener.bind)] = listener.way
            self._own[_plain(listener.advertised)] = listener.way

    def learn(self, ways: Mapping[HostPort, Way]) -> None:
        """Replaces the addresses known of other processes (a NameServer's brokers)."""
        self._learned = {_plain(address): way for address, way in ways.items()}

    def choose(self, endpoints: v2.Endpoints | None, authority: str, came_by: str = "") -> Way:
        """`came_by` is the listener that the engine names, if any; it decides when the client says nothing known.

        Plaintext calls may speak for clients that use TLS: brokers ask for them, and proxies end their TLS. A call that
        came over TLS is never answered with plaintext addresses.
        """
        came = self._ways.get(came_by)
        said = self._said(endpoints, authority)
        if came is None:
            return said[0] if said else self._ways[self._fallback]
        if alike := [way for way in said if way.tls == came.tls]:
            return alike[0]
        return came if came.tls or not said else said[0]

    def _said(self, endpoints: v2.Endpoints | None, authority: str) -> Sequence[Way]:
        """Of several access points that a client names, those that are known."""
        named = endpoints.addresses if endpoints is not None else ()
        known = [self._known(HostPort(address.host, address.port)) for address in named]
        if not any(known):
            try:
                known = [self._known(HostPort.parse(authority))]
            except ValueError:
                return ()
        return [way for way in known if way is not None]

    def _known(self, address: HostPort) -> Way | None:
        plain = _plain(address)
        return self._own.get(plain) or self._learned.get(plain)


def _plain(address: HostPort) -> HostPort:
    """Other ways to write the loopback address and upper case lead to the same listener."""
    host = address.host.lower()
    return HostPort("127.0.0.1" if host in ("localhost", "::1") else host, address.port)
