"""Cases of the fuzzer that failed once: (class, number, what went wrong); the tests run them again.

A number belongs to the sound files of its class. When these change it is another case, and one that fails with the old
code is to be chosen anew; what was mended has tests of its own besides.
"""

KEPT = (
    ("tar", 281084, "a message of two lines: the name of a member has a line break"),
    ("video", 111, "AttributeError: pictures of a codec that FFmpeg does not know"),
    ("model: checkpoint", 112, "UnicodeDecodeError: a damaged name in the table of a zip file"),
    ("index: database", 143, "a message of two lines: SQLite's report of a damaged page"),
    ("index: database", 199, "TypeError: a row whose number is a text"),
    ("index: database", 509, "UnicodeDecodeError: a damaged text in a message of SQLite"),
    ("index: database", 2097, "IndexError: rows out of order, which a compaction copied"),
    ("index: database", 7066, "a message without the file: a row that has no id"),
    ("index: vectors", 104, "a message without the file: vectors with infinite values"),
    ("index: vectors", 111, "a message without the file: vectors that are no numbers"),
)
