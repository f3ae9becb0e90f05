# SPDX-License-Identifier: LGPL-2.1-or-later
"""Clients killed in every state and in the middle of every call. Nothing of them may be left, and
another client's DMA and calls go on undisturbed."""

import os
import subprocess
import sys

import transport
from cases import VmmCase
from fixture import both_transports, eventually
from guest import PAGE
from vmm import WINDOW_FIRST, Started

HERE = os.path.dirname(os.path.abspath(__file__))
IOVA = WINDOW_FIRST + 5 * PAGE

STATES = (
    "connected", "session", "guest", "file", "region", "opened", "bound", "managed", "registered", "refreshed",
    "attached to parent", "reset",
)  # fmt: skip

CALLS = (
    "GetInfo", "OpenSession", "CloseSession", "CheckFit", "GetUsage", "CancelOperation", "CreateGuest", "ListGuests",
    "DescribeGuest", "ResetGuest", "DestroyGuest", "AddMemoryFile", "UpdateMemory", "UpdateMemory unmap",
    "RemoveMemoryFile", "OpenDevice", "BindDevice", "GetDeviceInfo", "GetDescriptor", "CloseDevice", "CreateNested",
    "ReplaceNested", "DestroyNested", "Attach", "RefreshNested", "UpdateNested", "ExplainTranslation", "WatchEvents",
)  # fmt: skip


@both_transports
class Killed(VmmCase):
    weight = 100  # hundreds of processes, one after another
    settings = {"iommubrokerd.conf": "[Memory]\nPinSliceSize=1M\n"}

    def setUp(self):
        super().setUp()
        self.bystander = Started(self.vmm, fid=8)
        self.bystander.show(IOVA, 0x3000)

    def victim(self, *arguments):
        return subprocess.Popen(
            [sys.executable, os.path.join(HERE, "victim.py"), self.daemon.run, self.transport_name, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def only_the_bystander(self):
        status = self.daemon.status()
        left = (status.sessions, status.guests, status.devices, status.nested_domains, status.pinned_bytes)
        return left == (1, 1, 1, 1, 16 << 20) or left

    def undisturbed(self):
        self.bystander.memory.write(0x3000, b"undisturbed")
        self.assertEqual(self.bystander.dma.read(IOVA, 11), b"undisturbed")
        self.bystander.show(IOVA + PAGE, 0x4000)
        self.assertEqual(self.bystander.hide(IOVA + PAGE), (0, 1))

    def end(self, victim):
        victim.kill()
        victim.wait()
        victim.stdin.close()
        victim.stdout.close()

    def test_in_every_state(self):
        for state in STATES:
            with self.subTest(state):
                victim = self.victim("state", state)
                self.assertEqual(victim.stdout.readline().strip(), "there", state)
                self.undisturbed()
                self.end(victim)
                eventually(self.only_the_bystander, "all of it is taken down: " + state)
                self.undisturbed()

    def test_in_the_middle_of_every_call(self):
        for call in CALLS:
            with self.subTest(call):
                victim = self.victim("call", call, "0")
                self.assertEqual(victim.wait(transport.PATIENCE), -9, victim.stdout.read())
                self.end(victim)
                eventually(self.only_the_bystander, "all of it is taken down: " + call)
                self.undisturbed()

    def test_some_time_into_a_long_call(self):
        """At times from before the request arrives to after it is done."""
        for call in ("BindDevice", "UpdateMemory", "CloseSession"):
            for microseconds in (50, 200, 1000, 3000, 10000, 30000):
                with self.subTest(call=call, microseconds=microseconds):
                    victim = self.victim("call", call, str(microseconds))
                    self.assertEqual(victim.wait(transport.PATIENCE), -9)
                    self.end(victim)
                    eventually(self.only_the_bystander, "all of it is taken down: " + call)
        self.undisturbed()

    def test_its_function_can_be_opened_again(self):
        victim = self.victim("state", "refreshed")
        self.assertEqual(victim.stdout.readline().strip(), "there")
        self.end(victim)
        eventually(self.only_the_bystander, "all of it is taken down")
        again = self.new_vmm()
        started = Started(again, fid=1)
        self.assertEqual(started.show(IOVA, 0x3000), (1, 0))
        self.assertTrue(started.dma.reaches(IOVA))

    def test_a_descriptor_that_outlives_its_vmm(self):
        """The dead VMM's device descriptor lives on in another process: its DMA is stopped all the
        same."""
        victim = self.victim("state", "leaked")
        pid_line = victim.stdout.readline().split()
        self.assertEqual(pid_line[0], "there")
        heir = int(pid_line[1])
        try:
            self.end(victim)
            eventually(self.only_the_bystander, "all of it is taken down")
            self.undisturbed()
        finally:
            os.kill(heir, 9)
