# SPDX-License-Identifier: LGPL-2.1-or-later
"""Another configuration while the daemon runs: whole, or not at all, and nobody's call fails."""

import contextlib
import os
import signal
import subprocess
import threading

from api import Refused
from cases import VmmCase
from fixture import both_transports, built, eventually
from guest import MIB, PAGE
from vmm import WINDOW_FIRST, Started

RULE = "[Match]\nUser={uid}\n[Quota]\nGuestsMax={guests}\n"


@both_transports
class Reload(VmmCase):
    settings = {"quota.d/50-mine.conf": RULE.format(uid=os.getuid(), guests=2)}

    def write(self, name, text):
        path = os.path.join(self.daemon.config, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)

    def ctl(self, *command):
        return subprocess.run(
            [built("client/iommubrokerctl"), "--admin-dir", self.daemon.admin_dir, *command],
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    def guests_max(self):
        mine = next(u for u in self.daemon.status().usage if u.tenant == "mine")
        return next(u.max for u in mine.usage if u.resource == "guests")

    def test_by_the_control_tool(self):
        self.write("quota.d/50-mine.conf", RULE.format(uid=os.getuid(), guests=1))
        self.assertEqual(self.ctl("config", "check").returncode, 0)
        self.assertEqual(self.guests_max(), 2, "looked at only")
        done = self.ctl("reload")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        first, *changes = done.stdout.split("\n", 1)
        self.assertEqual(first, "no mistakes in any file; what they say holds from now on")
        self.assertEqual(len(changes), 1, done.stdout)
        self.assertRegex(" ".join(changes[0].split()), r"^\S*50-mine.conf \[Quota\] GuestsMax is 1 and was 2 # \S+$")
        self.assertEqual(self.guests_max(), 1)
        with self.assertRaises(Refused) as refused:
            self.new_vmm()
        self.assertEqual(refused.exception.code, "RESOURCE_EXHAUSTED")

    def test_by_a_signal(self):
        self.write("quota.d/50-mine.conf", RULE.format(uid=os.getuid(), guests=7))
        os.kill(self.daemon.pid, signal.SIGHUP)
        eventually(lambda: self.guests_max() == 7, "the limit is the file's")

    def test_a_bad_file_keeps_everything(self):
        self.write("quota.d/50-mine.conf", RULE.format(uid=os.getuid(), guests=5))
        self.write("quota.d/60-bad.conf", "[Match]\nUser=*\n[Quota]\nGuestMax=1\n")
        for command in (["config", "check"], ["reload"]):
            done = self.ctl(*command)
            self.assertEqual(done.returncode, 1)
            self.assertIn("60-bad.conf:4: unknown key 'GuestMax'; did you mean GuestsMax?", done.stderr)
        self.assertEqual(self.guests_max(), 2)
        os.kill(self.daemon.pid, signal.SIGHUP)
        eventually(lambda: self.daemon.log().count("is kept as it was") == 2, "the log tells of both")
        self.assertEqual(self.guests_max(), 2)
        self.new_vmm()

    def test_what_only_a_start_changes_is_told(self):
        self.write("iommubrokerd.conf", "[Service]\nWorkerThreadsMax=5\n[Memory]\nPinSliceSize=1M\n")
        done = self.ctl("reload")
        self.assertEqual(done.returncode, 0)
        self.assertEqual(
            sorted(done.stdout.splitlines()),
            ["[Memory] PinSliceSize= takes effect at the next start",
             "[Service] WorkerThreadsMax= takes effect at the next start",
             "no mistakes in any file; what they say holds from now on", "nothing that holds now has changed"],
        )  # fmt: skip

    def test_device_rules_follow(self):
        self.write("device.d/a.conf", "[Device]\nUser=%d\nFunctionId=2\n" % os.getuid())
        self.assertEqual(self.ctl("reload").returncode, 0)
        with self.refused("PERMISSION_DENIED"):
            self.vmm.open(1)
        self.vmm.open(2)

    def test_calls_go_on_meanwhile(self):
        """Refreshes and changes of memory by two clients, while the limits go up and down."""
        stop, failures, rounds = threading.Event(), [], [0, 0]

        def work(number, vmm):
            try:
                started = Started(vmm, fid=1 + number, mappings_max=100)
                iova = WINDOW_FIRST + 5 * PAGE
                while not stop.is_set() or not rounds[number]:
                    started.show(iova, 0x3000)
                    started.hide(iova)
                    vmm.new_memory(MIB, gpa=1024 * MIB)
                    vmm.unmap(1024 * MIB, MIB)
                    vmm.mutate("RemoveMemoryFile", guest=vmm.guest, memory_file=vmm.files.pop()[1])
                    rounds[number] += 1
            except Exception as error:  # pylint: disable=broad-except
                failures.append(repr(error))

        threads = [threading.Thread(target=work, args=(n, v)) for n, v in enumerate((self.vmm, self.new_vmm()))]
        for thread in threads:
            thread.start()
        with contextlib.closing(self.daemon.admin()) as admin:
            for turn in range(60):
                self.write("quota.d/50-mine.conf", RULE.format(uid=os.getuid(), guests=2 + turn % 3))
                self.write("quota.d/60-bad.conf", "[Match]\nUser=*\n" + ("[Quota]\nx=1\n" if turn % 5 == 4 else ""))
                with contextlib.suppress(Refused):
                    admin.call("Configure")
        stop.set()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
        self.assertTrue(all(rounds), str(rounds))
