"""Make the certificate for TLS between the nodes of a cluster: PEM files in a zip, as EMR requires.

The certificate is self-signed and valid for the host names of nodes inside a VPC. It is made once and stored only in
the lake's bucket, encrypted with the bucket's KMS key. The zip file is not below the lake's prefix, because the roles
of the nodes and of Airflow may read every object below that prefix.
"""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime, timedelta

import boto3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from jobs.lake.store import Store
from jobs.lake.uri import bucket_and_key
from nightjar.packaging.build import zip_bytes

NAME = "security/node-certificates.zip"
VALID_DAYS = 825


def upload_once(lake_uri: str) -> None:
    """Upload a new certificate to the lake's bucket. Do nothing if it has one that is valid for 31 more days."""
    client = boto3.client("s3")
    bucket, _ = bucket_and_key(lake_uri)
    store, uri = Store(lambda: client), f"s3://{bucket}/{NAME}"
    found = store.info(uri)
    if found and time.time() - found.modified_at < (VALID_DAYS - 31) * 24 * 3600:
        return
    store.write_bytes(uri, make(["*.ec2.internal", f"*.{client.meta.region_name}.compute.internal"]))
    sys.stdout.write(f"uploaded a certificate for the nodes, valid for {VALID_DAYS} days: {uri}\n")


def make(names: list[str]) -> bytes:
    """Return a zip file with a new private key and a certificate for the host names `names`."""
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
    return zip_bytes({"privateKey.pem": private, "certificateChain.pem": public, "trustedCertificates.pem": public})
