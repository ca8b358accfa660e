"""A small proxy in threads of the test: CONNECT and absolute URLs, names of its own, and a list of what it was asked.

    with Proxy({("models.example", 80): ("127.0.0.1", port)}) as proxy:
        ...  # proxy.url goes into a setting or a variable
        assert proxy.seen == [("GET", "models.example:80")]
"""
import base64
import socket
import threading
import urllib.parse

HEAD_MAX = 65536


class Proxy:
    def __init__(self, names=None, user=None):
        """names: where hosts really are, by (host, port); others are asked for as they are. user: "NAME:PASSWORD" wanted."""
        self.names, self.user, self.seen, self.refused = names or {}, user, [], 0
        self._lock = threading.Lock()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._socket.getsockname()[1]
        self.url = f"http://{user + '@' if user else ''}127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._socket.close()

    def _accept(self):
        while True:
            try:
                client = self._socket.accept()[0]
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        with client:
            try:
                head, rest = self._head(client)
                if head:
                    self._answer(client, head, rest)
            except OSError:
                pass

    @staticmethod
    def _head(client):
        data = b""
        while b"\r\n\r\n" not in data:
            piece = client.recv(4096)
            if not piece or len(data) > HEAD_MAX:
                return None, b""
            data += piece
        head, _, rest = data.partition(b"\r\n\r\n")
        return head.decode("latin-1"), rest

    def _allowed(self, lines):
        if not self.user:
            return True
        wanted = "basic " + base64.b64encode(self.user.encode()).decode().lower()
        return any(line.lower() == f"proxy-authorization: {wanted}" for line in lines)

    def _answer(self, client, head, rest):
        first, *lines = head.split("\r\n")
        method, target, version = first.split(" ")
        if not self._allowed(lines):
            with self._lock:
                self.refused += 1
            client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"p\"\r\n"
                           b"Content-Length: 0\r\nConnection: close\r\n\r\n")
            return
        if method == "CONNECT":
            host, _, port = target.rpartition(":")
        else:
            url = urllib.parse.urlsplit(target)
            host, port = url.hostname, url.port or 80
        host, port = host.strip("[]"), int(port)
        with self._lock:
            self.seen.append((method, f"{host}:{port}"))
        try:
            server = socket.create_connection(self.names.get((host, port), (host, port)), 10)
        except OSError:
            client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        with server:
            if method == "CONNECT":
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                server.sendall(rest)
            else:  # one request a connection
                path = urllib.parse.urlunsplit(("", "", url.path or "/", url.query, ""))
                kept = [line for line in lines if not line.lower().startswith(("connection:", "proxy-"))]
                server.sendall("\r\n".join([f"{method} {path} {version}", *kept, "Connection: close", "", ""]).encode("latin-1") + rest)
            self._both(client, server)

    @staticmethod
    def _both(client, server):
        """Hands bytes on, both ways, until one side has ended."""
        def hand_on(source, sink):
            try:
                while data := source.recv(65536):
                    sink.sendall(data)
            except OSError:
                pass
            for end in (source, sink):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
        other = threading.Thread(target=hand_on, args=(client, server), daemon=True)
        other.start()
        hand_on(server, client)
        other.join()
