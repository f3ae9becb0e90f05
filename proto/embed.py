# SPDX-License-Identifier: LGPL-2.1-or-later
"""Write a file's bytes as a C array: embed.py INPUT OUTPUT NAME."""
import sys

source, output, name = sys.argv[1:]
with open(source, "rb") as file:
    data = file.read()
with open(output, "w", encoding="ascii") as file:
    file.write("#include <stddef.h>\n")
    file.write(f"extern const unsigned char {name}_bytes[];\nextern const size_t {name}_size;\n")
    file.write(f"const unsigned char {name}_bytes[] = {{\n")
    for start in range(0, len(data), 16):
        file.write("\t" + " ".join(f"0x{byte:02x}," for byte in data[start : start + 16]) + "\n")
    file.write(f"}};\nconst size_t {name}_size = sizeof({name}_bytes);\n")
