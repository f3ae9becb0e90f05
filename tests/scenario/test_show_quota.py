# SPDX-License-Identifier: LGPL-2.1-or-later
"""What operators see of limits: every account, where each limit stands, what is above it, whether more
would fit; and what guest and journal are told when a soft limit is passed."""

import os

from api import METHODS, Refused, pb
from cases import VmmCase
from fixture import both_transports, eventually
from guest import MIB, PAGE

RULE = """[Match]
User=%d
[Quota]
PinnedMemoryMax=%dM
PinnedMemoryHigh=8M
GuestsMax=3
"""
NONE = (1 << 64) - 1


@both_transports
class ShowQuota(VmmCase):
    settings = {
        "iommubrokerd.conf": "[Limits]\nPinnedMemoryMax=64M\nGuestsMax=4\n",
        "quota.d/50-mine.conf": RULE % (os.getuid(), 24),
    }

    def ask(self, method, **fields):
        admin = self.daemon.admin()
        try:
            return admin.call(method, METHODS[method].request(**fields))
        finally:
            admin.close()

    def accounts(self, **fields):
        return self.ask("ShowQuota", **fields).messages

    def limit(self, account, resource):
        return {limit.resource: limit for limit in account.limits}[resource]

    def test_host_and_tenants(self):
        self.vmm.new_memory(4 * MIB)
        host, mine = self.accounts()
        self.assertEqual((host.level, host.tenant, host.rule), ("host", "", ""))
        self.assertEqual((mine.level, mine.tenant, mine.rule, mine.stranger), ("tenant", "mine", "mine", False))
        pinned = self.limit(host, "pinned_bytes")
        self.assertEqual((pinned.current, pinned.max, pinned.over), (4 * MIB, 64 * MIB, False))
        self.assertTrue(pinned.rule.endswith("/iommubrokerd.conf:2"), pinned.rule)
        pinned = self.limit(mine, "pinned_bytes")
        self.assertEqual((pinned.current, pinned.peak, pinned.max, pinned.high), (4 * MIB, 4 * MIB, 24 * MIB, 8 * MIB))
        self.assertTrue(pinned.rule.endswith("/50-mine.conf:4"), pinned.rule)
        self.assertEqual(self.limit(host, "sessions").rule, "setting SessionsMax= (default)")
        self.assertEqual(self.limit(mine, "guests").current, 1)
        self.assertEqual(self.limit(mine, "regions").max, NONE)
        self.assertGreaterEqual(self.limit(host, "connections").current, 0)

    def test_a_tenant_and_its_guests(self):
        second = self.new_vmm()
        self.vmm.new_memory(2 * MIB)
        second.new_memory(MIB)
        tenant, *guests = self.accounts(tenant="mine")
        self.assertEqual((tenant.level, [g.level for g in guests]), ("tenant", ["guest", "guest"]))
        used = {g.guest: self.limit(g, "pinned_bytes").current for g in guests}
        self.assertEqual(used, {self.vmm.guest: 2 * MIB, second.guest: MIB})
        self.assertEqual(self.limit(tenant, "pinned_bytes").current, 3 * MIB)
        self.assertEqual({self.limit(g, "event_slots").current for g in guests}, {1024})
        with self.assertRaises(Refused) as caught:
            self.accounts(tenant="no-such-tenant")
        self.assertEqual(caught.exception.code, "NOT_FOUND")

    def test_over_after_a_lower_limit(self):
        self.vmm.new_memory(16 * MIB)
        with open(os.path.join(self.daemon.config, "quota.d/50-mine.conf"), "w") as f:
            f.write(RULE % (os.getuid(), 4))
        self.ask("Configure")
        pinned = self.limit(self.accounts()[1], "pinned_bytes")
        self.assertEqual((pinned.current, pinned.max, pinned.over), (16 * MIB, 4 * MIB, True))
        self.vmm.unmap(0, 16 * MIB)
        pinned = self.limit(self.accounts()[1], "pinned_bytes")
        self.assertEqual((pinned.current, pinned.over), (0, False))

    def test_check_tenant_fit(self):
        self.vmm.new_memory(16 * MIB)
        request = METHODS["CheckFit"].request
        fit = self.ask("CheckTenantFit", tenant="mine", fit=request(guests=2, pinned_bytes=8 * MIB)).message
        self.assertTrue(fit.fits, fit)
        fit = self.ask("CheckTenantFit", tenant="mine", fit=request(guests=4, pinned_bytes=9 * MIB)).message
        missing = {(m.level, m.resource): m.missing for m in fit.missing}
        self.assertEqual(
            missing, {("tenant", "pinned_bytes"): MIB, ("tenant", "guests"): 2, ("host", "guests"): 1}, fit
        )
        fit = self.ask("CheckTenantFit", fit=request(pinned_bytes=49 * MIB)).message
        self.assertEqual([(m.level, m.missing) for m in fit.missing], [("host", MIB)])
        for fields in ({"tenant": "nobody", "fit": request(guests=1)}, {"tenant": "mine"}):
            with self.assertRaises(Refused):
                self.ask("CheckTenantFit", **fields)

    def test_soft_limit_is_told(self):
        watch = self.vmm.client.start("WatchEvents", pb.WatchEventsRequest(guest=self.vmm.guest))
        self.vmm.new_memory(4 * MIB)
        self.vmm.new_memory(4 * MIB, gpa=64 * MIB)
        self.assertNotIn("high mark", self.daemon.log())
        self.vmm.new_memory(PAGE, gpa=128 * MIB)
        event = watch.next()[0]
        watch.cancel()
        self.assertEqual((event.kind, event.guest), (pb.EVENT_KIND_QUOTA_HIGH, self.vmm.guest))
        self.assertEqual((event.resource, event.level), ("pinned_bytes", "tenant"))
        self.assertEqual((event.used, event.high), (8 * MIB + PAGE, 8 * MIB))
        eventually(lambda: "pinned_bytes of tenant mine rose to %d" % event.used in self.daemon.log(), "a warning")
        self.assertEqual(self.limit(self.accounts()[1], "pinned_bytes").events_high, 1)
