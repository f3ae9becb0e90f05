# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every field of every request, out of range, overlapping, overflowing, misaligned or foreign.

The table below is checked against the descriptors: a field that has no line here fails the suite.
Each line spoils one field of a request that is good otherwise, and says how it must be refused;
afterwards the guest must be as it was, and the good request must still be accepted where it can be
repeated.
"""


from api import METHODS, Refused, pb
from cases import VmmCase
from fixture import both_transports
from guest import DMA_FIRST, DMA_LAST, MIB, PAGE, Memory
from vmm import WINDOW_FIRST, WINDOW_LAST, Started

MAX = (1 << 64) - 1
IOVA = WINDOW_FIRST + 5 * PAGE


class Any:
    """No value of this field is wrong by itself; the reason is the text."""

    def __init__(self, why):
        self.why = why


class Bad:
    """A value and its refusal. field: which BadRequest violation names it (default: the path)."""

    def __init__(self, value, code="INVALID_ARGUMENT", field=None, reason=None):
        self.value, self.code, self.field, self.reason = value, code, field, reason


class Raw(Bad):
    """Bytes appended to the request on the wire, for what no honest library would send."""


def foreign(kind, later=False):
    """Handles that are unknown, of another kind, or another session's: one answer for all of them.
    0 is no handle and a mistake of the caller's. later: of a method that does not look closely,
    since it refuses in any case."""
    kinds = ("unknown", "max", "stranger " + kind) if later else ("unknown", "max", "other kind", "stranger " + kind)
    return [Bad(0), *(Bad(lambda t, v=v: t.foreign[v](t), "NOT_FOUND") for v in kinds)]


ID = [Bad(lambda t: t.used_id, field="request_id")]


def lacks(reason, *bad):
    """A later version's: what is wrong is refused as anywhere, what is right is UNIMPLEMENTED."""
    return [*bad, Bad(None, "UNIMPLEMENTED", reason=reason)]


STRING = [
    Bad("x" * 64),
    Bad("nul\0inside"),
]

# method → field path → lines
TABLE = {
    "GetInfo": {},
    "OpenSession": {"name": STRING},
    "CloseSession": {},
    "CheckFit": {
        "ring_lanes": [Bad(65), Bad(2**32 - 1)],
        "ring_entries": [Bad(3), Bad(2048), Bad(2**32 - 1)],
    }
    | {
        name: Any("a number that does not fit is answered with fits = false: see test_limits")
        for name in ("guests", "pinned_bytes", "regions", "devices", "nested_domains", "mappings", "memory_files", "update_rings")
    },
    "GetUsage": {},
    "CancelOperation": {"request_id": [Bad(0), Bad(0xDEAD, "NOT_FOUND"), Bad(MAX, "NOT_FOUND")]},
    "CreateGuest": {
        "request_id": ID,
        "uuid": [Bad(b"x"), Bad(b"x" * 15), Bad(b"x" * 17), Bad(b"x" * 1000)],
        "name": STRING,
        "labels": [
            Bad({"k%d" % n: "v" for n in range(9)}),
            Bad({"k" * 64: "v"}),
            Bad({"k": "v" * 64}),
            Bad({"k": "nul\0"}),
            Bad({"": "v"}),
        ],
        "limits.pinned_bytes_max": Any("more than the tenant's limit is no further limit"),
        "limits.mappings_max": Any("more than the tenant's limit is no further limit"),
        "on_behalf_of.attached": [Bad(0, field="on_behalf_of"), Bad(2**32 - 1, field="on_behalf_of")],
        "on_behalf_of.token": [Bad(1, field="on_behalf_of")],
    },
    "ListGuests": {},
    "DescribeGuest": {
        "guest": foreign("guest"),
        "regions_from": Any("an address where nothing is, or above everything, is answered with what there is"),
        "regions_max": Any("more than there are is all of them"),
    },
    "ResetGuest": {"request_id": ID, "guest": foreign("guest")},
    "DestroyGuest": {"request_id": ID, "guest": foreign("guest")},
    "AddMemoryFile": {
        "request_id": ID,
        "guest": foreign("guest"),
        "descriptor.attached": [Bad(1, field="descriptor"), Bad(8, field="descriptor"), Bad(2**32 - 1, field="descriptor")],
        "descriptor.token": [Bad(0, field="descriptor"), Bad(1, field="descriptor"), Bad(MAX, field="descriptor")],
        "writable": Any("test_bad_descriptors: writable over a read-only or write-sealed file"),
    },
    "UpdateMemory": {
        "request_id": ID,
        "guest": foreign("guest"),
        "unmap.first": [
            Bad(64 * MIB + 1),
            Bad(96 * MIB),
            Bad(MAX),
        ],
        "unmap.last": [Bad(66 * MIB - 2), Bad(0), Bad(66 * MIB), Bad(MAX - 1)],
        "map.memory_file": [
            Bad(v.value, v.code) for v in foreign("file")
        ],
        "map.device_region.device": [Bad(1, "UNIMPLEMENTED", reason="DEVICE_REGION")],
        "map.device_region.index": [Bad(1, field="map[0].device_region")],
        "map.offset": [Bad(1), Bad(PAGE - 1), Bad(16 * MIB), Bad(16 * MIB - PAGE), Bad(MAX & ~(PAGE - 1)), Bad(MAX)],
        "map.gpa": [
            Bad(1),
            Bad(PAGE // 2),
            Bad(MAX),
            Bad(MAX & ~(PAGE - 1)),
            Bad(0, "ALREADY_EXISTS"),
            Bad(14 * MIB, "ALREADY_EXISTS"),
        ],
        "map.length": [Bad(0), Bad(1), Bad(PAGE + 1), Bad(17 * MIB), Bad(MAX), Bad(MAX & ~(PAGE - 1)), Bad(1 << 63)],
        "map.access": [Bad(0), Bad(3), Bad(-1), Bad(2**31 - 1)],
        "map.granule": [Bad(1), Bad(PAGE - 1), Bad(3 * PAGE), Bad(2048), Bad(4 * MIB), Bad(MAX), Bad(1 << 63)],
    },
    "RemoveMemoryFile": {"request_id": ID, "guest": foreign("guest"), "memory_file": foreign("file")},
    "OpenDevice": {
        "request_id": ID,
        "guest": foreign("guest"),
        "pci_address": [
            Bad(""), Bad("nonsense"), Bad("0000:00:04"), Bad("0000:00:20.0"), Bad("0000:00:04.8"),
            Bad("0000:00:04.0x"), Bad(" 0000:00:04.0"), Bad("../../../etc/passwd"), Bad("x" * 4096),
            Bad("00000:00:04.0"), Bad("0000:00:0g.0"), Bad("0000:7f:1f.7", "NOT_FOUND"), Bad("0000:00:04.0\0"),
        ],
        "function_id": [Bad(0, "NOT_FOUND"), Bad(9, "NOT_FOUND"), Bad(2**32 - 1, "NOT_FOUND")],
        "descriptor.attached": [Bad(0, field="descriptor"), Bad(7, field="descriptor"), Bad(2**32 - 1, field="descriptor")],
        "descriptor.token": [Bad(0, field="descriptor"), Bad(1, field="descriptor"), Bad(MAX, field="descriptor")],
    },
    "BindDevice": {
        "request_id": ID,
        "device": foreign("device"),
        "vf_token": [Bad(b"x"), Bad(b"x" * 15), Bad(b"x" * 17), Bad(b"x" * 4096)],
    },
    "GetDeviceInfo": {"device": foreign("device")},
    "GetDescriptor": {"device": foreign("device")},
    "CloseDevice": {"request_id": ID, "device": foreign("device")},
    "CreateNested": {
        "request_id": ID,
        "device": foreign("device"),
        "attach": Any("false: test_main_job"),
        "s390.iota": Any("a bad anchor is a verdict: test_verdicts"),
        "s390.pba": Any("a bad anchor is a verdict: test_verdicts"),
        "s390.pal": Any("a bad anchor is a verdict: test_verdicts"),
        "managed.first": [Bad(WINDOW_FIRST + 1), Bad(MAX), Bad(WINDOW_LAST + 1), Bad(DMA_FIRST - PAGE)],
        "managed.last": [Bad(WINDOW_LAST - 1), Bad(0), Bad(DMA_LAST + PAGE), Bad(MAX)],
        "vtd_s1.flags": lacks("KERNEL_NESTED_FORMAT"),
        "vtd_s1.page_table_gpa": lacks("KERNEL_NESTED_FORMAT"),
        "vtd_s1.address_width": lacks("KERNEL_NESTED_FORMAT"),
        "arm_smmuv3.stream_table_entry": lacks("KERNEL_NESTED_FORMAT"),
        "amd_guest.device_table_entry": lacks("KERNEL_NESTED_FORMAT"),
        "mappings_max": Any("more than the window spans is no further limit: test_limits.Reservations"),
        "pasid": [Bad(1), Bad(2**32 - 1)],
    },
    "ReplaceNested": {
        "request_id": ID,
        "nested": foreign("nested"),
        "s390.iota": Any("a bad anchor is a verdict: test_verdicts"),
        "s390.pba": Any("a bad anchor is a verdict: test_verdicts"),
        "s390.pal": Any("a bad anchor is a verdict: test_verdicts"),
    },
    "DestroyNested": {"request_id": ID, "nested": foreign("nested")},
    "Attach": {
        "request_id": ID,
        "device": foreign("device"),
        "to": [Bad(0), Bad(5), Bad(-1), Bad(2**31 - 1)],
        "nested": foreign("nested"),
        "pasid": [Bad(1), Bad(2**32 - 1)],
    },
    "RefreshNested": {
        "nested": foreign("nested"),
        "ranges.start": Any("a range outside the window is a verdict: test_verdicts"),
        "ranges.length": Any("a range outside the window is a verdict: test_verdicts"),
    },
    "UpdateNested": {
        "request_id": ID,
        "nested": foreign("managed"),
        "entries.iova": [
            Bad(IOVA + 1), Bad(WINDOW_FIRST - PAGE, None), Bad(WINDOW_LAST + 1, None), Bad(MAX), Bad(MAX & ~(PAGE - 1), None),
        ],
        "entries.length": [Bad(0), Bad(1), Bad(PAGE + 1), Bad(MAX), Bad(MAX & ~(PAGE - 1), None), Bad(1 << 63, None)],
        "entries.gpa": [
            Bad(1), Bad(MAX), Bad(MAX & ~(PAGE - 1), None), Bad(16 * MIB, None), Bad(1 << 62, None),
        ],
        "entries.access": [Bad(3), Bad(-1), Bad(2**31 - 1)],
    },
    "InvalidateNested": {
        "request_id": lacks("KERNEL_NESTED_FORMAT"),
        "nested": foreign("nested", later=True),
        "type": lacks("KERNEL_NESTED_FORMAT"),
        "entry_bytes": lacks("KERNEL_NESTED_FORMAT", Bad(0)),
        "entries": [Bad(b"x" * 7)],
    },
    "SetDirtyTracking": {
        "request_id": lacks("DIRTY_TRACKING"), "device": foreign("device", later=True), "on": lacks("DIRTY_TRACKING"),
    },
    "ReadDirty": {
        "request_id": lacks("DIRTY_TRACKING"),
        "device": foreign("device", later=True),
        "range.first": [Bad(MAX, field="range")],
        "range.last": [Bad(0, field="range")],
        "page_bytes": [Bad(0), Bad(2048), Bad(4097), Bad(MAX)],
        "bitmap_file": foreign("file", later=True),
        "bitmap_offset": lacks("DIRTY_TRACKING"),
    },
    "ExplainTranslation": {
        "nested": foreign("nested"),
        "iova": Any("any IOVA is explained: test_every_iova_is_explained"),
    },
    "CreateUpdateRing": {
        "request_id": ID,
        "guest": foreign("guest"),
        "lanes": [Bad(0), Bad(65), Bad(2**32 - 1)],
        "entries": [Bad(0), Bad(3), Bad(2048), Bad(2**32 - 1)],
    },
    "DestroyUpdateRing": {"request_id": ID, "ring": [Bad(0), Bad(0xDEAD, "NOT_FOUND"), Bad(MAX, "NOT_FOUND")]},
    "Delegate": {
        "request_id": ID,
        "guest": foreign("guest"),
        "rights": [Bad([]), Bad([0]), Bad([7]), Bad([-1]), Bad([1] * 7)],
        "limits.pinned_bytes_max": Any("more than the tenant's limit is no further limit"),
        "limits.mappings_max": Any("more than the tenant's limit is no further limit"),
        "devices": foreign("device"),
        "peer.attached": [Bad(0, field="peer"), Bad(8, field="peer")],
        "peer.token": [Bad(1, field="peer")],
        "listening_socket.attached": [Bad(0, field="listening_socket")],
        "listening_socket.token": [Bad(1, field="listening_socket")],
    },
    "RevokeDelegation": {
        "request_id": ID,
        "delegation": [Bad(0), Bad(1, "NOT_FOUND"), Bad(2**64 - 1, "NOT_FOUND")],
    },
    "PrepareHandover": {
        "request_id": ID, "guest": foreign("guest"), "seconds": [Bad(0), Bad(3601), Bad(2**32 - 1)],
        "block_dma": Any("yes or no"),
    },
    "ResumeGuest": {
        "request_id": ID,
        "secret": [Bad(b""), Bad(b"x" * 15), Bad(b"x" * 17), Bad(b"x" * 4096), Bad(b"y" * 16, "NOT_FOUND")],
    },
    "WatchEvents": {"guest": foreign("guest"), "since": Any("a number that lies ahead: test_events")},
}  # fmt: skip

_UNMAP = ("unmap.first", "unmap.last")
_MAP = ("map.offset", "map.gpa", "map.length", "map.granule")
_WINDOW = ("managed.first", "managed.last")
_ENTRY = ("entries.iova", "entries.length", "entries.gpa")
# Fields that make up one range with others.
RANGES = {
    **{("UpdateMemory", path): _UNMAP for path in _UNMAP},
    **{("UpdateMemory", path): _MAP for path in _MAP},
    **{("CreateNested", path): _WINDOW for path in _WINDOW},
    **{("UpdateNested", path): _ENTRY for path in _ENTRY},
}

# Mutations whose good request can be sent again after the bad ones (with a new request id).
REPEATABLE = {"UpdateMemory", "UpdateNested", "ReplaceNested", "Attach", "RefreshNested"}


def leaf_fields(descriptor, prefix=""):
    """Paths of all fields that hold a value: through sub-messages, not through maps."""
    for field in descriptor.fields:
        path = prefix + field.name
        inner = field.message_type
        if inner is None or inner.GetOptions().map_entry:
            yield path
        else:
            yield from leaf_fields(inner, path + ".")


def violation(message_name, path):
    """How a refusal names the field: repeated ones with their index."""
    descriptor = METHODS[message_name].request.DESCRIPTOR
    names = []
    for name in path.split("."):
        field = descriptor.fields_by_name[name]
        repeated = field.label == field.LABEL_REPEATED and not (
            field.message_type and field.message_type.GetOptions().map_entry
        )
        names.append(name + ("[0]" if repeated and field.message_type else ""))
        descriptor = field.message_type
    return ".".join(names)


def spoil(request, path, value):
    """Set one field; the first element of a repeated one."""
    names = path.split(".")
    for name in names[:-1]:
        field = request.DESCRIPTOR.fields_by_name[name]
        request = getattr(request, name)
        if field.label == field.LABEL_REPEATED:
            request = request[0] if request else request.add()
    name = names[-1]
    field = request.DESCRIPTOR.fields_by_name[name]
    if field.message_type and field.message_type.GetOptions().map_entry:
        getattr(request, name).clear()
        getattr(request, name).update(value)
    elif field.label == field.LABEL_REPEATED:
        value = 1 if value is None else value
        del getattr(request, name)[:]
        getattr(request, name).extend(value if isinstance(value, list) else [value])
    elif value is None:
        setattr(request, name, {"bytes": b"x", "bool": True}.get(_kind(field), 1))
    else:
        setattr(request, name, value)


def _kind(field):
    return {field.TYPE_BYTES: "bytes", field.TYPE_BOOL: "bool"}.get(field.type, "number")


@both_transports
class EveryField(VmmCase):
    def setUp(self):
        super().setUp()
        self.used_id = 7777
        self.started = Started(self.vmm, pal=WINDOW_LAST)
        self.started.show(IOVA, 0x3000)
        self.spare = self.vmm.open(2)
        self.third = self.vmm.bound(3)
        self.managed = self.vmm.managed(self.third).nested
        self.vmm.entries(self.managed, (IOVA, PAGE, 0x5000, pb.ACCESS_READ_WRITE))
        # a second region, so that cuts of it can be wrong
        self.second = self.vmm.new_memory(2 * MIB, gpa=64 * MIB)
        self.vmm.client.call("CreateGuest", pb.CreateGuestRequest(request_id=self.used_id, name="first use"))
        self.idle_file = Memory(16 * MIB)
        self.vmm.stack.callback(self.idle_file.close)
        self.idle = self.vmm.add_memory(self.idle_file)
        stranger = Started(self.new_vmm(), fid=5)
        self.strangers = {
            "guest": stranger.vmm.guest, "file": stranger.memory.handle, "device": stranger.device.handle,
            "nested": stranger.nested, "managed": stranger.nested,
        }  # fmt: skip
        self.foreign = {
            "unknown": lambda t: 0x1234567890ABCDEF,
            "max": lambda t: MAX,
            "other kind": lambda t: t.other_kind,
        }
        for kind, handle in self.strangers.items():
            self.foreign["stranger " + kind] = lambda t, h=handle: h

    def good(self, method):
        """A request that would be accepted."""
        vmm = self.vmm
        request = METHODS[method].request()
        own = {
            "guest": vmm.guest, "device": self.started.device.handle, "nested": self.started.nested,
        }  # fmt: skip
        for name, handle in own.items():
            if name in request.DESCRIPTOR.fields_by_name:
                setattr(request, name, handle)
        if "request_id" in request.DESCRIPTOR.fields_by_name:
            request.request_id = vmm.id() + 100000
        more = getattr(self, "good_" + method, None)
        if more:
            more(request)
        return request

    def good_UpdateMemory(self, request):
        request.unmap.add(first=64 * MIB, last=66 * MIB - 1)
        request.map.add(
            memory_file=self.idle, gpa=64 * MIB, length=2 * MIB, access=pb.ACCESS_READ_WRITE, granule=2 * MIB
        )
        request.map.add(
            memory_file=self.idle, gpa=68 * MIB, length=MIB, offset=8 * MIB, access=pb.ACCESS_READ_WRITE
        )

    def good_AddMemoryFile(self, request):
        request.descriptor.CopyFrom(self.vmm.client.give(self.idle_file.fd))
        request.writable = True

    def good_RemoveMemoryFile(self, request):
        request.memory_file = self.idle

    def good_OpenDevice(self, request):
        request.function_id = 4

    def good_BindDevice(self, request):
        request.device = self.spare.handle

    def good_CreateNested(self, request):
        request.device = self.third.handle
        request.managed.first, request.managed.last = WINDOW_FIRST, WINDOW_LAST
        request.mappings_max = 10

    def good_ReplaceNested(self, request):
        request.s390.iota = self.started.tables.iota()
        request.s390.pba, request.s390.pal = WINDOW_FIRST, WINDOW_LAST

    def good_Attach(self, request):
        request.to = pb.ATTACHMENT_NESTED

    def good_InvalidateNested(self, request):
        request.entry_bytes, request.entries = 8, bytes(16)

    def good_ReadDirty(self, request):
        request.range.first, request.range.last = IOVA, IOVA + MIB - 1
        request.page_bytes, request.bitmap_file = PAGE, self.idle

    def good_CreateUpdateRing(self, request):
        request.lanes, request.entries = 1, 64

    def good_DestroyUpdateRing(self, request):
        request.ring = 1

    def good_Delegate(self, request):
        request.rights.append(pb.RIGHT_MAP)

    def good_RevokeDelegation(self, request):
        request.delegation = 1

    def good_PrepareHandover(self, request):
        request.seconds = 1

    def good_ResumeGuest(self, request):
        request.secret = b"x" * 16

    def good_RefreshNested(self, request):
        request.ranges.add(start=IOVA, length=PAGE)

    def good_UpdateNested(self, request):
        request.nested = self.managed
        request.entries.add(iova=IOVA, length=PAGE, gpa=0x5000, access=pb.ACCESS_READ_WRITE)

    def views(self):
        """All that must not change: the guest as described, but for counters of work."""
        told = self.vmm.describe()
        for nested in told.nested:
            nested.ClearField("refreshes")
            nested.ClearField("backend_maps")
            nested.ClearField("backend_unmaps")
            nested.ClearField("kept_tables")
            nested.ClearField("kept_bytes")
        return told

    def test_the_table_has_every_field(self):
        for name, method in METHODS.items():
            if method.admin:
                continue
            self.assertIn(name, TABLE)
            self.assertEqual(set(leaf_fields(method.request.DESCRIPTOR)), set(TABLE[name]), name)

    def attempt(self, method, path, line):
        request = self.good(method)
        self.other_kind = self.vmm.guest if path != "guest" else self.started.device.handle
        value = line.value(self) if callable(line.value) else line.value
        if path in ("descriptor.attached", "descriptor.token"):
            # what give() made ready is not what is named
            self.vmm.client.attached = [] if method == "OpenDevice" else getattr(self.vmm.client, "attached", [])
        spoil(request, path, value)
        client = self.vmm.client
        if method == "OpenSession":
            # a native connection is one session
            client = self.client(session=False)
        try:
            reply = client.call(method, request)
        except Refused as error:
            if line.code is not None:
                self.assertEqual(error.code, line.code, str(error))
            else:
                self.assertIn(error.code, ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "OUT_OF_RANGE"), str(error))
            self.assertTrue(error.message)
            self.assertTrue(error.details, "says more than a sentence: %s" % error)
            if error.code == "INVALID_ARGUMENT":
                wanted = line.field or violation(method, path)
                # a range that does not fit is the fault of either of its fields
                wanted = {wanted} | {violation(method, p) for p in RANGES.get((method, path), ())}
                self.assertTrue(
                    any(f.startswith(w) or w.startswith(f + ".") for f in error.fields for w in wanted),
                    "%s is not named: %s" % (wanted, error),
                )
            if line.reason:
                self.assertEqual(error.reason, line.reason, str(error))
            return
        finally:
            if hasattr(client, "attached"):
                client.attached = []
        # entries are answered one by one, each with a verdict
        self.assertIsNone(line.code, "accepted: %s" % reply.message)
        self.assertEqual(method, "UpdateNested", str(reply.message))
        self.assertEqual(len(reply.message.results), 1)
        self.assertIn(reply.message.results[0].verdict, (pb.VERDICT_ERROR, pb.VERDICT_OPERAND), str(reply.message))

    def run_method(self, method):
        before = self.views()
        for path, lines in TABLE[method].items():
            if isinstance(lines, Any):
                continue
            for line in lines:
                with self.subTest(field=path, value=str(line.value)[:60]):
                    self.attempt(method, path, line)
        self.assertEqual(self.views(), before, "refused requests change nothing")
        self.assertTrue(self.started.dma.reaches(IOVA), "DMA goes on meanwhile")
        if method in REPEATABLE:
            self.vmm.client.call(method, self.good(method))

    def test_every_iova_is_explained(self):
        for iova in (0, 1, DMA_FIRST - 1, WINDOW_LAST + 1, DMA_LAST, MAX, IOVA + 7):
            told = self.vmm.explain(self.started.nested, iova)
            self.assertEqual(told.installed, iova == IOVA + 7, str(told))
            self.assertTrue(told.text)

    def test_empty_oneofs(self):
        for method, clear, field in (
            ("AddMemoryFile", lambda r: r.descriptor.Clear(), "descriptor"),
            ("AddMemoryFile", lambda r: r.ClearField("descriptor"), "descriptor"),
            ("UpdateMemory", lambda r: r.map[0].ClearField("memory_file"), "map[0]"),
            ("OpenDevice", lambda r: r.ClearField("function_id"), "address"),
            ("OpenDevice", lambda r: r.descriptor.SetInParent(), "descriptor"),
            ("CreateNested", lambda r: r.ClearField("managed"), "format"),
            ("ReplaceNested", lambda r: r.ClearField("s390"), "s390"),
            ("RefreshNested", lambda r: r.ClearField("ranges"), "ranges"),
            ("UpdateNested", lambda r: r.ClearField("entries"), "entries"),
        ):
            with self.subTest(method=method, field=field):
                request = self.good(method)
                clear(request)
                with self.assertRaises(Refused) as caught:
                    self.vmm.client.call(method, request)
                if hasattr(self.vmm.client, "attached"):
                    self.vmm.client.attached = []
                error = caught.exception
                self.assertEqual(error.code, "INVALID_ARGUMENT", str(error))
                self.assertTrue(any(f.startswith(field) for f in error.fields), str(error))

    def test_too_many(self):
        for method, repeat, field in (
            ("RefreshNested", lambda r: [r.ranges.add(start=IOVA, length=PAGE) for _ in range(256)], "ranges"),
            ("UpdateNested", lambda r: [r.entries.add(iova=IOVA, length=PAGE, access=1) for _ in range(256)], "entries"),
            ("UpdateMemory", lambda r: [r.unmap.add(first=0, last=PAGE - 1) for _ in range(512)], "unmap"),
            ("UpdateMemory", lambda r: [r.map.add(memory_file=1, length=PAGE) for _ in range(512)], "map"),
        ):
            with self.subTest(method=method, field=field):
                request = self.good(method)
                repeat(request)
                with self.refused("INVALID_ARGUMENT", field=field):
                    self.vmm.client.call(method, request)

    def test_bytes_that_are_no_message(self):
        """Not protobuf at all, wrong wire types, lengths past the end, deep nesting, bad UTF-8."""
        junk = (
            b"\xff" * 64, b"\x08", b"\x0a\xff\xff\xff\xff\x0f", b"\x0b" * 2000, b"\x12\x7f", b"\x08" + b"\xff" * 11,
            b"\x1a\x02\xc3\x28", b"\x00\x00",
        )  # fmt: skip
        client = self.vmm.client
        for method in METHODS.values():
            if method.admin or not method.request.DESCRIPTOR.fields:
                continue
            for data in junk:
                if method.name == "OpenSession" and data == junk[6]:
                    continue  # it has no such field: unknown ones are ignored
                with self.subTest(method=method.name, data=data[:12]):
                    with self.assertRaises(Refused) as caught:
                        client.call(method.name, data)
                    codes = ("INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED")
                    if method.name == "OpenSession" and client.name == "native":
                        codes = ("FAILED_PRECONDITION", *codes)
                    self.assertIn(caught.exception.code, codes, str(caught.exception))
        self.assertTrue(self.started.dma.reaches(IOVA))

    def test_bad_utf8(self):
        client = self.vmm.client
        name = b"\x1a\x03a\xff\xfe"  # CreateGuest.name
        with self.refused("INVALID_ARGUMENT", field="name"):
            client.call("CreateGuest", b"\x08\x01" + name)
        with self.refused("INVALID_ARGUMENT", field="name"):
            self.client(session=False).call("OpenSession", b"\x0a\x03a\xff\xfe")

    def test_unknown_fields_are_ignored(self):
        request = pb.DescribeGuestRequest(guest=self.vmm.guest).SerializeToString() + b"\xfa\x07\x03abc\x80\x08\x01"
        reply = self.vmm.client.call("DescribeGuest", request)
        self.assertEqual(reply.message.description.guest, self.vmm.guest)

    def test_messages_that_grow_when_unpacked(self):
        """65,000 bytes of two-byte elements: bounded, refused, and the daemon does not swell."""
        before = self.daemon.memory_bytes()
        for _ in range(20):
            with self.assertRaises(Refused):
                self.vmm.client.call("UpdateMemory", b"\x22\x00" * 32000)
            with self.assertRaises(Refused):
                self.vmm.client.call("RefreshNested", b"\x12\x00" * 32000)
            with self.assertRaises(Refused):
                self.vmm.client.call("CreateGuest", b"\x22\x00" * 32000)
        self.assertLess(self.daemon.memory_bytes() - before, 64 * MIB)


def _one_test_for_each_method():
    """test_DescribeGuest and so on, so that each method's failures stand alone."""
    for name in METHODS:
        if METHODS[name].admin:
            continue
        for case in (EveryFieldGrpc, EveryFieldNative):  # noqa: F821

            def test(self, method=name):
                self.run_method(method)

            setattr(case, "test_field_" + name, test)


_one_test_for_each_method()
