"""An authority of a test's own and a certificate for 127.0.0.1 that it signed, made by openssl. No pytest in here."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]


@dataclass(frozen=True)
class Certificates:
    """PEM files: the authority's certificate, one that signed nothing, the server's certificate and key, both in one."""

    authority: Path
    stranger: Path
    certificate: Path
    key: Path
    both: Path


def make(folder: Path) -> Certificates:
    """New ones, in `folder`."""
    authority = _authority(folder, "authority")
    stranger = _authority(folder, "stranger")
    certificate, key, both = folder / "server.pem", folder / "server.key", folder / "server-both.pem"
    _openssl(
        *("req", "-x509", "-CA", str(authority), "-CAkey", str(authority.with_suffix(".key")), *_KEY),
        *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"),
        *("-addext", "basicConstraints=critical,CA:FALSE"),
        *("-keyout", str(key), "-out", str(certificate)),
    )
    both.write_bytes(key.read_bytes() + certificate.read_bytes())
    return Certificates(authority, stranger, certificate, key, both)


def _authority(folder: Path, name: str) -> Path:
    out = folder / f"{name}.pem"
    _openssl(
        *("req", "-x509", *_KEY, "-subj", f"/CN={name}", "-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        *("-keyout", str(out.with_suffix(".key")), "-out", str(out)),
    )
    return out


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
