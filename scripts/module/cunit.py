# SPDX-License-Identifier: GPL-2.0
"""A preprocessed C file, cut into its top-level declarations.

libclang says what a declaration is and what it refers to; where it ends is found
by counting brackets, and the two have to agree.
"""
import bisect
import re
import clang.cindex as ci

K = ci.CursorKind

# what __LINE__ was when the file was preprocessed: a number would differ from tree
# to tree
LINE = '__LINE_HERE'
# gcc's own, which clang 14 does not know. Nothing but a condition depends on them.
CLANG_ARGS = ['-x', 'c', '-std=gnu11', '-w', '-mno-sse', f'-D{LINE}=0',
              '-D__builtin_has_attribute(...)=0', '-D__builtin_isdigit(c)=0']

TOKEN = re.compile(r'''"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|^\#[^\n]*$|[][(){};]''', re.M)
MARKER = re.compile(r'^# (\d+) "((?:\\.|[^"\\])*)"[^\n]*$', re.M)
# numbers that count what is in front of a declaration
COUNTED = re.compile(r'\b(\w*(?:__UNIQUE_ID_|__compiletime_assert_|__ADDRESSABLE_)\w*?)\d+\b')


class Refused(Exception):
    """What is not understood is not guessed."""


def norm(text):
    """The text without what says nothing: white space, positions, counters."""
    text = MARKER.sub('', text)
    text = COUNTED.sub(r'\1', text)
    text = re.sub(r'\d+(?=_+LINE_HERE)', '', text)
    return ' '.join(re.sub(r'([^\w\s])', r' \1 ', text).split())


class Chunk:
    """One top-level declaration."""

    def __init__(self, start, end):
        self.start, self.end = start, end
        self.cursors = []
        self.kind = 'other'     # 'func', 'vars', 'asm' or 'other'
        self.names = []
        self.file = ''
        self.line = 0
        self.unit = None
        self._refs = None

    @property
    def name(self):
        return self.names[0]

    @property
    def text(self):
        return self.unit.text[self.start:self.end]

    @property
    def norm(self):
        return norm(self.text)

    @property
    def static(self):
        return self.cursor.linkage != ci.LinkageKind.EXTERNAL

    @property
    def cursor(self):
        for c in self.cursors:
            if c.spelling == self.names[0] and \
               (c.kind == K.VAR_DECL or c.kind == K.FUNCTION_DECL and c.is_definition()):
                return c
        raise Refused(f'{self.where}: what is {self.names[0]}?')

    @property
    def where(self):
        return f'{self.file}:{self.line}'

    @property
    def head(self):
        """A function's text in front of its body, without markers."""
        body = next(c for c in self.cursor.get_children() if c.kind == K.COMPOUND_STMT)
        return MARKER.sub('', self.unit.text[self.start:body.extent.start.offset]).strip()

    @property
    def inline(self):
        return self.kind == 'func' and re.search(r'\binline\b', self.head) is not None

    def refs(self):
        """Functions and variables of file scope that this refers to."""
        if self._refs is None:
            self._refs = set()
            for top in self.cursors:
                for c in top.walk_preorder():
                    if c.kind != K.DECL_REF_EXPR or not c.referenced:
                        continue
                    d = c.referenced
                    if d.kind in (K.FUNCTION_DECL, K.VAR_DECL) and \
                       d.semantic_parent.kind == K.TRANSLATION_UNIT:
                        self._refs.add(d.spelling)
            self._refs -= set(self.names)
        return self._refs

    def calls(self, name):
        """How often this mentions <name>."""
        return sum(1 for top in self.cursors for c in top.walk_preorder()
                   if c.kind == K.DECL_REF_EXPR and c.spelling == name)

    def local_statics(self):
        """Variables that a function keeps between calls."""
        for c in self.cursor.walk_preorder():
            if c.kind == K.VAR_DECL and c.storage_class == ci.StorageClass.STATIC:
                yield c


class Unit:
    """A preprocessed file: what it is made of, by name."""

    def __init__(self, path, args=()):
        self.path = path
        with open(path, encoding='latin-1') as f:
            self.text = f.read()
        if not self.text.isascii():
            raise Refused(f'{path}: not ASCII')
        tu = ci.Index.create().parse(path, args=[*CLANG_ARGS, *args])
        for d in tu.diagnostics:
            if d.severity >= ci.Diagnostic.Error:
                raise Refused(f'{path}: clang: {d.spelling}, line {d.location.line}')
        self.tu = tu            # cursors need it
        self.markers = [(m.end(), m.group(2), int(m.group(1)), m.start())
                        for m in MARKER.finditer(self.text)]
        self.ends = [m[0] for m in self.markers]
        self.main = next(m[1] for m in self.markers if not m[1].startswith('<'))
        self.chunks = []
        self._mentions = None
        self.cut()
        self.defs = {}
        for ch in self.chunks:
            for n in ch.names:
                if n in self.defs:
                    self.twice(n, ch)
                self.defs[n] = ch

    def mentions(self):
        """For each name of a function or variable here, the chunks that mention it."""
        if self._mentions is None:
            self._mentions = {}
            starts = [ch.start for ch in self.chunks]
            for m in re.finditer(r'[A-Za-z_]\w*', self.text):
                if m.group() in self.defs:
                    ch = self.chunks[bisect.bisect_right(starts, m.start()) - 1]
                    if ch.names and m.group() not in ch.names:
                        self._mentions.setdefault(m.group(), set()).add(ch)
        return self._mentions

    def users(self, name):
        """What refers to <name>, as clang sees it."""
        return sorted((ch for ch in self.mentions().get(name, ()) if name in ch.refs()),
                      key=lambda ch: ch.start)

    def twice(self, name, ch):
        # a tentative definition may come again
        if ch.kind != 'vars' or self.defs[name].kind != 'vars':
            raise Refused(f'{ch.where}: {name} is defined twice')

    def place(self, offset):
        """File and line of <offset>, by the markers."""
        i = bisect.bisect_right(self.ends, offset) - 1
        if i < 0:
            return self.path, 1
        end, name, line, _ = self.markers[i]
        return name, line + self.text.count('\n', end, offset) - 1

    def cut(self):
        """Cut the text where a declaration ends."""
        bodies = set()
        tops = list(self.tu.cursor.get_children())
        for c in tops:
            if c.kind == K.FUNCTION_DECL and c.is_definition():
                bodies.add(c.extent.end.offset)
        depth, start = 0, 0
        for m in TOKEN.finditer(self.text):
            t = m.group()
            if t in ('(', '[', '{'):
                depth += 1
            elif t in (')', ']', '}'):
                depth -= 1
                if depth < 0:
                    raise Refused(f'{self.path}: a bracket too many, offset {m.start()}')
            if depth == 0 and (t == ';' or t == '}' and m.end() in bodies):
                self.chunks.append(Chunk(start, m.end()))
                start = m.end()
        if MARKER.sub('', self.text[start:]).strip():
            raise Refused(f'{self.path}: ends within a declaration')
        starts = [ch.start for ch in self.chunks]
        for c in tops:
            i = bisect.bisect_right(starts, c.extent.start.offset) - 1
            ch = self.chunks[i]
            if c.extent.end.offset > ch.end:
                raise Refused(f'{self.path}: {c.spelling}: clang and the brackets disagree')
            ch.cursors.append(c)
        for ch in self.chunks:
            self.classify(ch)

    def classify(self, ch):
        """Set what <ch> is, what it defines, and where it is from."""
        ch.unit = self
        first = re.compile(r'(?:\s|^#[^\n]*$)*', re.M).match(self.text, ch.start).end()
        ch.file, ch.line = self.place(first)
        for c in ch.cursors:
            if c.kind == K.FUNCTION_DECL and c.is_definition():
                ch.kind = 'func'
                ch.names.append(c.spelling)
            elif c.kind == K.VAR_DECL and c.storage_class != ci.StorageClass.REGISTER and \
                    (c.storage_class != ci.StorageClass.EXTERN or c.is_definition()):
                ch.kind = 'vars'
                ch.names.append(c.spelling)
        body = self.text[first:ch.end].lstrip()
        if not ch.names and re.match(r'(__asm__|__asm|asm)\b', body):
            ch.kind = 'asm'
        if ch.kind == 'func' and len(ch.names) != 1:
            raise Refused(f'{ch.where}: more than a function: {", ".join(ch.names)}')
