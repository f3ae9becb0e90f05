# SPDX-License-Identifier: LGPL-2.1-or-later
"""Sessions, hand-overs, delegations and answers over a death of the daemon: whose a guest is stays
as it was, and what nobody has any more goes."""

import contextlib
import itertools
import os
import re
import socket
import subprocess
import time

from actor import Over
from api import Disconnected, Refused, pb
from cases import VmmCase
from fixture import PATIENCE, built, eventually
from guest import MIB, PAGE, Memory
from supervisor import Supervised
from transport import JOIN, Grpc, Seqpacket
from vmm import WINDOW_FIRST, Started, Vmm

IOVA = WINDOW_FIRST + 5 * PAGE
HOLDING = [pb.RIGHT_MAP, pb.RIGHT_HOLD]


class SessionCase(VmmCase):
    daemon_class = Supervised
    transport_name = "native"

    def setUp(self):
        super().setUp()
        self.known = [self.vmm.client]
        self.clients.callback(self.end_all)

    def join(self, secret):
        """A native connection to the session of that secret."""
        packets = Seqpacket(os.path.join(self.daemon.run, "fd.sock"))
        try:
            Grpc.native(packets, JOIN, pb.JoinSessionRequest(secret=secret), pb.JoinSessionResponse)
        except BaseException:
            packets.close()
            raise
        return packets

    def rejoin(self, *clients):
        """As the library does after a loss of the connection."""
        for client in clients or self.known:
            client.packets.close()
            try:
                client.packets = self.join(client.secret)
            except Refused as refused:
                raise AssertionError("%s; log: %s" % (refused, self.daemon.log())) from None

    def end_all(self):
        """Sessions live as long as their process, which is this one: come back, and end them."""
        for client in self.known:
            client.packets.close()
            with contextlib.suppress(Refused):
                self.join(client.secret).close()

    def another(self, **create):
        vmm = self.new_vmm(**create)
        self.known.append(vmm.client)
        return vmm

    def needs_crash_points(self):
        if not subprocess.run([built("daemon/iommubrokerd"), "--crash-points"], capture_output=True, text=True).stdout:
            self.skipTest("built without -Dcrash_points=true")

    def dies(self, starts):
        eventually(lambda: self.daemon.supervisor.starts > starts, "it died")
        self.daemon.supervisor.wait_ready(0, PATIENCE)
        eventually(lambda: self.daemon.supervisor.ready and self.daemon.alive(), "a successor")


class Bound(SessionCase):
    """The process that bound a device died before it could write the device's id down."""

    def test_deaths_one_after_another_while_binding(self):
        """Each successor finds the same id, and can be followed by another before anything else is made."""
        self.needs_crash_points()
        self.vmm.new_memory()
        device = self.vmm.open()
        self.daemon.restart(once={"IOMMUBROKER_CRASH_AT": "bind-bound"})
        self.rejoin()
        starts = self.daemon.supervisor.starts
        with self.assertRaises((Disconnected, OSError)):
            device.bind()
        self.dies(starts)
        for _ in range(3):
            self.daemon.crash()
        self.assertEqual(re.findall(".*is not taken over.*", self.daemon.log()), [])
        self.assertEqual(self.daemon.status().guests, 1)
        self.rejoin()
        device.bind()


class HandedOver(SessionCase):
    def setUp(self):
        super().setUp()
        self.started = Started(self.vmm)
        self.started.show(IOVA, 0x3000)
        self.started.memory.write(0x3000, b"goes on")

    def prepare(self, **more):
        more.setdefault("seconds", 600)
        self.vmm.mutate("PrepareHandover", guest=self.vmm.guest, **more)

    def holder_ends(self):
        self.vmm.client.packets.close()
        eventually(lambda: self.daemon.status().sessions == 1, "its session waits with the guest")

    def resume(self):
        """The next process: this one, in a session of its own."""
        client = self.client()
        self.known.append(client)

        def try_it():
            try:
                client.call("ResumeGuest", pb.ResumeGuestRequest(request_id=1, secret=self.vmm.secret))
                return True
            except Refused as refused:
                self.assertEqual(refused.reason, "GUEST_HELD")
                return False

        eventually(try_it, "the guest is resumed")
        self.vmm.client = client
        self.known = [client]
        return Vmm(client, itertools.count(100), guest=self.vmm.guest)

    def test_dma_goes_on_all_the_while(self):
        """Deaths between each two steps of it."""
        self.prepare()
        self.daemon.crash()
        self.assertEqual(self.started.dma.read(IOVA, 7), b"goes on")
        self.rejoin()
        self.holder_ends()
        for _ in range(2):
            self.daemon.crash()
            self.assertEqual(self.started.dma.read(IOVA, 7), b"goes on")
            self.assertEqual(self.daemon.status().guests, 1)
        heir = self.resume()
        self.assertEqual([n.nested for n in heir.describe().nested], [self.started.nested])
        self.daemon.crash()
        self.rejoin()
        heir.client = self.vmm.client
        self.started.tables.map(IOVA + PAGE, 0x4000, PAGE, True)
        self.assertEqual(heir.refreshed(self.started.nested, (IOVA + PAGE, PAGE)), (1, 0))
        self.assertEqual(self.started.dma.read(IOVA, 7), b"goes on")

    def test_blocked_stays_blocked(self):
        self.prepare(block_dma=True)
        self.daemon.crash()
        self.assertEqual(self.started.dma.read(IOVA, 7), b"goes on")
        self.rejoin()
        self.holder_ends()
        eventually(lambda: not self.started.dma.reaches(IOVA), "its devices are blocked")
        self.daemon.crash()
        self.assertFalse(self.started.dma.reaches(IOVA))
        heir = self.resume()
        self.assertFalse(self.started.dma.reaches(IOVA))
        heir.attach(self.started.device, pb.ATTACHMENT_NESTED, self.started.nested)
        self.assertEqual(self.started.dma.read(IOVA, 7), b"goes on")

    def test_the_time_runs_out_while_nobody_looks(self):
        """It does not begin anew with the next process."""
        self.prepare(seconds=2)
        self.holder_ends()
        self.daemon.stop()
        time.sleep(2)
        self.daemon.start()
        eventually(lambda: self.daemon.status().guests == 0, "the guest is released")
        self.assertFalse(self.started.dma.reaches(IOVA))
        self.daemon.supervisor.wait_names([], PATIENCE)

    def test_secrets_of_others(self):
        self.prepare()
        self.holder_ends()
        self.daemon.crash()
        client = self.client()
        for n, secret in enumerate((bytes(16), self.vmm.secret[::-1], self.vmm.client.secret)):
            with self.refused("NOT_FOUND"):
                client.call("ResumeGuest", pb.ResumeGuestRequest(request_id=10 + n, secret=secret))
        with self.refused("NOT_FOUND"):
            client.call("DescribeGuest", pb.DescribeGuestRequest(guest=self.vmm.guest))
        self.resume()


class Delegated(SessionCase):
    def delegate(self, rights):
        request = pb.DelegateRequest(request_id=self.vmm.id(), guest=self.vmm.guest, rights=rights)
        reply = self.vmm.client.call("Delegate", request)
        return socket.socket(fileno=self.vmm.client.take(reply.message.socket, reply))

    def delegated(self, rights):
        client = Over(self.delegate(rights))
        client.secret = client.call("OpenSession", pb.OpenSessionRequest(name="vmm")).message.secret
        self.known.append(client)
        return client

    def describe(self, client):
        return client.call("DescribeGuest", pb.DescribeGuestRequest(guest=self.vmm.guest)).message.description

    def manager_ends(self):
        self.vmm.client.packets.close()
        self.known.remove(self.vmm.client)

    def test_held_by_the_delegate(self):
        """After its manager has left, over deaths, until the delegate ends."""
        client = self.delegated(HOLDING)
        self.daemon.crash()
        self.rejoin()
        self.manager_ends()
        eventually(lambda: self.daemon.status().sessions == 1, "the manager's session to end")
        # whose the guest is now was written down at the latest when this is answered
        memory = Memory(MIB)
        self.clients.callback(memory.close)
        Vmm(client, itertools.count(50), guest=self.vmm.guest).add_memory(memory)
        for _ in range(2):
            self.daemon.crash()
            self.rejoin()
            self.describe(client)
        client.packets.close()
        self.known.remove(client)
        eventually(lambda: self.daemon.status().guests == 0, "the guest goes with who held it")

    def test_it_dies_while_the_manager_leaves(self):
        """The guest is the manager's still, or the delegate's already: it is there."""
        self.needs_crash_points()
        client = self.delegated(HOLDING)
        self.daemon.restart(once={"IOMMUBROKER_CRASH_AT": "home-lost"})
        self.rejoin()
        starts = self.daemon.supervisor.starts
        self.vmm.client.packets.close()
        self.dies(starts)
        self.rejoin(client)
        self.describe(client)
        self.assertEqual(self.daemon.status().guests, 1)
        self.rejoin(self.vmm.client)
        self.manager_ends()
        eventually(lambda: self.daemon.status().sessions == 1, "the manager's session to end")
        self.describe(client)

    def test_it_dies_while_delegating(self):
        """What was not answered is not there, and can be asked for again."""
        self.needs_crash_points()
        self.daemon.restart(once={"IOMMUBROKER_CRASH_AT": "delegated"})
        self.rejoin()
        starts = self.daemon.supervisor.starts
        with self.assertRaises((Disconnected, OSError)):
            self.delegate(HOLDING)
        self.dies(starts)
        self.assertEqual(self.daemon.status().sessions, 1)
        self.rejoin()
        client = self.delegated(HOLDING)
        self.describe(client)

    def test_nobody_ever_claims_it(self):
        self.daemon.configure("iommubrokerd.conf", "[Clients]\nDelegationClaimTimeout=500ms\n")
        sock = self.delegate(HOLDING)
        self.clients.callback(sock.close)
        self.daemon.crash()
        self.rejoin()
        self.manager_ends()
        eventually(lambda: self.daemon.status().guests == 0, "the guest is released")


class Repeated(SessionCase):
    def test_answered_as_the_first_time(self):
        """Under the same request id, by the next process; and not done twice."""
        started = Started(self.vmm)
        memory, handle = self.vmm.files[0]
        asked = [
            ("AddMemoryFile", pb.AddMemoryFileRequest(guest=self.vmm.guest, writable=True), memory.fd),
            ("OpenDevice", pb.OpenDeviceRequest(guest=self.vmm.guest, function_id=2), None),
            ("DestroyNested", pb.DestroyNestedRequest(nested=started.nested), None),
        ]
        first = []
        for n, (method, request, fd) in enumerate(asked):
            request.request_id = 1000 + n
            if fd is not None:
                request.descriptor.CopyFrom(self.vmm.client.give(fd))
            first.append(self.vmm.client.call(method, request))
        for reply in first:
            for fd in reply.fds:
                os.close(fd)
        before = self.vmm.describe()
        self.daemon.crash()
        self.rejoin()
        for (method, request, fd), reply in zip(asked, first):
            if fd is not None:
                request.descriptor.CopyFrom(self.vmm.client.give(fd))
            again = self.vmm.client.call(method, request)
            self.assertEqual(
                self.handle_of(again.message), self.handle_of(reply.message), "%s: %s" % (method, again.message)
            )
        after = self.vmm.describe()
        self.assertEqual(
            (len(after.memory_files), len(after.devices), len(after.nested)),
            (len(before.memory_files), len(before.devices), len(before.nested)),
        )

    @staticmethod
    def handle_of(message):
        return getattr(message, "memory_file", None) or getattr(message, "device", None)

    def test_another_request_under_its_number(self):
        request = pb.PrepareHandoverRequest(request_id=77, guest=self.vmm.guest, seconds=5)
        self.vmm.client.call("PrepareHandover", request)
        self.daemon.crash()
        self.rejoin()
        self.vmm.client.call("PrepareHandover", request)
        request.seconds = 6
        with self.refused("INVALID_ARGUMENT"):
            self.vmm.client.call("PrepareHandover", request)


class Lowered(SessionCase):
    settings = {"iommubrokerd.conf": "[Limits]\nPinnedMemoryPerGuestMax=64M\n"}

    def test_limits(self):
        """What is there stays, nothing comes, and once there is room again something does."""
        memory = self.vmm.new_memory(8 * MIB)
        for piece in range(1, 4):
            self.vmm.new_memory(8 * MIB, gpa=piece * 8 * MIB)
        self.daemon.configure("iommubrokerd.conf", "[Limits]\nPinnedMemoryPerGuestMax=16M\n")
        self.daemon.crash()
        self.rejoin()
        self.assertEqual(sum(r.length for r in self.vmm.describe().regions), 32 * MIB)
        self.vmm.unmap(24 * MIB, 8 * MIB)
        with self.refused("RESOURCE_EXHAUSTED"):
            self.vmm.map(memory.handle, 24 * MIB, 8 * MIB)
        self.vmm.unmap(8 * MIB, 16 * MIB)
        self.vmm.map(memory.handle, 24 * MIB, 8 * MIB)
        self.assertEqual(sum(r.length for r in self.vmm.describe().regions), 16 * MIB)


class Damaged(SessionCase):
    def test_one_of_three(self):
        """That one is released, by name; the others do not notice."""
        bad, other = self.another(name="bad"), self.another(name="other")
        started = [Started(vmm, fid=n + 1) for n, vmm in enumerate((self.vmm, bad, other))]
        for one in started:
            one.show(IOVA, 0x3000)
        state = next(s.fd for s in self.daemon.supervisor.store if s.name == "1s0")
        size = os.fstat(state).st_size
        at = 0
        with contextlib.suppress(OSError):
            while True:  # all that was ever written, but for the header
                at = os.lseek(state, max(at, 4096), os.SEEK_DATA)
                end = os.lseek(state, at, os.SEEK_HOLE)
                os.pwrite(state, b"\xa5" * (min(end, size) - at), at)
                at = end
        self.daemon.crash()
        eventually(lambda: self.daemon.status().guests == 2, "one is released")
        self.assertEqual(len(re.findall("guest 1 .*not taken over but released", self.daemon.log())), 1, self.daemon.log())
        takeover = self.daemon.status().takeover
        self.assertEqual((takeover.guests, takeover.released, takeover.mappings), (2, 1, 2))
        self.assertGreater(takeover.nanoseconds, 0)
        self.rejoin(self.vmm.client, other.client)
        for one in (started[0], started[2]):
            one.vmm.describe()
            self.assertTrue(one.dma.reaches(IOVA))
        self.assertFalse(started[1].dma.reaches(IOVA))
