# SPDX-License-Identifier: LGPL-2.1-or-later
"""Quota rules: who is which tenant, and the limits that its file sets."""

import os

from api import Refused
from cases import VmmCase
from fixture import both_transports
from guest import MIB, Memory

RULES = """[Match]
User={uid}
[Quota]
GuestsMax=2
PinnedMemoryMax=24M
PinnedMemoryPerGuestMax=16M
"""


@both_transports
class QuotaRules(VmmCase):
    settings = {
        "quota.d/10-nobody.conf": "[Match]\nSlice=no-such-slice-*.slice\n[Quota]\nGuestsMax=0\n",
        "quota.d/50-mine.conf": RULES.format(uid=os.getuid()),
    }

    def assert_refused(self, error, tenant, line, limit, used, requested):
        self.assertEqual(error.code, "RESOURCE_EXHAUSTED", str(error))
        told = error.metadata
        self.assertEqual(told["tenant"], tenant)
        self.assertTrue(told["rule"].endswith("/quota.d/50-mine.conf:%d" % line), str(error))
        self.assertEqual(
            (int(told["limit"]), int(told["used"]), int(told["requested"])), (limit, used, requested), str(error)
        )
        self.assertIn("50-mine.conf:%d" % line, self.daemon.log(), "the operator reads where the limit stands")

    def test_tenant_is_called_as_its_file(self):
        self.assertEqual(self.vmm.describe().tenant, "mine")
        self.assertEqual([u.tenant for u in self.daemon.status().usage], ["host", "mine"])

    def test_guests_of_all_its_sessions(self):
        second = self.new_vmm()
        with self.assertRaises(Refused) as refused:
            self.new_vmm()
        self.assert_refused(refused.exception, "mine", 4, 2, 2, 1)
        second.mutate("DestroyGuest", guest=second.guest)
        self.new_vmm()

    def test_memory_of_one_and_of_all(self):
        one, two = self.vmm, self.new_vmm()
        one.new_memory(16 * MIB)
        more = Memory(MIB)
        one.stack.callback(more.close)
        handle = one.add_memory(more)
        with self.assertRaises(Refused) as refused:
            one.map(handle, 64 * MIB, MIB)
        self.assert_refused(refused.exception, "mine", 6, 16 * MIB, 16 * MIB, MIB)
        two.new_memory(8 * MIB)
        handle = two.add_memory(more)
        with self.assertRaises(Refused) as refused:
            two.map(handle, 64 * MIB, MIB)
        self.assert_refused(refused.exception, "mine", 5, 24 * MIB, 24 * MIB, MIB)
        one.unmap(0, 16 * MIB)
        two.map(handle, 64 * MIB, MIB)
