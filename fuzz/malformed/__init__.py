"""Files that are broken: ONNX models, IR text and artifacts, mutated, against everything that reads files.

    effcc fuzz --malformed 20000 --jobs 2

    corpus.py      the whole files that are broken: small models, texts, artifacts
    octets.py      changes to bytes, whatever they mean
    models.py      changes to ONNX models: fields, names, sizes, constants, nesting, recursion, external data
    texts.py       changes to IR text: characters, tokens, lines
    artifacts.py   changes to artifacts: zip structure, JSON, entries, with their hashes put right or not
    law.py         what must hold of a reader: it works or refuses in one line; in time, in memory, writing nowhere else
    campaign.py    worker processes under a watchdog, findings, what was done so far
"""
