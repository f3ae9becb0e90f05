#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who may know whom: fails on an include that goes up, and on a foreign interface outside its layer.

Arrows go downward only: main → rpc, ring → broker → s390, iommu; util is known by all and knows
nobody. gRPC lives in rpc/ (and in the control tool), protobuf in rpc/ and the client, the kernel's iommufd and VFIO
interfaces in iommu/iommufd/ alone. Before it judges the tree it proves on made-up trees that it can
fail.
"""

import os
import re
import sys
import tempfile

SOURCE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# Layer → layers that it may include. The daemon's own top folder (main, configuration) is "main".
MAY_KNOW = {
    "util": set(),
    "s390": {"util"},
    "iommu": {"util"},
    "state": {"util"},
    "broker": {"s390", "iommu", "state", "util"},
    "ring": {"broker", "state", "util"},
    "rpc": {"broker", "util"},
    "main": {"rpc", "ring", "broker", "iommu", "s390", "state", "util"},
}
# Passed through the layer's own headers: types of the layer below that its interface shows.
SHOWN = {
    "rpc": {"s390", "iommu"},
    "ring": {"s390", "iommu"},
}
# What a text may not hold outside the places that own it: (name, pattern, places).
OWNED = (
    ("gRPC", re.compile(r'#\s*include\s*[<"]grpc/'), ("daemon/rpc/", "client/ctl/", "tests/")),
    (
        "protobuf",
        re.compile(r'#\s*include\s*[<"](protobuf-c/|google/|[^">]*\.pb-c\.h)'),
        ("daemon/rpc/", "client/", "tests/"),
    ),
    (
        "iommufd and VFIO",
        re.compile(r"#\s*include\s*<linux/(iommufd|vfio\w*)\.h>|\b(IOMMU_(IOAS|HWPT|DESTROY|GET_HW_INFO|OPTION|VDEVICE|VIOMMU)\w*|VFIO_(DEVICE|IOMMU|GROUP)_[A-Z_]+)\b(?=\s*[,)])"),
        ("daemon/iommu/iommufd/", "tests/"),
    ),
    (
        "libevent",
        re.compile(r'#\s*include\s*[<"](event2/|event\.h|ev(http|util|buffer|dns)\.h)'),
        ("daemon/rpc/", "daemon/ring/", "daemon/service.c", "tests/"),
    ),
)
# The client never looks into the daemon, but for the emulated functions' engine that the replay
# program plays the device with.
CLIENT_MAY_INCLUDE = re.compile(r"^iommu/emulated/dma\.h$")
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.M)
COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.S)


def sources(root, folder):
    for at, _, names in os.walk(os.path.join(root, folder)):
        for name in sorted(names):
            if name.endswith((".c", ".h")):
                path = os.path.join(at, name)
                with open(path, encoding="utf-8") as f:
                    yield os.path.relpath(path, root), f.read()


def layer_of(path):
    parts = path.split("/")
    return parts[1] if len(parts) > 2 else "main"


def include_complaints(root):
    for path, text in sources(root, "daemon"):
        layer = layer_of(path)
        if layer not in MAY_KNOW:
            yield "%s: unknown layer %s" % (path, layer)
            continue
        allowed = MAY_KNOW[layer] | SHOWN.get(layer, set()) | {layer}
        for target in INCLUDE.findall(text):
            if "/" not in target or not os.path.exists(os.path.join(root, "daemon", target)):
                # of its own folder, or of a generated file or a library
                own = os.path.join(root, os.path.dirname(path), target)
                top = os.path.join(root, "daemon", target)
                if "/" not in target and os.path.exists(own):
                    continue
                if os.path.exists(top) and layer != "main":
                    yield "%s includes %s of main" % (path, target)
                elif target.startswith("."):
                    yield "%s includes %s: write layer/file.h" % (path, target)
                continue
            if target.split("/")[0] not in allowed:
                yield "%s includes %s: %s may not know %s" % (path, target, layer, target.split("/")[0])


def client_complaints(root):
    for path, text in sources(root, "client"):
        for target in INCLUDE.findall(text):
            if os.path.exists(os.path.join(root, "daemon", target)) and not CLIENT_MAY_INCLUDE.match(target):
                yield "%s includes %s of the daemon" % (path, target)


def owned_complaints(root):
    for folder in ("daemon", "client", "tests"):
        for path, text in sources(root, folder):
            text = COMMENT.sub("", text)
            for name, pattern, places in OWNED:
                if not path.startswith(places) and pattern.search(text):
                    yield "%s uses %s: %r" % (path, name, pattern.search(text).group(0).strip())


def complaints(root):
    return [*include_complaints(root), *client_complaints(root), *owned_complaints(root)]


# File → what is written into it, and whether that must be found.
SELF_CHECK = (
    ({"daemon/util/a.c": '#include "broker/b.h"\n', "daemon/broker/b.h": ""}, True),
    ({"daemon/s390/a.c": '#include "iommu/b.h"\n', "daemon/iommu/b.h": ""}, True),
    ({"daemon/iommu/a.c": '#include "broker/b.h"\n', "daemon/broker/b.h": ""}, True),
    ({"daemon/broker/a.h": '#include "rpc/b.h"\n', "daemon/rpc/b.h": ""}, True),
    ({"daemon/rpc/a.c": '#include "config.h"\n', "daemon/config.h": ""}, True),
    ({"daemon/rpc/a.c": '#include "ring/b.h"\n', "daemon/ring/b.h": ""}, True),
    ({"daemon/broker/a.c": '#include "../rpc/b.h"\n', "daemon/rpc/b.h": ""}, True),
    ({"daemon/newlayer/a.c": ""}, True),
    ({"daemon/broker/a.c": "#include <grpc/grpc.h>\n"}, True),
    ({"daemon/broker/a.c": "#include <protobuf-c/protobuf-c.h>\n"}, True),
    ({"daemon/broker/a.c": '#include "iommubroker/v1/host.pb-c.h"\n'}, True),
    ({"daemon/broker/a.c": "#include <event2/event.h>\n"}, True),
    ({"daemon/iommu/emulated/a.c": "#include <linux/iommufd.h>\n"}, True),
    ({"daemon/broker/a.c": "int f(int fd)\n{\n\treturn ioctl(fd, IOMMU_IOAS_MAP, 0);\n}\n"}, True),
    ({"daemon/broker/a.c": "int f(int fd)\n{\n\treturn ioctl(fd, VFIO_DEVICE_RESET);\n}\n"}, True),
    ({"client/a.c": '#include "broker/b.h"\n', "daemon/broker/b.h": ""}, True),
    ({"client/lib/a.c": "#include <grpc/grpc.h>\n"}, True),
    ({"client/ctl/a.c": "#include <grpc/grpc.h>\n"}, False),
    ({"daemon/broker/a.c": '#include "s390/b.h"\n', "daemon/s390/b.h": ""}, False),
    ({"daemon/main.c": '#include "rpc/b.h"\n#include "config.h"\n', "daemon/rpc/b.h": "", "daemon/config.h": ""}, False),
    ({"daemon/rpc/a.c": "#include <grpc/grpc.h>\n#include <event2/event.h>\n"}, False),
    ({"daemon/broker/a.c": "/* as IOMMU_IOAS_MAP, VFIO_DEVICE_RESET) do */\n"}, False),
    ({"daemon/iommu/iommufd/a.c": "int f(int fd)\n{\n\treturn ioctl(fd, IOMMU_IOAS_MAP, 0);\n}\n"}, False),
    ({"client/a.c": '#include "iommu/emulated/dma.h"\n', "daemon/iommu/emulated/dma.h": ""}, False),
)  # fmt: skip


def self_check():
    """The number of made-up trees that were judged wrongly."""
    wrong = 0
    for files, bad in SELF_CHECK:
        with tempfile.TemporaryDirectory() as root:
            for path, text in files.items():
                os.makedirs(os.path.join(root, os.path.dirname(path)), exist_ok=True)
                with open(os.path.join(root, path), "w", encoding="utf-8") as f:
                    f.write(text)
            if bool(complaints(root)) != bad:
                print("self-check: %s is judged %s" % (files, "good" if bad else "bad"))
                wrong += 1
    return wrong


def main():
    wrong = self_check()
    found = complaints(SOURCE)
    for complaint in found:
        print(complaint)
    count = sum(1 for folder in ("daemon", "client", "tests") for _ in sources(SOURCE, folder))
    if not count:
        print("no sources found")
    print("%d files looked at, %d complaints; self-check of %d trees, %d wrong" % (count, len(found), len(SELF_CHECK), wrong))
    return 1 if wrong or found or not count else 0


if __name__ == "__main__":
    sys.exit(main())
