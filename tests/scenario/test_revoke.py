# SPDX-License-Identifier: LGPL-2.1-or-later
"""What an operator takes away: by name, by tenant, by a rule that is no more; and draining."""

import contextlib
import os
import subprocess
import threading

import transport
from api import METHODS, Disconnected, Refused, message_class, pb
from cases import VmmCase
from fixture import PATIENCE, both_transports, built, eventually
from guest import DMA_FIRST, MIB, PAGE
from vmm import WINDOW_FIRST, Started, Vmm

IOVA = WINDOW_FIRST + 5 * PAGE
SERVING, NOT_SERVING = 1, 2
RULE = "[Match]\nUser={uid}\n[Quota]\nGuestsMax=100\n".format(uid=os.getuid())


class OperatorCase(VmmCase):
    def setUp(self):
        super().setUp()
        self.admin = self.daemon.admin()
        self.clients.callback(self.admin.close)

    def ask(self, method, **fields):
        return self.admin.call(method, METHODS[method].request(**fields)).message

    def used(self, resource):
        host = self.daemon.status().usage[0]
        return next(u.current for u in host.usage if u.resource == resource)

    def write(self, name, text):
        path = os.path.join(self.daemon.config, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)

    def ctl(self, *command):
        done = subprocess.run(
            [built("client/iommubrokerctl"), "--admin-dir", self.daemon.admin_dir, *command],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def reload(self):
        self.ctl("reload")

    def shown(self, name="guest"):
        return self.admin.call("ShowGuest", METHODS["ShowGuest"].request(guest=name)).messages[0].description


@both_transports
class Revoke(OperatorCase):
    settings = {"quota.d/50-mine.conf": RULE}

    def started(self, vmm=None, fid=1):
        started = Started(vmm or self.vmm, fid=fid)
        started.show(IOVA, 0x3000)
        started.memory.write(0x3000, b"before")
        self.assertEqual(started.dma.read(IOVA, 6), b"before")
        return started

    def assert_gone(self, started):
        """No DMA lands, no call finds it."""
        self.assert_blocked(started.dma, IOVA)
        self.assertEqual(started.memory.read(0x3000, 6), b"before")
        for call in (
            lambda: started.vmm.refresh(started.nested, (IOVA, PAGE)),
            lambda: started.vmm.attach(started.device, pb.ATTACHMENT_PARENT),
            lambda: started.vmm.ask("GetDeviceInfo", device=started.device.handle),
            lambda: started.device.close(),
        ):
            with self.refused("NOT_FOUND"):
                call()

    def test_a_device(self):
        first, other = self.started(), self.vmm.bound(2)
        tables = self.used("table_bytes")
        self.assertGreater(tables, 0)
        (line,) = self.ask("Revoke", device="fid:1", reason="maintenance of the card").revoked
        self.assertIn("0000:00:01.0 (function 0x1) of guest 'guest'", line)
        self.assertIn("its VMM still holds the descriptor", line)
        self.assert_gone(first)
        self.assertEqual((self.used("devices"), self.used("nested_domains"), self.used("table_bytes")), (1, 0, 0))
        self.assertEqual(self.used("pinned_bytes"), 16 * MIB, "the guest's memory stays")
        self.assertEqual(len(self.vmm.describe().devices), 1)
        self.assertEqual(self.vmm.managed(other).verdict, pb.VERDICT_DONE, "its other device goes on")
        log = self.daemon.log()
        self.assertIn("revoked: 0000:00:01.0 (function 0x1) of guest 'guest'", log)
        self.assertIn("reason: maintenance of the card", log)
        with self.refused("NOT_FOUND"):
            self.ask("Revoke", device="fid:0x1")
        # given back by its VMM, it can be had again
        first.device.release()
        again = self.vmm.bound(1)
        self.assertEqual(self.used("devices"), 2)
        again.release()
        (line,) = self.ask("Revoke", device="0000:00:01.0").revoked
        self.assertNotIn("descriptor", line)

    def test_a_guest(self):
        mine, other = self.started(), self.started(self.new_vmm(name="other"), fid=2)
        (line,) = self.ask("Revoke", guest="%x" % self.vmm.guest).revoked
        self.assertIn("guest 'guest'", line)
        self.assertIn("devices: 1", line)
        self.assert_gone(mine)
        with self.refused("NOT_FOUND"):
            self.vmm.describe()
        self.assertEqual(self.used("pinned_bytes"), 16 * MIB, "the other's")
        self.assertEqual(other.dma.read(IOVA, 6), b"before")
        other.show(IOVA + PAGE, 0x4000)
        # its session stays, and may make another
        self.vmm.mutate("CreateGuest", name="again")
        for what in (dict(guest="guest"), dict(guest="nobody"), dict(device="fid:1"), dict(tenant="nobody")):
            with self.refused("NOT_FOUND"):
                self.ask("Revoke", **what)

    def test_a_tenant(self):
        started = [self.started(), self.started(self.new_vmm(name="b"), fid=2), self.started(self.new_vmm(name="c"), fid=3)]
        lines = self.ask("Revoke", tenant="mine").revoked
        self.assertEqual(len(lines), 3, lines)
        for one in started:
            self.assert_gone(one)
        self.assertEqual((self.used("guests"), self.used("devices"), self.used("pinned_bytes")), (0, 0, 0))
        self.assertGreaterEqual(self.used("sessions"), 1)

    def test_form(self):
        for bad in (
            dict(), dict(guest="guest", tenant="mine"), dict(device="fid:"), dict(device="1:2"), dict(tenant="t" * 64),
            dict(guest="guest", reason="r" * 128),
        ):  # fmt: skip
            with self.refused("INVALID_ARGUMENT"):
                self.ask("Revoke", **bad)
        with self.refused("INVALID_ARGUMENT", field="device") as refused:
            self.ask("Revoke", device="3")
        self.assertIn("'3' is neither a PCI address, as 0000:01:00.0, nor a zPCI function id, as fid:", str(refused.exception))
        with self.refused("NOT_FOUND") as refused:
            self.ask("Revoke", device="fid:3")
        self.assertIn("no guest has the function fid:3", str(refused.exception))
        self.assertEqual(self.vmm.describe().guest, self.vmm.guest)

    def test_its_vmm_is_told(self):
        started = self.started()
        call = self.vmm.client.start("WatchEvents", METHODS["WatchEvents"].request(guest=self.vmm.guest))
        self.ask("Revoke", device="fid:1")
        self.ask("Revoke", guest="guest")
        told = [(m.kind, m.device) for m in call.result().messages]
        self.assertEqual(
            told[-3:],
            [(pb.EVENT_KIND_REVOKED, started.device.handle), (pb.EVENT_KIND_REVOKED, 0), (pb.EVENT_KIND_GUEST_GONE, 0)],
        )  # fmt: skip

    def test_while_everything_runs(self):
        """Devices and guests go while their VMMs open, bind, register, refresh and end."""
        stop, failures, rounds = threading.Event(), [], [0, 0, 0]
        may = ("NOT_FOUND", "CANCELLED", "FAILED_PRECONDITION", "UNAUTHENTICATED")

        def live(number):
            while not stop.is_set():
                client = transport.TRANSPORTS[self.transport_name](self.daemon.run)
                try:
                    client.open_session()
                    vmm = Vmm(client, name="busy%d" % number)
                    with contextlib.closing(vmm):
                        one = Started(vmm, fid=4 + number)
                        for n in range(20):
                            one.show(IOVA + n * PAGE, 0x3000)
                        vmm.new_memory(MIB, gpa=1024 * MIB)
                        one.device.close()
                except Refused as refused:
                    if refused.code not in may:
                        failures.append(repr(refused))
                except Exception as error:  # pylint: disable=broad-except
                    # what a library says of a verdict GONE
                    if "GONE" not in repr(error) and "verdict: 7" not in repr(error):
                        failures.append(repr(error))
                finally:
                    with contextlib.suppress(Refused, Disconnected):
                        client.call("CloseSession")
                    client.close()
                rounds[number] += 1

        threads = [threading.Thread(target=live, args=(n,)) for n in range(3)]
        for thread in threads:
            thread.start()
        taken = 0
        for turn in range(120):
            what = [dict(device="fid:%d" % (4 + turn % 3)), dict(guest="busy%d" % (turn % 3)), dict(tenant="mine")]
            with contextlib.suppress(Refused):
                taken += len(self.ask("Revoke", **what[turn % 8 // 3 % 3]).revoked)
        stop.set()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
        self.assertGreater(taken, 0)
        self.assertTrue(all(rounds), str(rounds))
        eventually(lambda: self.used("devices") == 0 or self.used("devices"), "nothing is left charged")


LOST = {
    "keep": "[Devices]\nOnRuleLost=keep\n",
    "revoke": "[Devices]\nOnRuleLost=revoke\n",
}
GIVES = "[Device]\nFunctionId=1\nRelaxedTranslation=yes\n[Device]\nFunctionId=2\n"


@both_transports
class RuleLost(OperatorCase):
    settings = {"device.d/a.conf": GIVES}

    def test_kept(self):
        one = Started(self.vmm)
        self.assertRegex(self.shown().devices[0].rule, r"a\.conf:2$")
        self.write("device.d/a.conf", "[Device]\nFunctionId=2\n")
        self.write("iommubrokerd.conf", LOST["keep"])
        self.reload()
        one.show(IOVA, 0x3000)
        self.assertTrue(one.dma.reaches(IOVA))
        self.assertEqual(self.shown().devices[0].rule, "", "no rule gives it")
        self.assertIn("no rule of device.d gives it any more", self.ctl("show", "guest"))
        with self.refused("PERMISSION_DENIED", reason="NO_DEVICE_RULE"):
            self.vmm.open(1)

    def test_revoked(self):
        one, other = Started(self.vmm), self.vmm.bound(2)
        one.show(IOVA, 0x3000)
        self.write("device.d/a.conf", "[Device]\nFunctionId=2\n")
        self.write("iommubrokerd.conf", LOST["revoke"])
        self.reload()
        eventually(lambda: len(self.shown().devices) == 1, "the device is taken away")
        self.assert_blocked(one.dma, IOVA)
        with self.refused("NOT_FOUND"):
            self.vmm.ask("GetDeviceInfo", device=one.device.handle)
        self.assertEqual(self.vmm.ask("GetDeviceInfo", device=other.handle).info.function_id, 2)
        eventually(lambda: "no device rule gives it any more" in self.daemon.log(), "the log says why")
        self.assertEqual(self.used("devices"), 1)

    def test_relaxed_is_withdrawn(self):
        vmm = self.vmm
        vmm.new_memory()
        one = vmm.bound(1)
        vmm.attach(one, pb.ATTACHMENT_RELAXED)
        dma = one.engine()
        self.assertTrue(dma.reaches(DMA_FIRST))
        self.write("device.d/a.conf", "[Device]\nFunctionId=1 2\n")
        self.write("iommubrokerd.conf", LOST["revoke"])
        self.reload()
        eventually(lambda: not dma.reaches(DMA_FIRST), "the device is blocked")
        eventually(lambda: self.shown().devices[0].attachment == pb.ATTACHMENT_BLOCKED, "and shown so")
        self.assertFalse(vmm.ask("GetDeviceInfo", device=one.handle).info.relaxed_granted)
        with self.refused("PERMISSION_DENIED", reason="RELAXED_NOT_GRANTED"):
            vmm.attach(one, pb.ATTACHMENT_RELAXED)
        self.assertEqual(vmm.managed(one).verdict, pb.VERDICT_DONE)

    def test_a_relaxed_anchor_is_withdrawn(self):
        vmm = self.vmm
        vmm.new_memory()
        one = vmm.bound(1)
        created = vmm.register(one, 0)
        dma = one.engine()
        self.assertTrue(dma.reaches(WINDOW_FIRST))
        self.write("device.d/a.conf", "[Device]\nFunctionId=1 2\n")
        self.write("iommubrokerd.conf", LOST["revoke"])
        self.reload()
        eventually(lambda: not dma.reaches(WINDOW_FIRST), "the device is blocked")
        eventually(lambda: len(self.shown().nested) == 0, "its domain is gone")
        with self.refused("NOT_FOUND"):
            vmm.refresh(created.nested, (WINDOW_FIRST, PAGE))
        self.assertEqual(vmm.register(one, 0).verdict, pb.VERDICT_OPERAND)


@both_transports
class Drain(OperatorCase):
    def test_nothing_new_and_all_that_was_goes_on(self):
        one, waiting = Started(self.vmm), self.vmm.open(2)
        answer = self.ask("Drain")
        self.assertEqual((answer.draining, answer.sessions, answer.guests), (True, 1, 1))
        for attempt in (
            lambda: self.client(),
            lambda: self.vmm.mutate("CreateGuest", name="more"),
            lambda: self.vmm.open(3),
            lambda: waiting.bind(),
        ):
            with self.refused("UNAVAILABLE", reason="DRAINING") as refused:
                attempt()
            self.assertIn("RetryInfo", refused.exception.details)
        self.assertTrue(self.daemon.status().draining)
        self.assertIn("nothing new is accepted", self.ctl("status"))
        one.show(IOVA, 0x3000)
        self.vmm.new_memory(MIB, gpa=1024 * MIB)
        self.assertTrue(one.dma.reaches(IOVA))
        self.assertEqual(self.ask("Drain").guests, 1, "said again, it tells what is left")
        self.assertEqual(self.daemon.log().count("draining: no new"), 1)
        self.vmm.mutate("DestroyGuest", guest=self.vmm.guest)
        self.assertEqual(self.ask("Drain").guests, 0)
        answer = self.ask("Drain", cancel=True)
        self.assertFalse(answer.draining)
        self.assertFalse(self.daemon.status().draining)
        self.new_vmm().open(3)


class DrainedHealth(OperatorCase):
    transport_name = "grpc"

    @staticmethod
    def health(client, kind):
        request, response = (message_class("grpc.health.v1.HealthCheck" + n) for n in ("Request", "Response"))
        make = client.channel.unary_stream if kind == "Watch" else client.channel.unary_unary
        stub = make("/grpc.health.v1.Health/" + kind, request.SerializeToString, response.FromString)
        return stub(request(), timeout=PATIENCE)

    def test_clients_are_told_to_go_elsewhere(self):
        watch = self.health(self.vmm.client, "Watch")
        self.assertEqual(next(watch).status, SERVING)
        self.ask("Drain")
        self.assertEqual(next(watch).status, NOT_SERVING)
        self.assertEqual(self.health(self.vmm.client, "Check").status, NOT_SERVING)
        self.assertEqual(self.health(self.admin, "Check").status, SERVING)
        self.ask("Drain")
        self.ask("Drain", cancel=True)
        self.assertEqual(next(watch).status, SERVING, "said twice, told once")
        watch.cancel()
        for _ in range(20):
            self.health(self.vmm.client, "Watch").cancel()
        self.ask("Drain")
        self.assertEqual(self.health(self.vmm.client, "Check").status, NOT_SERVING)
        self.ask("Drain", cancel=True)
