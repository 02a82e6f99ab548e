"""Certificates for TLS between the nodes of a cluster, as EMR's security configuration reads them: PEM files in a zip.

One self-signed certificate for the names that nodes have inside a VPC, made once and kept in the lake, where the
bucket's key encrypts it. Its private key is on no other disk.
"""

from __future__ import annotations

import io
import sys
import zipfile
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
from botocore.exceptions import ClientError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from jobs.lake.uri import bucket_and_key, join

NAME = "security/node-certificates.zip"
VALID_DAYS = 825


def upload_once(lake_uri: str) -> None:
    """Put certificates into the lake unless there are some that last for another month."""
    client: Any = boto3.client("s3")
    bucket, key = bucket_and_key(join(lake_uri, NAME))
    if _is_fresh(client, bucket, key):
        return
    region = client.meta.region_name
    client.put_object(Bucket=bucket, Key=key, Body=make(["*.ec2.internal", f"*.{region}.compute.internal"]))
    sys.stdout.write(f"made certificates for the nodes, valid for {VALID_DAYS} days: s3://{bucket}/{key}\n")


def make(names: list[str]) -> bytes:
    """A zip with ``privateKey.pem``, ``certificateChain.pem`` and ``trustedCertificates.pem``."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    public = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("privateKey.pem", private)
        archive.writestr("certificateChain.pem", public)
        archive.writestr("trustedCertificates.pem", public)
    return buffer.getvalue()


def _is_fresh(client: Any, bucket: str, key: str) -> bool:
    try:
        made: datetime = client.head_object(Bucket=bucket, Key=key)["LastModified"]
    except ClientError as error:
        if error.response["Error"]["Code"] in ("404", "NoSuchKey"):
            return False
        raise
    return datetime.now(UTC) - made < timedelta(days=VALID_DAYS - 31)
