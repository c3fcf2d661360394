"""Certificates for tests, made as a service makes its own."""

import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from kourou_service.tls.identity import Identity
from kourou_service.tls.self_made import Authority


@dataclass(frozen=True)
class Pem:
    """The files of one server, or of a client that has to show who it is."""

    certificate: Path
    key: Path

    def write(self, identity: Identity) -> None:
        """Each file as a whole, one after the other, as tools that renew certificates do."""
        for path, content in ((self.certificate, identity.certificate), (self.key, identity.key)):
            new = path.with_suffix(".new")
            new.write_bytes(content)
            new.replace(path)


def issue(authority: Authority, *hosts: str) -> Identity:
    return authority.issue(hosts or ("localhost", "127.0.0.1"), None)


def write_pem(folder: Path, identity: Identity) -> Pem:
    folder.mkdir(parents=True, exist_ok=True)
    pem = Pem(folder / "server.pem", folder / "server.key")
    pem.write(identity)
    return pem


def write_ca(path: Path, authority: Authority) -> Path:
    path.write_bytes(ca_of(authority))
    return path


def ca_of(authority: Authority) -> bytes:
    return authority.certificate.public_bytes(Encoding.PEM)


def shown_at(address: str) -> str:
    """The certificate, as PEM, that a server shows to those who connect now. Raises OSError."""
    host, _, port = address.rpartition(":")
    return ssl.get_server_certificate((host, int(port)), timeout=5)


def leaf_of(identity: Identity) -> str:
    """Comparable with `shown_at`."""
    certificate = identity.certificate.decode()
    end = "-----END CERTIFICATE-----"
    return certificate[: certificate.index(end) + len(end)] + "\n"
