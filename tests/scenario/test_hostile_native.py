# SPDX-License-Identifier: LGPL-2.1-or-later
"""Hostile packets on fd.sock."""

import os
import random
import socket
import struct
import time

from api import METHODS, pb
from guest import MIB, PAGE, memfd
from hostile import HostileCase
from transport import HEADER, JOIN, SEND, TAKE

OPEN = METHODS["OpenSession"].number
INFO = METHODS["GetInfo"].number
LIST = METHODS["ListGuests"].number


class Packets(HostileCase):
    def connect(self, session=True):
        attacker = self.attacker("fd.sock", socket.SOCK_SEQPACKET)
        if session:
            attacker.send(HEADER.pack(OPEN, 0, 1))
            attacker.sock.recv(65536)
        return attacker

    def ends(self, data, session=True, fds=()):
        """That packet ends the connection."""
        attacker = self.connect(session)
        with self.bystander():
            try:
                socket.send_fds(attacker.sock, [data], list(fds)) if fds else attacker.sock.send(data)
            except (BrokenPipeError, ConnectionResetError):
                pass
            self.assert_dropped(attacker, data[:24].hex())
        self.no_more_descriptors([attacker])

    def test_malformed_packets(self):
        packets = {
            "empty header": b"x",
            "header cut short": HEADER.pack(INFO, 0, 2)[:15],
            "reserved is not 0": HEADER.pack(INFO, 1, 2),
        }
        for name, packet in packets.items():
            for session in (True, False):
                with self.subTest(name, session=session):
                    self.ends(packet, session)

    def test_a_call_number_in_flight(self):
        attacker = self.connect()
        watch = HEADER.pack(METHODS["WatchEvents"].number, 0, 7)
        guest = pb.CreateGuestRequest(name="x").SerializeToString()
        attacker.send(HEADER.pack(METHODS["CreateGuest"].number, 0, 5) + guest)
        answer = pb.NativeAnswer.FromString(attacker.sock.recv(65536)[HEADER.size :])
        handle = pb.CreateGuestResponse.FromString(answer.message).guest
        request = pb.WatchEventsRequest(guest=handle).SerializeToString()
        with self.bystander():
            attacker.send(watch + request)
            attacker.send(watch + request)
            self.assert_dropped(attacker, "the same call number twice")
        self.no_more_descriptors([attacker])

    def test_unknown_methods(self):
        """Are answered or end the connection; never anything else."""
        # 101 << 24: a client that writes its header big-endian
        for number in (0, 4242, 2**32 - 1, 100, 999, 50, INFO << 24):
            attacker = self.connect()
            attacker.send(HEADER.pack(number, 0, 9))
            try:
                data = attacker.sock.recv(65536)
            except ConnectionResetError:
                data = b""
            if data:
                answer = pb.NativeAnswer.FromString(data[HEADER.size :])
                self.assertEqual(answer.status.code, 12, str(answer))
            attacker.close()

    def test_packets_over_the_limit(self):
        self.ends(HEADER.pack(INFO, 0, 2) + bytes(65536))
        self.ends(HEADER.pack(INFO, 0, 2) + bytes(120000))

    def test_largest_packet(self):
        client = self.client("native")
        request = pb.GetUsageRequest().SerializeToString() + b"\xfa\x3f" + b"\xeb\xff\x03" + bytes(65536 - 16 - 5)
        self.assertEqual(len(request), 65520)
        self.assertTrue(client.call("GetUsage", request).message.tenant)

    def test_silence(self):
        attackers = [self.connect(session=False) for _ in range(20)]
        with self.bystander():
            for attacker in attackers:
                self.assert_dropped(attacker, "silent")
        self.no_more_descriptors(attackers)

    def test_a_session_may_be_silent(self):
        client = self.client("native")
        time.sleep(1.2)
        self.assertEqual(len(client.call("ListGuests").message.guests), 0)

    def test_descriptors_where_none_are_expected(self):
        fd = memfd(PAGE, name="stray")
        self.addCleanup(os.close, fd)
        self.ends(HEADER.pack(INFO, 0, 2), fds=[fd])
        self.ends(HEADER.pack(LIST, 0, 2), fds=[fd] * 8)
        self.ends(HEADER.pack(OPEN, 0, 1), session=False, fds=[fd])
        self.assertFalse(any("stray" in f for f in self.daemon.fds()))

    def test_more_descriptors_than_fit(self):
        fd = memfd(PAGE, name="stray")
        self.addCleanup(os.close, fd)
        add = METHODS["AddMemoryFile"].number
        self.ends(HEADER.pack(add, 0, 2), fds=[fd] * 9)
        self.ends(HEADER.pack(add, 0, 2), fds=[fd] * 200)
        self.ends(HEADER.pack(SEND, 0, 2), fds=[fd] * 2)
        self.assertFalse(any("stray" in f for f in self.daemon.fds()))

    def test_descriptors_of_refused_calls_are_closed(self):
        client = self.client("native")
        fd = memfd(PAGE, name="stray")
        self.addCleanup(os.close, fd)
        for n in range(1, 200):
            call = client.packets.send(
                METHODS["AddMemoryFile"].number, pb.AddMemoryFileRequest(guest=n, descriptor=pb.DescriptorRef(attached=0)), [fd]
            )
            answer, _ = client.packets.answer(call)
            self.assertEqual(answer.status.code, 5)
        self.assertFalse(any("stray" in f for f in self.daemon.fds()))

    def test_other_control_messages(self):
        attacker = self.connect()
        credentials = struct.pack("3i", os.getpid(), os.getuid(), os.getgid())
        with self.bystander():
            attacker.sock.sendmsg([HEADER.pack(INFO, 0, 2)], [(socket.SOL_SOCKET, 2, credentials)])
        attacker.close()

    def test_a_client_that_reads_nothing(self):
        """64 calls are in flight at most; answers that nobody reads do not pile up."""
        attackers = [self.connect() for _ in range(3)]
        with self.bystander():
            for attacker in attackers:
                calls = iter(range(2, 10**9))
                attacker.flood(lambda: HEADER.pack(INFO, 0, next(calls)), bytes_max=16 * MIB, seconds=2)
        self.no_more_descriptors(attackers)

    def test_random_packets(self):
        rng = random.Random(2)
        numbers = [m.number for m in METHODS.values() if not m.admin] + [JOIN, SEND, TAKE, 4]
        with self.bystander():
            for _ in range(200):
                attacker = self.connect()
                for n in range(2, 12):
                    body = rng.randbytes(rng.choice((0, 1, 8, 100, 3000)))
                    if not attacker.send(HEADER.pack(rng.choice(numbers), 0, n) + body):
                        break
                attacker.close()
        self.no_more_descriptors([])

    def test_cancel_of_what_is_not_there(self):
        client = self.client("native")
        for call in (0, 1, 12345, (1 << 64) - 1):
            client.packets.send(4, b"", call=call)
        self.assertEqual(len(client.call("ListGuests").message.guests), 0)
