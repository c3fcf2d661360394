"""Health check of a container: whether the service here says at /health that it serves.

Runs every few seconds, so it imports nothing but sockets: `python -I -S health.py [PORT]`. Exit code 0 or 1, with the
service's own reason on stdout, where `docker inspect` shows it.
"""

import socket
import sys

TIMEOUT_S = 2.0


def ask(port: int) -> tuple[bool, str]:
    """Whether the service is healthy, and what it says."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection:
        connection.sendall(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")
        answer = b""
        while chunk := connection.recv(4096):
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    return b" 200 " in head.partition(b"\r\n")[0], body.decode(errors="replace").strip()


def main() -> int:
    try:
        healthy, reason = ask(int(sys.argv[1]) if len(sys.argv) > 1 else 5557)
    except OSError as error:
        healthy, reason = False, str(error)
    print(reason)
    return 0 if healthy else 1


if __name__ == "__main__":
    sys.exit(main())
