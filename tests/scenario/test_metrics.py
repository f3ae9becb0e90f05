# SPDX-License-Identifier: LGPL-2.1-or-later
"""Metrics, read with the parser that Prometheus' own client library has, and who may ask for them."""

import contextlib
import fcntl
import os
import re
import socket
import unittest

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from api import SOURCE, Refused
from cases import VmmCase
from fixture import PATIENCE, Daemon, eventually
from guest import MIB, PAGE
from ring import Ring
from vmm import WINDOW_FIRST, Started

IOVA = WINDOW_FIRST + 5 * PAGE
REFRESH = "iommubroker.v1.Domains/RefreshNested"
DESCRIBE = "iommubroker.v1.Guests/DescribeGuest"
TENANT = "uid:%d" % os.getuid()
# Of the samples, what they must not tell: handles and uuids are secrets of a guest's owner.
LABELS = {
    "version", "backend", "method", "code", "le", "reason", "transport", "level", "tenant", "resource", "verdict",
    "change", "call", "state", "mode", "rate", "outcome",
}  # fmt: skip


def parse(text):
    """Name of the sample and its labels → value; what the parser refuses is no OpenMetrics."""
    assert text.endswith("# EOF\n"), text[-100:]
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.name.startswith("iommubroker_"), family.name
        assert family.documentation, family.name
        for sample in family.samples:
            key = (sample.name[len("iommubroker_") :], frozenset(sample.labels.items()))
            assert key not in found, "twice: %r" % (key,)
            found[key] = sample.value
    return found


class Metrics(dict):
    def get_one(self, name, **labels):
        return self.get((name, frozenset(labels.items())), 0)

    def sum_of(self, name, **labels):
        return sum(v for (n, pairs), v in self.items() if n == name and labels.items() <= dict(pairs).items())

    def labels_of(self, name):
        return [dict(pairs) for n, pairs in self if n == name]


class AdminMetrics(VmmCase):
    def setUp(self):
        super().setUp()
        self.admin = self.daemon.admin()
        self.clients.callback(self.admin.close)

    def text(self):
        return self.admin.call("GetMetrics").message.text

    def metrics(self):
        return Metrics(parse(self.text()))

    def work(self, refreshes=10):
        started = Started(self.vmm)
        for n in range(refreshes):
            started.show(IOVA + n * PAGE, 0x3000)
        return started

    def test_every_call_is_counted(self):
        started = self.work()
        before = self.metrics()
        for n in range(20):
            started.show(IOVA + (100 + n) * PAGE, 0x4000)
        for _ in range(7):
            with self.assertRaises(Refused):
                self.vmm.ask("DescribeGuest", guest=1)
        after = self.metrics()

        def more(name, **labels):
            return after.get_one(name, **labels) - before.get_one(name, **labels)

        self.assertEqual(more("calls_total", method=REFRESH, code="OK"), 20)
        self.assertEqual(more("calls_total", method=DESCRIBE, code="NOT_FOUND"), 7)
        self.assertEqual(more("call_duration_seconds_count", method=REFRESH), 20)
        self.assertEqual(more("call_duration_seconds_count", method=DESCRIBE), 7)
        self.assertGreater(more("call_duration_seconds_sum", method=REFRESH), 0)
        self.assertEqual(more("refusals_total", reason="NOT_FOUND"), 7)
        self.assertEqual(more("refreshed_ranges_total", verdict="done"), 20)
        self.assertEqual(more("refreshed_leaves_total", change="mapped"), 20)
        self.assertEqual(more("backend_calls_total", call="copy"), 20)
        self.assertEqual(more("backend_call_errors_total", call="copy"), 0)
        self.assertGreater(more("request_bytes_total", transport="native"), 20 * 20)
        self.assertGreater(more("answer_bytes_total", transport="grpc"), 10000)

    def test_what_goes_through_a_ring_is_counted(self):
        started = self.work()
        ring = Ring(self.vmm, lanes=2)
        self.addCleanup(ring.close)
        before = self.metrics()
        started.tables.map(IOVA + 100 * PAGE, 0x4000, 5 * PAGE, True)
        for n in range(5):
            ring.refresh(started.created.index, IOVA + (100 + n) * PAGE, PAGE, lane=n % 2)
        ring.refresh(started.created.index + 1, IOVA, PAGE)
        after = self.metrics()
        for name, labels, grown in (
            ("refreshed_ranges_total", {"verdict": "done"}, 5),
            ("refreshed_ranges_total", {"verdict": "gone"}, 1),
            ("refreshed_leaves_total", {"change": "mapped"}, 5),
        ):
            self.assertEqual(after.get_one(name, **labels) - before.get_one(name, **labels), grown, labels)

    def test_counters_never_fall_and_buckets_are_cumulative(self):
        started = self.work()
        last = self.metrics()
        for round in range(5):
            started.show(IOVA + (200 + round) * PAGE, 0x5000)
            now = self.metrics()
            for (name, labels), value in last.items():
                if re.search(r"_(total|count|sum|bucket)$", name):
                    self.assertGreaterEqual(now[(name, labels)], value, (name, labels))
            last = now
        for name in ("call_duration_seconds", "loop_lag_seconds"):
            series = {}
            for labels in last.labels_of(name + "_bucket"):
                bound = float(labels["le"])
                rest = frozenset(labels.items() - {("le", labels["le"])})
                series.setdefault(rest, []).append((bound, last.get_one(name + "_bucket", **labels)))
            self.assertTrue(series)
            for rest, buckets in series.items():
                buckets.sort()
                counts = [count for _, count in buckets]
                self.assertEqual(counts, sorted(counts), rest)
                self.assertEqual(buckets[-1][0], float("inf"))
                self.assertEqual(counts[-1], last.get((name + "_count", rest)), rest)

    def test_gauges_are_what_status_and_quotas_say(self):
        self.work()
        status = self.daemon.status()
        metrics = self.metrics()
        for name in ("sessions", "guests", "devices", "nested_domains", "pinned_bytes", "mappings_installed", "mappings_reserved", "connections"):
            self.assertEqual(metrics.get_one(name), getattr(status, name), name)
        self.assertEqual(metrics.get_one("pinned_bytes"), 16 * MIB)
        self.assertEqual(metrics.get_one("mappings_installed"), 10)
        self.assertEqual(metrics.get_one("tenants"), 1)
        self.assertEqual(metrics.get_one("process_max_fds") > metrics.get_one("process_open_fds") > 5, True)
        self.assertGreater(metrics.get_one("process_resident_memory_bytes"), MIB)
        self.assertEqual(metrics.get_one("build_info", version=status.info.version, backend="emulated"), 1)
        accounts = {a.tenant: a for a in self.admin.call("ShowQuota").messages if a.level in ("host", "tenant")}
        self.assertEqual(set(accounts), {"", TENANT})
        for tenant, account in accounts.items():
            where = {"level": "tenant", "tenant": tenant} if tenant else {"level": "host"}
            self.assertTrue(account.limits)
            for limit in account.limits:
                if limit.resource in ("calls", "connections", "queued_bytes"):
                    continue  # our own question changes them
                at = dict(where, resource=limit.resource)
                self.assertEqual(metrics.get_one("quota_used", **at), limit.current, at)
                self.assertEqual(metrics.get_one("quota_peak", **at), limit.peak, at)
                self.assertEqual(metrics.get_one("quota_refusals_total", **at), limit.events, at)
                unlimited = limit.max == 2**64 - 1
                self.assertEqual(("quota_limit", frozenset(at.items())) in metrics, not unlimited, at)
                if not unlimited:
                    self.assertEqual(metrics.get_one("quota_limit", **at), limit.max, at)

    def test_every_family_of_the_table_is_told(self):
        with open(os.path.join(SOURCE, "daemon/rpc/metrics_table.h"), encoding="utf-8") as f:
            table = dict(re.findall(r'^\tX\(\w+, "(\w+)", "(\w+)"', f.read(), re.M))
        self.assertGreater(len(table), 30)
        self.assertEqual(dict(re.findall(r"^# TYPE iommubroker_(\w+) (\w+)$", self.text(), re.M)), table)

    def test_no_label_names_a_guest_or_a_process(self):
        self.vmm = self.new_vmm(name="a-guest-of-mine", uuid=bytes(range(16)), labels={"pool": "blue"})
        self.work()
        text = self.text()
        for _, labels in parse(text):
            self.assertLessEqual(set(dict(labels)), LABELS)
        for told in ("a-guest-of-mine", "%x" % self.vmm.guest, str(self.vmm.guest), "00010203", "blue", 'pid="', "\"%d\"" % os.getpid()):
            self.assertNotIn(told, text)


# ── over HTTP ────────────────────────────────────────────────────────────────────────────────────


class Http(unittest.TestCase):
    """A daemon with a metrics socket as from systemd."""

    weight = 4

    def setUp(self):
        listening = socket.create_server(("127.0.0.1", 0))
        self.address = listening.getsockname()
        high = socket.socket(fileno=fcntl.fcntl(listening.fileno(), fcntl.F_DUPFD_CLOEXEC, 40))
        listening.close()
        with high:
            self.daemon = Daemon(passed={"metrics": high})
        self.addCleanup(self.end)
        self.daemon.warm_up()

    def end(self):
        complaints = self.daemon.judge()
        log = self.daemon.log()
        self.daemon.remove()
        if complaints:
            self.fail("\n".join(complaints) + "\n--- log of the daemon\n" + log[-8000:])

    def connect(self):
        made = socket.create_connection(self.address, PATIENCE)
        self.addCleanup(made.close)
        return made

    def ask(self, request):
        """All that is answered until the daemon closes: status, headers, body."""
        with self.connect() as made:
            made.sendall(request)
            return self.answer(made)

    def answer(self, made):
        data = b""
        while True:
            with contextlib.suppress(ConnectionResetError):
                part = made.recv(65536)
                data += part
                if part:
                    continue
            break
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        status = int(lines[0].split()[1]) if lines[0] else None
        headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        return status, headers, body.decode()

    def get(self, path="/metrics", method="GET", more=""):
        return self.ask(("%s %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n" % (method, path, more)).encode())

    def test_what_is_scraped(self):
        status, headers, body = self.get(more="Accept: application/openmetrics-text\r\n")
        self.assertEqual(status, 200)
        self.assertEqual(headers["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8")
        self.assertEqual(int(headers["content-length"]), len(body))
        metrics = Metrics(parse(body))
        # it is what the admin socket tells, but for what asking changes
        with contextlib.closing(self.daemon.admin()) as admin:
            other = Metrics(parse(admin.call("GetMetrics").message.text))
        self.assertLessEqual(set(metrics), set(other))
        for name in ("sessions", "guests", "pool_threads_max", "process_max_fds", "process_start_time_seconds"):
            self.assertEqual(metrics.get_one(name), other.get_one(name), name)

    def test_nothing_else_is_there(self):
        for path in ("/", "/metrics/", "/metrics2", "/../metrics", "//metrics", "/%2e%2e/etc/passwd"):
            self.assertEqual(self.get(path)[0], 404, path)
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "HEAD"):
            status, headers, body = self.get(method=method)
            self.assertEqual((status, headers.get("allow")), (405, "get"), method)
            self.assertNotIn("iommubroker", body)
        for method in ("CONNECT", "TRACE", "NONSENSE"):
            self.assertGreaterEqual(self.get(method=method)[0] or 500, 400, method)

    def test_too_much_is_refused(self):
        for request in (
            b"GET /metrics HTTP/1.1\r\n" + b"X: " + b"a" * 100000 + b"\r\n\r\n",
            b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\n\r\n",
            b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 100000 + b"\r\n",
            b"POST /metrics HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n" + b"a" * 1000000,
            b"POST /metrics HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n" + b"a" * 1000000,
            b"\0" * 100000,
            os.urandom(100000),
        ):
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                status, _, body = self.ask(request)
                self.assertTrue(status is None or status >= 400, (status, request[:60]))
                self.assertNotIn("iommubroker_", body)
        self.assertEqual(self.get()[0], 200)

    def test_those_who_say_nothing_hold_nobody_up_for_long(self):
        silent = [self.connect() for _ in range(20)]
        silent[0].sendall(b"GET /met")
        # a place becomes free as theirs end, and nobody is served twice on one connection
        self.assertEqual(self.get()[0], 200)
        self.assertLessEqual(self.connections(), 20)
        with contextlib.closing(self.daemon.admin()) as admin:
            admin.call("GetStatus")
        for made in silent:
            made.close()
        eventually(lambda: self.connections() == 0 or self.connections(), "all of them are gone")

    def connections(self):
        """Of the daemon, to that port."""
        with open("/proc/%d/net/tcp" % self.daemon.pid) as f:
            ours = {line.split()[9] for line in f.readlines()[1:] if line.split()[1].endswith(":%04X" % self.address[1]) and line.split()[3] != "0A"}
        return sum(1 for link in self.daemon.fds() if link.startswith("socket:[") and link[8:-1] in ours)

    def test_who_does_not_read_is_let_go(self):
        for _ in range(30):
            made = socket.socket()
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            made.settimeout(PATIENCE)
            made.connect(self.address)
            self.addCleanup(made.close)
            made.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3)
        self.assertEqual(self.get()[0], 200)

    def test_it_ends_while_clients_hang(self):
        for _ in range(20):
            self.connect().sendall(b"GET /metrics HTTP/1.1\r\n")
        self.assertTrue(self.daemon.alive())  # the rest is judged at the end


class HttpNot(unittest.TestCase):
    def test_a_socket_that_does_not_listen_is_an_error_at_start(self):
        made = socket.socket()
        high = socket.socket(fileno=fcntl.fcntl(made.fileno(), fcntl.F_DUPFD_CLOEXEC, 40))
        made.close()
        with high, self.assertRaisesRegex(AssertionError, "cannot serve metrics at the socket"):
            Daemon(passed={"metrics": high})
