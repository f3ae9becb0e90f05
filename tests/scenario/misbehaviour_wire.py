# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a client does wrong that needs no guest: floods, silence, malformed bytes, greed.

Each function is one round: it takes a Trouble, does its harm for a bounded number of calls or bytes,
and leaves when it is over or when the daemon has thrown it out. What it is refused is no failure.
"""

import contextlib
import os
import select
import socket
import struct

import grpc
from api import METHODS, Refused, pb
from fixture import end_session
from guest import PAGE, memfd
from hostile import (
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, frame, grpc_message,
    request_headers,
)  # fmt: skip
from transport import CANCEL, HEADER, SEND

# Written by whoever wants a line of its own in the operator's log.
FORGED = "x\n<0>iommubrokerd: error: forged\r\x1b[2J\u202eiommubrokerd: error: forged"
# What a session's and a guest's name may hold of it: 63 bytes.
FORGED_NAME = FORGED.encode()[:60].decode(errors="ignore")


def number(method):
    return METHODS[method].number


class Raw:
    """A connection that says what it wants to, and reads when it wants to."""

    def __init__(self, trouble, name, kind, session=False):
        self.path, self.kind = os.path.join(trouble.folder, name), kind
        self.stream = -1
        if session:
            trouble.patiently(self.begin)
        else:
            self.connect()
        trouble.keep(self.sock)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, self.kind)
        # with a timeout a full backlog would be an error
        self.sock.connect(self.path)
        self.sock.settimeout(0.2)

    def begin(self):
        """With a session."""
        self.connect()
        name = pb.OpenSessionRequest(name=FORGED_NAME).SerializeToString()
        try:
            self.sock.send(HEADER.pack(number("OpenSession"), 0, 1) + name)
            answer = self.sock.recv(65536)
            if not answer or pb.NativeAnswer.FromString(answer[HEADER.size :]).status.code:
                raise ConnectionResetError("no session")
        except OSError:
            self.sock.close()
            raise

    def send(self, data, fds=()):
        """False: it does not read any more."""
        try:
            if fds:
                socket.send_fds(self.sock, [data], fds)
            elif self.sock.type == socket.SOCK_SEQPACKET:
                self.sock.send(data)
            else:
                self.sock.sendall(data)
            return True
        except TimeoutError:
            return False

    def drain(self):
        """Answers that are there."""
        while select.select([self.sock], [], [], 0)[0]:
            if not self.sock.recv(1 << 17):
                raise ConnectionResetError("dropped")

    def next_stream(self):
        self.stream += 2
        return self.stream


def packets(trouble, session=False):
    return Raw(trouble, "fd.sock", socket.SOCK_SEQPACKET, session)


def http2(trouble):
    made = Raw(trouble, "broker.sock", socket.SOCK_STREAM)
    made.send(PREFACE + frame(SETTINGS))
    return made


def native_storm(trouble):
    """Tiny calls as fast as they go, each answered."""
    raw = packets(trouble, session=True)
    tiny = [HEADER.pack(number(m), 0, n) for n, m in enumerate(("GetInfo", "ListGuests", "GetUsage", "DescribeGuest"), 2)]
    for _ in range(2000):
        for packet in tiny:
            raw.send(packet)
        raw.drain()


def native_unread(trouble):
    """The same, and no answer is read."""
    raw = packets(trouble, session=True)
    with contextlib.suppress(OSError):
        for n in range(2, 20000):
            if not raw.send(HEADER.pack(number("GetUsage"), 0, n)):
                break


def native_malformed(trouble):
    """Packets that end their connection, each on a new one."""
    rng = trouble.rng
    fd = memfd(PAGE, name="malformed")
    trouble.keep_fd(fd)
    for n in range(40):
        raw = packets(trouble, session=n % 2 == 0)
        packet, fds = rng.choice((
            (b"x", ()), (HEADER.pack(number("GetInfo"), 0, 2)[:15], ()), (HEADER.pack(number("GetInfo"), 7, 2), ()),
            (HEADER.pack(number("GetInfo"), 0, 2) + bytes(65536), ()), (HEADER.pack(number("GetInfo"), 0, 2), (fd,) * 8),
            (HEADER.pack(number("AddMemoryFile"), 0, 2), (fd,) * 200), (HEADER.pack(SEND, 0, 2), (fd, fd)),
        ))  # fmt: skip
        with contextlib.suppress(OSError):
            raw.send(packet, fds)
        trouble.release()
        fd = memfd(PAGE, name="malformed")
        trouble.keep_fd(fd)


def native_random(trouble):
    """Any method, any number, any bytes."""
    rng = trouble.rng
    numbers = [m.number for m in METHODS.values()] + [0, 1, 2, 3, 4, 77, 1 << 31]
    for n in range(30):
        raw = packets(trouble, session=True)
        for call in range(2, 20):
            body = rng.randbytes(rng.choice((0, 1, 9, 100, 3000)))
            # a field that claims more bytes than there are
            body = rng.choice((body, b"\x0a\xff\xff\xff\xff\x07" + body, b"\xff" * 11, b"\x0b" * 300))
            with contextlib.suppress(OSError):
                raw.send(HEADER.pack(rng.choice(numbers), 0, call) + body)
        if n % 4 == 0:
            trouble.release()


def silence(trouble):
    """Connections that are opened on both sockets, and say nothing or half a word."""
    whole = PREFACE + frame(SETTINGS) + frame(HEADERS, END_HEADERS, 1, request_headers())
    for n in range(12):
        with contextlib.suppress(OSError):
            packets(trouble)
            raw = Raw(trouble, "broker.sock", socket.SOCK_STREAM)
            raw.send(whole[: trouble.rng.randrange(1, len(whole))])
    trouble.pause(0.7)


def grpc_storm(trouble):
    """Tiny calls of an ordinary client, many at once."""
    client = trouble.client("grpc")
    for _ in range(12):
        calls = [client.start(m) for m in ("GetInfo", "ListGuests", "GetUsage", "CloseSession") for _ in range(12)]
        for call in calls:
            with contextlib.suppress(Refused):
                call.result()
        end_session(client)
        trouble.patiently(lambda: client.open_session(FORGED_NAME))


def grpc_cancels(trouble):
    """Calls that are cancelled before, while and after they are answered."""
    client = trouble.client("grpc")
    for _ in range(20):
        calls = [client.start("GetUsage") for _ in range(10)]
        for call in trouble.rng.sample(calls, 7):
            call.cancel()
        for call in calls:
            with contextlib.suppress(Refused, grpc.FutureCancelledError):
                call.result()


def rapid_reset(trouble):
    block = request_headers()
    for _ in range(3):
        with contextlib.suppress(OSError):
            raw = http2(trouble)
            for _ in range(400):
                stream = raw.next_stream()
                if not raw.send(frame(HEADERS, END_HEADERS, stream, block) + frame(RST_STREAM, 0, stream, bytes(4))):
                    break


def grpc_unread(trouble):
    """Calls whose answers nobody reads."""
    raw = http2(trouble)
    with contextlib.suppress(OSError):
        for _ in range(2000):
            stream = raw.next_stream()
            call = frame(HEADERS, END_HEADERS, stream, request_headers()) + frame(DATA, END_STREAM, stream, grpc_message())
            if not raw.send(call):
                break


def http2_floods(trouble):
    """Pings, settings, header blocks without an end, messages that lie about their length."""
    kinds = (
        lambda raw: frame(PING, payload=b"12345678") * 50,
        lambda raw: frame(SETTINGS, payload=struct.pack(">HI", 4, 65535)) * 50,
        lambda raw: frame(HEADERS, 0, raw.next_stream(), request_headers()) + frame(CONTINUATION, 0, raw.stream, b"x" * 999),
        lambda raw: frame(HEADERS, END_HEADERS, raw.next_stream(), request_headers())
        + frame(DATA, END_STREAM, raw.stream, grpc_message(b"x" * 99, length=trouble.rng.choice((1, 98, 1 << 31)))),
        lambda raw: trouble.rng.randbytes(4000),
    )
    for make in kinds:
        with contextlib.suppress(OSError):
            raw = http2(trouble)
            for _ in range(200):
                if not raw.send(make(raw)):
                    break
        trouble.release()


def too_many_connections(trouble):
    """As many as it gets."""
    for n in range(100):
        with contextlib.suppress(OSError):
            (packets if n % 2 else http2)(trouble)
    trouble.pause(0.1)


def too_many_sessions(trouble):
    """Each with a connection of its own, and as many as it gets on one of gRPC."""
    client = trouble.client("grpc")
    for n in range(50):
        with contextlib.suppress(OSError):
            packets(trouble).send(HEADER.pack(number("OpenSession"), 0, 1))
    sessions = [client.metadata]
    with contextlib.suppress(Refused):
        for _ in range(80):
            client.open_session(FORGED_NAME)
            sessions.append(client.metadata)
    for client.metadata in sessions:
        end_session(client)


def descriptors_unused(trouble):
    """Sent to wait for a call that never comes."""
    raw = packets(trouble, session=True)
    for n in range(2, 80):
        fd = memfd(PAGE, name="unused")
        try:
            raw.send(HEADER.pack(SEND, 0, n), (fd,))
        finally:
            os.close(fd)
        raw.drain()


def cancels_of_nothing(trouble):
    raw = packets(trouble, session=True)
    for n in range(3000):
        raw.send(HEADER.pack(CANCEL, 0, trouble.rng.getrandbits(64)))


WIRE = {
    kind.__name__: kind
    for kind in (
        native_storm, native_unread, native_malformed, native_random, silence, grpc_storm, grpc_cancels, rapid_reset,
        grpc_unread, http2_floods, too_many_connections, too_many_sessions, descriptors_unused, cancels_of_nothing,
    )
}  # fmt: skip
