"""Named listeners: parsing, endpoints, and by which one a client came."""

import pytest

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou_service.listener import HostPort, Listener, ListenerNames, Way, addresses_of, endpoints_of


def test_parsing():
    both = Listener.parse("internal=0.0.0.0:8081/namesrv-1:8081")
    assert (both.name, both.bind, both.advertised) == (
        "internal",
        HostPort("0.0.0.0", 8081),
        HostPort("namesrv-1", 8081),
    )
    assert str(both) == "internal=0.0.0.0:8081/namesrv-1:8081"
    assert str(Listener.parse("127.0.0.1:8081")) == "local=127.0.0.1:8081"
    assert not both.tls
    tls = Listener.parse("internal-tls=tls://0.0.0.0:8443/namesrv-1:8443")
    assert tls == Listener("internal-tls", HostPort("0.0.0.0", 8443), HostPort("namesrv-1", 8443), tls=True)
    assert str(tls) == "internal-tls=tls://0.0.0.0:8443/namesrv-1:8443"
    assert tls.bound_form == "internal-tls=tls://0.0.0.0:8443"
    assert str(Listener.parse("tls://127.0.0.1:8443")) == "local-tls=tls://127.0.0.1:8443"
    assert str(tls.bound("0.0.0.0:1")) == "internal-tls=tls://0.0.0.0:1/namesrv-1:8443"
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
        ("tls=tls://0.0.0.0:8443", "cannot reach .* tls=tls://0.0.0.0:8443/HOST:PORT"),
        ("tls=0.0.0.0:8443/tls://example.org:8443", "stands once, before the address to bind"),
        ("tls=tls://tls://127.0.0.1:8443", "stands once"),
        ("tls=https://127.0.0.1:8443", "stands once"),
        ("tls://=127.0.0.1:8443", "no name"),
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
    names.learn({HostPort("broker-a", 10911): Way("internal"), HostPort("example.org", 10912): Way("public")})

    def endpoints(*texts: str) -> v2.Endpoints:
        return endpoints_of([HostPort.parse(text) for text in texts])

    # The request's endpoints come first: an access point, or any broker's listener, or one of several.
    assert names.choose(endpoints("Example.org:8082"), "namesrv-1:8081") == Way("public")
    assert names.choose(endpoints("example.org:10912"), "namesrv-1:8081") == Way("public")
    assert names.choose(endpoints("other:1", "example.org:8082"), "namesrv-1:8081") == Way("public")
    # Then the authority; localhost is 127.0.0.1.
    assert names.choose(None, "localhost:8082") == Way("public")
    assert names.choose(endpoints("other:1"), "namesrv-1:8081", "public") == Way("internal")
    assert names.choose(v2.Endpoints(), "[::1]:8082") == Way("public")
    # Then what the engine says, then the fallback.
    assert names.choose(None, "nonsense", "public") == Way("public")
    assert names.choose(None, "10.1.2.3:8082", "public") == Way("public")
    assert names.choose(None, "") == Way("internal")
    names.learn({})
    assert names.choose(endpoints("example.org:10912"), "") == Way("internal")


def test_a_client_that_came_over_tls_is_told_of_tls_and_no_other():
    own = [Listener.parse("plain=127.0.0.1:8081/example.org:8081"), Listener.parse("safe=tls://127.0.0.1:8443")]
    names = ListenerNames(own, "plain")
    names.learn({HostPort("broker-a", 10911): Way("plain"), HostPort("broker-a", 10921): Way("safe", tls=True)})
    plain, safe = Way("plain"), Way("safe", tls=True)

    def endpoints(*texts: str) -> v2.Endpoints:
        return endpoints_of([HostPort.parse(text) for text in texts])

    assert names.choose(endpoints("127.0.0.1:8443"), "127.0.0.1:8443", "safe") == safe
    assert names.choose(endpoints("broker-a:10921"), "", "safe") == safe
    assert names.choose(None, "unheard.of:443", "safe") == safe
    # Whatever it says, plaintext addresses are of no use to it.
    assert names.choose(endpoints("example.org:8081"), "example.org:8081", "safe") == safe
    assert names.choose(endpoints("broker-a:10911"), "", "safe") == safe
    # It may name access points of both kinds.
    both = endpoints("127.0.0.1:8443", "example.org:8081")
    assert names.choose(both, "", "safe") == safe
    assert names.choose(both, "", "plain") == plain
    # A call in plaintext may speak for a client that uses TLS: a broker asks for it, or a proxy ends its TLS.
    assert names.choose(endpoints("broker-a:10921"), "", "plain") == safe
    assert names.choose(endpoints("other:1"), "", "plain") == plain


def test_the_fallback_may_be_a_listener_with_tls():
    names = ListenerNames([Listener.parse("safe=tls://127.0.0.1:8443")], "safe")
    assert names.choose(None, "") == Way("safe", tls=True)
    # What came by the brokers' listener, which has no name, did not come over TLS.
    names.learn({HostPort("broker-a", 10911): Way("plain")})
    assert names.choose(endpoints_of([HostPort("broker-a", 10911)]), "") == Way("plain")
    assert ListenerNames([], "local").choose(None, "") == Way("local")
