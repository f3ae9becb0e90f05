# SPDX-License-Identifier: LGPL-2.1-or-later
"""Managers: guests on behalf of others, handed on by a connected or a listening socket."""

import os
import select
import socket
import subprocess
import unittest

from actor import Actor, Over
from api import METHODS, Disconnected, Refused, pb
from fixture import Case, built, eventually
from guest import MIB, PAGE, Memory
from supervisor import Supervised
from vmm import WINDOW_FIRST, Started, Vmm

NAMES = ("MAP", "DEVICE", "DOMAIN", "REFRESH", "EVENTS", "HOLD")
ALL = [pb.RIGHT_MAP, pb.RIGHT_DEVICE, pb.RIGHT_DOMAIN, pb.RIGHT_REFRESH, pb.RIGHT_EVENTS, pb.RIGHT_HOLD]
NEEDS = {
    "AddMemoryFile": "MAP", "UpdateMemory": "MAP", "RemoveMemoryFile": "MAP", "OpenDevice": "DEVICE",
    "BindDevice": "DEVICE", "GetDescriptor": "DEVICE", "CloseDevice": "DEVICE", "CreateNested": "DOMAIN",
    "ReplaceNested": "DOMAIN", "DestroyNested": "DOMAIN", "Attach": "DOMAIN", "UpdateNested": "DOMAIN",
    "ResetGuest": "DOMAIN", "RefreshNested": "REFRESH", "WatchEvents": "EVENTS",
}  # fmt: skip
NEVER = ("CreateGuest", "DestroyGuest", "Delegate", "RevokeDelegation", "CheckFit", "GetUsage")
VMM_UID, POD_UID = 64055, 65533


def is_root():
    return os.getuid() == 0


class ManagerCase(Case):
    def actor(self, path=None, **options):
        made = Actor(path or os.path.join(self.daemon.run, "fd.sock"), **options)
        self.clients.callback(made.close)
        return made

    def manager(self, **create):
        client = self.actor()
        client.open_session("manager")
        vmm = Vmm(client, **create)
        self.clients.callback(vmm.stack.close)
        return vmm

    def delegate(self, manager, rights=ALL, **more):
        """The delegation and the delegate's socket."""
        request = pb.DelegateRequest(request_id=manager.id(), guest=manager.guest, rights=rights, **more)
        reply = manager.client.call("Delegate", request)
        sock = None
        if reply.message.HasField("socket"):
            sock = socket.socket(fileno=manager.client.take(reply.message.socket, reply))
            self.clients.callback(sock.close)
        return reply.message.delegation, sock

    def delegated(self, manager, rights=ALL, uid=None, **more):
        """A process that was given the socket and has its session."""
        delegation, sock = self.delegate(manager, rights, **more)
        client = self.actor(sock, uid=uid)
        sock.close()
        client.open_session("vmm")
        client.delegation = delegation
        return client

    def used(self, tenant, resource):
        for usage in self.daemon.status().usage:
            if usage.tenant == tenant:
                return {entry.resource: entry.current for entry in usage.usage}[resource]
        return 0

    def guests_used(self):
        return self.used("host", "guests")


class Delegations(ManagerCase):
    def test_each_right(self):
        manager = self.manager()
        for right, name in zip(ALL, NAMES):
            client = self.delegated(manager, [right])
            for method, needed in NEEDS.items():
                with self.subTest(right=name, method=method):
                    with self.assertRaises(Refused) as caught:
                        client.call(method)
                    error = caught.exception
                    if needed == name:
                        self.assertNotEqual(error.reason, "NO_RIGHT", str(error))
                    else:
                        self.assertEqual((error.code, error.reason), ("PERMISSION_DENIED", "NO_RIGHT"), str(error))
                        self.assertIn(needed, error.message)
            for method in NEVER:
                with self.subTest(right=name, method=method), self.refused("PERMISSION_DENIED", reason="NO_RIGHT"):
                    client.call(method)
            client.close()

    def test_delegate_works_and_others_see_nothing(self):
        manager = self.manager()
        other = self.manager(name="other")
        client = self.delegated(manager)
        self.assertEqual([g.guest for g in client.call("ListGuests").message.guests], [manager.guest])
        memory = Memory(MIB)
        self.clients.callback(memory.close)
        fields = {"guest": manager.guest, "descriptor": client.give(memory.fd), "writable": True}
        file = client.call("AddMemoryFile", pb.AddMemoryFileRequest(request_id=1, **fields)).message.memory_file
        entry = pb.UpdateMemoryRequest.Map(memory_file=file, gpa=0, length=MIB, access=pb.ACCESS_READ_WRITE)
        client.call("UpdateMemory", pb.UpdateMemoryRequest(request_id=2, guest=manager.guest, map=[entry]))
        self.assertEqual(manager.describe().region_bytes, MIB)
        with self.refused("NOT_FOUND"):
            client.call("DescribeGuest", pb.DescribeGuestRequest(guest=other.guest))

    def test_devices_that_were_named(self):
        manager = self.manager()
        one, two = manager.open(5), manager.open(6)
        client = self.delegated(manager, devices=[one.handle])
        client.call("GetDeviceInfo", pb.GetDeviceInfoRequest(device=one.handle))
        with self.refused("NOT_FOUND"):
            client.call("GetDeviceInfo", pb.GetDeviceInfoRequest(device=two.handle))
        with self.refused("PERMISSION_DENIED", reason="NO_RIGHT"):
            client.call("OpenDevice", pb.OpenDeviceRequest(request_id=1, guest=manager.guest, function_id=7))
        with self.refused("PERMISSION_DENIED", reason="NO_RIGHT"):
            client.call("ResetGuest", pb.ResetGuestRequest(request_id=2, guest=manager.guest))

    def test_limits_of_delegate(self):
        manager = self.manager()
        client = self.delegated(manager, limits=pb.CreateGuestRequest.Limits(pinned_bytes_max=MIB))
        manager.new_memory(MIB)
        memory = Memory(PAGE)
        self.clients.callback(memory.close)
        handle = manager.add_memory(memory)
        with self.refused("RESOURCE_EXHAUSTED", reason="QUOTA_EXCEEDED") as caught:
            manager.map(handle, 64 * MIB, PAGE)
        self.assertEqual(caught.exception.metadata["rule"], "limit given at Delegate")
        manager.mutate("RevokeDelegation", delegation=client.delegation)
        manager.map(handle, 64 * MIB, PAGE)

    def test_so_many_of_one_guest(self):
        manager = self.manager()
        made = [self.delegate(manager) for _ in range(16)]
        with self.refused("RESOURCE_EXHAUSTED", reason="QUOTA_EXCEEDED") as caught:
            self.delegate(manager)
        self.assertEqual(caught.exception.metadata["resource"], "delegations")
        manager.mutate("RevokeDelegation", delegation=made[0][0])
        self.delegate(manager)
        with self.refused("RESOURCE_EXHAUSTED", reason="QUOTA_EXCEEDED"):
            self.delegate(manager)

    def test_revoked(self):
        manager = self.manager()
        client = self.delegated(manager)
        stranger = self.manager(name="stranger")
        with self.refused("NOT_FOUND"):
            stranger.mutate("RevokeDelegation", delegation=client.delegation)
        client.call("DescribeGuest", pb.DescribeGuestRequest(guest=manager.guest))
        manager.mutate("RevokeDelegation", delegation=client.delegation)
        with self.refused("UNAUTHENTICATED"):
            client.call("DescribeGuest", pb.DescribeGuestRequest(guest=manager.guest))
        with self.refused("NOT_FOUND"):
            manager.mutate("RevokeDelegation", delegation=client.delegation)
        manager.describe()

    def test_watchers_are_told_before_their_watch_ends(self):
        manager = self.manager()
        client = self.delegated(manager)
        client.start("WatchEvents", pb.WatchEventsRequest(guest=manager.guest))
        eventually(lambda: self.used("host", "event_watches") == 1, "the watch to begin")
        manager.mutate("RevokeDelegation", delegation=client.delegation)
        (status, messages), _ = client._receive()
        kinds = [pb.Event.FromString(m).kind for m in messages]
        self.assertEqual((status, kinds), ("", [pb.EVENT_KIND_REVOKED]))
        manager.describe()

    def test_socket_is_who_uses_it_first(self):
        manager = self.manager()
        _, sock = self.delegate(manager)
        thief = Over(sock.dup())
        self.clients.callback(thief.close)
        client = self.actor(sock)
        client.open_session("vmm")
        with self.refused("UNAUTHENTICATED", reason="NOT_THE_PEER"):
            thief.call("DescribeGuest", pb.DescribeGuestRequest(guest=manager.guest))
        client.call("DescribeGuest", pb.DescribeGuestRequest(guest=manager.guest))

    def test_bound_to_a_peer(self):
        manager = self.manager()
        pidfd = os.pidfd_open(os.getpid())
        self.addCleanup(os.close, pidfd)
        _, sock = self.delegate(manager, peer=manager.client.give(pidfd))
        thief = self.actor(sock)
        with self.refused("UNAUTHENTICATED", reason="NOT_THE_PEER"):
            thief.open_session()

    def test_peer_is_no_pidfd(self):
        manager = self.manager()
        with open("/dev/null") as null, self.refused("INVALID_ARGUMENT", field="peer"):
            self.delegate(manager, peer=manager.client.give(null.fileno()))

    def test_socket_that_nobody_has_ends_it(self):
        manager = self.manager()
        _, sock = self.delegate(manager)
        self.assertEqual(self.daemon.status().sessions, 2)
        sock.close()
        eventually(lambda: self.daemon.status().sessions == 1, "the session to end")


class Libvirt(ManagerCase):
    """A manager makes everything; all its guests' processes are of one user; it restarts."""

    def settle(self):
        eventually(lambda: self.guests_used() == 0, "all guests to be gone")

    def test_manager_hands_on_and_leaves(self):
        uid = VMM_UID if is_root() else None
        manager = self.manager(name="one")
        client_two = Vmm(manager.client, ids=manager.ids, name="two")
        one = self.delegated(manager, uid=uid)
        two = self.delegated(client_two, uid=uid)
        with self.refused("NOT_FOUND"):
            two.call("DescribeGuest", pb.DescribeGuestRequest(guest=manager.guest))
        with self.refused("NOT_FOUND"):
            one.call("ResetGuest", pb.ResetGuestRequest(request_id=1, guest=client_two.guest))
        manager.client.kill()
        eventually(lambda: self.daemon.status().sessions == 2, "the manager's session to end")
        again = self.manager(name="again")
        with self.refused("NOT_FOUND"):
            again.ask("DescribeGuest", guest=manager.guest)
        told = one.call("DescribeGuest", pb.DescribeGuestRequest(guest=manager.guest)).message.description
        self.assertEqual((told.name, told.pid), ("one", one.pid))
        if uid is not None:
            self.assertEqual(told.uid, uid)
        again.client.kill()
        one.kill()
        eventually(lambda: self.guests_used() == 1, "the guest of the process that died to go")
        two.call("DescribeGuest", pb.DescribeGuestRequest(guest=client_two.guest))
        two.kill()
        self.settle()

    def test_held_by_the_manager_alone(self):
        manager = self.manager()
        client = self.delegated(manager, [pb.RIGHT_MAP])
        client.kill()
        eventually(lambda: self.daemon.status().sessions == 1, "the delegate's session to end")
        manager.describe()
        second = self.delegated(manager, [pb.RIGHT_MAP])
        manager.client.kill()
        self.settle()
        with self.refused("NOT_FOUND"):
            second.call("DescribeGuest", pb.DescribeGuestRequest(guest=manager.guest))

    def test_secret_is_of_no_use_to_others(self):
        manager = self.manager()
        _, sock = self.delegate(manager)
        client = self.actor(sock)
        secret = client.open_session().secret
        thief = self.client(session=False)
        with self.assertRaises(Refused) as caught:
            thief.packets.send(1, pb.JoinSessionRequest(secret=secret))
            from transport import NativeCall

            NativeCall(thief.packets, thief.packets.next_call - 1, "JoinSession", pb.JoinSessionResponse).result()
        self.assertEqual(caught.exception.code, "UNAUTHENTICATED")


class VolumeCase(ManagerCase):
    def listening(self, name="volume.sock"):
        path = os.path.join(self.daemon.folder, name)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.clients.callback(sock.close)
        sock.bind(path)
        sock.listen(4)
        os.chmod(path, 0o666)
        return path, sock


class Pod(VolumeCase):
    """A socket in a volume, where processes of other users connect."""

    def setUp(self):
        super().setUp()
        probe = ["unshare", "--user", "--map-root-user", "true"]
        user = POD_UID if is_root() else None
        if subprocess.run(probe, user=user, stderr=subprocess.DEVNULL).returncode:
            self.skipTest("this system lets users make no user namespaces")

    def test_another_user_in_another_namespace(self):
        """Root in there, somebody else out here, and nobody whom a rule is for."""
        manager = self.manager()
        path, sock = self.listening()
        self.delegate(manager, [pb.RIGHT_MAP, pb.RIGHT_HOLD], listening_socket=manager.client.give(sock.fileno()))
        sock.close()
        client = self.actor(path, uid=POD_UID if is_root() else None, namespace=True)
        self.assertNotEqual(os.readlink("/proc/%d/ns/user" % client.pid), os.readlink("/proc/self/ns/user"))
        client.open_session()
        told = client.call("DescribeGuest", pb.DescribeGuestRequest(guest=manager.guest)).message.description
        self.assertEqual(told.pid, client.pid)
        self.assertEqual(told.uid, POD_UID if is_root() else os.getuid())
        self.assertEqual(told.tenant, "uid:%d" % os.getuid())
        for method in ("CreateGuest", "OpenDevice", "CreateNested", "WatchEvents", "Delegate"):
            with self.subTest(method), self.refused("PERMISSION_DENIED", reason="NO_RIGHT"):
                client.call(method)
        late = self.actor(path)
        with self.refused("FAILED_PRECONDITION"):
            late.open_session()
        manager.client.kill()
        eventually(lambda: self.daemon.status().sessions == 1, "the manager's session to end")
        client.call("DescribeGuest", pb.DescribeGuestRequest(guest=manager.guest))
        client.kill()
        eventually(lambda: self.guests_used() == 0, "the guest to be gone")

    def test_whole_life_in_there(self):
        """Memory, a device, tables and refreshes, all by the pod, after its manager has left."""
        manager = self.manager()
        path, sock = self.listening()
        self.delegate(manager, listening_socket=manager.client.give(sock.fileno()))
        sock.close()
        manager.client.kill()
        eventually(lambda: self.daemon.status().sessions == 1, "the manager's session to end")
        client = self.actor(path, uid=POD_UID if is_root() else None, namespace=True)
        client.open_session()
        pod = Vmm(client, guest=manager.guest)
        started = Started(pod)
        started.tables.map(WINDOW_FIRST, 2 * MIB, 4 * PAGE, True)
        done = pod.refresh(started.nested, (WINDOW_FIRST, 4 * PAGE))[0]
        self.assertEqual((done.verdict, done.mapped), (pb.VERDICT_DONE, 4))
        client.kill()
        eventually(lambda: self.guests_used() == 0, "the guest to be gone")

    def test_closed_when_revoked(self):
        manager = self.manager()
        path, sock = self.listening()
        delegation, _ = self.delegate(manager, listening_socket=manager.client.give(sock.fileno()))
        sock.close()
        manager.mutate("RevokeDelegation", delegation=delegation)

        def closed():
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
                try:
                    probe.connect(path)
                except ConnectionRefusedError:
                    return True
                return False

        eventually(closed, "the socket to be closed")

    def test_what_is_no_such_socket(self):
        manager = self.manager()
        path, sock = self.listening()
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        inet = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        for bad in (connected, stream, inet):
            with bad, self.subTest(str(bad)), self.refused("INVALID_ARGUMENT", field="listening_socket"):
                self.delegate(manager, listening_socket=manager.client.give(bad.fileno()))


class OutlivesCase(VolumeCase):
    daemon_class = Supervised

    def names(self):
        return sorted(name for name in self.daemon.supervisor.names() if "l" in name)

    def pod(self, path, **options):
        client = self.actor(path, **options)
        client.open_session()
        return client


class Outlives(OutlivesCase):
    """The daemon dies; those who come through a socket in a volume have no other way back."""

    def test_who_came_comes_back(self):
        manager = self.manager()
        path, sock = self.listening()
        self.delegate(manager, listening_socket=manager.client.give(sock.fileno()))
        sock.close()
        self.assertEqual(self.names(), ["0l0"])
        client = self.pod(path)
        started = Started(Vmm(client, guest=manager.guest))
        manager.client.kill()
        eventually(lambda: self.daemon.status().sessions == 1, "the manager's session to end")
        for _ in range(3):
            self.daemon.crash()
            with self.subTest("another process"), self.refused("UNAUTHENTICATED"):
                self.pod(path)
            client.join_session(path)
            started.tables.map(WINDOW_FIRST, 2 * MIB, 4 * PAGE, True)
            done = Vmm(client, guest=manager.guest).refresh(started.nested, (WINDOW_FIRST, 4 * PAGE))[0]
            self.assertEqual(done.verdict, pb.VERDICT_DONE)
            self.assertEqual(self.names(), ["0l0"])
        client.kill()
        eventually(lambda: self.guests_used() == 0, "the guest to be gone")
        self.assertEqual(self.names(), [])

    def test_who_was_to_come_comes_later(self):
        manager = self.manager()
        path, sock = self.listening()
        first, _ = self.delegate(manager, [pb.RIGHT_MAP, pb.RIGHT_HOLD], listening_socket=manager.client.give(sock.fileno()))
        for _ in range(2):
            self.daemon.crash()
        self.pod(path).call("DescribeGuest", pb.DescribeGuestRequest(guest=manager.guest))
        manager.client.join_session(os.path.join(self.daemon.run, "fd.sock"))
        other_path, other = self.listening("other.sock")
        for given in (sock, sock, other):
            # the same socket again, once the delegation before is over
            manager.mutate("RevokeDelegation", delegation=first)
            first, _ = self.delegate(manager, [pb.RIGHT_MAP], listening_socket=manager.client.give(given.fileno()))
            self.assertEqual(self.names(), ["0l0"])
        self.daemon.crash()
        self.pod(other_path)

    def test_two_of_one_socket(self):
        """One of them could not be kept."""
        manager = self.manager()
        _, sock = self.listening()
        self.delegate(manager, listening_socket=manager.client.give(sock.fileno()))
        with self.refused("INVALID_ARGUMENT"):
            self.delegate(manager, listening_socket=manager.client.give(sock.fileno()))
        self.assertEqual(self.names(), ["0l0"])
        manager.mutate("DestroyGuest", guest=manager.guest)
        self.assertEqual(self.daemon.supervisor.names(), [])

    def test_another_ones_secret_at_it(self):
        """It leads to its own session only."""
        manager = self.manager()
        path, sock = self.listening()
        self.delegate(manager, listening_socket=manager.client.give(sock.fileno()))
        self.daemon.crash()
        with self.refused("UNAUTHENTICATED"):
            manager.client.join_session(path)
        manager.client.join_session(os.path.join(self.daemon.run, "fd.sock"))
        manager.mutate("DestroyGuest", guest=manager.guest)


class Unwritten(OutlivesCase):
    """The daemon dies while the guest's records cannot be written: memory is being pinned."""

    def setUp(self):
        super().setUp()
        if not subprocess.run([built("daemon/iommubrokerd"), "--crash-points"], capture_output=True, text=True).stdout:
            self.skipTest("built without -Dcrash_points=true")
        self.hold = os.path.join(self.daemon.folder, "hold")
        self.daemon.restart(once={"IOMMUBROKER_HANG_AT": "pin-area:" + self.hold})
        self.addCleanup(self.release)
        self.manager_vmm = self.manager()
        Started(self.manager_vmm)
        self.path, self.sock = self.listening()
        self.given = self.manager_vmm.client.give(self.sock.fileno())
        self.delegation, _ = self.delegate(self.manager_vmm, listening_socket=self.given)
        self.mapper = Vmm(self.delegated(self.manager_vmm), guest=self.manager_vmm.guest)
        self.memory = Memory(MIB, 64 * MIB)
        self.addCleanup(self.memory.close)
        self.file = self.mapper.add_memory(self.memory)

    def pin(self):
        open(self.hold, "w").close()
        request = pb.UpdateMemoryRequest(request_id=self.mapper.id(), guest=self.mapper.guest)
        request.map.add(memory_file=self.file, gpa=64 * MIB, length=MIB, access=pb.ACCESS_READ_WRITE)
        self.mapper.client.start("UpdateMemory", request)
        eventually(lambda: os.path.exists(self.hold + ".held"), "it pins")

    def release(self):
        if os.path.exists(self.hold):
            os.unlink(self.hold)

    def dies(self):
        self.daemon.crash()
        self.release()
        self.manager_vmm.client.join_session(os.path.join(self.daemon.run, "fd.sock"))

    def ends(self):
        self.manager_vmm.mutate("DestroyGuest", guest=self.manager_vmm.guest)
        self.mapper.client.kill()

    def test_revoked_is_answered_once_it_is_written(self):
        self.pin()
        client = self.manager_vmm.client
        client.start("RevokeDelegation", pb.RevokeDelegationRequest(request_id=1000, delegation=self.delegation))
        self.assertEqual(select.select([client.control], [], [], 0.5)[0], [])
        self.release()
        (status, _), _ = client._receive()
        self.assertEqual(status, "")
        eventually(lambda: self.names() == [], "its socket is stored no more")
        self.ends()

    def test_whoever_was_let_in_is_who_comes_back(self):
        self.pin()
        client = self.pod(self.path)
        self.dies()
        with self.refused("UNAUTHENTICATED"):
            self.pod(self.path)
        client.join_session(self.path)
        client.call("DescribeGuest", pb.DescribeGuestRequest(guest=self.manager_vmm.guest))
        self.ends()


class Unclaimed(VolumeCase):
    """Who was to hold it never comes."""

    settings = {"iommubrokerd.conf": "[Clients]\nDelegationClaimTimeout=300ms\n"}

    def test_nobody_comes(self):
        manager = self.manager()
        path, sock = self.listening()
        self.delegate(manager, listening_socket=manager.client.give(sock.fileno()))
        sock.close()
        manager.client.kill()
        eventually(lambda: self.guests_used() == 0, "the guest to be gone")
        eventually(lambda: self.daemon.status().sessions == 0, "its delegations to be gone, too")

    def test_somebody_holds_it(self):
        """Also beside one that nobody ever claims, and for longer than that is waited for."""
        manager = self.manager()
        _, sock = self.listening()
        self.delegate(manager, listening_socket=manager.client.give(sock.fileno()))
        client = self.delegated(manager)
        other = self.manager()
        self.delegate(other, [pb.RIGHT_HOLD], listening_socket=other.client.give(sock.fileno()))
        sock.close()
        for gone in (manager, other):
            gone.client.kill()
        eventually(lambda: self.guests_used() == 1, "the one that nobody holds to be gone")
        client.call("DescribeGuest", pb.DescribeGuestRequest(guest=manager.guest))


class Listening(ManagerCase):
    """With rules, of which none marks a manager."""

    settings = {"quota.d/10-all.conf": "[Match]\nUser=*\n"}

    def test_for_managers_only(self):
        vmm = self.manager()
        path = os.path.join(self.daemon.folder, "volume.sock")
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.bind(path)
            sock.listen(4)
            with self.refused("PERMISSION_DENIED", reason="NOT_A_MANAGER"):
                self.delegate(vmm, listening_socket=vmm.client.give(sock.fileno()))
        self.delegate(vmm)


class OnBehalf(ManagerCase):
    settings = {
        "iommubrokerd.conf": "[Clients]\nUsers=%d\n" % VMM_UID,
        "quota.d/10-vmms.conf": "[Match]\nUser=%d\n[Quota]\nGuestsMax=1\n" % VMM_UID,
        "quota.d/20-managers.conf": "[Match]\nUser=0\nManager=yes\n[Quota]\nGuestsMax=4\n",
        "quota.d/30-others.conf": "[Match]\nUser=*\n",
    }

    def create(self, manager, pid, **more):
        pidfd = os.pidfd_open(pid)
        try:
            return manager.mutate("CreateGuest", on_behalf_of=manager.client.give(pidfd), **more).guest
        finally:
            os.close(pidfd)

    @unittest.skipUnless(is_root(), "needs processes of two users: to be run as root")
    def test_charged_to_the_other_tenant(self):
        manager = self.manager()
        _, sock = self.delegate(manager)
        process = self.actor(sock, uid=VMM_UID)
        guest = self.create(manager, process.pid)
        told = manager.ask("DescribeGuest", guest=guest).description
        self.assertEqual((told.tenant, told.pid, told.uid), ("vmms", process.pid, VMM_UID))
        self.assertEqual((self.used("vmms", "guests"), self.used("managers", "guests")), (1, 1))
        with self.refused("RESOURCE_EXHAUSTED", reason="QUOTA_EXCEEDED") as caught:
            self.create(manager, process.pid)
        self.assertEqual(caught.exception.metadata["tenant"], "vmms")
        manager.mutate("DestroyGuest", guest=guest)
        self.create(manager, process.pid)
        with self.refused("PERMISSION_DENIED", reason="NOT_A_MANAGER"):
            mine = self.actor(uid=VMM_UID)
            mine.open_session()
            pidfd = os.pidfd_open(process.pid)
            try:
                mine.call("CreateGuest", pb.CreateGuestRequest(request_id=1, on_behalf_of=mine.give(pidfd)))
            finally:
                os.close(pidfd)

    @unittest.skipUnless(is_root(), "the rule for managers is for root")
    def test_no_process(self):
        manager = self.manager()
        gone = self.actor()
        pidfd = os.pidfd_open(gone.pid)
        self.addCleanup(os.close, pidfd)
        gone.kill()
        with self.refused("INVALID_ARGUMENT", field="on_behalf_of"):
            manager.mutate("CreateGuest", on_behalf_of=manager.client.give(pidfd))


if __name__ == "__main__":
    unittest.main()
