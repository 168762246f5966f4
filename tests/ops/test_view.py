import torch
from effcc.ops.view import *
def test_quick(agree):
    x = torch.arange(24.).reshape(2,3,4)
    agree(Reshape((4,6)), x)
    agree(Transpose((2,0,1)), x)
