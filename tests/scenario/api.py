# SPDX-License-Identifier: LGPL-2.1-or-later
"""The API as the tests see it: messages, enums and methods, made from the .proto files.

protoc turns proto/ into a descriptor set when the first test imports this module, so that what is
tested is what the files say. No generated code: the messages are built from the descriptors, and
tests that go through every field of every request walk the same descriptors.
"""

import os
import re
import subprocess
import tempfile

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.dirname(os.path.dirname(HERE))
PROTO = os.path.join(SOURCE, "proto")
PACKAGE = "iommubroker.v1"


def _descriptor_set():
    files = []
    for folder, _, names in os.walk(PROTO):
        files += [os.path.relpath(os.path.join(folder, n), PROTO) for n in names if n.endswith(".proto")]
    with tempfile.TemporaryDirectory() as scratch:
        out = os.path.join(scratch, "set")
        subprocess.run(
            ["protoc", "--include_imports", "--descriptor_set_out=" + out, "-I" + PROTO, "-I/usr/include"]
            + sorted(files),
            check=True,
            stdin=subprocess.DEVNULL,
        )
        with open(out, "rb") as f:
            return descriptor_pb2.FileDescriptorSet.FromString(f.read())


DESCRIPTORS = _descriptor_set()
_pool = descriptor_pool.DescriptorPool()
for _file in DESCRIPTORS.file:
    _pool.Add(_file)
_factory = message_factory.MessageFactory(_pool)


def message_class(full_name):
    return _factory.GetPrototype(_pool.FindMessageTypeByName(full_name))


class _Namespace:
    """pb.CreateGuestRequest(...), pb.ACCESS_READ, pb.CreateGuestRequest.Limits(...)"""


pb = _Namespace()
enums = {}


def _load():
    for file in DESCRIPTORS.file:
        if file.package != PACKAGE:
            continue
        for message in file.message_type:
            made = message_class(PACKAGE + "." + message.name)
            setattr(pb, message.name, made)
            for inner in message.nested_type:
                # not every implementation of protobuf puts them there by itself
                setattr(made, inner.name, message_class("%s.%s.%s" % (PACKAGE, message.name, inner.name)))
        for enum in file.enum_type:
            enums[enum.name] = {v.name: v.number for v in enum.value}
            for value in enum.value:
                setattr(pb, value.name, value.number)


_load()
Status = message_class("google.rpc.Status")


class Method:
    """One rpc: its name, gRPC path, native number and message classes."""

    def __init__(self, service, rpc):
        self.service = service
        self.name = rpc.name
        self.path = "/%s/%s" % (service, rpc.name)
        self.request = message_class(rpc.input_type.lstrip("."))
        self.response = message_class(rpc.output_type.lstrip("."))
        self.stream = rpc.server_streaming
        snake = re.sub(r"(?<!^)(?=[A-Z])", "_", rpc.name).upper()
        if service.endswith(".Admin"):
            snake = "ADMIN_" + snake
        self.admin = service.endswith(".Admin")
        self.number = enums["Method"].get("METHOD_" + snake)


METHODS = {}
for _file in DESCRIPTORS.file:
    for _service in _file.service:
        for _rpc in _service.method:
            if _file.package == PACKAGE:
                METHODS[_rpc.name] = Method(PACKAGE + "." + _service.name, _rpc)

SERVICES = sorted(
    "%s.%s" % (f.package, s.name) for f in DESCRIPTORS.file for s in f.service
)

CODES = {
    1: "CANCELLED", 2: "UNKNOWN", 3: "INVALID_ARGUMENT", 4: "DEADLINE_EXCEEDED", 5: "NOT_FOUND",
    6: "ALREADY_EXISTS", 7: "PERMISSION_DENIED", 8: "RESOURCE_EXHAUSTED", 9: "FAILED_PRECONDITION",
    10: "ABORTED", 11: "OUT_OF_RANGE", 12: "UNIMPLEMENTED", 13: "INTERNAL", 14: "UNAVAILABLE",
    15: "DATA_LOSS", 16: "UNAUTHENTICATED",
}  # fmt: skip


class Refused(Exception):
    """A call that ended in a status other than OK, with its details decoded."""

    def __init__(self, status, what=""):
        self.status = status
        self.code = CODES.get(status.code, str(status.code))
        self.message = status.message
        self.details = {}
        for detail in status.details:
            name = detail.type_url.rsplit("/", 1)[-1]
            self.details[name.rsplit(".", 1)[-1]] = message_class(name).FromString(detail.value)
        super().__init__("%s: %s: %s %s" % (what, self.code, self.message, self.details))

    @property
    def fields(self):
        bad = self.details.get("BadRequest")
        return [v.field for v in bad.field_violations] if bad else []

    @property
    def reason(self):
        info = self.details.get("ErrorInfo")
        return info.reason if info else ""

    @property
    def metadata(self):
        info = self.details.get("ErrorInfo")
        return dict(info.metadata) if info else {}


class Disconnected(Exception):
    """The daemon ended the connection."""
