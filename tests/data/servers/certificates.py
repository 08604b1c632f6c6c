"""A certificate authority of one test, and a server certificate of 127.0.0.1."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True, kw_only=True)
class Authority:
    """What a test gives to a server and to its client.

    Attributes:
        authority: certificate of the authority, PEM: what clients trust.
        key: of the server, PEM.
        certificate: of the server, PEM.
    """

    authority: bytes
    key: bytes
    certificate: bytes


def make(address: str = "127.0.0.1") -> Authority:
    """Return a new authority and a certificate of a server at an IP address."""
    ours, theirs = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority of the tests")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server of the tests")])
    now = datetime.datetime.now(datetime.timezone.utc)

    def certificate(name: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=name == issuer, path_length=None), True)
        )

    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
    signed = certificate(subject, theirs).add_extension(names, False).sign(ours, hashes.SHA256())
    return Authority(
        authority=certificate(issuer, ours)
        .sign(ours, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM),
        key=theirs.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        certificate=signed.public_bytes(serialization.Encoding.PEM),
    )
