# SPDX-License-Identifier: LGPL-2.1-or-later
"""The recorded guests, played by iommubroker-replay, give exactly the counted figures."""

import json
import os
import shutil
import subprocess

from api import SOURCE
from fixture import BUILD, Case, built
from test_sessions import OTHER_UID

TRACES = os.path.join(SOURCE, "tests", "data", "traces")
ANCHORS = ["--anchor", "1=0x3014804,0x100000000,0x117ffffff", "--anchor", "2=0x3010804,0x100000000,0x117ffffff"]


class Recorded(Case):
    settings = {"iommubrokerd.conf": "[Clients]\nUsers=%d\n" % OTHER_UID}

    def setUp(self):
        super().setUp()
        # where a user without any privilege can read it, whoever may look into the build folder
        self.program = os.path.join(self.daemon.folder, "bin", "iommubroker-replay")
        os.mkdir(os.path.dirname(self.program))
        for file in (built("client/iommubroker-replay"), os.path.join(BUILD, "client", "libiommubroker.so.1")):
            shutil.copy(file, os.path.dirname(self.program))
        self.traces = os.path.join(self.daemon.folder, "traces")
        shutil.copytree(TRACES, self.traces)
        subprocess.run(["chmod", "-R", "a+rX", os.path.dirname(self.program), self.traces], check=True)

    def run_program(self, *arguments, **options):
        environment = dict(os.environ, LD_LIBRARY_PATH=os.path.dirname(self.program))
        return subprocess.run(
            [self.program, "--runtime-dir", self.daemon.run, *arguments], capture_output=True, text=True,
            stdin=subprocess.DEVNULL, env=environment, timeout=900, **options,
        )  # fmt: skip

    def replay(self, *arguments):
        # as root: as a user without any privilege
        other = OTHER_UID if os.geteuid() == 0 else None
        who = {} if other is None else {"user": other, "group": other, "extra_groups": []}
        done = self.run_program("--json", *arguments, **who)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        told = json.loads(done.stdout)
        self.assertEqual(told["dma_failures"], 0)
        self.assertGreater(told["dma_checks"], 0)
        return told

    def trace(self, name, refreshes, mapped, unmapped, live, *options):
        told = self.replay("--trace", os.path.join(self.traces, name), *options)
        self.assertEqual(
            (told["refreshes"], told["leaves_mapped"], told["leaves_unmapped"], told["live_leaves"]),
            (refreshes, mapped, unmapped, live),
        )
        self.assertGreaterEqual(told["dma_checks"], mapped)
        self.assertGreater(told["backend_maps"], 0)
        self.assertGreater(told["backend_unmaps"], 0)

    def test_lazy(self):
        self.trace("nvme-virtio-lazy.trace.xz", 4342, 56638, 56481, {"1": 24, "2": 133})

    def test_lazy_through_a_ring(self):
        self.trace("nvme-virtio-lazy.trace.xz", 4342, 56638, 56481, {"1": 24, "2": 133}, "--ring")

    def test_strict(self):
        self.trace("nvme-virtio-strict.trace.xz", 8465, 56621, 56432, {"1": 56, "2": 133})

    def test_tables(self):
        told = self.replay("--tables", os.path.join(self.traces, "nvme-virtio-lazy.tables.gz"), *ANCHORS)
        self.assertEqual(told["live_leaves"], {"1": 24, "2": 133})
        self.assertGreaterEqual(told["dma_checks"], 157)

    def test_tables_against_the_trace(self):
        tables = ["--tables", os.path.join(self.traces, "nvme-virtio-lazy.tables.gz"), *ANCHORS]
        told = self.replay("--trace", os.path.join(self.traces, "nvme-virtio-lazy.trace.xz"), *tables)
        self.assertEqual((told["refreshes"], told["live_leaves"]), (2, {"1": 24, "2": 133}))
        done = self.run_program("--trace", os.path.join(self.traces, "nvme-virtio-strict.trace.xz"), *tables)
        self.assertEqual(done.returncode, 1)
        self.assertIn("are not the same", done.stderr)

    def test_a_wrong_trace_fails(self):
        """A replay that could not fail would show nothing."""
        path = os.path.join(self.daemon.folder, "short.trace")
        with open(path, "wb") as f:
            f.write(b"x" * 41)
        done = self.run_program("--trace", path)
        self.assertNotEqual(done.returncode, 0)
