# SPDX-License-Identifier: LGPL-2.1-or-later
"""The operator's device rules: who may open which function, who gets relaxed translation."""

import os

from api import Refused, pb
from cases import VmmCase
from fixture import Daemon, both_transports
from guest import DMA_FIRST, DMA_LAST, MIB, PAGE

RULES = """\
[Device]
User={uid}
FunctionId=1 2
RelaxedTranslation=yes

[Device]
User={uid}
PciAddress=0000:00:03.0

[Device]
User=12345
FunctionId=4
"""


@both_transports
class DeviceRules(VmmCase):
    settings = {"device.d/10-test.conf": RULES.format(uid=os.getuid())}

    def test_what_is_named_and_nothing_else(self):
        self.vmm.open(1)
        self.vmm.open(3)
        for fid in (4, 5, 8):
            with self.assertRaises(Refused) as caught:
                self.vmm.open(fid)
            self.assertEqual(caught.exception.code, "PERMISSION_DENIED", str(caught.exception))
            self.assertIn("ErrorInfo", caught.exception.details)
        with self.refused("PERMISSION_DENIED"):
            self.vmm.open(pci_address="0000:00:04.0")
        self.assertEqual(len(self.vmm.describe().devices), 2)

    def test_passing_descriptors_is_not_granted(self):
        fd = os.memfd_create("device")
        with self.assertRaises(Refused) as caught:
            self.vmm.open(descriptor=self.vmm.client.give(fd))
        self.assertIn(caught.exception.code, ("PERMISSION_DENIED", "INVALID_ARGUMENT"))
        os.close(fd)

    def test_relaxed(self):
        vmm = self.vmm
        memory = vmm.new_memory()
        granted, denied = vmm.bound(1), vmm.bound(3)
        self.assertTrue(vmm.ask("GetDeviceInfo", device=granted.handle).info.relaxed_granted)
        self.assertFalse(vmm.ask("GetDeviceInfo", device=denied.handle).info.relaxed_granted)
        answer = vmm.register(denied, 0, DMA_FIRST, DMA_LAST)
        self.assertEqual((answer.verdict, answer.nested), (pb.VERDICT_OPERAND, 0))
        with self.refused("PERMISSION_DENIED"):
            vmm.attach(denied, pb.ATTACHMENT_RELAXED)
        answer = vmm.register(granted, 0, DMA_FIRST, DMA_FIRST + 8 * MIB - 1)
        self.assertEqual(answer.verdict, pb.VERDICT_DONE, str(answer))
        dma = granted.engine()
        memory.write(0x4321, b"relaxed")
        self.assertEqual(dma.read(DMA_FIRST + 0x4321, 7), b"relaxed")
        self.assertFalse(dma.reaches(DMA_FIRST + 8 * MIB), "PAL holds here too")
        self.assertEqual(vmm.refreshed(answer.nested, (DMA_FIRST, PAGE)), (0, 0))
        self.assertEqual(vmm.describe().nested[0].format, "relaxed")
        more = vmm.new_memory(MIB, gpa=64 * MIB)
        vmm.mutate("DestroyNested", nested=answer.nested)
        self.assertFalse(dma.reaches(DMA_FIRST))
        vmm.attach(granted, pb.ATTACHMENT_RELAXED)
        more.write(64 * MIB, b"all of it")
        self.assertEqual(granted.engine().read(DMA_FIRST + 64 * MIB, 9), b"all of it")
        vmm.attach(granted, pb.ATTACHMENT_BLOCKED)
        self.assertFalse(granted.engine().reaches(DMA_FIRST + 64 * MIB))

    def test_relaxed_memory_that_comes_and_goes(self):
        vmm = self.vmm
        vmm.new_memory()
        device = vmm.bound(2)
        self.assertEqual(vmm.register(device, 0, DMA_FIRST, DMA_LAST).verdict, pb.VERDICT_DONE)
        second = vmm.new_memory(MIB, gpa=32 * MIB)
        dma = device.engine()
        second.write(32 * MIB, b"came later")
        self.assertEqual(dma.read(DMA_FIRST + 32 * MIB, 10), b"came later")
        self.assertFalse(dma.reaches(DMA_FIRST + 33 * MIB))
        vmm.unmap(32 * MIB, MIB)
        self.assertFalse(dma.reaches(DMA_FIRST + 32 * MIB))
        self.assertTrue(dma.reaches(DMA_FIRST))


TENANTS = """\
[Device]
Tenant=other
FunctionId=*

[Device]
Tenant=vms/* mine
FunctionId=3
Allow=no

[Device]
Tenant=mine
FunctionId=0x1-0x4
PciAddress=0000:00:0[1-3].*

[Device]
Id=1234:*
PciAddress=0000:00:05.0
PassedDescriptor=yes
"""


@both_transports
class TenantRules(VmmCase):
    settings = {
        "quota.d/50-mine.conf": "[Match]\nUser=%d\n[Quota]\nGuestsMax=9\n" % os.getuid(),
        "device.d/10-test.conf": TENANTS,
    }

    def test_globs_ranges_and_ids(self):
        """All that is given must fit, the first rule that matches wins."""
        for fid in (1, 2, 5):
            self.vmm.open(fid)
        for fid in (4, 6):
            with self.refused("PERMISSION_DENIED", reason="NO_DEVICE_RULE") as refused:
                self.vmm.open(fid)
            self.assertIn("tenant 'mine', user %d, have function 0x%x" % (os.getuid(), fid), str(refused.exception))
            self.assertNotIn("1234:", str(refused.exception), "what it is, is the operator's to know")
            self.assertIn("the function is 0000:00:%02x.0 (function 0x%x), 1234:11e8" % (fid, fid), self.daemon.log())
        self.assertEqual(self.vmm.describe().devices[2].rule.split("/")[-1], "10-test.conf:16")

    def test_a_denial_names_its_rule(self):
        for address in ({"function_id": 3}, {"pci_address": "0000:00:03.0"}):
            with self.refused("PERMISSION_DENIED", reason="DEVICE_DENIED") as refused:
                self.vmm.open(**address)
            info = refused.exception.details["ErrorInfo"]
            self.assertEqual(info.metadata["tenant"], "mine")
            self.assertTrue(info.metadata["rule"].endswith("10-test.conf:6"), info.metadata["rule"])
        self.assertIn("10-test.conf:6 denies", self.daemon.log())

    def test_what_there_is_is_not_told(self):
        """The same words for a function that exists and for one that does not."""
        said = []
        for address in ("0000:00:08.0", "0000:00:18.0"):
            with self.refused("PERMISSION_DENIED", reason="NO_DEVICE_RULE") as refused:
                self.vmm.open(pci_address=address)
            said.append(refused.exception.message.replace(address, "ADDRESS"))
        self.assertEqual(said[0], said[1])

    def test_descriptors_by_the_same_rules(self):
        fifth, first = self.vmm.open(5), self.vmm.open(1)
        for device in (fifth, first):
            device.close()
        again = self.vmm.open(descriptor=self.vmm.client.give(fifth.fd))
        again.close()
        with self.refused("PERMISSION_DENIED", reason="DESCRIPTOR_DENIED"):
            self.vmm.open(descriptor=self.vmm.client.give(first.fd))


@both_transports
class NarrowTranslation(VmmCase):
    settings = {
        "iommubrokerd.conf": "[Translation]\nDesignations=RT\n\n"
        "[EmulatedFunction]\nFunctionId=0x2a\nPciAddress=0001:00:00.0\nDmaFirst=0x200000000\nDmaLast=0x2ffffffff\n"
    }

    def test_designations_and_window(self):
        from guest import RF, RT, Tables

        vmm = self.vmm
        memory = vmm.new_memory()
        device = vmm.bound(0x2A)
        info = vmm.ask("GetDeviceInfo", device=device.handle).info
        self.assertEqual((info.dma_first, info.dma_last), (0x200000000, 0x2FFFFFFFF))
        self.assertEqual(info.designations, 0b0010)
        first, last = 0x200000000, 0x2FFFFFFFF
        tables = Tables(memory, RF)
        self.assertEqual(vmm.register(device, tables.iota(), first, last).verdict, pb.VERDICT_OPERAND)
        tables = Tables(memory, RT, top=tables.top)
        self.assertEqual(vmm.register(device, tables.iota(), first - PAGE, last).verdict, pb.VERDICT_OPERAND)
        self.assertEqual(vmm.register(device, tables.iota(), first, last + PAGE).verdict, pb.VERDICT_OPERAND)
        self.assertEqual(vmm.register(device, tables.iota(), first, last).verdict, pb.VERDICT_DONE)
        with self.refused("NOT_FOUND"):
            vmm.open(1)


BAD_CONFIGURATIONS = {
    "unknown key": "[Limits]\nPinedMemoryMax=1G\n",
    "unknown section": "[Limit]\nPinnedMemoryMax=1G\n",
    "not a size": "[Limits]\nPinnedMemoryMax=lots\n",
    "below the least": "[Limits]\nSessionsMax=0\n",
    "not a choice": "[Memory]\nRequireSeals=maybe\n",
    "no such user": "[Clients]\nUsers=no-such-user-here\n",
}


class Configuration(VmmCase):
    def test_mistakes_are_fatal_and_named(self):
        for name, text in BAD_CONFIGURATIONS.items():
            with self.subTest(name):
                with self.assertRaises(AssertionError) as caught:
                    Daemon({"iommubrokerd.conf": text}).kill()
                line = 1 if name == "unknown section" else 2
                self.assertIn("iommubrokerd.conf:%d" % line, str(caught.exception))
        with self.assertRaises(AssertionError) as caught:
            Daemon({"iommubrokerd.conf": BAD_CONFIGURATIONS["unknown key"]}).kill()
        self.assertIn("PinnedMemoryMax", str(caught.exception), "a suggestion")

    def test_a_second_daemon_on_the_same_sockets(self):
        import subprocess

        from fixture import built

        done = subprocess.run(
            [
                built("daemon/iommubrokerd"), "--backend=emulated", "--config-dir", self.daemon.config,
                "--runtime-dir", self.daemon.run,
            ],
            capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(self.vmm.describe().guest, self.vmm.guest, "the first one serves on")

    def test_options(self):
        import subprocess

        from fixture import built

        for arguments, status in ((["--help"], 0), (["--version"], 0), (["--nonsense"], 2), (["--backend=x"], 2), (["x"], 2)):
            done = subprocess.run([built("daemon/iommubrokerd"), *arguments], capture_output=True, stdin=subprocess.DEVNULL)
            self.assertEqual(done.returncode, status, arguments)
