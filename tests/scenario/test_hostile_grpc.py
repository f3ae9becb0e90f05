# SPDX-License-Identifier: LGPL-2.1-or-later
"""Hostile HTTP/2 on broker.sock. Each attack: dropped or throttled, the daemon's memory and
descriptors stay bounded, and another client's calls succeed all the while."""

import array
import os
import random
import socket
import struct

from guest import MIB
from hostile import (
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, PING, PREFACE, PRIORITY,
    PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, HostileCase, frame, grpc_message, literal,
    request_headers,
)  # fmt: skip


class Http2(HostileCase):
    def attack(self, act, connections=1, dropped=True):
        """act(attacker) on so many connections."""
        attackers = [self.attacker() for _ in range(connections)]
        with self.bystander():
            for attacker in attackers:
                act(attacker)
            if dropped:
                for attacker in attackers:
                    self.assert_dropped(attacker)
        self.no_more_descriptors(attackers)

    def test_silence(self):
        self.attack(lambda a: None, connections=20)

    def test_half_a_preface(self):
        self.attack(lambda a: a.send(PREFACE[:12]), connections=20)

    def test_preface_and_then_silence(self):
        self.attack(lambda a: a.begin(), connections=20)

    def test_one_byte_at_a_time(self):
        def drip(attacker):
            for n in range(10):
                attacker.send(PREFACE[n : n + 1])

        self.attack(drip, connections=5)

    def test_pings_are_no_request(self):
        """A connection that only pings is dropped like a silent one."""
        self.attack(lambda a: a.begin().send(frame(PING, payload=b"12345678")))

    def test_garbage(self):
        rng = random.Random(1)
        for prefix in (b"", PREFACE, PREFACE + frame(SETTINGS)):
            self.attack(lambda a: a.send(prefix + rng.randbytes(20000)), connections=10)

    def test_http_1(self):
        self.attack(lambda a: a.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))

    def test_tls(self):
        self.attack(lambda a: a.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)))

    def test_continuation_flood(self):
        def flood(a):
            a.begin()
            a.send(frame(HEADERS, 0, 1, request_headers()))
            self.assertTrue(a.flood(lambda: frame(CONTINUATION, 0, 1, literal(b"x", b"y" * 100) * 100)))
            self.assertLess(a.sent, 4 * MIB)

        self.attack(flood)

    def test_large_headers(self):
        block = request_headers(b"/iommubroker.v1.Host/GetInfo", (b"x-large", b"y" * 5000))
        self.attack(lambda a: a.begin().send(frame(HEADERS, END_HEADERS, 1, block)))

    def test_compressed_header_bomb(self):
        """One large field put into the table, then named again and again in one byte each."""
        field = literal(b"x", b"y" * 3000)
        bomb = b"\x40" + field[1:]
        block = request_headers() + bomb
        again = request_headers() + b"\xbe" * 900

        def flood(a):
            a.begin()
            a.send(frame(HEADERS, END_HEADERS, a.next_stream(), block))
            a.flood(lambda: frame(HEADERS, END_HEADERS, a.next_stream(), again), bytes_max=16 * MIB)

        self.attack_in_turn(flood)

    def attack_in_turn(self, act, connections=6):
        """What one connection leaves behind is still there when the next one begins."""
        for _ in range(connections):
            self.attack(act, dropped=False)

    def stream_flood(self, flags, block):
        def flood(a):
            a.begin()
            a.flood(lambda: frame(HEADERS, END_HEADERS | flags, a.next_stream(), block), bytes_max=16 * MIB)

        self.attack_in_turn(flood)

    def test_streams_without_acknowledging_settings(self):
        """MAX_CONCURRENT_STREAMS binds only those who acknowledge it."""
        self.stream_flood(0, request_headers())

    def test_calls_that_end_at_once(self):
        self.stream_flood(END_STREAM, request_headers())

    def test_calls_that_grpc_refuses(self):
        """Which are no calls to whoever counts calls."""
        self.stream_flood(0, request_headers(b"/x", (b"grpc-timeout", b"zzz")))

    def test_headers_of_many_fields(self):
        self.stream_flood(0, request_headers() + literal(b"a", b"") * 700)

    def test_rapid_reset(self):
        block = request_headers()

        def flood(a):
            a.begin()

            def pair():
                stream = a.next_stream()
                return frame(HEADERS, END_HEADERS, stream, block) + frame(RST_STREAM, 0, stream, bytes(4))

            a.flood(pair, bytes_max=16 * MIB)

        self.attack_in_turn(flood)

    def test_ping_flood(self):
        self.attack(lambda a: a.begin().flood(lambda: frame(PING, payload=b"12345678") * 100), connections=3)

    def test_settings_flood(self):
        setting = struct.pack(">HI", 4, 65535)
        self.attack(lambda a: a.begin().flood(lambda: frame(SETTINGS, payload=setting) * 100), connections=3)

    def test_window_update_flood(self):
        self.attack(lambda a: a.begin().flood(lambda: frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)) * 100))

    def test_priority_flood(self):
        self.attack(lambda a: a.begin().flood(lambda: frame(PRIORITY, 0, 1, bytes(5)) * 100))

    def test_empty_data_flood(self):
        def flood(a):
            a.begin()
            a.send(frame(HEADERS, END_HEADERS, 1, request_headers()))
            a.flood(lambda: frame(DATA, 0, 1) * 200, bytes_max=8 * MIB)

        self.attack(flood, dropped=False)

    def test_huge_message(self):
        def flood(a):
            a.begin()
            a.send(frame(HEADERS, END_HEADERS, 1, request_headers()))
            a.send(frame(DATA, 0, 1, grpc_message(length=1 << 30)))
            a.send(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 30)))
            a.flood(lambda: frame(DATA, 0, 1, bytes(16384)), bytes_max=256 * MIB)

        self.attack(flood, connections=3, dropped=False)

    def test_huge_frames(self):
        self.attack(lambda a: a.begin().send(b"\xff\xff\xff" + bytes([DATA, 0]) + struct.pack(">I", 1) + bytes(100000)))

    def test_lying_message_lengths(self):
        for message in (
            grpc_message(b"x", length=0xFFFFFFFF), grpc_message(b"x" * 100, length=1), grpc_message(b"", compressed=1),
            grpc_message(b"junk" * 10, compressed=1), b"\x00", b"\x02\x00\x00\x00\x00",
        ):  # fmt: skip
            attacker = self.attacker().begin()
            with self.bystander():
                attacker.send(
                    frame(HEADERS, END_HEADERS, 1, request_headers()) + frame(DATA, END_STREAM, 1, message)
                )
            self.no_more_descriptors([attacker])

    def test_frames_out_of_place(self):
        for odd in (
            frame(PUSH_PROMISE, END_HEADERS, 1, bytes(8)), frame(GOAWAY, 0, 0, bytes(8)), frame(0x99, 0xFF, 7, bytes(99)),
            frame(HEADERS, END_HEADERS, 2, request_headers()), frame(HEADERS, END_HEADERS, 0, request_headers()),
            frame(DATA, 0, 5, bytes(10)), frame(RST_STREAM, 0, 9, bytes(4)), frame(PING, 0, 0, bytes(7)),
            frame(SETTINGS, 0, 0, bytes(5)), frame(SETTINGS, 0, 3, bytes(6)), frame(WINDOW_UPDATE, 0, 0, bytes(4)),
            frame(HEADERS, END_HEADERS | PADDED, 1, b"\xff" + request_headers()), frame(CONTINUATION, 0, 1, b"x"),
            frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff") * 2, frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff"),
            frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0xFFFFFFFF)), frame(SETTINGS, 0, 0, struct.pack(">HI", 5, 1)),
        ):  # fmt: skip
            with self.subTest(frame=odd[:16].hex()):
                attacker = self.attacker().begin()
                with self.bystander():
                    attacker.send(odd)
                self.no_more_descriptors([attacker])

    def test_odd_requests(self):
        """Well-formed HTTP/2 that is no gRPC call."""
        for fields in (
            [(b":method", b"GET")], [(b":path", b"*")], [(b":path", b"")], [(b"content-type", b"text/html")],
            [(b":authority", b"%2Frun%2Fx.sock")], [(b"grpc-timeout", b"99999999999H")], [(b"grpc-timeout", b"0n")],
            [(b"grpc-encoding", b"gzip")], [(b"iommubroker-session-bin", b"!!! no base64 !!!")],
            [(b"iommubroker-session-bin", b"A" * 3000)], [(b"te", b"gzip")],
        ):  # fmt: skip
            with self.subTest(fields=fields):
                attacker = self.attacker().begin()
                replaced = dict(
                    [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/iommubroker.v1.Host/ListGuests"),
                     (b":authority", b"x"), (b"content-type", b"application/grpc"), (b"te", b"trailers")] + fields
                )  # fmt: skip
                block = b"".join(literal(n, v) for n, v in replaced.items())
                with self.bystander():
                    attacker.send(
                        frame(HEADERS, END_HEADERS, 1, block) + frame(DATA, END_STREAM, 1, grpc_message())
                    )
                self.no_more_descriptors([attacker])

    def test_a_client_that_reads_nothing(self):
        """Answers that nobody reads do not pile up."""

        def flood(a):
            a.begin()
            a.send(frame(SETTINGS, ACK))
            block = request_headers()

            def call():
                stream = a.next_stream()
                return frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, END_STREAM, stream, grpc_message())

            a.flood(call, bytes_max=32 * MIB, seconds=2)

        self.attack(flood, connections=3, dropped=False)

    def test_descriptors_smuggled_into_the_stream(self):
        """SCM_RIGHTS among the bytes of HTTP/2: none may be installed in the daemon, and the
        connection is dropped."""
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        self.addCleanup(os.close, writer)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [reader] * 50))]
        attackers = []
        most = 0
        with self.bystander():
            for n in range(40):
                attacker = self.attacker()
                attackers.append(attacker)
                pieces = [PREFACE, frame(SETTINGS), frame(HEADERS, END_HEADERS, 1, request_headers()), frame(PING, payload=bytes(8))]
                for at, piece in enumerate(pieces):
                    try:
                        attacker.sock.sendmsg([piece], rights if at == n % 4 else [])
                    except OSError:
                        break
                most = max(most, sum(f.startswith("pipe:") for f in self.daemon.fds()))
            for attacker in attackers:
                self.assert_dropped(attacker)
        self.no_more_descriptors(attackers)
        held = [f for f in self.daemon.fds() if f == os.readlink("/proc/self/fd/%d" % reader)]
        self.assertEqual(held, [])

    def test_out_of_band_errors(self):
        """The same while the socket reports errors (the read of the error queue that gRPC makes)."""
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        self.addCleanup(os.close, writer)
        name = os.readlink("/proc/self/fd/%d" % reader)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [reader] * 100))]
        for n in range(40):
            attacker = self.attacker().begin()
            try:
                attacker.sock.sendmsg([frame(SETTINGS, ACK)], rights)
            except OSError:
                pass
            # unread answers and a close with data in flight: EPOLLERR on the daemon's side
            attacker.close()
        with self.bystander():
            pass
        self.no_more_descriptors([])
        self.assertNotIn(name, self.daemon.fds())

    def test_many_connections_come_and_go(self):
        with self.bystander():
            for _ in range(300):
                attacker = self.attacker()
                attacker.send(PREFACE + frame(SETTINGS))
                attacker.close()
        self.no_more_descriptors([])

    def test_user_has_only_so_many_connections(self):
        """More connections than one user may have: turned away, the others stay."""
        attackers = []
        with self.bystander():
            for _ in range(400):
                attackers.append(self.attacker())
            self.assertLessEqual(len(self.daemon.fds()), self.fds + 256 * 6)
        self.no_more_descriptors(attackers)
