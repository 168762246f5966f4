"""The ops, one file a family. `effcc.ir.op.load_ops()` imports them all."""
