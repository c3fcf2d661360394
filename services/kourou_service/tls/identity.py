"""What a TLS listener shows of itself, as PEM, and what it asks of clients; read from the user's files."""

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from kourou_service.settings import SettingsError


@dataclass(frozen=True)
class Identity:
    certificate: bytes
    """With its chain."""
    key: bytes
    client_ca: bytes | None
    """The CAs of clients; None: clients need no certificate."""
    expires_s: float
    """When the certificate ends, Unix time."""


@dataclass(frozen=True)
class IdentityFiles:
    certificate: Path
    key: Path
    client_ca: Path | None

    def version(self) -> tuple[tuple[int, int, int] | None, ...]:
        """Differs after a change of any of the files; costs one stat each."""
        return tuple(map(_version, filter(None, (self.certificate, self.key, self.client_ca))))

    def read(self) -> Identity:
        """Raises SettingsError for what cannot be used."""
        certificate, key = read_pem("tls_certificate", self.certificate), read_pem("tls_key", self.key)
        try:
            leaf = x509.load_pem_x509_certificates(certificate)[0]
        except ValueError as problem:
            raise SettingsError(
                f"setting tls_certificate: {self.certificate} is no PEM certificate: {problem}"
            ) from None
        try:
            public = load_pem_private_key(key, password=None).public_key()
        except (ValueError, TypeError, UnsupportedAlgorithm) as problem:
            raise SettingsError(f"setting tls_key: {self.key} is no PEM key without a password: {problem}") from None
        form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        if public.public_bytes(*form) != leaf.public_key().public_bytes(*form):
            raise SettingsError(f"setting tls_key: {self.key} is not the key of {self.certificate}")
        client_ca = None if self.client_ca is None else read_client_ca(self.client_ca)
        return Identity(certificate, key, client_ca, leaf.not_valid_after_utc.timestamp())


def read_client_ca(path: Path) -> bytes:
    """Raises SettingsError."""
    client_ca = read_pem("tls_client_ca", path)
    try:
        x509.load_pem_x509_certificates(client_ca)
    except ValueError as problem:
        raise SettingsError(f"setting tls_client_ca: {path} has no PEM certificate: {problem}") from None
    return client_ca


def read_pem(setting: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise SettingsError(f"setting {setting}: cannot read {path}: {problem.strerror}") from None


def _version(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
