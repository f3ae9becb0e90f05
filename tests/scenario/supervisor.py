# SPDX-License-Identifier: LGPL-2.1-or-later
"""A service manager as the daemon meets it in systemd: sockets and a descriptor store that outlive
it, a restart after every death, a watchdog.

Supervisor does that for any command; Supervised is a fixture.Daemon that runs under one, so that a
case becomes a case with restarts by `daemon_class = Supervised`. What systemd does silently it does
silently, too, and remembers for the test: it drops what the store has no room for, keeps one of two
descriptors of the same open file, drops what hangs up unless FDPOLL=0, takes messages of the main
process only, and handles the messages of a dead process before it starts the next.
"""

import array
import collections
import contextlib
import ctypes
import fcntl
import os
import platform
import resource
import select
import signal
import socket
import stat
import struct
import subprocess
import threading
import time

from fixture import PATIENCE, Daemon, built

LISTEN_FDS_START = 3
# Descriptors that are kept lie above all numbers at which the daemon is to find them.
KEPT_FD_MIN = resource.getrlimit(resource.RLIMIT_NOFILE)[1] // 2
SYS_KCMP = {"x86_64": 312, "s390x": 343, "aarch64": 272}.get(platform.machine())
KCMP_FILE = 0
STARTS_MAX = 1000

LIBC = ctypes.CDLL(None, use_errno=True)
Stored = collections.namedtuple("Stored", "name fd inode polled")


def same_open_file(a, b):
    """As systemd's same_fd(): by kcmp(2) or, without it, by inode and flags."""
    if SYS_KCMP:
        pid = os.getpid()
        order = LIBC.syscall(SYS_KCMP, pid, pid, KCMP_FILE, a, b)
        if order >= 0:
            return order == 0
    one, other = os.fstat(a), os.fstat(b)
    if stat.S_IFMT(one.st_mode) in (stat.S_IFCHR, stat.S_IFBLK):
        return False
    if (one.st_dev, one.st_ino) != (other.st_dev, other.st_ino):
        return False
    return fcntl.fcntl(a, fcntl.F_GETFL) == fcntl.fcntl(b, fcntl.F_GETFL)


def inheritable_fds():
    """What tests hold, received from a daemon mostly, is no business of the next one."""
    found = []
    for fd in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):
            if fd > 2 and os.get_inheritable(fd):
                found.append(fd)
    return found


class Child:
    """What fixture.Daemon uses of a subprocess.Popen; the supervisor's thread waits for it."""

    def __init__(self, pid):
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.returncode = None
        self.ended = threading.Event()

    def poll(self):
        return self.returncode

    def wait(self, timeout=None):
        if not self.ended.wait(timeout):
            raise subprocess.TimeoutExpired([], timeout)
        return self.returncode

    def send_signal(self, number):
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def reap(self):
        """By the supervisor's thread, when the pidfd says that it ended: all of its threads did."""
        _, status = os.waitpid(self.pid, 0)
        self.returncode = os.waitstatus_to_exitcode(status)
        self.ended.set()


class Supervisor:
    """Runs a command until stop(). sockets: name → listening socket, lent. environment: all of it
    but what a service manager adds; once: what the next start gets besides, and only that one.

    store: list of Stored in the order in which they came; dropped, duplicates, hung_up: names
    that the store silently did not keep; messages: all assignments that came, as text."""

    def __init__(
        self, command, folder, environment=None, sockets=None, uid=None, log_path=os.devnull, store_max=16384,
        watchdog_seconds=0, watchdog_told=None, restart_seconds=0.01, preserve=True, tells_store_max=False,
    ):  # fmt: skip
        self.command = command
        self.environment = dict(environment or {})
        self.sockets = sockets or {}
        self.uid = uid
        self.log_path = log_path
        self.store_max = store_max
        self.watchdog_seconds = watchdog_seconds
        # what the service is told: less, where a test counts what it says and is not to be judged by its time
        self.watchdog_told = watchdog_told or watchdog_seconds
        self.restart_seconds = restart_seconds
        self.preserve = preserve  # FileDescriptorStorePreserve=yes: a stop keeps the store, too
        self.tells_store_max = tells_store_max  # $FDSTORE, as from systemd 254 on
        self.once = {}
        self.store, self.dropped, self.duplicates, self.hung_up = [], [], [], []
        self.messages, self.exits, self.complaints = [], [], []
        self.starts = self.readies = self.barriers = self.watchdog_kills = 0
        self.status = ""
        self.ready = self.stopping = False
        self.child = None  # the main process; last: the one before, if there is none
        self.last = None
        self.failure = None
        self._changed = threading.Condition()
        self._wanted = False  # the service is to run
        self._restart = False  # it is to end once, and to come back
        self._over = False
        self._held, self._hold = [], False
        self._deaf = False
        self._fed = None  # when the watchdog was; None: it does not watch
        if KEPT_FD_MIN < 512:
            raise RuntimeError("too few descriptors are allowed here (ulimit -Hn) to keep any")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.notify_path = os.path.join(folder, "notify")
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._notify.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._notify.setblocking(False)
        self._notify.bind(self.notify_path)
        os.chmod(self.notify_path, 0o777)
        self._wake_r, self._wake_w = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._thread = threading.Thread(target=self._run, daemon=True, name="supervisor")
        self._thread.start()

    # ── what a test does ──────────────────────────────────────────────────────────────────────

    def start(self, patience):
        """systemctl start; returns when the service is ready."""
        with self._changed:
            ready = self.readies
            self._wanted = True
        self._wake()
        self.wait_ready(ready + 1, patience)

    def stop(self, patience):
        """systemctl stop: SIGTERM, and the store is emptied unless it is preserved."""
        with self._changed:
            self._wanted = False
            child = self.child
        if child:
            child.send_signal(signal.SIGTERM)
            child.wait(patience)
        self._wake()
        self._wait(lambda: not self.child, "the service is stopped", patience)

    def restart(self, patience, once=None):
        """systemctl restart: SIGTERM, and on with what the store keeps. once: see above."""
        with self._changed:
            ready = self.readies
            self.once = dict(once or {})
            self._restart = True
            child = self.child
        child.send_signal(signal.SIGTERM)
        self.wait_ready(ready + 1, patience)

    def crash(self, patience, number=signal.SIGKILL, once=None):
        """Kill it, and wait until its successor is ready."""
        with self._changed:
            ready = self.readies
            self.once = dict(once or {})
            child = self.child
        child.send_signal(number)
        self.wait_ready(ready + 1, patience)

    def wait_ready(self, count, patience):
        """Until READY=1 came that many times in all, and from the process that runs now."""
        self._wait(lambda: self.readies >= count and self.ready, "start %d is ready" % count, patience)

    def wait_start(self, count, patience):
        self._wait(lambda: self.starts >= count, "start %d" % count, patience)

    def wait_names(self, names, patience):
        """Until exactly these are stored."""
        self._wait(lambda: sorted(self.names()) == sorted(names), "stored: %s" % sorted(names), patience)

    def names(self):
        with self._changed:
            return [stored.name for stored in self.store]

    def stored_bytes(self):
        """Memory of the files behind what is stored."""
        with self._changed:
            found = [os.fstat(stored.fd) for stored in self.store]
        return sum({f.st_ino: 512 * f.st_blocks for f in found}.values())

    def hold_barriers(self, hold):
        """Barriers are not answered meanwhile."""
        with self._changed:
            self._hold = hold
            held, self._held = ([], self._held) if hold else (self._held, [])
        for fd in held:
            os.close(fd)

    def deafen(self, deaf):
        """It reads no messages meanwhile, as while it reloads, nor does its watchdog bite."""
        with self._changed:
            self._deaf = deaf
        self._wake()

    def put(self, name, borrow_fd):
        """As if the service had stored it."""
        with self._changed:
            self._push(name, os.dup(borrow_fd), False)

    def forget(self, name):
        """A descriptor is lost from the store, whyever."""
        with self._changed:
            self._remove(name)

    def close(self):
        """Kill what runs and forget all. Harmless when that was done."""
        if self._over:
            return
        with self._changed:
            self._over = True
        self._wake()
        self._thread.join()
        self._empty()
        self.hold_barriers(False)
        self._notify.close()
        os.close(self._wake_r)
        os.close(self._wake_w)

    def _empty(self):
        while self.store:
            os.close(self.store.pop().fd)

    def _wake(self):
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_w, b"x")

    def _wait(self, probe, what, patience):
        end = time.monotonic() + patience
        with self._changed:
            while not probe():
                if self.failure:
                    raise AssertionError("%s, and so never: %s" % (self.failure, what))
                left = end - time.monotonic()
                if left <= 0:
                    raise AssertionError("never came: %s (exits: %r, status: %s)" % (what, self.exits, self.status))
                self._changed.wait(left)

    # ── the thread ────────────────────────────────────────────────────────────────────────────

    def _run(self):
        try:
            while not self._over:
                self._step()
        except BaseException as error:  # told to whoever waits
            with self._changed:
                self.failure = repr(error)
                self._changed.notify_all()
            if not isinstance(error, Exception):
                raise
        finally:
            if self.child:
                self.child.kill()
                self.child.reap()
                os.close(self.child.pidfd)
            with self._changed:
                self.child = None
                self._changed.notify_all()

    def _step(self):
        poll = select.poll()
        poll.register(self._wake_r, select.POLLIN)
        if not self._deaf:
            poll.register(self._notify.fileno(), select.POLLIN)
        if self.child:
            poll.register(self.child.pidfd, select.POLLIN)
        elif self._wanted:
            self._spawn()
            return
        left = self._watchdog_left()
        readable = {fd for fd, _ in poll.poll(None if left is None else max(0, 1000 * left))}
        if self._wake_r in readable:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_r, 4096)
        if self._notify.fileno() in readable and not self._deaf:
            self._read_messages(heed_deaf=True)
        if self.child and self.child.pidfd in readable:
            self._ended()
        elif self._watchdog_left() is not None and self._watchdog_left() <= 0:
            self.watchdog_kills += 1
            self._fed = None
            self.child.send_signal(signal.SIGABRT)
            # or a stopped process would not notice
            self.child.send_signal(signal.SIGCONT)

    def _watchdog_left(self):
        """Seconds until it bites. None: it does not."""
        if not self.child or not self.watchdog_seconds or self._fed is None or self._deaf:
            return None
        return self._fed + self.watchdog_seconds - time.monotonic()

    def _ended(self):
        child = self.child
        # what it said last is heard before anything is started
        self._read_messages()
        child.reap()
        with self._changed:
            self.exits.append(child.returncode)
            self.child = None
            self.ready = False
            self._drop_hung_up()
            if not self._wanted and not self.preserve:
                self._empty()
            again = self._wanted and not self._over
            self._changed.notify_all()
        os.close(child.pidfd)
        if again:
            time.sleep(0 if self._restart else self.restart_seconds)

    def _drop_hung_up(self):
        """systemd polls what it keeps, unless it was told not to; at the latest it is told here."""
        poll = select.poll()
        polled = {stored.fd: stored for stored in self.store if stored.polled}
        for fd in polled:
            poll.register(fd, 0)
        for fd, events in poll.poll(0) if polled else []:
            if events & (select.POLLHUP | select.POLLERR):
                self.hung_up.append(polled[fd].name)
                self.store.remove(polled[fd])
                os.close(fd)

    def _spawn(self):
        with self._changed:
            passed = [(name, s.fileno()) for name, s in self.sockets.items()]
            passed += [(stored.name, stored.fd) for stored in self.store]
            environment = dict(self.environment, NOTIFY_SOCKET=self.notify_path, **self.once)
            self.once = {}
            self._restart = False
            self.ready = self.stopping = False
            self.starts += 1
            if self.starts > STARTS_MAX:
                raise RuntimeError("it does nothing but start")
        if self.watchdog_seconds:
            environment["WATCHDOG_USEC"] = str(int(self.watchdog_told * 1e6))
        if self.tells_store_max:
            environment["FDSTORE"] = str(self.store_max)
        # the child alone knows its id, and it dies with this thread
        script = "export LISTEN_PID=$$; "
        if self.watchdog_seconds:
            script += "export WATCHDOG_PID=$$; "
        if passed:
            environment["LISTEN_FDS"] = str(len(passed))
            environment["LISTEN_FDNAMES"] = ":".join(name for name, _ in passed)
        command = ["/bin/sh", "-c", script + 'exec "$@"', "sh", "setpriv", "--pdeathsig", "KILL"]
        if self.uid is not None:
            command += ["--reuid", str(self.uid), "--regid", str(self.uid), "--clear-groups"]
        copies, actions = [], [(os.POSIX_SPAWN_CLOSE, fd) for fd in inheritable_fds()]
        actions.append((os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0))
        for number in (1, 2):
            actions.append((os.POSIX_SPAWN_OPEN, number, self.log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644))
        for number, (_, fd) in enumerate(passed, LISTEN_FDS_START):
            if fd <= LISTEN_FDS_START + len(passed):
                fd = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, KEPT_FD_MIN)
                copies.append(fd)
            actions.append((os.POSIX_SPAWN_DUP2, fd, number))
        if LISTEN_FDS_START + len(passed) > KEPT_FD_MIN:
            raise RuntimeError("more is stored than can be passed here")
        try:
            pid = os.posix_spawn(command[0], command + list(self.command), environment, file_actions=actions)
        finally:
            for fd in copies:
                os.close(fd)
        with self._changed:
            self.child = self.last = Child(pid)
            self._fed = None
            self._changed.notify_all()

    # ── messages ──────────────────────────────────────────────────────────────────────────────

    def _receive(self, heed_deaf):
        """Under the lock, so that nothing is read once deafen() has returned."""
        with self._changed:
            if heed_deaf and self._deaf:
                raise BlockingIOError
            return self._notify.recvmsg(
                8192, socket.CMSG_SPACE(12) + socket.CMSG_SPACE(253 * 4), socket.MSG_CMSG_CLOEXEC
            )

    def _read_messages(self, heed_deaf=False):
        while True:
            try:
                data, ancillary, flags, _ = self._receive(heed_deaf)
            except BlockingIOError:
                return
            fds, pid = array.array("i"), 0
            for level, kind, content in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
                elif level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                    pid = struct.unpack("iii", content)[0]
            with self._changed:
                self._message(data.decode(errors="replace"), list(fds), pid)
                self._changed.notify_all()

    def _message(self, text, fds, pid):
        if not self.child or pid != self.child.pid:
            self.complaints.append("a message of process %d, which is not the main one: %r" % (pid, text))
            for fd in fds:
                os.close(fd)
            return
        lines = [line for line in text.split("\n") if line]
        self.messages.append(text)
        values = dict(line.split("=", 1) for line in lines if "=" in line)
        if values.get("BARRIER") == "1":
            self._barrier(lines, fds)
            return
        if "FDSTOREREMOVE" in values:
            self._remove(values.get("FDNAME"))
        elif "FDSTORE" in values:
            for fd in fds:
                self._push(values.get("FDNAME", "stored"), fd, values.get("FDPOLL") != "0")
            fds = []
        for fd in fds:
            self.complaints.append("a descriptor that nothing is said of: %r" % text)
            os.close(fd)
        self._told(values)

    def _told(self, values):
        if values.get("READY") == "1":
            self.readies += 1
            self.ready = True
            self._fed = time.monotonic()  # only a service that is there is watched
        if values.get("STOPPING") == "1":
            self.stopping = True
        if values.get("WATCHDOG") == "1" and self._fed is not None:
            self._fed = time.monotonic()
        if "STATUS" in values:
            self.status = values["STATUS"]

    def _barrier(self, lines, fds):
        if len(lines) != 1 or len(fds) != 1:
            self.complaints.append("a barrier that is none: %r with %d descriptors" % (lines, len(fds)))
        self.barriers += 1
        for fd in fds:
            if self._hold:
                self._held.append(fd)
            else:
                os.close(fd)

    def _push(self, name, fd, polled):
        """The store takes it, or not; either way nobody is told."""
        if len(self.store) >= self.store_max:
            self.dropped.append(name)
            os.close(fd)
            return
        found = os.fstat(fd)
        inode = (found.st_dev, found.st_ino)
        for stored in self.store:
            if stored.inode == inode and same_open_file(fd, stored.fd):
                self.duplicates.append((stored.name, name))
                os.close(fd)
                return
        high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, KEPT_FD_MIN)
        os.close(fd)
        self.store.append(Stored(name, high, inode, polled))

    def _remove(self, name):
        for stored in [s for s in self.store if s.name == name]:
            self.store.remove(stored)
            os.close(stored.fd)


SOCKETS = {
    "broker": (socket.SOCK_STREAM, 0o666),
    "fd": (socket.SOCK_SEQPACKET, 0o666),
    "admin": (socket.SOCK_STREAM, 0o600),
}


class Supervised(Daemon):
    """A daemon under a supervisor that owns its sockets. manage: arguments of Supervisor. The same
    daemon to a test, but that it can crash(), restart(), stop() and start()."""

    manage = {}

    def __init__(self, settings=None, args=(), uid=None, env=None, passed=None, **manage):
        self.manage = {**self.manage, **manage}
        self.supervisor = None
        super().__init__(settings, args, uid, env, passed)

    def _start(self, args, uid, env, passed):
        self.sockets = dict(passed)
        os.makedirs(self.admin_dir, mode=0o700)
        for name, (kind, mode) in SOCKETS.items():
            self.sockets[name] = self._listen(name, kind, mode, uid)
        if uid is not None:
            os.chown(self.admin_dir, uid, uid)
        environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
        environment.update((k, v) for k, v in os.environ.items() if "SAN_OPTIONS" in k)
        environment.update(env)
        open(self.log_path, "wb").close()
        if uid is not None:
            os.chown(self.log_path, uid, uid)
        command = [
            built("daemon/iommubrokerd"), "--backend=emulated", "--config-dir", self.config,
            "--runtime-dir", self.run, "--admin-dir", self.admin_dir, *args,
        ]  # fmt: skip
        self.supervisor = Supervisor(
            command, self.folder, environment, self.sockets, uid, self.log_path, **self.manage
        )
        try:
            self.supervisor.start(PATIENCE)
        except AssertionError as error:
            raise AssertionError("%s; log: %s" % (error, self.log())) from None

    def _listen(self, name, kind, mode, uid):
        folder = self.admin_dir if name == "admin" else self.run
        path = os.path.join(folder, name + ".sock")
        listening = socket.socket(socket.AF_UNIX, kind)
        listening.bind(path)
        os.chmod(path, mode)
        if uid is not None:
            os.chown(path, uid, uid)
        listening.listen(4096)
        return listening

    @property
    def process(self):
        return self.supervisor and (self.supervisor.child or self.supervisor.last)

    @process.setter
    def process(self, value):
        assert value is None

    def crash(self, number=signal.SIGKILL, once=None):
        """Kill it, and wait for its successor. once: the successor's environment besides."""
        self._do(self.supervisor.crash, number, once)

    def restart(self, once=None):
        self._do(self.supervisor.restart, once)

    def configure(self, name, text):
        """For the next start."""
        with open(os.path.join(self.config, name), "w") as f:
            f.write(text)

    def stop(self):
        self._do(self.supervisor.stop)

    def start(self):
        self._do(self.supervisor.start)

    def _do(self, action, *arguments):
        try:
            action(PATIENCE, *arguments)
        except AssertionError as error:
            raise AssertionError("%s; log: %s" % (error, self.log()[-8000:])) from None

    def _judge_living(self):
        complaints = super()._judge_living()
        try:
            self.supervisor.wait_names([], PATIENCE)
        except AssertionError as error:
            complaints.append("%s, but %s" % (error, self.supervisor.names()))
        complaints += self.supervisor.complaints
        if self.supervisor.dropped:
            complaints.append("silently dropped: %s" % self.supervisor.dropped)
        if self.supervisor.duplicates:
            complaints.append("stored twice, kept once: %s" % self.supervisor.duplicates)
        return complaints

    def _stop(self, complaints):
        if self.alive():
            try:
                self.supervisor.stop(PATIENCE)
            except (AssertionError, subprocess.TimeoutExpired):
                complaints.append("the daemon does not stop on SIGTERM")
        self.kill()
        if not complaints and self.process.returncode != 0:
            complaints.append("exit status %s" % self.process.returncode)

    def kill(self):
        if not self.supervisor:
            return
        self.supervisor.close()
        for listening in self.sockets.values():
            listening.close()
