"""nginx from Debian, as the how-to sets it up: TLS ends there, and the site is below a path that it does not know of."""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "sign-browsers-in.md"
_CONFIGURATION = """
# One process, with the rights of whoever started it: its files are in a directory of the test's.
master_process off;
pid {state}/nginx.pid;
error_log {state}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {state}/body;
    proxy_temp_path {state}/proxy;
    fastcgi_temp_path {state}/fastcgi;
    uwsgi_temp_path {state}/uwsgi;
    scgi_temp_path {state}/scgi;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {state}/certificate.pem;
        ssl_certificate_key {state}/key.pem;
{location}
    }}
}}
"""


@contextmanager
def nginx(state: Path, site: str) -> Iterator[str]:
    """The address of ``site`` behind a proxy. Ends with the block."""
    program = shutil.which("nginx")
    if program is None:
        pytest.fail("there is no nginx on this machine: apt-get install -y nginx-light", pytrace=False)
    (block,) = re.findall(r"^```nginx\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    location = block.replace("127.0.0.1:8000", f"127.0.0.1:{urlsplit(site).port}")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    _certificate(state)
    (state / "nginx.conf").write_text(_CONFIGURATION.format(state=state, port=port, location=location))
    command = [program, "-p", str(state), "-e", str(state / "error.log"), "-c", str(state / "nginx.conf")]
    # It returns when the daemon listens.
    subprocess.run(command, check=True, timeout=60, stdin=subprocess.DEVNULL)
    try:
        yield f"https://localhost:{port}/fog"
    finally:
        subprocess.run([*command, "-s", "stop"], check=True, timeout=60)


def _certificate(state: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    (state / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (state / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
