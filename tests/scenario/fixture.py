# SPDX-License-Identifier: LGPL-2.1-or-later
"""One daemon for each test, in a private folder, judged when the test ends.

After every test the daemon is stopped with SIGTERM, and these must hold: nothing is left of any
client (status all zero), no descriptor is left over, the exit status is 0, the log holds no report
of a sanitizer.
"""

import contextlib
import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

import transport
from api import Disconnected, Refused

BUILD = os.environ.get("IB_BUILD", "")
SANITIZER = re.compile(
    r"ERROR: (Address|Leak|Memory)Sanitizer|runtime error:|WARNING: ThreadSanitizer|SUMMARY: \w+Sanitizer"
)
# Long enough for a sanitizer build on a busy machine; nothing is judged by how long it took.
PATIENCE = transport.PATIENCE

ALL_ZERO = (
    "sessions", "guests", "devices", "nested_domains", "pinned_bytes", "mappings_installed", "mappings_reserved",
)  # fmt: skip


def built(name):
    path = os.path.join(BUILD, name)
    if not os.access(path, os.X_OK):
        raise RuntimeError("no %s: set IB_BUILD to a build folder" % path)
    return path


def eventually(probe, what, patience=PATIENCE):
    """Wait until probe() is true; what it last said otherwise goes into the failure."""
    end = time.monotonic() + patience
    pause = 0.001
    while True:
        value = probe()
        if value is True:
            return
        if time.monotonic() > end:
            raise AssertionError("never came: %s (last: %r)" % (what, value))
        time.sleep(pause)
        pause = min(pause * 2, 0.1)


def activated(command, passed):
    """The command with sockets as a service manager passes them, by name: from descriptor 3 on,
    with the id of the very process in its environment."""
    script = 'n=3; for fd in $1; do eval "exec $n<&$fd"; n=$((n + 1)); done; shift; '
    script += "export LISTEN_PID=$$ LISTEN_FDS=%d LISTEN_FDNAMES=%s; " % (len(passed), ":".join(passed))
    fds = [s.fileno() for s in passed.values()]
    # what is not yet copied must not be overwritten, and one that is must not be passed again
    assert min(fds) >= 3 + len(fds), fds
    script += "for fd in %s; do eval \"exec $fd<&-\"; done; " % " ".join(map(str, fds))
    return ["/bin/bash", "-c", script + 'exec "$@"', "bash", " ".join(map(str, fds)), *command]


class Daemon:
    """A running iommubrokerd. settings: file name in the configuration folder → text. passed: name →
    listening socket that it gets as from a service manager."""

    def __init__(self, settings=None, args=(), uid=None, env=None, passed=None):
        self.folder = tempfile.mkdtemp(prefix="ib-")
        os.chmod(self.folder, 0o755)
        self.config = os.path.join(self.folder, "config")
        self.run = os.path.join(self.folder, "run")
        self.admin_dir = os.path.join(self.run, "admin")
        self.log_path = os.path.join(self.folder, "log")
        os.mkdir(self.config)
        os.mkdir(self.run)
        os.chmod(self.run, 0o755)
        for name, text in (settings or {}).items():
            path = os.path.join(self.config, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w") as f:
                f.write(text)
        if uid is not None:
            os.chown(self.run, uid, uid)
        self.process = None
        try:
            self._start(args, uid, env or {}, passed or {})
        except BaseException:
            self.kill()
            self.remove()
            raise
        self.baseline = None

    def _start(self, args, uid, env, passed):
        notify_path = os.path.join(self.folder, "notify")
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify.bind(notify_path)
        os.chmod(notify_path, 0o777)
        command = [
            built("daemon/iommubrokerd"), "--backend=emulated", "--config-dir", self.config,
            "--runtime-dir", self.run, "--admin-dir", self.admin_dir, *args,
        ]  # fmt: skip
        # who is told that it is ready keeps no descriptors (see supervisor.Supervised)
        environment = {"PATH": "/usr/bin:/bin", "NOTIFY_SOCKET": notify_path, "FDSTORE": "0", "LC_ALL": "C.UTF-8"}
        environment.update((k, v) for k, v in os.environ.items() if "SAN_OPTIONS" in k)
        environment.update(env)
        if passed:
            command = activated(command, passed)
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, user=uid,
                group=uid, extra_groups=[] if uid is not None else None, pass_fds=[s.fileno() for s in passed.values()],
            )  # fmt: skip
        notify.settimeout(0.2)
        with notify:
            end = time.monotonic() + PATIENCE
            while time.monotonic() < end:
                if self.process.poll() is not None:
                    raise AssertionError("the daemon ended at once: " + self.log())
                with contextlib.suppress(TimeoutError):
                    if b"READY=1" in notify.recv(4096).split(b"\n"):
                        return
        raise AssertionError("the daemon never said READY=1: " + self.log())

    def log(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()

    @property
    def pid(self):
        return self.process.pid

    def alive(self):
        return self.process.poll() is None

    def fds(self):
        """Descriptors the daemon holds: link texts, sorted."""
        found = []
        folder = "/proc/%d/fd" % self.pid
        for name in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):
                found.append(os.readlink(os.path.join(folder, name)))
        return sorted(found)

    def memory_bytes(self):
        """Its own memory: guests' files that it maps are not among it."""
        with open("/proc/%d/status" % self.pid) as f:
            return 1024 * int(re.search(r"RssAnon:\s+(\d+)", f.read()).group(1))

    def admin(self):
        return transport.Grpc(self.admin_dir, "admin.sock")

    def status(self):
        with contextlib.closing(self.admin()) as admin:
            return admin.call("GetStatus").message

    def warm_up(self):
        """One call over each socket, so that what is made at first use is in the baseline."""
        with contextlib.closing(transport.Grpc(self.run)) as client:
            client.call("GetInfo")
        with contextlib.closing(transport.Native(self.run)) as client:
            client.call("GetInfo")
        self.status()
        eventually(self._no_connections, "the first clients' connections are closed")
        self.baseline = len(self.fds())

    def _no_connections(self):
        with contextlib.closing(self.admin()) as admin:
            count = admin.call("GetStatus").message.connections
        # an operator's own is not counted
        return count == 0 or count

    def settled(self):
        status = self.status()
        left = {name: getattr(status, name) for name in ALL_ZERO if getattr(status, name)}
        return not left or left

    def judge(self):
        """Stop it; what must hold of a daemon whose clients are gone. Returns complaints."""
        complaints = []
        try:
            if not self.alive():
                complaints.append("the daemon died with status %s" % self.process.returncode)
            else:
                complaints += self._judge_living()
        finally:
            self._stop(complaints)
        found = SANITIZER.search(self.log())
        if found:
            complaints.append("sanitizer report: " + self.log()[found.start() : found.start() + 6000])
        return complaints

    def _judge_living(self):
        complaints = []
        try:
            eventually(self.settled, "nothing is left of the clients")
            if self.baseline is not None:
                eventually(lambda: len(self.fds()) <= self.baseline or self.fds(), "descriptors back at the baseline")
        except (AssertionError, Refused) as error:
            complaints.append(str(error))
        return complaints

    def _stop(self, complaints):
        if self.alive():
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                complaints.append("the daemon does not stop on SIGTERM")
        self.kill()
        if not complaints and self.process.returncode != 0:
            complaints.append("exit status %s" % self.process.returncode)

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def remove(self):
        shutil.rmtree(self.folder, ignore_errors=True)


class Case(unittest.TestCase):
    """A test with its own daemon. Subclasses may set settings and args, and daemon_class to one that
    lives on in a successor (supervisor.Supervised)."""

    settings = None
    args = ()
    daemon_class = Daemon
    transport_name = "native"
    longMessage = True
    maxDiff = None

    def setUp(self):
        self.daemon = self.daemon_class(self.settings, self.args)
        self.addCleanup(self._end)
        self.daemon.warm_up()
        self.clients = contextlib.ExitStack()

    def _end(self):
        self.clients.close()
        complaints = self.daemon.judge()
        log = self.daemon.log()
        self.daemon.remove()
        if complaints:
            self.fail("\n".join(complaints) + "\n--- log of the daemon\n" + log[-8000:])

    def client(self, transport_name=None, session=True):
        """A connected client, with a session; closed when the test ends."""
        made = transport.TRANSPORTS[transport_name or self.transport_name](self.daemon.run)
        self.clients.callback(made.close)
        if session:
            made.open_session()
        # a gRPC client's session ends with its process: this process lives on
        if session and made.name == "grpc":
            self.clients.callback(end_session, made)
        return made

    @contextlib.contextmanager
    def refused(self, code, field=None, reason=None):
        """The body's call is refused with that code, naming that field or reason."""
        with self.assertRaises(Refused) as caught:
            yield caught
        error = caught.exception
        self.assertEqual(error.code, code, str(error))
        self.assertTrue(error.message, "a refusal says why")
        if field is not None:
            self.assertIn(field, error.fields, str(error))
        if reason is not None:
            self.assertEqual(error.reason, reason, str(error))
            self.assertEqual(error.details["ErrorInfo"].domain, "iommubroker")


def end_session(client):
    with contextlib.suppress(Refused, Disconnected):
        client.call("CloseSession")


def both_transports(case):
    """Make case into two: the same suite over gRPC and over the native transport."""
    module = sys.modules[case.__module__]
    for name in transport.TRANSPORTS:
        body = {"transport_name": name, "__module__": case.__module__, "__doc__": case.__doc__}
        made = type(case.__name__ + name.capitalize(), (case,), body)
        setattr(module, made.__name__, made)
    case._abstract = True
    return case


def die_with_parent():
    """For children: SIGKILL when the test goes."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
