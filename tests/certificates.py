"""Certificates for servers and clients on this machine."""

import subprocess
from pathlib import Path


def make_certificate(file: Path, key: Path) -> None:
    """Makes a certificate that is signed by itself, for this machine; its common name is that of the file."""
    words = f"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN={file.stem}"
    files = f"-addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {file}"
    subprocess.run(["openssl", *f"{words} {files}".split()], check=True, capture_output=True)
