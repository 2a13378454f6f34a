"""A server that answers as it is told, whole or byte by byte; and an authority for those that speak TLS."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from agent.store import Store

Answer = bytes | Callable[[], Iterable[bytes]]
"""Sent at once, or piece by piece as they come; in the latter case the connection ends with it."""
Answering = Callable[..., Store]


@dataclass
class Told:
    """What a server was asked: the head of each request, its lines joined."""

    url: str = ""
    asked: list[str] = field(default_factory=list)


@contextlib.contextmanager
def serving(*answers: Answer, tls: ssl.SSLContext | None = None, reads_bodies: bool = True) -> Iterator[Told]:
    """Give `answers` one after the other, the last of them again and again."""
    told = Told()

    class Handler(socketserver.StreamRequestHandler):
        def setup(self) -> None:
            if tls:
                self.request = tls.wrap_socket(self.request, server_side=True)
            super().setup()

        def handle(self) -> None:
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                while head := self._head():
                    answer = answers[min(len(told.asked), len(answers) - 1)]
                    told.asked.append(head)
                    if not isinstance(answer, bytes):
                        for piece in answer():
                            self.wfile.write(piece)
                        return
                    self.wfile.write(answer)
                    if not reads_bodies:
                        over.wait(30)
                        return

        def _head(self) -> str:
            lines: list[str] = []
            length = 0
            while (line := self.rfile.readline().decode("latin-1").strip()) or not lines:
                if not line:
                    return ""
                lines.append(line)
                name, _, value = line.partition(":")
                length = int(value) if name.lower() == "content-length" else length
            if reads_bodies:
                self.rfile.read(length)
            return "\n".join(lines)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that goes away is no news."""

    over = threading.Event()
    with Server(("127.0.0.1", 0), Handler) as server:
        told.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield told
        over.set()
        server.shutdown()


def dribbled(begin: bytes, each: bytes, *, every: float = 0.02, lasting: float = 5.0) -> Callable[[], Iterable[bytes]]:
    """`begin`, then `each` again and again."""

    def pieces() -> Iterable[bytes]:
        yield begin
        until = time.monotonic() + lasting
        while time.monotonic() < until:
            yield each
            time.sleep(every)

    return pieces


def make_authority(folder: Path, *names: str) -> tuple[ssl.SSLContext, Path]:
    """A certificate for `names` and 127.0.0.1: the server's context, and the file that makes clients trust it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    known: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
    known.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    made = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(known), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, secret = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, secret)
    return context, certificate
