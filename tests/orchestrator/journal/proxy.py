"""A way to a server that can be cut at a chosen moment."""

import select
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self


class Proxy:
    """Passes connections on to ``port`` of this machine, from a port of its own."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.cuts = 0
        self._cut: tuple[bytes, bool, Callable[[], object]] | None = None
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._socket.close()

    def cut(self, said: bytes, *, arrives: bool, then: Callable[[], object] = lambda: None) -> None:
        """Cut the connection where ``said`` is said next: before it ``arrives``, or after it was carried out and before the answer."""
        self._cut = (said, arrives, then)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._to)) as server, suppress(OSError):
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    data = ready.recv(1 << 16)
                    if not data:
                        return
                    if ready is client and self._cut is not None and self._cut[0] in data:
                        (_, arrives, then), self._cut = self._cut, None
                        self.cuts += 1
                        if arrives:
                            server.sendall(data)
                            server.recv(1)
                        server.close()
                        then()
                        return
                    (server if ready is client else client).sendall(data)
