"""Proofs that need no trust in the log: Merkle tree, leaf bytes, signed notes, checkpoints, proof files, tiles.

Pure: bytes in, values or typed errors out. No module here reads a file, a clock or a random source; times, salts and
keys are arguments. Every format is a published standard (RFC 9162, RFC 9901, C2SP) or specified in ``docs/formats/``.
"""
