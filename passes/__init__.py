"""Passes: Graph -> Graph, one pass a file, imported as `effcc.passes`.

`PASSES` names them for pipelines; a module is imported when its pass is first asked for.
"""

PASSES = {
    "block-sparse": "effcc.passes.block_sparse:BlockSparse",
    "channels-last": "effcc.passes.channels_last:ChannelsLast",
    "compress-weights": "effcc.passes.compress_weights:CompressWeights",
    "cse": "effcc.passes.cse:CommonSubexpressions",
    "dce": "effcc.passes.dce:DeadCode",
    "decompose": "effcc.passes.decompose:Decompose",
    "finercut": "effcc.passes.finercut:FinerCut",
    "fold": "effcc.passes.fold:Fold",
    "fold-scales": "effcc.passes.fold_scales:FoldScales",
    "fuse": "effcc.passes.fuse:Fuse",
    "half": "effcc.passes.half:Half",
    "horizontal": "effcc.passes.horizontal:Horizontal",
    "int4-weights": "effcc.passes.int4_weights:Int4Weights",
    "int8-weights": "effcc.passes.int8_weights:Int8Weights",
    "integer-arithmetic": "effcc.passes.integer_arithmetic:IntegerArithmetic",
    "magnitude": "effcc.passes.magnitude:Magnitude",
    "raise": "effcc.passes.raise_:Raise",
    "simplify": "effcc.passes.simplify:Simplify",
    "sink-views": "effcc.passes.sink_views:SinkViews",
    "static-int8": "effcc.passes.static_int8:StaticInt8",
    "tome": "effcc.passes.tome:Tome",
    "tome-unmerge": "effcc.passes.tome_unmerge:TomeUnmerge",
    "transposed-convs": "effcc.passes.transposed_convs:TransposedConvs",
    "two-four": "effcc.passes.two_four:TwoFour",
}

EXACT = "fold,simplify,cse,raise,fold-scales,sink-views,simplify,fold,cse,dce"
"""What every target's default pipeline begins with."""
