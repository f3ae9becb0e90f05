# SPDX-License-Identifier: LGPL-2.1-or-later
"""What generic gRPC tools ask for: health, and reflection as grpcurl uses it."""

import grpc
from google.protobuf import descriptor_pb2

import transport
from api import DESCRIPTORS, SERVICES, message_class
from cases import VmmCase
from fixture import Case

HEALTH = "/grpc.health.v1.Health/"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


class Generic(Case):
    transport_name = "grpc"

    def setUp(self):
        super().setUp()
        # without any session, as a tool that knows nothing of them
        self.tool = self.client("grpc", session=False)

    def health(self, kind, service=""):
        request, response = (message_class("grpc.health.v1.HealthCheck" + n) for n in ("Request", "Response"))
        make = {"Check": self.tool.channel.unary_unary, "Watch": self.tool.channel.unary_stream}[kind]
        stub = make(HEALTH + kind, lambda r: r.SerializeToString(), response.FromString)
        return stub(request(service=service), timeout=transport.PATIENCE)

    def test_health_check(self):
        self.assertEqual(self.health("Check").status, 1, "SERVING")
        self.assertEqual(self.health("Check", "iommubroker.v1.Host").status, 1)
        with self.assertRaises(grpc.RpcError) as caught:
            self.health("Check", "no.such.Service")
        self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)

    def test_health_watch(self):
        watch = self.health("Watch")
        self.assertEqual(next(watch).status, 1)
        watch.cancel()
        watch = self.health("Watch", "no.such.Service")
        self.assertEqual(next(watch).status, 3, "SERVICE_UNKNOWN, and the stream stays")
        watch.cancel()

    def reflect(self, *requests):
        prefix = "grpc.reflection.v1alpha.ServerReflection"
        request, response = message_class(prefix + "Request"), message_class(prefix + "Response")
        stub = self.tool.channel.stream_stream(REFLECTION, lambda r: r.SerializeToString(), response.FromString)
        return list(stub(iter([request(**r) for r in requests]), timeout=transport.PATIENCE))

    def test_list_services(self):
        (answer,) = self.reflect({"list_services": "*"})
        listed = {s.name for s in answer.list_services_response.service}
        self.assertEqual(listed, set(SERVICES) - {"iommubroker.v1.Admin"} | (listed & {"iommubroker.v1.Admin"}))

    def files(self, answer):
        self.assertEqual(answer.WhichOneof("message_response"), "file_descriptor_response", str(answer))
        raw = answer.file_descriptor_response.file_descriptor_proto
        return {f.name: f for f in map(descriptor_pb2.FileDescriptorProto.FromString, raw)}

    def test_file_by_symbol_then_the_files_it_needs(self):
        """As grpcurl describe does it, on one stream."""
        expected = {f.name: f for f in DESCRIPTORS.file}
        for service in SERVICES:
            with self.subTest(service):
                (answer,) = self.reflect({"file_containing_symbol": service})
                found = self.files(answer)
                wanted = [d for f in found.values() for d in f.dependency if d not in found]
                if wanted:
                    for more in self.reflect(*({"file_by_filename": name} for name in wanted)):
                        found.update(self.files(more))
                for name, file in found.items():
                    self.assertEqual(
                        [s.name for s in file.service], [s.name for s in expected[name].service]
                    )
                    self.assertEqual(
                        [m.name for m in file.message_type], [m.name for m in expected[name].message_type]
                    )
        for symbol in ("iommubroker.v1.Host.GetInfo", "iommubroker.v1.Verdict", "iommubroker.v1.UpdateMemoryRequest.Map"):
            (answer,) = self.reflect({"file_containing_symbol": symbol})
            self.assertTrue(self.files(answer))

    def test_unknown_symbols(self):
        answers = self.reflect({"file_containing_symbol": "no.Such"}, {"file_by_filename": "no.proto"}, {"list_services": ""})
        self.assertEqual(
            [a.WhichOneof("message_response") for a in answers],
            ["error_response", "error_response", "list_services_response"],
        )
        self.assertEqual(answers[0].error_response.error_code, 5)

    def test_unknown_methods(self):
        for path in ("/iommubroker.v1.Host/NoSuch", "/no.Such/Method", "/", "/iommubroker.v1.Host/", "/" + "x" * 2000):
            with self.subTest(path[:40]):
                stub = self.tool.channel.unary_unary(path)
                with self.assertRaises(grpc.RpcError) as caught:
                    stub(b"", timeout=transport.PATIENCE)
                self.assertIn(caught.exception.code(), (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAVAILABLE))
        self.assertEqual(self.tool.call("GetInfo").message.backend, "emulated")


class Information(VmmCase):
    transport_name = "grpc"

    def test_info(self):
        info = self.vmm.client.call("GetInfo").message
        self.assertEqual((info.api_version, info.ring_version, info.backend), (1, 1, "emulated"))
        self.assertEqual(info.state_version, 0, "nothing is kept here")
        self.assertTrue(info.version)
        self.assertEqual(set(info.formats), {"s390", "managed"})
        self.assertEqual(
            (info.map_ranges_max, info.refresh_ranges_max, info.managed_entries_max, info.descriptors_max),
            (512, 256, 256, 8),
        )
        self.assertEqual(info.message_bytes_max, 65536)

    def test_device_info(self):
        self.vmm.new_memory()
        device = self.vmm.open(3)
        before = self.vmm.ask("GetDeviceInfo", device=device.handle).info
        self.assertEqual((before.kernel_device_id, before.has_function_id, before.function_id), (0, True, 3))
        done = device.bind()
        self.assertNotEqual(done.kernel_device_id, 0)
        info = self.vmm.ask("GetDeviceInfo", device=device.handle).info
        self.assertEqual(info, done)
        self.assertEqual((info.dma_first, info.dma_last), (0x1_0000_0000, 0x1F_FFFF_FFFF_FFFF))
        self.assertEqual(info.designations, 0b1111)
        self.assertTrue(info.page_sizes & 4096)
        self.assertEqual(info.pci_address, "0000:00:03.0")
        self.assertGreater(info.mappings_budget, 0)
        self.assertTrue(info.iova_ranges)

    def test_open_by_pci_address(self):
        device = self.vmm.open(2, pci_address="0000:00:02.0")
        self.assertEqual(self.vmm.ask("GetDeviceInfo", device=device.handle).info.function_id, 2)
