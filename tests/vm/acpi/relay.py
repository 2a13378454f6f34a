"""`python relay.py PORT`: standard input and output to a TCP port of loopback and back; one process a connection.

QEMU starts it for each connection that a VM opens to an address of the outside world.
"""

import os
import socket
import sys
import threading


def main() -> None:
    with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=10) as server:
        server.settimeout(None)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def answer() -> None:
            while data := server.recv(1 << 16):
                view = memoryview(data)
                while view:
                    view = view[os.write(1, view) :]
            os._exit(0)  # the server hung up: so do we, though the VM may still be listening

        threading.Thread(target=answer, daemon=True).start()
        while data := os.read(0, 1 << 16):
            server.sendall(data)


if __name__ == "__main__":
    main()
