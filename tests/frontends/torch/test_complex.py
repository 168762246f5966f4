"""Complex tensors as pairs of real ones: arithmetic, views, Fourier transforms, arguments and results."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from effcc.frontends.torch import backend


def r(*shape: int) -> torch.Tensor:
    return torch.randn(*shape)


def c(*shape: int) -> torch.Tensor:
    return torch.complex(r(*shape), r(*shape))


CASES = {
    "arithmetic": (lambda x, y: (x + y, x - 2 * y, x * y, -x, x / 3, x * 1j + 1, x + y.real), c(3, 4), c(4)),
    "parts": (lambda x: (x.real, x.imag, x.abs(), x.angle(), torch.view_as_real(x), x.conj().imag), c(3, 4)),
    "made of parts": (lambda x, y: (torch.complex(x, y), torch.view_as_complex(torch.stack([x, y], -1))), r(3), r(3)),
    "polar": (lambda x, y: torch.view_as_real(torch.polar(x, y)), r(3, 4).abs(), r(3, 4)),
    "from real": (lambda x: (x.to(torch.complex64) * x).imag, r(3)),
    "views": (lambda x: (x.T, x[1:, ::2], x.reshape(4, 3), x.unsqueeze(0).expand(2, 3, 4), torch.cat([x, x])), c(3, 4)),
    "rotary": (
        lambda x, f: torch.view_as_real(torch.view_as_complex(x.reshape(2, 5, 4, 2)) * f).flatten(2),
        r(2, 5, 8),
        c(5, 4),
    ),
    "fft": (lambda x: (torch.fft.fft(x).real, torch.fft.ifft(x), torch.fft.fft(x, norm="ortho")), r(3, 60)),
    "fft of a prime": (lambda x: torch.fft.ifft(torch.fft.fft(x)), c(2, 37)),
    "fftn": (lambda x: torch.fft.fftn(x, dim=(1, 2)).real, r(2, 16, 12)),
    "rfft": (lambda x: (torch.fft.rfft(x), torch.fft.rfft(x[:, :15]), torch.fft.rfft2(x.reshape(3, 5, 6))), r(3, 30)),
    "irfft": (lambda x: (torch.fft.irfft(x), torch.fft.irfft(x, n=15), torch.fft.irfft2(x.reshape(2, 3, 8))), c(6, 8)),
    "hfft": (lambda x: (torch.fft.hfft(x), torch.fft.ihfft(x.real)), c(3, 9)),
    "stft": (lambda x: torch.stft(x, 16, 4, window=torch.hann_window(16), return_complex=True).abs(), r(2, 64)),
}


@pytest.mark.parametrize("name", CASES)
def test_equals_torch(name: str) -> None:
    torch.manual_seed(0)
    torch._dynamo.reset()
    function, *tensors = CASES[name]
    compiled: Any = torch.compile(function, backend=backend, fullgraph=True, options={"target": "interpreter"})
    ours, theirs = compiled(*tensors), function(*tensors)
    if not isinstance(theirs, tuple):
        ours, theirs = (ours,), (theirs,)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
