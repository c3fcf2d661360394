"""Named listeners: parsing, endpoints, and by which one a client came."""

import pytest

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou_service.listener import HostPort, Listener, ListenerNames, addresses_of, endpoints_of


def test_parsing():
    both = Listener.parse("internal=0.0.0.0:8081/namesrv-1:8081")
    assert (both.name, both.bind, both.advertised) == (
        "internal",
        HostPort("0.0.0.0", 8081),
        HostPort("namesrv-1", 8081),
    )
    assert str(both) == "internal=0.0.0.0:8081/namesrv-1:8081"
    assert str(Listener.parse("127.0.0.1:8081")) == "local=127.0.0.1:8081"
    assert Listener.parse("v6=[::1]:8081").bind == HostPort("::1", 8081)
    assert str(HostPort("::1", 8081)) == "[::1]:8081"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("local=nowhere", "not host:port"),
        ("local=:8081", "not host:port"),
        ("local=host:port", "not a number"),
        ("local=host:65536", "not a number"),
        ("local=::1:8081", "brackets"),
        ("=127.0.0.1:8081", "no name"),
        ("a b=127.0.0.1:8081", "no name"),
        ("local=0.0.0.0:8081", "cannot reach"),
        ("local=[::]:8081", "cannot reach"),
    ],
)
def test_what_cannot_be_a_listener(text: str, reason: str):
    with pytest.raises(ValueError, match=reason):
        Listener.parse(text)


def test_a_free_port_is_advertised_once_it_is_known():
    assert str(Listener.parse("local=127.0.0.1:0").bound("127.0.0.1:4242")) == "local=127.0.0.1:4242"
    mapped = Listener.parse("public=127.0.0.1:0/example.org:80").bound("127.0.0.1:4242")
    assert str(mapped) == "public=127.0.0.1:4242/example.org:80"


@pytest.mark.parametrize(
    ("host", "scheme"),
    [("10.0.0.1", v2.IPv4), ("::1", v2.IPv6), ("broker-a", v2.DOMAIN_NAME), ("1.2.3", v2.DOMAIN_NAME)],
)
def test_endpoints_have_the_scheme_of_their_address(host: str, scheme: v2.AddressScheme):
    endpoints = endpoints_of([HostPort(host, 8081)])
    assert endpoints.scheme == scheme
    assert addresses_of(endpoints) == [HostPort(host, 8081)]


def test_which_listener_a_client_came_by():
    own = [
        Listener.parse("internal=0.0.0.0:8081/namesrv-1:8081"),
        Listener.parse("public=127.0.0.1:8082/example.org:8082"),
    ]
    names = ListenerNames(own, "internal")
    names.learn({HostPort("broker-a", 10911): "internal", HostPort("example.org", 10912): "public"})

    def endpoints(*texts: str) -> v2.Endpoints:
        return endpoints_of([HostPort.parse(text) for text in texts])

    # The request's endpoints come first: an access point, or any broker's listener, or one of several.
    assert names.choose(endpoints("Example.org:8082"), "namesrv-1:8081") == "public"
    assert names.choose(endpoints("example.org:10912"), "namesrv-1:8081") == "public"
    assert names.choose(endpoints("other:1", "example.org:8082"), "namesrv-1:8081") == "public"
    # Then the authority; localhost is 127.0.0.1.
    assert names.choose(None, "localhost:8082") == "public"
    assert names.choose(endpoints("other:1"), "namesrv-1:8081", "public") == "internal"
    assert names.choose(v2.Endpoints(), "[::1]:8082") == "public"
    # Then what the engine says, then the fallback.
    assert names.choose(None, "nonsense", "public") == "public"
    assert names.choose(None, "10.1.2.3:8082", "public") == "public"
    assert names.choose(None, "") == "internal"
    names.learn({})
    assert names.choose(endpoints("example.org:10912"), "") == "internal"
