# SPDX-License-Identifier: LGPL-2.1-or-later
"""iommubrokerctl against a running daemon: every command, live top on a terminal included."""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
import unicodedata

from cases import VmmCase
from fixture import PATIENCE, built, die_with_parent, eventually
from guest import MIB, PAGE
from vmm import WINDOW_FIRST, Started

RULE = "[Match]\nUser=%d\n[Quota]\nGuestsMax=3\nPinnedMemoryMax=64M\n" % os.getuid()
HOSTILE = "\x1b[2J漢字漢字漢字漢字漢字\u202e\t"


def columns(line):
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)


class CtlCase(VmmCase):
    settings = {"quota.d/50-mine.conf": RULE}

    def command(self, *words):
        return [built("client/iommubrokerctl"), "--admin-dir", self.daemon.admin_dir, *words]

    def ctl(self, *words, status=0):
        done = subprocess.run(
            self.command(*words), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            timeout=PATIENCE,
        )  # fmt: skip
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        return done.stdout

    def ctl_json(self, *words, status=0):
        return json.loads(self.ctl("--json", *words, status=status))

    @contextlib.contextmanager
    def started(self, *words, **more):
        """The tool while it runs."""
        with subprocess.Popen(self.command(*words), preexec_fn=die_with_parent, **more) as process:
            try:
                yield process
            finally:
                process.kill()


class Ctl(CtlCase):
    def test_quota_counts_what_is_used(self):
        accounts = {(a["level"], a["tenant"]): a for a in self.ctl_json("quota")}
        mine = {limit["resource"]: limit for limit in accounts[("tenant", "mine")]["limits"]}
        self.assertEqual((mine["guests"]["current"], mine["guests"]["max"]), (1, 3))
        self.assertEqual(mine["pinned_bytes"]["max"], 64 * MIB)
        self.assertIn("50-mine.conf:4", mine["guests"]["rule"])
        self.assertIn("50-mine.conf:4", self.ctl("quota", "--tenant", "mine"))
        levels = [a["level"] for a in self.ctl_json("quota", "--tenant", "mine")]
        self.assertEqual((levels.count("tenant"), levels.count("guest")), (1, 1))
        self.ctl("quota", "--tenant", "nobody", status=1)

    def test_over(self):
        self.new_vmm()
        path = os.path.join(self.daemon.config, "quota.d/50-mine.conf")
        with open(path, "w", encoding="utf-8") as file:
            file.write(RULE.replace("GuestsMax=3", "GuestsMax=1"))
        self.ctl("reload")
        self.assertRegex(self.ctl("quota"), r"  guests +2 +none +1 +2 +0 OVER\s+\S*50-mine.conf:4")
        self.assertLessEqual(max(columns(line) for line in self.ctl("quota").splitlines()), 80)

    def test_quota_explain(self):
        told = self.ctl_json("quota", "explain", str(os.getpid()))
        self.assertEqual((told["served"], told["tenant"], told["uid"]), (True, "mine", os.getuid()))
        self.assertIn("tenant   mine", self.ctl("quota", "explain", "--user", str(os.getuid())))
        self.ctl("quota", "explain", "--user", "no-such-user-here", status=1)

    def test_check_fit(self):
        self.assertEqual(self.ctl("check-fit", "--tenant", "mine", "--guests", "2"), "it fits\n")
        told = self.ctl("check-fit", "--tenant", "mine", "--guests", "3", "--pinned", "1T", status=1)
        self.assertIn("guests: 1 missing, for 1 of 3 are used and 3 wanted; ", told)
        self.assertIn("50-mine.conf:4", told)
        self.assertIn("pinned_bytes: ", told)

    def test_config_show(self):
        changed = self.ctl_json("config", "show", "--changed")
        self.assertEqual({s["key"] for s in changed} & {"GuestsMax", "User"}, {"GuestsMax", "User"})
        self.assertTrue(all(s["from"] or s["pending"] for s in changed))
        self.assertGreater(len(self.ctl_json("config", "show")), len(changed))
        self.assertRegex(self.ctl("config", "show"), r"(?m)^GuestsMax=3 +# .*50-mine.conf:4$")

    def test_config_check_without_a_daemon(self):
        offline = ["config", "check", "--config-dir", self.daemon.config, "--daemon", built("daemon/iommubrokerd")]
        self.ctl(*offline)
        # The program stands near the tool where nothing is installed.
        self.ctl("config", "check", "--config-dir", self.daemon.config)
        with open(os.path.join(self.daemon.config, "quota.d/60-bad.conf"), "w", encoding="utf-8") as file:
            file.write("[Match]\nUser=*\n[Quota]\nGuestMax=1\n")
        done = subprocess.run(self.command(*offline), capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 1, done)
        self.assertIn("60-bad.conf:4: unknown key 'GuestMax'; did you mean GuestsMax?", done.stdout + done.stderr)

    def test_revoke(self):
        Started(self.vmm)
        told = self.ctl("revoke", "guest", "guest", "--reason", "test")
        self.assertTrue(told.strip())
        eventually(lambda: self.daemon.status().devices == 0 or self.daemon.status(), "its device is taken")
        self.ctl("revoke", "guest", "nobody", status=1)
        self.ctl("revoke", "guest", "", status=2)

    def test_drain_waits_for_guests(self):
        self.assertIn("1 guests", self.ctl("drain"))
        self.ctl("drain", "--wait", "--timeout", "0.1", status=1)
        self.ctl("drain", "--cancel")
        another = self.new_vmm()
        with self.started("--json", "drain", "--wait", stdout=subprocess.PIPE) as process:
            eventually(lambda: self.ctl_json("drain")["draining"], "it drains")
            self.assertIsNone(process.poll())
            for vmm in (another, self.vmm):
                vmm.mutate("DestroyGuest", guest=vmm.guest)
            out, _ = process.communicate(timeout=PATIENCE)
            self.assertEqual(process.returncode, 0)
            self.assertEqual(json.loads(out)["guests"], 0)

    def test_metrics(self):
        text = self.ctl("metrics")
        self.assertTrue(text.endswith("# EOF\n"), text[-100:])
        self.assertEqual(self.ctl_json("metrics")["text"].split()[:2], text.split()[:2])

    def test_names(self):
        self.new_vmm(name="$(reboot)")
        names = self.ctl("names", "guests").splitlines()
        self.assertIn("guest", names)
        self.assertEqual(len(names), 3)
        self.assertEqual(self.ctl("names", "tenants").splitlines(), ["mine"])

    def test_monitor_tells_as_it_happens(self):
        with self.started("--json", "monitor", stdout=subprocess.PIPE, text=True) as process:
            kinds = []
            end = time.monotonic() + PATIENCE
            # it is there some time after it was started: something happens until it tells
            while not kinds and time.monotonic() < end:
                self.ctl("drain")
                self.ctl("drain", "--cancel")
                if select.select([process.stdout], [], [], 0.2)[0]:
                    kinds.append(json.loads(process.stdout.readline())["kind"])
            self.assertTrue(kinds, "no event came")
            self.assertTrue(kinds[0].startswith("drain"), kinds)
            self.assertIsNone(process.poll(), "it goes on")

    def test_doctor(self):
        done = subprocess.run(self.command("--json", "doctor"), capture_output=True, text=True, check=False)
        findings = json.loads(done.stdout)["findings"]
        serious = any(f["severity"] == "serious" for f in findings)
        self.assertEqual(done.returncode, 4 if serious else 0)
        told = [f["what"] for f in findings if f["id"] == "daemon"]
        self.assertEqual(told[0], "it answers, pid %d" % self.daemon.pid)
        self.assertIn("emulated", told[1])
        for finding in findings:
            self.assertTrue(finding["what"])
            self.assertTrue(finding["remedy"] or finding["severity"] in ("ok", "note"), finding)

    def test_top_to_a_pipe(self):
        named = self.new_vmm(name=HOSTILE)
        started = Started(named, fid=3)
        started.show(WINDOW_FIRST + 5 * PAGE, 0x3000)
        text = self.ctl("top", "--interval", "0.05", "--count", "2")
        self.assertNotIn("\x1b", text)
        self.assertEqual(text.count("TENANT, GUEST"), 2)
        self.assertLessEqual(max(columns(line) for line in text.splitlines()), 80)
        rows = {row["name"]: row for row in self.ctl_json("top", "--interval", "0.05")["rows"]}
        row = next(r for name, r in rows.items() if "[2J" in name)
        self.assertEqual((row["tenant"], row["pinned_bytes"], row["mappings"], row["devices"]), ("mine", 16 * MIB, 1, 1))
        self.assertEqual((rows["mine"]["pinned_bytes"], rows["mine"]["devices"]), (16 * MIB, 1))
        self.assertGreater(row["refreshes"], 0)

    def test_completion_asks_the_daemon(self):
        script = r"""
            . "$1"; shift
            COMP_WORDS=("$@" show gu); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
            _iommubrokerctl; echo "${COMPREPLY[*]}"
        """
        done = subprocess.run(
            ["bash", "-uc", script, "bash", built_file("client/iommubrokerctl.bash"), *self.command()],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        self.assertEqual((done.stdout, done.stderr), ("guest\n", ""))

    def test_what_ends_before_a_call(self):
        self.ctl("monitor", "--count", "0")
        for words in (["explain", "guest", "1"], ["names", "devices"], ["quota", "explain"], ["top", "--sort", "x"],
                      ["drain", "--timeout", "1"], ["revoke", "region", "1"]):  # fmt: skip
            self.ctl(*words, status=2)

    def test_no_daemon(self):
        nowhere = [built("client/iommubrokerctl"), "--admin-dir", os.path.join(self.daemon.folder, "nowhere")]
        for words in (["status"], ["top"], ["quota"], ["names", "guests"]):
            done = subprocess.run([*nowhere, "--json", *words], capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 3, done)
            self.assertEqual(json.loads(done.stderr)["error"]["code"], "UNAVAILABLE")


def built_file(name):
    path = os.path.join(os.environ["IB_BUILD"], name)
    if not os.path.exists(path):
        raise RuntimeError("no " + path)
    return path


def as_on_terminal():
    """Whoever runs the tests may ignore hang-ups, and that is inherited."""
    die_with_parent()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


class Terminal:
    """A terminal of its own for one program."""

    def __init__(self, command, rows):
        self.master, self.slave = pty.openpty()
        self.resize(rows)
        self.former = termios.tcgetattr(self.slave)
        self.text = ""
        self.process = subprocess.Popen(
            command, stdin=self.slave, stdout=self.slave, stderr=self.slave, start_new_session=True,
            preexec_fn=as_on_terminal,
        )  # fmt: skip

    def resize(self, rows):
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 80, 0, 0))

    def read(self):
        """What came since."""
        while select.select([self.master], [], [], 0.02)[0]:
            self.text += os.read(self.master, 65536).decode(errors="replace")
        return self.text

    def frames(self):
        return self.read().split("\x1b[H\x1b[J")[1:]

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


class TopOnTerminal(CtlCase):
    def setUp(self):
        super().setUp()
        self.terminal = Terminal(self.command("top", "--interval", "0.1"), 24)
        self.clients.callback(self.terminal.close)
        eventually(lambda: len(self.terminal.frames()) >= 3 or self.terminal.text, "frames come")

    def assert_given_back(self):
        self.assertEqual(termios.tcgetattr(self.terminal.slave), self.terminal.former)
        self.assertTrue(self.terminal.read().endswith("\x1b[?25h\x1b[?1049l"), repr(self.terminal.text[-200:]))

    def ended(self):
        eventually(lambda: self.terminal.process.poll() is not None, "it ends")
        return self.terminal.process.returncode

    def test_q_ends_it(self):
        self.assertNotEqual(termios.tcgetattr(self.terminal.slave), self.terminal.former)
        self.assertTrue(self.terminal.text.startswith("\x1b[?1049h\x1b[?25l"))
        os.write(self.terminal.master, b"q")
        self.assertEqual(self.ended(), 0)
        self.assert_given_back()

    def test_signals_end_it(self):
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
            with self.subTest(number.name):
                if self.terminal.process.poll() is not None:
                    self.terminal = Terminal(self.command("top", "--interval", "0.1"), 24)
                    self.clients.callback(self.terminal.close)
                    eventually(lambda: len(self.terminal.frames()) >= 1, "a frame comes")
                self.terminal.process.send_signal(number)
                self.assertEqual(self.ended(), -number)
                self.assert_given_back()

    def test_the_daemon_goes(self):
        self.daemon.process.send_signal(signal.SIGSTOP)
        self.clients.callback(lambda: self.daemon.process.send_signal(signal.SIGCONT))
        self.assertEqual(self.ended(), 1)  # DEADLINE_EXCEEDED
        self.assertEqual(termios.tcgetattr(self.terminal.slave), self.terminal.former)
        self.daemon.process.send_signal(signal.SIGCONT)

    def test_keys_sort(self):
        self.assertIn("; by pinned", self.terminal.text)
        os.write(self.terminal.master, b"n")
        eventually(lambda: "; by name" in self.terminal.frames()[-1], "sorted by name")

    def test_it_follows_the_window(self):
        for _ in range(2):
            self.new_vmm()
        eventually(lambda: self.terminal.frames()[-1].count("\n  guest") == 3, "all guests are shown")
        self.terminal.resize(9)
        self.terminal.process.send_signal(signal.SIGWINCH)
        eventually(lambda: re.search(r"and 3 more\r\n$", self.terminal.frames()[-1]) is not None, "it is cut")
        self.assertLessEqual(self.terminal.frames()[-1].count("\n"), 8)
