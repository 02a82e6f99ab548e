"""Names that try to lead out of a folder, or that a file system, a URI or a terminal may take for something else."""

from hypothesis import strategies as st

_PARTS = st.sampled_from(
    [
        *("..", ".", "", "a", "stats", "etc", "passwd", "~", "%2e%2e", "%2f", "..%2f", "\u2025", "\uff0e\uff0e", "..."),
        *(
            "-rf",
            "C:",
            "con",
            "a" * 300,
            "\0",
            "\n",
            "\x1b[31m",
            "\\..\\..",
            "\ud800",
            "é",
            "a b",
            "$HOME",
            "file:",
            "s3:",
        ),
    ]
)
NAMES = st.one_of(
    st.lists(_PARTS, min_size=1, max_size=8).map("/".join),
    st.lists(_PARTS, min_size=1, max_size=5).map("\\".join),
    st.text(max_size=30),
    st.text(alphabet="./\\%2eEfF ~", max_size=20),
    st.sampled_from(
        ["../../../../x", "/etc/passwd", "a/../../x", "stats/../../../../x", "file:///etc/passwd", "s3://b/k"]
    ),
)
"""Hostile names, and harmless ones among them."""
