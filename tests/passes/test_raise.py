"""Soup as exporters write it, with symbolic batch sizes."""


def test_gelu_of_the_torchscript_exporter(rewrites):
    rewrites("""graph @f<B in 1..8>(%x: f32[B,4]) -> f32[B,4] {
      %r: f32[] = const 1.4142135
      %one: f32[] = const 1.0
      %half: f32[] = const 0.5
      %0: f32[B,4] = div(%x, %r)
      %1: f32[B,4] = erf(%0)
      %2: f32[B,4] = add(%1, %one)
      %3: f32[B,4] = mul(%x, %2)
      %4: f32[B,4] = mul(%3, %half)
      return %4
    }""", "raise", """graph @f<B in 1..8>(%x: f32[B,4]) -> f32[B,4] {
      %0: f32[B,4] = gelu(%x)
      return %0
    }""")


LAYER_NORM = """graph @f<B in 1..8>(%x: f32[B,3,4], %g: f32[4], %c: f32[4]) -> f32[B,3,4] {{
  %0: f32[B,3,1] = mean(%x) {{axes=({axis},), keepdims=true}}
  %1: f32[B,3,4] = sub(%x, %0)
  %two: f32[] = const 2.0
  %2: f32[B,3,4] = pow(%1, %two)
  %3: f32[B,3,1] = mean(%2) {{axes=(2,), keepdims=true}}
  %eps: f32[] = const 0.5
  %4: f32[B,3,1] = add(%3, %eps)
  %5: f32[B,3,1] = sqrt(%4)
  %6: f32[B,3,4] = div(%1, %5)
  %7: f32[B,3,4] = mul(%6, %g)
  %8: f32[B,3,4] = add(%7, %c)
  return %8
}}"""


def test_layer_norm_with_scale_and_bias(rewrites):
    rewrites(LAYER_NORM.format(axis=2), "simplify,raise",
             """graph @f<B in 1..8>(%x: f32[B,3,4], %g: f32[4], %c: f32[4]) -> f32[B,3,4] {
      %0: f32[B,3,4] = layer_norm(%x, %g, %c) {axis=2, eps=0.5}
      return %0
    }""")


def test_rms_norm(rewrites):
    rewrites("""graph @f<B in 1..8>(%x: f32[B,4], %g: f32[4]) -> f32[B,4] {
      %0: f32[B,4] = mul(%x, %x)
      %1: f32[B,1] = mean(%0) {axes=(1,), keepdims=true}
      %eps: f32[] = const 0.25
      %2: f32[B,1] = add(%1, %eps)
      %3: f32[B,1] = sqrt(%2)
      %4: f32[B,1] = reciprocal(%3)
      %5: f32[B,4] = mul(%x, %4)
      %6: f32[B,4] = mul(%g, %5)
      return %6
    }""", "raise", """graph @f<B in 1..8>(%x: f32[B,4], %g: f32[4]) -> f32[B,4] {
      %0: f32[B,4] = rms_norm(%x, %g) {axis=1, eps=0.25}
      return %0
    }""")


ATTENTION = """graph @f<B in 1..4>(%q: f32[B,2,3,4], %k: f32[B,2,3,4], %v: f32[B,2,3,4]) -> {type} {{
  %0: f32[B,2,4,3] = transpose(%k) {{perm=(0, 1, 3, 2)}}
  %1: f32[B,2,3,3] = matmul(%q, %0)
  %s: f32[] = const 2.0
  %2: f32[B,2,3,3] = div(%1, %s)
  %m: f32[3,3] = const {mask}
  %3: f32[B,2,3,3] = add(%2, %m)
  %4: f32[B,2,3,3] = softmax(%3) {{axis=3}}
  %5: f32[B,2,3,4] = matmul(%4, %v)
  return {results}
}}"""
ONE = {"type": "f32[B,2,3,4]", "results": "%5"}
CAUSAL = "[[0.0, -inf, -inf], [0.0, 0.0, -inf], [0.0, 0.0, 0.0]]"


def test_causal_attention(rewrites):
    rewrites(ATTENTION.format(mask=CAUSAL, **ONE), "simplify,raise", """
    graph @f<B in 1..4>(%q: f32[B,2,3,4], %k: f32[B,2,3,4], %v: f32[B,2,3,4]) -> f32[B,2,3,4] {
      %0: f32[B,2,3,4] = attention(%q, %k, %v) {scale=0.5, causal=true}
      return %0
    }""")


def test_attention_with_another_mask(rewrites):
    mask = "[[0.0, 1.0, 0.0], [0.0, 0.0, 2.0], [0.0, 0.0, 0.0]]"
    rewrites(ATTENTION.format(mask=mask, **ONE), "simplify,raise", f"""
    graph @f<B in 1..4>(%q: f32[B,2,3,4], %k: f32[B,2,3,4], %v: f32[B,2,3,4]) -> f32[B,2,3,4] {{
      %m: f32[3,3] = const {mask}
      %0: f32[B,2,3,4] = attention(%q, %k, %v, %m) {{scale=0.5}}
      return %0
    }}""")


def test_attention_whose_weights_are_also_a_result_stays(rewrites):
    ctx = rewrites(
        ATTENTION.format(mask=CAUSAL, type="(f32[B,2,3,4], f32[B,2,3,3])", results="%5, %4"), "raise",
        ATTENTION.format(mask=CAUSAL, type="(f32[B,2,3,4], f32[B,2,3,3])", results="%5, %4"))
    assert not ctx.log


def test_rotary_needs_equal_halves(rewrites, keeps):
    text = """graph @f<B in 1..4>(%x: f32[B,3,4], %f: f32[3,2], %h: f32[3,2]) -> f32[B,3,4] {{
      %a: f32[3,4] = concat(%f, {second}) {{axis=1}}
      %cos: f32[3,4] = cos(%a)
      %sin: f32[3,4] = sin(%a)
      %low: f32[B,3,2] = slice(%x) {{starts=(0, 0, 0), stops=(B, 3, 2), steps=(1, 1, 1)}}
      %high: f32[B,3,2] = slice(%x) {{starts=(0, 0, 2), stops=(B, 3, 4), steps=(1, 1, 1)}}
      %0: f32[B,3,2] = neg(%high)
      %1: f32[B,3,4] = concat(%0, %low) {{axis=2}}
      %2: f32[B,3,4] = mul(%x, %cos)
      %3: f32[B,3,4] = mul(%1, %sin)
      %4: f32[B,3,4] = add(%2, %3)
      return %4
    }}"""
    rewrites(text.format(second="%f"), "raise", """
    graph @f<B in 1..4>(%x: f32[B,3,4], %f: f32[3,2], %h: f32[3,2]) -> f32[B,3,4] {
      %a: f32[3,4] = concat(%f, %f) {axis=1}
      %cos: f32[3,4] = cos(%a)
      %sin: f32[3,4] = sin(%a)
      %0: f32[3,2] = slice(%cos) {starts=(0, 0), stops=(3, 2), steps=(1, 1)}
      %1: f32[3,2] = slice(%sin) {starts=(0, 0), stops=(3, 2), steps=(1, 1)}
      %2: f32[B,3,4] = rotary_embedding(%x, %0, %1)
      return %2
    }""")
    ctx = keeps(text.format(second="%h"), "raise")
    assert any("halves of cos may differ" in r.reason for r in ctx.refusals)


def test_hard_swish(rewrites):
    rewrites("""graph @f(%x: f32[4]) -> f32[4] {
      %three: f32[] = const 3.0
      %zero: f32[] = const 0.0
      %six: f32[] = const 6.0
      %0: f32[4] = add(%x, %three)
      %1: f32[4] = clip(%0, %zero, %six)
      %2: f32[4] = mul(%x, %1)
      %3: f32[4] = div(%2, %six)
      return %3
    }""", "raise", """graph @f(%x: f32[4]) -> f32[4] {
      %0: f32[4] = hard_swish(%x)
      return %0
    }""")


def test_repeated_heads_of_one_token_have_no_axis_of_their_own(keeps):
    """Grouped queries of one token: key and value come straight from a projection of rank 2."""
    ctx = keeps("""graph @f(%q: f32[1,4,1,3], %k: f32[1,6], %v: f32[1,6]) -> f32[1,4,1,3] {
      %0: f32[1,2,1,1,3] = reshape(%k) {shape=(1, 2, 1, 1, 3)}
      %1: f32[1,2,2,1,3] = broadcast_to(%0) {shape=(1, 2, 2, 1, 3)}
      %2: f32[1,4,1,3] = reshape(%1) {shape=(1, 4, 1, 3)}
      %3: f32[1,2,1,1,3] = reshape(%v) {shape=(1, 2, 1, 1, 3)}
      %4: f32[1,2,2,1,3] = broadcast_to(%3) {shape=(1, 2, 2, 1, 3)}
      %5: f32[1,4,1,3] = reshape(%4) {shape=(1, 4, 1, 3)}
      %6: f32[1,4,1,3] = attention(%q, %2, %5)
      return %6
    }""", "raise")
    assert any(r.reason == "no axis of heads" for r in ctx.refusals)


def test_a_factor_near_the_largest_number_is_no_scale(keeps):
    """k * c is infinite, and zero times it NaN; with c in the scale it would be 0. Also where the scale is small."""
    for scale in ("0.5", "1e-300"):
        ctx = keeps(f"""graph @f(%q: f64[2,3,2], %k: f64[2,3,2], %v: f64[2,3,2]) -> f64[2,3,2] {{
          %0: f64[] = const 1.7976931348623157e+308
          %1: f64[2,3,2] = mul(%k, %0)
          %2: f64[2,3,2] = attention(%q, %1, %v) {{scale={scale}}}
          return %2
        }}""", "raise")
        assert any("no scale" in r.reason for r in ctx.refusals)
