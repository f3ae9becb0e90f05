# SPDX-License-Identifier: LGPL-2.1-or-later
"""The configuration as an operator meets it: checked without a daemon, shown with where it comes from."""

import contextlib
import os
import pwd
import signal
import subprocess
import threading

from api import METHODS, Refused
from cases import VmmCase
from fixture import built, eventually

MISTAKES = {
    "iommubrokerd.conf": "[Limits]\nSesionsMax=1\nGuestsMax=many\n[Memory]\nRequireSeals=maybe\n",
    "quota.d/10-a.conf": "[Match]\nUser=*\n[Quota]\nGuestMax=1\nPinnedMemoryMax=1Q\n",
    "device.d/a.conf": "[Device]\nFunctionId=x\n[Device]\nUser=1\n",
}
TOLD = [
    "iommubrokerd.conf:2: unknown key 'SesionsMax'; did you mean SessionsMax?",
    "iommubrokerd.conf:3: [Limits] GuestsMax=: 'many' is not a number",
    "iommubrokerd.conf:5: [Memory] RequireSeals=: 'maybe' is not one of off, permissive, required",
    "10-a.conf:4: unknown key 'GuestMax'; did you mean GuestsMax?",
    "10-a.conf:5: PinnedMemoryMax=: '1Q' is not a size",
    "a.conf:2: FunctionId=: 'x' is not a number",
    "a.conf:4: [Device] that names no FunctionId=",
]


def violations(refused):
    return [v.description for v in refused.details["PreconditionFailure"].violations]


class Case(VmmCase):
    def write(self, name, text):
        path = os.path.join(self.daemon.config, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)

    def ask(self, method, **fields):
        admin = self.daemon.admin()
        try:
            return admin.call(method, METHODS[method].request(**fields))
        finally:
            admin.close()

    def shown(self):
        return self.ask("ShowConfiguration").messages

    def row(self, section, key):
        found = [row for row in self.shown() if (row.section, row.key) == (section, key)]
        self.assertEqual(len(found), 1, "%s %s" % (section, key))
        return found[0]


class Check(Case):
    def check(self, *folders):
        command = [built("daemon/iommubrokerd"), "--check-config"]
        for folder in folders:
            command += ["--config-dir", folder]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)

    def test_all_mistakes_are_told_without_a_daemon(self):
        self.assertEqual(self.check(self.daemon.config).returncode, 0)
        for name, text in MISTAKES.items():
            self.write(name, text)
        done = self.check(self.daemon.config)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        lines = done.stderr.splitlines()
        self.assertEqual(len(lines), len(TOLD), done.stderr)
        for line, told in zip(lines, TOLD):
            self.assertIn(told, line)

    def test_and_by_a_daemon(self):
        for name, text in MISTAKES.items():
            self.write(name, text)
        for check_only in (True, False):
            with self.assertRaises(Refused) as caught:
                self.ask("Configure", check_only=check_only)
            refused = caught.exception
            self.assertEqual((refused.code, refused.reason), ("FAILED_PRECONDITION", "BAD_CONFIGURATION"))
            self.assertIn(TOLD[0], str(refused))
            self.assertIn("(and 6 more)", str(refused))
            told_by_it = violations(refused)
            self.assertEqual(len(told_by_it), len(TOLD), told_by_it)
            for violation, told in zip(told_by_it, TOLD):
                self.assertIn(told, violation)
        eventually(lambda: all(told in self.daemon.log() for told in TOLD), "the log has all of them")

    def test_so_many_that_not_all_are_told(self):
        self.write("iommubrokerd.conf", "[Limits]\n" + "SessionsMax=x\n" * 72)
        done = self.check(self.daemon.config)
        self.assertEqual(len(done.stderr.splitlines()), 65)
        self.assertEqual(done.stderr.splitlines()[-1], "and 8 more")
        with self.assertRaises(Refused) as caught:
            self.ask("Configure", check_only=True)
        self.assertIn("(and 71 more)", str(caught.exception))
        self.assertGreater(len(violations(caught.exception)), 8)
        told = self.ask("Configure", check_only=True, tell_all=True)
        self.assertEqual(list(told.message.mistakes), done.stderr.splitlines())
        self.assertEqual(list(told.message.notes), [])

    def test_folders_take_precedence_in_order(self):
        folders = []
        for name in ("etc", "run", "lib"):
            self.write("%s/quota.d/x-%s.conf" % (name, name), "[Match]\nUser=*\n")
            folders.append(os.path.join(self.daemon.config, name))
        self.write("lib/iommubrokerd.conf", "[Nonsense]\n")
        self.assertEqual(self.check(*folders).returncode, 1)
        self.write("run/iommubrokerd.conf", "")
        self.assertEqual(self.check(*folders).returncode, 0, "an empty file hides the one below")
        self.assertEqual(self.check(*reversed(folders)).returncode, 1)

    def test_what_is_no_file(self):
        """None of it waits, and each is told by its name."""
        os.makedirs(os.path.join(self.daemon.config, "quota.d/20-folder.conf"))
        self.write("quota.d/30-zero.conf", "[Match]\nUser=*\0\n")
        at = lambda name: os.path.join(self.daemon.config, "quota.d", name)  # noqa: E731
        os.mkfifo(at("10-pipe.conf"))
        os.symlink("40-loop.conf", at("40-loop.conf"))
        os.symlink("nowhere", at("50-dangling.conf"))
        os.symlink("/dev/null", at("60-masked.conf"))
        os.symlink("/dev/zero", at("70-zeroes.conf"))
        with open(at("80-large.conf"), "w") as file:
            file.truncate(2 << 20)
        lines = self.check(self.daemon.config).stderr.splitlines()
        told = ("10-pipe.conf: is neither a file nor", "20-folder.conf: is a folder", "30-zero.conf:2: a zero byte",
                "40-loop.conf: cannot be read: Too many levels", "50-dangling.conf: cannot be read: No such file",
                "70-zeroes.conf: is neither a file nor", "80-large.conf: has more than 1048576 bytes")  # fmt: skip
        self.assertEqual(len(lines), len(told), lines)
        for line, wanted in zip(lines, told):
            self.assertIn(wanted, line)


class Storm(Case):
    """Asked again and again, by signals and by operators at once, and looked at meanwhile."""

    def configure(self, failures):
        try:
            with contextlib.closing(self.daemon.admin()) as admin:
                for _ in range(25):
                    with contextlib.suppress(Refused):
                        admin.call("Configure")
                    rows = admin.call("ShowConfiguration").messages
                    values = {row.value for row in rows if row.key in ("RegionsMax", "DevicesMax")}
                    if len(values) != 1:
                        failures.append("half of one configuration, half of another: %s" % values)
        except Exception as error:  # pylint: disable=broad-except
            failures.append(repr(error))

    def limits_write(self, value, bad=False):
        """Never a half of it: as editors do."""
        text = "[Limits]\nRegionsMax=%d\nDevicesMax=%d\n%s" % (value, value, "x=1\n" if bad else "")
        self.write("new", text)
        os.rename(os.path.join(self.daemon.config, "new"), os.path.join(self.daemon.config, "iommubrokerd.conf"))

    def test_reloads_at_once(self):
        failures = []
        self.limits_write(1000)
        self.ask("Configure")
        threads = [threading.Thread(target=self.configure, args=(failures,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for n in range(200):
            self.limits_write(1000 + n, bad=n % 7 == 3)
            os.kill(self.daemon.pid, signal.SIGHUP)
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
        self.limits_write(4321)
        os.kill(self.daemon.pid, signal.SIGHUP)
        eventually(lambda: self.row("Limits", "RegionsMax").value == "4321", "the last one holds")
        self.new_vmm()


class Show(Case):
    def test_values_and_where_they_come_from(self):
        self.write("iommubrokerd.conf", "[Limits]\nPinnedMemoryMax=50%\nSessionsMax=7\n[Memory]\nPinSliceSize=1M\n")
        self.write("iommubrokerd.conf.d/a.conf", "# over it\n[Limits]\nSessionsMax=9\n")
        self.write("quota.d/50-mine.conf", "[Match]\nUser=%d\n[Quota]\nPinnedMemoryMax=64G\n" % os.getuid())
        self.write("device.d/a.conf", "[Device]\nUser=%s\nFunctionId=*\n" % pwd.getpwuid(os.getuid()).pw_name)
        before = self.row("Limits", "SessionsMax")
        self.assertEqual((before.value, getattr(before, "from")), (before.default_value, ""))
        self.ask("Configure", check_only=True)
        self.assertEqual(self.row("Limits", "SessionsMax").value, before.value, "looked at only")
        self.ask("Configure")
        row = self.row("Limits", "SessionsMax")
        self.assertEqual((row.value, row.default_value), ("9", before.default_value))
        self.assertTrue(getattr(row, "from").endswith("/iommubrokerd.conf.d/a.conf:3"), row)
        row = self.row("Limits", "PinnedMemoryMax")
        self.assertRegex(row.value, r"^50% \([0-9]+[KMGT]?\)$")
        row = self.row("Memory", "PinSliceSize")
        self.assertEqual((row.value, row.pending, row.at_start, getattr(row, "from")), ("256M", "1M", True, ""))
        row = self.row("quota.d/50-mine.conf [Quota]", "PinnedMemoryMax")
        self.assertEqual(row.value, "64G")
        self.assertTrue(getattr(row, "from").endswith("/quota.d/50-mine.conf:4"), row)
        self.assertEqual(self.row("device.d/a.conf [Device] 1", "FunctionId").value, "*")

    def test_a_large_one_goes_in_many_messages(self):
        for n in range(400):
            self.write("quota.d/%03d-r%d.conf" % (n, n), "[Match]\nUser=%d\n[Quota]\nGuestsMax=%d\n" % (n, n))
        self.ask("Configure")
        rows = [row for row in self.shown() if row.section.startswith("quota.d/")]
        self.assertEqual(len(rows), 800)
        self.assertEqual([row.value for row in rows if row.key == "GuestsMax"], [str(n) for n in range(400)])

    def test_drop_ins_add_to_a_rule(self):
        self.write("quota.d/50-mine.conf", "[Match]\nUser=%d\n[Quota]\nGuestsMax=3\nRegionsMax=9\n" % os.getuid())
        self.write("quota.d/50-mine.conf.d/10-more.conf", "[Quota]\nGuestsMax=5\n")
        self.ask("Configure")
        row = self.row("quota.d/50-mine.conf [Quota]", "GuestsMax")
        self.assertEqual(row.value, "5")
        self.assertTrue(getattr(row, "from").endswith("/quota.d/50-mine.conf.d/10-more.conf:2"), row)
        self.assertEqual(self.row("quota.d/50-mine.conf [Quota]", "RegionsMax").value, "9")
