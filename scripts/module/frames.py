#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Does a root of a livepatch stay on the stack for as long as its helpers run?

usage: frames.py MODULE ROOTS

The livepatch core looks for tasks in the roots only, before it lets the module go. A
root that ends in a jump to a helper, or goes on in another section, has no return address
there: a task that sleeps in the helper would wake up in memory that is free.
MODULE is a module or an object, ROOTS is roots.h.
"""
import re
import subprocess
import sys
from elf import Elf

HEAD = re.compile(r'[0-9a-f]+ <([^>]+)>:$')
JUMP = re.compile(r' *[0-9a-f]+:\s+j\w+\s+[0-9a-f]+ <([^>+]+)[+>]')
RELOCATION = re.compile(r'\s+[0-9a-f]+: R_X86_64_P\w+\s+([^\s+-]+)')


def read_roots(path):
    """Names of the functions that are replaced."""
    with open(path, encoding='ascii') as f:
        return set(re.findall(r'ROOT\((\w+)\)', f.read()))


def jumps(path):
    """(function, where to) of the jumps that go elsewhere; sections have a dot."""
    text = subprocess.run(['objdump', '-dr', '--no-show-raw-insn', path], check=True,
                          stdout=subprocess.PIPE, text=True, errors='replace').stdout
    at = to = None
    for line in text.splitlines():
        moved = RELOCATION.match(line)
        if moved and to:
            to = moved[1]
            continue
        if to and to != at:
            yield at, to
        head, jump = HEAD.match(line), JUMP.match(line)
        at = head[1] if head else at
        to = jump[1] if jump else None
    if to and to != at:
        yield at, to


def check_frames(path, roots):
    """Roots that are left by a jump into the module."""
    here = {s.name for s in Elf(path).functions()}
    for r in sorted(roots - here):
        yield f'{r} is not in the module'
    for at, to in sorted(set(jumps(path))):
        # alternatives come back; what is not here is the kernel's
        if at in roots and (to in here or to.startswith('.text')):
            yield f'{at} jumps to {to}: a task there would not be seen when the livepatch ' \
                  'is removed; build without sibling calls and cold parts'


def main():
    if len(sys.argv) != 3:
        sys.exit('usage: frames.py MODULE ROOTS')
    roots = read_roots(sys.argv[2])
    bad = list(check_frames(sys.argv[1], roots))
    for line in bad:
        print(line)
    if not roots:
        sys.exit(f'{sys.argv[2]}: no root')
    sys.exit(bool(bad))


if __name__ == '__main__':
    main()
