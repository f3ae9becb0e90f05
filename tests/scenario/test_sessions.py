# SPDX-License-Identifier: LGPL-2.1-or-later
"""Sessions: what belongs to whom, what ends them, what a request id protects."""

import json
import os
import shutil
import subprocess
import sys
import unittest

import transport
from api import METHODS, PROTO, Disconnected, Refused, pb
from cases import VmmCase
from fixture import Case, both_transports, eventually
from guest import MIB, PAGE, memfd
from transport import JOIN, SESSION_KEY, Grpc, Seqpacket
from vmm import WINDOW_FIRST, WINDOW_LAST, Started, Vmm

IOVA = WINDOW_FIRST + 5 * PAGE
HERE = os.path.dirname(os.path.abspath(__file__))
OTHER_UID = 65534


@both_transports
class Isolation(VmmCase):
    def handles(self, started):
        return {
            "guest": started.vmm.guest, "memory_file": started.memory.handle, "device": started.device.handle,
            "nested": started.nested,
        }  # fmt: skip

    def calls(self, handles):
        """Every method that takes a handle, with these."""
        id = iter(range(500000, 600000))
        window = pb.AddressRange(first=WINDOW_FIRST, last=WINDOW_LAST)
        more = {
            "AddMemoryFile": {}, "OpenDevice": {"function_id": 6}, "CreateNested": {"managed": window},
            "ReplaceNested": {"s390": pb.S390Anchor(iota=0x804, pba=WINDOW_FIRST, pal=WINDOW_LAST)},
            "Attach": {"to": pb.ATTACHMENT_NESTED},
            "RefreshNested": {"ranges": [pb.RefreshNestedRequest.Range(start=IOVA, length=PAGE)]},
            "UpdateNested": {"entries": [pb.UpdateNestedRequest.Entry(iova=IOVA, length=PAGE)]},
            "PrepareHandover": {"seconds": 1},
        }  # fmt: skip
        for name, method in METHODS.items():
            fields = method.request.DESCRIPTOR.fields_by_name
            used = {k: v for k, v in handles.items() if k in fields}
            if not used or method.admin or name in UNIMPLEMENTED:
                continue
            request = method.request(**used, **more.get(name, {}))
            if "request_id" in fields:
                request.request_id = next(id)
            yield name, request

    def assert_unseen(self, mine, client):
        for name, request in self.calls(self.handles(mine)):
            with self.subTest(name):
                fd = None
                if name == "AddMemoryFile":
                    fd = memfd(PAGE)
                    request.descriptor.CopyFrom(client.give(fd))
                with self.assertRaises(Refused) as caught:
                    client.call(name, request)
                self.assertEqual(caught.exception.code, "NOT_FOUND", str(caught.exception))
                if fd is not None:
                    os.close(fd)
        self.assertEqual(len(client.call("ListGuests").message.guests), 0)
        self.assertTrue(mine.dma.reaches(IOVA))
        self.assertEqual(len(mine.vmm.describe().nested), 1)

    def test_two_sessions_of_one_process(self):
        mine = Started(self.vmm)
        mine.show(IOVA, 0x3000)
        for name in transport.TRANSPORTS:
            self.assert_unseen(mine, self.client(name))

    def test_the_answer_does_not_tell_foreign_from_unknown(self):
        mine = Started(self.vmm)
        other = self.client()
        answers = []
        for handle in (mine.vmm.guest, 0x1122334455667788):
            with self.assertRaises(Refused) as caught:
                other.call("DescribeGuest", pb.DescribeGuestRequest(guest=handle))
            answers.append(caught.exception.status.SerializeToString().replace(b"%x" % handle, b""))
        self.assertEqual(answers[0], answers[1])

    def test_handles_are_unguessable(self):
        handles = {self.vmm.mutate("CreateGuest", name="g").guest for _ in range(10)}
        self.assertEqual(len(handles), 10)
        self.assertTrue(all(h.bit_length() > 32 for h in handles), "%r" % handles)
        near = {h + d for h in handles for d in (-1, 1)}
        for handle in near:
            with self.refused("NOT_FOUND"):
                self.vmm.ask("DescribeGuest", guest=handle)


UNIMPLEMENTED = {
    "InvalidateNested", "SetDirtyTracking", "ReadDirty",
}  # fmt: skip


class TwoUsers(VmmCase):
    """The same from another process of another user, over both transports."""

    settings = {"iommubrokerd.conf": "[Clients]\nUsers=%d\n" % OTHER_UID}

    def setUp(self):
        if os.geteuid() != 0:
            raise unittest.SkipTest("only root can run clients of two users")
        super().setUp()

    def test_two_uids(self):
        mine = Started(self.vmm)
        mine.show(IOVA, 0x3000)
        handles = {"guest": mine.vmm.guest, "device": mine.device.handle, "nested": mine.nested}
        for name in transport.TRANSPORTS:
            told = other_user(self.daemon, name, dict(handles, secret=self.vmm.client.secret.hex()))
            self.assertEqual(told["uid"], OTHER_UID)
            self.assertEqual(set(told["codes"].values()), {"NOT_FOUND"}, str(told))
            self.assertEqual(told["guests"], 1, "its own, not ours")
            self.assertEqual(told["stolen"], "UNAUTHENTICATED", "a secret works from its process only")
            self.assertEqual(told["admin"], "refused")
        self.assertTrue(mine.dma.reaches(IOVA))


class NotServed(Case):
    """A user whom no setting names."""

    def test_uid_without_a_rule(self):
        if os.geteuid() != 0:
            raise unittest.SkipTest("only root can run a client of another user")
        for name in transport.TRANSPORTS:
            told = other_user(self.daemon, name, {})
            self.assertEqual(told["session"], "refused", str(told))


def public_copy(daemon):
    """The scenarios and the API where other users can read them: a home folder may be closed."""
    root = os.path.join(daemon.folder, "tree")
    scenario = os.path.join(root, "tests", "scenario")
    if not os.path.isdir(scenario):
        shutil.copytree(HERE, scenario, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(PROTO, os.path.join(root, "proto"))
        subprocess.run(["chmod", "-R", "a+rX", root], check=True)
    return scenario


def other_user(daemon, transport_name, task):
    """Run stranger.py as another user; what it tells."""
    result = subprocess.run(
        [sys.executable, os.path.join(public_copy(daemon), "stranger.py"), daemon.run, transport_name],
        input=json.dumps(task), capture_output=True, text=True, user=OTHER_UID, group=OTHER_UID, extra_groups=[],
        timeout=transport.PATIENCE,
    )  # fmt: skip
    if result.returncode:
        raise AssertionError(result.stderr)
    return json.loads(result.stdout)


@both_transports
class Secrets(Case):
    def test_calls_without_a_session(self):
        client = self.client(session=False)
        for name, method in METHODS.items():
            if method.admin or name in ("GetInfo", "OpenSession"):
                continue
            with self.subTest(name):
                with self.assertRaises(Refused) as caught:
                    client.call(name)
                self.assertEqual(caught.exception.code, "UNAUTHENTICATED", str(caught.exception))
        self.assertEqual(client.call("GetInfo").message.backend, "emulated")

    def test_admin_methods_are_not_here(self):
        client = self.client()
        for name, method in METHODS.items():
            if method.admin:
                with self.subTest(name):
                    try:
                        client.call(name)
                        self.fail("served")
                    except Refused as error:
                        self.assertIn(error.code, ("UNIMPLEMENTED", "PERMISSION_DENIED"))
                    except Disconnected:
                        client = self.client()

    def test_secrets_are_random(self):
        secrets = {self.client().secret for _ in range(8)}
        self.assertEqual(len(secrets), 8)
        self.assertEqual({len(s) for s in secrets}, {16})

    def test_close_session_takes_all_down(self):
        client = self.client()
        vmm = Vmm(client)
        self.clients.callback(vmm.close)
        started = Started(vmm)
        started.show(IOVA, 0x3000)
        client.call("CloseSession")
        self.assertFalse(started.dma.reaches(IOVA))
        status = self.daemon.status()
        self.assertEqual((status.sessions, status.guests, status.pinned_bytes), (0, 0, 0))
        with self.assertRaises((Refused, Disconnected)):
            client.call("ListGuests")


class GrpcSessions(VmmCase):
    transport_name = "grpc"

    def test_survives_a_reconnect(self):
        started = Started(self.vmm)
        started.show(IOVA, 0x3000)
        for _ in range(3):
            self.vmm.client.reconnect()
            self.assertEqual(self.vmm.refreshed(started.nested), (0, 0))
            self.assertTrue(started.dma.reaches(IOVA))

    def test_wrong_secrets(self):
        good = self.vmm.client.secret
        flipped = bytes([good[0] ^ 1]) + good[1:]
        for secret in (b"", b"x", flipped, good[:15], good + b"x", b"\0" * 16, b"x" * 1000):
            with self.subTest(secret=secret[:20]):
                other = self.client("grpc", session=False)
                other.metadata = [(SESSION_KEY, secret)]
                with self.refused("UNAUTHENTICATED"):
                    other.call("ListGuests")
                joined = Seqpacket(os.path.join(self.daemon.run, "fd.sock"))
                self.clients.callback(joined.close)
                with self.assertRaises((Refused, Disconnected)) as caught:
                    Grpc.native(joined, JOIN, pb.JoinSessionRequest(secret=secret), pb.JoinSessionResponse)
                if isinstance(caught.exception, Refused):
                    self.assertEqual(caught.exception.code, "UNAUTHENTICATED")
        self.assertEqual(self.vmm.describe().guest, self.vmm.guest)

    def test_two_secrets_at_once(self):
        other = self.client("grpc", session=False)
        other.metadata = [(SESSION_KEY, b"x" * 16), (SESSION_KEY, self.vmm.client.secret)]
        with self.assertRaises(Refused) as caught:
            other.call("ListGuests")
        self.assertIn(caught.exception.code, ("UNAUTHENTICATED", "INVALID_ARGUMENT"))

    def test_deadlines(self):
        """A call whose deadline passes ends for its client; the mutation goes on."""
        memory = self.vmm.new_memory(64 * MIB)
        device = self.vmm.open(1)
        request = pb.BindDeviceRequest(request_id=4242, device=device.handle)
        try:
            self.vmm.client.start("BindDevice", request, timeout=0.0005).result()
        except Refused as error:
            self.assertEqual(error.code, "DEADLINE_EXCEEDED")
        # joins what runs, or is answered from the table, or begins it if it never arrived
        reply = self.vmm.client.call("BindDevice", request)
        self.assertEqual(reply.message.WhichOneof("update"), "done")
        self.assertTrue(self.vmm.describe().pinned)
        self.assertEqual(memory.length, 64 * MIB)


class NativeSessions(VmmCase):
    transport_name = "native"

    def test_ends_with_its_connection(self):
        started = Started(self.vmm)
        started.show(IOVA, 0x3000)
        self.vmm.client.packets.sock.close()
        eventually(lambda: not started.dma.reaches(IOVA), "the device is blocked")
        eventually(lambda: self.daemon.status().guests == 0, "the guest is gone")

    def test_second_session_on_one_connection(self):
        with self.assertRaises((Refused, Disconnected)):
            self.vmm.client.open_session()

    def test_many_calls_in_flight(self):
        started = Started(self.vmm)
        started.tables.map(IOVA, 0x3000)
        client = self.vmm.client
        request = pb.RefreshNestedRequest(nested=started.nested)
        request.ranges.add(start=IOVA, length=PAGE)
        for _ in range(20):
            calls = [client.start("RefreshNested", request) for _ in range(64)]
            results = [call.result().message.results[0] for call in reversed(calls)]
            self.assertEqual({r.verdict for r in results}, {pb.VERDICT_DONE})


@both_transports
class RequestIds(VmmCase):
    def test_a_repeated_request_has_the_first_answer(self):
        request = pb.CreateGuestRequest(request_id=900, name="once")
        first = self.vmm.client.call("CreateGuest", request).message
        again = self.vmm.client.call("CreateGuest", request).message
        self.assertEqual(first, again)
        self.assertEqual(len(self.vmm.client.call("ListGuests").message.guests), 2)

    def test_every_mutation_is_replayed(self):
        vmm, client = self.vmm, self.vmm.client
        started = Started(vmm)
        device = vmm.open(4)
        spare = vmm.bound(5)
        window = pb.AddressRange(first=WINDOW_FIRST, last=WINDOW_LAST)
        anchor = pb.S390Anchor(iota=started.tables.iota(), pba=WINDOW_FIRST, pal=WINDOW_LAST)
        managed = vmm.managed(vmm.bound(6)).nested
        requests = [
            ("UpdateMemory", pb.UpdateMemoryRequest(guest=vmm.guest, unmap=[pb.AddressRange(first=1 << 40, last=(1 << 41) - 1)])),
            ("BindDevice", pb.BindDeviceRequest(device=device.handle)),
            ("CreateNested", pb.CreateNestedRequest(device=spare.handle, managed=window)),
            ("ReplaceNested", pb.ReplaceNestedRequest(nested=started.nested, s390=anchor)),
            ("UpdateNested", pb.UpdateNestedRequest(nested=managed, entries=[pb.UpdateNestedRequest.Entry(iova=IOVA, length=PAGE)])),
            ("Attach", pb.AttachRequest(device=spare.handle, to=pb.ATTACHMENT_BLOCKED)),
            ("DestroyNested", pb.DestroyNestedRequest(nested=managed)),
            ("CloseDevice", pb.CloseDeviceRequest(device=spare.handle)),
            ("ResetGuest", pb.ResetGuestRequest(guest=vmm.guest)),
            ("DestroyGuest", pb.DestroyGuestRequest(guest=vmm.guest)),
        ]  # fmt: skip
        for name, request in requests:
            with self.subTest(name):
                request.request_id = vmm.id()
                first = client.call(name, request).message
                self.assertEqual(client.call(name, request).message, first)
                request.request_id = vmm.id()

    def test_refusals_are_remembered_too(self):
        request = pb.DestroyGuestRequest(request_id=901, guest=12345)
        for _ in range(2):
            with self.refused("NOT_FOUND"):
                self.vmm.client.call("DestroyGuest", request)

    def test_another_request_under_a_used_id(self):
        self.vmm.client.call("CreateGuest", pb.CreateGuestRequest(request_id=902, name="one"))
        with self.refused("INVALID_ARGUMENT", field="request_id"):
            self.vmm.client.call("CreateGuest", pb.CreateGuestRequest(request_id=902, name="two"))
        with self.refused("INVALID_ARGUMENT", field="request_id"):
            self.vmm.client.call("DestroyGuest", pb.DestroyGuestRequest(request_id=902, guest=self.vmm.guest))
        self.assertEqual(self.vmm.describe().guest, self.vmm.guest)

    def test_zero_protects_nothing(self):
        request = pb.CreateGuestRequest(name="twice")
        first = self.vmm.client.call("CreateGuest", request).message
        second = self.vmm.client.call("CreateGuest", request).message
        self.assertNotEqual(first.guest, second.guest)

    def test_the_last_64_are_remembered(self):
        first = pb.CreateGuestRequest(request_id=1000, name="remembered")
        guest = self.vmm.client.call("CreateGuest", first).message.guest
        for n in range(63):
            self.vmm.client.call("ResetGuest", pb.ResetGuestRequest(request_id=2000 + n, guest=guest))
        self.assertEqual(self.vmm.client.call("CreateGuest", first).message.guest, guest)

    def test_ids_of_sessions_are_apart(self):
        other = self.client()
        request = pb.CreateGuestRequest(request_id=903, name="mine")
        mine = self.vmm.client.call("CreateGuest", request).message
        theirs = other.call("CreateGuest", request).message
        self.assertNotEqual(mine.guest, theirs.guest)


class Joining(VmmCase):
    settings = {"iommubrokerd.conf": "[Memory]\nPinSliceSize=1M\n"}

    def test_joins_the_running_call(self):
        """The same request sent twice at once: one of them does it, both have its answer."""
        vmm, client = self.vmm, self.vmm.client
        vmm.new_memory(256 * MIB)
        device = vmm.open(1)
        request = pb.BindDeviceRequest(request_id=vmm.id(), device=device.handle)
        calls = [client.start("BindDevice", request) for _ in range(3)]
        answers = [call.result().message.done for call in calls]
        self.assertEqual(answers[0], answers[1])
        self.assertEqual(answers[0], answers[2])
        self.assertEqual(self.daemon.status().pinned_bytes, 256 * MIB)
