"""Many machines by Ray: exact search (`search`) and extraction (`extraction`), over one connection (`connection`).

The only modules that import ray, and only inside functions: one machine never needs it.
"""
