# SPDX-License-Identifier: LGPL-2.1-or-later
"""What several suites begin with."""

from api import pb
from fixture import Case
from vmm import DmaFault, Vmm


class VmmCase(Case):
    """A case whose tests begin with a client and a guest."""

    def setUp(self):
        super().setUp()
        self.vmm = self.new_vmm()

    def new_vmm(self, transport_name=None, **create):
        vmm = Vmm(self.client(transport_name), **create)
        self.clients.callback(vmm.close)
        return vmm

    def assert_blocked(self, dma, iova):
        with self.assertRaises(DmaFault):
            dma.read(iova, 8)
        with self.assertRaises(DmaFault):
            dma.write(iova, b"stranger")

    def assert_verdict(self, result, verdict, event_code=None, **fault):
        self.assertEqual(result.verdict, verdict, str(result))
        cc, status = {
            pb.VERDICT_DONE: (0, 0), pb.VERDICT_RESOURCES: (1, 16), pb.VERDICT_ERROR: (1, 8),
            pb.VERDICT_SEQUENCE: (1, 24), pb.VERDICT_BUSY: (2, 0),
        }[verdict]  # fmt: skip
        self.assertEqual((result.condition_code, result.status), (cc, status), str(result))
        if event_code is not None:
            self.assertEqual(result.fault.event_code, event_code, str(result))
        for name, value in fault.items():
            self.assertEqual(getattr(result.fault, name), value, "%s of %s" % (name, result))
