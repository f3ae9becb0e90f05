# SPDX-License-Identifier: LGPL-2.1-or-later
"""The watchdog: a daemon that hangs is killed, and the next one goes on; one that only works long is not.

Threads are held at a point of daemon/util/crash_point.h for as long as a file is there. Nothing is judged
by its time: what counts is how often the daemon said that it lives."""

import contextlib
import os
import signal
import socket
import time

from api import pb
from fixture import PATIENCE, Case, eventually
from guest import MIB, PAGE, Memory
from ring import Ring
from supervisor import Supervised
from test_restart_sessions import SessionCase
from vmm import WINDOW_FIRST, Started

IOVA = WINDOW_FIRST + MIB
# Told to the daemon, which speaks at least twice in each; it is killed for a silence of twenty.
PERIOD, SILENCE, PERIODS = 0.4, 8, 10


class Watched(Supervised):
    manage = {"watchdog_seconds": SILENCE, "watchdog_told": PERIOD}


class WatchedCase(SessionCase):
    """A daemon whose threads hang at the point, as soon as hold() is called."""

    daemon_class = Watched
    point = None

    def setUp(self):
        Case.setUp(self)
        self.needs_crash_points()
        self.hold_path = os.path.join(self.daemon.folder, "hold")
        self.daemon.restart(once={"IOMMUBROKER_HANG_AT": "%s:%s" % (self.point, self.hold_path)})
        self.addCleanup(self.release)
        self.vmm = self.new_vmm()
        self.known = [self.vmm.client]
        self.clients.callback(self.end_all)
        self.started = Started(self.vmm)
        self.started.show(IOVA, 0x3000)
        self.started.memory.write(0x3000, b"goes on")

    def hold(self):
        open(self.hold_path, "w").close()

    def release(self):
        if os.path.exists(self.hold_path):
            os.unlink(self.hold_path)

    def wait_held(self):
        eventually(lambda: os.path.exists(self.hold_path + ".held"), "a thread hangs")

    def said(self):
        """How often it said that it lives."""
        return sum("WATCHDOG=1" in text.split("\n") for text in list(self.daemon.supervisor.messages))

    def outlives(self, periods, meanwhile):
        """Many periods of the watchdog pass, as the daemon says, and all is served in each."""
        pid = self.daemon.pid
        for _ in range(periods):
            before = self.said()
            meanwhile()
            eventually(lambda: self.said() >= before + 2, "it says that it lives")
        self.assertEqual(self.daemon.pid, pid)
        self.assertEqual(self.daemon.supervisor.watchdog_kills, 0)

    def is_replaced(self):
        """It is killed, its successor takes over, and DMA goes on all the while."""
        ready = self.daemon.supervisor.readies

        def came():
            self.assertEqual(self.started.dma.read(IOVA, 7), b"goes on")
            return self.daemon.supervisor.readies > ready and self.daemon.supervisor.ready

        eventually(came, "a successor")
        self.assertEqual(self.daemon.supervisor.watchdog_kills, 1)
        self.assertIn("ABRT", self.ended())
        with open(self.daemon.log_path, "r+b") as log:
            self.assertNotIn(b"is not taken over", log.read())
            log.truncate(0)  # a sanitizer's word on the signal
        self.rejoin()
        self.assertEqual(self.daemon.status().guests, 1)
        self.started.show(IOVA + PAGE, 0x4000)
        self.assertEqual(self.vmm.refreshed(self.started.nested), (0, 0))

    def ended(self):
        status = self.daemon.supervisor.exits[-1]
        sanitized = any("SAN_OPTIONS" in name for name in os.environ)
        return "ABRT" if status == -signal.SIGABRT or (sanitized and status) else str(status)


class Pinning(WatchedCase):
    point = "pin-area"

    def setUp(self):
        super().setUp()
        self.neighbour = Started(self.another(name="neighbour"), 2)
        self.grpc = self.client("grpc")
        self.page = 0

    def serve_others(self):
        """Over both transports, for another guest and for the same, which goes on refreshing."""
        at = IOVA + self.page * PAGE
        self.page += 1
        self.neighbour.show(at, 0x5000)
        self.started.show(at, 0x3000)
        self.assertEqual(self.started.dma.read(IOVA, 7), b"goes on")
        self.assertEqual(self.grpc.call("GetInfo").message.backend, "emulated")
        self.assertEqual(self.daemon.status().guests, 2)

    def mapping(self):
        """A request that pins."""
        memory = Memory(MIB, 64 * MIB)
        self.addCleanup(memory.close)
        handle = self.vmm.add_memory(memory)
        request = pb.UpdateMemoryRequest(request_id=self.vmm.id(), guest=self.vmm.guest)
        request.map.add(memory_file=handle, gpa=64 * MIB, length=MIB, access=pb.ACCESS_READ_WRITE)
        return request

    def test_of_a_map_call(self):
        request = self.mapping()
        self.hold()
        call = self.vmm.client.start("UpdateMemory", request)
        self.wait_held()
        self.outlives(PERIODS, self.serve_others)
        self.release()
        self.assertEqual(call.result().message.WhichOneof("update"), "done")
        self.assertEqual(len(self.vmm.describe().regions), 2)
        self.started.show(WINDOW_FIRST, 64 * MIB)

    def test_of_the_first_bind(self):
        vmm = self.another(name="slow")
        vmm.new_memory()
        device = vmm.open(3)
        self.hold()
        call = vmm.client.start("BindDevice", pb.BindDeviceRequest(request_id=vmm.id(), device=device.handle))
        self.wait_held()
        self.outlives(PERIODS, lambda: self.started.show(IOVA, 0x3000))
        self.release()
        self.assertEqual(call.result().message.WhichOneof("update"), "done")

    def test_a_restart_does_not_wait_for_it(self):
        """Whoever comes next undoes it: its client was not answered, and asks again."""
        request = self.mapping()
        self.hold()
        self.vmm.client.start("UpdateMemory", request)
        self.wait_held()
        self.daemon.restart()
        self.rejoin()
        self.assertEqual(len(self.vmm.describe().regions), 1)
        self.assertEqual(self.started.dma.read(IOVA, 7), b"goes on")
        self.assertEqual(self.vmm.client.call("UpdateMemory", request).message.WhichOneof("update"), "done")
        self.assertEqual(self.daemon.supervisor.watchdog_kills, 0)


class Deaf(Case):
    daemon_class = Watched

    def fill(self):
        """The manager's queue: nobody else gets anything in."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            with contextlib.suppress(BlockingIOError):
                while True:
                    sock.sendto(b"X_TEST=1", self.daemon.supervisor.notify_path)

    def test_a_manager_that_reads_nothing(self):
        """What the loop has to tell waits, and no client does."""
        client = self.client("native")
        self.addCleanup(self.daemon.supervisor.deafen, False)
        self.daemon.supervisor.deafen(True)
        for _ in range(PERIODS):
            self.fill()
            time.sleep(PERIOD)
            self.assertEqual(client.call("GetInfo").message.backend, "emulated")
        before = WatchedCase.said(self)
        self.daemon.supervisor.deafen(False)
        eventually(lambda: WatchedCase.said(self) >= before + 5, "it says that it lives")
        self.assertEqual(self.daemon.supervisor.exits, [])
        # who filled the queue was not the main process
        self.assertTrue(self.daemon.supervisor.complaints)
        self.daemon.supervisor.complaints.clear()


class MainLoop(WatchedCase):
    point = "packet-read"

    def test_it_hangs(self):
        self.hold()
        self.client(session=False).start("GetInfo")
        self.wait_held()
        self.is_replaced()


class GuardLoop(WatchedCase):
    """The one that carries gRPC's bytes: operators and managers would be shut out for good."""

    point = "bytes-read"

    def test_it_hangs(self):
        self.hold()
        client = self.client("grpc", session=False)
        client.start("GetInfo")
        self.wait_held()
        self.is_replaced()


class Queue(GuardLoop):
    """The thread that takes gRPC's calls."""

    point = "call-taken"


class RingThread(WatchedCase):
    point = "ring-loaded"

    def test_it_hangs(self):
        ring = Ring(self.vmm)
        self.addCleanup(ring.close)
        index = self.started.created.index
        self.assertEqual(ring.refresh(index, IOVA, PAGE).verdict, pb.VERDICT_DONE)
        self.hold()
        sent = ring.submit(index, IOVA, PAGE)
        self.wait_held()
        self.is_replaced()
        done = ring.reap()
        self.assertEqual((done.user_data, done.verdict), (sent, pb.VERDICT_DONE))
