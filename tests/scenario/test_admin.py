# SPDX-License-Identifier: LGPL-2.1-or-later
"""What operators see on admin.sock, and who may look."""

import contextlib
import os
import resource
import socket
import stat
import subprocess
import sys
import threading
import unittest
import uuid

from api import METHODS, Refused
from cases import VmmCase
from fixture import PATIENCE, Case, built
from guest import MIB, PAGE
from test_sessions import OTHER_UID, other_user
from vmm import WINDOW_FIRST, Started

IOVA = WINDOW_FIRST + 5 * PAGE


@unittest.skipIf(os.getuid() != 0, "only root can be many users")
class ManyTenants(Case):
    """More users than one message of usual size could tell of."""

    transport_name = "native"
    settings = {"iommubrokerd.conf": "[Clients]\nGroups=5555\n"}
    USERS = 700

    def setUp(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        super().setUp()

    def client_of(self, uid):
        group = os.getegid()
        os.setegid(5555)
        os.seteuid(uid)
        try:
            self.client()
        finally:
            os.seteuid(0)
            os.setegid(group)

    def test_status_tells_of_all(self):
        for n in range(self.USERS):
            self.client_of(OTHER_UID + n)
        admin = self.daemon.admin()
        self.clients.callback(admin.close)
        names, after, more = [], "", True
        while more:
            status = admin.call("GetStatus", METHODS["GetStatus"].request(usage_after=after)).message
            self.assertEqual(status.usage[0].tenant, "host")
            page, more = [usage.tenant for usage in status.usage[1:]], status.usage_more
            self.assertLessEqual(len(page), 512)
            self.assertEqual(len(page) == 512, more, "a page that is not the last one is full")
            names += page
            after = page[-1]
        self.assertEqual(status.sessions, self.USERS)
        self.assertEqual(names, sorted(set(names)))
        self.assertLessEqual({"uid:%d" % (OTHER_UID + n) for n in range(self.USERS)}, set(names))


class Admin(VmmCase):
    def setUp(self):
        super().setUp()
        self.admin = self.daemon.admin()
        self.clients.callback(self.admin.close)

    def ask(self, method, **fields):
        return self.admin.call(method, METHODS[method].request(**fields))

    def test_status(self):
        started = Started(self.vmm)
        for n in range(10):
            started.show(IOVA + n * PAGE, 0x3000)
        status = self.ask("GetStatus").message
        self.assertEqual(
            (status.pid, status.sessions, status.guests, status.devices, status.nested_domains),
            (self.daemon.pid, 1, 1, 1, 1),
        )
        self.assertEqual((status.pinned_bytes, status.mappings_installed), (16 * MIB, 10))
        self.assertGreaterEqual(status.mappings_reserved, 10)
        self.assertEqual(status.info.backend, "emulated")
        self.assertEqual([u.tenant for u in status.usage], ["host", self.vmm.describe().tenant])
        host = {u.resource: u.current for u in status.usage[0].usage}
        self.assertEqual((host["pinned_bytes"], host["guests"], host["devices"]), (16 * MIB, 1, 1))
        refusals = status.refusals
        with self.assertRaises(Refused):
            self.vmm.ask("DescribeGuest", guest=1)
        after = self.ask("GetStatus").message
        self.assertGreater(after.refusals, refusals)
        self.assertGreater(after.calls, status.calls)

    def test_list_and_show(self):
        mine = uuid.uuid4()
        named = self.new_vmm(name="named", uuid=mine.bytes, labels={"pool": "blue"})
        Started(named, fid=3).show(IOVA, 0x3000)
        guests = {g.name: g for g in self.ask("ListAll").message.guests}
        self.assertEqual(set(guests), {"guest", "named"})
        row = guests["named"]
        self.assertEqual((row.guest, row.uuid, row.pid, row.uid), (named.guest, mine.bytes, os.getpid(), os.getuid()))
        self.assertEqual((row.region_bytes, row.pinned, row.devices, row.live_leaves), (16 * MIB, True, 1, 1))
        for key in ("named", str(mine), "%x" % named.guest):
            with self.subTest(key):
                (shown,) = self.ask("ShowGuest", guest=key).messages
                self.assertEqual(shown.description.guest, named.guest)
                self.assertEqual(dict(shown.description.labels), {"pool": "blue"})
        self.assertEqual(len(self.ask("ShowGuest").messages), 2)
        with self.refused("NOT_FOUND") as refusal:
            self.ask("ShowGuest", guest="nobody")
        self.assertNotIn("session", str(refusal.exception))
        # a guest that takes another one's uuid is not shown in its place
        self.new_vmm(name="other", uuid=mine.bytes)
        with self.refused("INVALID_ARGUMENT", "guest"):
            self.ask("ShowGuest", guest=str(mine))

    def test_explain(self):
        started = Started(self.vmm)
        started.show(IOVA, 0x3000)
        told = self.ask("Explain", guest="guest", function_id=1, iova=IOVA).message.explanation
        self.assertEqual((told.gpa, told.installed_gpa, told.consistent), (0x3000, 0x3000, True))
        told = self.ask("Explain", guest="guest", nested=started.nested, iova=IOVA + PAGE).message.explanation
        self.assertFalse(told.installed)
        for bad in (dict(guest="nobody", function_id=1), dict(guest="guest", function_id=2), dict(guest="guest", nested=1)):
            with self.refused("NOT_FOUND"):
                self.ask("Explain", iova=IOVA, **bad)

    def test_sockets_are_closed_to_others(self):
        mode = stat.S_IMODE(os.stat(self.daemon.admin_dir).st_mode)
        self.assertEqual(mode, 0o700)

    def test_client_methods_are_not_here(self):
        for name in ("CreateGuest", "OpenSession", "ListGuests"):
            with self.refused("UNIMPLEMENTED"):
                self.ask(name)


class AdminGetsIn(Case):
    """Whatever goes on at the other sockets, and whoever else sits at this one."""

    transport_name = "native"
    STORMERS, SITTING = 4, 70  # the latter twice as many as there are places

    def storm(self, path, kind, stop):
        while not stop.is_set():
            with contextlib.closing(socket.socket(socket.AF_UNIX, kind)) as sock:
                with contextlib.suppress(OSError):
                    sock.connect(path)

    def sit(self):
        """Connections of another process to the admin socket, of which nothing is ever heard, made
        again when they are ended."""
        code = (
            "import socket, sys, time, itertools\n"
            "held = []\n"
            "for n in itertools.count():\n"
            "    s = socket.socket(socket.AF_UNIX)\n"
            "    s.connect(sys.argv[1])\n"
            "    held.append(s)\n"
            "    del held[:-%d]\n"
            "    if n == 2 * %d: print('sits', flush=True)\n"
            "    if n > 2 * %d: time.sleep(0.005)\n"
        ) % (self.SITTING, self.SITTING, self.SITTING)
        path = os.path.join(self.daemon.admin_dir, "admin.sock")
        sitter = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True)
        self.addCleanup(sitter.stdout.close)
        self.addCleanup(sitter.wait)
        self.addCleanup(sitter.kill)
        self.assertEqual(sitter.stdout.readline(), "sits\n")

    def test_operators_get_in(self):
        stop = threading.Event()
        sockets = [("broker.sock", socket.SOCK_STREAM), ("fd.sock", socket.SOCK_SEQPACKET)]
        threads = [
            threading.Thread(target=self.storm, args=(os.path.join(self.daemon.run, name), kind, stop))
            for name, kind in sockets * (self.STORMERS // 2)
        ]
        for thread in threads:
            thread.start()
        try:
            self.sit()
            for _ in range(10):
                done = subprocess.run(
                    [built("client/iommubrokerctl"), "--admin-dir", self.daemon.admin_dir, "status"],
                    stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=PATIENCE,
                )  # fmt: skip
                self.assertEqual(done.returncode, 0, done.stderr + self.daemon.log())
                self.assertIn("emulated", done.stdout)
        finally:
            stop.set()
            for thread in threads:
                thread.join()


class AdminOthers(VmmCase):
    settings = {"iommubrokerd.conf": "[Clients]\nUsers=%d\n" % OTHER_UID}

    def test_refused_to_other_users(self):
        if os.geteuid() != 0:
            raise unittest.SkipTest("only root can run a client of another user")
        # even if someone opened the folder's mode: who connects is looked at
        os.chmod(self.daemon.admin_dir, 0o755)
        os.chmod(os.path.join(self.daemon.admin_dir, "admin.sock"), 0o666)
        task = {"guest": self.vmm.guest, "device": 1, "nested": 1, "secret": "00" * 16}
        self.assertEqual(other_user(self.daemon, "native", task)["admin"], "refused")
