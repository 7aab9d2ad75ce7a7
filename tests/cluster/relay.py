"""A relay between a client and a MongoDB server that changes what the server says of itself."""

import contextlib
import socket
import socketserver
import struct
import threading

import bson

#: Bytes before the document of an answer, by the operation: OP_REPLY, OP_MSG.
_BEFORE = {1: 36, 2013: 21}


class Relay:
    """Pass on what is said to a server; change its answers to `hello` on the way back.

    Attributes
    ----------
    changes
        Function of such an answer (a dictionary); what it returns replaces keys of it.
    """

    def __init__(self, host: str, port: int) -> None:
        self.changes = lambda answer: {}
        relay = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with socket.create_connection((host, port)) as server:
                    there = threading.Thread(target=_pass_on, args=(self.request, server, lambda message: message))
                    there.start()
                    _pass_on(server, self.request, relay.changed)
                    there.join()

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def changed(self, message: bytes) -> bytes:
        """Return an answer of the server, changed."""
        _, request, to, operation = struct.unpack("<iiii", message[:16])
        start = _BEFORE.get(operation)
        answer = bson.decode(message[start:]) if start else {}
        if "maxWireVersion" not in answer:
            return message
        body = message[16:start] + bson.encode({**answer, **self.changes(answer)})
        return struct.pack("<iiii", 16 + len(body), request, to, operation) + body

    def stop(self) -> None:
        """Take no connection any more."""
        self._server.shutdown()
        self._server.server_close()


def _pass_on(source: socket.socket, target: socket.socket, changed) -> None:
    """Pass on messages until one side has gone."""
    with contextlib.suppress(OSError):
        while head := _read(source, 4):
            rest = _read(source, struct.unpack("<i", head)[0] - 4)
            target.sendall(changed(head + rest))
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def _read(source: socket.socket, n: int) -> bytes:
    read = b""
    while len(read) < n:
        if not (more := source.recv(n - len(read))):
            return b""
        read += more
    return read
