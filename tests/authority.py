"""A time-stamp authority of the tests' own, behind a real HTTP server: the `openssl ts` command does the stamping."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from pyasn1.codec.der.decoder import decode
from pyasn1.codec.der.encoder import encode
from pyasn1.type.univ import noValue
from pyasn1_modules.rfc3161 import TimeStampReq

from wootz.keys import timestamp_request

CONFIG = """
[tsa]
default_tsa = here
[here]
serial = {place}/serial
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
ess_cert_id_alg = sha256
[signer]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = critical,timeStamping
"""


class Authority:
    """An authority in a folder: `roots` is what a judge trusts, `stamp` answers a request."""

    def __init__(self, place: Path) -> None:
        self.place, self.roots, self.config = place, place / "ca.pem", place / "tsa.conf"
        self.config.write_text(CONFIG.format(place=place))
        (place / "serial").write_text("01\n")
        new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        self._openssl("req", "-x509", *new_key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "30", "-subj", "/CN=ca")
        self._openssl("req", *new_key, "-keyout", "tsa.key", "-out", "tsa.csr", "-subj", "/CN=clock")
        self._openssl(
            "x509",
            "-req",
            "-in",
            "tsa.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "30",
            "-extfile",
            "tsa.conf",
            "-extensions",
            "signer",
            "-out",
            "tsa.pem",
        )

    def stamp(self, request: bytes) -> bytes:
        """Request, DER -> response, DER, with the signer's certificate alone in it."""
        (self.place / "request.tsq").write_bytes(request)
        self._openssl(
            "ts",
            "-reply",
            "-config",
            "tsa.conf",
            "-queryfile",
            "request.tsq",
            "-signer",
            "tsa.pem",
            "-inkey",
            "tsa.key",
            "-out",
            "reply.tsr",
        )
        return (self.place / "reply.tsr").read_bytes()

    def _openssl(self, *words: str) -> None:
        subprocess.run(["openssl", *words], cwd=self.place, check=True, capture_output=True, timeout=60)


@contextmanager
def serving(authority: Authority) -> Iterator[str]:
    """Give the authority's address on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            reply = authority.stamp(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def with_status(response: bytes, text: bytes) -> bytes:
    """Return a response with another PKIStatusInfo.statusString, which no signature covers: DER by hand."""

    def framed(tag: int, content: bytes) -> bytes:
        size = len(content)
        length = bytes([size]) if size < 128 else bytes([0x82, size >> 8, size & 255])
        return bytes([tag]) + length + content

    start = 4 if response[1] == 0x82 else 2 + (response[1] & 0x7F if response[1] & 0x80 else 0)
    status_end = start + 2 + response[start + 1]
    status = framed(0x30, b"\x02\x01\x00" + framed(0x30, framed(0x0C, text)))
    return framed(0x30, status + response[status_end:])


def other_nonce(digest: bytes, nonce: int | None = 12345) -> bytes:
    """Return a request over SHA-256(digest) with another nonce than the registered one, or none."""
    request, _ = decode(timestamp_request(digest), asn1Spec=TimeStampReq())
    request["nonce"] = nonce if nonce is not None else noValue
    return bytes(encode(request))
