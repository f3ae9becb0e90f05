# SPDX-License-Identifier: LGPL-2.1-or-later
"""Update rings over a death of the daemon: what waits in one is done by the next process, and a ring
that cannot be taken over ends alone."""

import contextlib
import os
import sys

from api import Refused, pb
from cases import VmmCase
from fixture import PATIENCE
from guest import MIB, PAGE
from ring import LINE, Ring
from supervisor import Supervised
from transport import JOIN, Grpc, Seqpacket
from vmm import WINDOW_FIRST, Started

IOVA = WINDOW_FIRST + MIB
FAULT_ENDED = 2
ENDED_LINE = "an update ring of the process before this one cannot be served: it has ended"
OF_TWO_LANES = ["0b0", "0b1", "0b2", "0r0", "0r1"]


class RingRestartCase(VmmCase):
    daemon_class = Supervised
    transport_name = "native"

    def setUp(self):
        super().setUp()
        self.clients.callback(self.end_session)

    def end_session(self):
        """A session lives as long as its process, which is this one: come back, and close it."""
        with contextlib.closing(Seqpacket(os.path.join(self.daemon.run, "fd.sock"))) as joined:
            try:
                Grpc.native(
                    joined, JOIN, pb.JoinSessionRequest(secret=self.vmm.client.secret), pb.JoinSessionResponse
                )
            except Refused as refused:  # its connection never ended
                self.assertEqual(refused.code, "FAILED_PRECONDITION")

    def ring(self, **shape):
        ring = Ring(self.vmm, **shape)
        self.addCleanup(ring.close)
        return ring

    def names(self, kinds="rb"):
        return sorted(name for name in self.daemon.supervisor.names() if name[1] in kinds)

    def stored(self, name):
        return next(stored.fd for stored in self.daemon.supervisor.store if stored.name == name)


class GoesOn(RingRestartCase):
    def setUp(self):
        super().setUp()
        self.started = Started(self.vmm)

    def refresh(self, ring, lane):
        self.assertEqual(ring.refresh(self.started.created.index, IOVA, PAGE, lane=lane).verdict, pb.VERDICT_DONE)

    def test_what_is_submitted_while_there_is_no_daemon(self):
        """In order, each once, however often it dies; and the tables' changes are seen."""
        ring = self.ring(lanes=2)
        for death in range(3):
            for lane in (0, 1, 1):
                self.refresh(ring, lane)
            self.daemon.stop()
            self.started.tables.map(IOVA + death * PAGE, PAGE, PAGE, True)
            sent = [
                [ring.submit(self.started.created.index, IOVA, 4 * PAGE, lane) for _ in range(16)] for lane in (0, 1)
            ]
            self.daemon.start()
            for lane in (0, 1):
                done = [ring.reap(lane) for _ in range(16)]
                self.assertEqual([d.user_data for d in done], sent[lane])
                self.assertEqual({d.verdict for d in done}, {pb.VERDICT_DONE})
                self.assertEqual(ring.load(ring.lane(lane) + LINE), ring.load(ring.lane(lane)))
            self.assertEqual(self.daemon.status().guests, 1)

    def test_a_lane_that_was_stopped_stays_so(self):
        ring = self.ring(lanes=2)
        ring.store(ring.lane(0), 4711)
        os.write(ring.submit_fd, b"!")
        self.refresh(ring, 1)
        self.assertEqual(ring.fault(0), 1)
        self.daemon.crash()
        self.refresh(ring, 1)
        self.assertEqual(ring.fault(0), 1)


class Stored(RingRestartCase):
    def test_as_long_as_there_is_a_ring(self):
        first = self.ring(lanes=2)
        self.assertEqual(self.names(), OF_TWO_LANES)
        self.ring(lanes=1)
        self.assertEqual(self.names(), sorted([*OF_TWO_LANES, "0b1T", "0b1U", "0r2", "0r3"]))
        first.destroy()
        self.daemon.supervisor.wait_names(["0b1T", "0b1U", "0i0", "0r2", "0r3", "0s0"], PATIENCE)
        self.ring(lanes=2)
        self.assertEqual(self.names(), sorted([*OF_TWO_LANES, "0b1T", "0b1U", "0r2", "0r3"]))
        self.vmm.mutate("DestroyGuest", guest=self.vmm.guest)
        self.daemon.supervisor.wait_names([], PATIENCE)


class Limited(RingRestartCase):
    """A guest, and room for a ring of two lanes."""

    class Small(Supervised):
        manage = {"store_max": 7}

    daemon_class = Small
    settings = {"iommubrokerd.conf": "[Service]\nDescriptorStoreMax=7\n"}

    def test_what_has_no_room_is_refused_whole(self):
        for _ in range(2):
            with self.refused("RESOURCE_EXHAUSTED", reason="DESCRIPTOR_STORE_FULL"):
                Ring(self.vmm, lanes=3)
            self.daemon.supervisor.wait_names(["0i0", "0s0"], PATIENCE)
            ring = self.ring(lanes=2)
            with self.refused("RESOURCE_EXHAUSTED", reason="DESCRIPTOR_STORE_FULL"):
                Ring(self.vmm, lanes=1)
            self.daemon.supervisor.wait_names([*OF_TWO_LANES, "0i0", "0s0"], PATIENCE)
            ring.destroy()
            self.daemon.supervisor.wait_names(["0i0", "0s0"], PATIENCE)


class Damaged(RingRestartCase):
    """One of two rings: it ends, and its client is told; the other, and the guest, go on."""

    def setUp(self):
        super().setUp()
        self.started = Started(self.vmm)
        self.bad, self.good = self.ring(lanes=2), self.ring(lanes=2)

    def harm(self, harm, told=True):
        self.daemon.stop()
        harm(self.daemon.supervisor)
        self.daemon.start()
        self.assertTrue(self.bad.ended())
        self.assertEqual([self.bad.fault(lane) for lane in (0, 1)], [FAULT_ENDED] * 2 if told else [0, 0])
        self.assertEqual(self.daemon.log().count(ENDED_LINE), 1)
        for lane in (0, 1):
            done = self.good.refresh(self.started.created.index, IOVA, PAGE, lane=lane)
            self.assertEqual(done.verdict, pb.VERDICT_DONE)
        self.daemon.supervisor.wait_names(self.expected(), PATIENCE)
        self.daemon.restart()
        self.assertEqual(self.daemon.log().count(ENDED_LINE), 1)

    def expected(self):
        return [n for n in self.daemon.supervisor.names() if n not in OF_TWO_LANES]

    def lose(self, name, **more):
        self.harm(lambda supervisor: supervisor.forget(name), **more)

    def change(self, name, at, data):
        self.harm(lambda supervisor: os.pwrite(self.stored(name), data, at))

    def swap(self, supervisor, name, fd):
        supervisor.forget(name)
        supervisor.put(name, fd)

    def test_the_memory_is_lost(self):
        self.lose("0r0", told=False)

    def test_the_positions_are_lost(self):
        self.lose("0r1")

    def test_the_doorbell_of_submissions_is_lost(self):
        self.lose("0b0")

    def test_a_doorbell_of_completions_is_lost(self):
        self.lose("0b2")

    def test_positions_of_no_version(self):
        self.change("0r1", 0, bytes(4))

    def test_positions_of_another_shape(self):
        self.change("0r1", 4, b"\xff" * 8)

    def test_memory_that_can_shrink(self):
        other = os.memfd_create("unsealed")
        self.addCleanup(os.close, other)
        os.ftruncate(other, len(self.bad.memory))
        self.harm(lambda supervisor: self.swap(supervisor, "0r0", other), told=False)

    def test_memory_that_is_none(self):
        read, write = os.pipe()
        self.addCleanup(os.close, read)
        self.addCleanup(os.close, write)
        self.harm(lambda supervisor: self.swap(supervisor, "0r0", read), told=False)

    def test_positions_that_cannot_be_stop_their_lanes(self):
        """The shape is right: what is wrong shows at the lanes' indices, and only there."""
        self.daemon.stop()
        os.pwrite(self.stored("0r1"), (4711).to_bytes(8, sys.byteorder), 16)
        self.daemon.start()
        self.assertEqual(self.bad.refresh(self.started.created.index, IOVA, PAGE, lane=1).verdict, pb.VERDICT_DONE)
        self.assertEqual([self.bad.fault(lane) for lane in (0, 1)], [1, 0])
        self.assertEqual(self.good.refresh(self.started.created.index, IOVA, PAGE).verdict, pb.VERDICT_DONE)
