"""What a GPU makes of the engine and of each kernel, beside what the same GPU can do at most and what torch makes.

    python -m benchmarks.gpu                              # every section that the results lack, most telling first
    python -m benchmarks.gpu --only ceilings sampling     # these
    python -m benchmarks.gpu --budget-s 540               # as many as end within nine minutes; the rest another time
    python -m benchmarks.gpu --toy --out toy.json         # all code paths in a minute, without a GPU too

Each section is written to the results as soon as it ends; one that is there already, for this device and these sources,
is not measured again. Kernels are timed as graphs of calls over buffers that take turns and do not fit into the
second-level cache together, filled with random numbers. The copy bandwidth is measured before every section.

Imports torch, triton, transformers, numpy and msgspec, and nothing else that has to be installed.
"""
