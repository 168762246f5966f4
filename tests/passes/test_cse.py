def test_equal_ops_merge_in_cascade(rewrites):
    rewrites("""graph @f(%x: f32[2]) -> f32[2] {
      %a: f32[2] = exp(%x)
      %b: f32[2] = exp(%x)
      %c: f32[2] = add(%a, %x)
      %d: f32[2] = add(%x, %b)
      %e: f32[2] = mul(%c, %d)
      return %e
    }""", "cse", """graph @f(%x: f32[2]) -> f32[2] {
      %a: f32[2] = exp(%x)
      %c: f32[2] = add(%a, %x)
      %e: f32[2] = mul(%c, %c)
      return %e
    }""")


def test_equal_constants_merge_unequal_zeros_do_not(rewrites):
    rewrites("""graph @f() -> (f32[2], f32[2], f32[2]) {
      %a: f32[2] = const [0.0, 1.0]
      %b: f32[2] = const [-0.0, 1.0]
      %c: f32[2] = const [0.0, 1.0]
      return %a, %b, %c
    }""", "cse", """graph @f() -> (f32[2], f32[2], f32[2]) {
      %a: f32[2] = const [0.0, 1.0]
      %b: f32[2] = const [-0.0, 1.0]
      return %a, %b, %a
    }""")


def test_what_must_not_merge(keeps):
    keeps("""graph @f(%x: f32[2], %y: f32[2]) -> (f32[2], f32[2], f32[2], f32[2], f32[2], f32[2]) {
      %a: f32[2] = sub(%x, %y)
      %b: f32[2] = sub(%y, %x)
      %c: f32[2] = leaky_relu(%x) {alpha=0.0}
      %d: f32[2] = leaky_relu(%x) {alpha=-0.0}
      %e: f32[2] = max(%x, %y)
      %g: f32[2] = max(%y, %x)
      return %a, %b, %c, %d, %e, %g
    }""", "cse")
