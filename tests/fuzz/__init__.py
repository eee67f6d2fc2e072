"""A structure-aware fuzzer: real small models, changed where it hurts, through the whole library.

    python -m tests.fuzz 0 100000 --jobs 2           # inputs 0 .. 99,999; what is wrong, by kind
    python -m tests.fuzz 4711 4712 --keep /tmp/out   # one of them again, its file kept

Input ``n`` is the same on every machine that has the same packages. Each runs in one of a few
worker processes, so that a crash of native code, more than 5 seconds of one call and more than
2 GB are found, too. Only a :class:`~onnx_net2net.errors.Net2NetError` may come out of a call.
"""
