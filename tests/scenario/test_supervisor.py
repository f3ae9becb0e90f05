# SPDX-License-Identifier: LGPL-2.1-or-later
"""The supervisor keeps its word, as systemd does, where the restart scenarios rely on it: looked at
with a small service that does what it is told; and the daemon runs under it."""

import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
import unittest

from api import Disconnected
from fixture import PATIENCE, Case, eventually
from supervisor import Supervised, Supervisor

# Takes Python over its socket "control", runs it, and answers what it printed last.
SERVICE = r"""
import array, os, socket, sys, time
NAMES = os.environ.get("LISTEN_FDNAMES", "").split(":") if "LISTEN_FDS" in os.environ else []
FDS = list(range(3, 3 + int(os.environ.get("LISTEN_FDS", 0))))
MINE = int(os.environ.get("LISTEN_PID", 0)) == os.getpid()
def notify(text, *fds):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.connect(os.environ["NOTIFY_SOCKET"])
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        s.sendmsg([text.encode()], rights)
def store(name, fd, more=""):
    notify("FDSTORE=1\nFDNAME=" + name + more, fd)
def barrier():
    r, w = os.pipe()
    notify("BARRIER=1", w)
    os.close(w)
    return os.read(r, 1) == b""
def content(name):
    return os.pread(FDS[NAMES.index(name)], 100, 0)
control = socket.socket(fileno=os.dup(FDS[NAMES.index("control")]))
notify("READY=1\nSTATUS=ready")
while True:
    connection, _ = control.accept()
    with connection, connection.makefile("rw") as stream:
        code = stream.read()
        try:
            stream.write(repr(eval(code, globals())))
        except SyntaxError:
            exec(code, globals())
            stream.write("None")
"""


class Store(unittest.TestCase):
    """The supervisor with the small service."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="ib-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.path = os.path.join(self.folder, "control")
        self.control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.addCleanup(self.control.close)
        self.control.bind(self.path)
        self.control.listen(10)

    def supervise(self, **options):
        self.supervisor = Supervisor(
            [sys.executable, "-c", SERVICE], self.folder, {"PATH": "/usr/bin:/bin"}, {"control": self.control},
            log_path=os.path.join(self.folder, "log"), **options,
        )  # fmt: skip
        self.addCleanup(self.supervisor.close)
        self.supervisor.start(PATIENCE)

    def send(self, code):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(PATIENCE)
        connection.connect(self.path)
        connection.sendall(code.encode())
        connection.shutdown(socket.SHUT_WR)
        return connection

    def tell(self, code):
        with self.send(code) as connection:
            answer = b""
            while True:
                data = connection.recv(4096)
                if not data:
                    break
                answer += data
        self.assertTrue(answer, "the service died of: " + code + open(os.path.join(self.folder, "log")).read())
        return eval(answer)

    def store(self, name, text, more=""):
        self.tell("f = os.memfd_create(%r)\nos.write(f, %r)\nstore(%r, f, %r)" % (name, text, name, more))

    def crash(self):
        self.supervisor.crash(PATIENCE)

    def test_what_is_stored_comes_back(self):
        self.supervise()
        self.assertEqual(self.tell("NAMES"), ["control"])
        self.assertTrue(self.tell("MINE"))
        for name in ("b", "a", "c"):
            self.store(name, name.encode() * 3)
        self.assertTrue(self.tell("barrier()"))
        self.assertEqual(self.supervisor.names(), ["b", "a", "c"])
        pid = self.tell("os.getpid()")
        self.crash()
        self.assertNotEqual(self.tell("os.getpid()"), pid)
        self.assertTrue(self.tell("MINE"))
        self.assertEqual(self.tell("NAMES"), ["control", "b", "a", "c"])
        self.assertEqual(self.tell("content('a')"), b"aaa")
        self.assertEqual(self.tell("content('c')"), b"ccc")
        self.tell("notify('FDSTOREREMOVE=1\\nFDNAME=a')")
        self.supervisor.wait_names(["b", "c"], PATIENCE)
        self.crash()
        self.assertEqual(self.tell("NAMES"), ["control", "b", "c"])
        self.assertEqual(self.supervisor.exits, [-9, -9])

    def test_a_process_has_only_what_it_is_passed(self):
        ours, _ = held = os.pipe()
        for fd in held:
            os.set_inheritable(fd, True)
            self.addCleanup(os.close, fd)
        self.supervise()
        self.store("a", b"a")
        self.crash()
        link = os.readlink("/proc/self/fd/%d" % ours)
        self.assertNotIn(link, self.tell("[os.readlink('/proc/self/fd/%d' % i) for i in range(6)]"))
        self.assertEqual(self.tell("sorted(map(int, os.listdir('/proc/self/fd')))[:5]"), [0, 1, 2, 3, 4])
        # its duplicate of the socket, the connection and the listing itself
        self.assertLessEqual(self.tell("len(os.listdir('/proc/self/fd'))"), 8)

    def test_a_full_store_is_silent(self):
        self.supervise(store_max=2)
        for name in ("a", "b", "c"):
            self.store(name, b"x")
        self.assertTrue(self.tell("barrier()"))
        self.assertEqual(self.supervisor.names(), ["a", "b"])
        self.assertEqual(self.supervisor.dropped, ["c"])
        self.tell("notify('FDSTOREREMOVE=1\\nFDNAME=a')")
        self.store("d", b"x")
        self.supervisor.wait_names(["b", "d"], PATIENCE)

    def test_the_same_open_file_is_kept_once(self):
        self.supervise()
        self.tell("f = os.memfd_create('x')")
        self.tell("store('a', f), store('b', os.dup(f)), barrier()")
        self.assertEqual(self.supervisor.names(), ["a"])
        self.assertEqual(self.supervisor.duplicates, [("a", "b")])

    def test_what_hangs_up_is_dropped_unless_it_is_not_polled(self):
        self.supervise()
        self.tell("r, w = os.pipe()")
        self.tell("r2, w2 = os.pipe()")
        self.tell("store('polled', r), store('unpolled', r2, '\\nFDPOLL=0'), barrier()")
        self.crash()
        self.assertEqual(self.tell("NAMES"), ["control", "unpolled"])
        self.assertEqual(self.supervisor.hung_up, ["polled"])

    def test_messages_of_the_dead_count(self):
        """What was sent before a kill is stored before the successor starts."""
        self.supervise()
        for i in range(20):
            starts = self.supervisor.starts
            name = "n%d" % i
            code = "store('%s', os.memfd_create('x'))\nos.kill(os.getpid(), 9)" % name
            with self.send(code):
                self.supervisor.wait_ready(starts + 1, PATIENCE)
            self.assertIn(name, self.tell("NAMES"))

    def test_messages_of_others_do_not(self):
        self.supervise()
        self.tell(
            "pid = os.fork()\nif not pid:\n    store('a', os.memfd_create('x'))\n    os._exit(0)\nos.waitpid(pid, 0)"
        )
        self.assertTrue(self.tell("barrier()"))
        self.assertEqual(self.supervisor.names(), [])
        self.assertEqual(len(self.supervisor.complaints), 1)

    def test_barriers_can_be_held(self):
        self.supervise()
        self.supervisor.hold_barriers(True)
        with self.send("barrier()") as waiting:
            eventually(lambda: self.supervisor.barriers == 1, "the barrier")
            waiting.settimeout(0.05)
            with self.assertRaises(TimeoutError):
                waiting.recv(1)
            self.supervisor.hold_barriers(False)
            waiting.settimeout(PATIENCE)
            self.assertEqual(waiting.recv(10), b"True")

    def test_a_manager_that_reads_nothing_yet(self):
        self.supervise()
        self.supervisor.deafen(True)
        self.store("a", b"x")
        self.assertEqual(self.supervisor.names(), [])
        self.supervisor.deafen(False)
        self.supervisor.wait_names(["a"], PATIENCE)

    def test_restart_keeps_the_store_and_stop_may_not(self):
        for preserve in (True, False):
            with self.subTest(preserve=preserve):
                self.supervise(preserve=preserve)
                self.store("a", b"x")
                self.supervisor.restart(PATIENCE, {"ONCE": "1"})
                self.assertEqual(self.tell("NAMES"), ["control", "a"])
                self.assertEqual(self.tell("os.environ.get('ONCE')"), "1")
                self.crash()
                self.assertEqual(self.tell("os.environ.get('ONCE')"), None)
                self.supervisor.stop(PATIENCE)
                self.assertEqual(self.supervisor.names(), ["a"] if preserve else [])
                self.supervisor.start(PATIENCE)
                self.assertEqual(self.tell("NAMES"), ["control", "a"] if preserve else ["control"])
                self.assertEqual(self.supervisor.exits, [-15, -9, -15])
                self.supervisor.close()
                os.unlink(self.supervisor.notify_path)

    def test_watchdog(self):
        self.supervise(watchdog_seconds=0.5)
        self.assertEqual(self.tell("os.environ['WATCHDOG_USEC']"), "500000")
        self.assertTrue(self.tell("int(os.environ['WATCHDOG_PID']) == os.getpid()"))
        ready = self.supervisor.readies
        self.supervisor.wait_ready(ready + 1, PATIENCE)
        self.assertGreaterEqual(self.supervisor.watchdog_kills, 1)
        self.assertEqual(self.supervisor.exits[0], -signal.SIGABRT)

    def test_it_ends_with_its_supervisor(self):
        self.supervise()
        pidfd = os.pidfd_open(self.tell("os.getpid()"))
        self.supervisor.close()
        with contextlib.closing(os.fdopen(pidfd)):
            with self.assertRaises(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, 0)

    def test_many_descriptors(self):
        self.supervise()
        self.tell("for i in range(1500):\n    store('%d' % i, os.memfd_create('x'))\nbarrier()")
        self.crash()
        self.assertEqual(self.tell("(len(NAMES), NAMES[1500])"), (1501, "1499"))


class UnderSupervisor(Case):
    """The daemon is supervised like anything else."""

    daemon_class = Supervised

    def test_clients_find_it_after_every_death(self):
        for number in (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT):
            client = self.client(session=False)
            client.call("GetInfo")
            self.daemon.crash(number)
            with self.assertRaises(Disconnected):
                client.call("GetInfo")
            self.client("native", session=False).call("GetInfo")
            self.client("grpc", session=False).call("GetInfo")
            self.daemon.status()
        # a sanitizer makes an exit of a signal that it reports
        self.assertEqual(len(self.daemon.supervisor.exits), 3)
        self.assertTrue(all(self.daemon.supervisor.exits))
        self.forget_reports()

    def forget_reports(self):
        """A sanitizer's word on signals that the test sent."""
        with open(self.daemon.log_path, "r+b") as log:
            log.truncate(0)

    def test_restart_and_stop(self):
        self.daemon.restart()
        self.daemon.status()
        self.daemon.stop()
        self.assertFalse(self.daemon.alive())
        self.assertTrue(self.daemon.supervisor.stopping)
        self.daemon.start()
        self.daemon.status()
        self.assertEqual(self.daemon.supervisor.exits, [0, 0])

    def test_a_call_that_comes_meanwhile_waits(self):
        """The listening sockets are there while the daemon is not."""
        self.daemon.stop()
        client = self.client(session=False)
        self.daemon.start()
        client.call("GetInfo")


class UnderWatchdog(Case):
    """It tells the watchdog that it lives, and is killed when it hangs."""

    class Watched(Supervised):
        manage = {"watchdog_seconds": 8}

    daemon_class = Watched

    def test_hang(self):
        self.daemon.process.send_signal(signal.SIGSTOP)
        self.daemon.supervisor.wait_ready(2, 2 * PATIENCE)
        self.assertEqual(self.daemon.supervisor.watchdog_kills, 1)
        self.daemon.status()
        UnderSupervisor.forget_reports(self)

    def test_it_says_that_it_lives(self):
        eventually(
            lambda: "WATCHDOG=1" in self.daemon.supervisor.messages or self.daemon.supervisor.messages,
            "the watchdog is told",
        )
