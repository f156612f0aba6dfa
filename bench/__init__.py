"""The measurements behind docs/explanation/performance.md: ``python -m bench --help``.

An *experiment* sets up its contenders, its *ways*; calling a way takes one sample. The runner calls them in turn, so that
the machine's moods hit all alike, and keeps every sample (``figures``). The *bars* are ratios of samples of one run. The
report is made from what was kept (``report``, ``plots``).
"""
