# SPDX-License-Identifier: LGPL-2.1-or-later
"""Rates: who is too fast waits, then is told for how long to stay away; nobody else notices."""

import contextlib
import os
import time

from api import Refused, pb
from cases import VmmCase
from fixture import both_transports
from guest import PAGE
from vmm import WINDOW_FIRST, Started

RULE = "[Match]\nUser={uid}\n[Quota]\n{keys}"
CALLS_MAX = 5000  # long before that many the rate is above any that is set here


def retry_seconds(refused):
    delay = refused.details["RetryInfo"].retry_delay
    return delay.seconds + delay.nanos / 1e9


@both_transports
class Rates(VmmCase):
    # one a second: that no pause of this process gives the tokens back before they are missed
    settings = {"quota.d/50-mine.conf": RULE.format(uid=os.getuid(), keys="")}

    def set_rate(self, key, value, delay="100ms"):
        with open(os.path.join(self.daemon.config, "iommubrokerd.conf"), "w") as file:
            file.write("[Clients]\nRateDelayMax=%s\n" % delay)
        with open(os.path.join(self.daemon.config, "quota.d/50-mine.conf"), "w") as file:
            file.write(RULE.format(uid=os.getuid(), keys="%s=%s\n" % (key, value)))
        with contextlib.closing(self.daemon.admin()) as admin:
            admin.call("Configure")

    def rates(self, name):
        """Of host and tenant: what ShowQuota tells of that rate."""
        with contextlib.closing(self.daemon.admin()) as admin:
            told = admin.call("ShowQuota").messages
        return [next(r for r in account.rates if r.resource == name) for account in told]

    def until_refused(self, call):
        for _ in range(CALLS_MAX):
            try:
                call()
            except Refused as error:
                return error
        return self.fail("never refused")

    def assert_refused(self, error, resource, limit):
        self.assertEqual((error.code, error.reason), ("RESOURCE_EXHAUSTED", "RATE_EXCEEDED"), str(error))
        told = error.metadata
        self.assertEqual((told["resource"], told["limit"], told["tenant"]), (resource, str(limit), "mine"), str(error))
        self.assertTrue(told["rule"].endswith("/quota.d/50-mine.conf:4"), str(error))
        self.assertEqual(error.details["QuotaFailure"].violations[0].subject, "mine")
        self.assertGreater(retry_seconds(error), 0.1, "longer than it may be delayed")

    def test_requests(self):
        """Refused after what goes at once; served again after the time that was told, and then the
        refusals end where the rate does."""
        client = self.vmm.client
        self.set_rate("RequestRateMax", "4/s")
        error = self.until_refused(lambda: client.call("GetInfo"))
        self.assert_refused(error, "requests", 4)
        host, mine = self.rates("requests")
        self.assertEqual((mine.per_second, mine.burst), (4, 4))
        self.assertTrue(mine.rule.endswith("/quota.d/50-mine.conf:4"), mine.rule)
        self.assertGreaterEqual(mine.refused, 1)
        self.assertEqual((host.refused, host.per_second), (0, 2**64 - 1))
        time.sleep(retry_seconds(error))
        client.call("GetInfo")
        self.set_rate("RequestRateMax", "infinity")
        for _ in range(100):
            client.call("GetInfo")

    def test_delayed(self):
        """With time to wait nothing is refused: twice as many as go at once all come through."""
        client = self.vmm.client
        self.set_rate("RequestRateMax", "10/s", delay="60s")
        for _ in range(20):
            client.call("GetInfo")
        _, mine = self.rates("requests")
        self.assertGreaterEqual(mine.delayed, 1)
        self.assertEqual(mine.refused, 0)

    def test_what_gives_back_is_not_refused(self):
        client = self.vmm.client
        self.set_rate("RequestRateMax", "1/s")
        self.until_refused(lambda: client.call("GetInfo"))
        for _ in range(5):
            with self.refused("NOT_FOUND"):
                self.vmm.mutate("DestroyGuest", guest=4711)
        self.assertGreaterEqual(self.rates("requests")[1].delayed, 5)
        self.vmm.mutate("DestroyGuest", guest=self.vmm.guest)
        self.vmm.guest = 0

    def test_refreshes(self):
        """A call counts as often as it has ranges, and a refused one may be made again."""
        started = Started(self.vmm)
        self.set_rate("RefreshRateMax", "100/s")
        ranges = [(WINDOW_FIRST + i * PAGE, PAGE) for i in range(200)]
        error = self.until_refused(lambda: self.vmm.refresh(started.nested, *ranges))
        self.assert_refused(error, "refreshes", 100)
        self.assertEqual(self.rates("refreshes")[1].burst, 256)
        for _ in range(20):
            self.vmm.client.call("GetInfo")  # is no refresh
        time.sleep(retry_seconds(error))
        result = self.vmm.refresh(started.nested, *ranges)
        self.assertEqual({r.verdict for r in result}, {pb.VERDICT_DONE})

    def test_updates_of_managed_domains(self):
        """One request, and as many refreshes as it has entries."""
        self.vmm.new_memory()
        managed = self.vmm.managed(self.vmm.bound())
        self.set_rate("RefreshRateMax", "100/s")
        entries = [(WINDOW_FIRST + i * PAGE, PAGE, i * PAGE, pb.ACCESS_READ) for i in range(200)]
        error = self.until_refused(lambda: self.vmm.entries(managed.nested, *entries))
        self.assert_refused(error, "refreshes", 100)
        self.assertEqual(self.rates("requests")[1].refused, 0)
        time.sleep(retry_seconds(error))
        results = self.vmm.entries(managed.nested, *entries)
        self.assertEqual({r.verdict for r in results}, {pb.VERDICT_DONE})

    def guest_rates(self, guest, name):
        with contextlib.closing(self.daemon.admin()) as admin:
            told = admin.call("ShowQuota", pb.ShowQuotaRequest(tenant="mine")).messages
        account = next(a for a in told if a.guest == guest)
        self.assertEqual([r.resource for r in account.rates], ["requests", "refreshes"])
        return next(r for r in account.rates if r.resource == name)

    def test_requests_of_a_guest(self):
        """A guest that is called for too often: its tenant's others are served, as is what names
        no guest, and giving it back is only delayed."""
        other = self.new_vmm()
        self.set_rate("RequestRatePerGuestMax", "4/s")
        error = self.until_refused(self.vmm.describe)
        self.assert_refused(error, "requests", 4)
        other.describe()
        for _ in range(20):
            self.vmm.client.call("GetInfo")
        mine, others = (self.guest_rates(v.guest, "requests") for v in (self.vmm, other))
        self.assertEqual((mine.per_second, mine.burst, others.refused), (4, 4, 0))
        self.assertGreaterEqual(mine.refused, 1)
        self.assertTrue(mine.rule.endswith("/quota.d/50-mine.conf:4"), mine.rule)
        time.sleep(retry_seconds(error))
        self.vmm.describe()
        self.until_refused(self.vmm.describe)
        self.vmm.mutate("DestroyGuest", guest=self.vmm.guest)
        self.vmm.guest = 0

    def test_refreshes_of_a_guest(self):
        started, other = Started(self.vmm), Started(self.new_vmm(), fid=2)
        self.set_rate("RefreshRatePerGuestMax", "100/s")
        ranges = [(WINDOW_FIRST + i * PAGE, PAGE) for i in range(200)]
        error = self.until_refused(lambda: self.vmm.refresh(started.nested, *ranges))
        self.assert_refused(error, "refreshes", 100)
        other.vmm.refreshed(other.nested, *ranges)
        self.assertGreaterEqual(self.guest_rates(self.vmm.guest, "refreshes").refused, 1)
        self.assertEqual(self.guest_rates(other.vmm.guest, "refreshes").refused, 0)
        time.sleep(retry_seconds(error))
        self.vmm.refreshed(started.nested, *ranges)

    def test_connections(self):
        """Beyond the rate a connection is told so, and one that waits its time is served."""
        self.set_rate("ConnectionRateMax", "2/s")
        error = self.until_refused(lambda: self.client(session=False).call("GetInfo"))
        self.assert_refused(error, "connections", 2)
        self.vmm.client.call("GetInfo")  # was there before
        time.sleep(retry_seconds(error))
        self.client(session=False).call("GetInfo")

    def test_operators_are_not_slowed(self):
        self.set_rate("RequestRateMax", "1/s")
        self.until_refused(lambda: self.vmm.client.call("GetInfo"))
        with contextlib.closing(self.daemon.admin()) as admin:
            for _ in range(50):
                admin.call("GetInfo")

    def test_metrics(self):
        self.set_rate("RequestRateMax", "1/s")
        self.until_refused(lambda: self.vmm.client.call("GetInfo"))
        with contextlib.closing(self.daemon.admin()) as admin:
            text = admin.call("GetMetrics").message.text
        lines = [line for line in text.splitlines() if line.startswith("iommubroker_rate_refused_total{")]
        mine = next(line for line in lines if 'tenant="mine",rate="requests"' in line)
        self.assertGreaterEqual(int(mine.rsplit(" ", 1)[1]), 1)
        self.assertIn('iommubroker_rate_refused_total{level="host",rate="refreshes"} 0', lines)
