"""Origins beside the hub and its CDN, made on demand: plain and TLS ones that serve, and some that never answer."""
import os
import socket
import ssl
import subprocess
import threading


def certificate(folder):
    """(certificate, key) for loopback addresses, signed by itself; made once for a folder."""
    os.makedirs(folder, exist_ok=True)
    cert, key = os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem")
    if not os.path.exists(cert):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                        "-keyout", key, "-out", cert, "-days", "30", "-subj", "/CN=lade test hub",
                        "-addext", "subjectAltName=IP:127.0.0.1,IP:127.0.0.2,DNS:localhost"],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return cert, key


def server_context(folder):
    cert, key = certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context


def only_loopback(sock):
    """Of a socket bound to every address: nobody outside this machine reaches it."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\0")


class Mute:
    """Takes connections and never says a word: TLS that does not answer."""

    def __init__(self, host):
        self.socket = socket.create_server((host, 0), backlog=64)
        self.port = self.socket.getsockname()[1]
        self.held = []
        threading.Thread(target=self._hold, daemon=True).start()

    def _hold(self):
        while True:
            self.held.append(self.socket.accept()[0])


class Stuck:
    """Listens and never accepts, with its queue full: who connects waits for ever."""

    def __init__(self, host):
        self.socket = socket.socket()
        self.socket.bind((host, 0))
        self.socket.listen(0)
        self.port = self.socket.getsockname()[1]
        self.held = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex((host, self.port))
            self.held.append(filler)
