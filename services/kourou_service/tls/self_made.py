"""Certificates for development: signed by a CA of our own making, which clients may be told to trust.

A CA and not just a certificate: processes that share its folder are trusted by the same file, each under the hosts that
it advertises.
"""

import fcntl
import ipaddress
import os
import socket
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kourou_service.process import UserError
from kourou_service.tls.identity import Identity

CERTIFICATE, KEY = "ca.pem", "ca.key"
LIFETIME = timedelta(days=3650)
RENEWED_BEFORE_END = timedelta(days=60)
_CLOCKS_DIFFER = timedelta(days=1)


@dataclass(frozen=True)
class Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def make(cls) -> "Authority":
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(f"Kourou development CA of {socket.gethostname()}"[:64])
        now = datetime.now(UTC)
        builder = _builder(name, name, key.public_key(), now, now + LIFETIME)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
        return cls(builder.sign(key, hashes.SHA256()), key)

    @classmethod
    def kept_in(cls, folder: Path) -> "Authority":
        """The one in the folder, made when there is none or when its end is near. Raises UserError, OSError."""
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            if (folder / CERTIFICATE).exists():
                kept = cls._read(folder)
                if kept.certificate.not_valid_after_utc - RENEWED_BEFORE_END > datetime.now(UTC):
                    return kept
            made = cls.make()
            key = made.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            _write(folder / KEY, key, 0o600)
            _write(folder / CERTIFICATE, made.certificate.public_bytes(Encoding.PEM), 0o644)
            return made

    @classmethod
    def _read(cls, folder: Path) -> "Authority":
        try:
            certificate = x509.load_pem_x509_certificate((folder / CERTIFICATE).read_bytes())
            key = load_pem_private_key((folder / KEY).read_bytes(), password=None)
        except (ValueError, TypeError, FileNotFoundError) as problem:
            raise UserError(
                f"the self-made CA in {folder} is broken; remove it, and a new one is made ({problem})"
            ) from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise UserError(f"the self-made CA in {folder} is broken; remove it, and a new one is made (another key)")
        return cls(certificate, key)

    def issue(self, hosts: Iterable[str], client_ca: bytes | None) -> Identity:
        """A new certificate for a server that is reached by these hosts, as long as that of the CA lasts."""
        key = ec.generate_private_key(ec.SECP256R1())
        end = self.certificate.not_valid_after_utc
        builder = _builder(
            _name("Kourou, for development"), self.certificate.subject, key.public_key(), datetime.now(UTC), end
        )
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=False), critical=True)
        builder = builder.add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        builder = builder.add_extension(x509.SubjectAlternativeName(map(_alternative, hosts)), critical=False)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
        )
        chain = [builder.sign(self.key, hashes.SHA256()), self.certificate]
        return Identity(
            certificate=b"".join(each.public_bytes(Encoding.PEM) for each in chain),
            key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            client_ca=client_ca,
            expires_s=end.timestamp(),
        )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, begin: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin - _CLOCKS_DIFFER)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


@contextmanager
def _locked(folder: Path) -> Generator[None]:
    """Processes that share the folder make one CA."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, content: bytes, mode: int) -> None:
    """As a whole, or not at all."""
    new = path.with_suffix(path.suffix + ".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    new.replace(path)
