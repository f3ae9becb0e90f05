# SPDX-License-Identifier: LGPL-2.1-or-later
"""What hostile clients are made of: raw HTTP/2 frames, floods, and a bystander who must not notice."""

import contextlib
import os
import socket
import threading
import time

import transport
from cases import VmmCase
from fixture import eventually
from guest import MIB, PAGE
from vmm import WINDOW_FIRST, Started

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8
IOVA = WINDOW_FIRST + 5 * PAGE


def frame(kind, flags=0, stream=0, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def literal(name, value):
    """A header field that goes into no table."""

    def text(t):
        length = len(t)
        if length < 127:
            return bytes([length]) + t
        length -= 127
        out = b"\x7f"
        while length >= 128:
            out += bytes([length & 127 | 128])
            length >>= 7
        return out + bytes([length]) + t

    return b"\x00" + text(name) + text(value)


def request_headers(path=b"/iommubroker.v1.Host/GetInfo", *more):
    fields = [
        (b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"localhost"),
        (b"content-type", b"application/grpc"), (b"te", b"trailers"), *more,
    ]  # fmt: skip
    return b"".join(literal(*f) for f in fields)


def grpc_message(body=b"", compressed=0, length=None):
    return bytes([compressed]) + (len(body) if length is None else length).to_bytes(4, "big") + body


class Attacker:
    """One raw connection to broker.sock."""

    def __init__(self, daemon, name="broker.sock", kind=socket.SOCK_STREAM):
        self.sock = socket.socket(socket.AF_UNIX, kind)
        # with a timeout a full backlog would be an error
        self.sock.connect(os.path.join(daemon.run, name))
        self.sock.settimeout(transport.PATIENCE)
        self.stream = 1
        self.sent = 0

    def begin(self):
        self.send(PREFACE + frame(SETTINGS))
        return self

    def next_stream(self):
        self.stream += 2
        return self.stream - 2

    def send(self, data):
        """False when the daemon has dropped the connection."""
        try:
            self.sock.sendall(data)
            self.sent += len(data)
            return True
        except (BrokenPipeError, ConnectionResetError):
            return False

    def flood(self, make, bytes_max=64 * MIB, seconds=3):
        """Send what make() gives, again and again. True if the daemon dropped the connection; False
        if it stopped reading, or took all of it."""
        end = time.monotonic() + seconds
        self.sock.settimeout(0.5)
        try:
            while self.sent < bytes_max and time.monotonic() < end:
                if not self.send(make()):
                    return True
        except TimeoutError:
            return False
        return False

    def dropped(self):
        """Whether the daemon has closed it: reads what is there and looks for the end."""
        self.sock.settimeout(0.05)
        try:
            while True:
                if not self.sock.recv(65536):
                    return True
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False

    def close(self):
        self.sock.close()


class HostileCase(VmmCase):
    """A bystander with DMA and calls of its own; memory and descriptors of the daemon are watched."""

    settings = {"iommubrokerd.conf": "[Clients]\nFirstRequestTimeout=500ms\n"}
    transport_name = "native"
    swell_bytes_max = 64 * MIB

    def setUp(self):
        super().setUp()
        self.started = Started(self.vmm)
        self.started.show(IOVA, 0x3000)
        self.other = self.client("grpc")
        self.other.call("GetUsage")
        self.fds = len(self.daemon.fds())
        self.memory_before = self.daemon.memory_bytes()
        self.swell = 0
        with open("/proc/%d/maps" % self.daemon.pid) as f:
            maps = f.read()
        if "libasan" in maps or "libtsan" in maps or "clang_rt" in maps:
            # freed memory stays in the sanitizer's quarantine
            self.swell_bytes_max = 700 * MIB

    @contextlib.contextmanager
    def bystander(self):
        """Calls over both transports during the body; each must succeed."""
        stop, failures, counts = threading.Event(), [], [0, 0]

        def work():
            while not stop.is_set():
                try:
                    self.other.call("GetUsage")
                    counts[0] += 1
                    self.vmm.refreshed(self.started.nested, (IOVA, PAGE))
                    counts[1] += 1
                except Exception as error:  # noqa: BLE001: whatever it is, it is the finding
                    failures.append(error)
                    return

        def watch():
            while not stop.wait(0.005):
                self.swell = max(self.swell, self.daemon.memory_bytes() - self.memory_before)

        threads = [threading.Thread(target=work), threading.Thread(target=watch)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        self.assertEqual(failures, [], "another client's calls succeed meanwhile")
        self.assertTrue(min(counts) > 0)
        self.assertLess(self.swell, self.swell_bytes_max, "the daemon's memory stays bounded")

    def attacker(self, *args):
        made = Attacker(self.daemon, *args)
        self.clients.callback(made.close)
        return made

    def assert_dropped(self, attacker, what=""):
        eventually(lambda: attacker.dropped() or "still connected", "the connection is dropped: " + what)

    def no_more_descriptors(self, attackers):
        for attacker in attackers:
            attacker.close()
        eventually(lambda: len(self.daemon.fds()) <= self.fds or self.daemon.fds(), "no descriptor is left of it")
